"""
Convert the masks and weights that ``addTile`` accepts to arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError, shown, vips_errors

Array = npt.NDArray[Any]


def as_mask(mask: Any, shape: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """
    Convert a mask to booleans, True where the tile is pasted.

    :param mask: None, or anything that numpy converts to booleans (rows, cols) or (rows,
        cols, bands); with bands, a pixel is True where any band is.
    :param shape: the (rows, cols) of the tile.
    :returns: (rows, cols), possibly a view of ``mask``: do not change it.
    :raises TileSourceError: if the mask has another shape or cannot be converted.
    """
    if mask is None:
        return None
    try:
        # This may compute a pyvips image, a PIL image or a tensor.
        with vips_errors('The mask cannot be computed'):
            array: Array = np.asarray(mask)
        given = array.shape
        if array.ndim == 3:
            array = np.any(array, axis=2)
        result = array.astype(np.bool_, copy=False)
    except (TypeError, ValueError, RuntimeError, OSError, SyntaxError) as exc:
        msg = f'The mask cannot be converted to an array of booleans: {exc}'
        raise TileSourceError(msg) from exc
    if result.shape != shape:
        msg = (f'The mask has the shape {given}, the tile {shape}: a mask must have the rows and '
               f'columns of its tile, as (rows, cols) or (rows, cols, bands).')
        raise TileSourceError(msg)
    return result


def as_weight(weight: Any, shape: tuple[int, int]) -> Array | None:
    """
    Convert the weights of a tile to 32-bit floats.

    :param weight: None, or anything that numpy converts to numbers of (rows, cols).
    :param shape: the (rows, cols) of the tile.
    :raises TileSourceError: if it has another shape, cannot be converted, or has weights
        that are negative or not finite.
    """
    if weight is None:
        return None
    try:
        array: Array = np.asarray(weight)
        if array.dtype.kind == 'c':
            msg = 'it is complex'
            raise TypeError(msg)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        result = array.astype(np.float32)
    except (TypeError, ValueError, OverflowError) as exc:
        msg = f'The weight cannot be converted to an array of floats: {shown(str(exc))}'
        raise TileSourceError(msg) from exc
    if result.shape != shape:
        msg = (f'The weight has the shape {array.shape}, the tile {shape}: a weight must have the '
               f'rows and columns of its tile.')
        raise TileSourceError(msg)
    if not (np.isfinite(result).all() and (result >= 0).all()):
        msg = 'Weights must be finite and not negative.'
        raise TileSourceError(msg)
    return result
