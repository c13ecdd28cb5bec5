"""
JPEG tiles of a TIFF page, decoded at a half, a quarter or an eighth of their size.

libjpeg can leave out what a smaller picture does not show: that takes less time
than to decode all of it and to average, and gives the same but for a grey value or
two.  Pillow brings libjpeg; libvips offers this for whole files only.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import PIL.features
import PIL.Image

from .geometry import Rect
from .layout import Stored
from .packed import Damaged, PackedPage
from .raster import reduce_pixels
from .tiff import JPEG_TABLES, MCU, Page

Tile = npt.NDArray[np.uint8]

# How often libjpeg halves a picture, at most.
MAX_HALVINGS = 3

# An APP14 segment as Adobe writes it, without and with conversion from YCbCr: a
# decoder would have to guess what the three components are.
_ADOBE = b'\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00'
_START, _SCAN, _APPLICATION = b'\xff\xd8', 0xDA, range(0xE0, 0xF0)
_MODES = {1: 'L', 3: 'RGB'}


@functools.cache
def _has_jpeg() -> bool:
    return bool(PIL.features.check('jpg'))


def suits(stored: Stored) -> bool:
    """Whether the tiles of a stored picture can be decoded smaller here."""
    page = stored.page
    return page is not None and page.is_plain_jpeg and stored.opened is None and _has_jpeg()


class JpegPage(PackedPage):
    """
    A page of a picture that ``suits``.

    :raises Damaged: if it does not say where its tiles are.
    """

    def __init__(self, descriptor: int, page: Page) -> None:
        super().__init__(descriptor, page)
        tables = self._tiff.data(page.entries.get(JPEG_TABLES))
        self._head = _START + _without_application_data(tables)[2:].removesuffix(b'\xff\xd9')
        if page.samples == 3:
            self._head += _ADOBE + (b'\x01' if page.photometric == 6 else b'\x00')

    def tile(self, number: int, halvings: int) -> Tile:
        """
        A tile, smaller.

        :param number: of the tile, in file order.
        :param halvings: how often it is halved, at most 3.
        :returns: an array (rows, cols, samples).
        :raises Damaged: if it is not as it should be.
        """
        tile, page = self._page.tile, self._page
        assert tile is not None  # it is a page of tiles
        stream = io.BytesIO(self._head + _without_application_data(self.packed(number))[2:])
        size = tile.width >> halvings, tile.height >> halvings
        try:
            with PIL.Image.open(stream, formats=('JPEG',)) as image:
                if image.size != tile or image.mode != _MODES[page.samples]:
                    raise Damaged
                image.draft(None, size)
                pixels: Tile = np.asarray(image)
        except (OSError, SyntaxError, ValueError, struct.error,
                PIL.Image.DecompressionBombError) as exc:
            raise Damaged from exc
        if pixels.shape[1::-1] != size:
            raise Damaged
        return pixels.reshape(*pixels.shape[:2], page.samples)


def _without_application_data(stream: bytes) -> bytes:
    """
    The start of a JPEG stream without its APPn segments, which may say other things of
    its colours than the TIFF file does.

    :raises Damaged: if it is none.
    """
    if not stream:
        return _START
    if not stream.startswith(_START):
        raise Damaged
    kept, at = [_START], 2
    while at + 4 <= len(stream) and stream[at] == 0xFF and stream[at + 1] != _SCAN:
        length = int.from_bytes(stream[at + 2:at + 4], 'big')
        if length < 2:
            raise Damaged
        end = at + 2 + length
        if stream[at + 1] not in _APPLICATION:
            kept.append(stream[at:end])
        at = end
    return b''.join([*kept, stream[at:]])


def smaller(page: JpegPage, stored: Stored, halvings: int, rect: Rect,
            read: Callable[[Rect], npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    """
    A rectangle of a stored picture, made smaller.

    A pixel has one value, whatever rectangle it is read with.

    :param page: its tiles.
    :param halvings: how often it is halved, 1 to 3.
    :param rect: in pixels of the smaller picture.
    :param read: gives a rectangle of the stored picture, for tiles that reach beyond
        its edge, and for damaged ones.
    :returns: an array (rect.height, rect.width, samples).
    """
    assert stored.page is not None
    tile, factor = stored.page.tile, 1 << halvings
    assert tile is not None
    picture = Rect(0, 0, *stored.size)
    across = -(-stored.size.width // tile.width)
    width, height = tile.width // factor, tile.height // factor

    def part_of(row: int, column: int) -> npt.NDArray[np.generic]:
        whole = Rect(column * tile.width, row * tile.height, *tile).clipped(picture)
        # Of the last blocks of JPEG, a part may be behind the edge of the picture.
        if not (whole.width % MCU or whole.height % MCU):
            # What is damaged is decoded as a whole, by what says what is wrong.
            with suppress(Damaged):
                return page.tile(row * across + column, halvings)
        return reduce_pixels(read(whole), factor, averaged=True)

    result = np.empty((rect.height, rect.width, stored.page.samples), np.uint8)
    for row in range(rect.top // height, -(-rect.bottom // height)):
        for column in range(rect.left // width, -(-rect.right // width)):
            place = Rect(column * width, row * height, width, height)
            part = place.clipped(rect)
            result[part.top - rect.top:part.bottom - rect.top,
                   part.left - rect.left:part.right - rect.left] = part_of(row, column)[
                       part.top - place.top:part.bottom - place.top,
                       part.left - place.left:part.right - place.left]
    return result
