"""
One file that is being read, shared by all sources on it in this process.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pyvips
from large_image import config

from ..base.errors import TileSourceError
from ..base.identity import Identity, identity_of_descriptor, open_regular
from ..codecs.jpeg import JpegPage
from ..codecs.lossless import DeflatedPage
from ..tiff.stored_tiles import Damaged
from . import loader
from .handles import Handle, pool
from .layout import Layout, Opening, Stored
from .one_page import single_directory
from .planes import planes

if TYPE_CHECKING:
    from .metadata import Description

_serials = itertools.count()


class SourceFile:
    """
    A file as it was at one moment, its loader, and what is open of it.

    :param path: absolute.
    :param identity: what the file system said of it then.
    :param chosen: the loader.
    :param source: the file as it was then, to load it once.
    """

    def __init__(self, path: str, identity: Identity, chosen: loader.Loader,
                 source: pyvips.Source | None = None) -> None:
        self.path = path
        self.identity = identity
        self.loader = chosen
        self._sources = [source] if source else []
        self.layout: Layout | None = None
        self.description: Description | None = None
        self.icc_profiles: list[bytes | None] | None = None
        self.survey_lock = threading.Lock()
        # The owner of handles and planes; unlike id() it is never used again.
        self.serial = next(_serials)
        weakref.finalize(self, _forget, self.serial).atexit = False

    @contextmanager
    def descriptor(self) -> Iterator[int]:
        """
        A descriptor of the file for positioned reads.

        :raises TileSourceError: if the file changed.
        """
        descriptor = open_regular(self.path)
        try:
            if identity_of_descriptor(descriptor) != self.identity:
                msg = f'{self.path!r} was changed after it was opened'
                raise TileSourceError(msg)
            yield descriptor
        finally:
            os.close(descriptor)

    def open(self, opening: Opening, *, sequential: bool = False) -> pyvips.Image:
        """
        A fresh image.

        :param opening: what to open.
        :param sequential: whether pixels are wanted once, from top to bottom.
        :raises TileSourceError: if the file changed or libvips refuses.
        """
        if opening.directory is None:
            source = self._take_source()
            # That is the file as it was; a path has to be looked at.
            identity = None if source else self.identity
        else:
            source, identity = single_directory(self.path, opening), self.identity
        image = loader.load(self.loader, self.path, identity, dict(opening.options),
                            sequential=sequential, source=source)
        if opening.directory is not None:
            # libvips calls back into this object for as long as the image
            # lives; this is where pyvips itself keeps such things.
            image._references.append(source)
        return image.get(opening.attached) if opening.attached else image

    def _take_source(self) -> pyvips.Source | None:
        """What the loader was found with, for the first who asks: one can load from it once."""
        with suppress(IndexError):
            return self._sources.pop()
        return None

    def forget_source(self) -> None:
        """Close what the loader was found with; only a survey loads from it."""
        self._sources.clear()

    def handle(self, stored: Stored) -> Handle:
        """The calling thread's open image of a picture that can be read at random."""
        return pool.get(self.serial, stored.opening,
                        lambda: Handle(self.open(stored.opening), stored.kept_rows))

    def deflated(self, stored: Stored) -> DeflatedPage:
        """
        The calling thread's way to a page whose tiles are deflated.

        :raises Damaged: if libvips had better look at it.
        """
        return pool.get(self.serial, ('deflate', stored.opening),
                        lambda: self.open_deflated(stored))

    def open_deflated(self, stored: Stored) -> DeflatedPage:
        """
        A page whose tiles or strips are deflated, opened anew.

        :raises Damaged: if libvips had better look at it.
        """
        assert stored.page is not None  # only a page has tiles or strips
        return DeflatedPage(self._descriptor_of_page(), stored.page)

    def jpeg_tiles(self, stored: Stored) -> JpegPage:
        """
        The calling thread's way to a page of JPEG tiles.

        :raises Damaged: if libvips had better look at it.
        """
        page = stored.page
        assert page is not None  # only a page has tiles
        return pool.get(self.serial, ('jpeg', stored.opening),
                        lambda: JpegPage(self._descriptor_of_page(), page))

    def _descriptor_of_page(self) -> int:
        """
        A descriptor to keep.

        :raises Damaged: if the file changed.
        """
        descriptor = open_regular(self.path)
        if identity_of_descriptor(descriptor) != self.identity:
            os.close(descriptor)
            raise Damaged
        return descriptor

    def discard_handle(self, stored: Stored) -> None:
        """Close the calling thread's image of a picture."""
        pool.discard(self.serial, stored.opening)

    def forget(self) -> None:
        """Close everything that is open of this file."""
        _forget(self.serial)


def _forget(serial: int) -> None:
    pool.forget(serial)
    planes.forget(serial)


_files: weakref.WeakValueDictionary[tuple[object, ...], SourceFile] = weakref.WeakValueDictionary()
_files_lock = threading.Lock()


def _renew_locks() -> None:
    """Another thread of the parent may have held a lock at the fork."""
    global _files_lock  # noqa: PLW0603  (a lock cannot be reset)
    _files_lock = threading.Lock()
    for file in list(_files.values()):
        file.survey_lock = threading.Lock()
        # It shares its position in the file with the parent.
        file.forget_source()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_renew_locks)


def source_file(path: str, loaders: str | Collection[str] = 'all') -> SourceFile:
    """
    The file at a path, as it is now and as the settings allow it.

    :param path: absolute.
    :param loaders: the loaders that may be used where the setting says nothing.
    :raises TileSourceFileNotFoundError: if there is none.
    :raises TileSourceError: if it is no image, or may not be read.
    """
    descriptor = open_regular(path)
    try:
        found = loader.find_loader(path, descriptor, loaders)
        identity = identity_of_descriptor(descriptor)
    finally:
        os.close(descriptor)
    key = path, identity, found.loader, repr(config.getConfig('source_vips_dpi'))
    with _files_lock:
        file = _files.get(key)
        if file is None:
            file = _files[key] = SourceFile(path, identity, *found)
        return file


