"""
Store blocks in one temporary file.

Disk space is reserved at allocation, so a full disk raises an error before anything has
changed.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from ..base import files
from ..base.errors import TileSourceError
from ..base.limits import LIMITS

# Space is reserved in steps of a quarter of the file, at least this and at most
# LIMITS.sink_reserved.  Measured: adding 2,500 tiles takes 0.3 s longer if space is
# reserved for each block.
_MIN_STEP = 1 << 18


class Spool:
    """
    A temporary file with an allocator.

    Methods may be called from any thread, but ``allocate``, ``refer`` and ``free`` only from
    one at a time.  Forked processes must not use it, because its owner continues to change it.
    """

    def __init__(self) -> None:
        try:
            self._file = files.scratch_file('large_image_vips_spool_', '')
        except OSError as exc:
            msg = (f'Cannot create a spool file in {tempfile.gettempdir()}: {exc.strerror}.  '
                   f'Set TMPDIR to a writable folder.')
            raise TileSourceError(msg) from exc
        self._end = 0
        self._reserved = 0
        self._free: dict[int, list[int]] = {}
        # How to read what is elsewhere, by its offset, which is negative.
        self._elsewhere: dict[int, Callable[[npt.NDArray[Any]], None]] = {}
        self._lowest = 0

    def allocate(self, nbytes: int) -> int:
        """
        Reserve space.

        :param nbytes: the number of bytes.
        :returns: the offset of space with undefined content.
        :raises TileSourceError: if the disk is full; nothing has changed then.
        """
        free = self._free.get(nbytes)
        if free:
            return free.pop()
        offset = self._end
        self._reserve(offset + nbytes)
        self._end += nbytes
        return offset

    def _reserve(self, end: int) -> None:
        """Reserve disk space for the file up to a position."""
        if end <= self._reserved:
            return
        step = min(max(_MIN_STEP, self._reserved // 4), LIMITS.sink_reserved)
        target = max(end, self._reserved + step)
        try:
            try:
                self._grow(target)
            except OSError:
                # There is no space for a whole step, but perhaps for the required bytes.
                target = end
                self._grow(target)
        except OSError as exc:
            raise self._failed(exc) from exc
        self._reserved = target

    def _grow(self, size: int) -> None:
        files.reserve(self._file.descriptor, self._reserved, size - self._reserved)

    def refer(self, read: Callable[[npt.NDArray[Any]], None]) -> int:
        """
        Refer to unchanging samples that are stored elsewhere; they take no space here.

        :param read: fills an array; it may raise ``TileSourceError``.
        :returns: an offset for ``read`` and ``free``.
        """
        self._lowest -= 1
        self._elsewhere[self._lowest] = read
        return self._lowest

    def free(self, offset: int, nbytes: int) -> None:
        """Free space for later allocations."""
        if offset < 0:
            del self._elsewhere[offset]
        elif offset + nbytes == self._end:
            self._end = offset
        else:
            self._free.setdefault(nbytes, []).append(offset)

    def write(self, offset: int, data: npt.NDArray[Any] | bytes) -> None:
        """
        Write into allocated space.

        :param offset: of the space.
        :param data: a C-contiguous array, or bytes.
        :raises TileSourceError: if the file cannot be written.
        """
        try:
            files.write_at(self._file.descriptor, data, offset)
        except OSError as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: OSError) -> TileSourceError:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return TileSourceError(
            f'The spool file in {os.path.dirname(self._file.name)} cannot '
            f'{"grow" if full else "be written"} (it has {self._reserved} bytes): '
            f'{exc.strerror}.  Set TMPDIR to a folder with more free space before creating the '
            f'image.')

    def read(self, offset: int, out: npt.NDArray[Any]) -> None:
        """
        Read from allocated space.

        :param offset: of the space.
        :param out: a C-contiguous array to fill.
        :raises TileSourceError: if the file cannot be read.
        """
        if offset < 0:
            self._elsewhere[offset](out)
            return
        why: str | None = 'the file is truncated'
        try:
            if files.read_into(self._file.descriptor, out, offset) == out.nbytes:
                return
        except OSError as exc:
            why = exc.strerror
        msg = f'The spool file in {os.path.dirname(self._file.name)} cannot be read: {why}.'
        raise TileSourceError(msg)

    def close(self) -> None:
        """Delete the file; the spool must not be used again."""
        self._file.close()
