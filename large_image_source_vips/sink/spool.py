"""
One sparse temporary file that holds blocks and that libvips can open.

The file is an uncompressed tiled BigTIFF in the making.  Space in it is handed
out piece by piece and reserved on the disk at once, so that a full disk shows
where an error can still be reported and nothing has changed.
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
from ..tiff import directories as tiff
from ..tiff.write import EXTRA_SAMPLES, LONG, LONG8, SHORT, Field, directory, header

# The header has the first bytes; blocks start at a page of memory.
_FIRST_FREE = 4096

# Space is reserved in steps that grow with the file, within these bounds.
_MIN_STEP = 1 << 18
_MAX_STEP = 1 << 26

_SAMPLE_FORMAT = {'u': 1, 'i': 2, 'f': 3}


class Spool:
    """
    A temporary file in which space is allocated, written and read.

    All methods may be called from any thread, but ``allocate`` and ``free``
    from one at a time.  A process that was forked neither reads nor writes it:
    what is in it changes with its owner.
    """

    def __init__(self) -> None:
        try:
            self._file = files.scratch_file('large_image_vips_spool_', '.tif')
        except OSError as exc:
            msg = (f'No spool file can be made in {tempfile.gettempdir()}: {exc.strerror}.  '
                   f'Set TMPDIR to a folder that can be written to.')
            raise TileSourceError(msg) from exc
        self._end = _FIRST_FREE
        self._reserved = 0
        self._free: dict[int, list[int]] = {}

    def allocate(self, nbytes: int) -> int:
        """
        Reserve space.

        :param nbytes: how much.
        :returns: the offset; what is there may be from an earlier use.
        :raises TileSourceError: if there is no room; nothing has changed then.
        """
        free = self._free.get(nbytes)
        if free:
            return free.pop()
        offset = self._end
        self._reserve(offset + nbytes)
        self._end += nbytes
        return offset

    def _reserve(self, end: int) -> None:
        """Make sure that the disk holds the file up to a position."""
        if end <= self._reserved:
            return
        step = min(max(_MIN_STEP, self._reserved // 4), _MAX_STEP)
        target = max(end, self._reserved + step)
        try:
            try:
                self._grow(target)
            except OSError:
                # The generous step does not fit; the bare need may.
                target = end
                self._grow(target)
        except OSError as exc:
            raise self._failed(exc) from exc
        self._reserved = target

    def _grow(self, size: int) -> None:
        files.reserve(self._file.descriptor, self._reserved, size - self._reserved)

    def free(self, offset: int, nbytes: int) -> None:
        """Give space back, to be allocated again."""
        if offset + nbytes == self._end:
            self._end = offset
        else:
            self._free.setdefault(nbytes, []).append(offset)

    def write(self, offset: int, data: npt.NDArray[Any] | bytes) -> None:
        """
        Write into allocated space.

        :param offset: where.
        :param data: a C-contiguous array, or bytes.
        :raises TileSourceError: if the system cannot.
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
            f'{exc.strerror}.  Set TMPDIR to a folder with more room before the image is made.')

    def read(self, offset: int, out: npt.NDArray[Any]) -> None:
        """
        Read from allocated space.

        :param offset: where.
        :param out: a C-contiguous array to fill.
        :raises TileSourceError: if the system cannot.
        """
        why: str | None = 'it is shorter than it should be'
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
        What libvips makes of blocks in this file.

        The image reads the file; the spool must be kept as long as that.  A
        block that cannot be read is an error while libvips computes the image,
        or black where that would make libvips crash (``SAVERS_CAN_FAIL``).

        :param size: in pixels; the blocks at the right and bottom may reach
            beyond.
        :param dtype: of the samples.
        :param bands: of each pixel.
        :param block: the width and height of a block in pixels.
        :param offsets: where each block starts (block rows, block columns); a
            block may stand in several places.
        :param labels: header fields to set, as ``pyvips.Image.copy`` takes them.
        :returns: the image, and the source that it reads.
        """
        directory = self._write_directory(size, dtype, bands, block, offsets)
        try:
            with vips_errors('The spool file cannot be opened'):
                # A source of its own for each image: libvips would hand out
                # an older image of the same name.
                source = pyvips.Source.new_from_file(self._file.path)
                image = pyvips.Image.tiffload_source(
                    source, fail_on='warning' if SAVERS_CAN_FAIL else 'none')
                # A copy made later would not tell of progress.
                labelled = image.copy(**labels)
                # libvips reads the directory a second time for the first
                # pixel; after that it may be overwritten.
                pyvips.Region.new(image).fetch(0, 0, 1, 1)
        finally:
            self.free(*directory)
        return labelled, source

    def _write_directory(self, size: Size, dtype: np.dtype[Any], bands: int, block: int,
                         offsets: npt.NDArray[np.uint64]) -> tuple[int, int]:
        """Write the TIFF directory of an image; gives its place and length."""
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
        """Give the space back to the disk; the spool is not used again."""
        self._file.close()
