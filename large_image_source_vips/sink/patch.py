"""
Any kind of tile -> an array of exact samples that says what its bands mean.

What a tile's bands are follows from its band count, unless an interpretation
is given:

==============  ==========  =====  =======  ==========================
bands           kind        color  alpha    default interpretation
==============  ==========  =====  =======  ==========================
1               gray        1      no       b-w, grey16 for 16 bits
2               gray        1      yes      b-w, grey16 for 16 bits
3               rgb         3      no       srgb, rgb16 for 16 bits
4               rgb         3      yes      srgb, rgb16 for 16 bits
5 and more      multiband   all    no       multiband
==============  ==========  =====  =======  ==========================
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError, vips_errors
from ..base.formats import (
    _DATA,
    _GRAY,
    _GRAY_MEANING,
    _RGB,
    _RGB_MEANING,
    COLOR_BANDS,
    FORMAT_OF_DTYPE,
    Meaning,
    opaque_alpha,
    smallest_integer,
)
from .tiles import as_array

Array = npt.NDArray[Any]

PIXELMAP, LABELS = 'pixelmap', 'labels'

# large_image's short names of interpretations: kind, and whether there must be
# an alpha band (None: there may be one).
_SHORT_NAMES: dict[str, tuple[str, bool | None]] = {
    'L': ('b-w', False),
    'LA': ('b-w', True),
    'RGB': ('srgb', None),
    'RGBA': ('srgb', True),
}


@dataclass(frozen=True)
class Patch:
    """
    A tile in the form in which a canvas takes it.

    :param color: (rows, cols, color bands), of a native libvips dtype.
    :param alpha: (rows, cols) of the same dtype, or None if all is opaque.
    :param meaning: what the bands are.
    :param given: the tile as it was given, (rows, cols, bands).
    """

    color: Array
    alpha: Array | None
    meaning: Meaning
    given: Array

    @property
    def stores_given(self) -> bool:
        """Whether the samples are the values as they were given; those of a pixelmap are not."""
        return bool(self.given.shape[2] >= self.color.shape[2])

    @property
    def extremes(self) -> tuple[int, int]:
        """The smallest and largest sample of integers, or bounds; 0, 0 for floats."""
        if self.color.dtype.kind == 'f':
            return 0, 0
        if self.color.dtype == np.uint8:
            # A pixelmap's ranges are those of its labels.
            return 0, 255
        return int(self.given.min()), int(self.given.max())


def make_patch(tile: Any, interpretation: Any = None, expected: Meaning | None = None) -> Patch:
    """
    Convert a tile.

    :param tile: a numpy array (rows, cols) or (rows, cols, bands), a PIL image,
        a ``pyvips.Image`` or the bytes of an encoded image.  It is neither
        changed nor kept.
    :param interpretation: None, 'labels', 'pixelmap', 'L', 'LA', 'RGB', 'RGBA' or
        a ``pyvips.enums.Interpretation``.
    :param expected: what the canvas holds already; a tile without an
        interpretation is taken to be of that kind if its bands allow it.
    :raises TileSourceError: if the tile is none of these or cannot be held.
    """
    array, own_interpretation = as_array(
        tile, interpretation, None if expected is None else expected.bands)
    # Numpy's own types for masks and for label images: what is stored is
    # smaller, but they stay what they are.
    labels = array.dtype.kind == 'b' or (array.dtype.kind in 'iu' and array.dtype.itemsize == 8)
    if isinstance(interpretation, str) and interpretation == LABELS:
        if array.dtype.kind not in 'biu':
            msg = (f"A tile with the interpretation 'labels' must hold integers, not "
                   f'{array.dtype}; convert it first.')
            raise TileSourceError(msg)
        labels, interpretation = True, None
    array = _native(array)
    given = array
    if isinstance(interpretation, str) and interpretation == PIXELMAP:
        color = _pixelmap(array)
        return Patch(color, None, Meaning('rgb', None, 3, labels=True), given)
    array = _narrowed(array)
    meaning, alpha_given = _meaning(
        array, interpretation if interpretation is not None else own_interpretation, expected)
    alpha = None
    if alpha_given:
        alpha = _scaled_unit_alpha(array[:, :, -1])
        array = array[:, :, :-1]
        if bool((alpha == opaque_alpha(alpha.dtype)).all()):
            alpha = None
    if labels:
        meaning = replace(meaning, labels=True)
    return Patch(array, alpha, meaning, given)


def _native(array: Array) -> Array:
    """
    The same values in a dtype that libvips has, or in 64-bit integers.

    :raises TileSourceError: for complex and other dtypes.
    """
    dtype = array.dtype
    if dtype in FORMAT_OF_DTYPE and dtype.isnative and dtype.kind in 'iuf' and dtype != np.float64:
        return array
    if dtype.kind == 'b':
        return array.view(np.uint8)
    if dtype.kind in 'iu':
        return array.astype(dtype.newbyteorder('='))
    if dtype.kind == 'f':
        try:
            with np.errstate(over='raise'):
                return array.astype(np.float32)
        except FloatingPointError as exc:
            msg = f'A tile of {dtype} has values beyond the range of 32-bit floats.'
            raise TileSourceError(msg) from exc
    msg = (f'Samples of {dtype} cannot be stored; convert the tile to integers or floats first'
           f'{" (for complex values, to two bands)" if dtype.kind == "c" else ""}.')
    raise TileSourceError(msg)


def _narrowed(array: Array) -> Array:
    """64-bit integers in the smallest format that holds them; else the array."""
    if array.dtype not in (np.int64, np.uint64):
        return array
    smallest, largest = int(array.min()), int(array.max())
    dtype = smallest_integer(smallest, largest)
    if dtype is None:
        msg = (f'A tile of {array.dtype} has values from {smallest} to {largest}, which no '
               f'integer format of 32 bits or less holds.')
        raise TileSourceError(msg)
    return array.astype(dtype)


def _pixelmap(array: Array) -> Array:
    """
    Labels as colours, as large_image's pixelmap annotations take them.

    :param array: (rows, cols, 1) of integers.
    :returns: (rows, cols, 3) uint8: r = v % 256, g = v // 256 % 256,
        b = v // 65536 % 256.
    """
    if array.shape[2] != 1 or array.dtype.kind not in 'iu':
        msg = (f"A tile with the interpretation 'pixelmap' must have 1 band of integers, not "
               f'{array.shape[2]} of {array.dtype}.')
        raise TileSourceError(msg)
    # Little-endian bytes are the digits to the base 256; two's complement
    # gives the same digits that floor division gives for negative values.
    wide = array.astype('<i8' if array.dtype.kind == 'i' else '<u8', order='C')
    return wide.view(np.uint8)[:, :, :3]


def _meaning(array: Array, interpretation: Any, expected: Meaning | None) -> tuple[Meaning, bool]:
    """What the bands of an array are, and whether the last of them is alpha."""
    bands = array.shape[2]
    if interpretation is None:
        if expected is not None and expected.kind not in ('gray', 'rgb') and (
                bands - expected.color_bands in (0, int(expected.has_alpha))):
            return replace(expected, labels=False), bands > expected.color_bands
        if bands <= 4:
            return (_GRAY_MEANING if bands <= 2 else _RGB_MEANING), bands in (2, 4)
        interpretation = 'multiband'
    name, must_have_alpha = _SHORT_NAMES.get(str(interpretation), (interpretation, None))
    if not isinstance(name, str):
        name = repr(name)
    if name in COLOR_BANDS:
        color = COLOR_BANDS[name]
        kind = 'gray' if name in _GRAY else 'rgb' if name in _RGB else name
    elif name in _DATA:
        kind, color = 'multiband', bands
    else:
        msg = (f'{interpretation!r} is no interpretation; use a pyvips.enums.Interpretation, '
               f"'L', 'LA', 'RGB', 'RGBA', 'labels' or 'pixelmap'.")
        raise TileSourceError(msg)
    alpha_given = bands == color + 1
    if bands != color + alpha_given or (
            must_have_alpha is not None and must_have_alpha != alpha_given):
        msg = f'A tile of {bands} bands cannot have the interpretation {interpretation!r}.'
        raise TileSourceError(msg)
    return Meaning(kind, name, color), alpha_given


def _scaled_unit_alpha(alpha: Array) -> Array:
    """A float alpha band that stays within 0..1, brought to 0..255."""
    if alpha.dtype.kind != 'f':
        return alpha
    low, high = np.fmin.reduce(alpha, axis=None), np.fmax.reduce(alpha, axis=None)
    return alpha * alpha.dtype.type(255) if low >= 0 and high <= 1 else alpha


def as_mask(mask: Any, shape: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """
    A mask as booleans, True where a tile is to be pasted.

    :param mask: None, or what numpy can make an array of booleans of: (rows,
        cols), or (rows, cols, bands), which is True where any band is.  It is
        not changed; what is returned may be its memory, to be read only.
    :param shape: the (rows, cols) of the tile.
    :raises TileSourceError: if it has another shape or is no array.
    """
    if mask is None:
        return None
    try:
        # Of a pyvips image, a PIL image or a tensor, this computes the pixels.
        with vips_errors('The mask cannot be computed'):
            array: Array = np.asarray(mask)
        given = array.shape
        if array.ndim == 3:
            array = np.any(array, axis=2)
        result = array.astype(np.bool_, copy=False)
    except (TypeError, ValueError, RuntimeError, OSError, SyntaxError) as exc:
        msg = f'The mask cannot be made an array of booleans: {exc}'
        raise TileSourceError(msg) from exc
    if result.shape != shape:
        msg = (f'The mask has the shape {given}, the tile {shape}: a mask must have the rows and '
               f'columns of its tile, as (rows, cols) or (rows, cols, bands).')
        raise TileSourceError(msg)
    return result
