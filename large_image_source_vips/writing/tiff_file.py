"""
Writes a picture as a TIFF file: compresses its pyramid, then writes the directories.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace

import numpy as np

from ..base.geometry import Size
from ..codecs.encode import COMPRESSIONS, MASK_COMPRESSION
from ..store import Picture
from ..tiff.write import WrittenPage, write_tiff
from .encoded_tiles import EncodedTiles
from .plan import TiffPlan
from .pyramid import Progress, Pyramid

# The share of the work that is done when all tiles are compressed.
_COMPRESSED = 0.9
# How many tiles are copied between two reports.
_TILES_A_REPORT = 64


def write_pyramid(picture: Picture, plan: TiffPlan, path: str, progress: Progress) -> None:
    """
    Write a picture to a new TIFF file.

    The compressed tiles are first collected in a temporary file beside it.

    :param picture: the picture.
    :param plan: how to write it.
    :param path: the file.
    :param progress: called with the fraction done, 0 to 1; what it raises cancels.
    :raises OSError: if the disk is full.
    :raises TileSourceError: if the picture cannot be read or a TIFF cannot hold it.
    """
    with closing(EncodedTiles(os.path.dirname(path))) as spool:
        pyramid = Pyramid(picture, plan, spool)
        pyramid.write(lambda fraction: progress(_COMPRESSED * fraction))
        tables = [*pyramid.tables, *pyramid.masks]
        total, done = sum(table.offsets.size for table in tables), 0

        def between() -> None:
            nonlocal done
            done += 1
            if done % _TILES_A_REPORT == 0:
                progress(_COMPRESSED + (1 - _COMPRESSED) * done / total)

        def pages(masks: bool) -> list[WrittenPage]:
            return [_page(pyramid, plan, level, spool.read(table, between), mask=masks)
                    for level, table in enumerate(pyramid.masks if masks else pyramid.tables)]

        write_tiff(path, pages(masks=False), pages(masks=True), spool.size,
                   picture.pixel_size, picture.profile)


def _page(pyramid: Pyramid, plan: TiffPlan, level: int, tiles: Iterable[bytes], *,
          mask: bool) -> WrittenPage:
    """
    A level, or its mask, as a directory of the file.

    :param level: its reduction.
    :param tiles: the compressed tiles, row by row.
    :param mask: whether this is the mask.
    """
    size, tile, reduced = pyramid.sizes[level], Size(plan.tile, plan.tile), level > 0
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
        predictor=passed.predictor, subsampling=passed.subsampling)
