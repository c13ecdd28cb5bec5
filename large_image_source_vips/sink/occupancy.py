"""
Determine in constant time whether an area of a frame has any blocks.

A canvas may have a few blocks among millions of possible ones; the time depends neither on
the size of the area nor on the number of blocks.
"""

from __future__ import annotations

from ..base.geometry import Rect

# The largest squares have 2 ** 16 blocks a side; four of them cover the largest canvas.
_SCALES = 17


class Occupancy:
    """
    The squares of 2 ** n blocks a side, n from 0 to 16, that contain blocks.

    Blocks are never removed.
    """

    def __init__(self) -> None:
        # The frame, the column and the row, by scale.
        self._squares: list[set[tuple[int, int, int]]] = [set() for _ in range(_SCALES)]

    def add(self, frame: int, column: int, row: int) -> None:
        """Add a block."""
        for squares in self._squares:
            square = frame, column, row
            if square in squares:
                # Then the larger squares that contain it are present, too.
                return
            squares.add(square)
            column, row = column >> 1, row >> 1

    def any(self, frame: int, area: Rect) -> bool:
        """
        Whether a rectangle may contain blocks; False means that it contains none.

        :param frame: as in the key of a block.
        :param area: block columns and rows.
        """
        # At this scale, the rectangle touches at most three squares in each direction.
        scale = min(max(0, (max(area.width, area.height) - 1).bit_length() - 1), _SCALES - 1)
        squares = self._squares[scale]
        for row in range(area.top >> scale, ((area.bottom - 1) >> scale) + 1):
            for column in range(area.left >> scale, ((area.right - 1) >> scale) + 1):
                if (frame, column, row) in squares:
                    return True
        return False
