"""
Write frames and associated images to a TIFF file: compress the pyramids, then write the
directories.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.frames import Annotations
from ..base.geometry import Size
from ..codecs.encode import COMPRESSIONS, HORIZONTAL, MASK_COMPRESSION, tile_encoder
from ..store import Picture
from ..tiff.json_text import plain_text
from ..tiff.ome_text import OmeImage, ome_text
from ..tiff.write import WrittenImage, WrittenPage, write_tiff
from .encoded_tiles import EncodedTiles
from .plan import TiffPlan
from .pyramid import Progress, Pyramid

# The fraction of the work done when all tiles are compressed.
_COMPRESSED = 0.9
# The number of tiles copied between two calls of the progress function.
_TILES_A_REPORT = 64

# Lossless, because associated images are small and show texts and barcodes.
_ASSOCIATED_COMPRESSION = 'deflate'
_BLACK, _RGB, _ALPHA = 1, 2, 2
# NewSubfileType of label and macro as in Aperio files; without it, Bio-Formats takes them
# for planes of a file without OME-XML.  Not in OME-TIFF, where GDAL would take them for
# levels.
_SUBFILE_TYPES = {'label': 1, 'macro': 9}


@dataclass(frozen=True)
class Contents:
    """
    The contents of a TIFF file to write.

    :param frames: in frame order; all of the same size, dtype and meaning.
    :param annotations: their axes, channels, values and texts.
    :param positions: of the frames; None if they fill the axes in order.
    :param associated: the associated images by key, (rows, cols, bands) of uint8.
    :param is_ome: whether to write OME-XML, and lower levels as sub-IFDs; else there is one
        frame, and its levels are pages.
    """

    frames: Sequence[Picture]
    annotations: Annotations = field(default_factory=Annotations)
    positions: Sequence[Mapping[str, int]] | None = None
    associated: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    is_ome: bool = False


def write_contents(contents: Contents, plan: TiffPlan, path: str, progress: Progress) -> None:
    """
    Write pictures to a new TIFF file.

    The compressed tiles are first collected in a temporary file beside it.  Memory: 24
    bytes for each tile of all frames.

    :param contents: the frames, annotations and associated images.
    :param plan: how to write each of them.
    :param path: the file.
    :param progress: called with the fraction done, 0 to 1; an exception cancels the write.
    :raises OSError: if the disk is full.
    :raises TileSourceError: if a picture cannot be read, or TIFF cannot store it.
    """
    count = len(contents.frames)
    text = _text(contents, plan)
    palette = contents.annotations.palette
    color_map = _color_map(palette, plan.dtype) if palette and plan.has_color_map else None
    with closing(EncodedTiles(os.path.dirname(path))) as spool:
        copied = _CopyProgress(progress)
        images = []
        for number, picture in enumerate(contents.frames):
            pyramid = Pyramid(picture, plan, spool)
            pyramid.write(lambda fraction, number=number: progress(  # type: ignore[misc]
                _COMPRESSED * (number + fraction) / count))
            copied.total += sum(table.offsets.size for table in (*pyramid.tables, *pyramid.masks))
            images.append(WrittenImage(
                _coloured(_pages(pyramid, plan, spool, copied.count_tile, mask=False),
                          color_map),
                _pages(pyramid, plan, spool, copied.count_tile, mask=True),
                picture.pixel_size, picture.profile, contents.is_ome, '' if number else text))
        images += [
            _associated(key, pixels, 0 if contents.is_ome else _SUBFILE_TYPES.get(key, 0))
            for key, pixels in contents.associated.items()]
        size = sum(pixels.nbytes for pixels in contents.associated.values())
        write_tiff(path, images, spool.size + size)


def _color_map(palette: Mapping[int, str], dtype: np.dtype[Any]) -> npt.NDArray[np.uint16]:
    """
    TIFF's ColorMap (section 5): the colours of all values, (3, values), 0 to 65535.

    Values without a colour are black.
    """
    result = np.zeros((3, 1 << 8 * dtype.itemsize), np.uint16)
    for label, color in palette.items():
        if 0 <= label < result.shape[1]:
            result[:, label] = [257 * part for part in bytes.fromhex(color[1:])]
    return result


def _coloured(pages: list[WrittenPage],
              color_map: npt.NDArray[np.uint16] | None) -> list[WrittenPage]:
    return [replace(page, color_map=color_map) for page in pages]


class _CopyProgress:
    """Reports the progress of copying tiles."""

    def __init__(self, progress: Progress) -> None:
        self.total = 0
        self._done = 0
        self._progress = progress

    def count_tile(self) -> None:
        """Count a tile."""
        self._done += 1
        if self._done % _TILES_A_REPORT == 0:
            self._progress(_COMPRESSED + (1 - _COMPRESSED) * self._done / self.total)


def _text(contents: Contents, plan: TiffPlan) -> str:
    """The ImageDescription of the first page."""
    if not contents.is_ome:
        return plain_text(contents.annotations, contents.associated)
    first = contents.frames[0]
    return ome_text(OmeImage(
        first.size, plan.dtype, plan.bands, first.pixel_size, contents.annotations,
        {key: (Size(pixels.shape[1], pixels.shape[0]), pixels.shape[2])
         for key, pixels in contents.associated.items()}, contents.positions))


def _pages(pyramid: Pyramid, plan: TiffPlan, spool: EncodedTiles, between: Callable[[], None], *,
           mask: bool) -> list[WrittenPage]:
    """The levels of a pyramid, or their masks, as directories of the file."""
    return [_page(pyramid, plan, level, spool.read(table, between), mask=mask)
            for level, table in enumerate(pyramid.masks if mask else pyramid.tables)]


def _page(pyramid: Pyramid, plan: TiffPlan, level: int, tiles: Iterable[bytes], *,
          mask: bool) -> WrittenPage:
    """
    A level, or its mask, as a directory of the file.

    :param level: its reduction.
    :param tiles: the compressed tiles, row by row.
    :param mask: whether this is the mask.
    """
    size, tile, reduced = pyramid.sizes[level], plan.tile, level > 0
    if mask:
        return WrittenPage(
            size, tile, np.dtype(np.bool_), 1, 1, MASK_COMPRESSION, tiles,
            pyramid.masks[level].first_same(), reduced=reduced)
    page = WrittenPage(
        size, tile, plan.dtype, plan.bands, plan.photometric, COMPRESSIONS[plan.compression].tag,
        tiles, pyramid.tables[level].first_same(), plan.extra_samples, plan.predictor, plan.chroma,
        reduced)
    passed = pyramid.passed[level]
    return page if passed is None else replace(
        page, photometric=passed.photometric, compression=passed.compression,
        predictor=passed.predictor, subsampling=passed.subsampling, jpeg_tables=passed.tables)


def _associated(key: str, pixels: npt.NDArray[Any], subfile_type: int) -> WrittenImage:
    """
    An associated image as a page with one strip, and its key as description.

    Readers would take a tiled page for a level.

    :param subfile_type: its NewSubfileType.
    """
    rows, cols, bands = pixels.shape
    encode = tile_encoder(_ASSOCIATED_COMPRESSION, predictor=HORIZONTAL)
    page = WrittenPage(
        Size(cols, rows), None, np.dtype(np.uint8), bands, _RGB if bands > 2 else _BLACK,
        COMPRESSIONS[_ASSOCIATED_COMPRESSION].tag, (encode(np.ascontiguousarray(pixels)),),
        np.zeros(1, np.int64), (_ALPHA,) * (bands in {2, 4}), HORIZONTAL,
        subfile_type=subfile_type)
    return WrittenImage([page], description=key)
