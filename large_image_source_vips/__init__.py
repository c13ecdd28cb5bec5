"""
A libvips tile source and sink for large_image.

``open`` reads tiles, regions and metadata of any file that libvips can read.
``new`` creates an empty image: ``addTile`` pastes into it, ``write`` saves it.
Errors are raised as ``TileSourceError``.
"""

from __future__ import annotations

import os
import uuid
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _distribution_version
from typing import Any, ClassVar

from large_image.constants import NEW_IMAGE_PATH_FLAG, SourcePriority, TileOutputMimeTypes
from large_image.exceptions import TileSourceError

from .base.errors import shown
from .base.identity import absolute_path
from .editing import EditableTileSource
from .reading.known_formats import known_mime_types, known_suffixes
from .source_cache import SourceMetaclass

try:
    __version__ = _distribution_version('large-image-source-vips')
except PackageNotFoundError:
    # Imported from a source tree that is not installed.
    __version__ = '0+unknown'


class NotAnEncodingError(TileSourceError, ValueError):
    """The first argument of ``new()`` is not an encoding but, for example, a path."""

    def __init__(self, given: Any) -> None:
        super().__init__(
            f'new() takes no path, and {shown(given)} is not a tile encoding such as JPEG or PNG.  '
            'Call new() and later write(path); to read a file, call open(path).')


class VipsFileTileSource(EditableTileSource, metaclass=SourceMetaclass):
    """
    A tile source for any file that libvips can read, and for images that are
    built with ``addTile``.

    Tiles are 256 x 256 pixels.  Level ``levels - 1`` is full resolution; each
    lower level is half as wide and high, rounded up.
    """

    cacheName = 'tilesource'
    name = 'vips'
    extensions: ClassVar[dict[str | None, SourcePriority]] = {
        None: SourcePriority.LOW,
        **dict.fromkeys(known_suffixes(), SourcePriority.IMPLICIT),
    }
    mimeTypes: ClassVar[dict[str | None, SourcePriority]] = {
        None: SourcePriority.FALLBACK,
        # As large_image's own sources do.
        **dict.fromkeys(known_mime_types(), SourcePriority.IMPLICIT_LOW),
    }
    newPriority = SourcePriority.MEDIUM

    @classmethod
    def addKnownExtensions(cls) -> None:
        """Add every suffix that this libvips can load; already done at import."""
        for suffix in known_suffixes():
            cls.extensions.setdefault(suffix, SourcePriority.IMPLICIT)


# Defaults of the class and of the functions below, as in large_image.
_DEFAULTS: dict[str, Any] = {
    'encoding': None, 'jpegQuality': 95, 'jpegSubsampling': 0, 'tiffCompression': 'raw',
    'edge': False, 'style': None, 'noCache': None}


def _chosen(**options: Any) -> dict[str, Any]:
    """The options that differ from their defaults; the repr shows only these."""
    return {name: value for name, value in options.items() if value != _DEFAULTS[name]}


def open(path: str | os.PathLike[str], encoding: str | None = None, jpegQuality: int = 95,
         jpegSubsampling: int = 0, tiffCompression: str = 'raw', edge: bool | str = False,
         style: str | dict[str, Any] | None = None, noCache: bool | None = None,
         **kwargs: Any) -> VipsFileTileSource:
    """
    Open a file with this source, whatever its name.

    The setting ``source_vips_ignored_names`` does not apply: it only tells
    ``large_image.open`` which files to leave to other sources.

    :param path: the path of the file.
    :param encoding: this and all others as for ``VipsFileTileSource``.
    :raises TileSourceFileNotFoundError: if there is no such file.
    :raises TileSourceError: if the file cannot be read as an image.
    """
    return VipsFileTileSource(path, _anyName=True, **kwargs, **_chosen(
        encoding=encoding, jpegQuality=jpegQuality, jpegSubsampling=jpegSubsampling,
        tiffCompression=tiffCompression, edge=edge, style=style, noCache=noCache))


def canRead(path: str | os.PathLike[str], encoding: str | None = None, jpegQuality: int = 95,
            jpegSubsampling: int = 0, tiffCompression: str = 'raw', edge: bool | str = False,
            style: str | dict[str, Any] | None = None, noCache: bool | None = None,
            **kwargs: Any) -> bool:
    """
    Whether ``large_image.open`` may open a file with this source.

    :param path: the path of the file.
    :param encoding: this and all others as for ``VipsFileTileSource``.
    :returns: False, never an exception, for anything that cannot be read, and
        for names that match the setting ``source_vips_ignored_names``.
    """
    return VipsFileTileSource.canRead(path, **kwargs, **_chosen(
        encoding=encoding, jpegQuality=jpegQuality, jpegSubsampling=jpegSubsampling,
        tiffCompression=tiffCompression, edge=edge, style=style, noCache=noCache))


def new(encoding: str | None = None, jpegQuality: int = 95, jpegSubsampling: int = 0,
        tiffCompression: str = 'raw', edge: bool | str = False,
        style: str | dict[str, Any] | None = None, noCache: bool | None = None, *,
        blend: str | None = None, accumulator: Any = None,
        spool: str | os.PathLike[str] | None = None, **kwargs: Any) -> VipsFileTileSource:
    """
    Create an empty image, to be filled with ``addTile`` and saved with ``write``.

    :param encoding: this and all others as for ``VipsFileTileSource``.
    :param noCache: ignored; new images are never cached.
    :param blend: how overlapping tiles are combined: 'over' (the default: the last tile is
        on top), 'first', 'mean', 'max', 'min', 'sum', or 'feather' (the mean, weighted with
        the distance to the edge of the tile).
    :param accumulator: the dtype of the result of 'mean', 'feather' and 'sum'.  None: that
        of the tiles, for 'sum' with 32 bits.
    :param spool: a folder for the tiles, created if necessary.  The image can then be
        pickled, and all processes with access to the folder can add tiles to it.  An
        existing folder is continued, also after a crash.
    :raises TileSourceError: if a path is given, or the folder cannot be used.
    """
    sink = {'blend': blend, 'accumulator': accumulator,
            'spool': None if spool is None else absolute_path(spool)}
    kwargs.update((name, value) for name, value in sink.items() if value is not None)
    given: Any = kwargs.get('path', encoding)
    if 'path' in kwargs or not (given is None or (
            isinstance(given, str) and given in TileOutputMimeTypes)):
        raise NotAnEncodingError(given)
    return VipsFileTileSource(NEW_IMAGE_PATH_FLAG + str(uuid.uuid4()), **kwargs, **_chosen(
        encoding=encoding, jpegQuality=jpegQuality, jpegSubsampling=jpegSubsampling,
        tiffCompression=tiffCompression, edge=edge, style=style, noCache=noCache))
