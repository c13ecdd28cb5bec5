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
from typing import Any

import numpy as np
import numpy.typing as npt

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
