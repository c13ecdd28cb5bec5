"""
Pixels -> blocks in a spool of their own -> an image that libvips reads.

libvips could crop, drop a band or join one itself, but would keep what it is
given (file, memory, disk) in its cache of operations after we are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from ..base.errors import SAVERS_CAN_FAIL
from ..base.geometry import Rect, Size
from ..sink.blend import Array
from ..sink.blocks import BLOCK_SIZE, BlockKey, BlockPool, FrozenPlane, Plane
from ..sink.layers import block_area, parts
from ..sink.spool import Spool


@contextmanager
def recomposed(size: Size, dtype: np.dtype[Any], bands: int,
               read: Callable[[Rect], Array]) -> Iterator[Plane]:
    """
    An image in blocks of a new spool, which is closed when the context ends.

    :param size: in pixels.
    :param dtype: of the samples.
    :param bands: of each pixel.
    :param read: gives the samples (rows, cols, bands) of a rectangle.
    :raises TileSourceError: if the disk has no room.
    """
    with closing(Spool()) as spool:
        plane = Plane(BlockPool(spool), dtype, bands, 0)
        for part in parts(0, 0, Rect(0, 0, *size)):
            rows, cols = part.in_rect
            samples = read(Rect(
                cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start))
            if not samples.any():
                continue
            block = samples
            if not part.whole:
                block = np.zeros(plane.shape, dtype)
                block[part.in_block] = samples
            plane.publish(part.key, block)
        yield plane


@contextmanager
def plane_image(plane: Plane | FrozenPlane, place: Rect,
                labels: Mapping[str, Any]) -> Iterator[pyvips.Image]:
    """
    What libvips makes of blocks, without copying any.

    :param plane: the blocks, which do not change meanwhile.
    :param place: the rectangle in the plane of the blocks; its corner is one
        of a block.
    :param labels: header fields to set, as ``pyvips.Image.copy`` takes them.
    :raises TileSourceError: if the spool has no room or cannot be read.
    """
    pool = plane.pool
    area = block_area(place)
    offsets = np.zeros((area.height, area.width), np.uint64)
    for row in range(area.height):
        for column in range(area.width):
            offsets[row, column] = plane.slots.get(
                BlockKey(0, 0, area.left + column, area.top + row), 0)
    missing = offsets == 0
    with _blank_block(plane, needed=bool(missing.any())) as blank:
        offsets[missing] = blank
        with pool.lock:
            pool.flush()
            image = pool.spool.image(
                Size(place.width, place.height), plane.dtype, plane.shape[2], BLOCK_SIZE, offsets,
                labels)
        yield image
        if not SAVERS_CAN_FAIL:
            _check_readable(plane, offsets)


@contextmanager
def _blank_block(plane: Plane | FrozenPlane, *, needed: bool) -> Iterator[int]:
    """The place of one block of zeros, which stands for all that are blank."""
    if not needed:
        yield 0
        return
    spool, lock = plane.pool.spool, plane.pool.lock
    with lock:
        place = spool.allocate(plane.block_bytes)
    try:
        spool.write(place, np.zeros(plane.shape, plane.dtype))
        yield place
    finally:
        with lock:
            spool.free(place, plane.block_bytes)


def _check_readable(plane: Plane | FrozenPlane, offsets: npt.NDArray[np.uint64]) -> None:
    """
    Read blocks once more, to see whether libvips could.

    :raises TileSourceError: if one cannot be read.
    """
    samples = np.empty(plane.shape, plane.dtype)
    for place in np.unique(offsets):
        plane.pool.spool.read(int(place), samples)
