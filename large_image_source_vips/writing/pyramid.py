"""
Compress a picture and its lower levels, tile by tile, in several threads.

A thread processes a branch of the quad tree: a square of full-resolution tiles, and all
tiles of lower levels above it.  It reads a tile, compresses it, stores the bytes and halves
the pixels; four halved neighbours make a tile of the next level.  The calling thread
combines the branches to the remaining levels.

A branch holds at most four tiles of each of its levels, so memory depends on the depth of
the tree, not on the size of the picture.  Areas without pixels are skipped: their tiles are
one blank tile, compressed once.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.formats import opaque_alpha
from ..base.geometry import Rect, Size
from ..base.limits import LIMITS
from ..base.threads import submitted
from ..codecs.encode import check_tile, encode_mask, tile_encoder
from ..store import EncodedLevel, Picture
from .choices import Resampler
from .encoded_tiles import EncodedTiles, Place, TileTable
from .plan import TiffPlan
from .tile_pixels import TilePixels, assembled
from .tiles import converted, filled_tiles, grid_of

Array = npt.NDArray[Any]
Progress = Callable[[float], None]

# The pixels of a tile; None if it is blank.
Pixels = TilePixels | None

# A branch has at most 2 ** _DEPTH tiles a side; each thread gets at least _BRANCHES
# branches.
_DEPTH = 3
_BRANCHES = 4
# Tiles with alpha of up to this many pixels are joined before they are halved.  That takes
# 4 MB for each thread, hence the limit of threads.
_JOINED, _JOINING_THREADS = 256 * 256, 2

# The time between two calls of the progress function, which can cancel the write.
_REPORT_SECONDS = 0.1

THREADS = min(LIMITS.writing_threads, os.cpu_count() or 1)


class _CancelledError(Exception):
    """Ends a branch after an error in another one; internal."""


class Pyramid:
    """
    The levels of a picture, compressed.

    :param picture: the picture.
    :param plan: how to write it.
    :param spool: receives the tiles.
    """

    def __init__(self, picture: Picture, plan: TiffPlan, spool: EncodedTiles) -> None:
        self._picture = picture
        self._plan = plan
        self._spool = spool
        tile = plan.tile
        # The sizes of computed levels; those of stored levels may be rounded differently.
        self._sizes = [picture.size]
        while self._sizes[-1].width > tile.width or self._sizes[-1].height > tile.height:
            self._sizes.append(picture.size.reduced(len(self._sizes)))
        self.passed = [self._passed_level(level) for level in range(len(self._sizes))]
        self.sizes = [size if passed is None else passed.size
                      for size, passed in zip(self._sizes, self.passed, strict=True)]
        self.tables = [TileTable(grid_of(size, tile)) for size in self.sizes]
        self.masks = [TileTable(grid_of(size, tile)) for size in self.sizes
                      if plan.alpha == 'mask']
        self._filled = self._filled_tiles()
        self._encoders = [tile_encoder(
            plan.compression, quality=plan.quality, subsampling=plan.chroma_like(passed),
            predictor=plan.predictor) for passed in self.passed]
        self._opaque = opaque_alpha(plan.dtype)
        self._fill = None if plan.fill is None else np.array(plan.fill, plan.dtype)
        # Other ways to halve may show where tiles meet, and must not depend on the threads.
        self._joins = (bool(plan.alpha) and plan.tile.area <= _JOINED and
                       THREADS <= _JOINING_THREADS and not isinstance(plan.resample, Resampler))
        self._lock = threading.Lock()
        # The compressed blank tile and the two constant masks, made on demand.
        self._constant: dict[Any, Place] = {}
        self._stop = threading.Event()
        self._done = 0

    def _passed_level(self, level: int) -> EncodedLevel | None:
        """The stored level whose tiles are passed on undecoded, if any."""
        stored = self._picture.encoded.get(level)
        if stored is None or not self._plan.passes_on(stored, level):
            return None
        return stored

    def _filled_tiles(self) -> list[npt.NDArray[np.bool_]]:
        """For each level, the tiles with pixels, (rows, cols)."""
        filled = filled_tiles(self._picture, self._plan.tile)
        result = [filled]
        for _ in self._sizes[1:]:
            rows, cols = filled.shape
            filled = np.pad(filled, ((0, rows % 2), (0, cols % 2)))
            filled = filled[::2] | filled[1::2]
            filled = filled[:, ::2] | filled[:, 1::2]
            result.append(filled)
        return result

    # The tree

    def write(self, progress: Progress) -> None:
        """
        Compress all tiles.

        :param progress: called with the fraction done, 0 to 1; an exception cancels the
            write.
        :raises OSError: if the disk is full.
        :raises TileSourceError: if the picture cannot be read.
        """
        top = len(self._sizes) - 1
        total = sum(int(np.count_nonzero(filled)) for filled in self._filled)
        depth = min(_DEPTH, top)
        while depth and np.count_nonzero(self._filled[depth]) < _BRANCHES * THREADS:
            depth -= 1
        places = self._branches(top, 0, 0, depth)
        running: deque[Future[Pixels]] = deque()
        with ThreadPoolExecutor(THREADS, 'large_image_vips_write') as pool:
            def next_branch(_column: int, _row: int) -> Pixels:
                while len(running) < 2 * THREADS:
                    place = next(places, None)
                    if place is None:
                        break
                    running.append(submitted(pool, self._branch, depth, *place))
                branch = running.popleft()
                while not wait_for([branch], _REPORT_SECONDS).done:
                    progress(self._done / total)
                progress(self._done / total)
                return branch.result()

            try:
                if total:
                    self._visit(top, 0, 0, depth, next_branch)
            except BaseException:
                self._stop.set()
                raise
            finally:
                for future in running:
                    future.cancel()
        for level, table in enumerate(self.tables):
            table.fill_blank(partial(self._blank_tile, level))
        for table in self.masks:
            table.fill_blank(lambda: self._constant_mask(shown=False))

    def _branches(self, level: int, column: int, row: int, depth: int,
                  ) -> Iterator[tuple[int, int]]:
        """The columns and rows of all branches with pixels, in tree order."""
        if level == depth:
            if self._filled[level][row, column]:
                yield column, row
            return
        for child in self._children(level, column, row):
            yield from self._branches(level - 1, *child, depth)

    def _children(self, level: int, column: int, row: int) -> list[tuple[int, int]]:
        """The columns and rows of the tiles of the next larger level that have pixels."""
        filled = self._filled[level - 1]
        rows, cols = filled.shape
        return [(x, y) for y in range(2 * row, min(2 * row + 2, rows))
                for x in range(2 * column, min(2 * column + 2, cols)) if filled[y, x]]

    def _branch(self, level: int, column: int, row: int) -> Pixels:
        """Write a tile and all tiles of larger levels under it; returns the pixels of the tile."""
        def leaf(column: int, row: int) -> Pixels:
            pixels = self._read(column, row) if self._needs_pixels(0) else None
            self._put(0, column, row, pixels)
            return pixels

        return self._visit(level, column, row, 0, leaf)

    def _visit(self, level: int, column: int, row: int, floor: int,
               leaf: Callable[[int, int], Pixels]) -> Pixels:
        """Write a tile and those under it, down to a level whose tiles ``leaf`` writes."""
        if level == floor:
            return leaf(column, row)
        parts = [(*child, self._visit(level - 1, *child, floor, leaf))
                 for child in self._children(level, column, row)]
        pixels = self._joined(level, column, row, parts) if self._needs_pixels(level) else None
        self._put(level, column, row, pixels)
        return pixels

    def _needs_pixels(self, level: int) -> bool:
        """Whether the pixels of this level are needed, for it or for lower levels."""
        return bool(self.masks) or any(passed is None for passed in self.passed[level:])

    # Pixels

    def _rect(self, level: int, column: int, row: int) -> Rect:
        """The rectangle of a level under a tile."""
        width, height = self._plan.tile
        return Rect(column * width, row * height, width, height).clipped(
            Rect(0, 0, *self._sizes[level]))

    def _read(self, column: int, row: int) -> Pixels:
        """The pixels of a tile of the full resolution."""
        found = self._picture.read(self._rect(0, column, row))
        if found is None:
            return None
        color, alpha = found
        dtype = self._plan.dtype
        if color.dtype != dtype:
            color = converted(color, dtype)
            alpha = None if alpha is None else alpha.astype(dtype)
        pixels = TilePixels.of(color, alpha)
        if self._plan.alpha:
            return pixels
        if alpha is not None and self._fill is not None:
            pixels = pixels.filled(alpha == 0, self._fill)
        return TilePixels(pixels.color, None)

    def _joined(self, level: int, column: int, row: int,
                parts: list[tuple[int, int, Pixels]]) -> Pixels:
        """
        Halve tiles and join them to a tile of the next level.

        :param parts: the columns, rows and pixels of tiles of the next larger level.
        """
        shown = [(x, y, pixels) for x, y, pixels in parts if pixels is not None]
        if not shown:
            return None
        plan, (width, height) = self._plan, self._plan.tile
        blank = plan.blank[:plan.color_bands] if not plan.alpha else np.zeros(
            plan.color_bands, plan.dtype)
        if self._joins and any(part.alpha is not None for _, _, part in shown):
            # Halving all together needs a quarter of the numpy calls, which wait for the
            # GIL.
            larger = Rect(2 * column * width, 2 * row * height, 2 * width, 2 * height).clipped(
                Rect(0, 0, *self._sizes[level - 1]))
            return assembled(Size(larger.width, larger.height), [
                ((x - 2 * column) * width, (y - 2 * row) * height, part) for x, y, part in shown],
                blank, has_alpha=True).halved(plan.resample)
        place = self._rect(level, column, row)
        return assembled(Size(place.width, place.height), [
            ((x - 2 * column) * width // 2, (y - 2 * row) * height // 2,
             part.halved(plan.resample)) for x, y, part in shown],
            blank, has_alpha=bool(plan.alpha))

    def _pixels(self, level: int, column: int, row: int) -> Pixels:
        """Read the pixels of any tile, for stored tiles that cannot be passed on."""
        if level == 0:
            return self._read(column, row)
        return self._joined(level, column, row, [
            (*child, self._pixels(level - 1, *child))
            for child in self._children(level, column, row)])

    # Tiles

    def _put(self, level: int, column: int, row: int, pixels: Pixels) -> None:
        """Store a tile: passed on undecoded, or compressed from pixels."""
        if self._stop.is_set():
            raise _CancelledError
        grid, passed = self.tables[level].grid, self.passed[level]
        if column < grid.width and row < grid.height:
            try:
                data = None if passed is None else self._passed_tile(passed, column, row)
                if data is not None:
                    self.tables[level].put(column, row, self._spool.append(data))
                    if self.masks and pixels is not None:
                        self._put_mask(level, column, row, self._hidden(pixels))
                else:
                    if passed is not None and pixels is None:
                        pixels = self._pixels(level, column, row)
                    self._put_pixels(level, column, row, pixels)
            except (RuntimeError, ValueError) as exc:
                msg = (f'the tile in column {column}, row {row} of the level that is reduced by '
                       f'{1 << level} cannot be written as {self._plan.compression}: {exc}')
                raise TileSourceError(msg) from exc
        with self._lock:
            self._done += 1

    def _passed_tile(self, passed: EncodedLevel, column: int, row: int) -> bytes | None:
        """A stored tile, decoded as a check if the plan requires it."""
        data = passed.read(column, row)
        if data is not None and self._plan.verify:
            check_tile(self._plan.compression, passed.whole(data))
        return data

    def _put_pixels(self, level: int, column: int, row: int, pixels: Pixels) -> None:
        """Compress a tile and its mask; blank tiles share one place."""
        if pixels is None:
            return
        if self._plan.alpha == 'mask':
            hidden = self._hidden(pixels)
            if hidden is not None and np.count_nonzero(hidden) == hidden.size:
                return
            self._put_mask(level, column, row, hidden)
            if hidden is not None and self._fill is not None:
                pixels = pixels.filled(hidden, self._fill)
            color = pixels.for_jpeg()
        elif self._plan.alpha == 'band':
            if pixels.alpha is not None and self._fill is not None:
                pixels = pixels.filled(pixels.alpha == 0, self._fill)
            color = pixels.with_alpha()
        else:
            color = pixels.color
        if self._is_blank(color):
            return
        data = self._encoders[level](self._padded(color))
        self.tables[level].put(column, row, self._spool.append(data))

    def _is_blank(self, samples: Array) -> bool:
        """Whether a tile equals the blank tile."""
        blank = self._plan.blank
        samples = samples[..., :len(blank)]
        # The first row usually differs.
        return bool((samples[0] == blank).all() and (samples == blank).all())

    def _padded(self, samples: Array) -> Array:
        """A full, contiguous tile; beyond the image the last row and column are repeated."""
        width, height = self._plan.tile
        rows, cols = samples.shape[:2]
        if (rows, cols) == (height, width):
            return np.ascontiguousarray(samples)
        return np.pad(samples, ((0, height - rows), (0, width - cols), (0, 0)), 'edge')

    def _blank_tile(self, level: int) -> Place:
        """The place of the blank tile of a level."""
        (width, height), plan = self._plan.tile, self._plan
        tile = np.empty((height, width, plan.bands), plan.dtype)
        tile[...] = plan.blank
        return self._spool.append(self._encoders[level](tile))

    # Masks

    def _hidden(self, pixels: TilePixels) -> npt.NDArray[np.bool_] | None:
        """The pixels that are less than half opaque, (rows, cols); None if there are none."""
        hidden = pixels.hidden((self._opaque + 1) // 2)
        # Counting does not wait for other threads as any() and all() do.
        return hidden if hidden is not None and np.count_nonzero(hidden) else None

    def _put_mask(self, level: int, column: int, row: int,
                  hidden: npt.NDArray[np.bool_] | None) -> None:
        """Store the mask of a tile; pixels beyond the edge of the image are hidden."""
        rect, (width, height) = self._rect(level, column, row), self._plan.tile
        if (rect.width, rect.height) != (width, height):
            if hidden is None:
                hidden = np.zeros((rect.height, rect.width), np.bool_)
            hidden = np.pad(hidden, ((0, height - rect.height), (0, width - rect.width)),
                            constant_values=True)
        if hidden is None:
            place = self._constant_mask(shown=True)
        elif np.count_nonzero(hidden) == hidden.size:
            return
        else:
            place = self._spool.append(encode_mask(hidden))
        self.masks[level].put(column, row, place)

    def _constant_mask(self, *, shown: bool) -> Place:
        """The place of the mask that shows all pixels, or none."""
        with self._lock:
            if shown not in self._constant:
                width, height = self._plan.tile
                self._constant[shown] = self._spool.append(
                    encode_mask(np.full((height, width), not shown)))
            return self._constant[shown]
