"""
The tiles or strips of a TIFF page as they are in the file.
"""

from __future__ import annotations

import os
import weakref

import numpy as np
import numpy.typing as npt

from ..base.files import read_at, read_into
from ..base.threads import scratch
from .directories import Page, TiffDirectories, TiffFormatError


class Damaged(Exception):  # noqa: N818  (it goes no further than to those who ask libvips then)
    """Something that is not as it should be."""


class PackedPage:
    """
    A page, open for one thread.

    :param descriptor: of the file; closed when this object goes.
    :param page: which.
    :raises Damaged: if it does not say where its tiles or strips are.
    """

    def __init__(self, descriptor: int, page: Page) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor).atexit = False
        self._page = page
        try:
            self._tiff = TiffDirectories(descriptor)
        except TiffFormatError as exc:
            raise Damaged from exc
        places = self._tiff.places(page)
        if places is None:
            raise Damaged
        self._offsets, self._counts = places
        self._end = os.fstat(descriptor).st_size
        # What it takes in memory.
        self.bytes = self._offsets.nbytes + self._counts.nbytes

    def packed(self, number: int) -> bytes:
        """
        A tile or strip.

        :param number: in file order.
        :raises Damaged: if it is empty, or not all of it is in the file.
        """
        offset, count = self._place(number)
        try:
            data = read_at(self._descriptor, count, offset)
        except OSError as exc:
            raise Damaged from exc
        if len(data) < count:
            raise Damaged
        return data

    def packed_for_now(self, number: int) -> bytes | npt.NDArray[np.uint8]:
        """
        The same, good until the calling thread asks for the next of any page.

        A large strip in memory that is used again and again takes half the time to
        read.
        """
        offset, count = self._place(number)
        data = scratch('packed', (count,), np.dtype(np.uint8))
        try:
            read = read_into(self._descriptor, data, offset)
        except OSError as exc:
            raise Damaged from exc
        if read < count:
            raise Damaged
        return data

    def _place(self, number: int) -> tuple[int, int]:
        """
        Where a tile or strip is in the file, and how long.

        :raises Damaged: if it is empty, or not all of it is in the file.
        """
        if not 0 <= number < self._offsets.size:
            raise Damaged
        offset, count = int(self._offsets[number]), int(self._counts[number])
        if not 0 < count <= self._end - offset or offset < 0:
            raise Damaged
        return offset, count
