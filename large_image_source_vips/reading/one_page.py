"""
TIFF files shown to libvips with a few bytes replaced.

libvips and libtiff walk the chain of directories for each page that is opened.
With the pointers of the header and of one directory replaced, that directory is
the first and only one, and opens as fast wherever it is.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping

import pyvips

from ..base.errors import TileSourceError
from ..base.files import PositionedReader
from ..base.identity import open_regular
from ..tiff.directories import TiffDirectories, TiffFormatError
from .layout import Opening


class _PatchedReader(PositionedReader):
    """
    Reads a file with a few bytes replaced.

    :param descriptor: of the file; closed when this object goes.
    :param patches: offset and bytes of what is replaced.
    """

    def __init__(self, descriptor: int, patches: Mapping[int, bytes]) -> None:
        super().__init__(descriptor)
        self._patches = patches
        weakref.finalize(self, os.close, descriptor).atexit = False

    def read(self, length: int) -> bytes:
        """As ``io.RawIOBase.read``."""
        position = self._position
        data = super().read(length)
        for offset, patch in self._patches.items():
            start = offset - position
            if -len(patch) < start < len(data):
                changed = bytearray(data)
                first, last = max(start, 0), min(start + len(patch), len(data))
                changed[first:last] = patch[first - start:last - start]
                data = bytes(changed)
        return data


def single_directory(path: str, opening: Opening) -> pyvips.SourceCustom:
    """
    A source that shows one directory of a TIFF file as the first and only one.

    :param path: absolute.
    :param opening: with the offset of the directory, and perhaps some strips.
    :raises TileSourceError: if it cannot be read.
    """
    assert opening.directory is not None
    descriptor = open_regular(path)
    try:
        tiff = TiffDirectories(descriptor)
        patches = tiff.alone(tiff.page_at(opening.directory), opening.strips)
    except TiffFormatError as exc:
        os.close(descriptor)
        msg = f'Cannot read {path!r}: {exc}'
        raise TileSourceError(msg) from exc
    reader = _PatchedReader(descriptor, patches)
    source = pyvips.SourceCustom()
    source.on_read(reader.read)
    source.on_seek(reader.seek)
    return source
