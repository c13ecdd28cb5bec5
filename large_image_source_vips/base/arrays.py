"""
Prepare arrays for callers: crop or fill at the edges of the image, and copy cached data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageColor


def fit_edge(tile: npt.NDArray[Any], rows: int, cols: int, edge: bool | str,
             mode: str) -> npt.NDArray[Any]:
    """
    Crop or fill the part of a tile beyond the image, according to ``edge=``.

    :param tile: a whole tile (rows, cols, bands), blank beyond the image.
    :param rows: the number of rows inside the image, from the top.
    :param cols: the number of columns inside the image, from the left.
    :param edge: False to return the tile unchanged, True or 'crop' to crop it, or a PIL
        colour to fill with.
    :param mode: the PIL mode of the tile's bands.
    :returns: the tile, a view of a part of it, or a filled copy.
    """
    if not edge or (rows >= tile.shape[0] and cols >= tile.shape[1]):
        return tile
    if edge is True or edge == 'crop':
        return tile[:rows, :cols]
    tile = tile.copy()
    color: Any = np.resize(np.atleast_1d(PIL.ImageColor.getcolor(str(edge), mode)), tile.shape[2])
    tile[:, cols:] = color
    tile[rows:] = color
    return tile


# simplejpeg's names of colour spaces by number of bands, and of subsampling by large_image's.
_COLOURS = {1: 'GRAY', 3: 'RGB', 4: 'RGBA'}
_SUBSAMPLING: dict[Any, str] = {0: '444', 1: '422', 2: '420'}


def jpeg_file(tile: npt.NDArray[Any], quality: Any, subsampling: Any) -> bytes | None:
    """
    Encode a tile as large_image does, without the PIL image that it makes first.

    That image takes a tenth of the time of a tile.

    :param tile: an array (rows, cols, bands).
    :param quality: 0 to 100.
    :param subsampling: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0.
    :returns: None where large_image converts the samples or the arguments first.
    """
    if (tile.dtype != np.uint8 or tile.ndim != 3 or tile.shape[2] not in _COLOURS or
            type(quality) is not int or subsampling not in _SUBSAMPLING or not tile.size):
        return None
    import simplejpeg

    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(tile), quality, _COLOURS[tile.shape[2]], _SUBSAMPLING[subsampling])
    return encoded


def caller_copy(value: Any) -> Any:
    """
    Copy a value from large_image's cache, so that the caller may change it in place.

    :param value: an array, a PIL image, or dictionaries, lists and tuples of these.
        Anything else, such as an encoded image, is immutable and returned unchanged.
    """
    if isinstance(value, np.ndarray):
        # Keeps subclasses; makes the memory C-contiguous.
        return np.array(value, order='C', subok=True)
    if isinstance(value, PIL.Image.Image):
        return value.copy()
    if type(value) is tuple or type(value) is list:
        return type(value)(map(caller_copy, value))
    if type(value) is dict:
        return {key: caller_copy(part) for key, part in value.items()}
    return value


def writable(value: Any) -> Any:
    """
    Copy read-only arrays, such as those that NumPy makes from PIL images.

    :param value: an array or a tuple of values, as ``getRegion`` returns it; anything else
        is returned unchanged.
    """
    if isinstance(value, np.ndarray):
        return value if value.flags.writeable else value.copy()
    return tuple(map(writable, value)) if type(value) is tuple else value


def to_pil(pixels: npt.NDArray[Any]) -> PIL.Image.Image:
    """
    An 8-bit PIL image: L, LA, RGB or RGBA.

    Unsigned integers keep their upper 8 bits, signed ones are shifted to begin at 0 first,
    floats are clipped to 0..255 and NaN becomes 0: the rules of large_image for tiles.

    :param pixels: an array (rows, cols, bands) of integers of at most 32 bits or floats; of
        more than 4 bands the first 3 are used.
    """
    if pixels.shape[2] > 4:
        pixels = pixels[:, :, :3]
    if pixels.dtype.kind == 'f':
        pixels = np.clip(np.nan_to_num(pixels, nan=0), 0, 255).astype(np.uint8)
    else:
        bits = 8 * pixels.dtype.itemsize
        if pixels.dtype.kind == 'i':
            # Flipping the sign bit adds half the range.
            pixels = pixels.astype(f'u{pixels.dtype.itemsize}') ^ (1 << bits - 1)
        pixels = (pixels >> bits - 8).astype(np.uint8)
    return PIL.Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[:, :, 0])
