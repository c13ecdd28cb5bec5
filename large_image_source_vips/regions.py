"""
Read rectangles of a level into one array, using large_image's tile cache.

A level that is decoded in tiles is divided into *cells* of one stored tile, or several
small ones.  A rectangle of at most ``MAX_KEPT`` bytes is assembled from cells, and newly
decoded cells are cached.  In a larger rectangle, cells that are not cached are decoded
straight into the result.  An uncompressed level has no cells, because reading a tile again
is faster than copying it to the cache.

Reading happens in the calling thread; other threads may help with a large rectangle.
"""

from __future__ import annotations

import itertools
import operator
import threading
from collections.abc import Iterator, Sequence
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import region_threads
from .base.errors import TileSourceError, shown
from .base.geometry import TILE_SIZE, Rect, Size
from .base.limits import LIMITS
from .store import Pixels, PixelStore

Array = npt.NDArray[Any]

# Cells of larger rectangles, and larger cells, are not cached.
MAX_KEPT = LIMITS.regions_kept
# The least pixels for helper threads; for fewer, starting them takes longer than it saves.
SHARED_PIXELS = 1 << 20
# TIFF's number for JPEG.
_JPEG = 7
# The approximate number of pixels that a thread decodes at a time.
_SHARE = 1 << 18


class Place(NamedTuple):
    """A rectangle of an image, in level pixels of a reduction of a frame."""

    frame: int
    reduction: int
    rect: Rect


def tile_key(x: Any, y: Any, z: Any) -> tuple[int, int, int]:
    """
    The column, row and level of a tile as ints.

    :raises TileSourceError: if one of them is not a whole number.
    """
    return _whole(x, 'x'), _whole(y, 'y'), _whole(z, 'z')


def _whole(value: Any, name: str) -> int:
    """
    A column, row or level as an int; floats are accepted if they are whole numbers.

    :raises TileSourceError: for anything else.
    """
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, float) and value.is_integer():
            return int(value)
    msg = f'{name} of a tile must be a whole number, not {shown(value)}.'
    raise TileSourceError(msg)


class TileCache:
    """
    Stores cells in large_image's tile cache.

    :param cache: in memory, or a service shared by processes.
    :param lock: the lock of the cache, if it has one.
    """

    def __init__(self, cache: Any, lock: Any) -> None:
        self._cache = cache
        self._lock = threading.Lock() if lock is None else lock

    def get(self, keys: Sequence[str]) -> list[Array | None]:
        """The arrays for some keys, None for missing ones; do not change them."""
        with self._lock:
            return [self._get(key) for key in keys]

    def _get(self, key: str) -> Array | None:
        try:
            found: Array = self._cache[key]
        except (KeyError, ValueError, UnpicklingError, ModuleNotFoundError):
            # The last three as in large_image: the entry may be from another Python
            # version.
            return None
        return found

    def put(self, key: str, pixels: Array) -> None:
        """Store an array; do not change it afterwards."""
        with self._lock:
            try:
                self._cache[key] = pixels
            except (KeyError, ValueError, RuntimeError):
                # As in large_image: the cache may refuse it, for example if it is too
                # large.
                return


