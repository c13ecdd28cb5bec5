"""
Compute means of blocks of pixels, plain or weighted with alpha; used by ``reduce``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# The largest weight whose products and sums stay finite in 64-bit floats.
_MAX_WEIGHT = 1e38
# If at most this fraction of blocks has to be weighted, their pixels are gathered, which
# takes longer per block.
_FEW_BLOCKS = 0.125


def block_means(pixels: Array, factors: tuple[int, int], alpha: int | None) -> Array:
    """
    The means of blocks that divide an array evenly.

    :param pixels: (rows, cols, bands).
    :param factors: the rows and columns of a block.
    :param alpha: the index of the alpha band, by which colours are weighted; or None.
    :returns: (rows, cols, bands).
    """
    reduced, totals = _means(pixels, *factors, keep=alpha)
    if alpha is not None:
        colors = [band for band in range(pixels.shape[2]) if band != alpha]
        _apply_weights(reduced, pixels, pixels[..., alpha], factors, colors,
                       _may_be_mixed(totals, factors, pixels.dtype))
    return reduced


def block_means_apart(color: Array, alpha: Array, factors: tuple[int, int],
                      ) -> tuple[Array, Array]:
    """
    The same for colour (rows, cols, bands) and alpha (rows, cols) in two arrays.
    """
    reduced, _ = _means(color, *factors)
    reduced_alpha, totals = _means(alpha[..., np.newaxis], *factors, keep=0)
    _apply_weights(reduced, color, alpha, factors, range(color.shape[2]),
                   _may_be_mixed(totals, factors, alpha.dtype))
    return reduced, reduced_alpha[..., 0]


# Weights


def _may_be_mixed(totals: Array | None, factors: tuple[int, int],
                  dtype: np.dtype[Any]) -> npt.NDArray[np.bool_] | None:
    """
    Find blocks that may be neither fully transparent nor fully opaque, (rows, cols).

    :param totals: the sums of the alpha of the blocks.
    :returns: None if the sums do not show it.
    """
    if totals is None:
        return None
    largest = factors[0] * factors[1] * np.iinfo(dtype).max
    result: npt.NDArray[np.bool_] = (totals != 0) & (totals != largest)
    return result


def _apply_weights(reduced: Array, pixels: Array, weights: Array, factors: tuple[int, int],
                   bands: Sequence[int], mixed: npt.NDArray[np.bool_] | None) -> None:
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
    :param mixed: all blocks of unequal weights, and perhaps others; None if unknown.
    """
    if mixed is None:
        if not (weights != weights[0, 0]).any():
            return
        mixed = _unequal(weights, factors)
    # Usually only the few blocks at the edges of holes; gather them.
    found = np.flatnonzero(mixed)
    if not found.size:
        return
    if found.size > mixed.size * _FEW_BLOCKS:
        weighted, where = _weighted_means(pixels, weights, factors, bands)
        where &= _unequal(weights, factors)
        for band, means in zip(bands, weighted, strict=True):
            np.copyto(reduced[..., band], means, where=where, casting='unsafe')
        return
    _weigh_few(reduced, pixels, weights, factors, bands, found)


def _weigh_few(reduced: Array, pixels: Array, weights: Array, factors: tuple[int, int],
               bands: Sequence[int], found: Array) -> None:
    """
    Replace the means of some blocks.

    :param reduced: as for ``_apply_weights``, as are the others.
    :param found: the numbers of the blocks, row by row.
    """
    rows, cols = np.divmod(found, reduced.shape[1])
    down = factors[0] * rows + np.arange(factors[0]).repeat(factors[1])[:, np.newaxis]
    across = factors[1] * cols + np.tile(np.arange(factors[1]), factors[0])[:, np.newaxis]
    # (pixels of a block, blocks, bands): sums over the first axis are fast.
    shares, samples = _wide_weights(weights[down, across]), _taken(pixels, (down, across))
    with np.errstate(over='ignore', invalid='ignore', divide='ignore'):
        products = samples * shares[..., np.newaxis]
        if samples.dtype.kind == 'f':
            products[shares == 0] = 0
        total = shares.sum(axis=0)
        means = products.sum(axis=0) / total[:, np.newaxis]
    if samples.dtype.kind != 'f':
        np.rint(means, out=means)
    chosen = (shares != shares[0]).any(axis=0) & (total > 0)
    if not chosen.all():
        rows, cols, means = rows[chosen], cols[chosen], means[chosen]
    for band in bands:
        reduced[rows, cols, band] = means[:, band]


