"""
Sizes and rectangles, and the coordinate systems that they use.

Names say which coordinates a size, position or rectangle uses:

:full: pixels of the image at full resolution; 0, 0 is its top left corner.
:level: pixels of one level, counted from the same corner.  A *reduction* ``r``
    is the image made ``2 ** r`` times smaller; large_image's level ``z`` is the
    reduction ``levels - 1 - z``.
:caller: pixels as the caller of ``addTile`` counts them; may be negative.
:block: columns and rows of the canvas' blocks, aligned with caller coordinates.
"""

from __future__ import annotations

from typing import NamedTuple

# Width and height of a tile in level pixels; large_image's default.
TILE_SIZE = 256


class Size(NamedTuple):
    """Width and height, in pixels or blocks."""

    width: int
    height: int

    @property
    def area(self) -> int:
        """The number of pixels."""
        return self.width * self.height

    def reduced(self, reduction: int) -> Size:
        """
        The size at a reduction, rounded up.

        A partial last column or row counts, so no side becomes 0.

        :param reduction: how many times the size is halved.
        """
        scale = 1 << reduction
        return Size(-(-self.width // scale), -(-self.height // scale))


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
        """The first column to the right of the rectangle."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """The first row below the rectangle."""
        return self.top + self.height

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(self.width, self.height)

    @property
    def empty(self) -> bool:
        """Whether it contains no pixel."""
        return self.width <= 0 or self.height <= 0

    def reduced(self, reduction: int) -> Rect:
        """All level pixels of a reduction that the rectangle touches."""
        scale = 1 << reduction
        left, top = self.left // scale, self.top // scale
        return Rect(left, top, -(-self.right // scale) - left, -(-self.bottom // scale) - top)

    def moved(self, dx: int, dy: int) -> Rect:
        """The rectangle moved dx columns to the right and dy rows down."""
        return Rect(self.left + dx, self.top + dy, self.width, self.height)

    def clipped(self, other: Rect) -> Rect:
        """The intersection with another rectangle, possibly empty."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Rect(left, top, max(0, right - left), max(0, bottom - top))

    def united(self, other: Rect) -> Rect:
        """The smallest rectangle that contains both; one of them if possible."""
        if other.contains(self):
            return other
        if self.contains(other):
            return self
        left, top = min(self.left, other.left), min(self.top, other.top)
        return Rect(left, top, max(self.right, other.right) - left,
                    max(self.bottom, other.bottom) - top)

    def contains(self, other: Rect) -> bool:
        """Whether another rectangle lies entirely inside this one."""
        return (self.left <= other.left and self.top <= other.top and
                other.right <= self.right and other.bottom <= self.bottom)
