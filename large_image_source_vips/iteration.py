"""
Read tiles of ``tileIterator`` and pieces of ``getRegion`` as one rectangle each.

large_image assembles tiles of other sizes from the source's tiles, one by one.  Here each
is read as one rectangle into one array.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from large_image.constants import TILE_FORMAT_NUMPY
from large_image.tilesource.tiledict import LazyTileDict
from large_image.tilesource.tileiterator import TileIterator

from .base.arrays import writable
from .base.geometry import TILE_SIZE, Rect

if TYPE_CHECKING:
    from .regions import Place, Regions

Array = npt.NDArray[Any]

# Width and height of the pieces in which large_image reads a region.
_PIECE = 4096
# The keys of a region in full-resolution pixels.
_IN_PIXELS = frozenset(('left', 'top', 'width', 'height'))
_OUTPUT = frozenset(('maxWidth', 'maxHeight'))
_REQUEST = frozenset(('region', 'output'))
_NO_OUTPUT = object()


class _Reading(threading.local):
    """Whether the thread is reading a region or an iteration."""

    several = False


_reading = _Reading()


def reads_several() -> bool:
    """Whether the calling thread is reading a region or an iteration."""
    return _reading.several


@contextmanager
def several_tiles() -> Iterator[None]:
    """A context in which this thread reads tiles of a region or an iteration."""
    before, _reading.several = _reading.several, True
    try:
        yield
    finally:
        _reading.several = before


class Tile(LazyTileDict):
    """
    A tile of an iteration; its pixels are read on demand.

    Its array is always writable.
    """

    loaded: bool

    @classmethod
    def of(cls, tile: LazyTileDict) -> Tile:
        """Convert a tile of large_image; do not use the original afterwards."""
        result: Tile = cls.__new__(cls)
        # Not __init__, which would reset the format.
        result.__dict__.update(vars(tile))
        dict.update(result, tile)
        return result

    def __getitem__(self, key: str, *args: Any, **kwargs: Any) -> Any:
        if self.loaded or key not in self.deferredKeys:
            return super().__getitem__(key, *args, **kwargs)
        try:
            with several_tiles():
                super().__getitem__(key, *args, **kwargs)
        except BaseException:
            # After an error the base class would return None.
            self.loaded = False
            raise
        self['tile'] = writable(dict.__getitem__(self, 'tile'))
        return dict.__getitem__(self, key)

    def _retileTile(self) -> Array:
        """Read a tile of another size than the source's, or with overlap, as one rectangle."""
        pixels: Array | None = self.source._read_level(self.level, self.frame, _rect_of(self))
        return super()._retileTile() if pixels is None else pixels


class Tiles(TileIterator):
    """large_image's tile iterator, of ``Tile`` objects."""

    def __next__(self) -> Tile:
        return Tile.of(super().__next__())


