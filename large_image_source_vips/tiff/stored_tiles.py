"""
Read the compressed bytes of the tiles or strips of a TIFF page.

A tile that is empty, or lies partly beyond the file's end, raises ``Damaged``.
"""

from __future__ import annotations

import os
import weakref

import numpy as np
import numpy.typing as npt

from ..base.files import read_at, read_into
from ..base.threads import scratch
from .directories import Page, TiffDirectories, TiffFormatError
from .tile_table import tile_table


class Damaged(Exception):  # noqa: N818  (always caught; libvips reads the tile then)
    """A tile, or the list of tiles, is damaged or unusual."""


class PackedPage:
    """
    The tiles or strips of a page, for use by one thread.

    :param descriptor: of the file; closed with this object.
    :param page: the page.
    :raises Damaged: if the page does not list its tiles or strips.
    """

    def __init__(self, descriptor: int, page: Page) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor).atexit = False
        self._page = page
        try:
            self._tiff = TiffDirectories(descriptor)
        except TiffFormatError as exc:
            raise Damaged from exc
        extents = tile_table(self._tiff, page)
        if extents is None:
            raise Damaged
        self._offsets, self._counts = extents
        self._end = os.fstat(descriptor).st_size
        # The memory that this object takes.
        self.bytes = self._offsets.nbytes + self._counts.nbytes

    def packed(self, number: int) -> bytes:
        """
        Read a tile or strip.

        :param number: in file order.
        :raises Damaged: if it is empty or truncated.
        """
        offset, count = self._extent(number)
        try:
            data = read_at(self._descriptor, count, offset)
        except OSError as exc:
            raise Damaged from exc
        if len(data) < count:
            raise Damaged
        return data

    def packed_for_now(self, number: int) -> bytes | npt.NDArray[np.uint8]:
        """
        Read a tile or strip into an array that the thread's next call reuses.

        Reading large strips into reused memory took half the time.

        :raises Damaged: if it is empty or truncated.
        """
        offset, count = self._extent(number)
        data = scratch('packed', (count,), np.dtype(np.uint8))
        try:
            read = read_into(self._descriptor, data, offset)
        except OSError as exc:
            raise Damaged from exc
        if read < count:
            raise Damaged
        return data

    def _extent(self, number: int) -> tuple[int, int]:
        """The offset and byte count of a tile or strip."""
        if not 0 <= number < self._offsets.size:
            raise Damaged
        offset, count = int(self._offsets[number]), int(self._counts[number])
        if not 0 < count <= self._end - offset or offset < 0:
            raise Damaged
        return offset, count
