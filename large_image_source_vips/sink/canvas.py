"""
The image of a sink: paste tiles into blocks of one spool file, and read them back.

A canvas is a grid of square blocks in caller coordinates, so growing it in any direction
moves no pixels.  Adding a tile copies its pixels once, into the blocks under it.  A tile is
added completely or not at all.

Memory: ``LIMITS.sink_pool`` (64 MiB) of blocks, the tiles being added, and about 300 bytes
of addresses for each block of 65,536 pixels.  A canvas has one open file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base import files
from ..base.errors import TileSourceError
from ..base.formats import Meaning, converted, converted_alpha, joined_dtype
from ..base.geometry import Rect
from ..base.transparency import has_shades
from ..store import Picture, Snapshot, checked_frame
from .axes import ONE_FRAME, Target
from .blend import check_weight
from .blocks import BLOCK_SIZE, BlockKey
from .canvas_state import CanvasState, check_size, origin_of
from .frames import Frames
from .grid import block_area
from .layers import Layers
from .levels import LowerLevels, footprint
from .paste_tiles import Piece, paste_tiles
from .patch import Array, Patch
from .records import Entry, Kind, Samples, digest, place_details
from .snapshot import snapshot_picture


class Canvas(CanvasState):
    """
    An image made of added tiles; a ``PixelStore``.

    Methods may be called from any thread, but only in the process that made the canvas.  In
    a forked process they raise an error, because a thread of the parent may have been
    changing the canvas during the fork.
    """

    # Adding

    def add_plain(self, tile: Array, x: int, y: int, position: Mapping[str, int]) -> bool:
        """
        Add a tile with little overhead, in two common cases.  Measured: without this,
        adding tiles of 32 x 32 takes 2.8 times as long, aligned ones of 256 x 256 1.2
        times.

        The tile is opaque, has the format of the canvas, is inside the image, and covers
        one block or is inside one in memory; no other thread has locked that block. Or it
        is 8-bit with an alpha band and covers one block; then all its pixels are opaque, or
        the block is blank.

        :param tile: (rows, cols) or (rows, cols, bands).
        :param x: the column of its left edge in caller coordinates.
        :param y: the row of its top edge in caller coordinates.
        :param position: of its frame.
        :returns: whether the tile was added; if not, nothing has changed.
        :raises TileSourceError: if the disk is full; nothing has changed then.
        """
        layers, extent = self._layers, self._extent
        frame = self._frames.stored_at(position)
        if layers is None or extent is None or frame is None or tile.dtype != layers.dtype:
            return False
        shape = tile.shape
        if len(shape) == 2:
            tile = tile[:, :, np.newaxis]
        elif len(shape) != 3:
            return False
        rows, cols, bands = tile.shape
        right, bottom = x + cols, y + rows
        covers = rows == BLOCK_SIZE == cols and not x % BLOCK_SIZE and not y % BLOCK_SIZE
        opaque = bands == layers.meaning.color_bands
        interleaved = covers and self._alpha_given and layers.takes_interleaved(tile)
        if not ((opaque or interleaved) and rows and cols and
                extent.left <= x and extent.top <= y and
                right <= extent.left + extent.width and bottom <= extent.top + extent.height and
                files.process_id() == self._process):
            return False
        if covers:
            return self._add_block(layers, extent, tile, BlockKey(
                frame, 0, x // BLOCK_SIZE, y // BLOCK_SIZE))
        with self._locks.lock:
            # Check again: another thread may have changed these before the lock was
            # acquired.
            if not (layers is self._layers and extent is self._extent and
                    not self._locks.covers(x // BLOCK_SIZE, y // BLOCK_SIZE) and
                    layers.paste_in_memory(frame, tile, x, y, right, bottom)):
                return False
            if frame in self._lower:
                self._lower[frame].forget(x, y, right, bottom, origin_of(extent))
            self._ranges.add(tile, bands)
            self._generation += 1
        return True

    def _add_block(self, layers: Layers, extent: Rect, tile: Array, key: BlockKey) -> bool:
        """
        Add a tile that is one whole block; see ``add_plain``.

        The slow steps, computing the ranges and writing to a new offset, need no lock, so
        threads run them in parallel.
        """
        measured = self._ranges.measured(tile)
        bands = layers.meaning.color_bands
        opaque = tile.shape[2] == bands or (measured is not None and measured[0][-1] == 255)
        if not opaque and layers.has(key):
            return False
        shaded = not opaque and has_shades(tile)
        plane = layers.color if opaque else layers.interleaved
        offset = plane.store(tile[:, :, :bands] if opaque else tile)
        with self._locks.lock:
            fits = (layers is self._layers and extent is self._extent and
                    not self._locks.covers(key.column, key.row) and
                    (opaque or not layers.has(key)))
            if fits:
                if opaque:
                    layers.put_block(key, offset)
                else:
                    layers.put_interleaved(key, offset, shaded=shaded)
                left, top = key.column * BLOCK_SIZE, key.row * BLOCK_SIZE
                if key.frame in self._lower:
                    self._lower[key.frame].forget(
                        left, top, left + BLOCK_SIZE, top + BLOCK_SIZE, origin_of(extent))
                self._ranges.add(tile, bands, measured=measured)
                self._generation += 1
        if not fits:
            plane.free_stored(offset)
        return fits

    def add(self, patch: Patch, x: int, y: int, mask: npt.NDArray[np.bool_] | None,
            target: Target = ONE_FRAME, *, weight: Array | None = None, key: Any = None,
            order: float | None = None) -> None:
        """
        Add a patch.

        :param patch: the converted tile; several frames one below the other.
        :param x: the column of its left edge in caller coordinates.
        :param y: the row of its top edge in caller coordinates.
        :param mask: (rows, cols) of the patch, False where nothing changes, or None.
        :param target: its frames.
        :param weight: must be None; a ``SpooledCanvas`` has weights.
        :param key: identifies the tile, which is added only once; or None.
        :param order: must be None.
        :raises TileSourceError: if the key was used for another tile, the patch does not
            fit the format of the image or would make it too large, or the disk is full;
            nothing has changed then.
        """
        self.check_process()
        if weight is not None:
            check_weight('over')
        assert order is None
        rows, cols = patch.color.shape[:2]
        rect = Rect(x, y, cols, rows // len(target.positions))
        if key is None:
            self._add_patch(patch, rect, mask, target)
        elif self._is_first_with_key(key, patch, rect, mask, target):
            try:
                self._add_patch(patch, rect, mask, target)
            except BaseException:
                del self._keys[key]
                raise

    def _is_first_with_key(self, key: Any, patch: Patch, rect: Rect,
                   mask: npt.NDArray[np.bool_] | None, target: Target) -> bool:
        """
        Whether a tile is the first one with its key.

        :raises TileSourceError: if the key was used for another tile.
        """
        buffers = Samples(patch.color, patch.alpha, mask).buffers()
        kind = Kind(patch.color.dtype, patch.meaning, patch.alpha is not None, mask is not None)
        found = digest(buffers, Entry(0, 0, 0, 0, kind, rect, place_details(target)))
        known = self._keys.setdefault(key, found)
        if known != found:
            msg = (f'The key {key!r} was given to another tile before; this one is at '
                   f'{rect.left}, {rect.top}.  A key names one tile.')
            raise TileSourceError(msg)
        return known is found

    def added(self, key: Any) -> bool:
        """Whether a tile with a key was added."""
        self.check_process()
        return key in self._keys

    def flush(self) -> None:
        """Do nothing: the image does not outlive its process."""
        self.check_process()

    def _add_patch(self, patch: Patch, rect: Rect, mask: npt.NDArray[np.bool_] | None,
                   target: Target) -> None:
        """Add a patch of a suitable format; retry with a lock on the whole canvas if it grows."""
        while True:
            # A change of format, size or axes affects all readers.
            everything = self._changes_all(patch, rect, target)
            with self._locks.area(None if everything else block_area(rect), write=True):
                if everything or not self._changes_all(patch, rect, target):
                    self._add_locked(patch, rect, mask, target)
                    return

    def _changes_all(self, patch: Patch, rect: Rect, target: Target) -> bool:
        """Whether a patch makes the image larger, or changes its format or axes."""
        layers, axes = self._layers, self._frames.axes
        return (layers is None or self._extent is None or not self._extent.contains(rect) or
                self._format_for(layers, patch) != (layers.dtype, layers.meaning) or
                patch.has_alpha_band > self._alpha_given or bool(target.values) or
                axes.grown(target.lengths) is not axes or
                any(self._frames.stored_at(position) is None for position in target.positions))

    def _format_for(self, layers: Layers, patch: Patch) -> tuple[np.dtype[Any], Meaning]:
        """The dtype and meaning of the image after adding a patch."""
        dtype = layers.dtype
        if patch.color.dtype != dtype:
            dtype = joined_dtype(
                dtype, patch.color.dtype, self._ranges.extremes(), patch.extremes)
        return dtype, layers.meaning.joined(patch.meaning)

    def _add_locked(self, patch: Patch, rect: Rect, mask: npt.NDArray[np.bool_] | None,
                     target: Target) -> None:
        """
        Add a patch while its area is locked.

        :param rect: of each of its frames.
        """
        extent = rect if self._extent is None else self._extent.united(rect)
        if extent is not self._extent:
            check_size(self.size_of(extent, self._min_size),
                        f'The tile at {rect.left}, {rect.top}')
        axes = self._frames.axes.grown(target.lengths)
        layers = self._layers_for(patch)
        color = converted(patch.color, layers.dtype, layers.meaning.color_bands)
        alpha = None if patch.alpha is None else converted_alpha(patch.alpha, layers.dtype)
        numbers = self._frames.reserve(target)
        pieces = []
        for place, number in enumerate(numbers):
            rows = slice(place * rect.height, (place + 1) * rect.height)
            pieces.append(Piece(number, rect, color[rows], None if alpha is None else alpha[rows],
                                None if mask is None else mask[rows]))
        paste_tiles(layers, pieces)
        self._frames.commit(target, numbers, axes)
        self._commit(layers, patch, extent, pieces)

    def _layers_for(self, patch: Patch) -> Layers:
        """The layers in a format that can hold a patch: the current ones, or converted ones."""
        layers = self._layers
        if layers is None:
            return Layers.make(patch.color.dtype, patch.meaning)
        dtype, meaning = self._format_for(layers, patch)
        if dtype == layers.dtype and meaning == layers.meaning:
            return layers
        return layers.converted(dtype, meaning)

    def _commit(self, layers: Layers, patch: Patch, extent: Rect, pieces: list[Piece]) -> None:
        """Make a pasted patch visible to readers."""
        if self._layers is not layers:
            # With the new format, lower levels may be picked instead of averaged.
            self._forget_lower_levels()
        old_size, old_origin = self._size, self._origin
        self._extent = extent
        if self._origin != old_origin:
            self._forget_lower_levels()
        else:
            for frame, rect, *_ in pieces:
                if frame in self._lower:
                    self._lower[frame].forget(*rect[:2], rect.right, rect.bottom, old_origin)
            if self._size != old_size:
                for lower in self._lower.values():
                    lower.forget_edges(old_size)
        self._layers = layers
        self._alpha_given = self._alpha_given or patch.has_alpha_band
        self._ranges.add(patch.given, patch.meaning.color_bands, samples=patch.stores_given)
        self._count_change()

    # Reading

    def read(self, frame: int, reduction: int, rect: Rect, *, keep: bool = False,
             out: Array | None = None) -> Array:
        """
        The pixels of a rectangle with alpha; see ``PixelStore.read``.

        Blank pixels are 0.  ``keep`` has no effect.
        """
        self.check_process()
        while True:
            origin = self._origin
            with self._locks.area(block_area(footprint(reduction, rect).moved(*origin))):
                # The corner may have moved while this thread waited for the lock.
                if origin == self._origin:
                    pixels = self._read_locked(frame, reduction, rect, origin)
                    break
        if out is None:
            return pixels
        out[:] = pixels
        return out

    def _read_locked(self, frame: int, reduction: int, rect: Rect,
                      origin: tuple[int, int]) -> Array:
        """Read while the area is locked."""
        layers, stored = self._layers, self._frames.stored(frame)
        if layers is None:
            return np.zeros((rect.height, rect.width, 4), np.uint8)
        if stored is None:
            found = None
        elif reduction == 0:
            found = layers.gather(stored, 0, rect.moved(*origin))
        else:
            lower = self._lower.get(stored)
            if lower is None:
                # Another reader may compute the same blocks at this moment.
                lower = self._lower.setdefault(stored, LowerLevels(layers, stored))
            found = lower.gather(reduction, rect, self._size, origin,
                                 layers.averaged and not self._has_palette)
        return layers.pixels(found, rect, self._shows_alpha)

    @contextmanager
    def picture(self, frame: int | None = None) -> Iterator[Picture]:
        """
        The current image to write: all of it, or the crop.

        Tiles that are added inside the context are not included.

        :param frame: the 0-based frame; None if there is only one.
        :raises TileSourceError: if there are no tiles, no such frame, or no pixels in
            the crop.
        """
        with self._snapshot(frame) as snapshot:
            yield snapshot.picture(checked_frame(frame, snapshot.count, snapshot.name))

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """
        The current state of all frames; see ``PixelStore``.

        :raises TileSourceError: if there are no tiles, or no pixels in the crop.
        """
        with self._snapshot(None) as snapshot:
            yield snapshot

    @contextmanager
    def _snapshot(self, frame: int | None) -> Iterator[Snapshot]:
        """
        See ``snapshot``.

        :param frame: the only one that will be used, or None.
        """
        del frame
        self.check_process()
        with ExitStack() as kept:
            with self._locks.area(None):
                if self._layers is None:
                    msg = 'An image without tiles cannot be written; add one with addTile() first.'
                    raise TileSourceError(msg)
                place = self._output_rect().moved(*self._origin)
                pixel_size, show_alpha = self._pixel_size, self._shows_alpha
                frames = [self._frames.stored(frame) for frame in range(self.frame_count)]
                annotations = self._frames.annotations()
                layers = kept.enter_context(self._layers.frozen())

            def picture(frame: int) -> Picture:
                return snapshot_picture(layers, frames[frame], place, pixel_size, show_alpha)

            yield Snapshot('The image', len(frames), picture, annotations, None, {
                key: partial(np.asarray, pixels) for key, pixels in self._associated.items()})

    def _output_rect(self) -> Rect:
        """The rectangle to write, in full-resolution pixels."""
        whole = Rect(0, 0, *self._size)
        if self._crop is None:
            return whole
        rect = self._crop.clipped(whole)
        if rect.empty:
            msg = (f'The crop {tuple(self._crop)} is outside of the image, which has '
                   f'{whole.width} x {whole.height} pixels.')
            raise TileSourceError(msg)
        return rect

    def close(self, delete: bool = False) -> None:
        """Free memory and disk space; closing again does nothing."""
        del delete
        if self._closed:
            return
        self.check_process()
        with self._locks.area(None, write=True):
            layers, self._layers = self._layers, None
            self._lower, self._frames, self._associated = {}, Frames(), {}
            self._extent = None
            self._count_change()
            self._closed = True
        if layers is not None:
            layers.close()
