"""
Reduces and orients arrays of pixels.

All lower levels are computed here: those of opened files, of the sink and of written
files.  A level is either *averaged* or *picked*:

averaged
    Each pixel is the mean of a block of pixels; blocks at the right and bottom edge
    have fewer.  Integers are rounded to nearest, halves to even, so that repeated
    reduction does not brighten an image.
averaged with alpha
    Colours are weighted with alpha, so that colours of transparent pixels do not
    show.  Alpha itself is a plain mean.  Where alpha is 0 or equal in a whole block,
    colours are plain means too.  Negative and NaN alpha counts as 0.
picked
    The first pixel of each block, with its alpha: for labels.

The sink halves repeatedly.  Reading (see ``reading.levels``) computes a half and a
quarter of a stored level in one step (with JPEG tiles also an eighth), and smaller
levels by halving.  Halves are identical bit for bit.  A quarter made in one step is
rounded once instead of twice: integers of equally opaque pixels differ by at most 1.
They may differ by more where alpha has few gray values, because of its rounding, and
in the last row and column, where two steps weight parts of different sizes equally.

Working memory of a thread: a few times ``_CHUNK_BYTES``, or one row of blocks if that
is larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .formats import is_averaged, opaque_alpha
from .geometry import Rect, Size

Array = npt.NDArray[Any]

# Pixels reduced at a time, about.  It bounds the working memory; reducing 2048 x 2048
# pixels at once takes 1.24 times as long.
_CHUNK_BYTES = 1 << 20
# The largest weight: products with it, and their sums, are finite in 64-bit floats.
_MAX_WEIGHT = 1e38
# Up to this share of blocks is weighted by gathering their pixels, which takes longer for each.
_FEW_BLOCKS = 0.125

# EXIF orientation -> how a stored array is oriented: (transpose, then reverse rows,
# then reverse columns).
_ORIENT = {
    1: (False, False, False), 2: (False, False, True), 3: (False, True, True),
    4: (False, True, False), 5: (True, False, False), 6: (True, False, True),
    7: (True, True, True), 8: (True, True, False),
}

# The slices of an area, those of its means, and the rows and columns of a block.
_Area = tuple[tuple[slice, slice], tuple[slice, slice], tuple[int, int]]


def orient(pixels: Array, orientation: int) -> Array:
    """
    Orient stored pixels for display.

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
    The rectangle of stored pixels that an oriented rectangle shows.

    :param rect: in oriented pixels.
    :param size: of the oriented image.
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
    Reduce pixels by a factor.

    :param pixels: an array (rows, cols, bands) that starts at the corner of a
        block of factor x factor pixels.
    :param factor: a power of two, at most 8.
    :param averaged: True for the mean of each block, False for its first pixel.
    :param alpha: the index of the alpha band, or None.
    :returns: an array of the same dtype, sizes rounded up.
    :raises ValueError: if samples of the dtype must not be averaged.
    """
    if not averaged:
        return pixels[::factor, ::factor]
    _check_averaged(pixels.dtype)
    return _block_means(pixels, factor, None if alpha is None else alpha % pixels.shape[2])


def reduce_with_alpha(color: Array, alpha: Array | None, factor: int,
                      averaged: bool) -> tuple[Array, Array | None]:
    """
    Reduce colour and alpha held in two arrays; same values as ``reduce_pixels``.

    :param color: (rows, cols, color bands).
    :param alpha: (rows, cols), or None if all pixels are opaque.
    :param factor: a power of two, at most 8.
    :param averaged: True for the mean of each block, False for its first pixel.
    :returns: colour and alpha of the same dtypes, sizes rounded up.
    :raises ValueError: if samples of the dtype must not be averaged.
    """
    if not averaged:
        return color[::factor, ::factor], None if alpha is None else alpha[::factor, ::factor]
    _check_averaged(color.dtype)
    if alpha is None:
        return _block_means(color, factor, None), None
    rows, cols, bands = color.shape
    size = -(-rows // factor), -(-cols // factor)
    reduced = np.empty((*size, bands), color.dtype)
    reduced_alpha = np.empty((*size, 1), alpha.dtype)
    for area, out, factors in _areas(color, factor):
        weights = alpha[area]
        reduced_alpha[out] = _means(weights[..., np.newaxis], *factors)
        reduced[out] = _means(color[area], *factors)
        _apply_weights(reduced[out], color[area], weights, factors, range(bands))
    return reduced, reduced_alpha[..., 0]


def with_alpha(color: Array, alpha: Array | None) -> Array:
    """
    Combine colour and alpha in a new array.

    :param color: (rows, cols, color bands).
    :param alpha: (rows, cols), or None if all pixels are opaque.
    :returns: (rows, cols, color bands + 1).
    """
    rows, cols, bands = color.shape
    result = np.empty((rows, cols, bands + 1), color.dtype)
    result[:, :, :bands] = color
    result[:, :, bands] = opaque_alpha(color.dtype) if alpha is None else alpha
    return result


def halve(color: Array, alpha: Array | None, averaged: bool) -> tuple[Array, Array | None]:
    """
    Halve an area, as ``reduce_with_alpha`` with a factor of 2.

    :param color: (rows, cols, color bands).
    :param alpha: (rows, cols), or None if all pixels are opaque.
    :param averaged: True for means weighted with alpha, False for the first pixel
        of each block.
    :returns: colour and alpha of the same dtypes, sizes rounded up.
    """
    return reduce_with_alpha(color, alpha, 2, averaged)


def _check_averaged(dtype: np.dtype[Any]) -> None:
    """Raise a ValueError for a dtype whose samples are picked."""
    if not is_averaged(dtype):
        msg = f'Samples of {dtype} cannot be averaged; pick them instead.'
        raise ValueError(msg)


def _block_means(pixels: Array, factor: int, alpha: int | None) -> Array:
    """The means of all blocks, weighted with the alpha band if there is one."""
    areas = list(_areas(pixels, factor))
    if len(areas) == 1:
        return _area_means(pixels, areas[0][2], alpha)
    rows, cols, bands = pixels.shape
    reduced = np.empty((-(-rows // factor), -(-cols // factor), bands), pixels.dtype)
    for area, out, factors in areas:
        reduced[out] = _area_means(pixels[area], factors, alpha)
    return reduced


def _area_means(pixels: Array, factors: tuple[int, int], alpha: int | None) -> Array:
    """The means of blocks of one size, weighted with the alpha band if there is one."""
    reduced = _means(pixels, *factors)
    if alpha is not None:
        colours = [band for band in range(pixels.shape[2]) if band != alpha]
        _apply_weights(reduced, pixels, pixels[..., alpha], factors, colours)
    return reduced


def _areas(pixels: Array, factor: int) -> Iterator[_Area]:
    """Split an array into areas of about ``_CHUNK_BYTES``, each with blocks of one size."""
    rows, cols = pixels.shape[:2]
    step = max(1, _CHUNK_BYTES // max(1, pixels[:1].nbytes) // factor) * factor
    for top, bottom, row_factor in _runs(rows, factor, step):
        for left, right, col_factor in _runs(cols, factor, cols):
            yield ((slice(top, bottom), slice(left, right)),
                   (slice(top // factor, -(-bottom // factor)),
                    slice(left // factor, -(-right // factor))),
                   (row_factor, col_factor))


def _runs(total: int, factor: int, step: int) -> Iterator[tuple[int, int, int]]:
    """Split one axis into runs (start, end, block size) of whole blocks and a partial block."""
    whole = total - total % factor
    for start in range(0, whole, max(1, step)):
        yield start, min(start + step, whole), factor
    if whole < total:
        yield whole, total, total - whole


def _apply_weights(reduced: Array, pixels: Array, weights: Array, factors: tuple[int, int],
                   bands: Sequence[int]) -> None:
    """
    Replace plain means of blocks by weighted means where they differ.

    Integer sums are exact, and so is the rounding: products of 64 pixels take 22 bits
    (8-bit samples) or 38 bits (16-bit samples), so a quotient that is not halfway
    between two integers is not halfway as a 64-bit float either.

    :param reduced: the plain means, (rows, cols, bands); changed in place.
    :param pixels: the pixels of the blocks.
    :param weights: the alpha of ``pixels``, (rows, cols).
    :param factors: the rows and columns of each block.
    :param bands: the bands to weight.
    """
    if not (weights != weights[0, 0]).any():
        return
    # Mostly the few blocks at the edges of holes, which are put side by side.
    unequal = _unequal(weights, factors)
    found = np.flatnonzero(unequal)
    if not found.size:
        return
    if found.size > unequal.size * _FEW_BLOCKS:
        weighted, where = _weighted_means(pixels, weights, factors, bands)
        where &= unequal
        for band, means in zip(bands, weighted, strict=True):
            np.copyto(reduced[..., band], means, where=where, casting='unsafe')
        return
    rows, cols = np.divmod(found, unequal.shape[1])
    down = rows * factors[0] + np.arange(factors[0])[:, np.newaxis]
    across = (cols * factors[1])[:, np.newaxis] + np.arange(factors[1])
    place = down[:, :, np.newaxis], across[np.newaxis]
    shape = factors[0], -1
    weighted, where = _weighted_means(
        pixels[place].reshape(*shape, pixels.shape[2]), weights[place].reshape(shape), factors,
        bands)
    chosen = where[0]
    for band, means in zip(bands, weighted, strict=True):
        reduced[rows[chosen], cols[chosen], band] = means[0, chosen]


def _weighted_means(pixels: Array, weights: Array, factors: tuple[int, int],
                    bands: Sequence[int]) -> tuple[list[Array], npt.NDArray[np.bool_]]:
    """
    The weighted means of all blocks.

    :param pixels: as for ``_apply_weights``, as are the others.
    :returns: for each band (rows, cols), rounded for integers; and where the weights are not
        all 0, (rows, cols).
    """
    dtype = pixels.dtype
    is_float = dtype.kind == 'f'
    wide = np.dtype('float64' if is_float else f'u{4 * dtype.itemsize}')
    weights = weights.astype(wide)
    if is_float:
        # Limits infinite weights, so that sums are finite.
        weights = np.where(weights > 0, np.minimum(weights, _MAX_WEIGHT), 0)
    total = _totals(weights[..., np.newaxis], *factors, wide)[..., 0].astype(np.float64)
    where = total > 0
    divisor = np.where(where, total, 1)
    found = []
    for band in bands:
        with np.errstate(over='ignore', invalid='ignore'):
            product = pixels[..., band].astype(wide)
            product *= weights
            if is_float:
                # A transparent colour may be NaN or infinite.
                product[weights == 0] = 0
            means = _totals(product[..., np.newaxis], *factors, wide)[..., 0] / divisor
            found.append(means if is_float else np.rint(means))
    return found, where


def _unequal(weights: Array, factors: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which blocks have unequal weights."""
    rows, cols = factors
    # Comparing neighbours in contiguous rows takes a quarter of the time of strided pixels.
    first = np.ascontiguousarray(weights[::rows])
    mixed = np.zeros(first.shape, np.bool_)
    np.not_equal(first[:, 1:], first[:, :-1], out=mixed[:, 1:])
    mixed[:, ::cols] = False
    for row in range(1, rows):
        mixed |= weights[row::rows] != first
    result: npt.NDArray[np.bool_]
    if cols in {2, 4, 8}:
        # The flags of a block as one integer.
        result = mixed.view(f'u{cols}') != 0
    else:
        result = np.logical_or.reduce(mixed.reshape(len(first), -1, cols), axis=2)
    return result


