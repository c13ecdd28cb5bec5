"""
Parse the command line, run a command, and print every error as one sentence.

The exit status is 0 without errors, 1 after any error (or if ``verify`` found damage),
130 after Ctrl-C, and 143 after SIGTERM.  A traceback is shown only with ``--verbose``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from .. import __version__
from . import convert, info, pictures, stitch, verify
from .arguments import CommandError
from .messages import one_line, reason

PROGRAM = 'large-image-vips'
_COMMANDS = (info, convert, pictures, stitch, verify)


class _TerminatedError(KeyboardInterrupt):
    """The process was asked to end; what it was writing is removed first."""


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
    # Before the command or behind it, which must not undo the one before.
    for place, default in ((parser, False), (shared, argparse.SUPPRESS)):
        place.add_argument('--verbose', action='store_true', default=default,
                           help='show a traceback after an error')
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
    _replace_closed_streams()
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
        with warnings.catch_warnings(), _ending_properly():
            warnings.showwarning = _show_warning
            status = int(options.run(options))
    except _TerminatedError:
        _say('terminated')
        status = 128 + signal.SIGTERM
    except KeyboardInterrupt:
        _say('interrupted')
        status = 130
    except BrokenPipeError:
        # The reader of the output, such as `head`, has ended.
        status = 1
    except Exception as exc:  # noqa: BLE001 - whatever fails, the user gets one sentence
        if '--verbose' in arguments:
            traceback.print_exc()
        _say(one_line(exc))
        status = 1
    return _flush(status)


def _replace_closed_streams() -> None:
    """Discard what is written to streams that were closed before the program started."""
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, 'w'))  # noqa: SIM115 - for the whole process


def _flush(status: int) -> int:
    """
    Write out what was printed.

    :param status: the exit status so far.
    :returns: the exit status; not 0 if the output cannot be written, for example because
        the disk is full or the program that reads it has ended.
    """
    try:
        sys.stdout.flush()
    except OSError as exc:
        # Python tries again at exit, and would report the error in its own way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if status == 0 and not isinstance(exc, BrokenPipeError):
            _say(f'the output cannot be written: {reason(exc)}')
        return status or 1
    return status


@contextlib.contextmanager
def _ending_properly() -> Iterator[None]:
    """Treat the signal that asks a process to end, as job queues send it, like Ctrl-C."""
    def end(*args: Any) -> None:
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread gets signals.
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_warning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    """Print a warning as one line, without the place in the code."""
    print(f'{PROGRAM}: warning: {" ".join(str(message).split())}', file=sys.stderr)


def _say(text: str) -> None:
    print(f'{PROGRAM}: {text}', file=sys.stderr)
