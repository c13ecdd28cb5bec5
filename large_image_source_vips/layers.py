"""
The blocks of a canvas in one format: its colour plane and its alpha plane.

=============  ===========  ======================================
colour slot    alpha slot   the block is
=============  ===========  ======================================
no             no           blank: 0, and transparent
yes            no           opaque
yes            yes          partly transparent
=============  ===========  ======================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from large_image.exceptions import TileSourceError

from .blocks import BLOCK_SIZE, BlockKey, BlockPool, Plane
from .compose import Array, paste
from .formats import opaque_alpha
from .geometry import Rect
from .samples import Meaning, converted, converted_alpha
from .spool import Spool


class Part(NamedTuple):
    """Where a rectangle and a block overlap."""

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


def parts(frame: int, level: int, rect: Rect) -> Iterator[Part]:
    """
    The overlaps of a rectangle with the blocks of its plane.

    :param frame: the frame of the blocks.
    :param level: their level.
    :param rect: in pixels; for level 0 in the caller plane, for others in that
        level's.
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
    """
    Where a block and a stretch overlap, in one direction.

    :returns: the part of the block, that of the stretch, and whether all of the
        block is covered.
    """
    corner = block * BLOCK_SIZE
    first, end = max(start, corner), min(start + length, corner + BLOCK_SIZE)
    return (slice(first - corner, end - corner), slice(first - start, end - start),
            end - first == BLOCK_SIZE)


@dataclass(frozen=True)
class Layers:
    """
    Colour and alpha planes that share a pool and a spool.

    :param meaning: what the bands are.
    :param pool: the blocks in memory.
    :param color: the colour samples of every block that is not blank.
    :param alpha: the alpha samples of the blocks that are not opaque.
    """

    meaning: Meaning
    pool: BlockPool
    color: Plane
    alpha: Plane

    @classmethod
    def make(cls, dtype: np.dtype[Any], meaning: Meaning) -> Layers:
        """Planes without any block, in a new spool."""
        pool = BlockPool(Spool())
        return cls(meaning, pool, Plane(pool, dtype, meaning.color_bands), Plane(pool, dtype, 1))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of all samples."""
        return self.color.dtype

    def converted(self, dtype: np.dtype[Any], meaning: Meaning) -> Layers:
        """
        The same in another format: these blocks where they serve, else new ones.

        Lower levels are left behind where the blocks are new.

        :raises TileSourceError: if the disk has no room for both.
        """
        if dtype == self.dtype and meaning.color_bands == self.meaning.color_bands:
            return Layers(meaning, self.pool, self.color, self.alpha)
        new = Layers.make(dtype, meaning)
        for key in [key for key in self.color.slots if key.level == 0]:
            new.color.publish(key, np.ascontiguousarray(
                converted(self.color.read(key), dtype, meaning.color_bands)))
        for key in [key for key in self.alpha.slots if key.level == 0]:
            new.alpha.publish(key, np.ascontiguousarray(
                converted_alpha(self.alpha.read(key), dtype)))
        return new

    def paste(self, rect: Rect, color: Array, alpha: Array | None,
              mask: npt.NDArray[np.bool_] | None) -> None:
        """
        Copy a tile into the blocks of the full resolution under it.

        :param rect: where, in the caller plane.
        :param color: (rows, cols, color bands) in this format.
        :param alpha: (rows, cols) in this format, or None if all is opaque.
        :param mask: (rows, cols), False where nothing changes, or None.
        :raises TileSourceError: if the disk has no room; nothing has changed
            then.
        """
        replaces = mask is None and alpha is None
        touched = list(parts(0, 0, rect))
        fresh = set(self.color.reserve([part.key for part in touched]))
        fresh_alpha = set[BlockKey]()
        if fresh and self.meaning.has_alpha:
            try:
                fresh_alpha.update(self.alpha.reserve([
                    part.key for part in touched
                    if part.key in fresh and not (part.whole and replaces)]))
            except TileSourceError:
                self.color.release(fresh)
                raise
        try:
            for part in touched:
                if part.whole and replaces:
                    self.color.overwrite(part.key, np.ascontiguousarray(color[part.in_rect]))
                    self.alpha.release([part.key])
                    continue
                self._paste_part(
                    part, color[part.in_rect], None if alpha is None else alpha[part.in_rect],
                    None if mask is None else mask[part.in_rect],
                    part.key in fresh, part.key in fresh_alpha)
        except BaseException:
            self.color.release(fresh)
            self.alpha.release(fresh_alpha)
            raise

    def _paste_part(self, part: Part, color: Array, alpha: Array | None,
                    mask: npt.NDArray[np.bool_] | None, fresh: bool, fresh_alpha: bool) -> None:
        key = part.key
        with self.color.changing(key, fresh) as below:
            if key not in self.alpha.slots:
                paste(below[part.in_block], None, color, alpha, mask)
                return
            with self.alpha.changing(key, fresh_alpha) as below_alpha:
                paste(below[part.in_block], below_alpha[part.in_block][:, :, 0],
                      color, alpha, mask)
                opaque = _is_opaque(below_alpha)
        if opaque:
            self.alpha.release([key])

    def gather(self, level: int, rect: Rect) -> tuple[Array, Array | None] | None:
        """
        The samples of a rectangle.

        :param level: the level of the blocks to take them from.
        :param rect: in pixels of the plane of those blocks.
        :returns: colour (rows, cols, color bands) and alpha (rows, cols), which
            is None if all is opaque or there is no alpha; None if all is blank.
            The arrays may be those of a block: they must not be changed.
        """
        found = [(part, part.key in self.alpha.slots) for part in parts(0, level, rect)
                 if part.key in self.color.slots]
        if not found:
            return None
        opaque = len(found) == block_count(rect) and not any(partly for _, partly in found)
        needs_alpha = self.meaning.has_alpha and not opaque
        if len(found) == 1 == block_count(rect):
            part = found[0][0]
            return (self.color.read(part.key)[part.in_block],
                    self.alpha.read(part.key)[part.in_block][:, :, 0] if needs_alpha else None)
        shape = (rect.height, rect.width)
        whole = np.empty if len(found) == block_count(rect) else np.zeros
        color = whole((*shape, self.meaning.color_bands), self.dtype)
        alpha = np.zeros(shape, self.dtype) if needs_alpha else None
        for part, partly in found:
            color[part.in_rect] = self.color.read(part.key)[part.in_block]
            if alpha is not None:
                alpha[part.in_rect] = (
                    self.alpha.read(part.key)[part.in_block][:, :, 0] if partly
                    else opaque_alpha(self.dtype))
        return color, alpha

    def is_opaque(self, rect: Rect) -> bool:
        """Whether no pixel of a full-resolution rectangle lets anything through."""
        if not self.meaning.has_alpha:
            return True
        for part in parts(0, 0, rect):
            if part.key not in self.color.slots:
                return False
            if part.key in self.alpha.slots:
                alpha = self.alpha.read(part.key)[part.in_block]
                if (alpha != opaque_alpha(self.dtype)).any():
                    return False
        return True


def _is_opaque(alpha: Array) -> bool:
    """Whether every pixel of a block hides what is below it."""
    value = opaque_alpha(alpha.dtype)
    # Most blocks that are not show it in the last corner, or soon.
    return bool(alpha[-1, -1, 0] == value and (alpha[::31, ::31] == value).all() and
                alpha.min() == value == alpha.max())


def block_count(rect: Rect) -> int:
    """How many blocks a rectangle touches."""
    area = block_area(rect)
    return area.width * area.height
