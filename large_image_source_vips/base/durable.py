"""
Write files so that they survive a crash: sync to disk, lock, create or replace as a whole.

Linux, macOS and Windows have different calls for this, and file systems may lack some.
"""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress
from typing import Any

from . import files

# Beyond the end of any file: on Windows other processes cannot read locked bytes.
_LOCKED_BYTE = 1 << 62

_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK}


def append_at(descriptor: int, buffers: list[Any], offset: int) -> None:
    """
    Write several buffers, one after the other.

    :param descriptor: of the file.
    :param buffers: C-contiguous memory: ``bytes`` or arrays.
    :param offset: the position of the first byte.
    :raises OSError: if writing fails; a part may have been written then.
    """
    done = 0
    if hasattr(os, 'pwritev'):
        # One call for a whole record, so that other processes rarely see a part of it.
        done = os.pwritev(descriptor, buffers, offset)
    for buffer in buffers:
        view = memoryview(buffer)
        if done >= view.nbytes:
            done -= view.nbytes
            offset += view.nbytes
            continue
        files.write_at(descriptor, view.cast('B')[done:], offset + done)
        offset, done = offset + view.nbytes, 0


def sync(descriptor: int) -> None:
    """
    Write the data of a file to the disk.

    :raises OSError: if that fails, also if the file system cannot do it.
    """
    os.fsync(descriptor)


def sync_folder(folder: str) -> None:
    """Write the names in a folder to the disk; Windows does this itself."""
    if os.name == 'nt':
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        # Some file systems cannot sync a folder.
        if exc.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """
    Lock a file for this process, without waiting; the lock is released when the process
    ends.

    :param descriptor: of the file, open for writing.
    :returns: False if another process holds the lock, or the file system has no locks.
    """
    try:
        if os.name == 'nt':
            import msvcrt  # type: ignore[unreachable, unused-ignore]  # Windows only

            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(  # type: ignore[attr-defined, unused-ignore]  # Windows only
                descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def replace_file(path: str, data: bytes) -> None:
    """
    Create or replace a file as a whole, and write it to the disk.

    :raises OSError: if that fails; an existing file is unchanged then.
    """
    with _complete_file(path, data) as name:
        os.replace(name, path)
    with suppress(PermissionError):
        sync_folder(os.path.dirname(path))


def create_file(path: str, data: bytes) -> bool:
    """
    Create a file as a whole, if there is none.

    :returns: False if the file exists.
    :raises OSError: if it cannot be created.
    """
    with _complete_file(path, data) as name:
        try:
            os.link(name, path)
        except FileExistsError:
            return False
        except OSError:
            # A file system without hard links.
            if os.path.exists(path):
                return False
            os.rename(name, path)
    return True


class _complete_file:  # noqa: N801 - a context manager
    """A temporary file with some data beside a path; removed at the end of the context."""

    def __init__(self, path: str, data: bytes) -> None:
        self._name = f'{path}.{uuid.uuid4().hex[:12]}.tmp'
        self._data = data

    def __enter__(self) -> str:
        descriptor = os.open(self._name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(
            os, 'O_BINARY', 0), 0o666)
        try:
            files.write_at(descriptor, self._data, 0)
            os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            os.unlink(self._name)
            raise
        os.close(descriptor)
        return self._name

    def __exit__(self, *_exc: object) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._name)
