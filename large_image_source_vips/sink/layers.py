"""
The colour and alpha blocks of a canvas: read rectangles, replace blocks, freeze all.

===========  ==========  =================  ================================================
colour slot  alpha slot  interleaved slot   the block is
===========  ==========  =================  ================================================
no           no          no                 blank: 0, and transparent
yes          no          no                 opaque
yes          yes         no                 partly transparent
no           no          yes                partly transparent, and one whole tile as it was
                                            added: colour and alpha of a pixel are together
===========  ==========  =================  ================================================

Interleaved blocks need no copies to separate and join colour and alpha.  Measured: images
with holes are written in two thirds of the time.  To change a part of such a block, it is
separated first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from ..base.formats import Meaning, converted, converted_alpha, is_averaged, opaque_alpha
from ..base.geometry import Rect
from ..base.reduce import with_alpha
from ..base.transparency import Transparency, copy_bands, split_alpha, transparency_of
from .blend import Array
from .blocks import BLOCK_SIZE, BlockKey, BlockPool, FrozenPlane, Plane
from .grid import block_area, block_count, parts
from .occupancy import Occupancy
from .spool import Spool


@dataclass(frozen=True)
class FrozenLayers:
    """
    Colour and alpha blocks, read-only.

    :param meaning: the meaning of the bands.
    :param color: the colour samples of blocks that are not blank.
    :param alpha: the alpha samples of blocks that are not opaque.
    :param interleaved: colour and alpha samples of other blocks, which are not opaque.
    :param shaded: those of them with partly transparent pixels.
    """

    meaning: Meaning
    color: Plane | FrozenPlane
    alpha: Plane | FrozenPlane
    interleaved: Plane | FrozenPlane
    shaded: AbstractSet[BlockKey]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of all samples."""
        return self.color.dtype

    def gather(self, frame: int, level: int, rect: Rect) -> tuple[Array, Array | None] | None:
        """
        The samples of a rectangle.

        :param frame: of the blocks.
        :param level: of the blocks.
        :param rect: in pixels of the level; for level 0 in caller coordinates.
        :returns: colour (rows, cols, color bands) and alpha (rows, cols), which is
            None if all pixels are opaque or there is no alpha; None if all are blank.
        """
        found = [part for part in parts(frame, level, rect) if self.has(part.key)]
        if not found:
            return None
        first = found[0].key
        if found[0].whole and first in self.interleaved.slots and block_count(rect) == 1:
            return split_alpha(self.interleaved.copied(first), self.meaning.color_bands)
        opaque = len(found) == block_count(rect) and all(
            self.is_opaque(part.key) for part in found)
        needs_alpha = self.meaning.has_alpha and not opaque
        shape = (rect.height, rect.width)
        whole = np.empty if len(found) == block_count(rect) else np.zeros
        color = whole((*shape, self.meaning.color_bands), self.dtype)
        alpha = np.zeros(shape, self.dtype) if needs_alpha else None
        for part in found:
            block, block_alpha = self.block(part.key)
            copy_bands(color[part.in_rect], block[part.in_block])
            if alpha is not None:
                alpha[part.in_rect] = (opaque_alpha(self.dtype) if block_alpha is None else
                                       block_alpha[part.in_block])
        return color, alpha

    def _keys(self) -> Iterator[BlockKey]:
        """All blocks that are not blank."""
        return chain(self.color.slots, self.interleaved.slots)

    def has(self, key: BlockKey) -> bool:
        """Whether a block is not blank."""
        return key in self.color.slots or key in self.interleaved.slots

    def is_opaque(self, key: BlockKey) -> bool:
        """Whether all pixels of a block are opaque."""
        return key in self.color.slots and key not in self.alpha.slots

    def block(self, key: BlockKey) -> tuple[Array, Array | None]:
        """
        A block that is not blank; do not change it.

        :returns: colour (rows, cols, color bands) and alpha (rows, cols), None if opaque.
        """
        if key in self.interleaved.slots:
            return split_alpha(self.interleaved.read(key), self.meaning.color_bands)
        return self.color.read(key), (
            self.alpha.read(key)[:, :, 0] if key in self.alpha.slots else None)

    def pixels(self, found: tuple[Array, Array | None] | None, rect: Rect,
               show_alpha: bool = True) -> Array:
        """
        Combine gathered colour and alpha in a new array (rows, cols, bands).

        :param found: the result of ``gather``; blank pixels become 0.
        :param rect: the gathered rectangle.
        :param show_alpha: whether to return the alpha band, if there is one.
        """
        show_alpha = show_alpha and self.meaning.has_alpha
        if found is None:
            bands = self.meaning.color_bands + show_alpha
            return np.zeros((rect.height, rect.width, bands), self.dtype)
        return with_alpha(*found) if show_alpha else found[0]

    def blocks_of(self, frame: int) -> Sequence[BlockKey]:
        """The full-resolution blocks of a frame that are not blank."""
        return self._by_frame.get(frame, ())

    @cached_property
    def _by_frame(self) -> dict[int, list[BlockKey]]:
        found: dict[int, list[BlockKey]] = {}
        for key in self._keys():
            if key.level == 0:
                found.setdefault(key.frame, []).append(key)
        return found

    @property
    def averaged(self) -> bool:
        """Whether lower levels are averaged, not picked."""
        return is_averaged(self.dtype) and not self.meaning.labels

    def transparency(self, frame: int | None, rect: Rect) -> Transparency:
        """
        The transparency of a frame; see ``Picture``.

        :param frame: of its blocks; None if it has none.
        :param rect: in caller coordinates.
        """
        if not self.meaning.has_alpha:
            return 'none'
        area = block_area(rect)
        keys = [] if frame is None else [
            key for key in self.blocks_of(frame) if _is_inside(key, area)]
        found: Transparency = 'holes' if len(keys) < area.width * area.height else 'none'
        for key in keys:
            if self.is_opaque(key):
                continue
            block = Rect(key.column * BLOCK_SIZE, key.row * BLOCK_SIZE, BLOCK_SIZE, BLOCK_SIZE)
            if key in self.interleaved.slots and key not in self.shaded and rect.contains(block):
                found = 'holes'
                continue
            part, = parts(key.frame, 0, block.clipped(rect))
            alpha = self.block(key)[1]
            assert alpha is not None
            here = transparency_of(alpha[part.in_block])
            if here == 'partial':
                return here
            found = 'holes' if here == 'holes' else found
        return found


