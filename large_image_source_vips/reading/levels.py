"""
Read rectangles of a picture at any reduction.

Levels stored in the file are read directly.  Missing levels are computed from the next
larger stored level:

* up to 4 times smaller (8 times for JPEG tiles): from the stored pixels under the
  rectangle, on every read;
* smaller still: as a whole level, computed once and cached.  Several threads compute
  the first computed level, 4 (or 8) times smaller, in one pass over the stored level; each
  further level is computed from the one twice its size.  Reads use a cached level
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
from ..base.threads import in_parallel
from .file import SourceFile
from .layout import Layout, Opening, Picture, Stored
from .level_cache import LARGE_PICTURE, MAX_LEVEL_MEMORY, CachedLevel, cached_levels
from .rows import Band, bands, decode
from .stored_levels import StoredLevels
from .tiff_tiles import TiffTiles

Array = npt.NDArray[Any]

# Up to this many halvings a level is computed per rectangle, from at most 16 stored tiles;
# further ones are computed as a whole and cached.
_DIRECT_HALVINGS = 2
# The approximate size of the pieces in which a stored level is read to reduce it.
_BLOCK = Size(1024, 512)
# The most halvings of JPEG tiles when they are decoded: libjpeg's 1/8.
_MAX_HALVINGS = 3
# Rows computed at a time; they fit into the processor's cache.
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
        # Pictures not to decode ahead: they are small, too large, or damaged.
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
        :param keep: whether other parts and reductions will probably be read soon; more
            than the rectangle may then be decoded and cached.
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
            # Copied: a view would keep the whole picture in memory.
            whole = rect.width * rect.height == picture.size.reduced(reduction).area
            return pixels if whole else pixels.copy()
        nearest = max(stored for stored in picture.levels if stored < reduction)
        halvings = reduction - nearest
        direct = self._direct_halvings(picture, nearest)
        if halvings == direct:
            made = cached_levels.peek(self._file.serial, self._level_key(picture, reduction))
            if made is not None:
                return _crop(made.pixels, rect)
        if halvings <= direct:
            return self._read_reduced(picture, nearest, halvings, rect)
        return _crop(self._computed_level(picture, nearest, reduction).pixels, rect)

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
        Decode a whole picture at full resolution into a shared array.

        :returns: a read-only array (rows, cols, bands), in memory or in a temporary file.
        :raises TileSourceError: if the pixels cannot be decoded, or there is no room.
        """
        stored, size = picture.levels[0], picture.size
        if not stored.random and picture.orientation == 1 and not picture.is_masked:
            return self._stored.rows(stored, 0, size.height)

        def make() -> CachedLevel:
            level = self._stored.new_level(size, stored)
            for top in range(0, size.height, _BLOCK.height):
                rect = Rect(0, top, size.width, min(_BLOCK.height, size.height - top))
                level.put(top, self._stored.read(picture, 0, rect))
            return level.finish()

        return cached_levels.get(self._file.serial, self._level_key(picture, 0), make).pixels

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
        Decode full resolution when a level shrunk by the decoder is read for the first
        time.

        A viewer that shows the small level soon zooms in.  It then waits once when it opens
        the image, instead of a second time, for a second or more, while zooming.
        """
        nearest = max(stored for stored in picture.levels if stored <= reduction)
        whole, small = picture.levels[0], picture.levels[nearest]
        if not _is_shrunk(small) or whole.opening in self._not_ahead:
            return
        found = cached_levels.peek(self._file.serial, whole.opening)
        if found is not None and found.complete:
            return

        def work(stored: Stored) -> None:
            try:
                self._stored.rows(stored, 0, stored.size.height)
            except (TileSourceError, pyvips.Error, OSError, MemoryError):
                # Full resolution is not needed yet; the next read of it raises the error.
                self._not_ahead.add(stored.opening)

        layout = self._layout
        size = whole.opened_size.area * layout.bands * layout.dtype.itemsize
        if size < LARGE_PICTURE or not _may_be_kept(size):
            self._not_ahead.add(whole.opening)
        else:
            in_parallel(work, [whole, small])

    # Missing levels

    def _level_key(self, picture: Picture, reduction: int) -> tuple[Any, ...]:
        """The cache key of a level among those of this file."""
        first = picture.levels[0]
        return first.opening, first.top, reduction

    def _computed_level(self, picture: Picture, nearest: int, reduction: int) -> CachedLevel:
        """
        Compute a whole missing level, once.

        :param nearest: the stored reduction to compute it from.
        :param reduction: at least ``_direct_halvings`` more than ``nearest``.
        """
        def make() -> CachedLevel:
            level = self._stored.new_level(picture.size.reduced(reduction), picture.levels[nearest])
            if reduction - nearest > self._direct_halvings(picture, nearest):
                larger = self._computed_level(picture, nearest, reduction - 1)
                self._halve(picture, larger.pixels, level)
            else:
                self._reduce_level(picture, nearest, level)
            return level.finish()

        return cached_levels.get(self._file.serial, self._level_key(picture, reduction), make)

    def _halve(self, picture: Picture, larger: Array, level: CachedLevel) -> None:
        """Fill a level from the level twice its size."""
        rows = 2 * _HALVED_ROWS

        def work(top: int) -> None:
            level.put(top // 2, _reduce(picture, larger[top:top + rows], 2))

        in_parallel(work, range(0, larger.shape[0], rows))

    def _reduce_level(self, picture: Picture, nearest: int, level: CachedLevel) -> None:
        """Fill a level in one pass over a stored level."""
        stored = picture.levels[nearest]
        halvings = self._direct_halvings(picture, nearest)
        factor = 1 << halvings

        def stream(band: Band) -> None:
            done = band.top
            for top, rows in decode(self._file, stored, band):
                level.put(top // factor, _reduce(picture, rows, factor))
                done = top + rows.shape[0]
            if done < band.bottom:
                msg = f'its pixel data ends early, at row {done} of {stored.size.height}'
                raise TileSourceError(msg)

        def read(blocks: list[Rect]) -> None:
            for block in blocks:
                rect = Rect(block.left // factor, block.top // factor,
                            -(-block.width // factor), -(-block.height // factor))
                level.put(rect.top, self._read_reduced(picture, nearest, halvings, rect), rect.left)

        if self._is_streamed(picture, stored, level.nbytes * factor * factor):
            in_parallel(stream, bands(stored))
        else:
            in_parallel(read, _rows_of_blocks(picture.size.reduced(nearest), stored))

    def _is_streamed(self, picture: Picture, stored: Stored, size: int) -> bool:
        """Whether a level of ``size`` bytes is reduced while it is decoded, without caching it."""
        if stored.random or stored.opened_size != stored.size or picture.orientation != 1 \
                or picture.is_masked:
            return False
        if cached_levels.peek(self._file.serial, stored.opening) is not None:
            # A part is already decoded.
            return False
        # With several bands, any of them can be decoded again quickly.
        bound = _MAX_KEPT if len(bands(stored)) == 1 else MAX_LEVEL_MEMORY
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
    """Whether the decoder shrinks the picture; scaled vector graphics do not count."""
    return any(name == 'shrink' for name, _ in stored.opening.options)


def _may_be_kept(size: int) -> bool:
    """Whether a picture of ``size`` bytes may be cached before it is needed."""
    return size <= _MAX_KEPT and cached_levels.bytes(on_disk=True) + size <= _MAX_ALL_KEPT


def _rows_of_blocks(size: Size, stored: Stored) -> list[list[Rect]]:
    """
    Divide a stored level into rows of blocks.

    Blocks consist of whole tiles of the file, so no tile is decoded twice.
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
    """A copy of a rectangle; a view would keep the whole level in memory."""
    part: Array = pixels[rect.top:rect.bottom, rect.left:rect.right].copy()
    return part
