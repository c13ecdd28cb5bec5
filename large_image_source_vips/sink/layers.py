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

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..base.formats import Meaning, converted, converted_alpha, is_averaged, opaque_alpha
from ..base.geometry import Rect
from ..base.reduce import with_alpha
from .blend import Array, paste
from .blocks import BLOCK_SIZE, BlockKey, BlockPool, FrozenPlane, Plane
from .occupancy import Occupancy
from .spool import Spool

# A tile over more blocks than this is written block by block; the blocks of
# others are held in memory while they are changed.
IN_PLACE = 64


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
class FrozenLayers:
    """
    Colour and alpha blocks that are read.

    :param meaning: what the bands are.
    :param color: the colour samples of every block that is not blank.
    :param alpha: the alpha samples of the blocks that are not opaque.
    """

    meaning: Meaning
    color: Plane | FrozenPlane
    alpha: Plane | FrozenPlane

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of all samples."""
        return self.color.dtype

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

    def pixels(self, found: tuple[Array, Array | None] | None, rect: Rect) -> Array:
        """
        Colour and alpha in one new array (rows, cols, bands); blank places are 0.

        :param found: what ``gather`` gave.
        :param rect: for what.
        """
        if found is None:
            return np.zeros((rect.height, rect.width, self.meaning.bands), self.dtype)
        return with_alpha(*found) if self.meaning.has_alpha else found[0].copy()

    @property
    def averaged(self) -> bool:
        """Whether lower levels are averaged; labels are not."""
        return is_averaged(self.dtype) and not self.meaning.labels

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


@dataclass(frozen=True)
class Layers(FrozenLayers):
    """
    Colour and alpha planes that share a pool and a spool.

    :param occupied: where there are blocks.
    """

    color: Plane
    alpha: Plane
    occupied: Occupancy

    @classmethod
    def make(cls, dtype: np.dtype[Any], meaning: Meaning) -> Layers:
        """Planes without any block, in a new spool."""
        pool = BlockPool(Spool())
        return cls(meaning, Plane(pool, dtype, meaning.color_bands, 0), Plane(pool, dtype, 1, 1),
                   Occupancy())

    def converted(self, dtype: np.dtype[Any], meaning: Meaning) -> Layers:
        """
        The same in another format: these blocks where they serve, else new ones.

        Lower levels are left behind where the blocks are new.

        :raises TileSourceError: if the disk has no room for both.
        """
        if dtype == self.dtype and meaning.color_bands == self.meaning.color_bands:
            return replace(self, meaning=meaning)
        new = Layers.make(dtype, meaning)
        for key in [key for key in self.color.slots if key.level == 0]:
            new.color.publish(key, converted(self.color.read(key), dtype, meaning.color_bands))
            new.occupied.add(key.column, key.row)
        for key in [key for key in self.alpha.slots if key.level == 0]:
            new.alpha.publish(key, converted_alpha(self.alpha.read(key), dtype))
        return new

    @property
    def pool(self) -> BlockPool:
        """What both planes share."""
        return self.color.pool

    @contextmanager
    def frozen(self) -> Iterator[FrozenLayers]:
        """
        The full resolution as it is now, for as long as the context lasts.

        Nothing may be changing while the context is entered.
        """
        color = self.color.snapshot()
        try:
            alpha = self.alpha.snapshot()
            try:
                yield FrozenLayers(self.meaning, color, alpha)
            finally:
                alpha.release()
        finally:
            color.release()

    def put_block(self, key: BlockKey, place: int) -> None:
        """
        Have an opaque block replace the one at an address.

        :param key: the address.
        :param place: what ``color.store`` gave.
        """
        self.color.put(key, place)
        if key in self.alpha.slots:
            self.alpha.release([key])
        self.occupied.add(key.column, key.row)

    def paste_in_memory(self, tile: Array, x: int, y: int, right: int, bottom: int) -> bool:
        """
        Copy an opaque tile into the one block under it, if that is in memory.

        :param tile: (rows, cols, color bands) in this format.
        :param x: the column of its left edge in the caller plane.
        :param y: the row of its top edge in the caller plane.
        :param right: the column behind its right edge.
        :param bottom: the row behind its bottom edge.
        :returns: whether it was copied; else nothing was done.
        """
        column, row = x // BLOCK_SIZE, y // BLOCK_SIZE
        color_plane, alpha_plane = self.color, self.alpha
        if ((right - 1) // BLOCK_SIZE != column or (bottom - 1) // BLOCK_SIZE != row or
                color_plane.pinned):
            return False
        key = BlockKey(0, 0, column, row)
        in_memory = color_plane.pool.held
        color = in_memory.get((0, key))
        if color is None:
            return False
        left, top = column * BLOCK_SIZE, row * BLOCK_SIZE
        place = slice(y - top, bottom - top), slice(x - left, right - left)
        if key in alpha_plane.slots:
            alpha = in_memory.get((1, key))
            if alpha is None:
                return False
            alpha.samples[place] = opaque_alpha(self.dtype)
            alpha.dirty = True
            if _is_opaque(alpha.samples):
                alpha_plane.release([key])
        color.samples[place] = tile
        color.dirty = True
        return True

    def paste(self, rect: Rect, color: Array, alpha: Array | None,
              mask: npt.NDArray[np.bool_] | None) -> None:
        """
        Copy a tile into the blocks of the full resolution under it.

        :param rect: where, in the caller plane.
        :param color: (rows, cols, color bands) in this format.
        :param alpha: (rows, cols) in this format, or None if all is opaque.
        :param mask: (rows, cols), False where nothing changes, or None.
        :raises TileSourceError: if the disk has no room or cannot be read;
            nothing has changed then.
        """
        change = _Change(self, mask is None and alpha is None)
        touched = list(parts(0, 0, rect))
        try:
            for part in touched:
                change.prepare(
                    part, color[part.in_rect], None if alpha is None else alpha[part.in_rect],
                    None if mask is None else mask[part.in_rect],
                    in_place=len(touched) <= IN_PLACE)
        except BaseException:
            change.undo()
            raise
        change.carry_out()


class _Change:
    """
    A tile on its way into blocks: first all that can fail, then all that cannot.

    Whole blocks, and those of large tiles, are written to new places, which
    replace the old ones at the end.  The few blocks that a small tile covers
    in part are held in memory and changed in place.

    :param layers: the planes.
    :param replaces: whether the tile hides all that is below it.
    """

    def __init__(self, layers: Layers, replaces: bool) -> None:
        self._layers = layers
        self._replaces = replaces
        self._undo: list[Callable[[], None]] = []
        self._do: list[Callable[[], None]] = []

    def prepare(self, part: Part, color: Array, alpha: Array | None,
                mask: npt.NDArray[np.bool_] | None, *, in_place: bool) -> None:
        """
        Get a block ready.

        :param part: where the tile and the block overlap.
        :param color: the tile there, (rows, cols, color bands).
        :param alpha: (rows, cols), or None if all of the tile is opaque.
        :param mask: (rows, cols), False where nothing changes, or None.
        :param in_place: whether the block is changed in memory.
        """
        layers, key = self._layers, part.key
        if part.whole and self._replaces:
            self._replace(layers.color, key, color)
            self._do.append(partial(layers.alpha.release, [key]))
            return
        fresh = key not in layers.color.slots
        has_alpha = key in layers.alpha.slots or (fresh and layers.meaning.has_alpha)
        if in_place:
            self._hold(part, color, alpha, mask, has_alpha)
            return
        below = (np.zeros(layers.color.shape, layers.dtype) if fresh
                 else layers.color.read(key).copy())
        below_alpha = None
        if has_alpha:
            below_alpha = (np.zeros(layers.alpha.shape, layers.dtype) if fresh
                           else layers.alpha.read(key).copy())
        _paste_part(part, below, below_alpha, color, alpha, mask)
        self._replace(layers.color, key, below)
        if below_alpha is not None:
            if _is_opaque(below_alpha):
                self._do.append(partial(layers.alpha.release, [key]))
            else:
                self._replace(layers.alpha, key, below_alpha)

    def _replace(self, plane: Plane, key: BlockKey, samples: Array) -> None:
        """Write a block to a new place."""
        place = plane.store(samples)
        self._undo.append(partial(plane.give_back, place))
        self._do.append(partial(plane.put, key, place))
        if plane is self._layers.color:
            self._do.append(partial(self._layers.occupied.add, key.column, key.row))

    def _hold(self, part: Part, color: Array, alpha: Array | None,
              mask: npt.NDArray[np.bool_] | None, has_alpha: bool) -> None:
        """Hold a block in memory, to be changed there."""
        layers, key = self._layers, part.key
        held, take_back = layers.color.hold(key)
        self._undo.append(take_back)
        held_alpha = None
        if has_alpha:
            held_alpha, take_back = layers.alpha.hold(key)
            self._undo.append(take_back)

        def change() -> None:
            below_alpha = None if held_alpha is None else held_alpha.samples
            _paste_part(part, held.samples, below_alpha, color, alpha, mask)
            held.dirty = True
            held.pins -= 1
            layers.occupied.add(key.column, key.row)
            if held_alpha is not None:
                held_alpha.dirty = True
                held_alpha.pins -= 1
                if _is_opaque(held_alpha.samples):
                    layers.alpha.release([key])

        self._do.append(change)

    def undo(self) -> None:
        """Give back what was taken; the blocks are as they were."""
        for step in reversed(self._undo):
            step()

    def carry_out(self) -> None:
        """Make the change seen."""
        for step in self._do:
            step()


def _paste_part(part: Part, color: Array, alpha: Array | None, tile_color: Array,
                tile_alpha: Array | None, mask: npt.NDArray[np.bool_] | None) -> None:
    """Put the part of a tile over that of a block, in place."""
    paste(color[part.in_block], None if alpha is None else alpha[part.in_block][:, :, 0],
          tile_color, tile_alpha, mask)


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
