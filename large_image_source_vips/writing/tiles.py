"""
The grid of tiles of a picture, and the conversion of their pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.geometry import Size
from ..store import Picture

Array = npt.NDArray[Any]


def filled_tiles(picture: Picture, tile: Size) -> npt.NDArray[np.bool_]:
    """
    The full-resolution tiles with pixels, (rows, cols).

    :param picture: the picture.
    :param tile: width and height of a tile.
    """
    grid = grid_of(picture.size, tile)
    filled = np.zeros((grid.height, grid.width), np.bool_)
    for rect in picture.filled():
        filled[rect.top // tile.height:-(-rect.bottom // tile.height),
               rect.left // tile.width:-(-rect.right // tile.width)] = True
    return filled


def grid_of(size: Size, tile: Size) -> Size:
    """The number of tile columns and rows of an image."""
    return Size(-(-size.width // tile.width), -(-size.height // tile.height))


def converted(color: Array, dtype: np.dtype[Any]) -> Array:
    """
    Convert colours to the dtype to write.

    :raises TileSourceError: if a float is too large for it.
    """
    try:
        with np.errstate(over='raise'):
            result: Array = color.astype(dtype)
            return result
    except FloatingPointError as exc:
        msg = (f'some values are beyond the range of {dtype}; write {color.dtype} with '
               f'lossy=False')
        raise TileSourceError(msg) from exc
