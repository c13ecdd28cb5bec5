"""
Parse the command line, run a command, and print every error as one sentence.

The exit status is 0 without errors, 1 after any error (or if ``verify`` found damage), and
130 after Ctrl-C.  A traceback is shown only with ``--verbose``.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__
from . import convert, info, pictures, stitch, verify
from .arguments import CommandError
from .messages import one_line

PROGRAM = 'large-image-vips'
_COMMANDS = (info, convert, pictures, stitch, verify)


class _Parser(argparse.ArgumentParser):
    """A parser with errors as one sentence and exit status 1, like all other errors."""

    def error(self, message: str) -> NoReturn:
        """Raise the error; ``main`` prints it."""
        msg = f'{message}; see {self.prog} --help'
        raise CommandError(msg)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog=PROGRAM, description='Read, convert, stitch and check slides and other large images.')
    parser.add_argument('--version', action='version', version=f'{PROGRAM} {__version__}')
    shared = _Parser(add_help=False)
    shared.add_argument('--verbose', action='store_true', help='show a traceback after an error')
    commands = parser.add_subparsers(
        dest='command', required=True, metavar='COMMAND', parser_class=_Parser)
    for module in _COMMANDS:
        module.add_commands(commands, shared)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    :param arguments: the command line arguments; None for those of the process.
    :returns: the exit status.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may have characters that the terminal cannot show.
            stream.reconfigure(errors='backslashreplace')
    try:
        options = make_parser().parse_args(arguments)
        if not options.verbose:
            # Errors are raised; libvips also logs them.
            # Not by its level: reading listens to the warnings.
            logging.getLogger('pyvips').propagate = False
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = int(options.run(options))
        sys.stdout.flush()
    except KeyboardInterrupt:
        _say('interrupted')
        return 130
    except BrokenPipeError:
        # The reader of the output, such as `head`, has ended.  Without this Python would
        # report an error when it flushes the stream at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as exc:  # noqa: BLE001 - whatever fails, the user gets one sentence
        if '--verbose' in arguments:
            traceback.print_exc()
        _say(one_line(exc))
        return 1
    return status


def _show_warning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    """Print a warning as one line, without the place in the code."""
    print(f'{PROGRAM}: warning: {" ".join(str(message).split())}', file=sys.stderr)


def _say(text: str) -> None:
    print(f'{PROGRAM}: {text}', file=sys.stderr)
