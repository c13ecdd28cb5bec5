"""
Read rectangles of the levels that a file stores.

Tiles of a TIFF page are read by ``tiff_tiles``, other pictures with random access by libvips in
the calling thread.  A picture without random access is decoded once, as far as needed, and
kept in ``level_cache``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from ..base.errors import TileSourceError
from ..base.formats import opaque_alpha
from ..base.geometry import Rect, Size
from ..base.reduce import orient, stored_rect
from .decode_process import needs_own_process
from .file import SourceFile
from .handles import Handle
from .layout import Opening, Picture, Stored, oriented
from .lazy_level import LazyPlane
from .level_cache import Plane, planes
from .rows import Decoder, bands, decode_error, empty_tiles, shape_of

Array = npt.NDArray[Any]

# Below this many bytes a picture is decoded to its end at once: a paused decoder keeps
# the file open.
_MIN_STOPPED = 64 << 20


class StoredLevels:
    """
    The stored levels of all pictures of one file.

    :param file: the file.
    """

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._damaged_stacks: set[Opening] = set()

    def read(self, picture: Picture, reduction: int, rect: Rect,
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
            rows = self.rows(stored, rect.top, rect.bottom)
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

    def rows(self, stored: Stored, top: int, bottom: int) -> Array:
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
            return self.rows(stored, top, bottom)

    def _rows_of(self, stored: Stored, top: int, bottom: int) -> Array:
        """The same for a picture that is opened in one way."""
        def make() -> LazyPlane:
            plane = self.new_plane(stored.opened_size, stored)
            return LazyPlane(plane, bands(stored), stops=(
                plane.nbytes > _MIN_STOPPED and stored.page is None and
                not needs_own_process(self._file.loader.name)))

        decoded = planes.get(self._file.serial, stored.opening, make)
        return decoded.rows(stored.top + top, stored.top + bottom, Decoder(self._file, stored))

    def new_plane(self, size: Size, stored: Stored) -> Plane:
        """An empty plane for the samples of a stored picture."""
        dtype, bands_each = shape_of(self._file, stored)
        return Plane((size.height, size.width, bands_each + stored.masked), dtype)


def _within(rect: Rect, size: Size) -> Rect:
    """Clip a rectangle to an image; the nearest pixel if it lies outside."""
    left, top = min(rect.left, size.width - 1), min(rect.top, size.height - 1)
    return Rect(left, top, max(1, min(rect.right, size.width) - left),
                max(1, min(rect.bottom, size.height) - top))


