"""
The pixels of a rectangle of a picture at a reduction.

A reduction that the file stores is read; one that it lacks comes of the nearest
larger one that it stores:

* at most 4 times smaller (8 times, if it is in JPEG tiles): from the stored pixels
  under the rectangle;
* beyond: a plane, made of the plane twice its size; the first of them, 4 (or 8)
  times smaller, in one pass over the stored level, by as many threads as there are
  processors.  Once it is there it serves rectangles, too: its pixels are the same.

Which way a level is made depends on the level alone, so a pixel has one value,
whatever rectangle it is read with.

How pixels are made smaller, also where they have alpha, says ``raster``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from ..base.errors import TileSourceError
from ..base.formats import is_averaged
from ..base.geometry import Rect, Size
from ..base.limits import LIMITS
from ..base.reduce import orient, reduce_pixels, stored_rect
from ..base.threads import side_by_side
from ..codecs.jpeg import MAX_HALVINGS, smaller, suits
from ..codecs.lossless import has_tiles
from ..tiff.stored_tiles import Damaged
from .decode_process import must_decode_elsewhere
from .decoded import Decoded
from .file import SourceFile
from .handles import Handle
from .layout import Layout, Opening, Picture, Stored, oriented
from .planes import LARGE_PICTURE, MAX_PLANE_MEMORY, Plane, planes
from .rows import Band, Decoder, bands, decode, empty_tiles, unpacker_of, why

Array = npt.NDArray[Any]

# Up to this many halvings are computed for each tile, from 16 stored ones; so many
# has the first plane.
_DIRECT = 2
# The stored pixels that a pass reads at a time, about.
_BLOCK = Size(1024, 512)
# The rows of a plane that are made together of the one twice its size: little enough
# for the caches of a processor.
_HALVED_ROWS = 32
# A picture that is decoded whole and takes more bytes than this is not kept
# when only a small level of it is wanted.
_MAX_KEPT = LIMITS.reading_kept
# More than these are not kept for later; a stack has many pictures.
_MAX_ALL_KEPT = LIMITS.reading_kept_disk
# The decoder of a smaller picture does not wait where it was stopped, but goes on to
# the end: it would hold a file open.
_MIN_STOPPED = 64 << 20


class Levels:
    """
    Reads the pictures of one file.

    :param file: where they are.
    :param layout: what they are like.
    """

    def __init__(self, file: SourceFile, layout: Layout) -> None:
        self._file = file
        self._layout = layout
        # What is not worth it, is too large, or could not be decoded when it was not
        # needed yet.
        self._not_kept: set[Opening] = set()

    def read(self, picture: Picture, reduction: int, rect: Rect, *, keep: bool = False) -> Array:
        """
        The pixels of a rectangle.

        :param picture: one of the layout's.
        :param reduction: 0 for full resolution.
        :param rect: in level pixels of that reduction, inside the picture's
            reduced size.
        :param keep: whether more of it, also at other reductions, is likely to be
            wanted soon: then more than is asked for may be decoded on the way.
        :returns: an array (rect.height, rect.width, bands), perhaps read-only.
        :raises TileSourceError: if they cannot be had.
        """
        if keep:
            self._decode_beside(picture, reduction)
        if reduction in picture.levels:
            pixels = self._read_stored(picture, reduction, rect)
            # A view would keep the whole picture for as long as the tile is kept.
            whole = rect.width * rect.height == picture.size.reduced(reduction).area
            return pixels if whole or picture.levels[reduction].random else pixels.copy()
        nearest = max(stored for stored in picture.levels if stored < reduction)
        halvings = reduction - nearest
        direct = self._direct(picture, nearest)
        if halvings == direct:
            made = planes.peek(self._file.serial, self._plane_key(picture, reduction))
            if made is not None:
                return _cut(made.pixels, rect)
        if halvings <= direct:
            return self._reduced(picture, nearest, halvings, rect)
        return _cut(self._plane(picture, nearest, reduction).pixels, rect)

    def read_whole(self, picture: Picture, longest: int) -> Array:
        """
        A whole picture, at the first reduction at which it is small enough.

        :param longest: the length of the longer side in pixels, at most.
        """
        reduction = 0
        while max(picture.size.reduced(reduction)) > longest:
            reduction += 1
        return self.read(picture, reduction, Rect(0, 0, *picture.size.reduced(reduction)))

    def full(self, picture: Picture) -> Array:
        """
        A whole picture at full resolution, as a plane: in memory or in a
        temporary file, shared, read-only.
        """
        stored, size = picture.levels[0], picture.size
        if not stored.random and picture.orientation == 1:
            return self._decoded_rows(stored, 0, size.height)

        def make() -> Plane:
            plane = self._new_plane(size, stored)
            for top in range(0, size.height, _BLOCK.height):
                rect = Rect(0, top, size.width, min(_BLOCK.height, size.height - top))
                plane.put(top, self._read_stored(picture, 0, rect))
            return plane.finish()

        return planes.get(self._file.serial, self._plane_key(picture, 0), make).pixels

    def _direct(self, picture: Picture, nearest: int) -> int:
        """How many halvings of a stored level are computed for each rectangle."""
        return MAX_HALVINGS if self._is_decoded_smaller(picture, nearest) else _DIRECT

    def _is_decoded_smaller(self, picture: Picture, nearest: int) -> bool:
        """Whether the tiles of a stored level are decoded smaller than they are."""
        stored = picture.levels[nearest]
        return (not picture.is_palette and picture.orientation == 1 and suits(stored) and
                stored.size == picture.size.reduced(nearest))

    def _reduced(self, picture: Picture, nearest: int, halvings: int, rect: Rect) -> Array:
        """
        A rectangle of a stored level, made smaller.

        :param rect: in pixels of the smaller level.
        """
        if self._is_decoded_smaller(picture, nearest):
            stored = picture.levels[nearest]
            with suppress(Damaged):
                return smaller(self._file.jpeg_tiles(stored), stored, halvings, rect,
                               lambda part: self._fetch(stored, part))
        factor = 1 << halvings
        part = Rect(*(value * factor for value in rect)).clipped(
            Rect(0, 0, *picture.size.reduced(nearest)))
        return _smaller(picture, self._read_stored(picture, nearest, part), factor)

    # What is stored

    def _read_stored(self, picture: Picture, reduction: int, rect: Rect) -> Array:
        """
        A rectangle of a stored level, oriented.

        Where the stored level is a little smaller than it should be, its last
        column and row are repeated.
        """
        stored = picture.levels[reduction]
        if picture.orientation == 1 and rect.right <= stored.size.width \
                and rect.bottom <= stored.size.height:
            # Nearly every tile there is.
            return self._fetch(stored, rect)
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

    def _fetch(self, stored: Stored, rect: Rect) -> Array:
        """A rectangle of a stored picture, as it is stored."""
        if not stored.random:
            rows = self._decoded_rows(stored, rect.top, rect.bottom)
            return rows[:, rect.left:rect.right]
        if has_tiles(stored.page):
            with suppress(Damaged):
                return self._file.deflated(stored).tiles(rect)
        place = rect.moved(0, stored.top)
        try:
            return self._file.handle(stored).fetch(place)
        except pyvips.Error as exc:
            # libvips may have kept what it could not decode.
            self._file.discard_handle(stored)
            return self._fetch_around_empty(stored, rect, exc)

    def _fetch_around_empty(self, stored: Stored, rect: Rect, error: pyvips.Error) -> Array:
        """
        A rectangle with tiles that the file declares empty, which are blank.

        :raises TileSourceError: if there is none: then the error was one.
        """
        empty = empty_tiles(self._file, stored)
        if empty is None or stored.page is None or stored.page.tile is None:
            raise TileSourceError(why(stored, error)) from error
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
            raise TileSourceError(why(stored, error)) from error
        return pixels

    def _fetch_tile(self, handle: Handle, stored: Stored, part: Rect) -> Array:
        """A part of one tile."""
        try:
            return handle.fetch(part.moved(0, stored.top))
        except pyvips.Error as exc:
            self._file.discard_handle(stored)
            raise TileSourceError(why(stored, exc)) from exc

    # Whole pictures

    def _decoded_rows(self, stored: Stored, top: int, bottom: int) -> Array:
        """Rows of a picture of a format that cannot be read at random, as a view."""
        def make() -> Decoded:
            plane = self._new_plane(stored.opened_size, stored)
            return Decoded(plane, bands(stored), stops=(
                plane.nbytes > _MIN_STOPPED and stored.page is None and
                not must_decode_elsewhere(self._file.loader.name)))

        decoded = planes.get(self._file.serial, stored.opening, make)
        return decoded.rows(stored.top + top, stored.top + bottom, Decoder(self._file, stored))

    def _decode_beside(self, picture: Picture, reduction: int) -> None:
        """
        Decode a picture beside a smaller one that the same file gives more quickly.

        A viewer that begins with the smaller one soon needs the other, for which it
        would have to wait a second or more in the middle of zooming; now it waits
        once.
        """
        nearest = max(stored for stored in picture.levels if stored <= reduction)
        whole, small = picture.levels[0], picture.levels[nearest]
        if not _is_shrunk(small) or whole.opening in self._not_kept:
            return
        found = planes.peek(self._file.serial, whole.opening)
        if found is not None and found.complete:
            return

        def work(stored: Stored) -> None:
            try:
                self._decoded_rows(stored, 0, stored.size.height)
            except (TileSourceError, pyvips.Error, OSError, MemoryError):
                # Whoever needs it is told; the smaller one may do without.
                self._not_kept.add(stored.opening)

        size = self._decoded_bytes(whole)
        if size < LARGE_PICTURE or not _may_be_kept(size):
            self._not_kept.add(whole.opening)
        else:
            side_by_side(work, [whole, small])

    def _decoded_bytes(self, stored: Stored) -> int:
        """What a picture takes when it is decoded."""
        layout = self._layout
        return stored.opened_size.area * layout.bands * layout.dtype.itemsize

    def _new_plane(self, size: Size, stored: Stored) -> Plane:
        """An empty plane for the samples of a stored picture."""
        unpack = unpacker_of(self._file, stored)
        return Plane((size.height, size.width, unpack.bands), unpack.dtype)

    # What is not stored

    def _plane_key(self, picture: Picture, reduction: int) -> tuple[Any, ...]:
        """What tells a plane of this file from others."""
        first = picture.levels[0]
        return first.opening, first.top, reduction

    def _plane(self, picture: Picture, nearest: int, reduction: int) -> Plane:
        """
        A whole level that the file lacks.

        :param nearest: the stored reduction that it is made of.
        :param reduction: as many more as are computed directly, at least.
        """
        def make() -> Plane:
            plane = self._new_plane(picture.size.reduced(reduction), picture.levels[nearest])
            if reduction - nearest > self._direct(picture, nearest):
                self._halve(picture, self._plane(picture, nearest, reduction - 1).pixels, plane)
            else:
                self._pass_over(picture, nearest, plane)
            return plane.finish()

        return planes.get(self._file.serial, self._plane_key(picture, reduction), make)

    def _halve(self, picture: Picture, larger: Array, plane: Plane) -> None:
        """Fill a plane with the means of a larger one."""
        rows = 2 * _HALVED_ROWS

        def work(top: int) -> None:
            plane.put(top // 2, _smaller(picture, larger[top:top + rows], 2))

        side_by_side(work, range(0, larger.shape[0], rows))

    def _pass_over(self, picture: Picture, nearest: int, plane: Plane) -> None:
        """Fill a plane with the means of a stored level."""
        stored = picture.levels[nearest]
        halvings = self._direct(picture, nearest)
        factor = 1 << halvings

        def stream(band: Band) -> None:
            done = band.top
            for top, rows in decode(self._file, stored, band):
                plane.put(top // factor, _smaller(picture, rows, factor))
                done = top + rows.shape[0]
            if done < band.bottom:
                msg = f'it ends before row {done}'
                raise TileSourceError(msg)

        def read(blocks: list[Rect]) -> None:
            for block in blocks:
                rect = Rect(block.left // factor, block.top // factor,
                            -(-block.width // factor), -(-block.height // factor))
                plane.put(rect.top, self._reduced(picture, nearest, halvings, rect), rect.left)

        # The stored level is so many times larger.
        size = plane.nbytes * factor * factor
        if self._is_only_passed_over(picture, stored, size):
            side_by_side(stream, bands(stored))
        else:
            side_by_side(read, _rows_of_blocks(picture.size.reduced(nearest), stored))

    def _is_only_passed_over(self, picture: Picture, stored: Stored, size: int) -> bool:
        """
        Whether a pass does not keep what it decodes.

        :param size: what that is in bytes.
        """
        if stored.random or stored.opened_size != stored.size or picture.orientation != 1:
            return False
        if planes.peek(self._file.serial, stored.opening) is not None:
            # Some of it is there.
            return False
        # A part that can be decoded on its own soon is again.
        bound = _MAX_KEPT if len(bands(stored)) == 1 else MAX_PLANE_MEMORY
        return size > bound


def _smaller(picture: Picture, pixels: Array, factor: int) -> Array:
    """
    Pixels of a picture, made smaller as befits what they are.

    :param factor: a power of two.
    """
    averaged = not picture.is_palette and is_averaged(pixels.dtype)
    return reduce_pixels(pixels, factor, averaged, picture.alpha)


def _is_shrunk(stored: Stored) -> bool:
    """Whether a picture is a smaller decoding of another; that of a drawing is none."""
    return any(name == 'shrink' for name, _ in stored.opening.options)


def _may_be_kept(size: int) -> bool:
    """Whether a picture of so many bytes is kept though nobody needs it yet."""
    return size <= _MAX_KEPT and planes.bytes(on_disk=True) + size <= _MAX_ALL_KEPT


def _rows_of_blocks(size: Size, stored: Stored) -> list[list[Rect]]:
    """
    A picture in blocks that are read at a time, row by row.

    No tile of the file is in two of them: each thread would decode it.

    :param size: in pixels of the stored level.
    """
    tile = stored.page.tile if stored.page and stored.page.tile else Size(1, 1)
    if any(extent % (1 << MAX_HALVINGS) for extent in tile):
        # No TIFF file should have those.
        tile = Size(1, 1)
    width, height = (-(-extent // one) * one for extent, one in zip(_BLOCK, tile, strict=True))
    whole = Rect(0, 0, *size)
    return [[Rect(left, top, width, height).clipped(whole) for left in range(0, size.width, width)]
            for top in range(0, size.height, height)]


def _cut(pixels: Array, rect: Rect) -> Array:
    """A copy of a part: a view would keep all of it for as long as the tile is kept."""
    part: Array = pixels[rect.top:rect.bottom, rect.left:rect.right].copy()
    return part


def _within(rect: Rect, size: Size) -> Rect:
    """The part of a rectangle inside an image; the nearest pixel if there is none."""
    left, top = min(rect.left, size.width - 1), min(rect.top, size.height - 1)
    return Rect(left, top, max(1, min(rect.right, size.width) - left),
                max(1, min(rect.bottom, size.height) - top))


