"""
Read rectangles of the levels stored in a file.

Tiles of a TIFF page are read by ``tiff_tiles``, other pictures with random access by
libvips, in the calling thread.  A picture without random access is decoded once, as far as
needed, and kept in ``level_cache``.
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
from .lazy_level import LazyLevel
from .level_cache import CachedLevel, cached_levels
from .rows import Decoder, bands, decode_error, empty_tiles, shape_of

Array = npt.NDArray[Any]

# Smaller pictures, in bytes, are decoded completely: a paused decoder keeps the file open.
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
        Read a rectangle of a stored level, with the orientation applied; possibly into
        ``out``.

        The last row and column are repeated where the level is slightly too small.
        """
        stored = picture.levels[reduction]
        if picture.orientation == 1 and rect.right <= stored.size.width \
                and rect.bottom <= stored.size.height:
            # The usual case.
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
        """Read a rectangle of a stored picture, as stored; possibly into ``out``."""
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
            return self._fetch_with_empty_tiles(stored, rect, exc)

    def _fetch_masked(self, stored: Stored, rect: Rect, out: Array | None) -> Array:
        """Read a rectangle with the mask as alpha band, 0 or opaque."""
        colours = self._fetch(stored.unmasked, rect)
        pixels = out if out is not None else np.empty(
            (rect.height, rect.width, colours.shape[2] + 1), colours.dtype)
        pixels[..., :-1] = colours
        opaque = opaque_alpha(colours.dtype)
        pixels[..., -1] = opaque if stored.mask is None else np.where(
            self._fetch(stored.mask, rect)[..., 0], opaque, 0)
        return pixels

    def _fetch_with_empty_tiles(self, stored: Stored, rect: Rect, error: pyvips.Error) -> Array:
        """
        Read a rectangle tile by tile; empty tiles (offset and byte count 0) are blank.

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
        A view of rows of a picture without random access, decoded down to the last one.

        If a picture of a stack is damaged, the pictures of the stack are decoded one by
        one, so that those before it remain readable.
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
        def make() -> LazyLevel:
            level = self.new_level(stored.opened_size, stored)
            return LazyLevel(level, bands(stored), stops=(
                level.nbytes > _MIN_STOPPED and stored.page is None and
                not needs_own_process(self._file.loader.name)))

        decoded = cached_levels.get(self._file.serial, stored.opening, make)
        return decoded.rows(stored.top + top, stored.top + bottom, Decoder(self._file, stored))

    def new_level(self, size: Size, stored: Stored) -> CachedLevel:
        """An empty level for the samples of a stored picture."""
        dtype, bands_each = shape_of(self._file, stored)
        return CachedLevel((size.height, size.width, bands_each + stored.masked), dtype)


def _within(rect: Rect, size: Size) -> Rect:
    """Clip a rectangle to an image; the nearest pixel if it lies outside."""
    left, top = min(rect.left, size.width - 1), min(rect.top, size.height - 1)
    return Rect(left, top, max(1, min(rect.right, size.width) - left),
                max(1, min(rect.bottom, size.height) - top))


