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

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from ..base.errors import TileSourceError
from ..base.formats import is_averaged, opaque_alpha
from ..base.geometry import Rect, Size
from ..base.limits import LIMITS
from ..base.reduce import orient, reduce_pixels, stored_rect
from ..base.threads import side_by_side
from .decode_process import needs_own_process
from .decoded import LazyPlane
from .file import SourceFile
from .handles import Handle
from .layout import Layout, Opening, Picture, Stored, oriented
from .planes import LARGE_PICTURE, MAX_PLANE_MEMORY, Plane, planes
from .rows import Band, Decoder, bands, decode, decode_error, empty_tiles, shape_of
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
# A picture that can only be decoded whole is not cached beyond this many bytes when
# only a small level of it is needed.
_MAX_KEPT = LIMITS.reading_kept
# The bound in bytes for all pictures decoded before they are needed: a stack has many.
_MAX_ALL_KEPT = LIMITS.reading_kept_disk
# Below this many bytes a picture is decoded to its end at once: a paused decoder keeps
# the file open.
_MIN_STOPPED = 64 << 20


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
        self._damaged_stacks: set[Opening] = set()

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
            pixels = self._read_stored(picture, reduction, rect, out)
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
            return self._decoded_rows(stored, 0, size.height)

        def make() -> Plane:
            plane = self._new_plane(size, stored)
            for top in range(0, size.height, _BLOCK.height):
                rect = Rect(0, top, size.width, min(_BLOCK.height, size.height - top))
                plane.put(top, self._read_stored(picture, 0, rect))
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
        return _reduce(picture, self._read_stored(picture, nearest, part), factor)

    # Stored levels

    def _read_stored(self, picture: Picture, reduction: int, rect: Rect,
                     out: Array | None = None) -> Array:
        """
        Read a rectangle of a stored level, oriented; possibly into ``out``.

        The last row and column are repeated where the level is slightly too small.
        """
        stored = picture.levels[reduction]
        if picture.orientation == 1 and rect.right <= stored.size.width \
                and rect.bottom <= stored.size.height:
            # Nearly every tile.
            return self._fetch(stored, rect, out)
        size = oriented(stored.size, picture.orientation)
        inside = _within(rect, size)
        pixels = orient(
            self._fetch(stored, stored_rect(inside, size, picture.orientation)),
            picture.orientation)
        if inside == rect:
            return pixels
        rows = np.clip(np.arange(rect.top, rect.bottom), 0, size.height - 1) - inside.top
        cols = np.clip(np.arange(rect.left, rect.right), 0, size.width - 1) - inside.left
        return pixels[rows[:, np.newaxis], cols]

    def _fetch(self, stored: Stored, rect: Rect, out: Array | None = None) -> Array:
        """Read a rectangle of a stored picture, not oriented; possibly into ``out``."""
        if stored.masked:
            return self._fetch_masked(stored, rect, out)
        tiles = self._file.tiles(stored)
        if tiles is not None and tiles.is_random:
            return tiles.read(rect, out)
        if not stored.random:
            rows = self._decoded_rows(stored, rect.top, rect.bottom)
            return rows[:, rect.left:rect.right]
        place = rect.moved(0, stored.top)
        try:
            return self._file.handle(stored).fetch(place)
        except pyvips.Error as exc:
            # libvips may have cached the failed tile.
            self._file.discard_handle(stored)
            return self._fetch_around_empty(stored, rect, exc)

    def _fetch_masked(self, stored: Stored, rect: Rect, out: Array | None) -> Array:
        """Read a rectangle with an alpha band that is 0 or opaque, as the mask says."""
        colours = self._fetch(stored.unmasked, rect)
        pixels = out if out is not None else np.empty(
            (rect.height, rect.width, colours.shape[2] + 1), colours.dtype)
        pixels[..., :-1] = colours
        opaque = opaque_alpha(colours.dtype)
        pixels[..., -1] = opaque if stored.mask is None else np.where(
            self._fetch(stored.mask, rect)[..., 0], opaque, 0)
        return pixels

    def _fetch_around_empty(self, stored: Stored, rect: Rect, error: pyvips.Error) -> Array:
        """
        Read a rectangle tile by tile; tiles that the file declares empty are blank.

        :raises TileSourceError: from ``error``, if the rectangle has no empty tile.
        """
        empty = empty_tiles(self._file, stored)
        if empty is None or stored.page is None or stored.page.tile is None:
            raise TileSourceError(decode_error(stored, error)) from error
        handle, tile = self._file.handle(stored), stored.page.tile
        unpack = handle.unpacker
        pixels = np.zeros((rect.height, rect.width, unpack.bands), unpack.dtype)
        across = -(-stored.size.width // tile.width)
        hit = False
        for row in range(rect.top // tile.height, -(-rect.bottom // tile.height)):
            for col in range(rect.left // tile.width, -(-rect.right // tile.width)):
                number = row * across + col
                if number < empty.size and empty[number]:
                    hit = True
                    continue
                part = Rect(col * tile.width, row * tile.height, *tile).clipped(rect)
                pixels[part.top - rect.top:part.bottom - rect.top,
                       part.left - rect.left:part.right - rect.left] = self._fetch_tile(
                           handle, stored, part)
        if not hit:
            raise TileSourceError(decode_error(stored, error)) from error
        return pixels

    def _fetch_tile(self, handle: Handle, stored: Stored, part: Rect) -> Array:
        try:
            return handle.fetch(part.moved(0, stored.top))
        except pyvips.Error as exc:
            self._file.discard_handle(stored)
            raise TileSourceError(decode_error(stored, exc)) from exc

    # Whole pictures

    def _decoded_rows(self, stored: Stored, top: int, bottom: int) -> Array:
        """
        A view of rows of a picture without random access, decoded as far as needed.

        A damaged picture of a stack does not hide those before it: from then on, each
        picture of the stack is decoded alone.
        """
        if stored.opening in self._damaged_stacks and stored.alone is not None:
            stored = replace(stored, opening=stored.alone, opened=None, top=0, alone=None)
        try:
            return self._rows_of(stored, top, bottom)
        except TileSourceError:
            if stored.alone is None:
                raise
            self._damaged_stacks.add(stored.opening)
            return self._decoded_rows(stored, top, bottom)

    def _rows_of(self, stored: Stored, top: int, bottom: int) -> Array:
        """The same for a picture that is opened in one way."""
        def make() -> LazyPlane:
            plane = self._new_plane(stored.opened_size, stored)
            return LazyPlane(plane, bands(stored), stops=(
                plane.nbytes > _MIN_STOPPED and stored.page is None and
                not needs_own_process(self._file.loader.name)))

        decoded = planes.get(self._file.serial, stored.opening, make)
        return decoded.rows(stored.top + top, stored.top + bottom, Decoder(self._file, stored))

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
                self._decoded_rows(stored, 0, stored.size.height)
            except (TileSourceError, pyvips.Error, OSError, MemoryError):
                # Not needed yet: a read that needs it decodes it again and raises.
                self._not_ahead.add(stored.opening)

        layout = self._layout
        size = whole.opened_size.area * layout.bands * layout.dtype.itemsize
        if size < LARGE_PICTURE or not _may_be_kept(size):
            self._not_ahead.add(whole.opening)
        else:
            side_by_side(work, [whole, small])

    def _new_plane(self, size: Size, stored: Stored) -> Plane:
        """An empty plane for the samples of a stored picture."""
        dtype, bands_each = shape_of(self._file, stored)
        return Plane((size.height, size.width, bands_each + stored.masked), dtype)

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
            plane = self._new_plane(picture.size.reduced(reduction), picture.levels[nearest])
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


def _within(rect: Rect, size: Size) -> Rect:
    """Clip a rectangle to an image; the nearest pixel if it lies outside."""
    left, top = min(rect.left, size.width - 1), min(rect.top, size.height - 1)
    return Rect(left, top, max(1, min(rect.right, size.width) - left),
                max(1, min(rect.bottom, size.height) - top))


