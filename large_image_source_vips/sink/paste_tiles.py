"""
Paste tiles into the blocks under them, completely or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..base.geometry import Rect
from ..base.limits import LIMITS
from ..base.transparency import copy_bands, has_shades, whole_pixels
from .blend import Array, paste
from .blocks import BlockKey, Plane
from .grid import Part, block_count, parts
from .layers import Layers, is_opaque_block


class Piece(NamedTuple):
    """
    A tile to paste into one frame.

    :param frame: the frame number in the keys of its blocks.
    :param rect: its position and size in caller coordinates.
    :param color: (rows, cols, color bands) in the format of the blocks.
    :param alpha: (rows, cols) in that format, or None if all pixels are opaque.
    :param mask: (rows, cols), False where nothing changes, or None.
    """

    frame: int
    rect: Rect
    color: Array
    alpha: Array | None
    mask: npt.NDArray[np.bool_] | None


def paste_tiles(layers: Layers, pieces: Sequence[Piece]) -> None:
    """
    Paste tiles into the full-resolution blocks under them.

    :param layers: the blocks.
    :param pieces: the tiles, of different frames.
    :raises TileSourceError: if the disk is full or cannot be read; nothing has
        changed then.
    """
    change = _Change(layers)
    in_place = sum(block_count(piece.rect) for piece in pieces) <= LIMITS.sink_pinned_blocks
    try:
        for piece in pieces:
            for part in parts(piece.frame, 0, piece.rect):
                change.prepare(part, piece, in_place=in_place)
    except BaseException:
        change.undo()
        raise
    change.commit()


class _Change:
    """
    The change of the blocks under a tile: ``prepare`` may fail, ``commit`` cannot.

    Blocks that a tile covers, and all blocks of large tiles, are written to new offsets,
    which replace the old ones at the end.  Blocks that a small tile covers partly are
    changed in memory.  Measured: if they were written each time, adding tiles of 32 x 32
    would take 9 times as long, shifted ones of 256 x 256 1.8 times.

    :param layers: the planes.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._undo: list[Callable[[], None]] = []
        self._do: list[Callable[[], None]] = []

    def prepare(self, part: Part, piece: Piece, *, in_place: bool) -> None:
        """
        Prepare the change of a block.

        :param part: the overlap of the tile and the block.
        :param piece: the tile.
        :param in_place: whether to change the block in memory.
        :raises TileSourceError: if the disk is full or cannot be read.
        """
        color = piece.color[part.in_rect]
        alpha = None if piece.alpha is None else piece.alpha[part.in_rect]
        mask = None if piece.mask is None else piece.mask[part.in_rect]
        layers, key = self._layers, part.key
        if part.whole and alpha is None and mask is None:
            self._replace(layers.color, key, color)
            self._do.append(partial(layers.release_alpha, key))
            return
        if part.whole and not layers.has(key) and layers.interleaves:
            self._fill_blank(key, color, alpha, mask)
            return
        layers.separate(key)
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
            if is_opaque_block(below_alpha):
                self._do.append(partial(layers.alpha.release, [key]))
            else:
                self._replace(layers.alpha, key, below_alpha)

    def _fill_blank(self, key: BlockKey, color: Array, alpha: Array | None,
                    mask: npt.NDArray[np.bool_] | None) -> None:
        """Fill a blank 8-bit block with a part of a tile that has alpha or a mask."""
        layers = self._layers
        shown = 255 if alpha is None else alpha
        if np.all(shown == 255) and (mask is None or mask.all()):
            self._replace(layers.color, key, color)
            return
        block = np.empty(layers.interleaved.shape, np.uint8)
        copy_bands(block[..., :-1], color)
        block[..., -1] = shown
        if mask is not None:
            np.copyto(whole_pixels(block), 0, where=~mask)
        offset = layers.interleaved.store(block)
        self._undo.append(partial(layers.interleaved.free_stored, offset))
        self._do.append(partial(layers.put_interleaved, key, offset, shaded=has_shades(block)))

    def _replace(self, plane: Plane, key: BlockKey, samples: Array) -> None:
        """Write a block to a new offset."""
        offset = plane.store(samples)
        self._undo.append(partial(plane.free_stored, offset))
        self._do.append(partial(plane.put, key, offset))
        if plane is self._layers.color:
            self._do.append(partial(
                self._layers.occupied.add, key.frame, key.column, key.row))

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
            layers.occupied.add(key.frame, key.column, key.row)
            if held_alpha is not None:
                held_alpha.dirty = True
                held_alpha.pins -= 1
                if is_opaque_block(held_alpha.samples):
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
