"""
Run the command line, in this process, in a process with pipes, or in a terminal.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

from large_image_source_vips.command_line.main import main

COMMAND = [sys.executable, '-m', 'large_image_source_vips']


class Done(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


def run(capsys, *arguments) -> Done:
    """Run a command in this process."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return Done(status, *capsys.readouterr())


def in_pipes(*arguments, **kwargs) -> Done:
    """Run a command in a process of its own whose output goes to pipes."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True,
                          check=False, **kwargs)
    return Done(done.returncode, done.stdout, done.stderr)


def in_terminal(*arguments, hide: tuple[str, ...] = ()) -> Done:
    """
    Run a command in a process of its own in a terminal of 100 columns.

    :param hide: modules that cannot be imported there.
    """
    import fcntl
    import pty
    import struct
    import termios

    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
    code = (f'import sys; sys.modules.update(dict.fromkeys({hide!r})); '
            'from large_image_source_vips.command_line.main import main; sys.exit(main())')
    with subprocess.Popen([sys.executable, '-c', code, *map(str, arguments)],
                          stdin=terminal, stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        drawn = b''
        while True:
            try:
                piece = os.read(controller, 1 << 16)
            except OSError:
                # Linux: the other side is closed.
                break
            if not piece:
                break
            drawn += piece
        os.close(controller)
        out = process.stdout.read().decode()
        status = process.wait()
    return Done(status, out, drawn.decode())
