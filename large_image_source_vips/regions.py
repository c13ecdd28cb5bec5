"""
Going over the tiles of a source in order, with other threads decoding ahead.

``getRegion`` and ``tileIterator`` of large_image take tile after tile and put
them together.  Who does so gets a ``Walk`` in the place of the source: it finds
out which tiles come next and has them decoded meanwhile.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import numpy.typing as npt
from large_image.exceptions import TileSourceError
from large_image.tilesource.tiledict import LazyTileDict
from large_image.tilesource.tileiterator import TileIterator

from .base.arrays import writable
from .base.limits import LIMITS
from .base.threads import WORKERS

Array = npt.NDArray[Any]

# How many tiles are decoded ahead, at most; the pixels of so many are held.
MAX_AHEAD = LIMITS.regions_ahead


class Key(NamedTuple):
    """A tile: its 0-based column, row and level."""

    x: int
    y: int
    z: int


class Tile(LazyTileDict):
    """
    A tile of an iteration, whose pixels are decoded when they are asked for.

    An array is always writable.  A tile can be pickled and copied, before and
    after it was decoded; it then holds the source itself and decodes nothing
    ahead.
    """

    @classmethod
    def of(cls, tile: LazyTileDict) -> Tile:
        """
        Such a tile.

        :param tile: as large_image makes it; it is not used again.
        """
        result: Tile = cls.__new__(cls)
        # Not by __init__, which would take it for new: its format may be set.
        result.__dict__.update(vars(tile))
        dict.update(result, tile)
        return result

    def __getitem__(self, key: str, *args: Any, **kwargs: Any) -> Any:
        value = super().__getitem__(key, *args, **kwargs)
        if key == 'tile':
            owned = writable(value)
            if owned is not value:
                self[key] = value = owned
        return value


class Tiles(TileIterator):
    """large_image's iterator over the tiles of a source."""

    def __next__(self) -> Tile:
        return Tile.of(super().__next__())


def _itself(source: Any) -> Any:
    """A source; what a pickled or copied ``Walk`` becomes."""
    return source


class Walk:
    """
    A source, for one who takes its tiles in order.

    The first tile tells nothing yet; from the second on, tiles are decoded
    ahead, the more the longer the expected ones are asked for.  With the first
    tile that was not expected soon that ends, and every tile is decoded when it
    is asked for.

    :param source: the tile source; everything but ``getTile`` is its.
    :param frame: the 0-based frame that is walked over.
    :param read: gives the pixels of a tile of a frame; called in other threads.
    :param order: gives the tiles in the order in which they will be asked for.
    """

    def __init__(self, source: Any, frame: int, read: Callable[[int, Key], Array],
                 order: Callable[[], Iterator[Key]]) -> None:
        self._source = source
        self._frame = frame
        self._read = read
        self._order: Callable[[], Iterator[Key]] | None = order
        self._keys: Iterator[Key] = iter(())
        self._first: Key | None = None
        self._ahead = 1
        self._pending: deque[tuple[Key, Future[Array]]] = deque()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
        """
        A pickle or a copy is the source itself.

        Tiles travel to other processes one by one, where there is nothing to
        decode ahead.
        """
        return _itself, (self._source,)

    def getTile(self, x: int, y: int, z: int, *args: Any, **kwargs: Any) -> Any:
        """As that of the source."""
        key = Key(x, y, z)
        # A style may go over other tiles to make this one.
        before = getattr(_handed, 'tile', None)
        _handed.tile = self._source, self._frame, key, self._take(key)
        try:
            return self._source.getTile(x, y, z, *args, **kwargs)
        finally:
            _handed.tile = before

    def _take(self, key: Key) -> Array | None:
        """The pixels of a tile if they were decoded ahead."""
        if self._process != os.getpid():
            # The threads that were to decode are the parent's.
            self._end()
            return None
        with self._lock:
            if self._order is not None and not self._starts(key):
                return None
            future = self._expected(key)
            self._fill()
        if future is None:
            return None
        # What cannot be decoded is read again, by the source itself, which
        # then says why.
        with suppress(TileSourceError):
            return future.result()
        return None

    def _starts(self, key: Key) -> bool:
        """Whether this is where decoding ahead starts: at the second tile."""
        assert self._order is not None  # until it started
        if self._first is None:
            self._first = key
            return False
        keys, self._order = self._order(), None
        if next(keys, None) == self._first:
            self._keys = keys
            self._schedule()
        return True

    def _expected(self, key: Key) -> Future[Array] | None:
        """The decoding of a tile, if it is under way; those before it are not wanted."""
        for _skipped in range(len(self._pending)):
            expected, future = self._pending.popleft()
            if expected == key:
                self._ahead = min(2 * self._ahead, MAX_AHEAD)
                return future
            future.cancel()
        self._end()
        return None

    def _fill(self) -> None:
        """Have as many tiles decoded as are to be."""
        while len(self._pending) < self._ahead and self._schedule():
            pass

    def _schedule(self) -> bool:
        """Have the next tile decoded; False if there is none."""
        key = next(self._keys, None)
        if key is None:
            return False
        try:
            future = _workers().submit(self._read, self._frame, key)
        except RuntimeError:
            # The main thread has ended; pools take nothing any more.
            return False
        self._pending.append((key, future))
        return True

    def _end(self) -> None:
        """Decode nothing ahead any more."""
        self._order, self._keys = None, iter(())
        self._pending.clear()


# The tile that this thread has just taken from a walk: source, frame, tile, and its
# pixels if they were decoded ahead.
_handed = threading.local()


def handed_over(source: Any, frame: int, key: Key) -> tuple[bool, Array | None]:
    """
    Whether the calling thread takes a tile from a walk.

    It may need others for that: those that a style puts together.

    :param source: the tile source that is about to read it.
    :param frame: the 0-based frame.
    :returns: that, and the pixels of the tile if they were decoded ahead.
    """
    tile = getattr(_handed, 'tile', None)
    if tile is None:
        return False, None
    is_this = tile[0] is source and tile[1:3] == (frame, key)
    return True, tile[3] if is_this else None


_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _workers() -> ThreadPoolExecutor:
    """The threads that decode, for all walks of this process."""
    global _pool  # noqa: PLW0603  (made when it is first needed)
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(WORKERS, 'large_image_source_vips')
        return _pool


def _after_fork() -> None:
    """Threads do not survive a fork."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)


def tiles_under(tile: Any, tile_size: int) -> Iterator[Key]:
    """
    The tiles that large_image puts together for one of an iteration.

    :param tile: of a ``TileIterator``; its place is in level pixels.
    :param tile_size: the width and height of the source's own tiles.
    """
    left, top = int(tile.get('tile_x', tile['x'])), int(tile.get('tile_y', tile['y']))
    right, bottom = left + int(tile.width), top + int(tile.height)
    rows = range(top // tile_size, -(-bottom // tile_size))
    columns = range(left // tile_size, -(-right // tile_size))
    for y, x in itertools.product(rows, columns):
        yield Key(x, y, tile['level'])
