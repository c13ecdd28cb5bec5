"""
Cache open libvips images, one for each thread and picture.

Only one thread can use a libvips region, and most codecs lock the image while they decode,
so every thread has its own image and region.  One least-recently-used cache for the process
keeps at most ``MAX_HANDLES`` images and ``MAX_BYTES`` of decoded pixels: libvips holds
about two rows of tiles for each open tiled TIFF.
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

MAX_BYTES = LIMITS.reading_handle_memory
MAX_HANDLES = LIMITS.reading_handles
# The estimated memory of a handle without its decoded pixels.
_BASE_BYTES = 1 << 16


class Open(Protocol):
    """An open resource of one thread, or of all."""

    # The memory it uses.
    bytes: int


H = TypeVar('H', bound=Open)


_marks = threading.local()


def _this_thread() -> object:
    """An object for the calling thread; unlike thread identifiers it is never reused."""
    mark = getattr(_marks, 'mark', None)
    if mark is None:
        mark = _marks.mark = object()
    return mark


class Handle:
    """
    An open image with a region, for one thread.

    :param image: a new image of a loader.
    :param rows: the number of rows of pixels that libvips keeps decoded for it.
    """

    def __init__(self, image: pyvips.Image, rows: int = 0) -> None:
        self.image = image
        self.unpacker: Unpacker = unpacker(image)
        self._region = pyvips.Region.new(image)
        self._thread = _this_thread()
        self.bytes = _BASE_BYTES + rows * image.width * self.unpacker.raw_pixel_bytes

    def fetch(self, rect: Rect) -> npt.NDArray[Any]:
        """
        Decode pixels in the calling thread.

        :param rect: in pixels of the open image, inside it.
        :returns: an array (rect.height, rect.width, bands), unpacked.
        :raises pyvips.Error: if they cannot be decoded.
        """
        return self.unpacker(self._region.fetch(*rect), rect.width, rect.height)

    def for_this_thread(self) -> Handle:
        """A handle for the calling thread: this one, or a new one on the same image."""
        return self if self._thread is _this_thread() else Handle(self.image)


class _Thread:
    """A marker that is freed when its thread ends."""


class HandlePool:
    """
    A bounded cache of handles; safe for use by several threads.

    :param max_bytes: the bound for the sum of ``Handle.bytes``.
    :param max_handles: the bound for the number of handles.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_handles: int = MAX_HANDLES) -> None:
        self.max_bytes = max_bytes
        self.max_handles = max_handles
        self._local = threading.local()
        self._inherited: list[Open] = []
        self._reset()

    def _reset(self) -> None:
        # Requests are (index in a key, value) of owners that were closed and threads that ended.
        self._lock: CleanupLock[tuple[int, Hashable]] = CleanupLock(self._collect)
        # By owner (a file), opening and thread.
        self._handles: OrderedDict[tuple[Hashable, Hashable, int], Open] = OrderedDict()
        self._bytes = 0

    def after_fork(self) -> None:
        """
        Start with an empty cache in a forked child.

        Inherited handles are not used, because the parent moves their file position.  They
        are not freed, because that would run code that needs threads of the parent.
        """
        self._inherited.extend(self._handles.values())
        self._reset()

    @property
    def bytes(self) -> int:
        """The memory of all handles."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._handles)

    def get(self, owner: Hashable, what: Hashable, make: Callable[[], H], *,
            shared: bool = False) -> H:
        """
        The calling thread's handle, opened if it is not in the cache.

        :param owner: identifies the file.
        :param what: identifies the picture and how it is opened.
        :param make: opens a handle.
        :param shared: whether all threads use the same handle.
        """
        key = owner, what, 0 if shared else self._thread()
        with self._lock:
            found: Any = self._handles.get(key)
            if found is not None:
                self._handles.move_to_end(key)
                handle: H = found
                return handle
        handle = make()
        with self._lock:
            # Another thread may have opened it in the meantime.
            replaced = self._remove(key) if key in self._handles else None
            self._handles[key] = handle
            self._bytes += handle.bytes
            dropped = self._collect()
        del dropped, replaced
        return handle

    def discard(self, owner: Hashable, what: Hashable) -> None:
        """Close the calling thread's handle, for example after an error."""
        key = owner, what, self._thread()
        with self._lock:
            dropped = self._remove(key) if key in self._handles else None
        del dropped

    def forget(self, owner: Hashable) -> None:
        """Close all handles of a file; can be called by a finalizer."""
        self._lock.request((0, owner))

    def _thread(self) -> int:
        """The number of the calling thread from 1, never reused by another."""
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
        """
        Remove unneeded handles and those beyond the bounds.

        Call this with the lock held; free the result without the lock.
        """
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
    """A counter that is safe for use by several threads."""

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
