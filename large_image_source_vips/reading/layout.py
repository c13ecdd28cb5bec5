"""
Describe the contents of a file: frames with their stored levels, associated images and
axes.

Immutable data and pure functions; nothing here opens a file.  ``survey`` and
``survey_tiff`` make a ``Layout``; ``levels`` reads the pixels that it describes.

The size of a ``Stored`` picture is in stored pixels; that of a ``Picture`` or ``Layout``
has the orientation applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..base.geometry import Size
from ..tiff.page import Page

# The allowed difference between the size of a stored level and the exact reduction, in
# pixels or as a fraction: writers round up, down, or to whole tiles of a lower level.
_LEVEL_PIXELS = 2
_LEVEL_SHARE = 0.002

# TIFF and EXIF orientations that exchange width and height.
TRANSPOSED = frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class Opening:
    """
    How to open an image with its loader.

    :param options: pairs of a loader option and its value.
    :param directory: the offset of a TIFF directory to read as if it were the only one;
        None for the file as it is.
    :param strips: with a directory, the range (start, stop) of its strips to read; None
        for all.
    :param shift: with a directory, the bytes from the image that it describes to a further
        one without a directory; only this package reads those.
    :param attached: the header field with the image; '' for the opened image itself.
    """

    options: tuple[tuple[str, Any], ...] = ()
    directory: int | None = None
    strips: tuple[int, int] | None = None
    shift: int = 0
    attached: str = ''


@dataclass(frozen=True)
class Stored:
    """
    A picture as stored in the file.

    :param size: in stored pixels.
    :param opening: how to open an image that contains it.
    :param opened: the size of that image if it differs; a stack of pages is taller.
    :param top: the row of that image at which this picture starts.
    :param random: whether rectangles can be read without decoding the whole picture.
    :param kept_rows: the number of rows that libvips keeps decoded for an open image.
    :param page: the TIFF directory, if there is one.
    :param alone: for a picture of a stack, how to open it without the later ones, which may
        be damaged; None if that is not possible.
    :param masked: whether an alpha band is added: the mask, or opaque if there is none.
    :param mask: the transparency mask; None if all pixels are opaque.
    """

    size: Size
    opening: Opening = Opening()
    opened: Size | None = None
    top: int = 0
    random: bool = False
    kept_rows: int = 0
    page: Page | None = None
    alone: Opening | None = None
    masked: bool = False
    mask: Stored | None = None

    @cached_property
    def unmasked(self) -> Stored:
        """The same picture without the alpha band of its mask."""
        return replace(self, masked=False, mask=None)

    @property
    def opened_size(self) -> Size:
        """The size of the open image."""
        return self.opened or self.size


@dataclass(frozen=True)
class Picture:
    """
    One frame or associated image.

    :param levels: the stored levels by reduction; 0 is always present.
    :param orientation: the TIFF/EXIF orientation to apply, 1 to 8.
    :param is_palette: whether samples were indices into a palette; missing levels are then
        picked, not averaged.
    :param alpha: the unassociated alpha band, counted from the end (-1 is the last); None
        if there is none.
    """

    levels: Mapping[int, Stored]
    orientation: int = 1
    is_palette: bool = False
    alpha: int | None = None

    @property
    def is_masked(self) -> bool:
        """Whether alpha comes from masks: 0 or opaque, at every level."""
        return self.levels[0].masked

    @cached_property
    def size(self) -> Size:
        """The size in full-resolution pixels, with the orientation applied."""
        return oriented(self.levels[0].size, self.orientation)


@dataclass(frozen=True)
class Layout:
    """
    The frames and associated images of a file.

    :param frames: at least one; all have the same size, dtype and bands.
    :param dtype: that of the unpacked samples.
    :param bands: the number of unpacked bands.
    :param interpretation: libvips' name for the meaning of the bands.
    :param axes: the position of each frame on each axis, such as ``{'IndexC': 1}``; empty
        if no axes are known.
    :param channels: the names of the channels.
    :param associated: associated images by key.
    :param pages: the number of pages of the file; 0 if libvips' header has it.
    :param converted: whether colours are converted to sRGB; the profiles of the file then
        do not apply.
    :param left_out: levels and pages that are not used, with the reasons.
    """

    frames: tuple[Picture, ...]
    dtype: np.dtype[Any]
    bands: int
    interpretation: str
    axes: tuple[Mapping[str, int], ...] = ()
    channels: tuple[str, ...] = ()
    associated: Mapping[str, Picture] = field(default_factory=dict)
    pages: int = 0
    converted: bool = False
    left_out: tuple[str, ...] = ()

    @cached_property
    def size(self) -> Size:
        """The size of every frame in full-resolution pixels."""
        return self.frames[0].size

    @property
    def shape(self) -> tuple[Any, ...]:
        """The properties that must stay the same if the file changes while it is open."""
        return self.size, len(self.frames), self.dtype, self.bands, tuple(self.associated)


def oriented(size: Size, orientation: int) -> Size:
    """A size with the orientation applied."""
    return Size(size.height, size.width) if orientation in TRANSPOSED else size


def reduction_between(full: Size, other: Size) -> int | None:
    """
    The reduction r at which one size is 2 ** r times smaller than another.

    :param full: the larger size.
    :param other: the smaller size.
    :returns: 0 for equal sizes; None if the sizes do not fit.
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
    """Names made unique by appending numbers to repeated ones."""
    # The next number to try, by key: a name may be repeated, or equal a numbered one.
    numbers: dict[str, int] = {}
    for name in names:
        key, number = name, numbers.get(name, 2)
        while key in numbers:
            key, number = f'{name}_{number}', number + 1
        numbers[name] = number
        numbers.setdefault(key, 2)
    return list(numbers)
