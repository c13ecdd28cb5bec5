"""
Compute lower levels from arrays of pixels, and apply orientations.

All lower levels are computed here, for opened files, sinks and written files.  A level is
*averaged* or *picked*:

averaged Each pixel is the mean of a block; blocks at the right and bottom edge may be
    smaller.  Integers are rounded to nearest, halves to even, so repeated reduction does
    not brighten an image. averaged with alpha Colours are weighted with alpha, so the
    colours of transparent pixels have no effect.  Alpha is a plain mean.  Where alpha is 0
    or equal in a whole block, colours are plain means, too.  Negative and NaN alpha counts
    as 0. picked The first pixel of each block, with its alpha: for labels.

The sink halves repeatedly.  Reading (``reading.levels``) computes a half and a quarter of a
stored level in one step (with JPEG tiles also an eighth), and smaller levels by halving.
Halves are identical.  A quarter computed in one step is rounded once instead of twice:
integers of equally opaque pixels differ by at most 1.  The difference may be larger where
alpha has few gray values, because alpha is rounded, and in the last row and column, where
two steps give parts of different sizes the same weight.

Working memory of a thread: a few times ``_CHUNK_BYTES``, or one row of blocks if that
is larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .formats import is_averaged, opaque_alpha
from .geometry import Rect, Size
from .means import block_means, block_means_apart
from .transparency import interleaved, split_alpha

Array = npt.NDArray[Any]

# The approximate bytes reduced at a time, which bound the working memory.  Measured:
# reducing 2048 x 2048 pixels at once takes 1.24 times as long.
_CHUNK_BYTES = 1 << 20

# By EXIF orientation: (transpose, then reverse rows, then reverse columns).
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
    The rectangle of stored pixels for an oriented rectangle.

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
    Reduce colour and alpha in two arrays, with the same values as ``reduce_pixels``.

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
    pixels = interleaved(color, alpha)
    if pixels is not None:
        return split_alpha(_block_means(pixels, factor, color.shape[2]), color.shape[2])
    rows, cols, bands = color.shape
    size = -(-rows // factor), -(-cols // factor)
    reduced = np.empty((*size, bands), color.dtype)
    reduced_alpha = np.empty(size, alpha.dtype)
    for area, out, factors in _areas(color, factor):
        reduced[out], reduced_alpha[out] = block_means_apart(color[area], alpha[area], factors)
    return reduced, reduced_alpha


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
        return block_means(pixels, areas[0][2], alpha)
    rows, cols, bands = pixels.shape
    reduced = np.empty((-(-rows // factor), -(-cols // factor), bands), pixels.dtype)
    for area, out, factors in areas:
        reduced[out] = block_means(pixels[area], factors, alpha)
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
