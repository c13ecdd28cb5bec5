"""
The open descriptors and libvips images of a file, shared by all its sources in this
process.

Every open checks that the file has not changed, and raises ``TileSourceError`` if it has.
``handles.pool`` bounds the number of open images and descriptors.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import pyvips

from ..base.errors import TileSourceError
from ..base.frames import Annotations
from ..base.identity import Identity, identity_of_descriptor, open_regular
from ..base.settings import dpi_setting
from ..tiff.directories import TiffDirectories
from ..tiff.page import Page
from . import loader
from .handles import Handle, pool
from .layout import Layout, Opening, Stored
from .level_cache import cached_levels
from .maker_tags import Scale
from .one_page import single_directory
from .tiff_samples import problem
from .tiff_tiles import OpenFile, TiffTiles, open_tiles
from .tile_cache import tiles as kept_tiles

_serials = itertools.count()


class _ReadByLibvips:
    """The pool's entry for a page that only libvips can read."""

    bytes = 0


class SourceFile:
    """
    One version of a file, with its loader and its open images.

    :param path: an absolute path.
    :param identity: the identity of that version.
    :param chosen: the loader.
    :param source: an open libvips source of that version; one image can be loaded from it.
    :param fallback: the loader to use if the first cannot open the file.
    """

    def __init__(self, path: str, identity: Identity, chosen: loader.Loader,
                 source: pyvips.Source | None = None,
                 fallback: loader.Loader | None = None) -> None:
        self.path = path
        self.identity = identity
        self.loader = chosen
        self.fallback = fallback
        self.key = f'{path} {tuple(identity)} {chosen.name} {dpi_setting()!r}'
        self._sources = [source] if source else []
        self.layout: Layout | None = None
        self.scale: Scale | None = None
        self.annotations: Annotations | None = None
        self.icc_profiles: list[bytes | None] | None = None
        self.survey_lock = threading.Lock()
        # The pages that only libvips can read.
        self._irregular: set[tuple[int, int]] = set()
        # Identifies the file in caches; unlike id() it is never reused.
        self.serial = next(_serials)
        weakref.finalize(self, _forget, self.serial).atexit = False

    @contextmanager
    def descriptor(self) -> Iterator[int]:
        """
        A descriptor of the file for positioned reads.

        :raises TileSourceError: if the file has changed.
        """
        descriptor = _checked_descriptor(self.path, self.identity)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def open(self, opening: Opening, *, sequential: bool = False) -> pyvips.Image:
        """
        Open a new image.

        :param opening: what to open.
        :param sequential: whether the pixels are read once, from top to bottom.
        :raises TileSourceError: if the file has changed or libvips cannot open it.
        """
        if opening.directory is None:
            source = self._take_source()
            # The file at a path may have been replaced; an open source cannot.
            identity = None if source else self.identity
        else:
            source, identity = single_directory(self.path, opening), self.identity
        image = loader.load(self.loader, self.path, identity, dict(opening.options),
                            sequential=sequential, source=source)
        if opening.directory is not None:
            # libvips calls this object as long as the image exists; pyvips keeps such
            # objects in this list, too.
            image._references.append(source)
        return image.get(opening.attached) if opening.attached else image

    def _take_source(self) -> pyvips.Source | None:
        """The source that ``find_loader`` opened, at the first call; one image can use it."""
        with suppress(IndexError):
            return self._sources.pop()
        return None

    def forget_source(self) -> None:
        """Close the source that ``find_loader`` opened; only ``survey`` uses it."""
        self._sources.clear()

    def handle(self, stored: Stored) -> Handle:
        """The calling thread's open image of a picture with random access."""
        return pool.get(self.serial, stored.opening,
                        lambda: Handle(self.open(stored.opening), stored.kept_rows))

    def tiles(self, stored: Stored) -> TiffTiles | None:
        """
        The tiles or strips of a picture, shared by all threads.

        :returns: None if only libvips can read the picture.
        :raises TileSourceError: if the file has changed.
        """
        page = stored.page
        if page is None:
            return None
        key = page.offset, page.shift
        if key in self._irregular:
            return None
        found = pool.get(self.serial, key, lambda: self._open_tiles(page), shared=True)
        if isinstance(found, TiffTiles):
            return found
        self._irregular.add(key)
        return None

    def problem(self, stored: Stored) -> str:
        """The reason why ``tiles`` cannot read a picture, as a clause; '' if unknown."""
        assert stored.page is not None  # a TIFF page
        with self.descriptor() as descriptor:
            return problem(TiffDirectories(descriptor), stored.page) or ''

    def _open_tiles(self, page: Page) -> TiffTiles | _ReadByLibvips:
        path, identity = self.path, self.identity
        # A reference to this object would keep it alive.
        return open_tiles(lambda: OpenFile(_checked_descriptor(path, identity)),
                          self.serial, page) or _ReadByLibvips()

    def discard_handle(self, stored: Stored) -> None:
        """Close the calling thread's image of a picture."""
        pool.discard(self.serial, stored.opening)

    def forget(self) -> None:
        """Close everything that is open of this file and free its decoded images."""
        _forget(self.serial)


def _checked_descriptor(path: str, identity: Identity) -> int:
    """
    A new descriptor of a file, for the caller to close.

    :raises TileSourceError: if the file has changed.
    """
    descriptor = open_regular(path)
    if identity_of_descriptor(descriptor) != identity:
        os.close(descriptor)
        msg = f'{path!r} was changed after it was opened'
        raise TileSourceError(msg)
    return descriptor


def _forget(serial: int) -> None:
    pool.forget(serial)
    cached_levels.forget(serial)
    kept_tiles.forget(serial)


_files: weakref.WeakValueDictionary[tuple[object, ...], SourceFile] = weakref.WeakValueDictionary()
_files_lock = threading.Lock()


def _renew_locks() -> None:
    """Replace locks that another thread of the parent may have held at the fork."""
    global _files_lock  # noqa: PLW0603  (a lock cannot be reset)
    _files_lock = threading.Lock()
    for file in list(_files.values()):
        file.survey_lock = threading.Lock()
        # The parent uses the same file position.
        file.forget_source()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_renew_locks)


def source_file(path: str, loaders: str | Collection[str] = 'all') -> SourceFile:
    """
    The current version of the file at a path.

    :param path: an absolute path.
    :param loaders: the loaders that the setting 'default' stands for.
    :raises TileSourceFileNotFoundError: if there is no such file.
    :raises TileSourceError: if it is not an image or the settings do not allow its loader.
    """
    descriptor = open_regular(path)
    try:
        found = loader.find_loader(path, descriptor, loaders)
        identity = identity_of_descriptor(descriptor)
    finally:
        os.close(descriptor)
    key = path, identity, found.loader, found.fallback, repr(dpi_setting())
    with _files_lock:
        file = _files.get(key)
        if file is None:
            file = _files[key] = SourceFile(path, identity, *found)
        return file


