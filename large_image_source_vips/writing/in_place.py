"""
Overwrite the contents of a file that is writable but cannot be replaced.

Disk space is reserved first, so a full disk leaves the old file unchanged.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..base.errors import TileSourceError
from ..base.files import read_at, reserve, write_at
from .permissions import reason

# Bytes copied at a time.
_PIECE = 1 << 20


def fill_in_place(new: Path, final: Path) -> None:
    """
    Replace the contents of a file by those of another one.

    :param new: the file to copy.
    :param final: the file to overwrite.
    :raises TileSourceError: if it cannot be written; the text says if it is then
        incomplete.
    """
    # Its permissions may be those of a file that this process cannot read.
    os.chmod(new, 0o600)
    binary = getattr(os, 'O_BINARY', 0)
    source = os.open(new, os.O_RDONLY | binary)
    try:
        target = os.open(final, os.O_WRONLY | binary)
        try:
            _copy(source, target, final)
        finally:
            os.close(target)
    except OSError as exc:
        msg = f'{final} cannot be written: {reason(exc)}'
        raise TileSourceError(msg) from exc
    finally:
        os.close(source)


def _copy(source: int, target: int, path: Path) -> None:
    """Copy an open file over another one."""
    size, before = os.fstat(source).st_size, os.fstat(target).st_size
    try:
        reserve(target, 0, size)
    except OSError:
        os.ftruncate(target, before)
        raise
    try:
        for offset in range(0, size, _PIECE):
            write_at(target, read_at(source, _PIECE, offset), offset)
        os.ftruncate(target, size)
    except OSError as exc:
        msg = (f'{path} now has only a part of the image: {reason(exc)}  Write it again, or '
               'to another folder, where files can be replaced.')
        raise TileSourceError(msg) from exc
