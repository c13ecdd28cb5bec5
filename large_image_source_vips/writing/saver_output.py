"""
An output file for libvips' savers that defers errors.

libvips 8.14 ends the process if an error, such as a full disk, occurs while it writes a
TIFF pyramid.  Here the error is raised after the saver has finished; until then further
output is discarded, and reads return zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pyvips

from ..base import files


class _Output:
    """
    The file with the position at which libvips writes.

    :param descriptor: a new file, open for reading and writing.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = self._end = 0
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.failure is None:
            try:
                files.write_at(self._descriptor, data, self._position)
            except OSError as exc:
                self.failure = exc
        self._position += len(data)
        self._end = max(self._end, self._position)
        return len(data)

    def read(self, size: int) -> bytes:
        size = max(0, min(size, self._end - self._position))
        data = files.read_at(self._descriptor, size, self._position).ljust(size, b'\0')
        self._position += size
        return data

    def seek(self, offset: int, whence: int) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        self._position = start + offset
        return self._position


@contextmanager
def unfailing_target(path: str) -> Iterator[pyvips.TargetCustom]:
    """
    A context with a libvips target that writes a file and never fails.

    :param path: the file to create.
    :raises OSError: at the end of the context, if the file could not be written.
    """
    descriptor = os.open(
        path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, 'O_BINARY', 0), 0o666)
    try:
        output = _Output(descriptor)
        target = pyvips.TargetCustom()
        target.on_write(lambda data: output.write(bytes(data)))
        target.on_read(output.read)
        target.on_seek(output.seek)
        yield target
        if output.failure is not None:
            raise output.failure
    finally:
        os.close(descriptor)
