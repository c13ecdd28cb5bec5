"""
Write a picture to an uncompressed TIFF file with one level, as input for libvips.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.geometry import TILE_SIZE, Rect, Size
from ..base.reduce import with_alpha
from ..base.threads import submitted
from ..store import Picture
from ..tiff.write import WrittenImage, WrittenPage, write_tiff
from .pyramid import THREADS, Progress
from .tiles import converted, filled_tiles

Array = npt.NDArray[Any]

_BLACK, _RGB = 1, 2
_TILE = Size(TILE_SIZE, TILE_SIZE)


def flat_bytes(picture: Picture, alpha: bool, dtype: np.dtype[Any]) -> int:
    """The bytes of the pixels of a flat file; parameters as for ``write_flat``."""
    filled = filled_tiles(picture, _TILE)
    blank = 0 if filled.all() else 1
    bands = picture.meaning.color_bands + alpha
    return (int(np.count_nonzero(filled)) + blank) * TILE_SIZE ** 2 * bands * dtype.itemsize


def write_flat(picture: Picture, alpha: bool, dtype: np.dtype[Any], path: str,
               progress: Progress) -> None:
    """
    Write a picture to a new flat TIFF file.

    libvips cannot read 64-bit floats, so each is stored as two bands of 32-bit integers.

    :param picture: the picture.
    :param alpha: whether to include the alpha band.
    :param dtype: of the samples.
    :param path: the file.
    :param progress: called with the fraction done, 0 to 1; an exception cancels the write.
    :raises OSError: if the disk is full.
    :raises TileSourceError: if the picture cannot be read.
    """
    filled = filled_tiles(picture, _TILE)
    bands = picture.meaning.color_bands + alpha
    whole = Rect(0, 0, *picture.size)

    def encoded(number: int) -> bytes:
        row, column = divmod(number, filled.shape[1])
        rect = Rect(column * TILE_SIZE, row * TILE_SIZE, TILE_SIZE, TILE_SIZE).clipped(whole)
        tile = np.zeros((TILE_SIZE, TILE_SIZE, bands), dtype)
        found = picture.read(rect) if filled[row, column] else None
        if found is not None:
            color, opacity = found
            samples = converted(color, dtype)
            if alpha:
                samples = with_alpha(samples, None if opacity is None else opacity.astype(dtype))
            tile[:rect.height, :rect.width] = samples
        return tile.tobytes()

    # All blank tiles are equal to the first one.
    numbers = np.arange(filled.size, dtype=np.int64)
    blank = ~filled.reshape(-1)
    if blank.any():
        numbers[blank] = np.flatnonzero(blank)[0]
    # Used by ``encoded``.
    stored, stored_bands = dtype, bands
    if dtype == np.float64:
        stored, stored_bands = np.dtype(np.uint32), 2 * bands
    colors = 3 if stored_bands >= 3 else 1
    tiles = _in_order(encoded, np.flatnonzero(numbers == np.arange(filled.size)).tolist(),
                      filled.size, progress)
    write_tiff(path, [WrittenImage([WrittenPage(
        picture.size, Size(TILE_SIZE, TILE_SIZE), stored, stored_bands,
        _RGB if colors == 3 else _BLACK, 1, tiles, numbers, (0,) * (stored_bands - colors))])],
        flat_bytes(picture, alpha, dtype))


def _in_order(encoded: Callable[[int], bytes], wanted: list[int], count: int,
              progress: Progress) -> Iterator[bytes]:
    """
    Encode tiles in several threads and yield them in order; ``b''`` for unwanted ones.

    :param encoded: returns a tile by its number.
    :param wanted: the numbers of the tiles to encode, in order.
    :param count: the number of all tiles.
    :param progress: called with the fraction done.
    """
    ahead: deque[tuple[int, Future[bytes]]] = deque()
    coming = iter(wanted)
    with ThreadPoolExecutor(THREADS, 'large_image_vips_write') as pool:
        try:
            for number in range(count):
                while len(ahead) < 2 * THREADS and (following := next(coming, None)) is not None:
                    ahead.append((following, submitted(pool, encoded, following)))
                if ahead and ahead[0][0] == number:
                    yield ahead.popleft()[1].result()
                    progress((number + 1) / count)
                else:
                    yield b''
        finally:
            for _, future in ahead:
                future.cancel()
