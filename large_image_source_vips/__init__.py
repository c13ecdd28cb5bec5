"""
A libvips tile source and sink for large_image.

``open`` gives tiles, regions and metadata of any file that libvips reads;
``new`` gives an empty image that collects patches with ``addTile`` and becomes
a file with ``write``.
"""

from __future__ import annotations

import os
import uuid
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _distribution_version
from typing import Any, ClassVar

from large_image.constants import NEW_IMAGE_PATH_FLAG, SourcePriority, TileOutputMimeTypes
from large_image.exceptions import TileSourceError

from .editing import EditableTileSource
from .reading.known_formats import known_mime_types, known_suffixes
from .source import SourceMetaclass

try:
    __version__ = _distribution_version('large-image-source-vips')
except PackageNotFoundError:
    # A source tree on the path that was never installed has no metadata.
    __version__ = '0+unknown'


class NotAnEncodingError(TileSourceError, ValueError):
    """``new()`` was given a path, or something else that is not an encoding."""

    def __init__(self, given: Any) -> None:
        super().__init__(
            f'new() takes no path, and {given!r} is not an encoding of tiles, such as JPEG or '
            'PNG.  Call new(), and then write(path); to read a file, call open(path).')


class VipsFileTileSource(EditableTileSource, metaclass=SourceMetaclass):
    """
    Tiles, regions and metadata of any file that libvips reads, or an image
    that is put together from patches.

    Tiles are 256 x 256.  Level ``levels - 1`` is the full resolution; every
    level below it is half as large, rounded up.
    """

    cacheName = 'tilesource'
    name = 'vips'
    extensions: ClassVar[dict[str | None, SourcePriority]] = {
        None: SourcePriority.LOW,
        **dict.fromkeys(known_suffixes(), SourcePriority.IMPLICIT),
    }
    mimeTypes: ClassVar[dict[str | None, SourcePriority]] = {
        None: SourcePriority.FALLBACK,
        # The priority that large_image itself gives to types it knows.
        **dict.fromkeys(known_mime_types(), SourcePriority.IMPLICIT_LOW),
    }
    newPriority = SourcePriority.MEDIUM

    @classmethod
    def addKnownExtensions(cls) -> None:
        """List every suffix that this libvips loads; done at import already."""
        for suffix in known_suffixes():
            cls.extensions.setdefault(suffix, SourcePriority.IMPLICIT)


# Of the parameters of the class and of the functions below, as in large_image.
_DEFAULTS: dict[str, Any] = {
    'encoding': None, 'jpegQuality': 95, 'jpegSubsampling': 0, 'tiffCompression': 'raw',
    'edge': False, 'style': None, 'noCache': None}


def _chosen(**options: Any) -> dict[str, Any]:
    """The options that differ from their defaults: only these belong in a repr."""
    return {name: value for name, value in options.items() if value != _DEFAULTS[name]}


def open(path: str | os.PathLike[str], encoding: str | None = None, jpegQuality: int = 95,
         jpegSubsampling: int = 0, tiffCompression: str = 'raw', edge: bool | str = False,
         style: str | dict[str, Any] | None = None, noCache: bool | None = None,
         **kwargs: Any) -> VipsFileTileSource:
    """
    Open a file with this source, whatever its name.

    The setting ``source_vips_ignored_names`` is for ``large_image.open``, which
    chooses a source; who calls this has chosen.

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
    Whether ``large_image.open`` can have this source open a file.

    :param path: the path of the file.
    :param encoding: this and all others as for ``VipsFileTileSource``.
    :returns: False, never an exception, for anything that is unreadable, and
        for names that match the setting ``source_vips_ignored_names``.
    """
    return VipsFileTileSource.canRead(path, **kwargs, **_chosen(
        encoding=encoding, jpegQuality=jpegQuality, jpegSubsampling=jpegSubsampling,
        tiffCompression=tiffCompression, edge=edge, style=style, noCache=noCache))


def new(encoding: str | None = None, jpegQuality: int = 95, jpegSubsampling: int = 0,
        tiffCompression: str = 'raw', edge: bool | str = False,
        style: str | dict[str, Any] | None = None, noCache: bool | None = None,
        **kwargs: Any) -> VipsFileTileSource:
    """
    Start an empty image, which collects patches with ``addTile``.

    It takes no path: ``write`` does.

    :param encoding: this and all others as for ``VipsFileTileSource``.
    :param noCache: of no effect: such an image is never cached.
    :raises TileSourceError: if a path is given.
    """
    given: Any = kwargs.get('path', encoding)
    if 'path' in kwargs or not (given is None or (
            isinstance(given, str) and given in TileOutputMimeTypes)):
        raise NotAnEncodingError(given)
    return VipsFileTileSource(NEW_IMAGE_PATH_FLAG + str(uuid.uuid4()), **kwargs, **_chosen(
        encoding=encoding, jpegQuality=jpegQuality, jpegSubsampling=jpegSubsampling,
        tiffCompression=tiffCompression, edge=edge, style=style, noCache=noCache))