def _taken(pixels: Array, place: tuple[Array, Array]) -> Array:
    """The pixels at some rows and columns."""
    size = pixels.shape[2] * pixels.itemsize
    if size in {2, 4, 8} and pixels.flags.c_contiguous:
        # Copying a pixel as one integer takes a third of the time.
        found = pixels.view(f'u{size}')[..., 0][place]
        return found.view(pixels.dtype).reshape(*found.shape, pixels.shape[2])
    result: Array = pixels[place]
    return result


def _wide_weights(weights: Array) -> Array:
    """Weights in a dtype that holds the sums of their products with samples."""
    if weights.dtype.kind != 'f':
        return weights.astype(f'u{4 * weights.itemsize}')
    # Limits infinite weights, so that sums are finite.
    weights = weights.astype(np.float64)
    return np.where(weights > 0, np.minimum(weights, _MAX_WEIGHT), 0)


def _weighted_means(pixels: Array, weights: Array, factors: tuple[int, int],
                    bands: Sequence[int]) -> tuple[list[Array], npt.NDArray[np.bool_]]:
    """
    The weighted means of all blocks.

    :param pixels: as for ``_apply_weights``, as are the others.
    :returns: for each band (rows, cols), rounded for integers; and where the weights are not
        all 0, (rows, cols).
    """
    is_float = pixels.dtype.kind == 'f'
    weights = _wide_weights(weights)
    wide = weights.dtype
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


# Sums


def _means(pixels: Array, row_factor: int, col_factor: int, *,
           keep: int | None = None) -> tuple[Array, Array | None]:
    """
    Average blocks, without weights.

    :param keep: the band whose sums to return, too; or None.
    :returns: the means, and the sums (rows, cols) of a band of small unsigned integers.
    """
    count = row_factor * col_factor
    dtype = pixels.dtype
    if count == 1:
        return np.array(pixels), None
    wide = (np.dtype('uint16') if dtype.itemsize == 1 and count <= 256 else np.dtype('uint32')
            ) if dtype.kind == 'u' else dtype
    total = _totals(pixels, row_factor, col_factor, wide)
    kept = (None if keep is None or dtype.kind != 'u' or dtype.itemsize > 2 else
            total[..., keep].copy())
    return _divided(total, count, dtype), kept


def _totals(pixels: Array, row_factor: int, col_factor: int, wide: np.dtype[Any]) -> Array:
    """
    Sum blocks.

    :param wide: the dtype of the sums.
    :returns: the sums, a new array.
    """
    with np.errstate(over='ignore', invalid='ignore'):
        # Sums of floats may be infinite.
        return _summed(pixels, row_factor, col_factor, wide)


def _summed(pixels: Array, row_factor: int, col_factor: int, wide: np.dtype[Any]) -> Array:
    """As ``_totals``; numpy may warn."""
    width, bands = pixels.shape[1:]
    # Add rows first, along contiguous memory.
    rows = pixels[::row_factor].astype(wide, order='C')
    for step in range(1, row_factor):
        rows += pixels[step::row_factor]
    size = bands * wide.itemsize
    if wide.kind == 'u' and bands > 1 and size in {4, 8}:
        # The sums of a pixel as one integer: no sum is large enough to carry into the next.
        whole = rows.view(f'u{size}')[..., 0]
        total = whole[:, ::col_factor] + whole[:, 1::col_factor] if col_factor > 1 else whole
        for step in range(2, col_factor):
            total += whole[:, step::col_factor]
        return total.view(wide).reshape(*total.shape, bands)
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
