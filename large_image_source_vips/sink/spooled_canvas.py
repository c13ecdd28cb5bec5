"""
A canvas that stores all tiles in a log, and computes blocks from them when they are read.

Used for blend policies that need all overlapping tiles, for tiles with an order, and for
images shared by several processes.  The blocks are only a cache: where tiles were added,
they are computed again from the logs, in the order of the policy.  So they do not depend on
when or by which process tiles were added.

Memory: that of a ``Canvas``, ``LIMITS.sink_recent_tiles`` of tiles, and about 500 bytes for
each tile.  Disk: all tiles in the logs, and the blocks in a temporary file.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base import files
from ..base.errors import TileSourceError, shown
from ..base.formats import GRAY, RGB, converted, converted_alpha
from ..base.geometry import Rect
from ..base.identity import absolute_path
from ..base.limits import LIMITS
from ..base.threads import in_parallel
from ..store import Snapshot
from .axes import ONE_FRAME, Target
from .band_ranges import BandRanges
from .blend import POLICIES, check_weight, checked_accumulator, combined
from .blocks import BLOCK_SIZE, BlockKey
from .canvas import Canvas
from .canvas_state import check_size
from .grid import block_area, blocks_in, overlap
from .layers import Layers
from .levels import footprint
from .patch import Array, Patch
from .records import Entry, Kind, Samples, place_details
from .spooled_state import SpooledState
from .tile_index import Block
from .weighted import Piece

_SHAPE = BLOCK_SIZE, BLOCK_SIZE
# If all tiles are within this distance of 0, 0 the image is not too large.
_CLOSE = LIMITS.sink_side // 2

# A forked process may start several threads before it uses the image.
_after_fork = threading.Lock()


def _renew_lock() -> None:
    global _after_fork  # noqa: PLW0603 - a thread of the parent may have held it
    _after_fork = threading.Lock()


files.after_fork_in_child(_renew_lock)


class SpooledCanvas(SpooledState):
    """
    An image made of the tiles in a log.

    :param policy: a blend policy; None for that of the spool, or 'over'.
    :param accumulator: the dtype of means and sums, or None.
    :param folder: of a shared spool; None for a temporary file of this process.
    :raises TileSourceError: if the folder cannot be used.
    """

    def __init__(self, policy: str | None, accumulator: str | None, folder: str | None) -> None:
        self._asked = policy, accumulator, folder
        self._start()

    def _start(self) -> None:
        """Reset to no known tiles, for a new canvas or in a forked process."""
        super().__init__(*self._asked)
        # The blocks to compute again.
        self._stale: set[Block] = set()
        # Keys that this process added since the last look for new tiles.
        self._new_keys: set[Any] = set()
        # The last plain tile: its dtype, bands, and kind.
        self._plain: tuple[np.dtype[Any], int, Kind] | None = None

    def check_process(self) -> None:
        """
        Check that this process may use the image; a shared one may be used in any.

        :raises TileSourceError: in a forked process if the image is not shared, and after
            ``close``.
        """
        if self._shared is not None and files.process_id() != self._process:
            with _after_fork:
                if files.process_id() != self._process:
                    generation = self._generation
                    self._shared.close_inherited()
                    self._start()
                    self._generation = generation + 1
        super().check_process()

    # Adding

    def add_plain(self, tile: Array, x: int, y: int, position: Mapping[str, int]) -> bool:
        """
        Add a tile like the last one with little overhead; see ``Canvas.add_plain``.

        Measured: without this, four processes write 10,000 tiles of 256 x 256 at 0.6 of the
        speed of bare writes.
        """
        plain, shape = self._plain, tile.shape
        if plain is None or position or len(shape) != 3 or tile.dtype != plain[0] or (
                shape[2] != plain[1] or files.process_id() != self._process or self._closed):
            return False
        rows, cols, _ = shape
        if not (rows and cols and -_CLOSE < x < _CLOSE - cols and -_CLOSE < y < _CLOSE - rows):
            return False
        self._log.add(plain[2], Rect(x, y, cols, rows), b'', [np.ascontiguousarray(tile)])
        return True

    def add(self, patch: Patch, x: int, y: int, mask: npt.NDArray[np.bool_] | None,
            target: Target = ONE_FRAME, *, weight: Array | None = None, key: Any = None,
            order: float | None = None) -> None:
        """
        Add a patch; see ``Canvas.add``.

        :param weight: (rows, cols) of floats, or None.
        :param order: its place in the order of tiles, or None.
        """
        self.check_process()
        if weight is not None:
            check_weight(self.policy)
        samples = Samples(patch.color, patch.alpha, mask, weight)
        kind = Kind(patch.color.dtype, patch.meaning, patch.alpha is not None, mask is not None,
                    weight is not None)
        rows, cols = patch.color.shape[:2]
        rect = Rect(x, y, cols, rows // len(target.positions))
        details = _details(patch, target)
        if order is not None:
            details['order'] = order
        self._index.check_fits(kind, details.get('extremes', (0, 0)))
        self._frames.axes.grown(target.lengths)
        extent = self._index.extent
        check_size(self.size_of(rect if extent is None else extent.united(rect)),
                   f'The tile at {x}, {y}')
        buffers = samples.buffers()
        if key is not None:
            if self._is_known(key, Entry(0, 0, 0, 0, kind, rect, details), buffers):
                return
            details['key'] = key
        self._log.add(kind, rect, json.dumps(details).encode() if details else b'', buffers)
        self._meaning = patch.meaning
        if key is not None:
            self._new_keys.add(key)
        if not details and patch.meaning in (GRAY, RGB) and sys.byteorder == 'little' and (
                kind == Kind(patch.color.dtype, patch.meaning)):
            self._plain = patch.color.dtype, patch.color.shape[2], kind

    def _is_known(self, key: Any, entry: Entry, buffers: list[Any]) -> bool:
        """
        Whether this process knows a tile with the key.

        :raises TileSourceError: if it is another tile.
        """
        if key in self._new_keys:
            self._find_new_tiles()
        if not self._index.added(key):
            return False
        return self._index.check_key(key, entry, buffers)

    def added(self, key: Any) -> bool:
        """Whether any process has added a tile with a key."""
        self.check_process()
        self._find_new_tiles()
        return self._index.added(key)

    def flush(self) -> None:
        """
        Write the tiles of this process to disk, so that they survive a crash of the system.

        :raises TileSourceError: if the disk fails or the file system does not support it.
        """
        self.check_process()
        self._log.flush()

    # Looking

    def _find_new_tiles(self) -> None:
        """
        Find the tiles that were added since the last call.

        :raises TileSourceError: if tiles of different processes contradict each other, or a
            log cannot be read.
        """
        with self._looking:
            self._index.check()
            entries = self._log.new_entries()
            if not entries:
                return
            self._new_keys.clear()
            with self._locks.area(None, write=True):
                self._mark_stale(self._index.add_entries(entries))

    def _mark_stale(self, changed: list[tuple[int, Rect]]) -> None:
        """Mark the blocks under some tiles as stale, while the whole canvas is locked."""
        if not changed:
            return
        assert self._index.format is not None
        dtype, meaning = self._index.format
        layers = self._layers
        old_size, old_origin = self._size, self._origin
        self._extent = self._index.extent
        if layers is None or (layers.dtype, layers.meaning) != (dtype, meaning):
            self._lower = {}
            self._layers = layers = Layers.make(dtype, meaning)
            self._stale = set(self._index.blocks)
            for block in self._stale:
                layers.occupied.add(*block)
        elif (self._size, self._origin) != (old_size, old_origin):
            self._forget_lower_levels()
        for frame, rect in changed:
            if frame in self._lower:
                self._lower[frame].forget(*rect[:2], rect.right, rect.bottom, self._origin)
            for column, row in blocks_in(block_area(rect)):
                self._stale.add((frame, column, row))
                # Lower levels use this to find blocks.
                layers.occupied.add(frame, column, row)
        self._alpha_given = self._index.alpha_given
        self._annotated = False
        self._count_change()

    def _make(self, frame: int | None, area: Rect) -> None:
        """
        Compute the stale blocks of an area again.

        :param frame: the frame number in their keys; None for all.
        """
        with self._looking:
            frames = {block[0] for block in self._stale} if frame is None else {frame}
            stale = self._stale
            if len(frames) * area.width * area.height < len(stale):
                stale = stale.intersection(
                    (number, *block) for number in frames for block in blocks_in(area))
            wanted = sorted(
                (block for block in stale if block[0] in frames and
                 area.left <= block[1] < area.right and area.top <= block[2] < area.bottom),
                key=lambda block: (block[0], block[2], block[1]))
            if wanted:
                with self._locks.area(area, write=True):
                    in_parallel(self._make_block, wanted)

    def _make_block(self, block: Block) -> None:
        """Compute a block from all tiles on it."""
        layers = self._layers
        assert layers is not None
        frame, column, row = block
        key = BlockKey(frame, 0, column, row)
        entry = self._index.whole_block(block, layers.dtype, layers.meaning)
        if entry is not None:
            # Not copied: a third of the time to write 10,000 tiles.
            layers.put_block(key, layers.color.refer(partial(self._log.read_color, entry)))
            self._stale.discard(block)
            return
        pieces = [self._piece(entry, place, key, layers)
                  for entry, place in self._index.tiles_on(block)]
        color, alpha = combined(
            self.policy, pieces, (*_SHAPE, layers.meaning.color_bands), layers.dtype)
        layers.set_block(key, color, alpha if layers.meaning.has_alpha else None)
        self._stale.discard(block)

    def _piece(self, entry: Entry, place: int, key: BlockKey, layers: Layers) -> Piece:
        """
        The part of a tile in a block, in the format of the image.

        :param place: of the frame among those of the tile.
        """
        in_block, (down, across) = overlap(key, entry.rect)
        dtype = self._index.tile_dtype
        assert dtype is not None

        def read() -> Samples:
            samples = self._log.read(entry)
            above = place * entry.rect.height
            where = slice(down.start + above, down.stop + above), across
            return Samples(
                converted(samples.color[where], dtype, layers.meaning.color_bands),
                None if samples.alpha is None else converted_alpha(samples.alpha[where], dtype),
                None if samples.mask is None else samples.mask[where],
                None if samples.weight is None else samples.weight[where])

        return Piece(in_block, down.start, across.start, entry.rect.height, entry.rect.width,
                     entry.kind, read)

    # Reading

    def current(self) -> SpooledCanvas:
        """The canvas itself, with everything that any process has added or set so far."""
        self.check_process()
        self._find_new_tiles()
        self._refresh()
        return self

    # Reading

    def read(self, frame: int, reduction: int, rect: Rect, *, keep: bool = False,
             out: Array | None = None) -> Array:
        """The pixels of a rectangle with alpha; see ``PixelStore.read``."""
        self.check_process()
        self._find_new_tiles()
        stored = self._frames.stored(frame) if self._stale else None
        if stored is not None:
            self._make(stored, block_area(footprint(reduction, rect).moved(*self._origin)))
        return super().read(frame, reduction, rect, keep=keep, out=out)

    @contextmanager
    def _snapshot(self, frame: int | None) -> Iterator[Snapshot]:
        """The image to write, with all tiles added so far by all processes."""
        self.check_process()
        with ExitStack() as kept:
            with self._looking:
                self.current()
                stored = None if frame is None else self._frames.stored(frame)
                if self._layers is not None and not (frame is not None and stored is None):
                    self._make(stored, block_area(self._output_rect().moved(*self._origin)))
                snapshot = kept.enter_context(super()._snapshot(frame))
            yield snapshot

    def close(self, delete: bool = False) -> None:
        """
        Free memory and disk space, and close all files; closing again does nothing.

        :param delete: whether to remove the folder of a shared spool, with all tiles.
        """
        layers = self._layers
        super().close()
        if layers is not None and layers.is_pinned:
            # A snapshot reads the logs; their files are closed when it is gone.
            if delete:
                self._log.remove()
        else:
            self._log.close(delete)
        self._stale.clear()


def _details(patch: Patch, target: Target) -> dict[str, Any]:
    """The details of a tile for its record: key, order, frames, ranges."""
    details = place_details(target)
    if patch.has_alpha_band and patch.alpha is None:
        details['alpha_band'] = True
    if patch.color.dtype.kind in 'iu' and patch.color.dtype.itemsize == 4:
        details['extremes'] = patch.extremes
    if patch.given is not patch.color:
        low, high = BandRanges.of(patch.given)
        details['ranges'] = [low.tolist(), high.tolist(), low.dtype.str]
    return details


def new_canvas(blend: str | None, accumulator: str | None, spool: Any, *,
               sorts: bool = False) -> Canvas:
    """
    The canvas of a new image; see ``new`` of the package for the arguments.

    :param sorts: whether addTile accepts order=.
    :raises TileSourceError: if an argument is wrong, or the folder cannot be used.
    """
    if blend is not None and str(blend) not in POLICIES:
        msg = f'blend must be one of {", ".join(POLICIES)}, not {shown(blend)}.'
        raise TileSourceError(msg)
    if accumulator is not None:
        accumulator = checked_accumulator(accumulator, blend)
    if spool is None and blend in (None, 'over') and not sorts:
        return Canvas()
    return SpooledCanvas(blend, accumulator, None if spool is None else absolute_path(spool))
