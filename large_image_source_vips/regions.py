"""
Read tiles ahead in threads for ``getRegion`` and ``tileIterator``.

large_image reads the tiles of a region one after the other.  It is given a
``ReadAhead`` instead of the source, which decodes the next tiles in threads.  At most
``MAX_AHEAD`` tiles are held decoded per region or iteration.
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

# The most tiles that are decoded ahead.
MAX_AHEAD = LIMITS.regions_ahead


class Key(NamedTuple):
    """The 0-based column, row and level of a tile."""

    x: int
    y: int
    z: int


class Tile(LazyTileDict):
    """
    A tile of an iteration that is decoded when its pixels are read.

    Its array is always writable.  A pickle or copy of a tile refers to the source
    itself and does not read ahead.
    """

    @classmethod
    def of(cls, tile: LazyTileDict) -> Tile:
        """Convert a tile of large_image, which must not be used afterwards."""
        result: Tile = cls.__new__(cls)
        # Not __init__, which would reset the format.
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
    """large_image's tile iterator, of ``Tile`` objects."""

    def __next__(self) -> Tile:
        return Tile.of(super().__next__())


def _same(source: Any) -> Any:
    """Unpickle or copy a ``ReadAhead`` as its source."""
    return source


class ReadAhead:
    """
    A stand-in for a source that decodes tiles ahead when they are read in order.

    Reading ahead starts with the second tile and doubles with each expected tile, up
    to ``MAX_AHEAD``.  An unexpected tile ends it; later tiles are decoded when read.

    :param source: the tile source; provides everything but ``getTile``.
    :param frame: the 0-based frame that is read.
    :param read: reads the pixels of a tile of a frame; called in other threads.
    :param order: iterates over the tiles in the order in which they will be read.
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
        Pickle and copy as the source itself.

        Other processes get single tiles, so there is nothing to read ahead.
        """
        return _same, (self._source,)

    def getTile(self, x: int, y: int, z: int, *args: Any, **kwargs: Any) -> Any:
        """Do what ``getTile`` of the source does."""
        key = Key(x, y, z)
        # A style may iterate over other tiles to make this one.
        before = getattr(_current, 'tile', None)
        _current.tile = self._source, self._frame, key, self._decoded(key)
        try:
            return self._source.getTile(x, y, z, *args, **kwargs)
        finally:
            _current.tile = before

    def _decoded(self, key: Key) -> Array | None:
        """The pixels of a tile if they were decoded ahead."""
        if self._process != os.getpid():
            # The decoding threads exist only in the parent process.
            self._stop()
            return None
        with self._lock:
            if self._order is not None and not self._starts(key):
                return None
            future = self._expected(key)
            self._fill()
        if future is None:
            return None
        # The source reads a failed tile again and raises the error with its context.
        with suppress(TileSourceError):
            return future.result()
        return None

    def _starts(self, key: Key) -> bool:
        """Start reading ahead at the second tile; False at the first."""
        assert self._order is not None  # until reading ahead starts
        if self._first is None:
            self._first = key
            return False
        keys, self._order = self._order(), None
        if next(keys, None) == self._first:
            self._keys = keys
            self._schedule()
        return True

    def _expected(self, key: Key) -> Future[Array] | None:
        """Find a tile among those being decoded, and drop those before it."""
        for _skipped in range(len(self._pending)):
            expected, future = self._pending.popleft()
            if expected == key:
                self._ahead = min(2 * self._ahead, MAX_AHEAD)
                return future
            future.cancel()
        self._stop()
        return None

    def _fill(self) -> None:
        """Schedule tiles up to the current number ahead."""
        while len(self._pending) < self._ahead and self._schedule():
            pass

    def _schedule(self) -> bool:
        """Schedule the next tile; False if there is none."""
        key = next(self._keys, None)
        if key is None:
            return False
        try:
            future = _workers().submit(self._read, self._frame, key)
        except RuntimeError:
            # After the main thread has ended, pools accept no work.
            return False
        self._pending.append((key, future))
        return True

    def _stop(self) -> None:
        """End reading ahead."""
        self._order, self._keys = None, iter(())
        self._pending.clear()


# ``tile`` is what this thread reads through a ReadAhead now: source, frame, key, and
# the pixels if they were decoded ahead.
_current = threading.local()


def read_ahead(source: Any, frame: int, key: Key) -> tuple[bool, Array | None]:
    """
    Look up a tile that a source is about to read.

    :param source: the tile source.
    :param frame: the 0-based frame.
    :param key: the tile; a style may need others than the one being read.
    :returns: whether the calling thread reads through a ``ReadAhead``, and the pixels
        of the tile if they were decoded ahead.
    """
    tile = getattr(_current, 'tile', None)
    if tile is None:
        return False, None
    is_this = tile[0] is source and tile[1:3] == (frame, key)
    return True, tile[3] if is_this else None


_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _workers() -> ThreadPoolExecutor:
    """The decoding threads, shared by all ``ReadAhead`` objects of the process."""
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
    Iterate over the tiles of a source under one tile of an iteration.

    :param tile: of a ``TileIterator``, in level pixels.
    :param tile_size: the width and height of the source's tiles.
    """
    left, top = int(tile.get('tile_x', tile['x'])), int(tile.get('tile_y', tile['y']))
    right, bottom = left + int(tile.width), top + int(tile.height)
    rows = range(top // tile_size, -(-bottom // tile_size))
    columns = range(left // tile_size, -(-right // tile_size))
    for y, x in itertools.product(rows, columns):
        yield Key(x, y, tile['level'])