class _Grid(NamedTuple):
    """The cells under a rectangle: columns and rows, and the width and height of each."""

    columns: range
    rows: range
    cell: Size

    @classmethod
    def under(cls, rect: Rect, cell: Size) -> _Grid:
        return cls(range(rect.left // cell.width, -(-rect.right // cell.width)),
                   range(rect.top // cell.height, -(-rect.bottom // cell.height)), cell)

    def rects(self) -> Iterator[Rect]:
        """The cells row by row, in level pixels."""
        width, height = self.cell
        for row, column in itertools.product(self.rows, self.columns):
            yield Rect(column * width, row * height, width, height)


class Regions:
    """
    Reads rectangles of an image.

    :param store: the image.
    :param cache: for decoded cells.
    """

    def __init__(self, store: PixelStore, cache: TileCache) -> None:
        self._store = store
        self._cache = cache

    def read(self, place: Place, margin: tuple[int, int] = (0, 0)) -> Array:
        """
        Read a rectangle.

        :param place: inside the image.
        :param margin: additional rows above and columns to the left, with undefined values.
        :returns: a new array (rect.height, rect.width, bands).
        :raises TileSourceError: if it cannot be decoded.
        """
        return self._read(self._store.current(), place, margin)

    def _read(self, pixels: Pixels, place: Place, margin: tuple[int, int] = (0, 0)) -> Array:
        dtype, bands = self._store.dtype, self._store.bands
        if pixels.key is None or dtype is None or bands is None:
            # The dtype of a canvas may change until it is read.
            return np.pad(pixels.read(*place), ((margin[0], 0), (margin[1], 0), (0, 0)))
        whole = np.empty(
            (margin[0] + place.rect.height, margin[1] + place.rect.width, bands), dtype)
        out = whole[margin[0]:, margin[1]:]
        self._fill(pixels, place, self._cell_size(pixels, place), out)
        return whole

    def place(self, frame: int, reduction: int, rect: Rect) -> Place | None:
        """A rectangle in level pixels as a ``Place``; None unless it is inside the image."""
        if reduction < 0 or not 0 <= frame < self._store.frame_count or rect.empty:
            return None
        whole = Rect(0, 0, *self._store.size.reduced(reduction))
        if not whole.contains(rect) or not all(type(side) is int for side in rect):
            return None
        return Place(frame, reduction, rect)

    def tile(self, place: Place, side: int) -> Array | None:
        """
        Read a tile of a level with cells or without compression.

        This does not check whether the file has changed.

        :param place: inside the image.
        :param side: width and height of the tile in pixels, at least those of the place.
        :returns: a new array (side, side, bands), 0 beyond the place; None for other
            levels.
        :raises TileSourceError: if it cannot be decoded.
        """
        pixels = self._store.latest()
        cell = self._cell_size(pixels, place)
        dtype, bands = self._store.dtype, self._store.bands
        if bands is None or (cell is None and not pixels.is_uncompressed(*place[:2])):
            return None
        rect = place.rect
        if cell == rect.size == (side, side):
            # The tile is one cell.  Measured: this case saves a twentieth of the time.
            return self._one_cell(pixels, place)
        whole = rect.width == rect.height == side
        tile = (np.empty if whole else np.zeros)((side, side, bands), dtype)
        self._fill(pixels, place, cell, tile[:rect.height, :rect.width])
        return tile

    def _one_cell(self, pixels: Pixels, place: Place) -> Array:
        """Read a tile that is one cell; returns a copy of the cached array."""
        grid = _Grid.under(place.rect, place.rect.size)
        key = _key(pixels, place, grid.columns.start, grid.rows.start)
        (found,) = self._cache.get([key])
        if found is None:
            region_threads.readers.enter()
            try:
                found = pixels.read(*place)
            finally:
                region_threads.readers.leave()
            self._cache.put(key, found)
        copy: Array = found.copy()
        return copy

    def stored_jpeg(self, place: Place) -> bytes | None:
        """
        A tile as the JPEG data in the file; does not check whether the file has changed.

        :param place: of a tile of ``TILE_SIZE``.
        :returns: a complete JPEG file; None unless the tile is stored as JPEG with 8 bits
            and 1 or 3 bands, and lies completely inside the image.
        """
        pixels, rect = self._store.latest(), place.rect
        if rect.size != (TILE_SIZE, TILE_SIZE) or self._store.dtype != np.uint8:
            return None
        level = pixels.encoded_level(place.frame, place.reduction)
        if (level is None or level.compression != _JPEG or level.tile != rect.size or
                level.samples != self._store.bands or level.samples not in (1, 3) or
                not Rect(0, 0, *level.size).contains(rect)):
            return None
        data = level.read(rect.left // TILE_SIZE, rect.top // TILE_SIZE)
        return None if data is None else level.whole(data)

    def single(self, place: Place, *, keep: bool) -> Array:
        """
        Read a tile of other levels; does not check whether the file has changed.

        :param place: inside the image.
        :param keep: as for ``Pixels.read``.
        :returns: an array (rect.height, rect.width, bands); do not change it.
        :raises TileSourceError: if it cannot be decoded.
        """
        pixels = self._store.latest()
        cell = self._cell_size(pixels, place)
        if cell is None or cell == (TILE_SIZE, TILE_SIZE):
            return pixels.read(*place, keep=keep)
        # Neighbours need other parts of the same stored tiles.
        return self._read(pixels, place)

    def _fill(self, pixels: Pixels, place: Place, cell: Size | None, out: Array) -> None:
        """
        Read a rectangle into its array.

        :param cell: the cells of the level, if it has any.
        """
        alone = region_threads.readers.enter()
        try:
            missing = [place.rect] if cell is None else self._from_cells(pixels, place, cell, out)
            if missing:
                _decode(pixels, place, missing, out, alone=alone)
        finally:
            region_threads.readers.leave()

    def _cell_size(self, pixels: Pixels, place: Place) -> Size | None:
        """The size of the cells of a level; None if it has none, or they are too large to cache."""
        tile = pixels.tile_size(place.frame, place.reduction)
        if tile is None or pixels.key is None or pixels.is_uncompressed(*place[:2]):
            return None
        cell = Size(*(side * max(1, TILE_SIZE // side) for side in tile))
        pixel_bytes = (self._store.bands or 0) * np.dtype(self._store.dtype).itemsize
        return cell if cell.area * pixel_bytes <= MAX_KEPT else None

    def _from_cells(self, pixels: Pixels, place: Place, cell: Size, out: Array) -> list[Rect]:
        """
        Copy cached cells to an array; if the rectangle is small, decode and cache the
        missing ones.

        :param out: the array of ``place.rect``.
        :returns: the parts of ``place.rect`` still to be decoded.
        """
        rect, grid = place.rect, _Grid.under(place.rect, cell)
        keys = [_key(pixels, place, column, row) for row in grid.rows for column in grid.columns]
        found = self._cache.get(keys)
        keeps = out.nbytes <= MAX_KEPT
        if not keeps and not any(part is not None for part in found):
            return [rect]
        level = Rect(0, 0, *self._store.size.reduced(place.reduction))
        missing = []
        for key, part, whole in zip(keys, found, grid.rects(), strict=True):
            inside = whole.clipped(rect)
            if part is None:
                if not keeps:
                    missing.append(inside)
                    continue
                part = pixels.read(place.frame, place.reduction, whole.clipped(level))
                self._cache.put(key, part)
            _view(out, rect, inside)[:] = _view(part, whole, inside)
        return _joined(missing)


def _key(pixels: Pixels, place: Place, column: int, row: int) -> str:
    """The key of a cell in the cache."""
    return f'{pixels.key} {place.frame} {place.reduction} {column} {row}'


def _view(array: Array, rect: Rect, part: Rect) -> Array:
    """The part of an array of ``rect`` that is ``part``, both in level pixels."""
    top, left = part.top - rect.top, part.left - rect.left
    return array[top:top + part.height, left:left + part.width]


def _joined(rects: list[Rect]) -> list[Rect]:
    """Join neighbours in a row, in order, so that each is decoded in one call."""
    joined: list[Rect] = []
    for rect in rects:
        last = joined[-1] if joined else None
        if last and (last.top, last.height, last.right) == (rect.top, rect.height, rect.left):
            joined[-1] = last._replace(width=last.width + rect.width)
        else:
            joined.append(rect)
    return joined


def _decode(pixels: Pixels, place: Place, rects: list[Rect], out: Array, *, alone: bool) -> None:
    """
    Decode parts of a rectangle into its array.

    :param rects: the parts.
    :param out: the array of ``place.rect``.
    :param alone: whether no other thread is reading.
    """
    frame, reduction, _whole = place
    tile = pixels.tile_size(frame, reduction)

    def work(rect: Rect) -> None:
        try:
            pixels.read(frame, reduction, rect, out=_view(out, place.rect, rect))
        except TileSourceError:
            # Read tile by tile, so that the error names the tile.
            for part in _Grid.under(rect, tile or rect.size).rects():
                pixels.read(frame, reduction, part.clipped(rect))
            raise

    helpers = 0
    if alone and tile is not None and sum(rect.size.area for rect in rects) >= (
            SHARED_PIXELS):
        helpers = region_threads.helper_count()
    if not helpers or tile is None:
        for rect in rects:
            work(rect)
        return
    strips = [strip for rect in rects for strip in _strips(rect, tile.height)]
    region_threads.share(work, strips, helpers)


def _strips(rect: Rect, rows: int) -> Iterator[Rect]:
    """Split a rectangle along rows of tiles (``rows`` high) for several threads."""
    step = rows * max(1, _SHARE // (rect.width * rows))
    top = rect.top
    while top < rect.bottom:
        bottom = min((top // step + 1) * step, rect.bottom)
        yield Rect(rect.left, top, rect.width, bottom - top)
        top = bottom
