"""
Cache whole decoded pictures and computed levels, in memory or in temporary files.

One cache per process (``cached_levels``): each level is made once and shared by all threads
and all sources of the same file.  It keeps at most ``MAX_MEMORY`` bytes in memory and
``MAX_DISK`` bytes in temporary files, not counting the latest level.
"""

from __future__ import annotations

import errno
import mmap
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.files import HAS_PREAD, SHARES_DESCRIPTORS, after_fork_in_child, reserve, write_at
from ..base.limits import LIMITS
from ..base.threads import CleanupLock

MAX_MEMORY = LIMITS.reading_memory
MAX_DISK = LIMITS.reading_disk
LARGE_PICTURE = LIMITS.reading_large
# Bytes per write.  Measured on a virtual machine with Linux: large writes 2 s per GB,
# writes of this size 0.3 s.
_WRITE_BYTES = 1 << 16
MAX_LEVEL_MEMORY = LIMITS.reading_image_memory


class CachedLevel:
    """
    Pixels in memory or in a temporary file, filled by any number of threads.

    :param shape: (rows, cols, bands), also of the read-only array ``pixels``.
    :param dtype: of the samples.
    :raises TileSourceError: if there is not enough memory or disk space.
    """

    # See ``CacheItem``; a ``LazyLevel`` may be incomplete.
    complete = True

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.nbytes = shape[0] * shape[1] * shape[2] * dtype.itemsize
        self.on_disk = self.nbytes > MAX_LEVEL_MEMORY
        # On Windows a memory map may not show later writes to the file, so there the map
        # itself is filled.
        self._is_written = self.on_disk and HAS_PREAD
        self._file: Any = None
        try:
            if self.on_disk:
                self._array = self._reserve()
            else:
                self._array = np.empty(shape, dtype)
        except (OSError, ValueError, MemoryError) as exc:
            raise TileSourceError(self._no_room(exc)) from exc
        self.pixels: npt.NDArray[Any] = self._array.view()
        self.pixels.flags.writeable = False

    def _reserve(self) -> npt.NDArray[Any]:
        """Map a temporary file whose disk space is allocated in advance."""
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if free < self.nbytes:
            raise OSError(errno.ENOSPC, f'only {free} bytes are free')
        # finish() closes it; the array stays valid.
        self._file = tempfile.TemporaryFile(  # noqa: SIM115
            prefix='large_image_source_vips_')
        reserve(self._file.fileno(), 0, self.nbytes)
        mapped = mmap.mmap(self._file.fileno(), self.nbytes,
                           access=mmap.ACCESS_READ if self._is_written else mmap.ACCESS_WRITE)
        return np.frombuffer(mapped, self.dtype).reshape(self.shape)

    def _no_room(self, exc: BaseException) -> str:
        place = f'in {tempfile.gettempdir()!r}' if self.on_disk else 'in memory'
        return f'Not enough space for {self.nbytes} bytes of decoded pixels {place}: {exc}'

    def put(self, top: int, rows: npt.NDArray[Any], left: int = 0) -> None:
        """
        Fill a rectangle.

        :param top: its first row in the level.
        :param rows: an array (rows, cols, bands).
        :param left: its first column in the level.
        :raises TileSourceError: if the disk is full.
        """
        if not self._is_written:
            self._array[top:top + rows.shape[0], left:left + rows.shape[1]] = rows
            return
        if rows.shape[1] == self.shape[1]:
            rows = rows.reshape(1, -1)
        try:
            for number, row in enumerate(rows):
                # Writing to the map instead would cost a page fault per page, and SIGBUS if
                # the disk is full.
                self._write(((top + number) * self.shape[1] + left), row)
        except OSError as exc:
            raise TileSourceError(self._no_room(exc)) from exc

    def fill_file(self, write: Callable[[int], bool]) -> bool:
        """
        Fill the temporary file through its descriptor.

        :param write: writes all pixels at the position of a descriptor and returns
            True, or writes nothing and returns False.
        :returns: whether the pixels were written; False for a level in memory.
        """
        if not (self._is_written and SHARES_DESCRIPTORS):
            return False
        self._file.seek(0)
        return write(self._file.fileno())

    def _write(self, pixel: int, values: npt.NDArray[Any]) -> None:
        """Write consecutive pixels."""
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        offset = pixel * self.shape[2] * self.dtype.itemsize
        for start in range(0, len(data), _WRITE_BYTES):
            write_at(self._file.fileno(), data[start:start + _WRITE_BYTES], offset + start)

    def finish(self) -> CachedLevel:
        """Close the descriptor; the file is removed with the last array that uses it."""
        if self._file is not None:
            self._file.close()
        return self


