"""
Makes libvips images of blocks in a spool file, and copies pixels to such blocks.

libvips could crop or drop a band itself, but its operation cache would then keep
the input (file, memory, disk space) after the image is written.
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
from ..base.libvips import close_descriptor
from .blend import Array
from .blocks import BLOCK_SIZE, BlockKey, BlockPool, FrozenPlane, Plane
from .grid import block_area, parts
from .spool import Spool


@contextmanager
def copied_to_blocks(size: Size, dtype: np.dtype[Any], bands: int,
                     read: Callable[[Rect], Array]) -> Iterator[Plane]:
    """
    Copy an image to blocks in a new spool, which is closed when the context ends.

    :param size: width and height in pixels.
    :param dtype: the dtype of the samples.
    :param bands: the number of bands.
    :param read: returns the samples (rows, cols, bands) of a rectangle.
    :raises TileSourceError: if the disk is full.
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
    A libvips image of a rectangle of blocks, which are not copied.

    :param plane: the blocks, which must not change while the context lasts.
    :param place: the rectangle, in pixels of the plane; its top left corner must
        be the corner of a block.
    :param labels: header fields to set, as for ``pyvips.Image.copy``.
    :raises TileSourceError: if the disk is full or the spool cannot be read.
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
            image, source = pool.spool.image(
                Size(place.width, place.height), plane.dtype, plane.shape[2], BLOCK_SIZE, offsets,
                labels)
        try:
            # Where an error of libvips would end the process, one is looked for before
            # and after instead.
            if not SAVERS_CAN_FAIL:
                _check_readable(plane, offsets)
            yield image
            if not SAVERS_CAN_FAIL:
                _check_readable(plane, offsets)
        finally:
            close_descriptor(source)


@contextmanager
def _blank_block(plane: Plane | FrozenPlane, *, needed: bool) -> Iterator[int]:
    """The offset in the spool of a block of zeros, for all blank blocks; 0 if not needed."""
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
    Check that all blocks can be read; libvips before 8.15 reads others as black.

    :raises TileSourceError: if one cannot be read.
    """
    samples = np.empty(plane.shape, plane.dtype)
    for place in np.unique(offsets):
        plane.pool.spool.read(int(place), samples)
