"""
Pastes tiles into the colour and alpha blocks of a canvas, and reads rectangles of them.

A failed paste changes nothing.

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
from ..base.limits import LIMITS
from ..base.reduce import with_alpha
from .blend import Array, paste
from .blocks import BLOCK_SIZE, BlockKey, BlockPool, FrozenPlane, Plane
from .occupancy import Occupancy
from .spool import Spool


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
    The overlaps of a rectangle with the blocks of its plane.

    :param frame: of the blocks.
    :param level: of the blocks.
    :param rect: in pixels of the level; for level 0 in the caller plane.
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
    """The slices of a block and an interval that overlap; whether they cover the block."""
    corner = block * BLOCK_SIZE
    first, end = max(start, corner), min(start + length, corner + BLOCK_SIZE)
    return (slice(first - corner, end - corner), slice(first - start, end - start),
            end - first == BLOCK_SIZE)


@dataclass(frozen=True)
class FrozenLayers:
    """
    Colour and alpha blocks, read-only.

    :param meaning: what the bands are.
    :param color: the colour samples of all blocks that are not blank.
    :param alpha: the alpha samples of those that are not opaque.
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

        :param level: of the blocks.
        :param rect: in pixels of the level; for level 0 in the caller plane.
        :returns: colour (rows, cols, color bands) and alpha (rows, cols), which is
            None if all pixels are opaque or there is no alpha; None if all are blank.
        """
        found = [(part, part.key in self.alpha.slots) for part in parts(0, level, rect)
                 if part.key in self.color.slots]
        if not found:
            return None
        opaque = len(found) == block_count(rect) and not any(partly for _, partly in found)
        needs_alpha = self.meaning.has_alpha and not opaque
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
        Combine gathered colour and alpha in a new array (rows, cols, bands).

        :param found: the result of ``gather``; blank pixels become 0.
        :param rect: the gathered rectangle.
        """
        if found is None:
            return np.zeros((rect.height, rect.width, self.meaning.bands), self.dtype)
        return with_alpha(*found) if self.meaning.has_alpha else found[0]

    @property
    def averaged(self) -> bool:
        """Whether lower levels are averaged, not picked."""
        return is_averaged(self.dtype) and not self.meaning.labels

    def is_opaque(self, rect: Rect) -> bool:
        """Whether all pixels of a rectangle (caller plane) are opaque."""
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

    :param occupied: the areas that have blocks.
    """

    color: Plane
    alpha: Plane
    occupied: Occupancy

    @classmethod
    def make(cls, dtype: np.dtype[Any], meaning: Meaning) -> Layers:
        """Create empty planes with a new spool."""
        pool = BlockPool(Spool())
        return cls(meaning, Plane(pool, dtype, meaning.color_bands, 0), Plane(pool, dtype, 1, 1),
                   Occupancy())

    def converted(self, dtype: np.dtype[Any], meaning: Meaning) -> Layers:
        """
        The same pixels in another format.

        Uses these planes if their blocks have that format already, else converts the
        full resolution to new planes.

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
        """The pool of both planes."""
        return self.color.pool

    @contextmanager
    def frozen(self) -> Iterator[FrozenLayers]:
        """
        Freeze the full resolution as it is now while the context lasts.

        Nothing may change while the context is entered.
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

    def put_block(self, key: BlockKey, offset: int) -> None:
        """
        Replace a block by an opaque one.

        :param key: the block.
        :param offset: returned by ``color.store``.
        """
        self.color.put(key, offset)
        if key in self.alpha.slots:
            self.alpha.release([key])
        self.occupied.add(key.column, key.row)

    def paste_in_memory(self, tile: Array, x: int, y: int, right: int, bottom: int) -> bool:
        """
        Copy an opaque tile to one block, if the block is in memory.

        :param tile: (rows, cols, color bands) in this format.
        :param x: the column of its left edge in the caller plane.
        :param y: the row of its top edge in the caller plane.
        :param right: its right edge, exclusive.
        :param bottom: its bottom edge, exclusive.
        :returns: whether it was copied; if not, nothing has changed.
        """
        column, row = x // BLOCK_SIZE, y // BLOCK_SIZE
        color_plane, alpha_plane = self.color, self.alpha
        if ((right - 1) // BLOCK_SIZE != column or (bottom - 1) // BLOCK_SIZE != row or
                color_plane.pinned):
            return False
        key = BlockKey(0, 0, column, row)
        left, top = column * BLOCK_SIZE, row * BLOCK_SIZE
        place = slice(y - top, bottom - top), slice(x - left, right - left)
        in_memory = color_plane.pool.held
        # Other threads may evict blocks meanwhile.
        with color_plane.pool.lock:
            color = in_memory.get((0, key))
            if color is None:
                return False
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
        Paste a tile into the full-resolution blocks under it.

        :param rect: the tile's position and size in the caller plane.
        :param color: (rows, cols, color bands) in this format.
        :param alpha: (rows, cols) in this format, or None if all pixels are opaque.
        :param mask: (rows, cols), False where nothing changes, or None.
        :raises TileSourceError: if the disk is full or cannot be read; nothing has
            changed then.
        """
        change = _Change(self, mask is None and alpha is None)
        touched = list(parts(0, 0, rect))
        try:
            for part in touched:
                change.prepare(
                    part, color[part.in_rect], None if alpha is None else alpha[part.in_rect],
                    None if mask is None else mask[part.in_rect],
                    in_place=len(touched) <= LIMITS.sink_pinned_blocks)
        except BaseException:
            change.undo()
            raise
        change.commit()


