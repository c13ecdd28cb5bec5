"""
Deflated TIFF pages, decoded without libtiff.

zlib takes most of the time of such pages.  The codecs of the package imagecodecs,
which the extra ``fast`` brings, take half as long; where it is installed, the most
common kind of page is decoded here: 8 or 16 bit, gray or RGB, with or without
horizontal differencing (TIFF 6.0, section 14).  Anything unusual, and whatever
is damaged, is left to libvips, which then says what is wrong.
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
# The bytes of rows that are handed out together, about.
_TOGETHER = 1 << 21


class Codecs(NamedTuple):
    """What decodes; all of it works without Python's lock, in one call."""

    inflate: Callable[..., Any]
    undo_differences: Callable[..., Any]
    error: type[Exception]


@functools.cache
def codecs() -> Codecs | None:
    """Those of imagecodecs, if they are installed; imported when first needed."""
    try:
        import imagecodecs

        found = Codecs(
            imagecodecs.deflate_decode, imagecodecs.delta_decode, imagecodecs.DeflateError)
        # Some builds go without.
        usable = imagecodecs.DEFLATE.available and imagecodecs.DELTA.available
    except (ImportError, AttributeError, ValueError):
        # There is none, or an old one, or one that was built for another numpy.
        return None
    return found if usable else None


def suits(page: Page | None) -> bool:
    """Whether the tiles or strips of a page can be decoded here."""
    return page is not None and page.is_plain_deflate and codecs() is not None


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
        found = codecs()
        assert found is not None  # else the page does not suit
        self._codecs = found
        self._stored_dtype = np.dtype(f'{self._tiff.order}u{page.bits // 8}')
        self.dtype = self._stored_dtype.newbyteorder('=')

    def _inflate(self, number: int, out: Array) -> None:
        """
        The samples of a tile or strip as they are stored, but for the order of bytes.

        :param out: an array (rows, cols, samples) for them.
        """
        samples = out.reshape(-1)
        try:
            # No more than the array takes: what is longer is an error.
            inflated = self._codecs.inflate(
                self.packed_for_now(number), out=samples.view(np.uint8))
        except self._codecs.error as exc:
            raise Damaged from exc
        if len(inflated) < out.nbytes:
            raise Damaged
        if self.dtype != self._stored_dtype:
            samples.byteswap(inplace=True)

    def _put(self, stored: Array, out: Array) -> None:
        """Samples as they are meant; both arrays may be the same."""
        if self._page.predictor == 2:
            # Differences to the left, modulo the range of the samples.
            self._codecs.undo_differences(stored, axis=1, out=out)
        elif out is not stored:
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
