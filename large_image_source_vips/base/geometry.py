"""
Sizes and rectangles, and the names of the coordinate planes they live in.

Every size, position and rectangle in this package belongs to one of four
planes, and its name says to which:

:full: pixels of the image at full resolution; 0, 0 is its top left corner.
:level: pixels of one reduction of the image, 0, 0 again the corner.  A
    *reduction* ``r`` is the image made ``2 ** r`` times smaller; large_image's
    level ``z`` is the reduction ``levels - 1 - z``.
:caller: pixels as the caller of ``addTile`` counts them; may be negative.
:block: columns and rows of the canvas' blocks, aligned with the caller plane.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class Size(NamedTuple):
    """A width and a height in pixels (or blocks) of one plane."""

    width: int
    height: int

    @property
    def area(self) -> int:
        """How many pixels there are."""
        return self.width * self.height

    def reduced(self, reduction: int) -> Size:
        """
        The size of this image at a reduction.

        Rounded up: a last column that is only partly covered still exists, and
        no dimension ever becomes 0.

        :param reduction: how many times the size is halved.
        """
        scale = 1 << reduction
        return Size(-(-self.width // scale), -(-self.height // scale))


@lru_cache(maxsize=1024)
def level_count(size: Size) -> int:
    """The number of levels, halved until one tile holds the image; 0 if it is empty."""
    if not all(size):
        return 0
    return 1 + max(0, (max(size) - 1) // TILE_SIZE).bit_length()


class Rect(NamedTuple):
    """A half-open rectangle: ``left <= x < right``, ``top <= y < bottom``."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """The first column that is not inside."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """The first row that is not inside."""
        return self.top + self.height

    @property
    def empty(self) -> bool:
        """Whether there is no pixel inside."""
        return self.width <= 0 or self.height <= 0

    def moved(self, dx: int, dy: int) -> Rect:
        """The same rectangle, dx columns further right and dy rows further down."""
        return Rect(self.left + dx, self.top + dy, self.width, self.height)

    def clipped(self, other: Rect) -> Rect:
        """The part that lies inside another rectangle, perhaps empty."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Rect(left, top, max(0, right - left), max(0, bottom - top))

    def contains(self, other: Rect) -> bool:
        """Whether all of another rectangle is inside this one."""
        return (self.left <= other.left and self.top <= other.top and
                other.right <= self.right and other.bottom <= self.bottom)

# The width and height of a tile in level pixels, as everywhere in large_image.
TILE_SIZE = 256
