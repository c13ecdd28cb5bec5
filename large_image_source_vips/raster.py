"""
Arrays of pixels turned, and made smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .geometry import Rect, Size
from .scratch import scratch

Array = npt.NDArray[Any]

# The bytes of pixels that are made smaller at a time, about: what comes up in between
# stays in the cache of a processor.
_TOGETHER = 1 << 20

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
    step = max(1, _TOGETHER // max(1, pixels[:1].nbytes) // factor) * factor
    if rows <= step:
        return _means(pixels, factor, factor)
    reduced = np.empty((rows // factor, cols // factor, pixels.shape[2]), pixels.dtype)
    for top in range(0, rows, step):
        reduced[top // factor:(top + step) // factor] = _means(
            pixels[top:top + step], factor, factor)
    return reduced


def _parts(whole: int, total: int, factor: int) -> Iterator[tuple[slice, slice]]:
    """The whole blocks along one direction, and the partial one: from where to where."""
    if whole:
        yield slice(0, whole), slice(0, whole // factor)
    if whole < total:
        yield slice(whole, total), slice(whole // factor, whole // factor + 1)


def _sums(rows: Array, count: int) -> Array:
    """
    The sums of each pixel and those to the right of it.

    :param rows: an array (rows, cols, bands).
    :param count: how many are added, a power of two.
    :returns: an array of the same shape; good where there are so many in the row.
    """
    apart = rows.shape[2]
    for name in ('twos', 'fours', 'eights')[:count.bit_length() - 1]:
        sums = scratch(name, rows.shape, rows.dtype)
        flat, out = rows.reshape(-1), sums.reshape(-1)
        np.add(flat[:-apart], flat[apart:], out=out[:-apart])
        rows, apart = sums, 2 * apart
    return rows


def _means(pixels: Array, row_factor: int, col_factor: int) -> Array:
    """The means of blocks that divide the array evenly."""
    count = row_factor * col_factor
    dtype = pixels.dtype
    result: Array
    if count == 1:
        result = pixels.copy()
        return result
    wide = (np.dtype('uint16') if dtype.itemsize == 1 and count <= 256 else np.dtype('uint32')
            ) if dtype.kind == 'u' else dtype
    height, width, bands = pixels.shape
    # Row by row first: those additions run along contiguous memory.
    rows = scratch('rows', (height // row_factor, width, bands), wide)
    np.copyto(rows, pixels[::row_factor])
    for step in range(1, row_factor):
        rows += pixels[step::row_factor]
    first = 0
    if dtype.kind == 'u' and not col_factor & (col_factor - 1):
        # Whole blocks: sums of 2, 4, 8 columns from every column on, of which one in
        # as many is wanted.  Most of them are for nothing, but what is added lies
        # together in memory.
        rows, first = _sums(rows, col_factor), col_factor - 1
    total = scratch('total', (rows.shape[0], width // col_factor, bands), wide)
    # Band by band: numpy's innermost loop is then along the columns.
    for band in range(bands):
        part = total[..., band]
        np.copyto(part, rows[:, ::col_factor, band])
        for step in range(first + 1, col_factor):
            part += rows[:, step::col_factor, band]
    if dtype.kind != 'u':
        result = total / dtype.type(count)
        return result
    if count & (count - 1):
        quotient = total // count
        twice = 2 * (total - quotient * count)
        quotient += (twice > count) | ((twice == count) & (quotient & 1).astype(bool))
        result = quotient.astype(dtype)
        return result
    # The same for a power of two, without dividing: with just less than a half
    # added, and a last bit of 1 on top, halves go to the even neighbour.
    shift = wide.type(count.bit_length() - 1)
    odd = np.right_shift(total, shift, out=scratch('odd', total.shape, wide))
    odd &= wide.type(1)
    total += odd
    total += wide.type(count // 2 - 1)
    total >>= shift
    result = total.astype(dtype)
    return result
