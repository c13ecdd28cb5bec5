"""
Arrays of pixels turned, and made smaller.

This is the one place where pixels are made smaller: for reading, for the sink
and for the files it writes.  A level is either *averaged* or *picked*:

averaged
    Each pixel is the mean of the block of pixels under it, as many as exist: at
    the edge of a picture fewer.  Integers are rounded to the nearest, halves to
    even, so that many levels do not make an image brighter.
averaged with alpha
    The same, but each pixel counts as much as its alpha says: what lies under
    transparent pixels does not tint what is visible.  The alpha is a plain mean.
    A block that is wholly transparent, or equally opaque all over, has the plain
    mean of its colours.  Alpha that is negative or no number counts as 0.
picked
    The first pixel of each block, alpha with it: for labels.

A sink makes every level by halving the one above.  What a file lacks is made of the
nearest level that it stores (see ``levels``): a half and a quarter of it in one step,
everything smaller by halving; where its tiles are JPEG, an eighth in one step, too.
A half is the same for both, bit for bit.  One step to a quarter rounds once, two steps
round twice: integers differ by 1 at most where all pixels are equally opaque.  They
may differ by more where the alpha is of a few grey values only, so that its rounding
counts, and in the last row and column, where two steps give the same weight to parts
of a block that are not of the same size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .formats import is_averaged, opaque_alpha
from .geometry import Rect, Size
from .threads import scratch

Array = npt.NDArray[Any]

# The bytes of pixels that are made smaller at a time, about: what comes up in between
# stays in the cache of a processor.
_TOGETHER = 1 << 20
# The largest weight; products with it and sums of those are finite in 64-bit floats.
_MAX_WEIGHT = 1e38

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


def reduce_pixels(pixels: Array, factor: int, averaged: bool, alpha: int | None = None) -> Array:
    """
    Pixels made smaller.

    :param pixels: an array (rows, cols, bands) whose first pixel is the first
        of a block of factor x factor.
    :param factor: a power of two, at most 8.
    :param averaged: the mean of each block, else its first pixel.
    :param alpha: the band that weights all others, where there is one; counted
        from the end if it is negative.
    :returns: an array of the same dtype, sizes rounded up.
    :raises ValueError: if samples of such a dtype are not averaged.
    """
    if not averaged:
        return pixels[::factor, ::factor]
    _check_averaged(pixels.dtype)
    return _assembled(pixels, factor, None if alpha is None else alpha % pixels.shape[2])


def reduce_with_alpha(color: Array, alpha: Array | None, factor: int,
                      averaged: bool) -> tuple[Array, Array | None]:
    """
    Colour and alpha, held in two arrays, made smaller.

    :param color: (rows, cols, color bands).
    :param alpha: (rows, cols), or None if all is opaque.
    :param factor: as for ``reduce_pixels``, which gives the same values.
    :param averaged: as there.
    :returns: colour and alpha of the same dtypes, sizes rounded up.
    :raises ValueError: if samples of such a dtype are not averaged.
    """
    if not averaged:
        return color[::factor, ::factor], None if alpha is None else alpha[::factor, ::factor]
    _check_averaged(color.dtype)
    if alpha is None:
        return _assembled(color, factor, None), None
    rows, cols, bands = color.shape
    size = -(-rows // factor), -(-cols // factor)
    reduced = np.empty((*size, bands), color.dtype)
    reduced_alpha = np.empty((*size, 1), alpha.dtype)
    for area, out, factors in _areas(color, factor):
        weights = alpha[area]
        reduced_alpha[out], uneven = _means(weights[..., np.newaxis], *factors, 0)
        reduced[out], _ = _means(color[area], *factors)
        if uneven:
            _weight(reduced[out], color[area], weights, factors, range(bands))
    return reduced, reduced_alpha[..., 0]


def _check_averaged(dtype: np.dtype[Any]) -> None:
    """
    Refuse to average labels.

    :raises ValueError: for a dtype whose samples are picked.
    """
    if not is_averaged(dtype):
        msg = f'Samples of {dtype} are not averaged.'
        raise ValueError(msg)


def _assembled(pixels: Array, factor: int, alpha: int | None) -> Array:
    """The means of all blocks; weighted with a band, where there is one."""
    areas = list(_areas(pixels, factor))
    if len(areas) == 1:
        return _area_means(pixels, areas[0][2], alpha)
    rows, cols, bands = pixels.shape
    reduced = np.empty((-(-rows // factor), -(-cols // factor), bands), pixels.dtype)
    for area, out, factors in areas:
        reduced[out] = _area_means(pixels[area], factors, alpha)
    return reduced


def _area_means(pixels: Array, factors: tuple[int, int], alpha: int | None) -> Array:
    """The means of blocks of one size; weighted with a band, where there is one."""
    reduced, uneven = _means(pixels, *factors, alpha)
    if uneven and alpha is not None:
        colours = [band for band in range(pixels.shape[2]) if band != alpha]
        _weight(reduced, pixels, pixels[..., alpha], factors, colours)
    return reduced


# Where pixels are taken from, where what becomes of them belongs, and the rows and
# columns that a block of them has.
_Area = tuple[tuple[slice, slice], tuple[slice, slice], tuple[int, int]]


def _areas(pixels: Array, factor: int) -> Iterator[_Area]:
    """
    Areas of an array whose blocks all have one size, and which are small enough for
    the caches of a processor.
    """
    rows, cols = pixels.shape[:2]
    step = max(1, _TOGETHER // max(1, pixels[:1].nbytes) // factor) * factor
    for top, bottom, row_factor in _runs(rows, factor, step):
        for left, right, col_factor in _runs(cols, factor, cols):
            yield ((slice(top, bottom), slice(left, right)),
                   (slice(top // factor, -(-bottom // factor)),
                    slice(left // factor, -(-right // factor))),
                   (row_factor, col_factor))


def _runs(total: int, factor: int, step: int) -> Iterator[tuple[int, int, int]]:
    """The whole blocks along one direction, some at a time, and the partial one."""
    whole = total - total % factor
    for start in range(0, whole, max(1, step)):
        yield start, min(start + step, whole), factor
    if whole < total:
        yield whole, total, total - whole


def _is_uneven(pixels: Array, totals: Array, count: int, alpha: int) -> bool:
    """
    Whether the weights within a block may differ.

    Pictures that are opaque all over are common, so that is to cost next to nothing.

    :param pixels: (rows, cols, bands).
    :param totals: the sums of blocks, contiguous.
    :param count: the pixels of a block.
    :param alpha: the band of the weights.
    """
    dtype, bands = pixels.dtype, pixels.shape[2]
    if dtype.kind != 'u':
        weights = pixels[..., alpha]
        return bool((weights != weights[0, 0]).any())
    # No sum is larger than that of opaque pixels, so one that has all its bits equals
    # it.  All bands together, row by row: they lie together in memory.
    lines, opaque = totals.reshape(totals.shape[0], -1), count * int(np.iinfo(dtype).max)
    if (np.bitwise_and.reduce(lines, axis=0)[alpha::bands] == opaque).all():
        return False
    return bool(np.bitwise_or.reduce(lines, axis=0)[alpha::bands].any())


def _weight(reduced: Array, pixels: Array, weights: Array, factors: tuple[int, int],
            bands: Sequence[int]) -> None:
    """
    Put the weighted means of blocks in place of the plain ones, where they differ.

    The sums of integers are exact, and so is the rounding: 8-bit products of 64
    pixels take 22 bits, 16-bit ones 38, and a quotient of such numbers that is not
    halfway between two integers is no such half as a float of 53 bits either.

    :param reduced: the plain means, (rows, cols, bands).
    :param pixels: what they are means of.
    :param weights: (rows, cols) of ``pixels``.
    :param factors: the rows and columns of each block.
    :param bands: which bands are weighted.
    """
    dtype = pixels.dtype
    is_float = dtype.kind == 'f'
    wide = np.dtype('float64' if is_float else f'u{4 * dtype.itemsize}')
    weights = weights.astype(wide)
    if is_float:
        # Infinite weights count as large ones, of which the sum is finite.
        weights = np.where(weights > 0, np.minimum(weights, _MAX_WEIGHT), 0)
    total = _totals(weights[..., np.newaxis], *factors, wide)[..., 0].astype(np.float64)
    where = total > 0
    if is_float:
        # Of equal weights, the sums of floats would be rounded in another way.
        where &= _mixed(weights, factors)
    divisor = np.where(where, total, 1)
    for band in bands:
        with np.errstate(over='ignore', invalid='ignore'):
            product = pixels[..., band].astype(wide)
            product *= weights
            if is_float:
                # No number at all may lie under what is transparent.
                product[weights == 0] = 0
            means = _totals(product[..., np.newaxis], *factors, wide)[..., 0] / divisor
            np.copyto(reduced[..., band], means if is_float else np.rint(means),
                      where=where, casting='unsafe')


def _mixed(weights: Array, factors: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which blocks have weights that differ from their first."""
    rows, cols = factors
    first = weights[::rows, ::cols]
    mixed = np.zeros(first.shape, np.bool_)
    for row in range(rows):
        for col in range(cols):
            mixed |= weights[row::rows, col::cols] != first
    return mixed


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


