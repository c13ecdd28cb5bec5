"""
What large_image asks of a tile source, answered by a store of pixels.

This is the only module that uses large_image's private names.  Whatever is
handed out is the caller's own: arrays and pictures that large_image keeps in its
cache are copied on the way out, and arrays can be written to.
"""

from __future__ import annotations

import inspect
import os
import weakref
from collections.abc import Collection, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

from large_image.cache_util import LruCacheMetaclass, methodcache, strhash
from large_image.constants import (
    NEW_IMAGE_PATH_FLAG,
    TILE_FORMAT_IMAGE,
    TILE_FORMAT_NUMPY,
)
from large_image.exceptions import TileGeneralError
from large_image.tilesource import FileTileSource
from large_image.tilesource.tileiterator import TileIterator
from large_image.tilesource.utilities import JSONDict, _encodeImageBinary, _imageToPIL

from .base.arrays import fit_edge, owned, writable
from .base.attributes import CheckedAttributes, StoreSize
from .base.formats import format_of
from .base.geometry import TILE_SIZE, Rect, Size, level_count
from .base.identity import absolute_path, file_identity
from .base.settings import ignored_names, refuse_ignored
from .regions import Key, Tiles, Walk, handed_over, tiles_under

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

    from .store import PixelStore


def is_new(path: Any) -> bool:
    """Whether a path is large_image's way to ask for a new image."""
    return isinstance(path, str) and path.startswith(NEW_IMAGE_PATH_FLAG)


class SourceMetaclass(LruCacheMetaclass):
    """
    Keep images that are being put together out of the cache of sources.

    Such an image belongs to its caller; in the cache it would hold its spool
    file long after the caller let go of it.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if args and is_new(args[0]):
            kwargs['noCache'] = True
        return super().__call__(*args, **kwargs)

    @property
    def __signature__(cls) -> inspect.Signature:
        """What a class takes, for ``help``: all that __call__ says is (*args, **kwargs)."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]  # a class, not an object
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class Profiles:
    """
    The ICC profiles of the frames, read when first asked for.

    The base class corrects colours if it finds this attribute; there is none if
    no frame has a profile.
    """

    def __get__(self, source: Any, owner: Any = None) -> Any:
        if source is None:
            return self
        attributes = source.__dict__
        if '_known_profiles' not in attributes and '_store' in attributes:
            attributes['_known_profiles'] = source._store.icc_profiles()
        profiles = attributes.get('_known_profiles')
        if not profiles:
            msg = 'No frame has an ICC profile.'
            raise AttributeError(msg)
        return profiles


