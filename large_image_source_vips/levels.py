"""
The pixels of a rectangle of a picture at a reduction.

A reduction that the file stores is read; one that it lacks comes of the nearest
larger one that it stores:

* at most 4 times smaller: from the stored pixels under the rectangle;
* 8 times smaller: a plane, made in one pass over the stored level, by as many
  threads as there are processors;
* beyond: a plane, made of the plane twice its size.

Which way a level is made depends on the level alone, so a pixel has one value,
whatever rectangle it is read with.

Averages are of the pixels that exist: a last column that covers one pixel of
two is that pixel.  Halves are rounded to even, so that many levels do not make
an image brighter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips
from large_image.exceptions import TileSourceError

from .decoding import decode, empty_tiles, why
from .geometry import Rect, Size
from .handles import Handle
from .layout import Layout, Picture, Stored, oriented
from .planes import PlaneWriter, planes
from .raster import orient, reduce_pixels, stored_rect
from .source_file import SourceFile

Array = npt.NDArray[Any]

# Up to this many halvings are computed for each tile, from 16 stored ones.
_DIRECT = 2
# The halvings of the first plane.
_PLANE = 3
# The stored pixels that the pass for a plane reads at a time.
_BLOCK_COLS, _BLOCK_ROWS = 2048, 512
# A picture that is decoded whole and takes more bytes than this is not kept
# when only a small level of it is wanted.
_MAX_KEPT = 2 << 30
_WORKERS = min(4, os.cpu_count() or 1)

class Levels:
    """
    Reads the pictures of one file.

    :param file: where they are.
    :param layout: what they are like.
    """

    def __init__(self, file: SourceFile, layout: Layout) -> None:
        self._file = file
        self._layout = layout

    def read(self, picture: Picture, reduction: int, rect: Rect) -> Array:
        """
        The pixels of a rectangle.

        :param picture: one of the layout's.
        :param reduction: 0 for full resolution.
        :param rect: in level pixels of that reduction, inside the picture's
            reduced size.
        :returns: an array (rect.height, rect.width, bands), perhaps read-only.
        :raises TileSourceError: if they cannot be had.
        """
        if reduction in picture.levels:
            return self._read_stored(picture, reduction, rect)
        nearest = max(stored for stored in picture.levels if stored < reduction)
        halvings = reduction - nearest
        if halvings <= _DIRECT:
            return self._reduced(
                lambda part: self._read_stored(picture, nearest, part),
                picture.size.reduced(nearest), rect, 1 << halvings)
        plane = self._plane(picture, nearest, reduction)
        part: Array = plane[rect.top:rect.bottom, rect.left:rect.right].copy()
        return part

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
            return self._decoded(stored)[stored.top:stored.top + size.height]
        bands = (Rect(0, top, size.width, min(_BLOCK_ROWS, size.height - top))
                 for top in range(0, size.height, _BLOCK_ROWS))
        return planes.get(self._file.serial, (stored.opening, stored.top, 0), lambda: _gather(
            size, ((band.top, self._read_stored(picture, 0, band)) for band in bands)))

    def _reduced(self, read: Callable[[Rect], Array], size: Size, rect: Rect,
                 factor: int) -> Array:
        """A rectangle of something larger, made smaller."""
        part = Rect(*(value * factor for value in rect)).clipped(Rect(0, 0, *size))
        return reduce_pixels(read(part), factor, self._layout.averaged)

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
            plane = self._decoded(stored)
            top = stored.top + rect.top
            part = plane[top:top + rect.height, rect.left:rect.right]
            # A view would keep the whole plane for as long as the tile is kept.
            return part if part.size == plane.size else part.copy()
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
                if empty[row * across + col]:
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

    def _decoded(self, stored: Stored) -> Array:
        """A picture of a format that is decoded whole."""
        def make() -> PlaneWriter:
            return _gather(stored.opened_size, decode(self._file, stored))

        return planes.get(self._file.serial, stored.opening, make)

    # What is not stored

    def _plane(self, picture: Picture, nearest: int, reduction: int) -> Array:
        """
        A whole level that the file lacks.

        :param nearest: the stored reduction that it is made of.
        :param reduction: at least 3 more than that.
        """
        first = picture.levels[0]

        def make() -> PlaneWriter:
            if reduction - nearest > _PLANE:
                pieces = iter([(0, reduce_pixels(
                    self._plane(picture, nearest, reduction - 1), 2, self._layout.averaged))])
            else:
                pieces = self._pass_over(picture, nearest)
            return _gather(picture.size.reduced(reduction), pieces)

        return planes.get(self._file.serial, (first.opening, first.top, reduction), make)

    def _pass_over(self, picture: Picture, nearest: int) -> Iterator[tuple[int, Array]]:
        """A stored level made 8 times smaller: the first row and the rows, from top to bottom."""
        stored = picture.levels[nearest]
        factor = 1 << _PLANE
        if self._is_too_large_to_keep(picture, stored):
            for top, rows in decode(self._file, stored):
                yield top // factor, reduce_pixels(rows, factor, self._layout.averaged)
            return
        size = picture.size.reduced(nearest)
        bands = [Rect(0, top, size.width, min(_BLOCK_ROWS, size.height - top))
                 for top in range(0, size.height, _BLOCK_ROWS)]

        def work(band: Rect) -> tuple[int, Array]:
            blocks = [Rect(left, band.top, min(_BLOCK_COLS, size.width - left), band.height)
                      for left in range(0, size.width, _BLOCK_COLS)]
            return band.top // factor, np.concatenate([
                reduce_pixels(self._read_stored(picture, nearest, block), factor,
                              self._layout.averaged) for block in blocks], axis=1)

        if not stored.random or len(bands) < _WORKERS:
            yield from map(work, bands)
            return
        with ThreadPoolExecutor(_WORKERS) as workers:
            yield from workers.map(work, bands)

    def _is_too_large_to_keep(self, picture: Picture, stored: Stored) -> bool:
        """Whether a picture that is decoded whole is so large that a pass does not keep it."""
        if stored.random or stored.opened_size != stored.size or picture.orientation != 1:
            return False
        samples = stored.size.width * stored.size.height * self._layout.bands
        return samples * self._layout.dtype.itemsize > _MAX_KEPT


def _gather(size: Size, pieces: Iterator[tuple[int, Array]]) -> PlaneWriter:
    """A plane of pieces: for each the first row and the rows."""
    writer: PlaneWriter | None = None
    for top, rows in pieces:
        if writer is None:
            writer = PlaneWriter((size.height, size.width, rows.shape[2]), rows.dtype)
        writer.put(top, rows)
    assert writer is not None  # no size is 0
    return writer


def _within(rect: Rect, size: Size) -> Rect:
    """The part of a rectangle inside an image; the nearest pixel if there is none."""
    left, top = min(rect.left, size.width - 1), min(rect.top, size.height - 1)
    return Rect(left, top, max(1, min(rect.right, size.width) - left),
                max(1, min(rect.bottom, size.height) - top))


