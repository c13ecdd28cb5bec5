"""
Writes RGBA pyramids as TIFF files of WebP tiles.

libvips drops alpha in JPEG tiles and encodes WebP tiles in one thread.  Here
several threads encode.  Memory is bounded by the tiles of the branches of the
pyramid that are being written.
"""

from __future__ import annotations

import functools
import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import PIL.features
import PIL.Image
import pyvips
from large_image.config import cpu_count

from ..base.geometry import TILE_SIZE, Rect, Size
from ..base.reduce import halve, with_alpha
from ..tiff import directories as tiff
from ..tiff.write import (
    EXTRA_SAMPLES,
    ICC_PROFILE,
    LONG,
    LONG8,
    SHORT,
    UNDEFINED,
    Field,
    directory,
    header,
    resolution_fields,
)

Tile = npt.NDArray[np.uint8]

_WEBP = 50001
_UNASSOCIATED_ALPHA = 2
# A thread's task is a square of 2 ** _DEPTH tiles a side and the smaller levels of it.
_DEPTH = 3


@functools.cache
def is_supported() -> bool:
    """Whether Pillow encodes WebP and this libvips decodes it in TIFF files."""
    if not PIL.features.check('webp'):
        return False
    try:
        pyvips.Image.black(16, 16, bands=4).copy(interpretation='srgb').tiffsave_buffer(
            compression='webp', tile=True, tile_width=16, tile_height=16)
    except pyvips.Error:
        return False
    return True


def encode(tile: Tile, quality: int) -> bytes:
    """
    Encode a tile as WebP, with lossless alpha.

    :param tile: (rows, cols, 4).
    :param quality: 0 to 100.
    """
    buffer = io.BytesIO()
    # method=0 is the fastest; others take three times as long for files 3 % smaller.
    PIL.Image.fromarray(tile).save(buffer, 'WEBP', quality=quality, method=0, exact=True)
    return buffer.getvalue()


def _morton(columns: int, rows: int) -> Iterator[tuple[int, int]]:
    """The columns and rows of all tiles in Morton order (Z-order)."""
    side = 1
    while side < max(columns, rows):
        side *= 2

    def visit(column: int, row: int, side: int) -> Iterator[tuple[int, int]]:
        if column >= columns or row >= rows:
            return
        if side == 1:
            yield column, row
            return
        half = side // 2
        for dy in (0, half):
            for dx in (0, half):
                yield from visit(column + dx, row + dy, half)

    return visit(0, 0, side)


