"""
Stores blocks in one temporary file that libvips can open as a TIFF.

The file is laid out as an uncompressed tiled BigTIFF.  Disk space is reserved when it
is allocated, so a full disk raises an error before anything has changed.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from ..base import files
from ..base.errors import SAVERS_CAN_FAIL, TileSourceError, vips_errors
from ..base.geometry import Size
from ..base.limits import LIMITS
from ..tiff import directories as tiff
from ..tiff.write import EXTRA_SAMPLES, LONG, LONG8, SHORT, Field, directory, header

# The first bytes are the TIFF header; blocks start at a memory page.
_FIRST_FREE = 4096

# Space is reserved in steps of a quarter of the file, at least this and at most
# LIMITS.sink_reserved.  Adding 2,500 tiles to a spool on a disk takes 0.3 s longer if each
# block reserves its own.
_MIN_STEP = 1 << 18

_SAMPLE_FORMAT = {'u': 1, 'i': 2, 'f': 3}


class Spool:
    """
    A temporary file with an allocator.

    Methods may be called from any thread, ``allocate`` and ``free`` only from one at
    a time.  Forked processes must not use it, because its owner goes on changing it.
    """

    def __init__(self) -> None:
        try:
            self._file = files.scratch_file('large_image_vips_spool_', '.tif')
        except OSError as exc:
            msg = (f'Cannot create a spool file in {tempfile.gettempdir()}: {exc.strerror}.  '
                   f'Set TMPDIR to a writable folder.')
            raise TileSourceError(msg) from exc
        self._end = _FIRST_FREE
        self._reserved = 0
        self._free: dict[int, list[int]] = {}

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
                # A whole step does not fit; the required bytes may.
                target = end
                self._grow(target)
        except OSError as exc:
            raise self._failed(exc) from exc
        self._reserved = target

    def _grow(self, size: int) -> None:
        files.reserve(self._file.descriptor, self._reserved, size - self._reserved)

    def free(self, offset: int, nbytes: int) -> None:
        """Free space for later allocations."""
        if offset + nbytes == self._end:
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
            f'{"grow" if full else "be written"} (it holds {self._reserved} bytes): '
            f'{exc.strerror}.  Set TMPDIR to a folder with more free space before creating the '
            f'image.')

    def read(self, offset: int, out: npt.NDArray[Any]) -> None:
        """
        Read from allocated space.

        :param offset: of the space.
        :param out: a C-contiguous array to fill.
        :raises TileSourceError: if the file cannot be read.
        """
        why: str | None = 'the file is truncated'
        try:
            if files.read_into(self._file.descriptor, out, offset) == out.nbytes:
                return
        except OSError as exc:
            why = exc.strerror
        msg = f'The spool file in {os.path.dirname(self._file.name)} cannot be read: {why}.'
        raise TileSourceError(msg)

    def image(self, size: Size, dtype: np.dtype[Any], bands: int, block: int,
              offsets: npt.NDArray[np.uint64],
              labels: Mapping[str, Any]) -> tuple[pyvips.Image, pyvips.Source]:
        """
        A libvips image of blocks in this file, for as long as the spool exists.

        Computing it raises an error if a block cannot be read; the block is black
        where an error would crash libvips (``SAVERS_CAN_FAIL``).

        :param size: in pixels; blocks at the right and bottom may extend beyond it.
        :param dtype: of the samples.
        :param bands: the number of bands.
        :param block: the width and height of a block in pixels.
        :param offsets: the offset of each block (block rows, block columns); offsets
            may repeat.
        :param labels: header fields to set, as ``pyvips.Image.copy`` takes them.
        :returns: the image, and the source that it reads.
        :raises TileSourceError: if the disk is full or libvips cannot open the file.
        """
        directory = self._write_directory(size, dtype, bands, block, offsets)
        try:
            with vips_errors('The spool file cannot be opened'):
                # A new source, because libvips caches images by file name.
                source = pyvips.Source.new_from_file(self._file.path)
                image = pyvips.Image.tiffload_source(
                    source, fail_on='warning' if SAVERS_CAN_FAIL else 'none')
                # A copy made later would not report progress.
                labelled = image.copy(**labels)
                # libvips reads the directory again for the first pixel; after that
                # it may be overwritten.
                pyvips.Region.new(image).fetch(0, 0, 1, 1)
        finally:
            self.free(*directory)
        return labelled, source

    def _write_directory(self, size: Size, dtype: np.dtype[Any], bands: int, block: int,
                         offsets: npt.NDArray[np.uint64]) -> tuple[int, int]:
        """Write the TIFF directory of an image; returns its offset and length."""
        count, color_bands = offsets.size, 3 if bands >= 3 else 1
        fields = [
            Field(tiff.WIDTH, LONG, (size.width,)),
            Field(tiff.HEIGHT, LONG, (size.height,)),
            Field(tiff.BITS, SHORT, (dtype.itemsize * 8,) * bands),
            Field(tiff.COMPRESSION, SHORT, (1,)),
            Field(tiff.PHOTOMETRIC, SHORT, (2 if color_bands == 3 else 1,)),
            Field(tiff.SAMPLES, SHORT, (bands,)),
            Field(tiff.PLANAR, SHORT, (1,)),
            Field(tiff.TILE_WIDTH, LONG, (block,)),
            Field(tiff.TILE_HEIGHT, LONG, (block,)),
            Field(tiff.TILE_OFFSETS, LONG8, np.ascontiguousarray(offsets, '<u8').tobytes()),
            Field(tiff.TILE_COUNTS, LONG8, np.full(
                count, block * block * bands * dtype.itemsize, '<u8').tobytes()),
            Field(tiff.SAMPLE_FORMAT, SHORT, (_SAMPLE_FORMAT[dtype.kind],) * bands),
        ]
        if bands > color_bands:
            fields.append(Field(EXTRA_SAMPLES, SHORT, (0,) * (bands - color_bands)))
        length = len(directory(fields, 0, big=True))
        offset = self.allocate(length)
        self.write(offset, directory(fields, offset, big=True))
        self.write(0, header(offset, big=True))
        return offset, length

    def close(self) -> None:
        """Delete the file; the spool must not be used again."""
        self._file.close()
