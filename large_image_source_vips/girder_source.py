"""
The tile source for files stored in Girder.

It differs from the source for files on disk in three ways.  File names come from Girder's
database, because Girder stores uploads under their hash.  Only some loaders of libvips are
allowed, because uploads are not trusted.  Errors reach web clients with a 4xx status and
the file's name in Girder, never its path on the server.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import cherrypy
from girder import events
from girder.constants import AssetstoreType
from girder.exceptions import FilePathException, RestException, ValidationException
from girder.models.assetstore import Assetstore
from girder.models.file import File
from girder.models.item import Item
from girder_large_image.girder_tilesource import GirderTileSource
from large_image import config
from large_image.cache_util import strhash
from large_image.exceptions import TileGeneralError, TileSourceError, TileSourceRangeError

from . import VipsFileTileSource
from .base.identity import Identity, file_identity
from .base.limits import LIMITS
from .base.settings import is_ignored

# How long the document of a file is used without reading it from the database again.
_KEPT_SECONDS = 1.0
# Fields of the document of a file that change with its contents.
_CONTENTS = ('assetstoreId', 'created', 'size', 'path', 'sha512', 'chunkUuid')


class GirderImageError(TileSourceError, RestException):
    """
    The file of an item cannot be read as an image.

    Most routes of girder_large_image answer a ``TileSourceError`` with status 400 or 404.
    Some do not catch it (``bands``, ``histogram``, ``dzi_files``); there Girder answers the
    ``RestException`` with status 400.
    """


class GirderFileError(TileGeneralError, RestException):
    """
    The contents of the file of an item cannot be accessed.

    It is not a ``TileSourceError``, because girder_large_image would then try to open the
    file itself, and answer with status 500 if that fails.
    """


class _Known(NamedTuple):
    """
    The document of a file (do not change it), and the state of its contents on disk.

    ``path`` is None if the contents are not on disk.
    """

    document: dict[str, Any]
    path: str | None
    identity: Identity | None
    until: float


class _Files:
    """
    Documents of files, cached for a second.

    large_image computes the key of a source twice for each tile.  New contents are normally
    noticed immediately: Girder notifies the process that saves them, and removes the old
    contents from disk.  Old contents are used for up to a second only if another server
    process replaced them and another file in Girder has the same contents.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._changes = 0
        for event in ('model.file.save.after', 'model.file.remove'):
            events.bind(event, 'large_image_source_vips', self._forget)

    def get(self, file_id: str) -> _Known | None:
        """
        The current state of a file, or its state earlier in the same web request.

        :param file_id: the id of its document.
        :returns: None if there is none.
        """
        # Each access to the disk lets other threads of the server run first.
        request = vars(cherrypy.serving).get('request')
        seen = None if request is None else vars(request).setdefault('_vips_files', {})
        if seen and file_id in seen:
            known: _Known = seen[file_id]
            return known
        found = self._current_state(file_id)
        if seen is not None and found is not None:
            seen[file_id] = found
        return found

    def _current_state(self, file_id: str) -> _Known | None:
        known = self._known.get(file_id)
        if known and time.monotonic() < known.until and (
                known.path is None or file_identity(known.path) == known.identity):
            return known
        changes = self._changes
        document = File().load(file_id, force=True)
        if document is None:
            return None
        path = _path_in_assetstore(document)
        known = _Known(document, path, file_identity(path), time.monotonic() + _KEPT_SECONDS)
        with self._lock:
            if len(self._known) >= LIMITS.girder_files:
                self._known.clear()
            if changes == self._changes:
                self._known[file_id] = known
        return known

    def _forget(self, _event: Any) -> None:
        """Drop all documents, because one of them has changed."""
        with self._lock:
            self._changes += 1
            self._known.clear()


def _path_in_assetstore(document: dict[str, Any]) -> str | None:
    """The path of the contents of a file; None if they are not on disk."""
    try:
        return str(File().getLocalFilePath(document))
    except (FilePathException, AttributeError, KeyError):
        # In an assetstore without files, or a link.
        return None


_files = _Files()


def _file_of(item: Any) -> _Known:
    """
    The image file of an item.

    :raises GirderFileError: if there is none.
    """
    try:
        file = _files.get(str(item['largeImage']['fileId']))
    except (KeyError, TypeError, ValidationException):
        file = None
    if file is None:
        msg = 'No large image file in this item.'
        raise GirderFileError(msg)
    return file


