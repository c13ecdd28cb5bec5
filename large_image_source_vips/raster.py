"""
Arrays of pixels turned, and made smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .geometry import Rect, Size

Array = npt.NDArray[Any]

# How a stored array becomes an oriented one: EXIF orientation -> (transposed
# first, then rows reversed, then columns reversed).
_ORIENT = {
    1: (False, False, False), 2: (False, False, True), 3: (False, True, True),
    4: (False, True, False), 5: (True, False, False), 6: (True, False, True),
    7: (True, True, True), 8: (True, True, False),
}


def orient(pixels: Array, orientation: int) -> Array:
    """
    Stored pixels as they are to be seen.

    :param pixels: an array (rows, cols, bands).
    :param orientation: the TIFF/EXIF orientation, 1 to 8.
    :returns: a view.
    """
    transposed, rows_reversed, cols_reversed = _ORIENT[orientation]
    if transposed:
        pixels = pixels.transpose(1, 0, 2)
    return pixels[::-1 if rows_reversed else 1, ::-1 if cols_reversed else 1]


def stored_rect(rect: Rect, size: Size, orientation: int) -> Rect:
    """
    Where the pixels of an oriented rectangle are stored.

    :param rect: in oriented pixels.
    :param size: oriented.
    :param orientation: the TIFF/EXIF orientation, 1 to 8.
    """
    transposed, rows_reversed, cols_reversed = _ORIENT[orientation]
    left, top, width, height = rect
    if cols_reversed:
        left = size.width - rect.right
    if rows_reversed:
        top = size.height - rect.bottom
    return Rect(top, left, height, width) if transposed else Rect(left, top, width, height)


def reduce_pixels(pixels: Array, factor: int, averaged: bool) -> Array:
    """
    Pixels made smaller.

    :param pixels: an array (rows, cols, bands) whose first pixel is the first
        of a block of factor x factor.
    :param factor: a power of two, at most 8.
    :param averaged: the mean of each block, else its first pixel.
    :returns: an array of the same dtype, sizes rounded up.
    """
    if not averaged:
        return pixels[::factor, ::factor]
    rows, cols = pixels.shape[:2]
    if rows % factor or cols % factor:
        whole_rows, whole_cols = rows - rows % factor, cols - cols % factor
        reduced = np.empty((-(-rows // factor), -(-cols // factor), pixels.shape[2]), pixels.dtype)
        for row_part, row_out in _parts(whole_rows, rows, factor):
            for col_part, col_out in _parts(whole_cols, cols, factor):
                reduced[row_out, col_out] = _means(
                    pixels[row_part, col_part],
                    min(factor, row_part.stop - row_part.start),
                    min(factor, col_part.stop - col_part.start))
        return reduced
    return _means(pixels, factor, factor)


def _parts(whole: int, total: int, factor: int) -> Iterator[tuple[slice, slice]]:
    """The whole blocks along one direction, and the partial one: from where to where."""
    if whole:
        yield slice(0, whole), slice(0, whole // factor)
    if whole < total:
        yield slice(whole, total), slice(whole // factor, whole // factor + 1)


def _means(pixels: Array, row_factor: int, col_factor: int) -> Array:
    """The means of blocks that divide the array evenly."""
    count = row_factor * col_factor
    dtype = pixels.dtype
    wide = (np.dtype('uint16') if dtype.itemsize == 1 and count <= 256 else np.dtype('uint32')
            ) if dtype.kind == 'u' else dtype
    # Row by row first: those additions run along contiguous memory.
    rows = pixels[::row_factor].astype(wide)
    for step in range(1, row_factor):
        rows += pixels[step::row_factor]
    total = rows[:, ::col_factor].copy()
    for step in range(1, col_factor):
        total += rows[:, step::col_factor]
    if dtype.kind != 'u':
        means: Array = total / dtype.type(count)
        return means
    quotient = total // count
    twice = 2 * (total - quotient * count)
    quotient += (twice > count) | ((twice == count) & (quotient & 1).astype(bool))
    rounded: Array = quotient.astype(dtype)
    return rounded
