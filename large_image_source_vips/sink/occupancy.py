"""
Which areas of a canvas have blocks, at every scale.

A canvas may be a few blocks in a plane of millions of places.  This tells
whether a rectangle of block columns and rows has any, in time that depends
neither on its size nor on how many blocks there are.
"""

from __future__ import annotations

from ..base.geometry import Rect

# Squares of 2 ** 16 blocks a side: four of them hold the largest canvas.
_SCALES = 17


class Occupancy:
    """
    The squares of 2 ** n blocks a side, n from 0 to 16, that hold any block.

    Blocks are only ever added.
    """

    def __init__(self) -> None:
        self._squares: list[set[tuple[int, int]]] = [set() for _ in range(_SCALES)]

    def add(self, column: int, row: int) -> None:
        """Count a block in; it costs little where it has neighbours."""
        for squares in self._squares:
            square = column, row
            if square in squares:
                # Then the larger ones around it are there, too.
                return
            squares.add(square)
            column, row = column >> 1, row >> 1

    def any(self, area: Rect) -> bool:
        """
        Whether a rectangle may hold blocks: False only if it holds none.

        :param area: block columns and rows.
        """
        # At this scale, the rectangle touches at most three squares each way.
        scale = min(max(0, (max(area.width, area.height) - 1).bit_length() - 1), _SCALES - 1)
        squares = self._squares[scale]
        for row in range(area.top >> scale, ((area.bottom - 1) >> scale) + 1):
            for column in range(area.left >> scale, ((area.right - 1) >> scale) + 1):
                if (column, row) in squares:
                    return True
        return False
