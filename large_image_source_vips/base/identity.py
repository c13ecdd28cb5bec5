"""
Open regular files, and detect later changes to them.

Directories, pipes, sockets, devices and empty files are refused before they are opened.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, NamedTuple

from .errors import TileSourceError, TileSourceFileNotFoundError, shown
from .files import READ_FLAGS


class Identity(NamedTuple):
    """The size, modification time and inode of a file; if they differ, the file has changed."""

    size: int
    mtime_ns: int
    device: int
    inode: int


def file_identity(path: Any) -> Identity | None:
    """
    The identity of the file at a path.

    :param path: any value.
    :returns: None if it is not the path of an existing file.
    """
    try:
        return _identity_of(os.stat(os.fspath(path)))
    except (TypeError, ValueError, OSError):
        return None


def identity_of_descriptor(descriptor: int) -> Identity:
    """The identity of an open file."""
    return _identity_of(os.fstat(descriptor))


def absolute_path(path: Any) -> str:
    """
    A path made absolute with the current working directory.

    :param path: a str, bytes or path object.
    :raises TileSourceFileNotFoundError: if it is something else, or contains NUL.
    """
    try:
        text = os.fsdecode(path)
        if b'\0' in os.fsencode(text):
            raise ValueError(text)
        return os.path.abspath(text)
    except (TypeError, ValueError) as exc:
        msg = f'Not the path of a file: {shown(path)}'
        raise TileSourceFileNotFoundError(msg) from exc


def open_regular(path: str) -> int:
    """
    Open a regular file for reading.

    :param path: an absolute path.
    :returns: a descriptor, for the caller to close.
    :raises TileSourceFileNotFoundError: if there is no such file, or it is a directory.
    :raises TileSourceError: if it cannot be opened, is empty or is not a regular file.
    """
    try:
        # Opening a pipe or a device can block or have side effects, so check first.
        _check_regular(path, os.stat(path))
        descriptor = os.open(path, READ_FLAGS)
    except TileSourceError:
        # Other exceptions than "no such file" are OSErrors, too.
        raise
    except OSError as exc:
        if exc.errno in {errno.ENOENT, errno.ENOTDIR}:
            msg = f'No such file: {path!r}'
            raise TileSourceFileNotFoundError(msg) from exc
        msg = f'Cannot open {path!r}: {exc.strerror}'
        raise TileSourceError(msg) from exc
    try:
        _check_regular(path, os.fstat(descriptor))
    except TileSourceError:
        os.close(descriptor)
        raise
    return descriptor


def _identity_of(status: os.stat_result) -> Identity:
    return Identity(status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)


def _check_regular(path: str, status: os.stat_result) -> None:
    """Raise ``TileSourceError`` unless it is a regular file that is not empty."""
    kinds = ((stat.S_ISDIR, 'a directory'), (stat.S_ISFIFO, 'a pipe'), (stat.S_ISSOCK, 'a socket'),
             (stat.S_ISCHR, 'a device'), (stat.S_ISBLK, 'a device'))
    for is_kind, kind in kinds:
        if is_kind(status.st_mode):
            msg = f'Cannot read {path!r}: it is {kind}, not a file'
            raise (TileSourceFileNotFoundError if kind == 'a directory' else TileSourceError)(msg)
    if not status.st_size:
        msg = f'Cannot read {path!r}: it is empty'
        raise TileSourceError(msg)
