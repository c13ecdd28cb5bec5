"""
Read and write files at a position, and create temporary files, on all systems.

Windows lacks ``pread``, ``pwrite`` and ``posix_fallocate``, and cannot remove the name of
an open file; macOS lacks some of these.  All other modules use file descriptors through
this module only.
"""

from __future__ import annotations

import errno
import functools
import os
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .limits import LIMITS

# Without these a positioned read or write is a seek and a read or write under a lock.
HAS_PREAD = hasattr(os, 'pread')
_HAS_PREADV = hasattr(os, 'preadv')
_HAS_PWRITE = hasattr(os, 'pwrite')
_HAS_FALLOCATE = hasattr(os, 'posix_fallocate')

# Whether libvips can use Python's descriptors.  On Windows the two may use different C
# libraries, each with its own descriptor numbers.
SHARES_DESCRIPTORS = HAS_PREAD

# Flags to open a file in binary mode, and a pipe without waiting for its writer.
READ_FLAGS = os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0)

# macOS and Windows refuse requests of more than 2 GiB.
_MAX_REQUEST = LIMITS.base_transfer
# The most bytes read at a time where they must be copied into the buffer.
_COPY_SIZE = 1 << 20

_locks: dict[int, threading.Lock] = {}


# The id of this process; it changes in a forked child.
process_id = os.getpid


def after_fork_in_child(action: Callable[[], None]) -> None:
    """Register a function to call in each forked child, if the system can fork."""
    register = getattr(os, 'register_at_fork', None)
    if register is not None:
        register(after_in_child=action)


def _lock_of(descriptor: int) -> threading.Lock:
    """
    The lock for a seek together with the following read or write.

    One lock for each descriptor number is enough because only this module moves the
    position of these files, no descriptor is a duplicate of another, and systems that need
    the lock do not fork.  When the number is reused for another file, so is the lock.
    """
    return _locks.get(descriptor) or _locks.setdefault(descriptor, threading.Lock())


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """
    Read bytes at a position.

    :param descriptor: of the file, which on Windows must be open with ``O_BINARY``; several
        threads can read from it at once.
    :param size: the number of bytes.
    :param offset: the position of the first byte.
    :returns: the bytes; fewer than ``size`` only at the end of the file.
    :raises OSError: if reading fails.
    """
    if size > _MAX_REQUEST:
        whole = bytearray(size)
        return bytes(whole[:read_into(descriptor, whole, offset)])
    data = _read_once(descriptor, size, offset)
    if len(data) == size or not data:
        return data
    parts = [data]
    missing = size - len(data)
    while missing and data:
        data = _read_once(descriptor, missing, offset + size - missing)
        parts.append(data)
        missing -= len(data)
    return b''.join(parts)


def _read_once(descriptor: int, size: int, offset: int) -> bytes:
    """The bytes of one read call; they may be fewer than requested."""
    return os.pread(descriptor, size, offset) if HAS_PREAD else (
        _seek_and_read(descriptor, size, offset))


def _seek_and_read(descriptor: int, size: int, offset: int) -> bytes:
    """A positioned read for systems without ``pread``."""
    with _lock_of(descriptor):
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


class PositionedReader:
    """
    An open file with its own position, for libraries that read through callbacks.

    :param descriptor: of the file; it must stay open.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def read(self, length: int) -> bytes:
        """See ``io.RawIOBase.read``."""
        data = read_at(self._descriptor, length, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int) -> int:
        """See ``io.RawIOBase.seek``."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        if base is None:
            base = os.fstat(self._descriptor).st_size
        self._position = max(0, base + offset)
        return self._position


def _as_bytes(buffer: Any) -> memoryview:
    """A view of C-contiguous memory as bytes."""
    view = memoryview(buffer)
    if view.format == 'B' and view.ndim == 1:
        return view
    return view.cast('B') if view.nbytes else memoryview(bytearray())


def read_into(descriptor: int, buffer: Any, offset: int) -> int:
    """
    Read bytes at a position into a buffer.

    :param descriptor: of the file; several threads can read from it at once.
    :param buffer: writable C-contiguous memory, such as an array or a ``bytearray``.
    :param offset: the position of the first byte in the file.
    :returns: the number of bytes read, less than the size of the buffer only at the end of
        the file.
    :raises OSError: if reading fails.
    """
    view = _as_bytes(buffer)
    size = len(view)
    read = done = _fill(descriptor, view[:_MAX_REQUEST], offset)
    while read and done < size:
        read = _fill(descriptor, view[done:done + _MAX_REQUEST], offset + done)
        done += read
    return done


def _fill(descriptor: int, view: memoryview, offset: int) -> int:
    """Fill a part of the memory; returns the number of bytes, 0 at the end of the file."""
    if _HAS_PREADV:
        return os.preadv(descriptor, [view], offset)
    data = _read_once(descriptor, min(len(view), _COPY_SIZE), offset)
    view[:len(data)] = data
    return len(data)