def _sums(rows: Array, count: int) -> Array:
    """
    Sum each pixel and the pixels to its right.

    :param rows: an array (rows, cols, bands).
    :param count: the number of pixels to sum, a power of two.
    :returns: an array of the same shape, undefined where a row ends earlier.
    """
    stride = rows.shape[2]
    for _doubling in range(count.bit_length() - 1):
        sums = np.empty(rows.shape, rows.dtype)
        flat, out = rows.reshape(-1), sums.reshape(-1)
        np.add(flat[:-stride], flat[stride:], out=out[:-stride])
        rows, stride = sums, 2 * stride
    return rows


def _totals(pixels: Array, row_factor: int, col_factor: int, wide: np.dtype[Any]) -> Array:
    """
    Sum blocks that divide the array evenly.

    :param wide: the dtype of the sums.
    :returns: the sums, a new array.
    """
    width, bands = pixels.shape[1:]
    # Rows first: those additions run along contiguous memory.
    rows = pixels[::row_factor].astype(wide)
    for step in range(1, row_factor):
        rows += pixels[step::row_factor]
    first = 0
    if wide.kind == 'u' and not col_factor & (col_factor - 1):
        # Sum the columns of whole blocks from every column on.  Most sums are not
        # used, but contiguous additions are faster than strided ones: halving takes 1.35
        # times as long without, adding a tile and looking 1.13 times.
        rows, first = _sums(rows, col_factor), col_factor - 1
    total = np.empty((rows.shape[0], width // col_factor, bands), wide)
    # Per band, so that numpy's inner loop runs along the columns: halving takes 2.2 times
    # as long without.
    for band in range(bands):
        part = total[..., band]
        np.copyto(part, rows[:, ::col_factor, band])
        for step in range(first + 1, col_factor):
            part += rows[:, step::col_factor, band]
    return total


def _means(pixels: Array, row_factor: int, col_factor: int) -> Array:
    """Average blocks that divide the array evenly, without weights."""
    count = row_factor * col_factor
    dtype = pixels.dtype
    if count == 1:
        return np.array(pixels)
    wide = (np.dtype('uint16') if dtype.itemsize == 1 and count <= 256 else np.dtype('uint32')
            ) if dtype.kind == 'u' else dtype
    return _divided(_totals(pixels, row_factor, col_factor, wide), count, dtype)


def _divided(total: Array, count: int, dtype: np.dtype[Any]) -> Array:
    """
    Divide sums by a count, integers rounded to nearest, halves to even.

    :param total: the sums; overwritten.
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
    # The same for a power of two by shifting: adding just less than a half, plus 1
    # if the quotient is odd, rounds halves to even.  Halving takes 1.35 times as long
    # with a division.
    wide = total.dtype
    shift = wide.type(count.bit_length() - 1)
    odd = np.right_shift(total, shift)
    odd &= wide.type(1)
    total += odd
    total += wide.type(count // 2 - 1)
    total >>= shift
    result = total.astype(dtype)
    return result
