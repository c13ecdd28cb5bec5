"""
From the pixels of a tile to what the caller of ``getTile`` asked for, and whose
arrays these are: what a caller gets is the caller's own, to change in place.
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


def owned(value: Any) -> Any:
    """
    A copy of what large_image's cache holds, for a caller to change in place.

    :param value: an array, a PIL image, or dictionaries, lists and tuples that
        hold some.  Everything else, encoded images above all, cannot be changed
        and is returned as it is.
    """
    if isinstance(value, np.ndarray):
        # Subclasses of arrays stay what they are; the order of axes in memory
        # becomes that of the index.
        return np.array(value, order='C', subok=True)
    if isinstance(value, PIL.Image.Image):
        return value.copy()
    if type(value) is tuple or type(value) is list:
        return type(value)(map(owned, value))
    if type(value) is dict:
        return {key: owned(part) for key, part in value.items()}
    return value


def writable(value: Any) -> Any:
    """
    What nobody else holds, in a form that can be changed in place.

    Arrays that NumPy makes of a PIL image are read-only.

    :param value: anything; only read-only arrays are copied.  Of a tuple, as
        ``getRegion`` returns it, the parts.
    """
    if isinstance(value, np.ndarray):
        return value if value.flags.writeable else value.copy()
    return tuple(map(writable, value)) if type(value) is tuple else value