def write_at(descriptor: int, data: Any, offset: int) -> None:
    """
    Write bytes at a position.

    :param descriptor: of the file.
    :param data: C-contiguous memory, such as ``bytes`` or an array; all of it is written.
    :param offset: the position of the first byte in the file.
    :raises OSError: if writing fails; a part may have been written then.
    """
    view = _as_bytes(data)
    while view:
        piece = view[:_MAX_REQUEST]
        written = os.pwrite(descriptor, piece, offset) if _HAS_PWRITE else (
            _seek_and_write(descriptor, piece, offset))
        if not written:
            raise OSError(errno.EIO, 'the system wrote nothing')
        view, offset = view[written:], offset + written


def _seek_and_write(descriptor: int, data: memoryview, offset: int) -> int:
    """A positioned write for systems without ``pwrite``."""
    with _lock_of(descriptor):
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)


def reserve(descriptor: int, start: int, size: int) -> None:
    """
    Extend a file and reserve disk space for it.

    If the system or file system cannot reserve space, the file is only extended; a full
    disk then raises an error when the file is written.

    :param descriptor: of the file; its contents do not change.
    :param start: the position of the first byte to reserve.
    :param size: the number of bytes to reserve.
    :raises OSError: if there is not enough space.
    """
    if size <= 0:
        return
    if _HAS_FALLOCATE:
        try:
            os.posix_fallocate(descriptor, start, size)
        except OSError as exc:
            # The errors of file systems that cannot reserve space.
            if exc.errno not in {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}:
                raise
        else:
            return
    if os.fstat(descriptor).st_size < start + size:
        os.ftruncate(descriptor, start + size)


class ScratchFile:
    """
    A temporary file that other libraries of this process can open.

    The file is removed when it is closed or garbage-collected, and at the end of the
    process.  If the system can open a file without a name (Linux), the name is removed
    immediately, so a killed process leaves no file either.

    :param descriptor: a descriptor of the file, open for reading and writing.
    :param name: the path with which it was created.
    :param path: a path at which it can be opened until it is closed.
    """

    def __init__(self, descriptor: int, name: str, path: str) -> None:
        self.descriptor = descriptor
        self.name = name
        self.path = path
        self._finalizer = weakref.finalize(
            self, _dispose, descriptor, name if path == name else None, process_id())

    def close(self) -> None:
        """
        Free the disk space and remove the file; calling it again does nothing.

        In a forked child only the child's copy of the descriptor is closed, because the
        file belongs to the parent.  On Windows the name remains while the file is open
        somewhere else; it is removed when a later scratch file is closed or the process
        ends.
        """
        self._finalizer()


def scratch_file(prefix: str, suffix: str) -> ScratchFile:
    """
    Create a temporary file in the folder of ``tempfile`` (``TMPDIR``).

    :param prefix: the beginning of its name.
    :param suffix: the end of its name.
    :raises OSError: if it cannot be created.
    """
    descriptor, name = tempfile.mkstemp(suffix, prefix)
    path = name
    try:
        if _opens_without_name(os.path.dirname(name), _user()):
            os.unlink(name)
            path = _path_of(descriptor)
    except BaseException:
        _dispose(descriptor, name, process_id())
        raise
    return ScratchFile(descriptor, name, path)


def _path_of(descriptor: int) -> str:
    """The path of an open file in Linux' /proc, with or without a name."""
    return f'/proc/self/fd/{descriptor}'


def _user() -> int:
    """The effective user; a process that changed it may not be able to read /proc."""
    geteuid: Callable[[], int] | None = getattr(os, 'geteuid', None)
    return 0 if geteuid is None else geteuid()


@functools.cache
def _opens_without_name(folder: str, user: int) -> bool:
    """Whether a user can reopen a file in a folder after its name is removed."""
    del user
    if not os.path.isdir('/proc/self/fd'):
        return False
    descriptor, name = tempfile.mkstemp(dir=folder)
    try:
        os.unlink(name)
        again = os.open(_path_of(descriptor), READ_FLAGS)
    except OSError:
        return False
    else:
        same = os.path.sameopenfile(descriptor, again)
        os.close(again)
        return same
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(name)


# Names still to be removed, with the process that created them.  No lock protects them,
# because finalizers can run at any moment.
_left_names: deque[tuple[int, str]] = deque()


def _dispose(descriptor: int, name: str | None, owner: int) -> None:
    """Close a scratch file and remove its name, if it still has one."""
    if process_id() != owner:
        # A forked process has a copy of the descriptor, but the file is the parent's.
        os.close(descriptor)
        return
    try:
        # This frees the space even if the file is open somewhere else.  Windows refuses
        # while the file is mapped to memory; the space is then freed with the name.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
        if name is not None:
            _left_names.append((owner, name))
        _remove_left_names()


def _remove_left_names() -> None:
    """Remove the names of closed scratch files that are not open anywhere."""
    mine = process_id()
    for _ in range(len(_left_names)):
        try:
            owner, name = _left_names.popleft()
        except IndexError:  # another thread took it
            return
        if owner != mine:
            continue
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass
        except OSError:
            # Windows: it is still open somewhere.
            _left_names.append((owner, name))


# At exit finalizers run in reverse order, so this one runs after those of all scratch
# files.
weakref.finalize(_remove_left_names, _remove_left_names)