class _Change:
    """
    The change that pasting a tile makes: ``prepare`` may fail, ``commit`` cannot.

    Blocks that a tile covers, and those of large tiles, are written to new offsets,
    which replace the old ones at the end.  Blocks that a small tile covers partly are
    held in memory and changed in place.

    :param layers: the planes.
    :param replaces: whether all pixels of the tile are pasted and opaque.
    """

    def __init__(self, layers: Layers, replaces: bool) -> None:
        self._layers = layers
        self._replaces = replaces
        self._undo: list[Callable[[], None]] = []
        self._do: list[Callable[[], None]] = []

    def prepare(self, part: Part, color: Array, alpha: Array | None,
                mask: npt.NDArray[np.bool_] | None, *, in_place: bool) -> None:
        """
        Prepare the change of a block.

        :param part: the overlap of the tile and the block.
        :param color: the tile there, (rows, cols, color bands).
        :param alpha: (rows, cols), or None if the whole tile is opaque.
        :param mask: (rows, cols), False where nothing changes, or None.
        :param in_place: whether to change the block in memory.
        :raises TileSourceError: if the disk is full or cannot be read.
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
        """Write a block to a new offset."""
        offset = plane.store(samples)
        self._undo.append(partial(plane.give_back, offset))
        self._do.append(partial(plane.put, key, offset))
        if plane is self._layers.color:
            self._do.append(partial(self._layers.occupied.add, key.column, key.row))

    def _hold(self, part: Part, color: Array, alpha: Array | None,
              mask: npt.NDArray[np.bool_] | None, has_alpha: bool) -> None:
        """Hold a block in memory to change it there."""
        layers, key = self._layers, part.key
        held, undo = layers.color.hold(key)
        self._undo.append(undo)
        held_alpha = None
        if has_alpha:
            held_alpha, undo = layers.alpha.hold(key)
            self._undo.append(undo)

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
        """Free everything prepared; the blocks are unchanged."""
        for step in reversed(self._undo):
            step()

    def commit(self) -> None:
        """Make the change visible to readers."""
        for step in self._do:
            step()


def _paste_part(part: Part, color: Array, alpha: Array | None, tile_color: Array,
                tile_alpha: Array | None, mask: npt.NDArray[np.bool_] | None) -> None:
    """Paste a part of a tile into a block, in place."""
    paste(color[part.in_block], None if alpha is None else alpha[part.in_block][:, :, 0],
          tile_color, tile_alpha, mask)


def _is_opaque(alpha: Array) -> bool:
    """Whether all pixels of a block are opaque."""
    value = opaque_alpha(alpha.dtype)
    # Most blocks that are not opaque have such a pixel in the last corner or the sample.
    return bool(alpha[-1, -1, 0] == value and (alpha[::31, ::31] == value).all() and
                alpha.min() == value == alpha.max())
