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
import weakref
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyvips
from large_image.exceptions import TileSourceError

from . import tiff
from .errors import vips_errors
from .geometry import Size
from .tiff_write import EXTRA_SAMPLES, LONG, LONG8, SHORT, Field, directory, header

# The header has the first bytes; blocks start at a page of memory.
_FIRST_FREE = 4096

# Space is reserved in steps that grow with the file, within these bounds.
_MIN_STEP = 1 << 18
_MAX_STEP = 1 << 26

_SAMPLE_FORMAT = {'u': 1, 'i': 2, 'f': 3}


def _no_space(exc: OSError, path: str, size: int) -> TileSourceError:
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return TileSourceError(
        f'The spool file in {os.path.dirname(path)} cannot '
        f'{"grow" if full else "be written"} (it holds {size} bytes): {exc.strerror}.  '
        f'Set TMPDIR to a folder with more room before the image is made.')


def _dispose(fd: int, path: str | None, owner: int) -> None:
    """Close a spool file and remove its name, if it still has one."""
    if os.getpid() != owner:
        # A forked process has a copy of the descriptor, but not the file.
        os.close(fd)
        return
    try:
        # Whatever else has the file open keeps the inode, not the space.
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)
        if path is not None:
            os.unlink(path)


class Spool:
    """
    A temporary file in which space is allocated, written and read.

    The file is where ``tempfile`` says.  Where the system lets an open file be
    opened again without its name, the name is removed at once, so that not
    even a killed process leaves anything behind; elsewhere it is removed when
    the spool is closed, collected or the interpreter exits.

    All methods may be called from any thread, but ``allocate`` and ``free``
    from one at a time.
    """

    def __init__(self) -> None:
        try:
            self._fd, self._name = tempfile.mkstemp('.tif', 'large_image_vips_spool_')
        except OSError as exc:
            msg = (f'No spool file can be made in {tempfile.gettempdir()}: {exc.strerror}.  '
                   f'Set TMPDIR to a folder that can be written to.')
            raise TileSourceError(msg) from exc
        self._pid = os.getpid()
        self.path = self._name
        unlinked = f'/proc/self/fd/{self._fd}'
        if os.path.exists(unlinked):
            self.path = unlinked
            os.unlink(self._name)
        self._finalizer = weakref.finalize(
            self, _dispose, self._fd, None if self.path == unlinked else self._name, self._pid)
        self._end = _FIRST_FREE
        self._reserved = 0
        self._free: dict[int, list[int]] = {}

    def allocate(self, nbytes: int) -> int:
        """
        Reserve space.

        :param nbytes: how much.
        :returns: the offset; the space reads as zeros unless it was used before.
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
        self._check_process()
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
            raise _no_space(exc, self._name, self._reserved) from exc
        self._reserved = target

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            msg = ('An image that is being put together can be changed, and viewed at a lower '
                   'level, only in the process that made it.')
            raise TileSourceError(msg)

    def _grow(self, size: int) -> None:
        if hasattr(os, 'posix_fallocate'):
            os.posix_fallocate(self._fd, self._reserved, size - self._reserved)
        else:
            os.ftruncate(self._fd, size)

    def free(self, offset: int, nbytes: int) -> None:
        """Give space back, to be allocated again in pieces of the same size."""
        self._free.setdefault(nbytes, []).append(offset)

    def write(self, offset: int, data: npt.NDArray[Any] | bytes) -> None:
        """
        Write into allocated space.

        :param offset: where.
        :param data: a C-contiguous array, or bytes.
        :raises TileSourceError: if the system cannot.
        """
        self._check_process()
        view = memoryview(cast(bytes, data)).cast('B')
        try:
            while len(view):
                done = os.pwrite(self._fd, view, offset)
                view, offset = view[done:], offset + done
        except OSError as exc:
            raise _no_space(exc, self._name, self._reserved) from exc

    def read(self, offset: int, out: npt.NDArray[Any]) -> None:
        """
        Read from allocated space.

        :param offset: where.
        :param out: a C-contiguous array to fill.
        :raises TileSourceError: if the system cannot.
        """
        view = memoryview(cast(bytearray, out)).cast('B')
        try:
            while len(view):
                done = os.preadv(self._fd, [view], offset)
                if not done:
                    raise OSError(errno.EIO, 'the file is shorter than it should be')
                view, offset = view[done:], offset + done
        except OSError as exc:
            msg = f'The spool file in {os.path.dirname(self._name)} cannot be read: {exc.strerror}.'
            raise TileSourceError(msg) from exc

    def image(self, size: Size, dtype: np.dtype[Any], bands: int, block: int,
              offsets: npt.NDArray[np.uint64], labels: Mapping[str, Any]) -> pyvips.Image:
        """
        What libvips makes of blocks in this file.

        The image reads the file; the spool must be kept as long as that.

        :param size: in pixels; the blocks at the right and bottom may reach
            beyond.
        :param dtype: of the samples.
        :param bands: of each pixel.
        :param block: the width and height of a block in pixels.
        :param offsets: where each block starts (block rows, block columns); a
            block may stand in several places.
        :param labels: header fields to set, as ``pyvips.Image.copy`` takes them.
        """
        directory = self._write_directory(size, dtype, bands, block, offsets)
        try:
            with vips_errors('The spool file cannot be opened'):
                # A source of its own for each image: libvips would hand out
                # an older image of the same name.
                source = pyvips.Source.new_from_file(self.path)
                image = pyvips.Image.tiffload_source(source)
                # A copy made later would not tell of progress.
                labelled = image.copy(**labels)
                # libvips reads the directory a second time for the first
                # pixel; after that it may be overwritten.
                pyvips.Region.new(image).fetch(0, 0, 1, 1)
        finally:
            self.free(*directory)
        return labelled

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
        self._finalizer()
