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
from large_image.exceptions import TileSourceError

from .errors import vips_errors
from .formats import COLOR_BANDS, FORMAT_OF_DTYPE, opaque_alpha
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

_GRAY = frozenset({'b-w', 'grey16'})
_RGB = frozenset({'rgb', 'srgb', 'rgb16', 'scrgb'})

# libvips' names for data without a meaning as colour; they are stored under
# the name that was given.
_DATA = frozenset({'multiband', 'histogram', 'matrix', 'fourier'})

@dataclass(frozen=True)
class Meaning:
    """
    What the bands of a tile or of a canvas are.

    :param kind: 'gray', 'rgb', 'multiband', or the libvips interpretation of
        any other colour space; tiles of different kinds do not mix, except
        gray with rgb.
    :param interpretation: the libvips interpretation to label the image with;
        None to choose it by the format.
    :param color_bands: how many bands are not alpha.
    :param labels: whether the values are labels, never to be averaged or
        compressed with loss.
    """

    kind: str
    interpretation: str | None
    color_bands: int
    labels: bool = False

    @property
    def has_alpha(self) -> bool:
        """Whether an image of this kind carries an alpha band."""
        return self.kind != 'multiband'

    @property
    def bands(self) -> int:
        """All bands, alpha included."""
        return self.color_bands + self.has_alpha

    def joined(self, other: Meaning) -> Meaning:
        """
        The meaning that takes in tiles of both.

        :param other: the meaning of a tile that comes later.
        :raises TileSourceError: if there is none.
        """
        if self is other:
            return self
        labels = self.labels or other.labels
        if {self.kind, other.kind} == {'gray', 'rgb'}:
            return replace(self if self.kind == 'rgb' else other, labels=labels)
        if self.kind != other.kind or self.color_bands != other.color_bands:
            msg = (f'A tile of {_described(other)} cannot be added to an image of '
                   f'{_described(self)}; give all tiles the same bands and interpretation.')
            raise TileSourceError(msg)
        return replace(
            self, interpretation=self.interpretation or other.interpretation, labels=labels)


def _described(meaning: Meaning) -> str:
    return (f'{meaning.color_bands} {meaning.kind} '
            f'band{"s" if meaning.color_bands != 1 else ""}')


_GRAY_MEANING, _RGB_MEANING = Meaning('gray', None, 1), Meaning('rgb', None, 3)


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


def smallest_integer(low: int, high: int) -> np.dtype[Any] | None:
    """
    The smallest integer dtype of libvips that holds a range of values.

    :param low: the smallest value.
    :param high: the largest value.
    :returns: the dtype, unsigned ones first, or None if there is none.
    """
    for name in ('uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32'):
        info = np.iinfo(name)
        if info.min <= low and high <= info.max:
            return np.dtype(name)
    return None


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


def meaning_of(interpretation: str, bands: int) -> Meaning:
    """
    What the bands of an image are that libvips has labelled.

    :param interpretation: libvips' name.
    :param bands: how many there are.
    """
    color = COLOR_BANDS.get(interpretation)
    if color is None or bands not in (color, color + 1):
        return Meaning('multiband', 'multiband', bands)
    kind = ('gray' if interpretation in _GRAY else 'rgb' if interpretation in _RGB
            else interpretation)
    return Meaning(kind, interpretation, color)


def _scaled_unit_alpha(alpha: Array) -> Array:
    """A float alpha band that stays within 0..1, brought to 0..255."""
    if alpha.dtype.kind != 'f':
        return alpha
    low, high = np.fmin.reduce(alpha, axis=None), np.fmax.reduce(alpha, axis=None)
    return alpha * alpha.dtype.type(255) if low >= 0 and high <= 1 else alpha


def joined_dtype(first: np.dtype[Any], second: np.dtype[Any],
                 first_range: tuple[Any, Any], second_range: tuple[Any, Any]) -> np.dtype[Any]:
    """
    The smallest dtype of libvips that holds the samples of two.

    :param first: a native dtype of libvips.
    :param second: another.
    :param first_range: the smallest and largest value of the samples of the
        first dtype; the values count only where the dtypes alone leave no
        format that holds both.
    :param second_range: those of the second.
    :raises TileSourceError: if no format holds all values exactly.
    """
    dtype = np.result_type(first, second)
    if dtype.kind == 'f':
        for side, (low, high) in ((first, first_range), (second, second_range)):
            if side.kind in 'iu' and side.itemsize == 4 and max(-int(low), int(high)) > 1 << 24:
                msg = (f'Tiles of {first} and of {second} do not mix: 32-bit floats do not hold '
                       f'{low} to {high} exactly.  Add all tiles as one type.')
                raise TileSourceError(msg)
        return np.dtype(np.float32)
    if dtype.itemsize <= 4:
        return dtype
    low = min(int(first_range[0]), int(second_range[0]))
    high = max(int(first_range[1]), int(second_range[1]))
    for name in ('uint32', 'int32'):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return np.dtype(name)
    msg = (f'Tiles of {first} and of {second} do not mix: no integer format of 32 bits holds '
           f'{low} to {high}.')
    raise TileSourceError(msg)


def converted(color: Array, dtype: np.dtype[Any], color_bands: int) -> Array:
    """
    Colour samples in a wider dtype, gray ones repeated where colour is wanted.

    :param color: (rows, cols, bands).
    :param dtype: the dtype to have.
    :param color_bands: the bands to have.
    """
    color = color.astype(dtype, copy=False)
    if color.shape[2] != color_bands:
        color = np.repeat(color, color_bands, axis=2)
    return color


def converted_alpha(alpha: Array, dtype: np.dtype[Any]) -> Array:
    """
    An alpha band in a wider dtype, brought to that dtype's opaque value.

    :param alpha: any shape.
    :param dtype: the dtype to have.
    """
    old, new = opaque_alpha(alpha.dtype), opaque_alpha(dtype)
    if alpha.dtype == dtype:
        return alpha
    if old == new:
        return alpha.astype(dtype)
    scaled = alpha.astype(np.float64) * new / old
    return (scaled if dtype.kind == 'f' else np.rint(scaled)).astype(dtype)


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
