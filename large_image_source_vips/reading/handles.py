"""
Open libvips images, one for each thread and picture, a bounded number of them.

A libvips region may be used by one thread only, and most codecs decode under a
lock of the image; so every thread has an image and a region of its own.  All of
them together are a least-recently-used cache for the whole process, bounded in
bytes, because an open tiled TIFF keeps about two rows of its tiles decoded.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

import numpy.typing as npt
import pyvips

from ..base.geometry import Rect
from ..base.limits import LIMITS
from ..base.threads import CleanupLock
from .unpack import Unpacker, unpacker

# The bound for what libvips keeps decoded behind all handles together.  The
# most recent handle is kept whatever it takes.
MAX_BYTES = LIMITS.reading_handle_memory
# Each handle has a descriptor; the usual limit of a process is 1,024.
MAX_HANDLES = LIMITS.reading_handles
# What a handle takes besides its tiles.
_BASE_BYTES = 1 << 16


class Open(Protocol):
    """Something that is open for one thread."""

    # What it takes in memory.
    bytes: int


H = TypeVar('H', bound=Open)


_marks = threading.local()


def _this_thread() -> object:
    """What stands for the calling thread; unlike its identifier it is never used again."""
    mark = getattr(_marks, 'mark', None)
    if mark is None:
        mark = _marks.mark = object()
    return mark


class Handle:
    """
    An open image and a region on it, for one thread.

    :param image: fresh from its loader.
    :param rows: how many rows of pixels libvips keeps decoded behind it.
    """

    def __init__(self, image: pyvips.Image, rows: int = 0) -> None:
        self.image = image
        self.unpacker: Unpacker = unpacker(image)
        self._region = pyvips.Region.new(image)
        self._thread = _this_thread()
        self.bytes = _BASE_BYTES + rows * image.width * self.unpacker.raw_pixel_bytes

    def fetch(self, rect: Rect) -> npt.NDArray[Any]:
        """
        Pixels, decoded in the calling thread.

        :param rect: in pixels of the open image, inside it.
        :returns: an array (rect.height, rect.width, bands), unpacked.
        :raises pyvips.Error: if they cannot be decoded.
        """
        return self.unpacker(self._region.fetch(*rect), rect.width, rect.height)


    def here(self) -> Handle:
        """This image for the calling thread: a region may be used by one thread only."""
        return self if self._thread is _this_thread() else Handle(self.image)


class _Thread:
    """A mark for one thread; it goes when the thread ends."""


class HandlePool:
    """
    The handles of this process.

    :param max_bytes: the bound for the sum of ``Handle.bytes``.
    :param max_handles: the bound for their number.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_handles: int = MAX_HANDLES) -> None:
        self.max_bytes = max_bytes
        self.max_handles = max_handles
        self._local = threading.local()
        self._inherited: list[Open] = []
        self._forget_everything()

    def _forget_everything(self) -> None:
        # Its requests are owners and threads that have gone: where in a key, and what.
        self._lock: CleanupLock[tuple[int, Hashable]] = CleanupLock(self._collect)
        # By owner (a file), what is open of it, and thread.
        self._handles: OrderedDict[tuple[Hashable, Hashable, int], Open] = OrderedDict()
        self._bytes = 0

    def after_fork(self) -> None:
        """
        Open everything anew in a child process.

        What the parent opened shares its position in the file with the parent.
        It is kept, unused: freeing it would run code that expects threads
        which do not exist here.
        """
        self._inherited.extend(self._handles.values())
        self._forget_everything()

    @property
    def bytes(self) -> int:
        """The sum of the bytes behind all handles."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._handles)

    def get(self, owner: Hashable, what: Hashable, make: Callable[[], H]) -> H:
        """
        The calling thread's handle.

        :param owner: the file.
        :param what: what is open of it.
        :param make: opens it.
        """
        key = owner, what, self._thread()
        with self._lock:
            found: Any = self._handles.get(key)
            if found is not None:
                self._handles.move_to_end(key)
                handle: H = found
                return handle
        handle = make()
        with self._lock:
            self._handles[key] = handle
            self._bytes += handle.bytes
            dropped = self._collect()
        del dropped
        return handle

    def discard(self, owner: Hashable, what: Hashable) -> None:
        """Close the calling thread's handle, which may have kept something broken."""
        key = owner, what, self._thread()
        with self._lock:
            dropped = self._remove(key) if key in self._handles else None
        del dropped

    def forget(self, owner: Hashable) -> None:
        """Close all handles of a file; may be called from a finalizer."""
        self._lock.request((0, owner))

    def _thread(self) -> int:
        """The number of the calling thread, which no other thread ever has."""
        mark = getattr(self._local, 'mark', None)
        if mark is None:
            mark = self._local.mark = _Thread()
            self._local.number = next(_numbers)
            weakref.finalize(mark, self._forget_thread, self._local.number).atexit = False
        return int(self._local.number)

    def _forget_thread(self, number: int) -> None:
        """Close all handles of a thread that has ended; called by a finalizer."""
        self._lock.request((2, number))

    def _collect(self) -> list[Open]:
        """What has to go now; to be called with the lock, and dropped without it."""
        dropped: list[Open] = []
        while self._lock.requests:
            position, value = self._lock.requests.popleft()
            keys = [key for key in self._handles if key[position] == value]
            dropped.extend(self._remove(key) for key in keys)
        while len(self._handles) > 1 and (
                self._bytes > self.max_bytes or len(self._handles) > self.max_handles):
            dropped.append(self._remove(next(iter(self._handles))))
        return dropped

    def _remove(self, key: tuple[Hashable, Hashable, int]) -> Open:
        handle = self._handles.pop(key)
        self._bytes -= handle.bytes
        return handle


class _Numbers:
    """Numbers that never repeat, also with several threads asking."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def __next__(self) -> int:
        with self._lock:
            self._last += 1
            return self._last


_numbers = _Numbers()
pool = HandlePool()
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=pool.after_fork)
