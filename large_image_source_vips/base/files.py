"""
Reading, writing and temporary files on every system.

Windows has no positioned reads and writes, no ``posix_fallocate``, and does not let go
of the name of a file that is open; macOS lacks some of these.  What the package
does with descriptors goes through here, so that no other module has to know.
Every name that a system may lack is looked for once, at import.
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

# Without these a positioned read is two steps, and a lock keeps them together.
HAS_PREAD = hasattr(os, 'pread')
_HAS_PREADV = hasattr(os, 'preadv')
_HAS_PWRITE = hasattr(os, 'pwrite')
_HAS_FALLOCATE = hasattr(os, 'posix_fallocate')

# Whether libvips takes the descriptors of Python for its own.  On Windows the two may
# be built for different C libraries, each of which counts descriptors on its own.
SHARES_DESCRIPTORS = HAS_PREAD

# Opens a file as bytes, and a pipe without waiting for who writes to it.
READ_FLAGS = os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0)

# macOS and Windows refuse to move more than 2 GiB at once.
_MOST_AT_ONCE = LIMITS.base_transfer
# How much is read at once into memory that is copied from.
_COPIED = 1 << 20

_locks: dict[int, threading.Lock] = {}


def process_id() -> int:
    """Tells a forked child from its parent; 0 where there are no processes."""
    getpid: Callable[[], int] | None = getattr(os, 'getpid', None)
    return 0 if getpid is None else getpid()


def after_fork_in_child(action: Callable[[], None]) -> None:
    """Have something called in each forked child, where the system forks at all."""
    register = getattr(os, 'register_at_fork', None)
    if register is not None:
        register(after_in_child=action)


def _lock_of(descriptor: int) -> threading.Lock:
    """
    What keeps a seek and the read or write after it together.

    It belongs to the number of a descriptor, which serves because all that moves
    the position of these files goes through this module, no descriptor is a duplicate of
    another, and a system that needs the lock does not fork.  A lock whose number is
    given to another file is as good as new.
    """
    return _locks.get(descriptor) or _locks.setdefault(descriptor, threading.Lock())


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """
    Read from a position.

    On Windows the file must be open as ``O_BINARY``.

    :param descriptor: of the file; any number of threads may read from it.
    :param size: how many bytes.
    :param offset: where they start.
    :returns: the bytes; fewer than asked for only at the end of the file.
    :raises OSError: if the system cannot.
    """
    if size > _MOST_AT_ONCE:
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
    """What one request to the system gives, which may be less than was asked for."""
    return os.pread(descriptor, size, offset) if HAS_PREAD else (
        _seek_and_read(descriptor, size, offset))


def _seek_and_read(descriptor: int, size: int, offset: int) -> bytes:
    """A positioned read where the system has none."""
    with _lock_of(descriptor):
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


class PositionedReader:
    """
    A position of its own in an open file, for libraries that read by callbacks.

    :param descriptor: of the file; the caller keeps it open.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def read(self, length: int) -> bytes:
        """As ``io.RawIOBase.read``."""
        data = read_at(self._descriptor, length, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int) -> int:
        """As ``io.RawIOBase.seek``."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        if base is None:
            base = os.fstat(self._descriptor).st_size
        self._position = max(0, base + offset)
        return self._position


def _as_bytes(buffer: Any) -> memoryview:
    """C-contiguous memory as bytes."""
    view = memoryview(buffer)
    if view.format == 'B' and view.ndim == 1:
        return view
    return view.cast('B') if view.nbytes else memoryview(bytearray())


def read_into(descriptor: int, buffer: Any, offset: int) -> int:
    """
    Read from a position into memory.

    :param descriptor: of the file; any number of threads may read from it.
    :param buffer: C-contiguous memory that can be written to, such as an array or a
        ``bytearray``.
    :param offset: where in the file the bytes start.
    :returns: how many bytes were read; fewer than the buffer holds only at the end
        of the file.
    :raises OSError: if the system cannot.
    """
    view = _as_bytes(buffer)
    size = len(view)
    read = done = _fill(descriptor, view[:_MOST_AT_ONCE], offset)
    while read and done < size:
        read = _fill(descriptor, view[done:done + _MOST_AT_ONCE], offset + done)
        done += read
    return done


def _fill(descriptor: int, view: memoryview, offset: int) -> int:
    """Fill some of the memory; gives the number of bytes, 0 at the end of the file."""
    if _HAS_PREADV:
        return os.preadv(descriptor, [view], offset)
    data = _read_once(descriptor, min(len(view), _COPIED), offset)
    view[:len(data)] = data
    return len(data)


def write_at(descriptor: int, data: Any, offset: int) -> None:
    """
    Write at a position.

    :param descriptor: of the file.
    :param data: C-contiguous memory, such as ``bytes`` or an array; all of it is
        written.
    :param offset: where in the file it goes.
    :raises OSError: if the system cannot; some of it may be written then.
    """
    view = _as_bytes(data)
    while view:
        piece = view[:_MOST_AT_ONCE]
        written = os.pwrite(descriptor, piece, offset) if _HAS_PWRITE else (
            _seek_and_write(descriptor, piece, offset))
        if not written:
            raise OSError(errno.EIO, 'the system wrote nothing')
        view, offset = view[written:], offset + written


def _seek_and_write(descriptor: int, data: memoryview, offset: int) -> int:
    """A positioned write where the system has none."""
    with _lock_of(descriptor):
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)


def reserve(descriptor: int, start: int, size: int) -> None:
    """
    Make a file reach up to a position, with space on the disk where that can be had.

    Where the system or the file system cannot promise space, the file is made as long as it
    has to be, and a full disk shows when it is written.

    :param descriptor: of the file; what is in it stays.
    :param start: where the space begins.
    :param size: how many bytes are needed from there.
    :raises OSError: if there is no room.
    """
    if size <= 0:
        return
    if _HAS_FALLOCATE:
        try:
            os.posix_fallocate(descriptor, start, size)
        except OSError as exc:
            # What file systems say that cannot allocate in advance.
            if exc.errno not in {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}:
                raise
        else:
            return
    if os.fstat(descriptor).st_size < start + size:
        os.ftruncate(descriptor, start + size)


class ScratchFile:
    """
    A temporary file that others can open again.

    It goes when it is closed or collected, and at the end of the process.  Where a
    file can be opened again without its name, as on Linux, the name goes at once, so
    that not even a killed process leaves anything behind.

    :param descriptor: an open descriptor of the file, to read and write.
    :param name: the path with which it was made.
    :param path: a path at which another library of this process can open it, for as
        long as it is not closed.
    """

    def __init__(self, descriptor: int, name: str, path: str) -> None:
        self.descriptor = descriptor
        self.name = name
        self.path = path
        self._finalizer = weakref.finalize(
            self, _dispose, descriptor, name if path == name else None, process_id())

    def close(self) -> None:
        """
        Give the space back to the disk and remove the file; a second time does nothing.

        In a forked child this only closes the child's copy of the descriptor: the file
        is its parent's.  On Windows the name stays while something else has the file
        open; it is removed when the next scratch file is closed after that, or when
        the process ends.
        """
        self._finalizer()


def scratch_file(prefix: str, suffix: str) -> ScratchFile:
    """
    A new temporary file, where ``tempfile`` puts them (``TMPDIR``).

    :param prefix: how its name starts.
    :param suffix: how its name ends.
    :raises OSError: if it cannot be made.
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
    """Where Linux shows an open file, whether it has a name or not."""
    return f'/proc/self/fd/{descriptor}'


