"""
Make a ``Picture`` for a writer from the frozen blocks of a canvas.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..base.geometry import Rect, Size
from ..base.transparency import ColorAndAlpha, Transparency
from ..store import Picture
from .blocks import BLOCK_SIZE
from .layers import FrozenLayers


def snapshot_picture(layers: FrozenLayers, frame: int | None, place: Rect,
                     pixel_size: tuple[float | None, float | None], show_alpha: bool) -> Picture:
    """
    A picture of a rectangle of frozen layers.

    :param layers: must stay frozen while the picture is used.
    :param frame: of its blocks; None for a frame that was never written.
    :param place: the rectangle, in caller coordinates.
    :param pixel_size: width and height of a pixel in mm, None where unknown.
    :param show_alpha: whether pixels may be transparent.
    """
    transparency = layers.transparency(frame, place) if show_alpha else 'none'

    def read(rect: Rect) -> ColorAndAlpha | None:
        found = None if frame is None else layers.gather(
            frame, 0, rect.moved(place.left, place.top))
        return found if found is None or show_alpha else (found[0], None)

    def filled() -> Iterator[Rect]:
        for key in () if frame is None else layers.blocks_of(frame):
            block = Rect(key.column * BLOCK_SIZE, key.row * BLOCK_SIZE, BLOCK_SIZE, BLOCK_SIZE)
            rect = block.clipped(place)
            if not rect.empty:
                yield rect.moved(-place.left, -place.top)

    def known() -> Transparency:
        return transparency

    return Picture(
        Size(place.width, place.height), layers.dtype, layers.meaning, transparency == 'none',
        pixel_size, None, read, filled, known)
