"""
Fixed-size square blocks of samples, a few of them in memory, all in one spool.

Memory: the pool holds at most ``POOL_BYTES`` of blocks, plus those that are
being pasted into at that moment.  Everything else is in the spool file.

A snapshot pins the place of each block in the file: a block that changes later
gets another place, so what the snapshot reads stays as it was.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .spool import Spool

# The width and height of a block in pixels: that of a tile, so that an aligned
# tile is one block.
BLOCK_SIZE = 256

# How much of the blocks is kept in memory.
POOL_BYTES = 64 << 20

Array = npt.NDArray[Any]


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


class Held:
    """
    A block in memory.

    :param samples: (BLOCK_SIZE, BLOCK_SIZE, bands), changed in place.
    :param offset: where it belongs in the spool.
    """

    __slots__ = ('dirty', 'offset', 'pins', 'samples')

    def __init__(self, samples: Array, offset: int) -> None:
        self.samples = samples
        self.offset = offset
        # Whether the spool has something else.
        self.dirty = False
        # How many are using it; it stays in memory as long as that.
        self.pins = 0


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
        self.held: OrderedDict[tuple[int, BlockKey], Held] = OrderedDict()

    def get(self, plane: Plane, key: BlockKey) -> Held:
        """A block that has a slot, from memory or from the spool."""
        name = (plane.number, key)
        held = self.held.get(name)
        if held is not None:
            self.held.move_to_end(name)
            return held
        samples = np.empty(plane.shape, plane.dtype)
        offset = plane.slots[key]
        self.spool.read(offset, samples)
        return self.insert(plane, key, Held(samples, offset))

    def insert(self, plane: Plane, key: BlockKey, held: Held) -> Held:
        """Keep a block that is not in memory."""
        self.held[plane.number, key] = held
        self._bytes += held.samples.nbytes
        return held

    def shrink(self) -> None:
        """Let the oldest blocks go until the rest fits; pinned ones stay."""
        if self._bytes <= self._capacity:
            return
        for name in list(self.held):
            held = self.held[name]
            if held.pins:
                continue
            if held.dirty:
                self.spool.write(held.offset, held.samples)
            del self.held[name]
            self._bytes -= held.samples.nbytes
            if self._bytes <= self._capacity * 7 // 8:
                return

    def drop(self, plane: Plane, key: BlockKey) -> None:
        """Forget a block in memory without writing it."""
        held = self.held.pop((plane.number, key), None)
        if held is not None:
            self._bytes -= held.samples.nbytes

    def flush(self) -> None:
        """Write every changed block to the spool."""
        with self.lock:
            for held in self.held.values():
                if held.dirty:
                    self.spool.write(held.offset, held.samples)
                    held.dirty = False


class Plane:
    """
    Blocks of one dtype and band count: the colours or the alpha of a canvas.

    :param pool: where blocks are held.
    :param dtype: of the samples.
    :param bands: of each pixel.
    :param number: tells the planes of a pool apart.
    """

    def __init__(self, pool: BlockPool, dtype: np.dtype[Any], bands: int, number: int) -> None:
        self.pool = pool
        self.number = number
        self.dtype = dtype
        self.shape = (BLOCK_SIZE, BLOCK_SIZE, bands)
        self.block_bytes = BLOCK_SIZE * BLOCK_SIZE * bands * dtype.itemsize
        self.slots: dict[BlockKey, int] = {}
        # The places that snapshots read, snapshot by snapshot, and those among
        # them that belong to no block any more.
        self.pinned: list[frozenset[int]] = []
        self._retired: set[int] = set()

    def _is_pinned(self, offset: int) -> bool:
        return any(offset in offsets for offsets in self.pinned)

    def discard(self, offset: int) -> None:
        """Give a place back as soon as no snapshot reads it; for holders of the lock."""
        if self._is_pinned(offset):
            self._retired.add(offset)
        else:
            self.pool.spool.free(offset, self.block_bytes)

    def release(self, keys: Iterable[BlockKey]) -> None:
        """Make blocks blank; those that are already stay so."""
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

    def hold(self, key: BlockKey) -> tuple[Held, Callable[[], None]]:
        """
        A block to be changed in place; a blank one becomes one of zeros.

        It stays in memory until its ``pins`` are counted down again.

        :param key: the block.
        :returns: the block, and what takes that back before it was changed.
        :raises TileSourceError: if the disk has no room or cannot be read;
            nothing has changed then.
        """
        pool = self.pool
        with pool.lock:
            pool.shrink()
            old = self.slots.get(key)
            if old is not None and not self._is_pinned(old):
                held = pool.get(self, key)
                held.pins += 1
                return held, lambda: self._let_go(held)
            place = pool.spool.allocate(self.block_bytes)
            try:
                if old is None:
                    held = pool.insert(self, key, Held(np.zeros(self.shape, self.dtype), place))
                else:
                    held = pool.get(self, key)
                    held.offset = place
            except BaseException:
                pool.spool.free(place, self.block_bytes)
                raise
            held.pins += 1
            held.dirty = True
            self.slots[key] = place
            if old is not None:
                self._retired.add(old)
            return held, lambda: self._take_back(key, held, old)

    def _let_go(self, held: Held) -> None:
        with self.pool.lock:
            held.pins -= 1

    def _take_back(self, key: BlockKey, held: Held, old: int | None) -> None:
        """Undo the move of a block to another place."""
        with self.pool.lock:
            place, held.pins = held.offset, held.pins - 1
            if old is None:
                del self.slots[key]
                self.pool.drop(self, key)
            elif self._is_pinned(old):
                self.slots[key] = held.offset = old
                self._retired.discard(old)
                held.dirty = False
            else:
                # The snapshot has gone meanwhile, and the old place with it.
                return
            self.pool.spool.free(place, self.block_bytes)

    def store(self, samples: Array) -> int:
        """
        Write a block that nobody sees yet.

        :param samples: (BLOCK_SIZE, BLOCK_SIZE, bands) of the dtype.
        :returns: its place, for ``put`` or ``give_back``.
        :raises TileSourceError: if the disk has no room.
        """
        pool = self.pool
        with pool.lock:
            place = pool.spool.allocate(self.block_bytes)
        try:
            pool.spool.write(place, np.ascontiguousarray(samples, self.dtype))
        except BaseException:
            self.give_back(place)
            raise
        return place

    def give_back(self, place: int) -> None:
        """Give back the place of a block that nobody sees."""
        with self.pool.lock:
            self.pool.spool.free(place, self.block_bytes)

    def put(self, key: BlockKey, place: int) -> None:
        """Have a stored block replace the one at an address."""
        with self.pool.lock:
            old = self.slots.get(key)
            self.slots[key] = place
            if old is not None:
                self.pool.drop(self, key)
                self.discard(old)

    def publish(self, key: BlockKey, samples: Array) -> None:
        """
        Store a block; others see it only when it is whole.

        :param key: its address.
        :param samples: (BLOCK_SIZE, BLOCK_SIZE, bands).
        :raises TileSourceError: if the disk has no room.
        """
        self.put(key, self.store(samples))

    def snapshot(self) -> FrozenPlane:
        """
        The blocks of the full resolution as they are now.

        The caller sees to it that none of them is being changed, and lets the
        snapshot go afterwards.
        """
        with self.pool.lock:
            self.pool.flush()
            slots = {key: place for key, place in self.slots.items() if key.level == 0}
            pinned = frozenset(slots.values())
            self.pinned.append(pinned)
            return FrozenPlane(self, slots, pinned)

    def unpin(self, pinned: frozenset[int]) -> None:
        """Give back the places that only a snapshot was reading."""
        with self.pool.lock:
            # By identity: two snapshots may have the same places.
            self.pinned = [other for other in self.pinned if other is not pinned]
            gone = [place for place in self._retired if not self._is_pinned(place)]
            self._retired.difference_update(gone)
            for place in gone:
                self.pool.spool.free(place, self.block_bytes)


class FrozenPlane:
    """
    The blocks of a plane at one moment; read from the spool, past the pool.

    :param plane: the plane.
    :param slots: its blocks then.
    :param pinned: the places that are kept for it.
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

    def release(self) -> None:
        """Let the snapshot go; it is not read again."""
        self._plane.unpin(self._pinned)