class WebpTiffWriter:
    """
    Writes one RGBA pyramid.

    :param file: a new file, open for writing bytes.
    :param size: the full size in pixels.
    :param read: returns the pixels (rows, cols, 4) of a rectangle in full
        resolution; called from several threads.
    :param quality: of WebP, 0 to 100.
    :param pixel_size: width and height of a pixel in mm, None where unknown.
    :param profile: the ICC profile, if any.
    """

    def __init__(self, file: IO[bytes], size: Size, read: Callable[[Rect], Tile], quality: int,
                 pixel_size: tuple[float | None, float | None],
                 profile: bytes | None = None) -> None:
        self._file = file
        self._read = read
        self._quality = quality
        self._pixel_size = pixel_size
        self._profile = profile
        self._sizes = [size]
        while max(self._sizes[-1]) > TILE_SIZE:
            self._sizes.append(size.reduced(len(self._sizes)))
        grids = [grid_of(level) for level in self._sizes]
        self._offsets = [np.zeros((grid.height, grid.width), '<u8') for grid in grids]
        self._counts = [np.zeros((grid.height, grid.width), '<u8') for grid in grids]
        # A WebP tile can be a little larger than its samples.
        self._big = size.width * size.height * 4 * 3 // 2 > 1 << 32
        self._end = 16
        self._blank: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def write(self, progress: Callable[[float], None]) -> None:
        """
        Encode and write all tiles.

        :param progress: called with the fraction done, 0 to 1; its exceptions
            cancel the write.
        """
        depth = min(_DEPTH, len(self._sizes) - 1)
        grid = grid_of(self._sizes[depth])
        places = list(_morton(grid.width, grid.height))
        workers = max(1, cpu_count())
        pending: list[dict[tuple[int, int], Tile]] = [{} for _ in self._sizes]
        running: deque[tuple[tuple[int, int], Future[Tile]]] = deque()
        done = 0
        with ThreadPoolExecutor(workers) as pool:
            try:
                for place in places:
                    running.append((place, pool.submit(self._branch, depth, *place)))
                    if len(running) > 2 * workers:
                        done += self._take(running, depth, pending)
                        progress(done / len(places))
                while running:
                    done += self._take(running, depth, pending)
                    progress(done / len(places))
            finally:
                for _, future in running:
                    future.cancel()
        self._write_directories()

    def _take(self, running: deque[tuple[tuple[int, int], Future[Tile]]], depth: int,
              pending: list[dict[tuple[int, int], Tile]]) -> int:
        """Wait for the oldest branch; write the tiles of smaller levels that are now complete."""
        (column, row), future = running.popleft()
        tile, level = future.result(), depth
        while level + 1 < len(self._sizes):
            waiting = pending[level]
            waiting[column, row] = tile
            grid = grid_of(self._sizes[level])
            column, row = column // 2, row // 2
            parts = [(x, y) for y in (2 * row, 2 * row + 1) for x in (2 * column, 2 * column + 1)
                     if x < grid.width and y < grid.height]
            if not all(part in waiting for part in parts):
                break
            level += 1
            tile = self._joined(level, column, row, [waiting.pop(part) for part in parts])
        return 1

    def _branch(self, level: int, column: int, row: int) -> Tile:
        """Write a tile, and all higher-resolution tiles of the same area."""
        if level == 0:
            rect = Rect(column * TILE_SIZE, row * TILE_SIZE, TILE_SIZE, TILE_SIZE)
            tile = self._read(rect.clipped(Rect(0, 0, *self._sizes[0])))
            self._put(0, column, row, tile)
            return tile
        finer = grid_of(self._sizes[level - 1])
        tiles = [self._branch(level - 1, x, y)
                 for y in range(2 * row, min(2 * row + 2, finer.height))
                 for x in range(2 * column, min(2 * column + 2, finer.width))]
        return self._joined(level, column, row, tiles)

    def _joined(self, level: int, column: int, row: int, tiles: list[Tile]) -> Tile:
        """Reduce one to four tiles to one, and write it."""
        across = 2 if 2 * column + 1 < grid_of(self._sizes[level - 1]).width else 1
        rows = [np.concatenate(tiles[at:at + across], axis=1)
                for at in range(0, len(tiles), across)]
        area = np.concatenate(rows, axis=0)
        color, alpha = halve(area[:, :, :3], area[:, :, 3], averaged=True)
        tile = with_alpha(color, alpha)
        self._put(level, column, row, tile)
        return tile

    def _put(self, level: int, column: int, row: int, tile: Tile) -> None:
        """Encode a tile and append it to the file."""
        blank = not tile.any()
        if blank and self._blank:
            self._offsets[level][row, column], self._counts[level][row, column] = self._blank
            return
        whole: Tile = tile
        if tile.shape[:2] != (TILE_SIZE, TILE_SIZE):
            whole = np.zeros((TILE_SIZE, TILE_SIZE, 4), np.uint8)
            whole[:tile.shape[0], :tile.shape[1]] = tile
        data = encode(whole, self._quality)
        with self._lock:
            offset = self._end
            self._end += len(data)
            self._file.seek(offset)
            self._file.write(data)
            if blank:
                self._blank = offset, len(data)
        self._offsets[level][row, column] = offset
        self._counts[level][row, column] = len(data)

    def _write_directories(self) -> None:
        offset = first = self._end + -self._end % 8
        self._file.seek(offset)
        for level in range(len(self._sizes)):
            fields = self._fields(level)
            length = len(directory(fields, offset, self._big))
            following = offset + length if level + 1 < len(self._sizes) else 0
            self._file.write(directory(fields, offset, self._big, following))
            offset += length
        self._file.seek(0, os.SEEK_SET)
        self._file.write(header(first, self._big))

    def _fields(self, level: int) -> list[Field]:
        size = self._sizes[level]
        kind, dtype = (LONG8, '<u8') if self._big else (LONG, '<u4')

        def table(values: npt.NDArray[Any]) -> bytes:
            return values.astype(dtype).tobytes()

        return [
            Field(tiff.SUBFILE_TYPE, LONG, (int(level > 0),)),
            Field(tiff.WIDTH, LONG, (size.width,)),
            Field(tiff.HEIGHT, LONG, (size.height,)),
            Field(tiff.BITS, SHORT, (8, 8, 8, 8)),
            Field(tiff.COMPRESSION, SHORT, (_WEBP,)),
            Field(tiff.PHOTOMETRIC, SHORT, (2,)),
            Field(tiff.SAMPLES, SHORT, (4,)),
            Field(tiff.PLANAR, SHORT, (1,)),
            Field(tiff.TILE_WIDTH, LONG, (TILE_SIZE,)),
            Field(tiff.TILE_HEIGHT, LONG, (TILE_SIZE,)),
            Field(tiff.TILE_OFFSETS, kind, table(self._offsets[level])),
            Field(tiff.TILE_COUNTS, kind, table(self._counts[level])),
            Field(EXTRA_SAMPLES, SHORT, (_UNASSOCIATED_ALPHA,)),
            Field(tiff.SAMPLE_FORMAT, SHORT, (1, 1, 1, 1)),
            *resolution_fields(self._pixel_size),
            *([Field(ICC_PROFILE, UNDEFINED, self._profile)] if self._profile else []),
        ]


def grid_of(size: Size) -> Size:
    """The number of tile columns and rows of an image."""
    return Size(-(-size.width // TILE_SIZE), -(-size.height // TILE_SIZE))
