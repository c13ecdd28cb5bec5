"""
Deflated TIFF pages, decoded without libtiff.

zlib takes most of the time of such pages.  The package isal, which the extra
``fast`` brings, inflates about twice as fast; where it is installed, the most
common kind of page is decoded here: 8 or 16 bit, gray or RGB, with or without
horizontal differencing (TIFF 6.0, section 14).  Anything unusual, and whatever
is damaged, is left to libvips, which then says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .geometry import Rect
from .output import TILE_SIZE
from .packed import Damaged, PackedPage
from .scratch import scratch
from .tiff import Page

isal_zlib: Any
try:
    from isal import isal_zlib
except ImportError:
    isal_zlib = None

Array = npt.NDArray[Any]

_MAX_PIXELS = 1 << 28
# The bytes that are inflated at a time if a strip or tile is larger than this.
_LARGE = 1 << 20
_PIECE_BYTES = 1 << 18
# The bytes of rows that are handed out together, about: as ``decoding`` does.
_TOGETHER = 1 << 20


def suits(page: Page | None) -> bool:
    """Whether the tiles or strips of a page can be decoded here."""
    return isal_zlib is not None and page is not None and page.is_plain_deflate


def has_tiles(page: Page | None) -> bool:
    """
    Whether that goes for its tiles, and each is a part of one of large_image's.

    Nothing that is decoded is kept: a larger tile would be decoded again and again.
    """
    return (page is not None and page.tile is not None and suits(page) and
            min(page.tile) > 0 and not any(TILE_SIZE % extent for extent in page.tile))


class DeflatedPage(PackedPage):
    """
    A page that ``suits``.

    :raises Damaged: if it does not say where its tiles or strips are.
    """

    def __init__(self, descriptor: int, page: Page) -> None:
        super().__init__(descriptor, page)
        self._stored_dtype = np.dtype(f'{self._tiff.order}u{page.bits // 8}')
        self.dtype = self._stored_dtype.newbyteorder('=')

    def _inflated(self, number: int, rows: int, cols: int) -> Array:
        """The samples of a tile or strip, (rows, cols, samples), until the next are inflated."""
        samples = rows * cols * self._page.samples
        if not 0 < samples <= _MAX_PIXELS:
            raise Damaged
        stored = scratch('inflated', (rows, cols, self._page.samples), self._stored_dtype)
        left = stored.reshape(-1).view(np.uint8).data
        packed = memoryview(self.packed(number))
        # A tile at once: each call hands Python's lock to another thread and back.
        # A large strip in pieces whose memory the allocator recycles.
        piece = len(packed) if len(left) <= _LARGE else _PIECE_BYTES
        inflate = isal_zlib.decompressobj()
        try:
            while left and packed:
                data = inflate.decompress(packed[:piece], len(left))
                left[:len(data)] = data
                left, packed = left[len(data):], packed[piece:]
        except isal_zlib.error as exc:
            raise Damaged from exc
        if left:
            raise Damaged
        return stored

    def _put(self, stored: Array, out: Array) -> None:
        """Samples as they are meant, of the first rows and columns."""
        stored = stored[:out.shape[0], :out.shape[1]]
        if self._page.predictor == 2:
            # Differences to the left, modulo the range of the samples.
            np.add.accumulate(stored, axis=1, out=out, dtype=out.dtype)
        else:
            out[...] = stored

    def tiles(self, rect: Rect) -> Array:
        """
        A rectangle of a page in tiles.

        :returns: an array (rect.height, rect.width, samples).
        :raises Damaged: if a tile is not as it should be.
        """
        tile, page = self._page.tile, self._page
        assert tile is not None  # else there are strips
        across = -(-page.size.width // tile.width)
        result = np.empty((rect.height, rect.width, page.samples), self.dtype)
        for row in range(rect.top // tile.height, -(-rect.bottom // tile.height)):
            for col in range(rect.left // tile.width, -(-rect.right // tile.width)):
                whole = Rect(col * tile.width, row * tile.height, *tile)
                part = whole.clipped(rect)
                stored = self._inflated(row * across + col, tile.height, tile.width)
                # Columns add up from the left edge of the tile on.
                left, top = part.left - whole.left, part.top - whole.top
                out = result[part.top - rect.top:part.bottom - rect.top,
                             part.left - rect.left:part.right - rect.left]
                if left and page.predictor == 2:
                    wide = np.empty((part.height, left + part.width, page.samples), self.dtype)
                    self._put(stored[top:], wide)
                    out[...] = wide[:, left:]
                else:
                    self._put(stored[top:, left:], out)
        return result

    def strips(self, first: int, end: int) -> Iterator[tuple[int, Array]]:
        """
        The rows of some strips.

        :param first: the first strip.
        :param end: the one behind the last.
        :returns: the number of a first row, and rows, in an array that is filled
            anew when the thread asks for the next of any page.
        :raises Damaged: if a strip is not as it should be.
        """
        page, width = self._page, self._page.size.width
        row_bytes = width * page.samples * self.dtype.itemsize
        together = min(max(8, _TOGETHER // row_bytes // 8 * 8), page.rows_per_strip,
                       page.size.height)
        buffer = scratch('strip', (together, width, page.samples), self.dtype)
        for number in range(first, end):
            top = number * page.rows_per_strip
            rows = min(page.rows_per_strip, page.size.height - top)
            stored = self._inflated(number, rows, width)
            for start in range(0, rows, together):
                part = buffer[:min(together, rows - start)]
                self._put(stored[start:], part)
                yield top + start, part