class StoreTileSource(CheckedAttributes, FileTileSource):
    """
    A tile source whose pixels are in a store.

    A subclass makes the store: ``_open_store`` gets the path of a file, or what
    stands for a new image (``is_new``).
    """

    if TYPE_CHECKING:
        def _open_store(self, path: Any) -> PixelStore: ...

    # What the setting source_vips_loaders means by 'default'.
    _default_loaders: ClassVar[str | Collection[str]] = 'all'

    sizeX = StoreSize(lambda store: store.size.width)
    sizeY = StoreSize(lambda store: store.size.height)
    levels = StoreSize(lambda store: level_count(store.size))
    _iccprofiles = Profiles()

    def __init__(self, path: str | os.PathLike[str], encoding: str | None = None,
                 jpegQuality: int = 95, jpegSubsampling: int = 0, tiffCompression: str = 'raw',
                 edge: bool | str = False, style: str | dict[str, Any] | None = None,
                 noCache: bool | None = None, **kwargs: Any) -> None:
        """
        Open a file, or start a new image.

        :param path: the path of a file; or, for a new image, large_image's
            ``NEW_IMAGE_PATH_FLAG`` followed by a unique string (``new()`` makes
            one).
        :param encoding: how tiles are encoded: 'JPEG', 'PNG', 'TIFF' or
            'TILED'; None for large_image's setting ``default_encoding``.
        :param jpegQuality: 0 to 100, for JPEG.
        :param jpegSubsampling: of the colours, for JPEG: 0 none, 1 half, 2 a
            quarter.
        :param tiffCompression: for TIFF: 'raw', 'tiff_lzw', 'jpeg', ...
        :param edge: False to fill tiles at the edge of the image up to full
            size, True or 'crop' to cut them, or the colour to fill them with.
        :param style: None, or a large_image style, as a dictionary or JSON.
        :param noCache: True to keep the source out of large_image's cache; its
            style can then be set, and a notebook can show it.
        :param kwargs: further ones of large_image's base classes.
        :raises TileSourceFileNotFoundError: if there is no such file.
        :raises TileSourceError: if the file cannot be read as an image, or its
            name matches the setting ``source_vips_ignored_names``.
        """
        # Given by open().  A keyword is what large_image keeps to make twins
        # and pickles of a source with.
        self._any_name = kwargs.pop('_anyName', False) is True
        super().__init__(path, encoding=encoding, jpegQuality=jpegQuality,
                         jpegSubsampling=jpegSubsampling, tiffCompression=tiffCompression,
                         edge=edge, style=style, noCache=noCache, **kwargs)
        self._let_go()
        self.tileWidth = self.tileHeight = TILE_SIZE
        self._store: PixelStore = self._open_store(self._getLargeImagePath())

    def _refuse_ignored_name(self, path: Any) -> None:
        """
        Leave a file to other sources if its name tells so.

        :raises TileSourceError: if the name matches source_vips_ignored_names
            and the file was not opened on purpose, or if it is no name.
        """
        path = absolute_path(path)
        if not self._any_name:
            refuse_ignored(path)

    @staticmethod
    def getLRUHash(*args: Any, **kwargs: Any) -> str:
        """
        The key of a source in large_image's cache of sources.

        It holds what the file system says of the file, so that a file that was
        replaced is opened anew; and whether it was opened on purpose, else the
        names that are ignored, so that one who would be refused the file does
        not get it from the cache.
        """
        return str(strhash(
            FileTileSource.getLRUHash(*args, **kwargs), args[1:], file_identity(args[0]),
            'any name' if kwargs.get('_anyName') is True else ['not', str(ignored_names())]))

    def getState(self) -> str:
        """
        A part of the keys of everything that large_image caches of a source.

        It changes whenever an editable image changes.
        """
        state = super().getState()
        store = self.__dict__.get('_store')
        return f'{state},{store.generation}' if store and store.generation else state

    # Describing

    @property
    def dtype(self) -> Any:
        """The numpy dtype of the samples; None for a new image without tiles."""
        return self._store.dtype

    @property
    def bandCount(self) -> int | None:
        """The bands of each pixel, alpha included; None for a new image without tiles."""
        return self._store.bands

    @property
    def bandFormat(self) -> str | None:
        """
        The format of the samples, a ``pyvips.enums.BandFormat`` value.

        For an editable image, the format that will be written; None as long as
        it has no tiles.
        """
        return None if self._store.dtype is None else format_of(self._store.dtype)

    def getMetadata(self) -> JSONDict:
        """As the base class describes; all values survive ``json.dumps``."""
        metadata = super().getMetadata()
        if self.dtype is None:
            metadata['dtype'] = None
        frames = self._store.frame_axes()
        if len(frames) > 1:
            metadata['frames'] = frames
            self._addMetadataFrameInformation(metadata, self._store.channel_names())
        return metadata

    def getInternalMetadata(self, **kwargs: Any) -> dict[str, Any]:
        """
        What libvips knows of the file, header field by header field.

        :returns: the fields of the first frame under their own names; those of
            further frames, where they differ, in a list under 'frames'.
        """
        return self._store.internal_metadata()

    def getNativeMagnification(self) -> dict[str, float | None]:
        """
        The magnification and the size of a full-resolution pixel.

        :returns: 'magnification', 'mm_x' and 'mm_y' (mm per pixel), None where
            unknown.  A magnification that the file does not state is taken to
            be 0.01 / mm_x, which is 40 for pixels of 0.25 um.
        """
        mm_x, mm_y = self._store.pixel_size
        mm_x, mm_y = mm_x or mm_y, mm_y or mm_x
        magnification = self._store.magnification
        if magnification is None and mm_x:
            magnification = 0.01 / mm_x
        return {'magnification': magnification, 'mm_x': mm_x, 'mm_y': mm_y}

    def getAssociatedImagesList(self) -> list[str]:
        """The keys of the images that come with the slide: label, macro, ..."""
        return self._store.associated_names()

    def _getAssociatedImage(self, imageKey: str) -> PIL.Image.Image | None:
        return self._store.associated_image(imageKey)

    # Reading

    def getTile(self, x: int, y: int, z: int, pilImageAllowed: bool = False,
                numpyAllowed: bool | str = False, sparseFallback: bool = False,
                frame: int | None = None, **kwargs: Any) -> Any:
        """
        One tile.

        :param x: the 0-based column of the tile.
        :param y: the 0-based row of the tile.
        :param z: the level; 0 is a single tile, ``levels - 1`` full resolution.
        :param pilImageAllowed: whether a PIL image may be returned.
        :param numpyAllowed: whether an array (rows, cols, bands) may be
            returned; 'always' to get one.
        :param sparseFallback: of no effect, every tile can be had.
        :param frame: the 0-based frame; None is the first.
        :returns: an encoded image, a PIL image or an array.  The last two are
            the caller's own and can be changed in place.
        :raises TileSourceXYZRangeError: if there is no such tile.
        :raises TileSourceError: if the tile cannot be decoded.
        """
        # Before large_image's cache, whose lock another thread may have held at a fork.
        self._store.check_process()
        return owned(self._cached_tile(
            x, y, z, pilImageAllowed, numpyAllowed, sparseFallback, frame, **kwargs))

    @methodcache()
    def _cached_tile(self, x: int, y: int, z: int, pilImageAllowed: bool,
                     numpyAllowed: bool | str, sparseFallback: bool, frame: int | None,
                     **kwargs: Any) -> Any:
        """What ``getTile`` returns, as large_image's cache holds it: not to be changed."""
        frame = self._getFrame(frame)
        key = Key(x, y, z)
        walks, pixels = handed_over(self, frame, key)
        if pixels is None:
            pixels = self._read_tile(frame, key, keep=not walks)
        return self._outputTile(
            pixels, TILE_FORMAT_NUMPY, x, y, z, pilImageAllowed, numpyAllowed, frame=frame)

    def _read_tile(self, frame: int, key: Key, *, keep: bool = False) -> np.ndarray[Any, Any]:
        """
        The pixels of a tile, cut at the edge of the image.

        :param keep: whether tiles of other levels are likely to be wanted soon.
        :raises TileSourceXYZRangeError: if there is no such tile.
        """
        store, levels = self._store, self.levels
        left, top, reduction = key.x * TILE_SIZE, key.y * TILE_SIZE, levels - 1 - key.z
        width, height = store.size.reduced(reduction) if 0 <= reduction < levels else (0, 0)
        if not (0 <= left < width and 0 <= top < height and 0 <= frame < store.frame_count):
            # The base class, which takes longer to look, has the words for it.
            self._xyzInRange(*key, frame, store.frame_count)
        return store.read(frame, reduction, Rect(
            left, top, min(TILE_SIZE, width - left), min(TILE_SIZE, height - top)), keep=keep)

    @wraps(FileTileSource.getRegion)
    def getRegion(self, format: Any = (TILE_FORMAT_IMAGE,), **kwargs: Any) -> Any:
        # The tiles are decoded by several threads.
        return writable(super().getRegion.__func__(self._walk(kwargs), format, **kwargs))

    @wraps(FileTileSource.tileIterator)
    def tileIterator(self, format: Any = (TILE_FORMAT_NUMPY,), resample: Any = True,
                     **kwargs: Any) -> Any:
        # The tiles to come are decoded ahead.
        return Tiles(self._walk(kwargs), format=format, resample=resample, **kwargs)

    def _walk(self, kwargs: dict[str, Any]) -> Any:
        """
        This source, for one who takes its tiles in order.

        :param kwargs: those of ``tileIterator``.
        """
        if not self._store.decodes:
            # Nothing is gained by reading ahead.
            return self

        def order() -> Iterator[Key]:
            for tile in TileIterator(self, **kwargs):
                yield from tiles_under(tile, TILE_SIZE)

        return Walk(self, self._getFrame(kwargs.get('frame')), self._read_tile, order)

    def _outputTile(self, tile: np.ndarray[Any, Any], tileEncoding: str, x: int, y: int, z: int,
                    pilImageAllowed: bool = False, numpyAllowed: bool | str = False,
                    applyStyle: bool = True, **kwargs: Any) -> Any:
        """
        A tile as its caller asked for it.

        Unlike the base class, which rounds the size of a level down, this
        rounds up, as ``getTile`` does: the last column or row of tiles of a
        narrow level is never empty.

        :param tile: an array (rows, cols, bands), cut at the edge of the image.
        """
        if applyStyle and getattr(self, '_style', None):
            # Functions of a style write into it, and others may hold it.
            tile = owned(tile)
        styled, mode = self._outputTileNumpyStyle(
            tile, applyStyle, x, y, z, self._getFrame(**kwargs))
        if self.edge:
            size = Size(self.sizeX, self.sizeY).reduced(self.levels - 1 - z)
            styled = fit_edge(styled, size.height - y * TILE_SIZE, size.width - x * TILE_SIZE,
                              self.edge, mode)
        if numpyAllowed:
            return styled
        image = _imageToPIL(styled)
        if pilImageAllowed:
            return image
        return _encodeImageBinary(
            image, self.encoding, self.jpegQuality, self.jpegSubsampling, self.tiffCompression)

    @classmethod
    def canRead(cls, path: Any, *args: Any, **kwargs: Any) -> bool:
        """
        Whether an instance could be made.

        :param path: as for the class.
        :returns: False, never an exception, for anything that is unreadable.
        """
        try:
            cls(path, *args, **kwargs)
        except (TileGeneralError, OSError):
            return False
        return True

    # What large_image keeps, or makes read-only

    @wraps(FileTileSource.getThumbnail)
    def getThumbnail(self, width: int | None = None, height: int | None = None,
                     **kwargs: Any) -> Any:
        # The base class keeps it in its cache.
        return owned(super().getThumbnail(width, height, **kwargs))

    @wraps(FileTileSource.histogram)
    def histogram(self, *args: Any, **kwargs: Any) -> Any:
        # The base class keeps it in its cache.
        return owned(super().histogram(*args, **kwargs))

    @wraps(FileTileSource.tileFrames)
    def tileFrames(self, *args: Any, **kwargs: Any) -> Any:
        return writable(super().tileFrames(*args, **kwargs))

    @wraps(FileTileSource.getAssociatedImage)
    def getAssociatedImage(self, imageKey: str, *args: Any, **kwargs: Any) -> Any:
        return writable(super().getAssociatedImage(imageKey, *args, **kwargs))

    def _applyICCProfile(self, sc: Any, frame: int) -> Any:
        # Functions of a style write into it, too, and what PIL made is read-only.
        sc.iccimage = writable(super()._applyICCProfile(sc, frame))
        return sc.iccimage

    # In notebooks

    def _let_go(self) -> None:
        """Have large_image's viewer not hold the source that it belongs to."""
        self._map._ts = weakref.proxy(self)

    def as_leaflet_layer(self, **kwargs: Any) -> Any:
        """
        A layer of tiles for an ``ipyleaflet.Map``.

        It holds the source until it is closed and dropped; ipywidgets holds
        every layer that was not closed.

        :raises TileSourceError: if the source is cached; open it with
            ``noCache=True``.
        """
        layer = super().as_leaflet_layer(**kwargs)
        layer._large_image_source = self
        self._map._ts = self
        return layer