class CacheItem(Protocol):
    """An item of a ``LevelCache``."""

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""

    @property
    def on_disk(self) -> bool:
        """Whether it is in a temporary file."""

    @property
    def complete(self) -> bool:
        """Whether all its pixels are there."""


P = TypeVar('P', bound=CacheItem)


class _Slot:
    """The cache entry of a level: being made, made, or failed."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.made: Any = None
        self.failure = ''

    @property
    def bytes(self) -> int:
        return 0 if self.made is None else int(self.made.nbytes)

    @property
    def on_disk(self) -> bool:
        return self.made is not None and bool(self.made.on_disk)


class LevelCache:
    """
    A least-recently-used cache of levels; safe for use by several threads.

    :param max_memory: the bound in bytes for levels in memory.
    :param max_disk: the bound in bytes for levels in temporary files.
    """

    def __init__(self, max_memory: int = MAX_MEMORY, max_disk: int = MAX_DISK) -> None:
        self.max_memory = max_memory
        self.max_disk = max_disk
        self._slots: OrderedDict[tuple[Hashable, Hashable], _Slot] = OrderedDict()
        self._inherited: list[_Slot] = []
        # The requests are owners that were closed.
        self._lock: CleanupLock[Hashable] = CleanupLock(self._collect)

    def after_fork(self) -> None:
        """
        Keep only complete levels in a forked child, which has no threads to finish the
        others.

        The others are not freed, because freeing an open image would run code that needs
        threads of the parent.
        """
        gone = self._lock.requests
        self._lock = CleanupLock(self._collect)
        slots, self._slots = self._slots, OrderedDict()
        for key, slot in slots.items():
            if slot.done.is_set() and slot.made is not None and slot.made.complete:
                self._slots[key] = slot
            else:
                self._inherited.append(slot)
        for owner in gone:
            self.forget(owner)

    def peek(self, owner: Hashable, what: Hashable) -> Any:
        """Return a level if it is cached, else None."""
        slot = self._slots.get((owner, what))
        return None if slot is None else slot.made

    def get(self, owner: Hashable, what: Hashable, make: Callable[[], P]) -> P:
        """
        Return a level; if it is not cached, the first caller makes it and others wait.

        :param owner: the file.
        :param what: the key of the level within the file.
        :param make: makes the level.
        :raises TileSourceError: what ``make`` raised; nothing is cached then.
        """
        key = owner, what
        with self._lock:
            slot = self._slots.get(key)
            mine = slot is None
            if slot is None:
                slot = self._slots[key] = _Slot()
            self._slots.move_to_end(key)
        if mine:
            self._make(key, slot, make)
        slot.done.wait()
        if slot.failure:
            raise TileSourceError(slot.failure)
        made: P = slot.made
        return made

    def _make(self, key: tuple[Hashable, Hashable], slot: _Slot,
              make: Callable[[], CacheItem]) -> None:
        """Make a level; wake the waiting threads also after an error."""
        # They get the message only: an exception would keep its traceback, and so open
        # files.
        slot.failure = 'Decoding was interrupted in another thread'
        try:
            slot.made = make()
            slot.failure = ''
        except TileSourceError as exc:
            slot.failure = str(exc)
            raise
        finally:
            with self._lock:
                if slot.failure and self._slots.get(key) is slot:
                    del self._slots[key]
                dropped = self._collect()
            slot.done.set()
            del dropped

    def forget(self, owner: Hashable) -> None:
        """Drop all levels of a file; safe to call from a finalizer."""
        self._lock.request(owner)

    def bytes(self, *, on_disk: bool) -> int:
        """The bytes of all levels in memory, or in temporary files."""
        with self._lock:
            return self._bytes(on_disk)

    def _bytes(self, on_disk: bool) -> int:
        """The same for a caller that holds the lock."""
        return sum(slot.bytes for slot in self._slots.values() if slot.on_disk == on_disk)

    def _collect(self) -> list[_Slot]:
        """Remove levels, with the lock held; free the result without it."""
        dropped: list[_Slot] = []
        while self._lock.requests:
            owner = self._lock.requests.popleft()
            dropped.extend(self._slots.pop(key) for key in list(self._slots) if key[0] == owner)
        for on_disk, bound in ((False, self.max_memory), (True, self.max_disk)):
            held = self._bytes(on_disk)
            for key, slot in list(self._slots.items())[:-1]:
                if held <= bound:
                    break
                if slot.done.is_set() and slot.on_disk == on_disk:
                    held -= slot.bytes
                    dropped.append(self._slots.pop(key))
        return dropped


cached_levels = LevelCache()
after_fork_in_child(cached_levels.after_fork)
