"""
How the samples of a tile go over the samples of a block, and how samples are
reduced: pure array arithmetic.

No float arithmetic touches an opaque or a masked-out pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .formats import is_averaged, opaque_alpha

Array = npt.NDArray[Any]


def paste(color: Array, alpha: Array | None, tile_color: Array, tile_alpha: Array | None,
          mask: npt.NDArray[np.bool_] | None) -> None:
    """
    Put a tile over what is there, in place.

    :param color: what is there, (rows, cols, color bands).
    :param alpha: its alpha (rows, cols), or None if all of it is opaque; it
        then stays so.
    :param tile_color: of the same shape and dtype as ``color``.
    :param tile_alpha: (rows, cols), or None if all of the tile is opaque.
    :param mask: (rows, cols), False where nothing changes, or None.
    """
    if tile_alpha is not None:
        mask = _blend(color, alpha, tile_color, tile_alpha, mask)
    if mask is None:
        color[...] = tile_color
    else:
        np.copyto(color, tile_color, where=mask[:, :, np.newaxis])
    if alpha is not None:
        opaque = opaque_alpha(alpha.dtype) if tile_alpha is None else tile_alpha
        if mask is None:
            alpha[...] = opaque
        else:
            np.copyto(alpha, opaque, where=mask, casting='unsafe')


def _blend(color: Array, alpha: Array | None, tile_color: Array, tile_alpha: Array,
           mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
    """
    Composite the partly transparent pixels of a tile "over" what is there.

    Porter and Duff's *over* without premultiplication: with the coverages a of
    the tile and b of what is below, the result has a + b (1 - a), and its
    colour is the mean of both colours weighted with a and b (1 - a).

    :returns: (rows, cols), where the tile is to be stored as it is: where it
        is opaque and where there was nothing.
    """
    opaque = opaque_alpha(tile_alpha.dtype)
    replaces = tile_alpha >= opaque
    if alpha is not None:
        replaces |= ~(alpha > 0)
    blends = ~replaces & (tile_alpha > 0)
    if mask is not None:
        replaces &= mask
        blends &= mask
    if blends.any():
        over = tile_alpha[blends].astype(np.float64) / opaque
        below: Any = 1.0
        if alpha is not None:
            below = np.minimum(alpha[blends].astype(np.float64) / opaque, 1.0)
        below = below * (1 - over)
        total = over + below
        mixed = (tile_color[blends] * over[:, np.newaxis] +
                 color[blends] * np.broadcast_to(below, over.shape)[:, np.newaxis])
        color[blends] = rounded(mixed / total[:, np.newaxis], color.dtype)
        if alpha is not None:
            alpha[blends] = rounded(total * opaque, alpha.dtype)
    return replaces


def rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    """Floats as another dtype, rounded to the nearest where that is of integers."""
    return (values if dtype.kind == 'f' else np.rint(values)).astype(dtype)


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
    Reduce an area to half its size, rounded up.

    :param color: (rows, cols, color bands).
    :param alpha: (rows, cols), or None if all is opaque.
    :param averaged: whether to take the mean of the (up to) four pixels, their
        colours weighted with their alpha; else the first of them.
    """
    if not averaged:
        return color[::2, ::2], None if alpha is None else alpha[::2, ::2]
    if not is_averaged(color.dtype):
        msg = f'Samples of {color.dtype} are not averaged.'
        raise ValueError(msg)
    color = _even(color)
    reduced = _mean(color)
    if alpha is None:
        return reduced, None
    alpha = _even(alpha[:, :, np.newaxis])[:, :, 0]
    corners = _corners(alpha)
    reduced_alpha = corners[0].copy()
    # Where the four pixels are equally opaque, the plain mean is right already.
    mixed = np.zeros(reduced_alpha.shape, np.bool_)
    for corner in corners[1:]:
        mixed |= corner != corners[0]
    if mixed.any():
        weights = [np.maximum(corner[mixed].astype(np.float64), 0) for corner in corners]
        total = np.add.reduce(weights)
        weighted = np.add.reduce([
            corner[mixed] * weight[:, np.newaxis]
            for corner, weight in zip(_corners(color), weights, strict=True)])
        # Of four pixels that differ, at least one is not wholly transparent,
        # unless their alpha is negative or no number.
        visible = total > 0
        values = reduced[mixed]
        values[visible] = rounded(
            weighted[visible] / total[visible, np.newaxis], color.dtype)
        reduced[mixed] = values
        reduced_alpha[mixed] = rounded(total / 4, alpha.dtype)
    return reduced, reduced_alpha


def _corners(array: Array) -> list[Array]:
    """The first, second, third and fourth of each 2 x 2 pixels."""
    return [array[dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)]


def _even(array: Array) -> Array:
    """The array with its last row and column repeated where their number is odd."""
    odd_rows, odd_cols = array.shape[0] % 2, array.shape[1] % 2
    if odd_rows or odd_cols:
        array = np.pad(array, ((0, odd_rows), (0, odd_cols), (0, 0)), mode='edge')
    return array


def _mean(array: Array) -> Array:
    """The mean of each 2 x 2 pixels of an even array, halves rounded up."""
    result = np.empty((array.shape[0] // 2, array.shape[1] // 2, array.shape[2]), array.dtype)
    wide = {'u1': np.uint16, 'u2': np.uint32}.get(
        f'{array.dtype.kind}{array.dtype.itemsize}', array.dtype)
    rows = np.add(array[0::2], array[1::2], dtype=wide)
    # Band by band: numpy is slow at inner loops over three samples.
    for band in range(array.shape[2]):
        total = rows[:, 0::2, band] + rows[:, 1::2, band]
        if array.dtype.kind == 'u':
            total += 2
            total >>= 2
        else:
            total *= array.dtype.type(0.25)
        result[:, :, band] = total
    return result
