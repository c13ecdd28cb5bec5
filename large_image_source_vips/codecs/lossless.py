"""
Decode deflated TIFF pages with imagecodecs, if it is installed (extra ``fast``).

imagecodecs takes half the time of zlib in libtiff.  It decodes the most common pages:
8 or 16 bit, gray or RGB, with or without horizontal differencing (TIFF 6.0, section
14).  Damaged data raises ``Damaged``; libvips then decodes it and reports the error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..base.geometry import TILE_SIZE, Rect
from ..base.limits import LIMITS
from ..base.threads import scratch
from ..tiff.directories import Page
from ..tiff.stored_tiles import Damaged, PackedPage

Array = npt.NDArray[Any]

_MAX_PIXELS = LIMITS.codecs_strip_samples
# Bytes of rows that are yielded at a time, approximately.
_TOGETHER = 1 << 21


class Codecs(NamedTuple):
    """Functions of imagecodecs, each of which releases the GIL."""

    inflate: Callable[..., Any]
    undo_differences: Callable[..., Any]
    error: type[Exception]


@functools.cache
def codecs() -> Codecs | None:
    """Import the functions of imagecodecs; None if they are not available."""
    try:
        import imagecodecs

        found = Codecs(
            imagecodecs.deflate_decode, imagecodecs.delta_decode, imagecodecs.DeflateError)
        # Some builds lack them.
        usable = imagecodecs.DEFLATE.available and imagecodecs.DELTA.available
    except (ImportError, AttributeError, ValueError):
        # Not installed, too old, or built for another numpy.
        return None
    return found if usable else None


def suits(page: Page | None) -> bool:
    """Whether the tiles or strips of a page can be decoded here."""
    return page is not None and page.is_plain_deflate and codecs() is not None


def has_tiles(page: Page | None) -> bool:
    """
    Whether a page has tiles that can be decoded here and divide large_image's tiles.

    Decoded tiles are not cached, so a larger tile would be decoded repeatedly.
    """
    return (page is not None and page.tile is not None and suits(page) and
            min(page.tile) > 0 and not any(TILE_SIZE % extent for extent in page.tile))


class DeflatedPage(PackedPage):
    """
    The tiles or strips of a page for which ``suits`` is true, for use by one thread.

    :raises Damaged: if the page does not list its tiles or strips.
    """

    def __init__(self, descriptor: int, page: Page) -> None:
        super().__init__(descriptor, page)
        found = codecs()
        assert found is not None  # else the page does not suit
        self._codecs = found
        self._stored_dtype = np.dtype(f'{self._tiff.order}u{page.bits // 8}')
        self.dtype = self._stored_dtype.newbyteorder('=')

    def _inflate(self, number: int, out: Array) -> None:
        """
        Decompress a tile or strip into an array (rows, cols, samples).

        The samples are in native byte order, still with differencing.
        """
        samples = out.reshape(-1)
        try:
            # More bytes than the array holds are an error.
            inflated = self._codecs.inflate(
                self.packed_for_now(number), out=samples.view(np.uint8))
        except self._codecs.error as exc:
            raise Damaged from exc
        if len(inflated) < out.nbytes:
            raise Damaged
        if self.dtype != self._stored_dtype:
            samples.byteswap(inplace=True)

    def _put(self, stored: Array, out: Array) -> None:
        """Copy samples and undo differencing; both arrays may be the same."""
        if self._page.predictor == 2:
            # Differences from the left neighbour, modulo the range of the samples.
            self._codecs.undo_differences(stored, axis=1, out=out)
        elif out is not stored:
            out[...] = stored

    def tiles(self, rect: Rect) -> Array:
        """
        Decode a rectangle of a tiled page.

        :returns: an array (rect.height, rect.width, samples).
        :raises Damaged: if a tile is damaged.
        """
        tile, page = self._page.tile, self._page
        assert tile is not None  # else there are strips
        across = -(-page.size.width // tile.width)
        result = np.empty((rect.height, rect.width, page.samples), self.dtype)
        for row in range(rect.top // tile.height, -(-rect.bottom // tile.height)):
            for col in range(rect.left // tile.width, -(-rect.right // tile.width)):
                whole = Rect(col * tile.width, row * tile.height, *tile)
                out = result if whole == rect else scratch(
                    'tile', (tile.height, tile.width, page.samples), self.dtype)
                self._inflate(row * across + col, out)
                self._put(out, out)
                if out is not result:
                    part = whole.clipped(rect)
                    result[part.top - rect.top:part.bottom - rect.top,
                           part.left - rect.left:part.right - rect.left] = \
                        out[part.top - whole.top:part.bottom - whole.top,
                            part.left - whole.left:part.right - whole.left]
        return result

    def strips(self, first: int, end: int) -> Iterator[tuple[int, Array]]:
        """
        Decode strips.

        :param first: the first strip.
        :param end: the strip after the last.
        :returns: yields the number of a first row and rows, in an array that the
            thread's next call for any page reuses.
        :raises Damaged: if a strip is damaged.
        """
        page, width = self._page, self._page.size.width
        row_bytes = width * page.samples * self.dtype.itemsize
        together = min(max(8, _TOGETHER // row_bytes // 8 * 8), page.rows_per_strip,
                       page.size.height)
        buffer = scratch('rows of a strip', (together, width, page.samples), self.dtype)
        for number in range(first, end):
            top = number * page.rows_per_strip
            rows = min(page.rows_per_strip, page.size.height - top)
            if rows * width * page.samples > _MAX_PIXELS:
                raise Damaged
            stored = scratch('strip', (rows, width, page.samples), self.dtype)
            self._inflate(number, stored)
            for start in range(0, rows, together):
                part = buffer[:min(together, rows - start)]
                self._put(stored[start:start + together], part)
                yield top + start, part
