"""
Find the blocks that a rectangle touches, and the overlap with each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..base.geometry import Rect
from .blocks import BLOCK_SIZE, BlockKey


class Part(NamedTuple):
    """The overlap of a rectangle and a block."""

    key: BlockKey
    in_block: tuple[slice, slice]
    in_rect: tuple[slice, slice]
    whole: bool


def block_area(rect: Rect) -> Rect:
    """The block columns and rows that a rectangle touches."""
    x, y, width, height = rect
    left, top = x // BLOCK_SIZE, y // BLOCK_SIZE
    return Rect(left, top, (x + width - 1) // BLOCK_SIZE + 1 - left,
                (y + height - 1) // BLOCK_SIZE + 1 - top)


def block_count(rect: Rect) -> int:
    """The number of blocks that a rectangle touches."""
    area = block_area(rect)
    return area.width * area.height


def parts(frame: int, level: int, rect: Rect) -> Iterator[Part]:
    """
    The overlaps of a rectangle with blocks.

    :param frame: of the blocks.
    :param level: of the blocks.
    :param rect: in pixels of the level; for level 0 in caller coordinates.
    """
    left, top, width, height = rect
    column, row, columns, rows = block_area(rect)
    across = [_overlap(number, left, width) for number in range(column, column + columns)]
    for down in range(row, row + rows):
        y_block, y_rect, y_whole = _overlap(down, top, height)
        for number, (x_block, x_rect, x_whole) in enumerate(across, column):
            yield Part(BlockKey(frame, level, number, down), (y_block, x_block),
                       (y_rect, x_rect), x_whole and y_whole)


def _overlap(block: int, start: int, length: int) -> tuple[slice, slice, bool]:
    """The overlapping slices of a block and an interval; whether they cover the block."""
    corner = block * BLOCK_SIZE
    first, end = max(start, corner), min(start + length, corner + BLOCK_SIZE)
    return (slice(first - corner, end - corner), slice(first - start, end - start),
            end - first == BLOCK_SIZE)


def overlap(key: BlockKey, rect: Rect) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The rows and columns of a block, and those of a rectangle, where they overlap."""
    y_block, y_rect, _ = _overlap(key.row, rect.top, rect.height)
    x_block, x_rect, _ = _overlap(key.column, rect.left, rect.width)
    return (y_block, x_block), (y_rect, x_rect)


def blocks_in(area: Rect) -> Iterator[tuple[int, int]]:
    """The columns and rows of all blocks in an area."""
    for row in range(area.top, area.bottom):
        for column in range(area.left, area.right):
            yield column, row