def _without(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments that ``getRegion`` passes to its iterator."""
    return {name: value for name, value in kwargs.items()
            if name not in {'resample', 'tile_position'}}


class Region(TileIterator):
    """large_image's iterator, used only to compute the position of a region."""

    @classmethod
    def of(cls, source: Any, kwargs: dict[str, Any]) -> Region:
        """
        The region of a request.

        :param source: the tile source.
        :param kwargs: the arguments of ``getRegion``.
        """
        return cls(source, format=TILE_FORMAT_NUMPY, resample=None, **_without(kwargs))

    def _tileIterator(self, iterInfo: dict[str, Any]) -> Iterator[LazyTileDict]:
        # A generator would form a reference cycle with this object and keep the source
        # alive.
        return iter(())


def common_place(source: Any, regions: Regions, kwargs: dict[str, Any]) -> Place | None:
    """
    The place of the most common requests, computed faster than by large_image.

    :param source: the tile source.
    :param regions: its rectangles.
    :param kwargs: the arguments of ``getRegion``.
    :returns: None unless the region is given in full-resolution pixels and inside the
        image, at full resolution or smaller by a power of two, with no other option.
    """
    rect, reduction = _rect_in_pixels(kwargs) or (None, 0)
    place = None if rect is None else regions.place(source._getFrame(), 0, rect)
    if place is None or not reduction:
        return place
    level = source.levels - 1 - reduction
    if level < 0 or source.getPreferredLevel(level) != level:
        return None
    # large_image rounds the edges down.
    return regions.place(place.frame, reduction, Rect(
        place.rect.left >> reduction, place.rect.top >> reduction,
        place.rect.width >> reduction, place.rect.height >> reduction))


def _rect_in_pixels(kwargs: dict[str, Any]) -> tuple[Rect, int] | None:
    """
    The region in full-resolution pixels, and how often it is halved.

    :param kwargs: as for ``common_place``.
    :returns: the region may extend beyond the image; None for another request.
    """
    region: Any = kwargs.get('region')
    output: Any = kwargs.get('output', _NO_OUTPUT)
    if not kwargs.keys() <= _REQUEST or not _are_integers(region, _IN_PIXELS):
        return None
    rect = Rect(region['left'], region['top'], region['width'], region['height'])
    if output is _NO_OUTPUT:
        return rect, 0
    if not _are_integers(output, _OUTPUT) or output['maxWidth'] < 1:
        return None
    width, height = output['maxWidth'], output['maxHeight']
    reduction = (rect.width // width).bit_length() - 1
    if reduction < 0 or (width << reduction, height << reduction) != rect.size:
        return None
    return rect, reduction


def _are_integers(value: Any, names: frozenset[str]) -> bool:
    """Whether a value is a dictionary of these names and integers."""
    return type(value) is dict and value.keys() == names and all(
        type(number) is int for number in value.values())


def _rect_of(tile: LazyTileDict) -> Rect:
    """The rectangle of a tile in level pixels."""
    # 'x' and 'y' of a scaled tile may be floats.
    return Rect(int(tile['x']), int(tile['y']), tile.width, tile.height)


class Pieces:
    """
    A replacement for a source in large_image's ``getRegion``.

    large_image reads a region in pieces of 4096 x 4096 pixels, tile by tile.  Here each
    piece is read with its first tile, and its tiles are views of it.

    :param source: the tile source, for everything but ``getTile``.
    :param kwargs: the arguments of ``getRegion`` that define the region.
    """

    def __init__(self, source: Any, kwargs: dict[str, Any]) -> None:
        self._source = source
        self._parts = _pieces(source, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def getTile(self, x: int, y: int, z: int, *args: Any, **kwargs: Any) -> Any:
        """The next tile; large_image requests them in this order."""
        place, tile = next(self._parts, (None, None))
        return tile if place == (x, y, z) else self._source.getTile(x, y, z, *args, **kwargs)


def _pieces(source: Any, kwargs: dict[str, Any]) -> Iterator[tuple[tuple[int, int, int], Array]]:
    """
    Read the pieces of a region, and split them into tiles in large_image's order.

    :param source: the tile source.
    :param kwargs: the arguments of ``getRegion``.
    """
    pieces = TileIterator(source, format=TILE_FORMAT_NUMPY, resample=None, **{
        **_without(kwargs), 'tile_size': {'width': _PIECE, 'height': _PIECE},
        'tile_offset': {'auto': True}})
    # An unfinished iterator would keep the source alive; see ``Region``.
    for piece in list(pieces):
        yield from _cut(piece, source._read_level)


def _cut(piece: LazyTileDict, read: Callable[..., Array]) -> Iterator[
        tuple[tuple[int, int, int], Array]]:
    """
    Read a piece of a region, and split it into tiles of the source, row by row.

    :param piece: of a ``TileIterator``.
    :param read: reads a rectangle of a level, with unread margins.
    """
    rect = _rect_of(piece)
    left, top = rect.left - rect.left % TILE_SIZE, rect.top - rect.top % TILE_SIZE
    pixels = read(piece.level, piece.frame, rect, margin=(rect.top - top, rect.left - left))
    for row in range(top, rect.bottom, TILE_SIZE):
        for column in range(left, rect.right, TILE_SIZE):
            yield (column // TILE_SIZE, row // TILE_SIZE, piece.level), pixels[
                row - top:row - top + TILE_SIZE, column - left:column - left + TILE_SIZE]
