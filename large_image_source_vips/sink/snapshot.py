"""
Makes a ``Picture`` for writing from the frozen blocks of a canvas.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..base.geometry import Rect, Size
from ..base.transparency import ColorAndAlpha, Transparency
from ..store import Picture
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
    transparency = layers.transparency(place)

    def read(rect: Rect) -> ColorAndAlpha | None:
        return layers.gather(0, rect.moved(place.left, place.top))

    def filled() -> Iterator[Rect]:
        for key in layers.color.slots:
            block = Rect(key.column * BLOCK_SIZE, key.row * BLOCK_SIZE, BLOCK_SIZE, BLOCK_SIZE)
            rect = block.clipped(place)
            if not rect.empty:
                yield rect.moved(-place.left, -place.top)

    def known() -> Transparency:
        return transparency

    return Picture(
        Size(place.width, place.height), layers.dtype, layers.meaning, transparency == 'none',
        pixel_size, None, read, filled, known)
