"""
Pixels -> blocks in a spool of their own -> an image that libvips reads.

libvips could crop, drop a band or join one itself, but would keep what it is
given (file, memory, disk) in its cache of operations after we are done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyvips

from .blocks import BLOCK_SIZE, BlockKey, BlockPool, Plane
from .compose import Array
from .geometry import Rect, Size
from .layers import block_area, parts
from .spool import Spool


def recomposed(size: Size, dtype: np.dtype[Any], bands: int,
               read: Callable[[Rect], Array | None]) -> Plane:
    """
    An image in blocks of a new spool.

    :param size: in pixels.
    :param dtype: of the samples.
    :param bands: of each pixel.
    :param read: gives the samples (rows, cols, bands) of a rectangle, or None
        if all of it is 0.
    :raises TileSourceError: if the disk has no room.
    """
    plane = Plane(BlockPool(Spool()), dtype, bands)
    for part in parts(0, 0, Rect(0, 0, *size)):
        rows, cols = part.in_rect
        samples = read(Rect(
            cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start))
        if samples is None:
            continue
        if part.whole:
            block = np.ascontiguousarray(samples, dtype)
        else:
            block = np.zeros(plane.shape, dtype)
            block[part.in_block] = samples
        plane.publish(part.key, block)
    return plane


def plane_image(plane: Plane, place: Rect, labels: Mapping[str, Any]) -> pyvips.Image:
    """
    What libvips makes of blocks, without copying any.

    :param plane: the blocks; to be kept as long as the image.
    :param place: the rectangle in the plane of the blocks; its corner is one
        of a block.
    :param labels: header fields to set, as ``pyvips.Image.copy`` takes them.
    """
    pool = plane.pool
    with pool.lock:
        pool.flush()
        area = block_area(place)
        offsets = np.zeros((area.height, area.width), np.uint64)
        missing = False
        for row in range(area.height):
            for column in range(area.width):
                offset = plane.slots.get(
                    BlockKey(0, 0, area.left + column, area.top + row), 0)
                offsets[row, column] = offset
                missing = missing or not offset
        if missing:
            offsets[offsets == 0] = plane.shared_block(0)
        return pool.spool.image(
            Size(place.width, place.height), plane.dtype, plane.bands, BLOCK_SIZE, offsets,
            labels)
