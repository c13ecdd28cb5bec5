"""
Whole images in memory or in a temporary file, made once and shared.

A format that cannot be read at random is decoded once; a level that a file
lacks is computed once.  What comes of it is a *plane*: pixels that all threads,
and all sources on the same file, read from.
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

# The bounds for all planes of the process together, in RAM and in temporary
# files; the plane made last is kept whatever it takes.
MAX_MEMORY = LIMITS.reading_memory
MAX_DISK = LIMITS.reading_disk
# To decode a picture that takes fewer bytes takes half a second or so: nobody grows
# impatient, and nothing is done to spare that time later.
LARGE_PICTURE = LIMITS.reading_large
# The bytes that are written to a file at a time.  Linux takes a piece of memory for
# each write; large ones, which it is less likely to have at hand, took 2 s a
# gigabyte on a virtual machine, those of this size 0.3 s.
_WRITTEN = 1 << 16
# A single plane beyond this goes to a temporary file.
MAX_PLANE_MEMORY = LIMITS.reading_image_memory


class Plane:
    """
    Pixels in memory or in a temporary file; filled row by row, from any number
    of threads, and read as an array.

    :param shape: (rows, cols, bands).
    :param dtype: of the samples.
    :raises TileSourceError: if there is no room for it.
    """

    # A plane in the cache is whole; ``decoded.Decoded`` may not be.
    complete = True

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.nbytes = shape[0] * shape[1] * shape[2] * dtype.itemsize
        self.on_disk = self.nbytes > MAX_PLANE_MEMORY
        # Windows does not promise that a mapping shows what is written to the file
        # after it was made; there the mapping itself is filled.
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
        """The array of a temporary file that has all its room already."""
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if free < self.nbytes:
            raise OSError(errno.ENOSPC, f'only {free} bytes are free')
        # Closed by finish(), or with this object; the array outlives it.
        self._file = tempfile.TemporaryFile(  # noqa: SIM115
            prefix='large_image_source_vips_')
        reserve(self._file.fileno(), 0, self.nbytes)
        mapped = mmap.mmap(self._file.fileno(), self.nbytes,
                           access=mmap.ACCESS_READ if self._is_written else mmap.ACCESS_WRITE)
        return np.frombuffer(mapped, self.dtype).reshape(self.shape)

    def _no_room(self, exc: BaseException) -> str:
        place = f'in {tempfile.gettempdir()!r}' if self.on_disk else 'in memory'
        return f'No room for {self.nbytes} bytes of decoded pixels {place}: {exc}'

    def put(self, top: int, rows: npt.NDArray[Any], left: int = 0) -> None:
        """
        Fill a rectangle.

        :param top: the first row.
        :param rows: an array (rows, cols, bands).
        :param left: the first column.
        """
        if not self._is_written:
            self._array[top:top + rows.shape[0], left:left + rows.shape[1]] = rows
            return
        if rows.shape[1] == self.shape[1]:
            rows = rows.reshape(1, -1)
        try:
            for number, row in enumerate(rows):
                # Written, not through the mapping: each page that is first
                # touched there is an interruption, and a full disk a signal.
                self._write(((top + number) * self.shape[1] + left), row)
        except OSError as exc:
            raise TileSourceError(self._no_room(exc)) from exc

    def pour(self, write: Callable[[int], bool]) -> bool:
        """
        Have the temporary file filled by something else.

        :param write: writes all pixels to a descriptor from where that stands; or
            nothing, and returns False.
        :returns: whether it did; False, too, for pixels in memory.
        """
        if not (self._is_written and SHARES_DESCRIPTORS):
            return False
        self._file.seek(0)
        return write(self._file.fileno())

    def _write(self, pixel: int, values: npt.NDArray[Any]) -> None:
        """Write successive pixels."""
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        offset = pixel * self.shape[2] * self.dtype.itemsize
        for start in range(0, len(data), _WRITTEN):
            write_at(self._file.fileno(), data[start:start + _WRITTEN], offset + start)

    def finish(self) -> Plane:
        """Give back what only filling it needs; a temporary file goes when the pixels do."""
        if self._file is not None:
            self._file.close()
        return self


class Kept(Protocol):
    """What a ``PlaneCache`` keeps: its size, where it is, and whether it is whole."""

    @property
    def nbytes(self) -> int:
        """What it takes in bytes."""

    @property
    def on_disk(self) -> bool:
        """Whether that is in a temporary file."""

    @property
    def complete(self) -> bool:
        """Whether nothing of it is yet to be made."""


K = TypeVar('K', bound=Kept)


class _Slot:
    """The place of one plane: being made, there, or failed."""

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
        self._inherited: list[_Slot] = []
        # Its requests are owners that have gone.
        self._lock: CleanupLock[Hashable] = CleanupLock(self._collect)

    def after_fork(self) -> None:
        """
        Keep what is whole; what another thread of the parent was making never will be.

        The rest is held, unused: freeing an open image would run code that
        expects threads which do not exist here.
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
        """A plane if it has been made, else None."""
        slot = self._slots.get((owner, what))
        return None if slot is None else slot.made

    def get(self, owner: Hashable, what: Hashable, make: Callable[[], K]) -> K:
        """
        A plane, made by the first who asks; the others wait.

        :param owner: the file.
        :param what: what of it the plane shows.
        :param make: makes it.
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
        made: K = slot.made
        return made

    def _make(self, key: tuple[Hashable, Hashable], slot: _Slot,
              make: Callable[[], Kept]) -> None:
        """Make a plane; whatever happens, those who wait are told."""
        # Those who wait get the words only: an error that is kept would keep
        # what it happened to, open files among it.
        slot.failure = 'Making the pixels was interrupted'
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
        """Drop all planes of a file; may be called from a finalizer."""
        self._lock.request(owner)

    def bytes(self, *, on_disk: bool) -> int:
        """What all planes in memory, or in temporary files, take."""
        with self._lock:
            return self._bytes(on_disk)

    def _bytes(self, on_disk: bool) -> int:
        """The same; to be called with the lock."""
        return sum(slot.bytes for slot in self._slots.values() if slot.on_disk == on_disk)

    def _collect(self) -> list[_Slot]:
        """What has to go now; to be called with the lock, and dropped without it."""
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


planes = PlaneCache()
after_fork_in_child(planes.after_fork)
