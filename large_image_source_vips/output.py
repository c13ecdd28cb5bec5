"""
From the pixels of a tile to what the caller of ``getTile`` asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.ImageColor

# The width and height of a tile in level pixels, as everywhere in large_image.
TILE_SIZE = 256


def fit_edge(tile: npt.NDArray[Any], rows: int, cols: int, edge: bool | str,
             mode: str) -> npt.NDArray[Any]:
    """
    Treat the part of a tile that lies beyond the image as ``edge=`` says.

    :param tile: a whole tile (rows, cols, bands), blank beyond the image.
    :param rows: how many rows of it show the image, counted from the top.
    :param cols: how many columns of it show the image, counted from the left.
    :param edge: False to leave the tile as it is, True or 'crop' to cut it, or
        a colour that PIL knows to fill with.
    :param mode: the PIL mode that the bands of the tile make up.
    :returns: the tile, a part of it or a filled copy.
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
