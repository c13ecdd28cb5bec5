"""
What the alpha of an image is used for: nothing, holes, or shades of transparency.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy.typing as npt

from .formats import opaque_alpha
from .geometry import TILE_SIZE, Rect, Size

Array = npt.NDArray[Any]

# Every pixel is opaque; every pixel is opaque or fully transparent; some are in between.
Transparency = Literal['none', 'holes', 'partial']

# Colour (rows, cols, color bands) and alpha (rows, cols); None for alpha that is opaque.
ColorAndAlpha = tuple[Array, Array | None]


def transparency_of(alpha: Array) -> Transparency:
    """The transparency of an alpha band."""
    see_through = alpha != opaque_alpha(alpha.dtype)
    if (see_through & (alpha != 0)).any():
        return 'partial'
    return 'holes' if see_through.any() else 'none'


def look_for_transparency(size: Size,
                          read: Callable[[Rect], ColorAndAlpha | None]) -> Transparency:
    """
    Read an image, until a pixel is neither opaque nor fully transparent.

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
