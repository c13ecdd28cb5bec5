"""
Makes a ``Picture`` for writing from the frozen blocks of a canvas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pyvips

from ..base.geometry import Rect, Size
from ..store import Picture
from .blend import Array
from .block_image import plane_image
from .blocks import BLOCK_SIZE
from .layers import FrozenLayers


def snapshot_picture(layers: FrozenLayers, place: Rect,
                     pixel_size: tuple[float | None, float | None]) -> Picture:
    """
    A picture of a rectangle of frozen layers.

    :param layers: must stay frozen while the picture is used.
    :param place: the rectangle, in the caller plane.
    :param pixel_size: width and height of a pixel in mm, None where unknown.
    """
    def read(rect: Rect) -> Array:
        return layers.pixels(layers.gather(0, rect.moved(place.left, place.top)), rect)

    def filled() -> Iterator[Rect]:
        for key in layers.color.slots:
            block = Rect(key.column * BLOCK_SIZE, key.row * BLOCK_SIZE, BLOCK_SIZE, BLOCK_SIZE)
            rect = block.clipped(place)
            if not rect.empty:
                yield rect.moved(-place.left, -place.top)

    def image(labels: Mapping[str, Any]) -> AbstractContextManager[pyvips.Image]:
        return plane_image(layers.color, place, labels)

    # libvips reads the spool as a tiled TIFF, whose corner is that of a block.
    aligned = place.left % BLOCK_SIZE == 0 == place.top % BLOCK_SIZE
    return Picture(
        Size(place.width, place.height), layers.dtype, layers.meaning, layers.is_opaque(place),
        True, pixel_size, None, read, filled, None, image if aligned else None)
