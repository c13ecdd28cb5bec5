"""
The tables of sample formats: numpy's dtypes against libvips' band formats.

==========  =========  ============  ==================
libvips     numpy      opaque alpha  lower levels
==========  =========  ============  ==================
uchar       uint8      255           averaged
char        int8       127           nearest
ushort      uint16     65535         averaged
short       int16      255           nearest
uint        uint32     255           nearest
int         int32      255           nearest
float       float32    255           averaged
double      float64    255           averaged
complex     complex64  255           averaged
dpcomplex   complex128 255           averaged
==========  =========  ============  ==================

Integers other than unsigned 8- and 16-bit ones are taken to be labels or
signed measurements, whose mean is not among the values that occur; their lower
levels hold picked samples, not averaged ones.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import TileSourceError

Array = npt.NDArray[Any]

DTYPE_OF_FORMAT: dict[str, np.dtype[Any]] = {
    'uchar': np.dtype('uint8'),
    'char': np.dtype('int8'),
    'ushort': np.dtype('uint16'),
    'short': np.dtype('int16'),
    'uint': np.dtype('uint32'),
    'int': np.dtype('int32'),
    'float': np.dtype('float32'),
    'double': np.dtype('float64'),
    'complex': np.dtype('complex64'),
    'dpcomplex': np.dtype('complex128'),
}

FORMAT_OF_DTYPE: dict[np.dtype[Any], str] = {
    dtype: name for name, dtype in DTYPE_OF_FORMAT.items()}

# The interpretations of libvips that say how many bands are colour; of all
# others every band is data.
COLOR_BANDS: dict[str, int] = {
    'b-w': 1, 'grey16': 1,
    'rgb': 3, 'srgb': 3, 'rgb16': 3, 'scrgb': 3,
    'xyz': 3, 'lab': 3, 'labs': 3, 'cmc': 3, 'lch': 3, 'hsv': 3, 'yxy': 3,
    'oklab': 3, 'oklch': 3,
    'cmyk': 4,
}


def format_of(dtype: npt.DTypeLike) -> str:
    """
    The libvips band format of a dtype.

    :param dtype: a dtype that libvips has, of any byte order.
    :raises KeyError: for any other.
    """
    return FORMAT_OF_DTYPE[np.dtype(dtype).newbyteorder('=')]


def alpha_band(interpretation: str, bands: int) -> int | None:
    """
    The alpha band of an image that libvips has labelled, counted from the end.

    :param interpretation: libvips' name.
    :param bands: how many there are.
    :returns: -1, or None if every band is colour or data.
    """
    color = COLOR_BANDS.get(interpretation)
    return None if color is None or bands != color + 1 else -1


def is_averaged(dtype: npt.DTypeLike) -> bool:
    """Whether samples of a dtype may be averaged in lower levels."""
    dtype = np.dtype(dtype)
    return dtype.kind in 'fc' or (dtype.kind == 'u' and dtype.itemsize <= 2)


@functools.cache
def opaque_alpha(dtype: np.dtype[Any]) -> int:
    """The value of an alpha band at which a pixel hides all that is below it."""
    if dtype == np.uint16:
        return 65535
    return 255 if dtype.kind in 'fc' else min(255, int(np.iinfo(dtype).max))

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
