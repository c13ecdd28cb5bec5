"""
Compute the lower levels of a canvas on demand, and cache them as blocks.

A block is computed by halving four blocks of the next larger level.  It is kept in the
spool until a pixel under it changes, so viewing a growing image at low magnification
computes a few blocks per added tile.

Blank blocks are not stored, so the time to read and to invalidate depends on the blocks
that exist, not on the area between them.
"""

from __future__ import annotations

import threading

import numpy as np

from ..base.geometry import Rect, Size
from ..base.reduce import halve
from .blend import Array
from .blocks import BLOCK_SIZE, BlockKey
from .grid import block_area, parts
from .layers import Layers

# log2(BLOCK_SIZE), to shift pixels to blocks.
_BLOCK_BITS = BLOCK_SIZE.bit_length() - 1


class LowerLevels:
    """
    The blocks of levels 1 and up of a frame, in level pixels from the corner of the image.

    Pixels under a block must not change while it is computed: callers hold a lock on its
    ``footprint``.

    :param layers: the full resolution, and the storage for the blocks.
    :param frame: the frame number in the keys of its blocks.
    """

    def __init__(self, layers: Layers, frame: int) -> None:
        self._layers = layers
        self._frame = frame
        self._lock = threading.Lock()
        # The columns and rows of computed blocks, by level - 1.
        self._known: list[set[tuple[int, int]]] = []

    def gather(self, level: int, rect: Rect, size: Size, origin: tuple[int, int],
               averaged: bool) -> tuple[Array, Array | None] | None:
        """
        The samples of a rectangle, as returned by ``Layers.gather``.

        :param level: at least 1.
        :param rect: in pixels of that level.
        :param size: of the image in full-resolution pixels.
        :param origin: the corner of the image in caller coordinates.
        :param averaged: True to average samples, False to pick them.
        """
        for part in parts(self._frame, level, rect):
            if not self._is_known(part.key):
                self._make(part.key, size, origin, averaged)
        return self._layers.gather(self._frame, level, rect)

    def _is_known(self, key: BlockKey) -> bool:
        return key.level <= len(self._known) and (
            (key.column, key.row) in self._known[key.level - 1])

    def _make(self, key: BlockKey, size: Size, origin: tuple[int, int], averaged: bool) -> None:
        """Compute a block, and the blocks of larger levels that it needs."""
        layers, finer = self._layers, key.level - 1
        side = 2 * BLOCK_SIZE
        rect = Rect(key.column * side, key.row * side, side, side).clipped(
            Rect(0, 0, *size.reduced(finer)))
        if rect.empty:
            return
        place = Rect(*(value << finer for value in rect)).moved(*origin)
        if not layers.occupied.any(self._frame, block_area(place)):
            return
        found = (layers.gather(self._frame, 0, place) if finer == 0 else
                 self.gather(finer, rect, size, origin, averaged))
        if found is None:
            return
        color, alpha = halve(*found, averaged)
        rows, cols = color.shape[:2]
        whole = np.zeros(layers.color.shape, layers.dtype)
        whole[:rows, :cols] = color
        if alpha is not None:
            whole_alpha = np.zeros(layers.alpha.shape, layers.dtype)
            whole_alpha[:rows, :cols, 0] = alpha
            layers.alpha.publish(key, whole_alpha)
        layers.color.publish(key, whole)
        with self._lock:
            while len(self._known) < key.level:
                self._known.append(set())
            self._known[key.level - 1].add((key.column, key.row))

    def forget(self, left: int, top: int, right: int, bottom: int,
               origin: tuple[int, int]) -> None:
        """
        Drop the blocks that cover a rectangle.

        :param left: the left edge in caller coordinates.
        :param top: the top edge.
        :param right: the right edge, exclusive.
        :param bottom: the bottom edge, exclusive.
        :param origin: the corner of the image in caller coordinates.
        """
        left, top = left - origin[0], top - origin[1]
        right, bottom = right - origin[0] - 1, bottom - origin[1] - 1
        hit = []
        with self._lock:
            for level, known in enumerate(self._known, 1):
                # From full-resolution pixels to blocks of the level.
                scale = level + _BLOCK_BITS
                hit += [BlockKey(self._frame, level, *block) for block in _inside(
                    known, left >> scale, top >> scale, right >> scale, bottom >> scale)]
            self._drop(hit)

    def forget_edges(self, size: Size) -> None:
        """
        Drop the blocks at the right and bottom edge, when the image grows.

        If a side is odd, their last pixels are means of fewer pixels than in the larger
        image.

        :param size: of the image when they were computed.
        """
        hit = []
        with self._lock:
            for level, known in enumerate(self._known, 1):
                scale = level + _BLOCK_BITS
                right, bottom = (size.width - 1) >> scale, (size.height - 1) >> scale
                edge = {*_inside(known, right, 0, right, bottom),
                        *_inside(known, 0, bottom, right, bottom)}
                hit += [BlockKey(self._frame, level, *block) for block in edge]
            self._drop(hit)

    def forget_all(self) -> None:
        """Drop all blocks."""
        with self._lock:
            self._drop([BlockKey(self._frame, level, *block)
                        for level, known in enumerate(self._known, 1) for block in known])

    def _drop(self, keys: list[BlockKey]) -> None:
        """Free blocks; call with the lock held."""
        if not keys:
            return
        self._layers.color.release(keys)
        self._layers.alpha.release(keys)
        for key in keys:
            self._known[key.level - 1].discard((key.column, key.row))


def footprint(level: int, rect: Rect) -> Rect:
    """
    The full-resolution area from which the blocks under a rectangle are computed.

    :param level: 0 for full resolution.
    :param rect: in pixels of that level.
    :returns: in full-resolution pixels, from the corner of the image.
    """
    if level == 0:
        return rect
    left, top, width, height = block_area(rect)
    scale = level + _BLOCK_BITS
    return Rect(left << scale, top << scale, width << scale, height << scale)


def _inside(known: set[tuple[int, int]], left: int, top: int, right: int,
            bottom: int) -> list[tuple[int, int]]:
    """
    The blocks within a range of columns and rows, both ends inclusive.

    Iterates over the smaller of the two, so the time to add a tile does not grow with the
    image.
    """
    if (right - left + 1) * (bottom - top + 1) <= len(known):
        return [(column, row) for row in range(top, bottom + 1)
                for column in range(left, right + 1) if (column, row) in known]
    return [(column, row) for column, row in known
            if left <= column <= right and top <= row <= bottom]
