"""
Store square blocks of samples in a spool file, and cache recent ones in memory.

At most ``LIMITS.sink_pool`` bytes of blocks are in memory, plus those that are being
changed.

A snapshot pins the offset of each block in the file.  When a block changes later, it is
written to another offset, so the snapshot still reads the old samples.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..base.limits import LIMITS
from ..base.transparency import contiguous
from .spool import Spool

# Width and height of a block in pixels, equal to that of a tile, so an aligned tile is one
# block.
BLOCK_SIZE = 256

Array = npt.NDArray[Any]


class BlockKey(NamedTuple):
    """
    The address of a block.

    Level 0 counts in caller coordinates, so growing the image moves no block; lower
    levels (1 and up) count from the corner of the image.
    """

    frame: int
    level: int
    column: int
    row: int


class CachedBlock:
    """
    A block in memory.

    :param samples: (BLOCK_SIZE, BLOCK_SIZE, bands), changed in place.
    :param offset: of its space in the spool.
    """

    __slots__ = ('dirty', 'offset', 'pins', 'samples')

    def __init__(self, samples: Array, offset: int) -> None:
        self.samples = samples
        self.offset = offset
        # Whether the samples differ from those in the spool.
        self.dirty = False
        # The number of users; a block in use stays in memory.
        self.pins = 0


class BlockPool:
    """
    A least-recently-used cache of blocks for all planes of a spool.

    Its lock protects the allocations in the spool, the slots of the planes, and the pool.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.lock = threading.RLock()
        self._bytes = 0
        self.held: OrderedDict[tuple[int, BlockKey], CachedBlock] = OrderedDict()

    def get(self, plane: Plane, key: BlockKey) -> CachedBlock:
        """A block that has a slot; read from the spool if it is not in memory."""
        name = (plane.number, key)
        held = self.held.get(name)
        if held is not None:
            self.held.move_to_end(name)
            return held
        samples = np.empty(plane.shape, plane.dtype)
        offset = plane.slots[key]
        self.spool.read(offset, samples)
        return self.insert(plane, key, CachedBlock(samples, offset))

    def insert(self, plane: Plane, key: BlockKey, held: CachedBlock) -> CachedBlock:
        """Add a block to the cache."""
        self.held[plane.number, key] = held
        self._bytes += held.samples.nbytes
        return held

    def shrink(self) -> None:
        """Evict the oldest blocks that are not in use until the rest fits."""
        capacity = LIMITS.sink_pool
        if self._bytes <= capacity:
            return
        for name in list(self.held):
            held = self.held[name]
            if held.pins:
                continue
            if held.dirty:
                self.spool.write(held.offset, held.samples)
            del self.held[name]
            self._bytes -= held.samples.nbytes
            if self._bytes <= capacity:
                return

    def drop(self, plane: Plane, key: BlockKey) -> None:
        """Remove a block from the cache without writing it."""
        held = self.held.pop((plane.number, key), None)
        if held is not None:
            self._bytes -= held.samples.nbytes

    def flush(self) -> None:
        """Write all changed blocks to the spool."""
        with self.lock:
            for held in self.held.values():
                if held.dirty:
                    self.spool.write(held.offset, held.samples)
                    held.dirty = False


