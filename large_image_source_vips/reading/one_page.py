"""
Open one directory of a TIFF file without reading those before it.

libtiff follows the chain of directories from the first one to the page that it opens.  Here
libvips reads the file through a source that replaces the pointers in the header and in the
directory, so every page opens equally fast.
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
    A reader that replaces a few bytes of a file.

    :param descriptor: of the file; closed with this object.
    :param patches: the replacement bytes by their offset in the file.
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
    A libvips source in which a TIFF file has a single directory.

    :param path: the absolute path of the file.
    :param opening: the offset of the directory, optionally a range of strips.
    :raises TileSourceError: if the directory cannot be read.
    """
    assert opening.directory is not None
    descriptor = open_regular(path)
    try:
        tiff = TiffDirectories(descriptor)
        patches = tiff.single_page_patches(tiff.page_at(opening.directory), opening.strips)
    except TiffFormatError as exc:
        os.close(descriptor)
        msg = f'Cannot read {path!r}: {exc}'
        raise TileSourceError(msg) from exc
    reader = _PatchedReader(descriptor, patches)
    source = pyvips.SourceCustom()
    source.on_read(reader.read)
    source.on_seek(reader.seek)
    return source