def _totals(pixels: Array, row_factor: int, col_factor: int, wide: np.dtype[Any]) -> Array:
    """
    The sums of blocks that divide the array evenly.

    :param wide: the dtype of the sums.
    :returns: an array that is good until the thread asks for the next sums.
    """
    height, width, bands = pixels.shape
    # Row by row first: those additions run along contiguous memory.
    rows = scratch('rows', (height // row_factor, width, bands), wide)
    np.copyto(rows, pixels[::row_factor])
    for step in range(1, row_factor):
        rows += pixels[step::row_factor]
    first = 0
    if wide.kind == 'u' and not col_factor & (col_factor - 1):
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
    return total


def _means(pixels: Array, row_factor: int, col_factor: int,
           alpha: int | None = None) -> tuple[Array, bool]:
    """
    The means of blocks that divide the array evenly.

    :param alpha: the band of the weights, where there is one.
    :returns: plain means, and whether the weights within a block may differ.
    """
    count = row_factor * col_factor
    dtype = pixels.dtype
    if count == 1:
        return pixels.copy(), False
    wide = (np.dtype('uint16') if dtype.itemsize == 1 and count <= 256 else np.dtype('uint32')
            ) if dtype.kind == 'u' else dtype
    total = _totals(pixels, row_factor, col_factor, wide)
    uneven = alpha is not None and _is_uneven(pixels, total, count, alpha)
    return _divided(total, count, dtype), uneven


def _divided(total: Array, count: int, dtype: np.dtype[Any]) -> Array:
    """
    Sums divided by the number of what was added up.

    :param total: the sums; used up.
    """
    result: Array
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
    wide = total.dtype
    shift = wide.type(count.bit_length() - 1)
    odd = np.right_shift(total, shift, out=scratch('odd', total.shape, wide))
    odd &= wide.type(1)
    total += odd
    total += wide.type(count // 2 - 1)
    total >>= shift
    result = total.astype(dtype)
    return result


def with_alpha(color: Array, alpha: Array | None) -> Array:
    """
    Colour and alpha in one array.

    :param color: (rows, cols, color bands).
    :param alpha: (rows, cols), or None if all is opaque.
    :returns: (rows, cols, color bands + 1), a new array.
    """
    rows, cols, bands = color.shape
    result = np.empty((rows, cols, bands + 1), color.dtype)
    # Band by band: numpy is slow at inner loops over three samples.
    for band in range(bands):
        result[:, :, band] = color[:, :, band]
    result[:, :, bands] = opaque_alpha(color.dtype) if alpha is None else alpha
    return result


def halve(color: Array, alpha: Array | None, averaged: bool) -> tuple[Array, Array | None]:
    """
    Reduce an area to half its size, rounded up, as reading does.

    :param color: (rows, cols, color bands).
    :param alpha: (rows, cols), or None if all is opaque.
    :param averaged: whether to take the mean of the (up to) four pixels, their
        colours weighted with their alpha; else the first of them.
    """
    return reduce_with_alpha(color, alpha, 2, averaged)
