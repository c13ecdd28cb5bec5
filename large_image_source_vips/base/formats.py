"""
Sample formats (numpy dtypes, libvips band formats) and the meaning of bands.

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

Integers other than unsigned 8- and 16-bit ones are treated as labels or measurements, which
are not averaged: a mean may be a value that does not occur.  Their lower levels have the
first sample of each block.
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

# The number of colour bands by libvips interpretation; in all others every band is data.
COLOR_BANDS: dict[str, int] = {
    'b-w': 1, 'grey16': 1,
    'rgb': 3, 'srgb': 3, 'rgb16': 3, 'scrgb': 3,
    'xyz': 3, 'lab': 3, 'labs': 3, 'cmc': 3, 'lch': 3, 'hsv': 3, 'yxy': 3,
    'oklab': 3, 'oklch': 3,
    'cmyk': 4,
}
_GRAY_INTERPRETATIONS = frozenset({'b-w', 'grey16'})
_RGB_INTERPRETATIONS = frozenset({'rgb', 'srgb', 'rgb16', 'scrgb'})
# Bands that are not colours.
DATA_INTERPRETATIONS = frozenset({'multiband', 'histogram', 'matrix', 'fourier'})


@dataclass(frozen=True)
class Meaning:
    """
    The meaning of the bands of a tile or of an image.

    :param kind: 'gray', 'rgb', 'multiband', or the libvips interpretation of
        another colour space; tiles of different kinds cannot be combined, except
        gray with rgb.
    :param interpretation: the libvips interpretation to set on the image; None
        to choose it by the format.
    :param color_bands: the number of bands without alpha.
    :param labels: whether the values are labels, which are never averaged or
        compressed with loss.
    """

    kind: str
    interpretation: str | None
    color_bands: int
    labels: bool = False

    @property
    def has_alpha(self) -> bool:
        """Whether an image of this kind has an alpha band."""
        return self.kind != 'multiband'

    @property
    def bands(self) -> int:
        """The number of bands with alpha."""
        return self.color_bands + self.has_alpha

    def joined(self, other: Meaning) -> Meaning:
        """
        The meaning of an image with tiles of both.

        :param other: the meaning of a later tile.
        :raises TileSourceError: if they cannot be combined.
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


GRAY, RGB = Meaning('gray', None, 1), Meaning('rgb', None, 3)


def format_of(dtype: npt.DTypeLike) -> str:
    """
    The libvips band format of a dtype.

    :param dtype: a dtype of the table, of any byte order.
    :raises KeyError: if libvips has no such format.
    """
    return FORMAT_OF_DTYPE[np.dtype(dtype).newbyteorder('=')]


def is_wide_integer(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is an integer of 64 bits, for which libvips has no format."""
    return dtype.kind in 'iu' and dtype.itemsize == 8


def alpha_band(interpretation: str, bands: int) -> int | None:
    """
    The index of the alpha band of a libvips image, counted from the end.

    :param interpretation: the image's interpretation.
    :param bands: its number of bands.
    :returns: -1, or None if there is no alpha.
    """
    color = COLOR_BANDS.get(interpretation)
    return None if color is None or bands != color + 1 else -1


def is_averaged(dtype: npt.DTypeLike) -> bool:
    """Whether lower levels average samples of a dtype."""
    dtype = np.dtype(dtype)
    return dtype.kind in 'fc' or (dtype.kind == 'u' and dtype.itemsize <= 2)


@functools.cache
def opaque_alpha(dtype: np.dtype[Any]) -> int:
    """The alpha value of a fully opaque pixel."""
    if dtype == np.uint16:
        return 65535
    return 255 if dtype.kind in 'fc' else min(255, int(np.iinfo(dtype).max))


def smallest_integer(low: int, high: int) -> np.dtype[Any] | None:
    """
    The smallest integer dtype of libvips that holds a range of values.

    :param low: the smallest value.
    :param high: the largest value.
    :returns: the dtype, unsigned if possible, or None if none is large enough.
    """
    for name in ('uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32'):
        info = np.iinfo(name)
        if info.min <= low and high <= info.max:
            return np.dtype(name)
    return None


def meaning_of(interpretation: str, bands: int) -> Meaning:
    """
    The meaning of the bands of a libvips image.

    :param interpretation: the image's interpretation.
    :param bands: its number of bands.
    """
    color = COLOR_BANDS.get(interpretation)
    if color is None or bands not in (color, color + 1):
        return Meaning('multiband', 'multiband', bands)
    return Meaning(color_kind(interpretation), interpretation, color)


def color_kind(interpretation: str) -> str:
    """The ``Meaning.kind`` of an interpretation that has colours."""
    return ('gray' if interpretation in _GRAY_INTERPRETATIONS else
            'rgb' if interpretation in _RGB_INTERPRETATIONS else interpretation)


def joined_dtype(first: np.dtype[Any], second: np.dtype[Any],
                 first_range: tuple[Any, Any], second_range: tuple[Any, Any]) -> np.dtype[Any]:
    """
    The smallest dtype of libvips that holds the samples of two dtypes.

    :param first: a native dtype of libvips.
    :param second: another one.
    :param first_range: the smallest and largest sample of the first dtype; used
        only if no format holds all values of both dtypes.
    :param second_range: the same for the second dtype.
    :raises TileSourceError: if no format holds all samples exactly.
    """
    dtype = np.result_type(first, second)
    if np.float64 in (first, second):
        return dtype
    if dtype.kind == 'f':
        for side, (low, high) in ((first, first_range), (second, second_range)):
            if side.kind in 'iu' and side.itemsize == 4 and max(-int(low), int(high)) > 1 << 24:
                msg = (f'Tiles of {first} and of {second} do not mix: 32-bit floats do not hold '
                       f'{low} to {high} exactly.  Add the floats as float64, which does.')
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
    Convert colour samples to a wider dtype, and gray to RGB where needed.

    :param color: (rows, cols, bands).
    :param dtype: the dtype of the result.
    :param color_bands: the bands of the result.
    """
    color = color.astype(dtype, copy=False)
    if color.shape[2] != color_bands:
        color = np.repeat(color, color_bands, axis=2)
    return color


def converted_alpha(alpha: Array, dtype: np.dtype[Any]) -> Array:
    """
    Convert an alpha band to a wider dtype, scaled to that dtype's opaque value.

    :param alpha: any shape.
    :param dtype: the dtype of the result.
    """
    old, new = opaque_alpha(alpha.dtype), opaque_alpha(dtype)
    if alpha.dtype == dtype:
        return alpha
    if old == new:
        return alpha.astype(dtype)
    scaled = alpha.astype(np.float64) * new / old
    return (scaled if dtype.kind == 'f' else np.rint(scaled)).astype(dtype)


def _described(meaning: Meaning) -> str:
    return (f'{meaning.color_bands} {meaning.kind} '
            f'band{"s" if meaning.color_bands != 1 else ""}')
