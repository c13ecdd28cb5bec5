"""
The lower levels of a canvas: blocks too, made when asked for.

A block of a level is the four blocks of the level below it (in the sense of
"nearer to the full resolution"), halved.  It is kept in the spool and forgotten
when a pixel under it changes, so looking at a growing image at low
magnification costs a few blocks for each tile that was added.
"""

from __future__ import annotations

import threading

import numpy as np

from .blocks import BLOCK_SIZE, BlockKey
from .compose import Array, halve
from .geometry import Rect, Size
from .layers import Layers, parts


class LowerLevels:
    """
    The blocks of the levels 1 and up of the layers of a canvas.

    Their plane is that of the level's pixels, counted from the corner of the
    image.  Callers see to it that nothing under a block changes while it is
    made, and that blocks are forgotten by one thread at a time.

    :param layers: where the blocks are kept and the full resolution is.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._lock = threading.Lock()
        # All blocks that were made; the blank ones among them have no slot.
        self._known: set[BlockKey] = set()

    def gather(self, level: int, rect: Rect, size: Size, origin: tuple[int, int],
               averaged: bool) -> tuple[Array, Array | None] | None:
        """
        The samples of a rectangle, as ``Layers.gather`` gives them.

        :param level: at least 1.
        :param rect: in pixels of that level.
        :param size: of the image in full-resolution pixels.
        :param origin: the corner of the image in the caller plane.
        :param averaged: whether to average, or to pick samples.
        """
        for part in parts(0, level, rect):
            if part.key not in self._known:
                self._make(part.key, size, origin, averaged)
        return self._layers.gather(level, rect)

    def _make(self, key: BlockKey, size: Size, origin: tuple[int, int], averaged: bool) -> None:
        """Make a block out of those under it, and those where they lack."""
        layers, finer = self._layers, key.level - 1
        side = 2 * BLOCK_SIZE
        rect = Rect(key.column * side, key.row * side, side, side).clipped(
            Rect(0, 0, *size.reduced(finer)))
        found = None
        if not rect.empty:
            found = (layers.gather(0, rect.moved(*origin)) if finer == 0 else
                     self.gather(finer, rect, size, origin, averaged))
        if found is not None:
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
            self._known.add(key)

    def forget(self, rect: Rect, origin: tuple[int, int]) -> None:
        """
        Forget what was made of a rectangle.

        :param rect: in the caller plane.
        :param origin: the corner of the image in the caller plane.
        """
        if not self._known:
            return
        rect = rect.moved(-origin[0], -origin[1])
        hit = []
        for level in range(1, 1 + max(key.level for key in self._known)):
            left, top = rect.left >> level, rect.top >> level
            area = Rect(left, top, ((rect.right - 1) >> level) + 1 - left,
                        ((rect.bottom - 1) >> level) + 1 - top)
            hit += [part.key for part in parts(0, level, area) if part.key in self._known]
        self._forget(hit)

    def forget_edges(self, size: Size) -> None:
        """
        Forget the blocks at the right and bottom edge.

        Where a dimension is odd they hold a repeated last pixel, which a
        larger image does not have there.

        :param size: the size of the image when they were made.
        """
        right, bottom = size.width - 1, size.height - 1
        self._forget([
            key for key in self._known
            if key.column == (right >> key.level) // BLOCK_SIZE or
            key.row == (bottom >> key.level) // BLOCK_SIZE])

    def forget_all(self) -> None:
        """Forget every block."""
        self._forget(list(self._known))

    def _forget(self, keys: list[BlockKey]) -> None:
        self._layers.color.release(keys)
        self._layers.alpha.release(keys)
        with self._lock:
            self._known.difference_update(keys)
