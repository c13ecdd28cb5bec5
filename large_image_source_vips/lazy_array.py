"""
A level of a source as a lazy array: pixels are read when it is sliced.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from large_image.exceptions import TileSourceError

from .base.errors import shown
from .base.geometry import TILE_SIZE, Rect, Size

if TYPE_CHECKING:
    from .source import StoreTileSource

Array = npt.NDArray[Any]

# Up to this many tiles in each direction are read together if only some pixels are needed.
_TILES_AT_ONCE = 8


class LazyArray:
    """
    The pixels of one level of a frame, (rows, cols, bands), as ``getTile`` returns them.

    Slicing decodes the tiles that it touches and returns a new numpy array.  Indices are as
    in numpy: integers, slices, ``...``, and one array of integers or booleans.  Several
    threads can use it, and it can be pickled if the source can.

    It works with ``dask.array.from_array``, ``napari`` and ``numpy.asarray``.

    :param source: the source.
    :param reduction: 0 for full resolution, r for 2 ** r times smaller.
    :param frame: the 0-based frame.
    """

    ndim = 3

    def __init__(self, source: StoreTileSource, reduction: int, frame: int) -> None:
        self._source = source
        self._reduction = reduction
        self._frame = frame
        self._size = self._current_size()
        bands, self.dtype = self._sample_format()
        #: Rows, columns and bands.
        self.shape = self._size.height, self._size.width, bands
        tile = source._stored_tile_size(frame, reduction)
        #: Rows, columns and bands of a chunk, which is decoded in one piece.
        self.chunks = (min(tile.height, self.shape[0]), min(tile.width, self.shape[1]), bands)

    def _current_size(self) -> Size:
        return Size(self._source.sizeX, self._source.sizeY).reduced(self._reduction)

    def _sample_format(self) -> tuple[int, np.dtype[Any]]:
        """The number of bands and the dtype."""
        source = self._source
        dtype, bands = source.dtype, source.bandCount
        if not source._is_plain():
            # A style can change both.
            tile = source.getTile(0, 0, 0, frame=self._frame, numpyAllowed='always')
            dtype, bands = tile.dtype, tile.shape[2]
        assert bands is not None
        return bands, np.dtype(dtype)

    @property
    def size(self) -> int:
        """The number of samples."""
        rows, cols, bands = self.shape
        return rows * cols * bands

    @property
    def nbytes(self) -> int:
        """The number of bytes of all samples."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f'<LazyArray {self.shape} {self.dtype} of {self._source!r}>'

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            msg = 'A LazyArray has no memory to share; its pixels are always read.'
            raise ValueError(msg)
        pixels = self[...]
        return pixels if dtype is None else pixels.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Array:
        """
        Read pixels.

        :raises IndexError: if the key is not valid in numpy, or has two arrays.
        :raises TileSourceError: if the pixels cannot be read, or the size of the image has
            changed.
        """
        if self._current_size() != self._size:
            msg = (f'The size of the image has changed since asArray() was called; it was '
                   f'{self._size.width} x {self._size.height} at this level.  Call it again.')
            raise TileSourceError(msg)
        rows, cols, bands = (_Axis.of(part, length) for part, length in zip(
            _completed(key), self.shape, strict=True))
        result = np.empty((len(rows.places), len(cols.places), self.shape[2]), self.dtype)
        for down in rows.runs(self.chunks[0]):
            for across in cols.runs(self.chunks[1]):
                pixels = self._read(Rect(
                    across.first, down.first, across.length, down.length))
                found = pixels[down.of][:, across.of]
                if isinstance(down.into, slice) and isinstance(across.into, slice):
                    result[down.into, across.into] = found
                else:
                    result[np.ix_(*(np.arange(length)[run.into] for run, length in zip(
                        (down, across), result.shape, strict=False)))] = found
        if not bands.is_all:
            result = result[:, :, bands.places]
        return result[tuple(0 if axis.single else slice(None) for axis in (rows, cols, bands))]

    def _read(self, rect: Rect) -> Array:
        """Read a rectangle that is not empty, as ``getTile`` would."""
        source = self._source
        if source._is_plain():
            return source._read_rect(self._frame, self._reduction, rect)
        pixels = np.empty((rect.height, rect.width, self.shape[2]), self.dtype)
        level = source.levels - 1 - self._reduction
        for y in range(rect.top // TILE_SIZE, (rect.bottom - 1) // TILE_SIZE + 1):
            for x in range(rect.left // TILE_SIZE, (rect.right - 1) // TILE_SIZE + 1):
                tile = source.getTile(x, y, level, frame=self._frame, numpyAllowed='always')
                place = Rect(x * TILE_SIZE, y * TILE_SIZE, TILE_SIZE, TILE_SIZE)
                part = place.clipped(rect)
                pixels[_slices(part.moved(-rect.left, -rect.top))] = (
                    tile[_slices(part.moved(-place.left, -place.top))])
        return pixels


def lazy_array(source: StoreTileSource, level: Any, frame: Any) -> LazyArray:
    """
    A level of a source as an array; see ``asArray`` of a source.

    :raises TileSourceError: if there is no such level or frame.
    """
    if source.dtype is None:
        msg = 'An image without tiles has no array; add a tile with addTile() first.'
        raise TileSourceError(msg)
    frame = 0 if frame is None else frame
    bounds = (('level', level, source.levels), ('frame', frame, source._store.frame_count))
    for name, value, bound in bounds:
        if not isinstance(value, (int, np.integer)) or not 0 <= value < bound:
            msg = f'{name} must be a whole number from 0 to {bound - 1}, not {shown(value)}.'
            raise TileSourceError(msg)
    return LazyArray(source, int(level), int(frame))


def _slices(rect: Rect) -> tuple[slice, slice]:
    return slice(rect.top, rect.bottom), slice(rect.left, rect.right)


def _completed(key: Any) -> list[Any]:
    """
    Extend a key to one part for each of the three axes.

    :raises IndexError: if it has parts that ``LazyArray`` does not support.
    """
    parts = list(key) if isinstance(key, tuple) else [key]
    holes = [place for place, part in enumerate(parts) if part is Ellipsis]
    if len(holes) > 1:
        msg = "an index can only have a single ellipsis ('...')"
        raise IndexError(msg)
    place = holes[0] if holes else len(parts)
    given = len(parts) - len(holes)
    if given > 3:
        msg = f'too many indices: the array has 3 dimensions, but {given} were indexed'
        raise IndexError(msg)
    parts[place:place + len(holes)] = [slice(None)] * (3 - given)
    if sum(not isinstance(part, slice) and np.ndim(part) > 0 for part in parts) > 1:
        msg = 'only one index may be an array; slice the others one after another'
        raise IndexError(msg)
    return parts


class _Run(NamedTuple):
    """
    Neighbouring tiles along an axis.

    :param first: the first pixel to read.
    :param length: the number of pixels to read.
    :param of: the needed ones of these.
    :param into: their positions in the result.
    """

    first: int
    length: int
    of: Any
    into: Any


class _Axis(NamedTuple):
    """
    The indexed pixels along an axis.

    :param places: the pixels, in the order of the result.
    :param single: whether the index is an integer, which removes the axis.
    :param is_all: whether these are all pixels, in order.
    """

    places: Any
    single: bool
    is_all: bool

    @classmethod
    def of(cls, part: Any, length: int) -> _Axis:
        """
        Parse a part of a key.

        :raises IndexError: if it is not valid, or out of bounds.
        """
        if isinstance(part, slice):
            places: Any = range(length)[part]
            return cls(places, False, places == range(length))
        if part is None or (np.ndim(part) > 0 and np.asarray(part).ndim != 1):
            msg = ('an index of this array must be an integer, a slice or a 1-D array, '
                   f'not {shown(part)}')
            raise IndexError(msg)
        if np.ndim(part) == 0:
            try:
                index = operator.index(part)
            except TypeError as exc:
                raise IndexError(str(exc)) from exc
            places = np.array([index])
        else:
            places = np.asarray(part)
            if places.dtype == bool:
                if len(places) != length:
                    msg = f'a boolean index has {len(places)} values for an axis of {length}'
                    raise IndexError(msg)
                places = np.flatnonzero(places)
            elif places.dtype.kind not in 'iu' and places.size:
                msg = f'an index array must hold integers or booleans, not {places.dtype}'
                raise IndexError(msg)
            places = places.astype(np.intp)
        wrong = places[(places < -length) | (places >= length)]
        if wrong.size:
            msg = f'index {wrong[0]} is out of bounds for an axis of {length}'
            raise IndexError(msg)
        return cls(np.where(places < 0, places + length, places), np.ndim(part) == 0, False)

    def runs(self, tile: int) -> Iterator[_Run]:
        """
        The runs of tiles that contain the indexed pixels.

        :param tile: the length of a tile along the axis.
        """
        places = self.places
        if not len(places):
            return
        if isinstance(places, range) and abs(places.step) == 1:
            first, last = sorted((places[0], places[-1]))
            yield _Run(first, last - first + 1, slice(None, None, places.step), slice(None))
            return
        places = np.asarray(places)
        numbers = places // tile
        wanted = np.unique(numbers)
        start = 0
        for end in range(1, len(wanted) + 1):
            if end < len(wanted) and wanted[end] == wanted[end - 1] + 1 and (
                    end - start < _TILES_AT_ONCE):
                continue
            into = np.flatnonzero((numbers >= wanted[start]) & (numbers <= wanted[end - 1]))
            inside = places[into]
            first = int(inside.min())
            yield _Run(first, int(inside.max()) - first + 1, inside - first, into)
            start = end
