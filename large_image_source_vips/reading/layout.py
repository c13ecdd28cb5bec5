"""
What a file holds: frames, the levels stored of each, associated images, axes.

Pure data and pure functions; nothing here opens a file.  The surveys
(``survey``, ``survey_tiff``) make a ``Layout``, ``levels`` reads by it.

Two words on sizes: a ``Stored`` picture is described as it is stored; the
``size`` of a ``Picture`` and of the ``Layout`` are as the viewer sees them, with
the orientation applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..base.geometry import Size
from ..tiff.directories import Page

# By how much a stored level may miss the exact power of two and still count as
# one: writers round up, down or to a whole tile of a lower level.
_LEVEL_PIXELS = 2
_LEVEL_SHARE = 0.002

# TIFF and EXIF orientations that exchange width and height.
TRANSPOSED = frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class Opening:
    """
    How to open an image with its loader.

    :param options: of the loader, as pairs.
    :param directory: the offset of a TIFF directory that is to be read as if
        it were the first and only one; None for the file as it is.
    :param strips: with a directory, the only strips of it that make up the
        picture: the first, and the one behind the last; None for all.
    :param attached: the header field that holds the image; '' for the opened
        image itself.
    """

    options: tuple[tuple[str, Any], ...] = ()
    directory: int | None = None
    strips: tuple[int, int] | None = None
    attached: str = ''


@dataclass(frozen=True)
class Stored:
    """
    One picture as it lies in the file.

    :param size: in stored pixels.
    :param opening: opens an image that holds it.
    :param opened: the size of that image if it is another; a stack is taller.
    :param top: the row of that image where this picture starts.
    :param random: whether rectangles can be read without decoding all of it.
    :param kept_rows: how many rows libvips keeps decoded behind an open image.
    :param page: the TIFF directory, where there is one.
    """

    size: Size
    opening: Opening = Opening()
    opened: Size | None = None
    top: int = 0
    random: bool = False
    kept_rows: int = 0
    page: Page | None = None

    @property
    def opened_size(self) -> Size:
        """The size of the open image."""
        return self.opened or self.size


@dataclass(frozen=True)
class Picture:
    """
    One frame or associated image.

    :param levels: what is stored of it, by reduction; 0 is always there.
    :param orientation: the TIFF/EXIF orientation, 1 to 8, that is to be applied.
    :param is_palette: whether samples were indices into a palette: then levels
        that are lacking are picked, not averaged, whatever their dtype is.
    :param alpha: the band that says how opaque a pixel is, counted from the end
        (-1 is the last), and not multiplied into the others; None if there is none.
    """

    levels: Mapping[int, Stored]
    orientation: int = 1
    is_palette: bool = False
    alpha: int | None = None

    @cached_property
    def size(self) -> Size:
        """In full-resolution pixels, oriented."""
        return oriented(self.levels[0].size, self.orientation)


@dataclass(frozen=True)
class Layout:
    """
    What a file holds.

    :param frames: equal in size, dtype and bands; at least one.
    :param dtype: of the samples, unpacked.
    :param bands: of each pixel, unpacked.
    :param interpretation: libvips' name for what the bands mean.
    :param axes: for each frame its position on each axis, such as
        ``{'IndexC': 1}``; empty dictionaries where no axes are known.
    :param channels: names along the axis C.
    :param associated: further images by their keys.
    :param pages: how many pages the file has, 0 where libvips' header says it.
    """

    frames: tuple[Picture, ...]
    dtype: np.dtype[Any]
    bands: int
    interpretation: str
    axes: tuple[Mapping[str, int], ...] = ()
    channels: tuple[str, ...] = ()
    associated: Mapping[str, Picture] = field(default_factory=dict)
    pages: int = 0

    @cached_property
    def size(self) -> Size:
        """The size of every frame in full-resolution pixels."""
        return self.frames[0].size

    @property
    def shape(self) -> tuple[Any, ...]:
        """What a file must still be like for its sources to go on reading it."""
        return self.size, len(self.frames), self.dtype, self.bands, tuple(self.associated)


def oriented(size: Size, orientation: int) -> Size:
    """A size after the orientation is applied."""
    return Size(size.height, size.width) if orientation in TRANSPOSED else size


def reduction_between(full: Size, other: Size) -> int | None:
    """
    How many times one picture is a halving of another.

    :param full: the size of the larger.
    :param other: the size of the smaller.
    :returns: the reduction, 0 for the same size, None if it is none.
    """
    if other == full:
        return 0
    reduction = max(0, round(np.log2(max(full) / max(other))))
    if not reduction:
        return None
    ideal = full.reduced(reduction)
    near = all(
        abs(has - want) <= max(min(_LEVEL_PIXELS, want // 2), _LEVEL_SHARE * want)
        for has, want in zip(other, ideal, strict=True))
    return reduction if near else None


def unique_keys(names: Sequence[str]) -> list[str]:
    """Names made different from each other by numbers behind repeated ones."""
    keys: list[str] = []
    for name in names:
        key, number = name, 2
        while key in keys:
            key, number = f'{name}_{number}', number + 1
        keys.append(key)
    return keys
