"""
Return the compressed tiles of a TIFF level, to copy to another file or to send to a viewer.

Tiles are passed on only if every reader decodes them to the pixels that this package
returns: without a colour conversion, an orientation or a mask.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..base.geometry import Size
from ..codecs.coding import Coding
from ..codecs.headers import looks_complete
from ..codecs.jpeg import JpegDecoder
from ..codecs.table import decoder
from ..store import EncodedLevel
from ..tiff.page import UNCOMPRESSED, Page
from ..tiff.stored_tiles import StoredTileError
from .file import SourceFile
from .layout import Picture, Stored
from .tiff_tiles import TiffTiles

_JPEG, _YCBCR = 7, 6
# Compression numbers with the same meaning, and the usual one.
_SAME = {32946: 8}


def encoded_level(file: SourceFile, picture: Picture, reduction: int) -> EncodedLevel | None:
    """
    The compressed tiles of a level; None if they cannot be passed on.

    :param file: the file, which must not have changed.
    :param picture: a frame of it.
    :param reduction: that of the level.
    :raises TileSourceError: if the file has changed.
    """
    stored = picture.levels.get(reduction)
    if stored is None or stored.page is None or picture.orientation != 1 or (
            picture.alpha not in {None, -1}):
        return None
    tiles = file.tiles(stored)
    if tiles is None or not _is_plain(stored.page, tiles):
        return None
    coding = tiles.samples.coding
    chroma = tiles.jpeg_chroma if coding.compression == _JPEG else (1, 1)
    if chroma is None or (chroma != (1, 1) and coding.photometric != _YCBCR):
        return None
    return EncodedLevel(
        stored.size, tiles.tile, coding.samples, _compression(coding), coding.photometric,
        coding.predictor, chroma, partial(_read, file, stored), coding.jpeg_tables,
        partial(_whole, coding, tiles.tile))


def _compression(coding: Coding) -> int:
    """The usual TIFF number of a compression."""
    return _SAME.get(coding.compression, coding.compression)


def _is_plain(page: Page, tiles: TiffTiles) -> bool:
    """Whether stored samples equal the pixels returned, in the usual order."""
    coding = tiles.samples.coding
    dtype = tiles.samples.dtype
    return (tiles.is_tiled and page.planes == 1 and tiles.samples.convert is None and
            coding.dtype == dtype and coding.fill_order == 1 and
            coding.bits == 8 * dtype.itemsize and
            (coding.order == '<' or dtype == np.uint8) and
            (coding.photometric != _YCBCR or coding.compression == _JPEG))


def _read(file: SourceFile, stored: Stored, column: int, row: int) -> bytes | None:
    """``EncodedLevel.read``."""
    tiles = file.tiles(stored)
    if tiles is None:
        return None
    try:
        data = tiles.stored(column, row)
    except StoredTileError:
        # Decoding the tile raises the error with its place.
        return None
    coding = tiles.samples.coding
    if coding.compression == _JPEG:
        jpeg = decoder(coding)
        assert isinstance(jpeg, JpegDecoder)
        found = None if data is None else jpeg.complete(data, tiles.tile)
        return data if found is not None and found[1] == tiles.jpeg_chroma else None
    if data is None or not looks_complete(_compression(coding), data):
        return None
    size = tiles.tile.area * coding.samples * tiles.samples.dtype.itemsize
    return data if coding.compression != UNCOMPRESSED or len(data) == size else None


def _whole(coding: Coding, tile: Size, data: bytes) -> bytes:
    """``EncodedLevel.whole``."""
    if coding.compression != _JPEG:
        return data
    jpeg = decoder(coding)
    assert isinstance(jpeg, JpegDecoder)
    found = jpeg.complete(data, tile)
    assert found is not None  # checked when the tile was read
    return found[0]
