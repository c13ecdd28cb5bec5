"""
Implement large_image's tile source interface on top of a ``PixelStore``.

Only this module and ``iteration`` use private names of large_image.  Callers may change
results in place: arrays and images from large_image's cache are copied, and all arrays are
writable.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

from large_image import config
from large_image.cache_util import methodcache, strhash
from large_image.constants import TILE_FORMAT_IMAGE, TILE_FORMAT_NUMPY
from large_image.exceptions import TileGeneralError
from large_image.tilesource import FileTileSource
from large_image.tilesource.utilities import (
    ImageBytes,
    JSONDict,
    _encodeImage,
    _encodeImageBinary,
    _imageToPIL,
)

from .base.arrays import caller_copy, fit_edge, jpeg_file, writable
from .base.attributes import CheckedAttributes, Profiles, StoreSize
from .base.frames import frame_number
from .base.geometry import TILE_SIZE, Rect, Size, level_count
from .base.identity import absolute_path, file_identity
from .base.settings import ignored_names, pass_jpeg, refuse_ignored
from .image_properties import ImageProperties
from .iteration import Pieces, Region, Tiles, common_place, reads_several, several_tiles
from .lazy_array import LazyArray, lazy_array
from .notebook import ShownInNotebooks
from .regions import Place, Regions, TileCache, tile_key

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    import numpy.typing as npt
    import PIL.Image

    from .store import PixelStore

# The defaults of jpegQuality and jpegSubsampling.
_DEFAULT_JPEG = 95, 0
# Arguments of getRegion that change the tiles from which it is assembled.
_OTHER_TILES = frozenset(('tile_size', 'tile_offset', 'tile_overlap'))


class StoreTileSource(ImageProperties, CheckedAttributes, ShownInNotebooks, FileTileSource):
    """
    A tile source that reads its pixels from a ``PixelStore``.

    Subclasses define ``_open_store``, which gets the path of a file or the flag
    for a new image (``is_new``) and returns the store.
    """

    if TYPE_CHECKING:
        def _open_store(self, path: Any) -> PixelStore: ...

    # The loaders to allow if the setting source_vips_loaders is 'default'.
    _default_loaders: ClassVar[str | Collection[str]] = 'all'
    # The meaning of 'default' for the setting source_vips_pass_jpeg.
    _default_pass_jpeg: ClassVar[bool] = False

    sizeX = StoreSize(lambda store: store.size.width)
    sizeY = StoreSize(lambda store: store.size.height)
    levels = StoreSize(lambda store: level_count(store.size))
    _iccprofiles = Profiles()

    def __init__(self, path: str | os.PathLike[str], encoding: str | None = None,
                 jpegQuality: int = 95, jpegSubsampling: int = 0, tiffCompression: str = 'raw',
                 edge: bool | str = False, style: str | dict[str, Any] | None = None,
                 noCache: bool | None = None, **kwargs: Any) -> None:
        """
        Open a file, or create a new image.

        :param path: the path of a file; for a new image, large_image's
            ``NEW_IMAGE_PATH_FLAG`` followed by a unique string, as from ``new()``.
        :param encoding: the encoding of tiles: 'JPEG', 'PNG', 'TIFF' or 'TILED';
            None for large_image's setting ``default_encoding``.
        :param jpegQuality: 0 to 100.
        :param jpegSubsampling: chroma of JPEG tiles: 0 full, 1 half, 2 a quarter.
        :param tiffCompression: 'raw', 'tiff_lzw', 'jpeg', ...
        :param edge: tiles at the edge: False to pad, True or 'crop' to crop, or a colour.
        :param style: None, or a large_image style as a dictionary or JSON.
        :param noCache: True to keep the source out of large_image's cache; only
            then can its style be changed and a notebook show it.
        :param kwargs: further parameters of large_image's base classes.
        :raises TileSourceFileNotFoundError: if there is no such file.
        :raises TileSourceError: if the file cannot be read as an image, or its
            name matches the setting ``source_vips_ignored_names``.
        """
        # Set by open().  It is a keyword because large_image keeps the keywords
        # to recreate a source: for unstyled twins and pickles.
        self._any_name = kwargs.pop('_anyName', False) is True
        self._sink_options = {name: kwargs.pop(name) for name in (
            'blend', 'accumulator', 'spool') if name in kwargs}
        super().__init__(path, encoding=encoding, jpegQuality=jpegQuality,
                         jpegSubsampling=jpegSubsampling, tiffCompression=tiffCompression,
                         edge=edge, style=style, noCache=noCache, **kwargs)
        self._make_viewer_weak()
        self.tileWidth = self.tileHeight = TILE_SIZE
        self._passes_jpeg = pass_jpeg(self._default_pass_jpeg)
        self._set_store(self._open_store(self._getLargeImagePath()))

    def _set_store(self, store: PixelStore) -> None:
        """Set the store for all pixels."""
        self._store = store
        self._regions = Regions(store, TileCache(self.cache, self.cache_lock))

    def _refuse_ignored_name(self, path: Any) -> None:
        """
        Refuse a file whose name is ignored, unless ``open()`` was called for it.

        :raises TileSourceError: if the name matches the setting
            source_vips_ignored_names, or is not a path.
        """
        path = absolute_path(path)
        if not self._any_name:
            refuse_ignored(path)

    @staticmethod
    def getLRUHash(*args: Any, **kwargs: Any) -> str:
        """
        The key of a source in large_image's cache of sources.

        It contains the identity of the file, so a replaced file is opened again; and
        whether ``open()`` was called, or else the setting source_vips_ignored_names, so an
        ignored file is not returned from the cache.
        """
        return str(strhash(
            FileTileSource.getLRUHash(*args, **kwargs), args[1:], file_identity(args[0]),
            'any name' if kwargs.get('_anyName') is True else ['not', str(ignored_names())]))

    def getState(self) -> str:
        """
        The part of large_image's cache keys that identifies the image.

        It changes whenever an editable image changes.
        """
        state = super().getState()
        store = self.__dict__.get('_store')
        return f'{state},{store.generation}' if store and store.generation else state

    # Description

    def getMetadata(self) -> JSONDict:
        """The metadata of the base class; JSON-serializable."""
        metadata = super().getMetadata()
        if self.dtype is None:
            metadata['dtype'] = None
        frames = self._store.frame_axes()
        if len(frames) > 1:
            metadata['frames'] = frames
            self._addMetadataFrameInformation(metadata, self._store.channel_names())
        return metadata

    def _getAssociatedImage(self, imageKey: Any) -> PIL.Image.Image | None:
        return self._store.associated_image(imageKey) if isinstance(imageKey, str) else None

    # Reading

    def asArray(self, level: int = 0, frame: int | None = None) -> LazyArray:
        """
        A level as a lazy array: pixels are read when it is sliced.

        It works with ``dask.array.from_array(source.asArray())`` and napari.

        :param level: 0 is full resolution, and each further level half as large, as in
            OpenSlide and Zarr; the levels of ``getTile`` are in reverse order.
        :param frame: the 0-based frame; None is the first.
        :returns: an array (rows, cols, bands) with shape, dtype, chunks and slicing.  It can
            be pickled if the source can.
        :raises TileSourceError: if there is no such level or frame.
        """
        return lazy_array(self, level, frame)

    def _stored_tile_size(self, frame: int, reduction: int) -> Size:
        """The size of the tiles in which a level is decoded."""
        return self._store.current().tile_size(frame, reduction) or Size(TILE_SIZE, TILE_SIZE)

    def _read_rect(self, frame: int, reduction: int, rect: Rect) -> npt.NDArray[Any]:
        """The stored pixels of a rectangle."""
        return self._regions.read(Place(frame, reduction, rect))

    def getTile(self, x: int, y: int, z: int, pilImageAllowed: bool = False,
                numpyAllowed: bool | str = False, sparseFallback: bool = False,
                frame: int | None = None, **kwargs: Any) -> Any:
        """
        Get one tile.

        :param x: the 0-based column of the tile.
        :param y: the 0-based row of the tile.
        :param z: the level: 0 is a single tile, ``levels - 1`` full resolution.
        :param pilImageAllowed: True to return a PIL image.
        :param numpyAllowed: True or 'always' to return an array (rows, cols,
            bands); takes precedence.
        :param sparseFallback: ignored; every level is complete.
        :param frame: the 0-based frame; None is the first.
        :returns: an encoded image, a PIL image or an array.  The last two may be
            changed in place.
        :raises TileSourceXYZRangeError: if there is no such tile.
        :raises TileSourceError: if the tile cannot be decoded.
        """
        # Before the cache: a thread of the parent may have held its lock at a fork.
        with self._reading():
            if numpyAllowed and self._is_plain():
                place = self._tile_place(*tile_key(x, y, z), self._getFrame(frame))
                pixels = self._regions.tile(place, TILE_SIZE)
                if pixels is not None:
                    return pixels
            return caller_copy(self._cached_tile(
                x, y, z, pilImageAllowed, numpyAllowed, sparseFallback, frame, **kwargs))

    def _reading(self) -> AbstractContextManager[None]:
        # Subclasses extend this instead of getTile; see _makes_own_tiles.
        return self._store.held()

    def _is_plain(self) -> bool:
        """Whether tiles are stored pixels: no style, edge or colour correction applies."""
        # The base class has this attribute only if there is a style.
        style = vars(self).get('_style') or {}
        if self.edge or not style.keys() <= {'icc'} or not self._makes_own_tiles():
            return False
        return not hasattr(self, '_iccprofiles') or not style.get(
            'icc', config.getConfig('icc_correction', True))

    def _may_pass_jpeg(self) -> bool:
        """Whether ``getTile`` may return the JPEG data in the file."""
        return (self._passes_jpeg and self.encoding == 'JPEG' and self._is_plain() and
                (self.jpegQuality, self.jpegSubsampling) == _DEFAULT_JPEG)

    def _makes_own_tiles(self) -> bool:
        """Whether ``getTile`` is not overridden; a subclass may change the pixels."""
        return type(self).getTile is StoreTileSource.getTile and 'getTile' not in vars(self)

    def _tile_place(self, x: int, y: int, z: int, frame: int) -> Place:
        """
        The place of a tile, cropped at the edge of the image.

        :raises TileSourceXYZRangeError: if there is no such tile.
        """
        store, levels = self._store, self.levels
        left, top, reduction = x * TILE_SIZE, y * TILE_SIZE, levels - 1 - z
        width, height = store.size.reduced(reduction) if 0 <= reduction < levels else (0, 0)
        if not (0 <= left < width and 0 <= top < height and 0 <= frame < store.frame_count):
            # This raises the error.  It is not called for every tile because it is slower.
            self._xyzInRange(x, y, z, frame, store.frame_count)
        return Place(frame, reduction, Rect(
            left, top, min(TILE_SIZE, width - left), min(TILE_SIZE, height - top)))

    @methodcache()
    def _cached_tile(self, x: int, y: int, z: int, pilImageAllowed: bool,
                     numpyAllowed: bool | str, sparseFallback: bool, frame: int | None,
                     **kwargs: Any) -> Any:
        """The result of ``getTile`` from large_image's cache; do not change it."""
        frame = self._getFrame(frame)
        key = tile_key(x, y, z)
        place = self._tile_place(*key, frame)
        if not numpyAllowed and not pilImageAllowed and self._may_pass_jpeg():
            stored = self._regions.stored_jpeg(place)
            if stored is not None:
                return ImageBytes(stored, 'image/jpeg')
        pixels = self._regions.single(place, keep=not reads_several())
        return self._outputTile(
            pixels, TILE_FORMAT_NUMPY, *key, pilImageAllowed, numpyAllowed, frame=frame)

    @wraps(FileTileSource.getRegion)
    def getRegion(self, format: Any = (TILE_FORMAT_IMAGE,), **kwargs: Any) -> Any:
        with self._reading():
            return self._region(format, **kwargs)

    def _region(self, format: Any, **kwargs: Any) -> Any:
        """See ``getRegion``."""
        formats = format if isinstance(format, (tuple, set, list)) else (format,)
        tiled = TILE_FORMAT_IMAGE in formats and kwargs.get('encoding') == 'TILED'
        if tiled or not self._is_plain() or not kwargs.keys().isdisjoint(_OTHER_TILES):
            with several_tiles():
                return writable(super().getRegion(format, **kwargs))
        place = common_place(self, self._regions, kwargs)
        if place is not None:
            return writable(_encodeImage(self._regions.read(place), format=formats))
        info = Region.of(self, kwargs).info
        place = None if info is None else self._regions.place(
            self._getFrame(info['frame']), self.levels - 1 - info['level'],
            Rect(*(info['region'][name] for name in ('left', 'top', 'width', 'height'))))
        if place is None:
            # Empty, or an error.
            return super().getRegion(format, **kwargs)
        output = kwargs.get('output', {})
        letterboxed = kwargs.get('fill') and output.get('maxWidth') and output.get('maxHeight')
        if letterboxed or Size(**info['output']) != place.rect[2:]:
            return writable(super().getRegion.__func__(Pieces(self, kwargs), format, **kwargs))
        return writable(_encodeImage(self._regions.read(place), format=formats, **kwargs))

    @wraps(FileTileSource.tileIterator)
    def tileIterator(self, format: Any = (TILE_FORMAT_NUMPY,), resample: Any = True,
                     **kwargs: Any) -> Any:
        # Tiles of other sizes are read as one rectangle.
        return Tiles(self, format=format, resample=resample, **kwargs)

    def _read_level(self, level: int, frame: int | None, rect: Rect,
                    margin: tuple[int, int] = (0, 0)) -> np.ndarray[Any, Any] | None:
        """
        Read a rectangle in level pixels; for ``iteration``.

        :param margin: as for ``Regions.read``.
        :returns: a new array; None if tiles are not stored pixels, or if it is not inside
            the image.
        """
        if not self._is_plain():
            return None
        place = self._regions.place(self._getFrame(frame), self.levels - 1 - level, rect)
        return None if place is None else self._regions.read(place, margin)

    def _getFrame(self, frame: Any = None, **kwargs: Any) -> int:
        return int(super()._getFrame(frame_number(frame), **kwargs))

    def _outputTile(self, tile: np.ndarray[Any, Any], tileEncoding: str, x: int, y: int, z: int,
                    pilImageAllowed: bool = False, numpyAllowed: bool | str = False,
                    applyStyle: bool = True, **kwargs: Any) -> Any:
        """
        Apply style, edge and encoding to a tile.

        Replaces the method of the base class, which rounds the size of a level down.  Here
        it is rounded up, as in ``getTile``, so that the last tiles of a level are never
        empty.

        :param tile: an array (rows, cols, bands), cropped at the edge of the
            image.
        """
        if applyStyle and getattr(self, '_style', None):
            # Copied, because style functions may write to it, and it may be in a cache.
            tile = caller_copy(tile)
        styled, mode = self._outputTileNumpyStyle(
            tile, applyStyle, x, y, z, self._getFrame(**kwargs))
        if self.edge:
            size = Size(self.sizeX, self.sizeY).reduced(self.levels - 1 - z)
            styled = fit_edge(styled, size.height - y * TILE_SIZE, size.width - x * TILE_SIZE,
                              self.edge, mode)
        if numpyAllowed:
            return styled
        if not pilImageAllowed and self.encoding == 'JPEG':
            encoded = jpeg_file(styled, self.jpegQuality, self.jpegSubsampling)
            if encoded is not None:
                return ImageBytes(encoded, 'image/jpeg')
        image = _imageToPIL(styled)
        if pilImageAllowed:
            return image
        return _encodeImageBinary(
            image, self.encoding, self.jpegQuality, self.jpegSubsampling, self.tiffCompression)

    @classmethod
    def canRead(cls, path: Any, *args: Any, **kwargs: Any) -> bool:
        """
        Whether the class can open a path.

        :param path: as for the class.
        :returns: False, never an exception, for anything that cannot be read.
        """
        try:
            cls(path, *args, **kwargs)
        except (TileGeneralError, OSError):
            return False
        return True

    # Methods whose results large_image caches or makes read-only

    @wraps(FileTileSource.getThumbnail)
    def getThumbnail(self, width: int | None = None, height: int | None = None,
                     **kwargs: Any) -> Any:
        # The base class caches the result, and the lock may have been held at a fork.
        with self._reading():
            return caller_copy(super().getThumbnail(width, height, **kwargs))

    @wraps(FileTileSource.histogram)
    def histogram(self, *args: Any, **kwargs: Any) -> Any:
        # As in getThumbnail.
        with self._reading():
            return caller_copy(super().histogram(*args, **kwargs))

    @wraps(FileTileSource.tileFrames)
    def tileFrames(self, *args: Any, **kwargs: Any) -> Any:
        return writable(super().tileFrames(*args, **kwargs))

    @wraps(FileTileSource.getAssociatedImage)
    def getAssociatedImage(self, imageKey: str, *args: Any, **kwargs: Any) -> Any:
        return writable(super().getAssociatedImage(imageKey, *args, **kwargs))

    def _applyICCProfile(self, sc: Any, frame: int) -> Any:
        # Style functions may write to it, and arrays from PIL are read-only.
        sc.iccimage = writable(super()._applyICCProfile(sc, frame))
        return sc.iccimage
