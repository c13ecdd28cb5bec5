"""
Read rectangles of a picture at any reduction.

Levels stored in the file are read directly.  Missing levels are computed from the
next larger stored level:

* up to 4 times smaller (8 times for JPEG tiles): from the stored pixels under the
  rectangle, on every read;
* smaller still: as a whole plane, computed once and cached.  Several threads compute
  the first plane, 4 (or 8) times smaller, in one pass over the stored level; each
  further plane is computed from the one twice its size.  Reads use a cached plane
  where there is one; its pixels are the same.

The method depends only on the level, so a pixel has the same value whichever
rectangle it is read with.  ``base.reduce`` averages or picks the pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from ..base.errors import TileSourceError
from ..base.formats import is_averaged, opaque_alpha
from ..base.geometry import Rect, Size
from ..base.limits import LIMITS
from ..base.reduce import reduce_pixels
from ..base.threads import side_by_side
from .file import SourceFile
from .layout import Layout, Opening, Picture, Stored
from .level_cache import LARGE_PICTURE, MAX_PLANE_MEMORY, Plane, planes
from .rows import Band, bands, decode
from .stored_levels import StoredLevels
from .tiff_tiles import TiffTiles

Array = npt.NDArray[Any]

# A level of up to this many halvings is computed per tile, from at most 16 stored
# tiles; the first plane has this many.
_DIRECT_HALVINGS = 2
# The stored pixels that a pass over a level reads at a time, approximately.
_BLOCK = Size(1024, 512)
# The most halvings at which tiles are decoded: libjpeg's.
_MAX_HALVINGS = 3
# Rows of a plane that are computed at a time: they fit into the processor's cache.
_HALVED_ROWS = 32
_MAX_KEPT = LIMITS.reading_kept
_MAX_ALL_KEPT = LIMITS.reading_kept_disk


class Levels:
    """
    The levels of all pictures of one file.

    :param file: the file.
    :param layout: its pictures and their stored levels.
    """

    def __init__(self, file: SourceFile, layout: Layout) -> None:
        self._file = file
        self._layout = layout
        # Pictures that are not decoded ahead: small ones, too large ones, and those
        # that failed.
        self._not_ahead: set[Opening] = set()
        self._stored = StoredLevels(file)

    def read(self, picture: Picture, reduction: int, rect: Rect, *, keep: bool = False,
             out: Array | None = None) -> Array:
        """
        Read a rectangle.

        :param picture: a picture of the layout.
        :param reduction: 0 for full resolution, r for 2 ** r times smaller.
        :param rect: in level pixels of that reduction, inside the picture's
            reduced size.
        :param keep: whether other parts and reductions are likely to be read soon;
            if so, more than the rectangle may be decoded and cached.
        :param out: an array (rect.height, rect.width, bands) of any strides, which may be
            filled and returned.
        :returns: an array (rect.height, rect.width, bands), possibly read-only.
        :raises TileSourceError: if the pixels cannot be decoded.
        """
        if keep:
            self._decode_ahead(picture, reduction)
        if reduction in picture.levels:
            pixels = self._stored.read(picture, reduction, rect, out)
            if pixels.base is None or pixels is out or picture.levels[reduction].random:
                return pixels
            # A view would keep the whole picture alive as long as the tile.
            whole = rect.width * rect.height == picture.size.reduced(reduction).area
            return pixels if whole else pixels.copy()
        nearest = max(stored for stored in picture.levels if stored < reduction)
        halvings = reduction - nearest
        direct = self._direct_halvings(picture, nearest)
        if halvings == direct:
            made = planes.peek(self._file.serial, self._plane_key(picture, reduction))
            if made is not None:
                return _crop(made.pixels, rect)
        if halvings <= direct:
            return self._read_reduced(picture, nearest, halvings, rect)
        return _crop(self._plane(picture, nearest, reduction).pixels, rect)

    def read_whole(self, picture: Picture, longest: int) -> Array:
        """
        Read a whole picture at the largest level that fits.

        :param longest: the bound for the longer side in pixels.
        :returns: an array (rows, cols, bands).
        :raises TileSourceError: if the pixels cannot be decoded.
        """
        reduction = 0
        while max(picture.size.reduced(reduction)) > longest:
            reduction += 1
        return self.read(picture, reduction, Rect(0, 0, *picture.size.reduced(reduction)))

    def full(self, picture: Picture) -> Array:
        """
        Decode a whole picture at full resolution into a shared plane.

        :returns: a read-only array (rows, cols, bands), in memory or in a temporary file.
        :raises TileSourceError: if the pixels cannot be decoded, or there is no room.
        """
        stored, size = picture.levels[0], picture.size
        if not stored.random and picture.orientation == 1 and not picture.is_masked:
            return self._stored.rows(stored, 0, size.height)

        def make() -> Plane:
            plane = self._stored.new_plane(size, stored)
            for top in range(0, size.height, _BLOCK.height):
                rect = Rect(0, top, size.width, min(_BLOCK.height, size.height - top))
                plane.put(top, self._stored.read(picture, 0, rect))
            return plane.finish()

        return planes.get(self._file.serial, self._plane_key(picture, 0), make).pixels

    def _direct_halvings(self, picture: Picture, nearest: int) -> int:
        """The number of halvings of a stored level that are computed per rectangle."""
        tiles = self._smaller_tiles(picture, nearest)
        return max(_DIRECT_HALVINGS, tiles.halvings if tiles is not None else 0)

    def _smaller_tiles(self, picture: Picture, nearest: int) -> TiffTiles | None:
        """The tiles of a stored level if they can be decoded at reduced size."""
        stored = picture.levels[nearest]
        if (picture.is_palette or picture.orientation != 1 or picture.is_masked or
                stored.size != picture.size.reduced(nearest)):
            return None
        tiles = self._file.tiles(stored)
        return tiles if tiles is not None and tiles.halvings else None

    def _read_reduced(self, picture: Picture, nearest: int, halvings: int, rect: Rect) -> Array:
        """Read a stored level and reduce it; ``rect`` is in pixels of the smaller level."""
        tiles = self._smaller_tiles(picture, nearest)
        if tiles is not None:
            return tiles.read_smaller(halvings, rect)
        factor = 1 << halvings
        part = Rect(*(value * factor for value in rect)).clipped(
            Rect(0, 0, *picture.size.reduced(nearest)))
        return _reduce(picture, self._stored.read(picture, nearest, part), factor)

    def _decode_ahead(self, picture: Picture, reduction: int) -> None:
        """
        Decode full resolution together with a level that the decoder itself shrinks.

        A viewer that opens with the small level soon zooms in.  It then waits once,
        not again for a second or more in the middle of zooming.
        """
        nearest = max(stored for stored in picture.levels if stored <= reduction)
        whole, small = picture.levels[0], picture.levels[nearest]
        if not _is_shrunk(small) or whole.opening in self._not_ahead:
            return
        found = planes.peek(self._file.serial, whole.opening)
        if found is not None and found.complete:
            return

        def work(stored: Stored) -> None:
            try:
                self._stored.rows(stored, 0, stored.size.height)
            except (TileSourceError, pyvips.Error, OSError, MemoryError):
                # Not needed yet: a read that needs it decodes it again and raises.
                self._not_ahead.add(stored.opening)

        layout = self._layout
        size = whole.opened_size.area * layout.bands * layout.dtype.itemsize
        if size < LARGE_PICTURE or not _may_be_kept(size):
            self._not_ahead.add(whole.opening)
        else:
            side_by_side(work, [whole, small])

    # Missing levels

    def _plane_key(self, picture: Picture, reduction: int) -> tuple[Any, ...]:
        """The cache key of a plane among those of this file."""
        first = picture.levels[0]
        return first.opening, first.top, reduction

    def _plane(self, picture: Picture, nearest: int, reduction: int) -> Plane:
        """
        A whole missing level, computed once.

        :param nearest: the stored reduction to compute it from.
        :param reduction: at least ``_direct_halvings`` more than ``nearest``.
        """
        def make() -> Plane:
            plane = self._stored.new_plane(picture.size.reduced(reduction), picture.levels[nearest])
            if reduction - nearest > self._direct_halvings(picture, nearest):
                self._halve(picture, self._plane(picture, nearest, reduction - 1).pixels, plane)
            else:
                self._reduce_level(picture, nearest, plane)
            return plane.finish()

        return planes.get(self._file.serial, self._plane_key(picture, reduction), make)

    def _halve(self, picture: Picture, larger: Array, plane: Plane) -> None:
        """Fill a plane from the plane twice its size."""
        rows = 2 * _HALVED_ROWS

        def work(top: int) -> None:
            plane.put(top // 2, _reduce(picture, larger[top:top + rows], 2))

        side_by_side(work, range(0, larger.shape[0], rows))

    def _reduce_level(self, picture: Picture, nearest: int, plane: Plane) -> None:
        """Fill a plane in one pass over a stored level."""
        stored = picture.levels[nearest]
        halvings = self._direct_halvings(picture, nearest)
        factor = 1 << halvings

        def stream(band: Band) -> None:
            done = band.top
            for top, rows in decode(self._file, stored, band):
                plane.put(top // factor, _reduce(picture, rows, factor))
                done = top + rows.shape[0]
            if done < band.bottom:
                msg = f'its pixel data ends early, at row {done} of {stored.size.height}'
                raise TileSourceError(msg)

        def read(blocks: list[Rect]) -> None:
            for block in blocks:
                rect = Rect(block.left // factor, block.top // factor,
                            -(-block.width // factor), -(-block.height // factor))
                plane.put(rect.top, self._read_reduced(picture, nearest, halvings, rect), rect.left)

        if self._is_streamed(picture, stored, plane.nbytes * factor * factor):
            side_by_side(stream, bands(stored))
        else:
            side_by_side(read, _rows_of_blocks(picture.size.reduced(nearest), stored))

    def _is_streamed(self, picture: Picture, stored: Stored, size: int) -> bool:
        """Whether a pass over a level of ``size`` bytes drops what it decodes."""
        if stored.random or stored.opened_size != stored.size or picture.orientation != 1 \
                or picture.is_masked:
            return False
        if planes.peek(self._file.serial, stored.opening) is not None:
            # Part of it is decoded already.
            return False
        # Several bands: any of them can be decoded again quickly.
        bound = _MAX_KEPT if len(bands(stored)) == 1 else MAX_PLANE_MEMORY
        return size > bound


def _reduce(picture: Picture, pixels: Array, factor: int) -> Array:
    """Reduce pixels by a power of two: averaged, or picked where they are labels."""
    averaged = not picture.is_palette and is_averaged(pixels.dtype)
    reduced = reduce_pixels(pixels, factor, averaged, picture.alpha)
    if picture.is_masked:
        opaque = opaque_alpha(reduced.dtype)
        alpha = reduced[..., -1]
        alpha[...] = np.where(alpha >= (opaque + 1) // 2, opaque, 0)
    return reduced


def _is_shrunk(stored: Stored) -> bool:
    """Whether the decoder shrinks the picture; scaled vector drawings do not count."""
    return any(name == 'shrink' for name, _ in stored.opening.options)


def _may_be_kept(size: int) -> bool:
    """Whether a picture of so many bytes may be cached before it is needed."""
    return size <= _MAX_KEPT and planes.bytes(on_disk=True) + size <= _MAX_ALL_KEPT


def _rows_of_blocks(size: Size, stored: Stored) -> list[list[Rect]]:
    """
    Divide a stored level of a size in pixels into rows of blocks.

    No tile of the file lies in two blocks, so no tile is decoded twice.
    """
    tile = stored.page.tile if stored.page and stored.page.tile else Size(1, 1)
    if any(extent % (1 << _MAX_HALVINGS) for extent in tile):
        # Not allowed in TIFF (multiples of 16), but such files may exist.
        tile = Size(1, 1)
    width, height = (-(-extent // one) * one for extent, one in zip(_BLOCK, tile, strict=True))
    whole = Rect(0, 0, *size)
    return [[Rect(left, top, width, height).clipped(whole) for left in range(0, size.width, width)]
            for top in range(0, size.height, height)]


def _crop(pixels: Array, rect: Rect) -> Array:
    """A copy of a part: a view would keep the whole plane alive as long as the tile."""
    part: Array = pixels[rect.top:rect.bottom, rect.left:rect.right].copy()
    return part