class Plane:
    """
    Blocks of one dtype and band count: the colours or the alpha of a canvas.

    :param pool: the cache and the spool of the blocks.
    :param dtype: of the samples.
    :param bands: the number of bands.
    :param number: identifies the plane within the pool.
    """

    def __init__(self, pool: BlockPool, dtype: np.dtype[Any], bands: int, number: int) -> None:
        self.pool = pool
        self.number = number
        self.dtype = dtype
        self.shape = (BLOCK_SIZE, BLOCK_SIZE, bands)
        self.block_bytes = BLOCK_SIZE * BLOCK_SIZE * bands * dtype.itemsize
        # The offset of each block; blank blocks have none.
        self.slots: dict[BlockKey, int] = {}
        # The offsets of each snapshot, and those of them that no block uses any longer.
        self.pinned: list[frozenset[int]] = []
        self._retired: set[int] = set()

    def _is_pinned(self, offset: int) -> bool:
        return any(offset in offsets for offsets in self.pinned)

    def discard(self, offset: int) -> None:
        """Free an offset when no snapshot needs it; call with the lock held."""
        if self._is_pinned(offset):
            self._retired.add(offset)
        else:
            self.pool.spool.free(offset, self.block_bytes)

    def release(self, keys: Iterable[BlockKey]) -> None:
        """Make blocks blank; blank blocks are ignored."""
        with self.pool.lock:
            for key in keys:
                offset = self.slots.pop(key, None)
                if offset is not None:
                    self.pool.drop(self, key)
                    self.discard(offset)

    def read(self, key: BlockKey) -> Array:
        """The samples (BLOCK_SIZE, BLOCK_SIZE, bands) of a block that has a slot."""
        with self.pool.lock:
            samples = self.pool.get(self, key).samples
            self.pool.shrink()
            return samples

    def copied(self, key: BlockKey) -> Array:
        """A copy of the samples of a block that has a slot."""
        samples: Array = self.read(key).copy()
        return samples

    def hold(self, key: BlockKey) -> tuple[CachedBlock, Callable[[], None]]:
        """
        Get a block to change in place; a blank block becomes zeros.

        The block stays in memory until ``pins`` is decremented.

        :param key: the block.
        :returns: the block, and a function that undoes this call if the block was not
            changed.
        :raises TileSourceError: if the disk is full or cannot be read; nothing has
            changed then.
        """
        pool = self.pool
        with pool.lock:
            pool.shrink()
            old = self.slots.get(key)
            if old is not None and not self._is_pinned(old):
                held = pool.get(self, key)
                held.pins += 1
                return held, lambda: self._unpin_block(held)
            offset = pool.spool.allocate(self.block_bytes)
            try:
                if old is None:
                    samples = np.zeros(self.shape, self.dtype)
                    held = pool.insert(self, key, CachedBlock(samples, offset))
                else:
                    held = pool.get(self, key)
                    held.offset = offset
            except BaseException:
                pool.spool.free(offset, self.block_bytes)
                raise
            held.pins += 1
            held.dirty = True
            self.slots[key] = offset
            if old is not None:
                self._retired.add(old)
            return held, lambda: self._undo_move(key, held, old)

    def _unpin_block(self, held: CachedBlock) -> None:
        with self.pool.lock:
            held.pins -= 1

    def _undo_move(self, key: BlockKey, held: CachedBlock, old: int | None) -> None:
        """Undo the move of a block to another offset."""
        with self.pool.lock:
            offset, held.pins = held.offset, held.pins - 1
            if old is None:
                del self.slots[key]
                self.pool.drop(self, key)
            elif self._is_pinned(old):
                self.slots[key] = held.offset = old
                self._retired.discard(old)
                held.dirty = False
            else:
                # The snapshot was released in the meantime, and the old offset freed.
                return
            self.pool.spool.free(offset, self.block_bytes)

    def store(self, samples: Array) -> int:
        """
        Write samples to the spool without assigning them to a block.

        :param samples: (BLOCK_SIZE, BLOCK_SIZE, bands) of the dtype.
        :returns: the offset, for ``put`` or ``free_stored``.
        :raises TileSourceError: if the disk is full.
        """
        pool = self.pool
        with pool.lock:
            offset = pool.spool.allocate(self.block_bytes)
        try:
            pool.spool.write(offset, contiguous(samples, self.dtype))
        except BaseException:
            self.free_stored(offset)
            raise
        return offset

    def refer(self, read: Callable[[Array], None]) -> int:
        """
        Refer to samples that are stored elsewhere; see ``Spool.refer``.

        :returns: the offset, for ``put``.
        """
        with self.pool.lock:
            return self.pool.spool.refer(read)

    def free_stored(self, offset: int) -> None:
        """Free stored samples that were not assigned to a block."""
        with self.pool.lock:
            self.pool.spool.free(offset, self.block_bytes)

    def put(self, key: BlockKey, offset: int) -> None:
        """Replace a block by stored samples."""
        with self.pool.lock:
            old = self.slots.get(key)
            self.slots[key] = offset
            if old is not None:
                self.pool.drop(self, key)
                self.discard(old)

    def publish(self, key: BlockKey, samples: Array) -> None:
        """
        Store and replace a block atomically.

        :param key: its address.
        :param samples: (BLOCK_SIZE, BLOCK_SIZE, bands).
        :raises TileSourceError: if the disk is full.
        """
        self.put(key, self.store(samples))

    def snapshot(self) -> FrozenPlane:
        """
        Freeze the current full-resolution blocks.

        No block may change during the call; release the snapshot later.
        """
        with self.pool.lock:
            self.pool.flush()
            slots = {key: offset for key, offset in self.slots.items() if key.level == 0}
            pinned = frozenset(slots.values())
            self.pinned.append(pinned)
            return FrozenPlane(self, slots, pinned)

    def unpin(self, pinned: frozenset[int]) -> None:
        """Release a snapshot, and free the offsets that only it needed."""
        with self.pool.lock:
            # Compare by identity: two snapshots may have equal offsets.
            self.pinned = [other for other in self.pinned if other is not pinned]
            gone = [offset for offset in self._retired if not self._is_pinned(offset)]
            self._retired.difference_update(gone)
            for offset in gone:
                self.pool.spool.free(offset, self.block_bytes)


class FrozenPlane:
    """
    The blocks of a plane at one moment, read directly from the spool.

    :param plane: the plane.
    :param slots: the offsets of its blocks.
    :param pinned: the offsets kept for this snapshot.
    """

    def __init__(self, plane: Plane, slots: Mapping[BlockKey, int],
                 pinned: frozenset[int]) -> None:
        self._plane = plane
        self._pinned = pinned
        self.slots = slots
        self.pool = plane.pool
        self.dtype = plane.dtype
        self.shape = plane.shape
        self.block_bytes = plane.block_bytes

    def read(self, key: BlockKey) -> Array:
        """The samples (BLOCK_SIZE, BLOCK_SIZE, bands) of a block that has a slot."""
        samples = np.empty(self.shape, self.dtype)
        self.pool.spool.read(self.slots[key], samples)
        return samples

    copied = read

    def release(self) -> None:
        """Release the snapshot; it must not be read again."""
        self._plane.unpin(self._pinned)
