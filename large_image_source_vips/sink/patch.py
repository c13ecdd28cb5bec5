"""
Convert the tiles that ``addTile`` accepts to arrays of samples, without loss.

A tile is a numpy array, a PIL image, a ``pyvips.Image`` or the bytes of an encoded image;
it is neither changed nor kept.  Without an interpretation, the number of bands determines
their meaning:

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
import PIL.Image
import pyvips

from ..base.arrays import to_pil
from ..base.errors import TileSourceError, shown, vips_errors
from ..base.formats import (
    COLOR_BANDS,
    DATA_INTERPRETATIONS,
    DTYPE_OF_FORMAT,
    FORMAT_OF_DTYPE,
    GRAY,
    RGB,
    Meaning,
    color_kind,
    opaque_alpha,
    smallest_integer,
)

Array = npt.NDArray[Any]

PIXELMAP, LABELS = 'pixelmap', 'labels'

# large_image's short names of interpretations.
_SHORT_NAMES = {'L': 'b-w', 'LA': 'b-w', 'RGB': 'srgb', 'RGBA': 'srgb'}

# PIL modes whose samples are used unchanged, with their dtypes; other modes are converted
# to the mode in the second table.
_PIL_PLAIN: dict[str, str] = {
    'L': 'u1', 'LA': 'u1', 'RGB': 'u1', 'RGBA': 'u1', 'F': 'f4', 'I': 'i4',
    'I;16': '<u2', 'I;16L': '<u2', 'I;16B': '>u2', 'I;16N': '=u2',
}
_PIL_CONVERT: dict[str, str] = {
    '1': 'L', 'PA': 'RGBA', 'La': 'LA', 'RGBa': 'RGBA', 'RGBX': 'RGB',
    'CMYK': 'RGB', 'YCbCr': 'RGB', 'HSV': 'RGB',
}

# An array without an interpretation looks like (bands, rows, cols), and is refused, if its
# first dimension is at most the first number and the others at least the second.
_MAX_BANDS_FIRST, _MIN_SIDE = 4, 32


@dataclass(frozen=True)
class Patch:
    """
    A converted tile, ready to be added to a canvas.

    :param color: (rows, cols, color bands), of a native libvips dtype.
    :param alpha: (rows, cols) of the same dtype, or None if all pixels are opaque.
    :param meaning: the meaning of the bands.
    :param given: the values before conversion, (rows, cols, bands).
    """

    color: Array
    alpha: Array | None
    meaning: Meaning
    given: Array

    @property
    def has_alpha_band(self) -> bool:
        """Whether the tile had an alpha band, opaque or not."""
        return bool(self.given.shape[2] > self.color.shape[2])

    @property
    def stores_given(self) -> bool:
        """Whether the samples are the given values; False for a pixelmap."""
        return bool(self.given.shape[2] >= self.color.shape[2])

    @property
    def extremes(self) -> tuple[int, int]:
        """Bounds of integer samples, the smallest and the largest; 0, 0 for floats."""
        if self.color.dtype.kind == 'f':
            return 0, 0
        if self.color.dtype == np.uint8:
            # For a pixelmap `given` has the labels, not the samples.
            return 0, 255
        return int(self.given.min()), int(self.given.max())


def make_patch(tile: Any, interpretation: Any = None, expected: Meaning | None = None, *,
               named: bool = False) -> Patch:
    """
    Convert a tile.

    :param tile: a numpy array (rows, cols) or (rows, cols, bands), a PIL image,
        a ``pyvips.Image`` or the bytes of an encoded image.
    :param interpretation: None, 'labels', 'pixelmap', 'L', 'LA', 'RGB', 'RGBA' or
        a ``pyvips.enums.Interpretation``.
    :param expected: the meaning of the canvas, or None; a tile without an interpretation
        gets it if its bands allow that.
    :param named: whether the caller named the dimensions; the array is then not checked for
        (bands, rows, cols).
    :raises TileSourceError: if the tile is of another type, cannot be decoded, or has
        samples that no format can hold.
    """
    array, own_interpretation = _as_array(
        tile, interpretation, None if expected is None else expected.bands, named)
    # numpy's usual dtypes of masks and label images; they are stored in fewer bits, as labels.
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


def make_associated(image: Any) -> Array:
    """
    Convert an associated image.

    :param image: as a tile of ``make_patch``.
    :returns: a copy, (rows, cols, bands) of 1 to 4 bands.
    :raises TileSourceError: if it is not an image, or has more bands.
    """
    patch = make_patch(image)
    if patch.color.shape[2] > 3:
        msg = f'An associated image must have 1 to 4 bands, not {patch.color.shape[2]}.'
        raise TileSourceError(msg)
    pixels = patch.color
    if patch.alpha is not None:
        pixels = np.concatenate([pixels, patch.alpha[:, :, np.newaxis]], axis=2)
    result: Array = np.array(to_pil(pixels)).reshape(pixels.shape)
    return result


def is_interpretation(name: Any) -> bool:
    """Whether ``make_patch`` accepts an interpretation."""
    return isinstance(name, str) and (name in (PIXELMAP, LABELS) or name in _SHORT_NAMES or
                                      name in COLOR_BANDS or name in DATA_INTERPRETATIONS)


def _as_array(tile: Any, interpretation: Any,
             known_bands: int | None = None, named: bool = False) -> tuple[Array, str | None]:
    """
    Convert any kind of tile to an array.

    :param tile: as for ``make_patch``.
    :param interpretation: the caller's interpretation.
    :param known_bands: the bands of the canvas; None if it is empty.
    :param named: as for ``make_patch``.
    :returns: (rows, cols, bands), and the libvips interpretation of the tile
        itself, if it has one.
    :raises TileSourceError: if the tile is of another type, cannot be decoded, or
        is an array that looks like (bands, rows, cols).
    """
    own = None
    if isinstance(tile, PIL.Image.Image):
        array = _from_pil(tile, interpretation)
    elif isinstance(tile, pyvips.Image):
        array, own = _from_vips(tile)
    elif isinstance(tile, (bytes, bytearray, memoryview)):
        array, own = _from_encoded(tile, interpretation)
    elif isinstance(tile, np.ndarray):
        array = np.asarray(tile)
        if interpretation is None and not named:
            _check_bands_last(array, known_bands)
    else:
        msg = (f'A tile must be a numpy array, a PIL image, a pyvips.Image or the bytes of an '
               f'encoded image, not {type(tile).__name__}.')
        raise TileSourceError(msg)
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim != 3 or 0 in array.shape:
        msg = (f'A tile must have the shape (rows, cols) or (rows, cols, bands), without a '
               f'dimension of 0, not {np.shape(tile)}.')
        raise TileSourceError(msg)
    return array, own


def _check_bands_last(array: Array, known_bands: int | None) -> None:
    """
    Refuse an array with the bands first, as in PyTorch.

    :param known_bands: the bands of the canvas; an array whose last dimension has
        the same number is not refused.
    """
    if array.ndim != 3:
        return
    first, second, third = array.shape
    if (1 <= first <= _MAX_BANDS_FIRST and min(second, third) >= _MIN_SIDE and
            third != known_bands):
        msg = (f"A tile of the shape {array.shape} looks like (bands, rows, cols), axes='cyx': "
               f'move the bands last with np.moveaxis(tile, 0, -1), or pass '
               f"interpretation='multiband' if it really has {first} rows and {third} bands.")
        raise TileSourceError(msg)


def _from_pil(image: PIL.Image.Image, interpretation: Any) -> Array:
    mode = image.mode
    if mode == 'P':
        mode = 'RGBA' if 'transparency' in image.info else 'RGB'
    elif mode == 'CMYK' and interpretation == 'cmyk':
        return np.asarray(image)
    elif mode not in _PIL_PLAIN:
        try:
            mode = _PIL_CONVERT[mode]
        except KeyError:
            msg = f'A PIL image of mode {mode} cannot be added; convert it to RGB first.'
            raise TileSourceError(msg) from None
    try:
        if mode != image.mode:
            image = image.convert(mode)
        array: Array = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as exc:
        msg = f'The PIL image cannot be decoded: {exc}'
        raise TileSourceError(msg) from exc
    dtype = np.dtype(_PIL_PLAIN[mode])
    # Some versions of Pillow return 16-bit modes without their byte order.
    return array if array.dtype == dtype else array.view(dtype)


def _from_vips(image: pyvips.Image) -> tuple[Array, str | None]:
    with vips_errors('The pyvips.Image cannot be computed'):
        if image.coding == 'labq':
            image = image.LabQ2Lab()
        elif image.coding == 'rad':
            image = image.rad2float()
        memory = image.write_to_memory()
        shape = (image.height, image.width, image.bands)
        interpretation = image.interpretation
        dtype = DTYPE_OF_FORMAT[image.format]
    array = np.frombuffer(memory, dtype).reshape(shape)
    known = COLOR_BANDS.get(interpretation)
    if known is None or not known <= shape[2] <= known + 1:
        interpretation = None
    return array, interpretation


def _from_encoded(data: Any, interpretation: Any) -> tuple[Array, str | None]:
    if len(data) == 0:
        msg = 'A tile of 0 bytes is not an encoded image.'
        raise TileSourceError(msg)
    with vips_errors(f'The tile of {len(data)} bytes cannot be decoded as an image'):
        # A source, because libvips does not cache images that are loaded from one.
        source = pyvips.Source.new_from_memory(bytes(data))
        image = pyvips.Image.new_from_source(source, '', fail_on='error')
        if image.interpretation == 'cmyk' and interpretation != 'cmyk':
            image = image.colourspace('srgb')
        return _from_vips(image)


def _native(array: Array) -> Array:
    """Convert values to a dtype that libvips has, or to 64-bit integers."""
    dtype = array.dtype
    if dtype in FORMAT_OF_DTYPE and dtype.isnative and dtype.kind in 'iuf':
        return array
    if dtype.kind == 'b':
        return array.view(np.uint8)
    if dtype.kind in 'iu':
        return array.astype(dtype.newbyteorder('='))
    if dtype.kind == 'f':
        wanted = np.float32 if dtype.itemsize < 8 else np.float64
        try:
            with np.errstate(over='raise'):
                return array.astype(wanted)
        except FloatingPointError as exc:
            # long double
            msg = f'A tile of {dtype} has values beyond the range of 64-bit floats.'
            raise TileSourceError(msg) from exc
    msg = (f'Samples of {dtype} cannot be stored; convert the tile to integers or floats first'
           f'{" (for complex values, to two bands)" if dtype.kind == "c" else ""}.')
    raise TileSourceError(msg)


def _narrowed(array: Array) -> Array:
    """Convert 64-bit integers to the smallest format that holds them."""
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
    Encode labels as colours for large_image's pixelmap annotations.

    :param array: (rows, cols, 1) of integers.
    :returns: (rows, cols, 3) uint8: r = v % 256, g = v // 256 % 256,
        b = v // 65536 % 256.
    """
    if array.shape[2] != 1 or array.dtype.kind not in 'iu':
        msg = (f"A tile with the interpretation 'pixelmap' must have 1 band of integers, not "
               f'{array.shape[2]} of {array.dtype}.')
        raise TileSourceError(msg)
    # Little-endian bytes are the digits in base 256; two's complement gives the
    # same digits for negative values as floor division.
    wide = array.astype('<i8' if array.dtype.kind == 'i' else '<u8', order='C')
    return wide.view(np.uint8)[:, :, :3]


