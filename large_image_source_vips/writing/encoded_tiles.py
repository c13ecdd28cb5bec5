"""
Spool compressed tiles to a temporary file until the TIFF file is written.

Threads finish tiles in any order; the TIFF file has them row by row, level by level.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..base import files
from ..base.geometry import Size


class Place(NamedTuple):
    """The offset and length of a tile in the spool."""

    offset: int
    length: int


class TileTable:
    """
    The places of the tiles of one level, or of its mask.

    :param grid: the number of tile columns and rows.
    """

    def __init__(self, grid: Size) -> None:
        self.grid = grid
        # -1: the tile is blank.
        self.offsets = np.full(grid.area, -1, np.int64)
        self.lengths = np.zeros(grid.area, np.int64)

    def put(self, column: int, row: int, place: Place) -> None:
        """Set the place of a tile."""
        number = row * self.grid.width + column
        self.offsets[number], self.lengths[number] = place

    def fill_blank(self, blank: Callable[[], Place]) -> None:
        """Set the place of all missing tiles; ``blank`` is called if there are any."""
        missing = self.offsets < 0
        if missing.any():
            self.offsets[missing], self.lengths[missing] = blank()

    def first_same(self) -> npt.NDArray[np.int64]:
        """For each tile, the number of the first one at the same place."""
        _, first, inverse = np.unique(self.offsets, return_index=True, return_inverse=True)
        result: npt.NDArray[np.int64] = first[inverse.reshape(-1)]
        return result


class EncodedTiles:
    """
    A temporary file of compressed tiles.

    :param folder: the folder in which to create it.
    :raises OSError: if it cannot be created.
    """

    def __init__(self, folder: str) -> None:
        self._name = os.path.join(folder, f'{uuid.uuid4().hex}.tiles')
        self._descriptor = os.open(
            self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, 'O_BINARY', 0), 0o600)
        self._lock = threading.Lock()
        self._end = 0
        # So a killed process leaves no file.  Windows cannot remove open files.
        with suppress(OSError):
            os.unlink(self._name)

    def close(self) -> None:
        """Remove the file."""
        os.close(self._descriptor)
        with suppress(FileNotFoundError):
            os.unlink(self._name)

    def append(self, data: bytes) -> Place:
        """
        Store a tile; safe to call from several threads.

        :raises OSError: if the disk is full.
        """
        with self._lock:
            place = Place(self._end, len(data))
            self._end += len(data)
        files.write_at(self._descriptor, data, place.offset)
        return place

    def read(self, table: TileTable, between: Callable[[], None]) -> Iterator[bytes]:
        """
        Yield the tiles of a level row by row; ``b''`` for tiles equal to an earlier one.

        :param table: with the places of all tiles.
        :param between: called after each tile.
        """
        first = table.first_same()
        for number, (same, offset, length) in enumerate(zip(
                first.tolist(), table.offsets.tolist(), table.lengths.tolist(), strict=True)):
            yield files.read_at(self._descriptor, length, offset) if same == number else b''
            between()

    @property
    def size(self) -> int:
        """The bytes of all tiles."""
        return self._end