class VipsGirderTileSource(VipsFileTileSource, GirderTileSource):
    """
    A tile source for files in Girder that libvips can read.

    :param item: the document of an item whose ``largeImage`` refers to a file.
    :param kwargs: as for ``VipsFileTileSource``.
    :raises GirderFileError: if the file cannot be accessed.
    :raises GirderImageError: if it cannot be read as an image, or the settings do
        not allow it.
    """

    cacheName = 'tilesource'
    name = 'vips'
    # Formats with several files for an image, by suffix.
    extensionsWithAdjacentFiles: ClassVar[set[str]] = {
        'dcm', 'hdr', 'img', 'mrxs', 'svslide', 'vms', 'vmu'}
    mimeTypesWithAdjacentFiles: ClassVar[set[str]] = {'application/dicom'}
    # libvips marks OpenSlide as untrusted, but a server needs it for slides.  An
    # administrator may allow other untrusted loaders.
    _default_loaders: ClassVar[tuple[str, ...]] = ('trusted', 'openslideload')
    # Browsers can decode the tiles as stored.
    _default_pass_jpeg = True

    def __init__(self, item: dict[str, Any], **kwargs: Any) -> None:
        self._girder_file = _file_of(item).document
        self._girder_path: str | None = None
        self._mayHaveAdjacentFiles: bool | str = False
        with self._errors_for_clients():
            super().__init__(item, **kwargs)  # type: ignore[arg-type]  # the item is the path

    @staticmethod
    def getLRUHash(*args: Any, **kwargs: Any) -> str:
        """
        The key of a source in large_image's cache of sources.

        It contains the state of the item, of its file in Girder and, if they are on disk,
        of its contents.  When any of these changes, the file is opened again and cached
        tiles are not used.
        """
        file = _file_of(args[0])
        return str(strhash(
            GirderTileSource.getLRUHash(*args, **kwargs),
            [str(file.document.get(key)) for key in _CONTENTS], file.identity))

    # The file

    def mayHaveAdjacentFiles(self, largeImageFile: dict[str, Any]) -> bool | str:
        """
        Whether to open the file in a folder with other files that it may need.

        :param largeImageFile: the document of the file.
        :returns: False to open the file where it is stored; 'local' for a folder
            with the files of its item; True for a folder with the items of its
            Girder folder.
        """
        suffix = largeImageFile['name'].rpartition('.')[2].lower()
        self._mayHaveAdjacentFiles = (
            suffix in self.extensionsWithAdjacentFiles or
            largeImageFile.get('mimeType') in self.mimeTypesWithAdjacentFiles)
        if self._mayHaveAdjacentFiles and len(list(Item().childFiles(self.item, limit=2))) > 1:
            self._mayHaveAdjacentFiles = 'local'
        return self._mayHaveAdjacentFiles

    def _getLargeImagePath(self) -> str:
        """
        The path at which to open the file.

        :raises GirderFileError: if there is no such path.
        """
        if self._girder_file.get('linkUrl'):
            msg = f'The file {self._girder_file["name"]!r} is a link to another site, not an image.'
            raise GirderFileError(msg)
        try:
            self._girder_path = str(super()._getLargeImagePath())
            # On a mount a file may exist but be unreadable.
            with open(self._girder_path, 'rb') as stream:
                stream.read(1)
        except (FilePathException, OSError) as exc:
            raise GirderFileError(self._access_error_text()) from exc
        return self._girder_path

    def _access_error_text(self) -> str:
        name = self._girder_file['name']
        store = Assetstore().load(self._girder_file['assetstoreId']) or {}
        if store.get('type') == AssetstoreType.FILESYSTEM:
            return (f'The file {name!r} is gone from the disk of the server, or the server has no '
                    'permission to read it.')
        return (f'The file {name!r} is in an assetstore without files on disk; to read images from '
                'it, Girder has to be mounted (see "girder mount").')

    def _refuse_ignored_name(self, path: Any) -> None:
        """
        Refuse a file whose name in Girder is ignored.

        :raises TileSourceError: if the name matches the setting
            source_vips_ignored_names.
        """
        # _anyName is ignored here, because web clients can send any keyword.
        name = os.path.basename(self._girder_file['name'])
        if is_ignored(name):
            msg = (f'Not read: files such as {name!r} are left to other tile sources (the setting '
                   "source_vips_ignored_names; '' for no names).")
            raise TileSourceError(msg)

    # Errors

    @contextmanager
    def _errors_for_clients(self) -> Iterator[None]:
        """
        Convert a ``TileSourceError`` raised inside to a ``GirderImageError``.

        Its text has the file's name in Girder; the path on the server is only logged.
        """
        try:
            yield
        except (TileSourceRangeError, GirderImageError):
            raise
        except TileSourceError as exc:
            text, name = str(exc), self._girder_file['name']
            if self._girder_path:
                text = text.replace(repr(self._girder_path), repr(name))
                text = text.replace(self._girder_path, name)
            if self._mayHaveAdjacentFiles and not self._has_its_own_name():
                text += ('; a file of this kind may need other files beside it; for these, Girder '
                         'has to be mounted (see "girder mount")')
            config.getLogger().warning('%s (item %s): %s', name, self._girder_file['itemId'], exc)
            raise GirderImageError(text) from exc

    def _has_its_own_name(self) -> bool:
        """Whether the path of the opened file ends with its name in Girder, as on a mount."""
        return self._girder_path is not None and (
            os.path.basename(self._girder_path) == str(self._girder_file['name']))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._errors_for_clients(), super()._reading():
            yield

    def getNativeMagnification(self) -> dict[str, float | None]:
        """The magnification and the pixel size; see ``VipsFileTileSource``."""
        with self._errors_for_clients():
            return super().getNativeMagnification()

    def getInternalMetadata(self, **kwargs: Any) -> dict[str, Any]:
        """
        The header fields that libvips reads from the file.

        'filename' is the name in Girder, so that the server's paths stay private.
        """
        with self._errors_for_clients():
            metadata = super().getInternalMetadata(**kwargs)
        metadata['filename'] = self._girder_file['name']
        return metadata

    def _getAssociatedImage(self, imageKey: str) -> Any:
        with self._errors_for_clients():
            return super()._getAssociatedImage(imageKey)
