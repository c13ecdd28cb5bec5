"""
The source for files that are held in Girder.

Three things differ from files on disk.  Girder stores an upload under a name
that says nothing, so the name that users know it by comes from the database.
Whatever users upload is untrusted, so not every loader of libvips is let loose
on it.  And whoever asks is far away, so errors are sentences for them, about
the file by its name in Girder, with a status of the 400s.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

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
from .base.identity import file_identity
from .base.settings import is_ignored

# What of a file's document tells that its contents are others.
_CONTENTS = ('assetstoreId', 'created', 'size', 'path', 'sha512', 'chunkUuid')


class GirderImageError(TileSourceError, RestException):
    """
    The file of an item cannot be read as an image.

    Most routes of girder_large_image answer a ``TileSourceError`` with status
    400 or 404; those that do not catch it (``bands``, ``histogram``,
    ``dzi_files``) leave it to Girder, which does so with a ``RestException``.
    """


class GirderFileError(TileGeneralError, RestException):
    """
    The bytes of the file of an item are out of reach.

    This is not a ``TileSourceError``: on one of those girder_large_image tries
    to open the file itself, and answers with status 500 where that fails too.
    """


def _file_of(item: Any) -> dict[str, Any]:
    """
    The document of the file that holds the image of an item.

    :raises GirderFileError: if there is none.
    """
    try:
        file: dict[str, Any] | None = File().load(item['largeImage']['fileId'], force=True)
    except (KeyError, TypeError, ValidationException):
        file = None
    if file is None:
        msg = 'No large image file in this item.'
        raise GirderFileError(msg)
    return file


class VipsGirderTileSource(VipsFileTileSource, GirderTileSource):
    """
    Tiles, regions and metadata of the files in Girder that libvips reads.

    :param item: the document of an item whose ``largeImage`` names a file.
    :param kwargs: as for ``VipsFileTileSource``.
    :raises GirderFileError: if the file is out of reach.
    :raises GirderImageError: if it cannot be read as an image, or the settings
        do not allow to.
    """

    cacheName = 'tilesource'
    name = 'vips'
    # The formats whose images are several files, found by their names.
    extensionsWithAdjacentFiles: ClassVar[set[str]] = {
        'dcm', 'hdr', 'img', 'mrxs', 'svslide', 'vms', 'vmu'}
    mimeTypesWithAdjacentFiles: ClassVar[set[str]] = {'application/dicom'}
    # OpenSlide reads what slide scanners write, so a server for slides cannot
    # do without it; the other untrusted loaders are for its administrator.
    _default_loaders: ClassVar[tuple[str, ...]] = ('trusted', 'openslideload')

    def __init__(self, item: dict[str, Any], **kwargs: Any) -> None:
        self._girder_file = _file_of(item)
        self._girder_path: str | None = None
        self._mayHaveAdjacentFiles: bool | str = False
        with self._errors_for_clients():
            super().__init__(item, **kwargs)  # type: ignore[arg-type]  # the item is the path

    @staticmethod
    def getLRUHash(*args: Any, **kwargs: Any) -> str:
        """
        The key of a source in large_image's cache of sources.

        It holds what Girder says of the item and of its file, and of a file
        that was imported, not uploaded, also what the file system says.  So
        when any of these changes, so do the keys of all tiles, and the file is
        opened anew.
        """
        file = _file_of(args[0])
        return str(strhash(
            GirderTileSource.getLRUHash(*args, **kwargs),
            [str(file.get(key)) for key in _CONTENTS],
            file_identity(file['path']) if file.get('imported') else None))

    # The file

    def mayHaveAdjacentFiles(self, largeImageFile: dict[str, Any]) -> bool | str:
        """
        Whether the file is to be opened where its companions are around it.

        :param largeImageFile: the document of the file.
        :returns: False to read the file where it is stored; True for a folder
            in which the items of its folder are files; 'local' for one with the
            files of its item.
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
        Where the file can be opened.

        :raises GirderFileError: if nowhere.
        """
        if self._girder_file.get('linkUrl'):
            msg = f'The file {self._girder_file["name"]!r} is a link to elsewhere, not an image.'
            raise GirderFileError(msg)
        try:
            self._girder_path = str(super()._getLargeImagePath())
            # On a mount a file may have a size and a date, but no contents.
            with open(self._girder_path, 'rb') as stream:
                stream.read(1)
        except (FilePathException, OSError) as exc:
            raise GirderFileError(self._why_out_of_reach()) from exc
        return self._girder_path

    def _why_out_of_reach(self) -> str:
        name = self._girder_file['name']
        store = Assetstore().load(self._girder_file['assetstoreId']) or {}
        if store.get('type') == AssetstoreType.FILESYSTEM:
            return (f'The file {name!r} is gone from the disk of the server, or the server may not '
                    'read it.')
        return (f'The file {name!r} is in an assetstore without files on disk; to read images from '
                'there, Girder has to be mounted (see "girder mount").')

    def _refuse_ignored_name(self, path: Any) -> None:
        """
        Leave a file to other sources if its name in Girder tells so.

        :raises TileSourceError: if the name matches source_vips_ignored_names.
        """
        # Whoever asks over the web may send any keyword: none lets a name pass.
        name = os.path.basename(self._girder_file['name'])
        if is_ignored(name):
            msg = (f'Not read: files such as {name!r} are left to other tile sources (the setting '
                   "source_vips_ignored_names; '' for no names).")
            raise TileSourceError(msg)

    # Errors

    @contextmanager
    def _errors_for_clients(self) -> Iterator[None]:
        """
        Turn a ``TileSourceError`` raised inside into a ``GirderImageError``.

        Its text names the file as Girder does; where the server keeps it is for
        the log of the server only.
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
            if self._mayHaveAdjacentFiles and not self._is_among_its_companions():
                text += ('; a file of this kind may need others beside it, and for these Girder '
                         'has to be mounted (see "girder mount")')
            config.getLogger().warning('%s (item %s): %s', name, self._girder_file['itemId'], exc)
            raise GirderImageError(text) from exc

    def _is_among_its_companions(self) -> bool:
        """Whether the file was opened under its own name."""
        return self._girder_path is not None and (
            os.path.basename(self._girder_path) == str(self._girder_file['name']))

    def getTile(self, *args: Any, **kwargs: Any) -> Any:
        """One tile; see ``VipsFileTileSource.getTile``."""
        with self._errors_for_clients():
            return super().getTile(*args, **kwargs)

    def getNativeMagnification(self) -> dict[str, float | None]:
        """The magnification and the size of a full-resolution pixel, where known."""
        with self._errors_for_clients():
            return super().getNativeMagnification()

    def getInternalMetadata(self, **kwargs: Any) -> dict[str, Any]:
        """
        What libvips knows of the file, header field by header field.

        Its name is that in Girder; where the server keeps it is nobody's
        business.
        """
        with self._errors_for_clients():
            metadata = super().getInternalMetadata(**kwargs)
        metadata['filename'] = self._girder_file['name']
        return metadata

    def _getAssociatedImage(self, imageKey: str) -> Any:
        with self._errors_for_clients():
            return super()._getAssociatedImage(imageKey)
