"""
Pictures made of other pictures: a rectangle, a level, or one without metadata.

They are read from the original when they are written; nothing is copied before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.geometry import Rect, Size
from ..base.transparency import (
    ColorAndAlpha,
    Transparency,
    look_for_transparency,
    split_alpha,
)
from ..store import Picture
from .profiles import anonymous

# The height of the areas that a level lists as filled.
_FILLED_ROWS = 256


def cropped(picture: Picture, crop: Rect) -> Picture:
    """
    A rectangle of a picture.

    :param crop: in pixels of the picture; it is clipped to it.
    :raises TileSourceError: if nothing is left.
    """
    part = crop.clipped(Rect(0, 0, *picture.size))
    if part.empty:
        msg = (f'The crop {tuple(crop)} is outside of the image of {picture.size.width} x '
               f'{picture.size.height} pixels.')
        raise TileSourceError(msg)

    def read(rect: Rect) -> ColorAndAlpha | None:
        return picture.read(rect.moved(part.left, part.top))

    def filled() -> Iterator[Rect]:
        for rect in picture.filled():
            inside = rect.clipped(part)
            if not inside.empty:
                yield inside.moved(-part.left, -part.top)

    return replace(picture, size=part.size, read=read, filled=filled,
                   transparency=_transparency_of(picture, part.size, read), encoded={})


def _transparency_of(picture: Picture, size: Size, read: Callable[[Rect], ColorAndAlpha | None],
                     ) -> Callable[[], Transparency]:
    """``Picture.transparency`` for other pixels of a picture."""
    return lambda: 'none' if picture.opaque else look_for_transparency(size, read)


def at_reduction(picture: Picture, reduction: int,
                 read: Callable[[Rect], npt.NDArray[Any]]) -> Picture:
    """
    A level of a picture.

    :param reduction: the level is ``2 ** reduction`` times smaller.
    :param read: returns the pixels of a rectangle of the level.
    """
    size = picture.size.reduced(reduction)
    across, down = (None if mm is None else mm * 2 ** reduction for mm in picture.pixel_size)

    def filled() -> Iterator[Rect]:
        for top in range(0, size.height, _FILLED_ROWS):
            yield Rect(0, top, size.width, min(_FILLED_ROWS, size.height - top))

    def read_level(rect: Rect) -> ColorAndAlpha:
        return split_alpha(read(rect), picture.meaning.color_bands)

    return replace(
        picture, size=size, pixel_size=(across, down), read=read_level, filled=filled,
        transparency=_transparency_of(picture, size, read_level), encoded={
            stored - reduction: level for stored, level in picture.encoded.items()
            if stored >= reduction})


def without_metadata(picture: Picture) -> Picture:
    """
    A picture with its pixels, their size and an anonymous colour profile, and nothing else.

    Fields that are not listed here keep their defaults, so that none is forgotten.
    """
    profile = anonymous(picture.profile) if picture.profile else None
    return Picture(
        size=picture.size, dtype=picture.dtype, meaning=picture.meaning, opaque=picture.opaque,
        pixel_size=picture.pixel_size, profile=profile, read=picture.read, filled=picture.filled,
        transparency=picture.transparency, encoded=picture.encoded)