def _user() -> int:
    """As whom this process acts; one that has changed that may not look into /proc."""
    geteuid: Callable[[], int] | None = getattr(os, 'geteuid', None)
    return 0 if geteuid is None else geteuid()


@functools.cache
def _opens_without_name(folder: str, user: int) -> bool:
    """Whether an open file of a folder can be opened again by a user once its name is gone."""
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


# Names that could not be removed yet, and the process that made them.  Finalizers
# may run at any moment, so this does without a lock.
_left_names: deque[tuple[int, str]] = deque()


def _dispose(descriptor: int, name: str | None, owner: int) -> None:
    """Close a scratch file and remove its name, if it still has one."""
    if process_id() != owner:
        # A forked process has a copy of the descriptor, but not the file.
        os.close(descriptor)
        return
    try:
        # Whatever else has the file open keeps the file, not the space.  Windows
        # refuses this while another has it mapped to memory; the space then goes
        # with the name.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
        if name is not None:
            _left_names.append((owner, name))
        _remove_left_names()


def _remove_left_names() -> None:
    """Remove the names of closed scratch files that nothing has open any more."""
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
            # Windows: something has it open still.
            _left_names.append((owner, name))


# Finalizers run in the reverse order at exit: this one after those of all scratch files.
weakref.finalize(_remove_left_names, _remove_left_names)
