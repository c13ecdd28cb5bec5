"""
From the pixels of a tile to what the caller of ``getTile`` asked for.

What is handed out is the caller's own: it can be written to, and nobody else
ever reads what is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageColor
from large_image.tilesource.tiledict import LazyTileDict
from large_image.tilesource.tileiterator import TileIterator

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


def own(value: Any) -> Any:
    """
    A copy of what large_image's cache keeps, for the caller alone.

    :param value: an array, a PIL image, bytes, or tuples, lists and dictionaries
        of these.
    :returns: the same; only what can be changed is copied.
    """
    if isinstance(value, (np.ndarray, PIL.Image.Image)):
        return value.copy()
    if isinstance(value, dict):
        return {key: own(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(own(item) for item in value)
    return value


def writable(value: Any) -> Any:
    """
    An array that can be written to.

    large_image makes arrays out of PIL images in places, and these cannot.

    :param value: anything; only an array that cannot be written to is copied.
    """
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        return value.copy()
    return value


class OwnTile(LazyTileDict):
    """A tile of an iterator whose array can be written to."""

    def __getitem__(self, key: str, *args: Any, **kwargs: Any) -> Any:
        """The value of a key; see ``LazyTileDict``."""
        value = super().__getitem__(key, *args, **kwargs)
        if key == 'tile' and isinstance(value, np.ndarray) and not value.flags.writeable:
            value = self['tile'] = value.copy()
        return value


class OwnTileIterator(TileIterator):
    """An iterator of ``OwnTile``."""

    def __next__(self) -> LazyTileDict:
        """The next tile."""
        tile = super().__next__()
        # The base class makes its tiles in the middle of a generator.
        tile.__class__ = OwnTile
        return tile
