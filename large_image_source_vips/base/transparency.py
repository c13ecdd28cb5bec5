"""
Determine how an image uses alpha: not at all, for holes, or for partial transparency.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .formats import opaque_alpha
from .geometry import TILE_SIZE, Rect, Size

Array = npt.NDArray[Any]

# All pixels opaque; all opaque or fully transparent; some partially transparent.
Transparency = Literal['none', 'holes', 'partial']

# Colour (rows, cols, color bands) and alpha (rows, cols); None if all pixels are opaque.
ColorAndAlpha = tuple[Array, Array | None]


def transparency_of(alpha: Array) -> Transparency:
    """The transparency of an alpha band."""
    see_through = alpha != opaque_alpha(alpha.dtype)
    if (see_through & (alpha != 0)).any():
        return 'partial'
    return 'holes' if see_through.any() else 'none'


def find_transparency(size: Size,
                          read: Callable[[Rect], ColorAndAlpha | None]) -> Transparency:
    """
    Find the transparency of an image; stop at the first partially transparent pixel.

    :param size: of the image.
    :param read: returns the pixels of a rectangle; None where all are transparent.
    """
    found: Transparency = 'none'
    whole = Rect(0, 0, *size)
    for top in range(0, size.height, TILE_SIZE):
        for left in range(0, size.width, TILE_SIZE):
            pixels = read(Rect(left, top, TILE_SIZE, TILE_SIZE).clipped(whole))
            here: Transparency = ('holes' if pixels is None else 'none' if pixels[1] is None else
                                  transparency_of(pixels[1]))
            if here == 'partial':
                return here
            found = 'holes' if here == 'holes' else found
    return found


def split_alpha(pixels: Array, color_bands: int) -> ColorAndAlpha:
    """
    Split off the alpha band.

    :param pixels: (rows, cols, bands); alpha is the last band if there are more than
        ``color_bands``.
    :param color_bands: the number of bands without alpha.
    :returns: views of the pixels.
    """
    if pixels.shape[2] == color_bands:
        return pixels, None
    return pixels[:, :, :color_bands], pixels[:, :, color_bands]


def interleaved(color: Array, alpha: Array | None) -> Array | None:
    """
    The pixels that colour and alpha are views of.

    :param color: (rows, cols, color bands).
    :param alpha: (rows, cols), or None.
    :returns: (rows, cols, color bands + 1), whose first bands are the colour and whose last
        one is alpha; None if there is no such array.
    """
    pixels = color.base
    if alpha is None or pixels is None or pixels is not alpha.base:
        return None
    bands = color.shape[2]
    if (pixels.shape != (*alpha.shape, bands + 1) or {pixels.dtype} != {color.dtype, alpha.dtype} or
            color.strides != pixels.strides or alpha.strides != pixels.strides[:2] or
            color.ctypes.data != pixels.ctypes.data or
            alpha.ctypes.data != pixels.ctypes.data + bands * pixels.strides[2]):
        return None
    return pixels


def copy_bands(target: Array, source: Array) -> None:
    """Copy (rows, cols, bands) to another array, quickly also if bands are missing in between."""
    if source.strides[1] == source.shape[2] * source.itemsize == target.strides[1]:
        target[...] = source
        return
    # Per band: a quarter of the time of all bands at once.
    for band in range(source.shape[2]):
        target[..., band] = source[..., band]


def contiguous(pixels: Array, dtype: npt.DTypeLike) -> Array:
    """
    Pixels as a C-contiguous array: the same array if it is one, else a copy.

    numpy's own function takes four times as long where alpha is left out.

    :param pixels: (rows, cols, bands).
    :param dtype: of the result.
    """
    if pixels.flags.c_contiguous and pixels.dtype == dtype:
        return pixels
    copied = np.empty(pixels.shape, dtype)
    copy_bands(copied, pixels)
    return copied


def whole_pixels(pixels: Array) -> Array:
    """
    8-bit pixels as one little-endian integer each, whose highest byte is the last band.

    :param pixels: (rows, cols, bands) of uint8; 1, 2 or 4 bands, together in memory.
    :returns: a view, (rows, cols).
    """
    view: Array = pixels.view(f'<u{pixels.shape[2]}')[..., 0]
    return view


def has_shades(pixels: Array) -> bool:
    """
    Whether an alpha is neither 0 nor 255.

    :param pixels: (rows, cols, bands) as for ``whole_pixels``, alpha last.
    """
    whole = whole_pixels(pixels)
    one = whole.dtype.type(1 << 8 * (pixels.shape[2] - 1))
    # Alpha 255 becomes 0, and 0 becomes 1: a fifth of the time of comparing a band.
    return bool((whole + one >= whole.dtype.type(2) * one).any())
