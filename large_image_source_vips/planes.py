"""
Whole images in memory or in a temporary file, made once and shared.

A format that cannot be read at random is decoded once; a level that a file
lacks is computed once.  What comes of it is a *plane*: a read-only array that
all threads, and all sources on the same file, read from.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
from large_image.exceptions import TileSourceError

# The bounds for all planes of the process together, in RAM and in temporary
# files; the plane made last is kept whatever it takes.
MAX_MEMORY = 512 << 20
MAX_DISK = 32 << 30
# A single plane beyond this goes to a temporary file.
MAX_PLANE_MEMORY = 256 << 20


class PlaneWriter:
    """
    A plane that is being filled, row by row, from any number of threads.

    :param shape: (rows, cols, bands).
    :param dtype: of the samples.
    :raises TileSourceError: if there is no room for it.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.bytes = shape[0] * shape[1] * shape[2] * dtype.itemsize
        self.on_disk = self.bytes > MAX_PLANE_MEMORY
        self._array: npt.NDArray[Any] | None = None
        self._file: Any = None
        try:
            if self.on_disk:
                free = shutil.disk_usage(tempfile.gettempdir()).free
                if free < self.bytes:
                    raise OSError(errno.ENOSPC, f'only {free} bytes are free')
                # Closed by finish(), or with this object.
                self._file = tempfile.TemporaryFile(  # noqa: SIM115
                    prefix='large_image_source_vips_')
            else:
                self._array = np.empty(shape, dtype)
        except (OSError, MemoryError) as exc:
            raise TileSourceError(self._no_room(exc)) from exc

    def _no_room(self, exc: BaseException) -> str:
        place = f'in {tempfile.gettempdir()!r}' if self.on_disk else 'in memory'
        return f'No room for {self.bytes} bytes of decoded pixels {place}: {exc}'

    def put(self, top: int, rows: npt.NDArray[Any]) -> None:
        """
        Fill some rows.

        :param top: the first row.
        :param rows: an array (rows, cols, bands) as wide as the plane.
        """
        if self._array is not None:
            self._array[top:top + rows.shape[0]] = rows
            return
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        offset = top * self.shape[1] * self.shape[2] * self.dtype.itemsize
        try:
            # Written, not mapped: a full disk is an error here and would be a
            # signal there.
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written
        except OSError as exc:
            raise TileSourceError(self._no_room(exc)) from exc

    def finish(self) -> npt.NDArray[Any]:
        """The plane, read-only; a temporary file goes when the plane does."""
        if self._array is not None:
            self._array.flags.writeable = False
            return self._array
        try:
            with self._file:
                mapped = mmap.mmap(self._file.fileno(), self.bytes, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as exc:
            raise TileSourceError(self._no_room(exc)) from exc
        return np.frombuffer(mapped, self.dtype).reshape(self.shape)


class _Slot:
    """The place of one plane: being made, there, or failed."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.plane: npt.NDArray[Any] | None = None
        self.failure = ''
        self.on_disk = False

    @property
    def bytes(self) -> int:
        return 0 if self.plane is None else self.plane.nbytes


class PlaneCache:
    """
    The planes of this process.

    :param max_memory: the bound in bytes for those in memory.
    :param max_disk: the bound in bytes for those in temporary files.
    """

    def __init__(self, max_memory: int = MAX_MEMORY, max_disk: int = MAX_DISK) -> None:
        self.max_memory = max_memory
        self.max_disk = max_disk
        self._slots: OrderedDict[tuple[Hashable, Hashable], _Slot] = OrderedDict()
        self._lock = threading.Lock()
        # Owners that have gone, to be forgotten when the lock is free.
        self._gone: deque[Hashable] = deque()

    def after_fork(self) -> None:
        """Keep what is finished; what another thread of the parent was making never will be."""
        self._lock = threading.Lock()
        finished = [(key, slot) for key, slot in self._slots.items() if slot.done.is_set()]
        self._slots = OrderedDict(finished)

    def get(self, owner: Hashable, what: Hashable,
            make: Callable[[], PlaneWriter]) -> npt.NDArray[Any]:
        """
        A plane, made by the first who asks; the others wait.

        :param owner: the file.
        :param what: what of it the plane shows.
        :param make: gives a writer whose rows have all been put.
        :raises TileSourceError: whatever ``make`` raised; nothing is kept then.
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
        assert slot.plane is not None  # done, and no failure
        return slot.plane

    def _make(self, key: tuple[Hashable, Hashable], slot: _Slot,
              make: Callable[[], PlaneWriter]) -> None:
        """Make a plane; whatever happens, those who wait are told."""
        # Those who wait get the words only: an error that is kept would keep
        # what it happened to, open files among it.
        slot.failure = 'Making the pixels was interrupted'
        try:
            writer = make()
            slot.plane, slot.on_disk = writer.finish(), writer.on_disk
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
        """Drop all planes of a file; may be called from a finalizer."""
        self._gone.append(owner)
        if self._lock.acquire(blocking=False):
            try:
                dropped = self._collect()
            finally:
                self._lock.release()
            del dropped

    def bytes(self, *, on_disk: bool) -> int:
        """What all planes in memory, or in temporary files, take."""
        return sum(slot.bytes for slot in list(self._slots.values()) if slot.on_disk == on_disk)

    def _collect(self) -> list[_Slot]:
        """What has to go now; to be called with the lock, and dropped without it."""
        dropped: list[_Slot] = []
        while self._gone:
            owner = self._gone.popleft()
            dropped.extend(self._slots.pop(key) for key in list(self._slots) if key[0] == owner)
        for on_disk, bound in ((False, self.max_memory), (True, self.max_disk)):
            held = self.bytes(on_disk=on_disk)
            for key, slot in list(self._slots.items())[:-1]:
                if held <= bound:
                    break
                if slot.done.is_set() and slot.on_disk == on_disk:
                    held -= slot.bytes
                    dropped.append(self._slots.pop(key))
        return dropped


planes = PlaneCache()
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=planes.after_fork)