def _meaning(array: Array, interpretation: Any, expected: Meaning | None) -> tuple[Meaning, bool]:
    """The meaning of an array's bands, and whether the last band is alpha."""
    bands = array.shape[2]
    if interpretation is None:
        if expected is not None and expected.kind not in ('gray', 'rgb') and (
                bands - expected.color_bands in (0, int(expected.has_alpha))):
            return replace(expected, labels=False), bands > expected.color_bands
        if bands <= 4:
            return (GRAY if bands <= 2 else RGB), bands in (2, 4)
        interpretation = 'multiband'
    # There may be an alpha band or none, whatever the name.
    name = _SHORT_NAMES.get(str(interpretation), interpretation)
    if not isinstance(name, str):
        name = repr(name)
    if name in COLOR_BANDS:
        kind, color = color_kind(name), COLOR_BANDS[name]
    elif name in DATA_INTERPRETATIONS:
        kind, color = 'multiband', bands
    else:
        msg = (f'{shown(interpretation)} is not an interpretation; use a '
               f"pyvips.enums.Interpretation, 'L', 'LA', 'RGB', 'RGBA', 'labels' or 'pixelmap'.")
        raise TileSourceError(msg)
    alpha_given = bands == color + 1
    if bands != color + alpha_given:
        msg = f'A tile of {bands} bands cannot have the interpretation {shown(interpretation)}.'
        raise TileSourceError(msg)
    return Meaning(kind, name, color), alpha_given


def _scaled_unit_alpha(alpha: Array) -> Array:
    """Scale a float alpha band within 0..1 to 0..255."""
    if alpha.dtype.kind != 'f':
        return alpha
    low, high = np.fmin.reduce(alpha, axis=None), np.fmax.reduce(alpha, axis=None)
    return alpha * alpha.dtype.type(255) if low >= 0 and high <= 1 else alpha
