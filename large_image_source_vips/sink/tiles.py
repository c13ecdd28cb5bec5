"""
What callers of ``addTile`` have in their hands -> an array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pyvips

from ..base.errors import TileSourceError, vips_errors
from ..base.formats import COLOR_BANDS, DTYPE_OF_FORMAT

Array = npt.NDArray[Any]

# PIL modes whose samples are taken as they are, and the dtype they have; all
# other modes are converted to the mode named in the second table.
_PIL_PLAIN: dict[str, str] = {
    'L': 'u1', 'LA': 'u1', 'RGB': 'u1', 'RGBA': 'u1', 'F': 'f4', 'I': 'i4',
    'I;16': '<u2', 'I;16L': '<u2', 'I;16B': '>u2', 'I;16N': '=u2',
}
_PIL_CONVERT: dict[str, str] = {
    '1': 'L', 'PA': 'RGBA', 'La': 'LA', 'RGBa': 'RGBA', 'RGBX': 'RGB',
    'CMYK': 'RGB', 'YCbCr': 'RGB', 'HSV': 'RGB',
}

# An array without an interpretation whose first dimension is at most the one
# number, and both others at least the other, is taken to have its bands first.
_MOST_BANDS_FIRST, _FEWEST_PIXELS = 4, 32


def as_array(tile: Any, interpretation: Any,
             known_bands: int | None = None) -> tuple[Array, str | None]:
    """
    The samples of any kind of tile.

    :param tile: a numpy array, a PIL image, a ``pyvips.Image`` or the bytes of
        an encoded image.
    :param interpretation: what the caller says it is.
    :param known_bands: the bands of the image that the tile is added to, None
        as long as it has none.
    :returns: (rows, cols, bands), and the libvips interpretation that the tile
        itself states, if any.
    :raises TileSourceError: for anything else, if it cannot be decoded, and
        for an array that looks like (bands, rows, cols).
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
        if interpretation is None:
            _check_bands_last(array, known_bands)
    else:
        msg = (f'A tile must be a numpy array, a PIL image, a pyvips.Image or the bytes of an '
               f'encoded image, not {type(tile).__name__}.')
        raise TileSourceError(msg)
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim != 3 or 0 in array.shape:
        msg = (f'A tile must have the shape (rows, cols) or (rows, cols, bands), none of them 0, '
               f'not {np.shape(tile)}.')
        raise TileSourceError(msg)
    return array, own


def _check_bands_last(array: Array, known_bands: int | None) -> None:
    """
    See to it that an array does not have its bands first, as PyTorch has them.

    :param array: of any shape.
    :param known_bands: how many bands the image has already; an array of as
        many has them last.
    :raises TileSourceError: if it looks like (bands, rows, cols).
    """
    if array.ndim != 3:
        return
    first, second, third = array.shape
    if (1 <= first <= _MOST_BANDS_FIRST and min(second, third) >= _FEWEST_PIXELS and
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
    # Pillow has given some 16-bit modes without their byte order.
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
        msg = 'A tile of 0 bytes is no encoded image.'
        raise TileSourceError(msg)
    with vips_errors(f'The tile of {len(data)} bytes cannot be decoded as an image'):
        # Loading from a source stays out of libvips' cache of operations.
        source = pyvips.Source.new_from_memory(bytes(data))
        image = pyvips.Image.new_from_source(source, '', fail_on='error')
        if image.interpretation == 'cmyk' and interpretation != 'cmyk':
            image = image.colourspace('srgb')
        return _from_vips(image)