@dataclass(frozen=True)
class Layers(FrozenLayers):
    """
    Colour and alpha planes that share a pool and a spool.

    :param occupied: the areas that have blocks.
    """

    color: Plane
    alpha: Plane
    interleaved: Plane
    shaded: set[BlockKey]
    occupied: Occupancy

    @classmethod
    def make(cls, dtype: np.dtype[Any], meaning: Meaning) -> Layers:
        """Create empty planes with a new spool."""
        pool = BlockPool(Spool())
        bands = meaning.color_bands
        return cls(meaning, Plane(pool, dtype, bands, 0), Plane(pool, dtype, 1, 1),
                   Plane(pool, dtype, bands + 1, 2), set(), Occupancy())

    def converted(self, dtype: np.dtype[Any], meaning: Meaning) -> Layers:
        """
        The pixels in another format.

        If the blocks already have that format they are reused, else the full resolution is
        copied to new planes.

        :raises TileSourceError: if the disk has not enough space for both.
        """
        if dtype == self.dtype and meaning.color_bands == self.meaning.color_bands:
            return replace(self, meaning=meaning)
        new = Layers.make(dtype, meaning)
        for key in [key for key in self._keys() if key.level == 0]:
            color, alpha = self.block(key)
            new.color.publish(key, converted(color, dtype, meaning.color_bands))
            if alpha is not None:
                new.alpha.publish(key, converted_alpha(alpha, dtype)[:, :, np.newaxis])
            new.occupied.add(key.frame, key.column, key.row)
        return new

    @property
    def pool(self) -> BlockPool:
        """The pool of both planes."""
        return self.color.pool

    def set_block(self, key: BlockKey, color: Array, alpha: Array | None) -> None:
        """
        Replace a block.

        :param key: the block.
        :param color: (BLOCK_SIZE, BLOCK_SIZE, color bands).
        :param alpha: (BLOCK_SIZE, BLOCK_SIZE), or None if all pixels are opaque.
        :raises TileSourceError: if the disk is full; the block is unchanged then.
        """
        offset = self.color.store(color)
        try:
            alpha_offset = None if alpha is None else self.alpha.store(alpha[:, :, np.newaxis])
        except BaseException:
            self.color.free_stored(offset)
            raise
        self.put_block(key, offset)
        if alpha_offset is not None:
            self.alpha.put(key, alpha_offset)

    def close(self) -> None:
        """Delete the spool, or let the last snapshot that reads it delete it."""
        if not self.is_pinned:
            self.pool.spool.close()

    @property
    def is_pinned(self) -> bool:
        """Whether a snapshot may read the blocks."""
        return any(plane.pinned for plane in self._planes)

    @contextmanager
    def frozen(self) -> Iterator[FrozenLayers]:
        """
        A context with the current full resolution, frozen.

        Nothing may change while entering the context.
        """
        with ExitStack() as kept:
            def snapshot(plane: Plane) -> FrozenPlane:
                found = plane.snapshot()
                kept.callback(found.release)
                return found

            yield FrozenLayers(
                self.meaning, snapshot(self.color), snapshot(self.alpha),
                snapshot(self.interleaved), frozenset(self.shaded))

    @property
    def _planes(self) -> tuple[Plane, Plane, Plane]:
        return self.color, self.alpha, self.interleaved

    def put_block(self, key: BlockKey, offset: int) -> None:
        """
        Replace a block by an opaque one.

        :param key: the block.
        :param offset: returned by ``color.store`` or ``color.refer``.
        """
        self.color.put(key, offset)
        self.release_alpha(key)
        self.occupied.add(key.frame, key.column, key.row)

    @property
    def interleaves(self) -> bool:
        """Whether blocks that are not opaque can be interleaved: 8-bit gray and RGB."""
        return (self.dtype == np.uint8 and self.meaning.has_alpha and
                self.meaning.color_bands in {1, 3})

    def takes_interleaved(self, tile: Array) -> bool:
        """Whether a tile (rows, cols, bands) with alpha can be an interleaved block."""
        bands = tile.shape[2]
        return (self.interleaves and tile.dtype == np.uint8 and
                bands == self.meaning.color_bands + 1 and tile.strides[1:] == (bands, 1))

    def put_interleaved(self, key: BlockKey, offset: int, *, shaded: bool) -> None:
        """
        Fill a blank block with colour and alpha.

        :param key: the block.
        :param offset: returned by ``interleaved.store``.
        :param shaded: whether there are partly transparent pixels.
        """
        self.interleaved.put(key, offset)
        if shaded:
            self.shaded.add(key)
        self.occupied.add(key.frame, key.column, key.row)

    def release_alpha(self, key: BlockKey) -> None:
        """Remove the alpha of a block, and its colour if they are interleaved."""
        for plane in (self.alpha, self.interleaved):
            if key in plane.slots:
                plane.release([key])
        self.shaded.discard(key)

    def separate(self, key: BlockKey) -> None:
        """
        Separate colour and alpha of an interleaved block; other blocks are ignored.

        :raises TileSourceError: if the disk is full; nothing has changed then.
        """
        if key in self.interleaved.slots:
            color, alpha = self.block(key)
            whole = np.empty(self.color.shape, self.dtype)
            copy_bands(whole, color)
            self.set_block(key, whole, alpha)

    def paste_in_memory(self, frame: int, tile: Array, x: int, y: int, right: int,
                        bottom: int) -> bool:
        """
        Copy an opaque tile to one block, if the block is in memory.

        :param frame: of the block.
        :param tile: (rows, cols, color bands) in this format.
        :param x: the column of its left edge in caller coordinates.
        :param y: the row of its top edge in caller coordinates.
        :param right: its right edge, exclusive.
        :param bottom: its bottom edge, exclusive.
        :returns: whether it was copied; if not, nothing has changed.
        """
        column, row = x // BLOCK_SIZE, y // BLOCK_SIZE
        color_plane, alpha_plane = self.color, self.alpha
        if ((right - 1) // BLOCK_SIZE != column or (bottom - 1) // BLOCK_SIZE != row or
                color_plane.pinned):
            return False
        key = BlockKey(frame, 0, column, row)
        left, top = column * BLOCK_SIZE, row * BLOCK_SIZE
        place = slice(y - top, bottom - top), slice(x - left, right - left)
        in_memory = color_plane.pool.held
        # Other threads may evict blocks at the same time.
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
                if is_opaque_block(alpha.samples):
                    alpha_plane.release([key])
            color.samples[place] = tile
            color.dirty = True
        return True


def is_opaque_block(alpha: Array) -> bool:
    """Whether all pixels of a block are opaque."""
    value = opaque_alpha(alpha.dtype)
    # Most blocks that are not opaque have such a pixel in the last corner or the sample.
    # Measured: without this, adding tiles of 32 x 32 takes 1.16 times as long.
    return bool(alpha[-1, -1, 0] == value and (alpha[::31, ::31] == value).all() and
                alpha.min() == value == alpha.max())


def _is_inside(key: BlockKey, area: Rect) -> bool:
    """Whether a block is in a rectangle of block columns and rows."""
    return area.left <= key.column < area.right and area.top <= key.row < area.bottom
