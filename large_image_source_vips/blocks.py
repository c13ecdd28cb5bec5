"""
Fixed-size square blocks of samples, a few of them in memory, all in one spool.

Memory: the pool holds at most ``POOL_BYTES`` of blocks, plus those that are
being pasted into at that moment.  Everything else is in the spool file.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from large_image.exceptions import TileSourceError

from .spool import Spool

# The width and height of a block in pixels: that of a tile, so that an aligned
# tile is one block.
BLOCK_SIZE = 256

# How much of the blocks is kept in memory.
POOL_BYTES = 64 << 20


class BlockKey(NamedTuple):
    """
    The address of a block.

    Blocks of level 0 are in the caller plane, so that growing moves nothing;
    those of the levels above count from the corner of the image.
    """

    frame: int
    level: int
    column: int
    row: int


class _Held:
    """A block in memory; as a context, its samples while they are changed."""

    __slots__ = ('_lock', 'dirty', 'pins', 'samples')

    def __init__(self, samples: npt.NDArray[Any], lock: threading.RLock) -> None:
        self.samples = samples
        self._lock = lock
        self.dirty = False
        self.pins = 0

    def __enter__(self) -> npt.NDArray[Any]:
        return self.samples

    def __exit__(self, *_exc: object) -> None:
        with self._lock:
            self.pins -= 1
            self.dirty = True


class BlockPool:
    """
    The blocks in memory, over all planes of a spool; the oldest leave first.

    Its lock guards the spool's allocations, the planes' slots and the pool.
    """

    def __init__(self, spool: Spool, capacity: int = POOL_BYTES) -> None:
        self.spool = spool
        self.lock = threading.RLock()
        self._capacity = capacity
        self._bytes = 0
        self._held: OrderedDict[tuple[int, BlockKey], tuple[_Held, int]] = OrderedDict()

    def get(self, plane: Plane, key: BlockKey, fresh: bool = False) -> _Held:
        """
        A block that has a slot, from memory or from the spool.

        :param plane: the plane it belongs to.
        :param key: its address.
        :param fresh: whether it was never written; it is then filled with 0.
        """
        name = (id(plane), key)
        entry = self._held.get(name)
        if entry is not None:
            self._held.move_to_end(name)
            return entry[0]
        offset = plane.slots[key]
        if fresh:
            samples = np.zeros(plane.shape, plane.dtype)
        else:
            samples = np.empty(plane.shape, plane.dtype)
            self.spool.read(offset, samples)
        held = _Held(samples, self.lock)
        self._held[name] = (held, offset)
        self._bytes += plane.block_bytes
        return held

    def shrink(self) -> None:
        """Let the oldest blocks go until the rest fits; pinned ones stay."""
        if self._bytes <= self._capacity:
            return
        for name in list(self._held):
            held, offset = self._held[name]
            if held.pins:
                continue
            if held.dirty:
                self.spool.write(offset, held.samples)
            del self._held[name]
            self._bytes -= held.samples.nbytes
            if self._bytes <= self._capacity * 7 // 8:
                return

    def drop(self, plane: Plane, key: BlockKey) -> None:
        """Forget a block in memory without writing it."""
        entry = self._held.pop((id(plane), key), None)
        if entry is not None:
            self._bytes -= entry[0].samples.nbytes

    def flush(self) -> None:
        """Write every changed block to the spool."""
        with self.lock:
            for held, offset in self._held.values():
                if held.dirty:
                    self.spool.write(offset, held.samples)
                    # A block that is being pasted into changes further.
                    held.dirty = bool(held.pins)

    def clear(self) -> None:
        """Forget all blocks."""
        with self.lock:
            self._held.clear()
            self._bytes = 0


class Plane:
    """
    Blocks of one dtype and band count: the colours or the alpha of a canvas.

    :param pool: where blocks are held.
    :param dtype: of the samples.
    :param bands: of each pixel.
    """

    def __init__(self, pool: BlockPool, dtype: np.dtype[Any], bands: int) -> None:
        self.pool = pool
        self.dtype = dtype
        self.bands = bands
        self.shape = (BLOCK_SIZE, BLOCK_SIZE, bands)
        self.block_bytes = BLOCK_SIZE * BLOCK_SIZE * bands * dtype.itemsize
        self.slots: dict[BlockKey, int] = {}

    def reserve(self, keys: Iterable[BlockKey]) -> list[BlockKey]:
        """
        Give slots to blocks that have none: to all or, if that fails, to none.

        :param keys: the blocks.
        :returns: those that had none.
        :raises TileSourceError: if the disk has no room.
        """
        with self.pool.lock:
            fresh = [key for key in keys if key not in self.slots]
            if not fresh:
                return fresh
            try:
                for key in fresh:
                    self.slots[key] = self.pool.spool.allocate(self.block_bytes)
            except TileSourceError:
                self.release(key for key in fresh if key in self.slots)
                raise
            return fresh

    def release(self, keys: Iterable[BlockKey]) -> None:
        """Take the slots of blocks away, their contents are lost."""
        with self.pool.lock:
            for key in keys:
                offset = self.slots.pop(key, None)
                if offset is not None:
                    self.pool.drop(self, key)
                    self.pool.spool.free(offset, self.block_bytes)

    def read(self, key: BlockKey) -> npt.NDArray[Any]:
        """The samples (BLOCK_SIZE, BLOCK_SIZE, bands) of a block that has a slot."""
        with self.pool.lock:
            samples = self.pool.get(self, key).samples
            self.pool.shrink()
            return samples

    def changing(self, key: BlockKey, fresh: bool) -> _Held:
        """
        The samples of a block that has a slot, to be changed in place.

        It stays in memory as long as the context lasts.

        :param key: the block.
        :param fresh: whether it has been reserved just now; it is 0 then.
        """
        with self.pool.lock:
            held = self.pool.get(self, key, fresh)
            held.pins += 1
            held.dirty = True
            try:
                self.pool.shrink()
            except TileSourceError:
                held.pins -= 1
                raise
            return held

    def overwrite(self, key: BlockKey, samples: npt.NDArray[Any]) -> None:
        """
        Replace a whole block that has a slot, past the pool.

        :param key: the block.
        :param samples: C-contiguous (BLOCK_SIZE, BLOCK_SIZE, bands).
        """
        pool = self.pool
        with pool.lock:
            offset = self.slots[key]
            pool.drop(self, key)
        pool.spool.write(offset, samples)

    def publish(self, key: BlockKey, samples: npt.NDArray[Any]) -> None:
        """
        Store a block that had no slot; others see it only when it is whole.

        :param key: the block.
        :param samples: C-contiguous (BLOCK_SIZE, BLOCK_SIZE, bands).
        :raises TileSourceError: if the disk has no room.
        """
        pool = self.pool
        with pool.lock:
            offset = pool.spool.allocate(self.block_bytes)
        pool.spool.write(offset, samples)
        with pool.lock:
            if self.slots.setdefault(key, offset) != offset:
                # Another thread has computed the same block meanwhile.
                pool.spool.free(offset, self.block_bytes)

    def shared_block(self, value: int) -> int:
        """
        The offset of a block of one value that stands for many.

        :param value: of every sample.
        """
        with self.pool.lock:
            offset = self.pool.spool.allocate(self.block_bytes)
        self.pool.spool.write(offset, np.full(self.shape, value, self.dtype))
        return offset
