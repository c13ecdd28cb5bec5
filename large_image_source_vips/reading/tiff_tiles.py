"""
Read rectangles of a TIFF page: one positioned read and one decode for each tile or strip.

Tiles are decoded in the calling thread.  A tile that is as wide as the result is decoded
straight into it; of others a part is copied, and the tile is kept for the next read
(``tile_cache``).  From uncompressed pages only the needed rows, or parts of rows, are read.
Strips are tiles as wide as the page.
"""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Callable, Hashable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.files import read_into
from ..base.geometry import Rect, Size
from ..base.limits import LIMITS
from ..base.reduce import reduce_pixels
from ..base.threads import scratch
from ..codecs import table
from ..codecs.jpeg import JpegDecoder
from ..codecs.table import DecodeError
from ..tiff.directories import TiffDirectories, TiffFormatError
from ..tiff.page import UNCOMPRESSED, Page
from ..tiff.stored_tiles import OldJpeg, StoredTileError, StoredTiles, stored_tiles
from . import fax
from .tiff_samples import Samples, problem, samples_of
from .tile_cache import tiles as kept_tiles

Array = npt.NDArray[Any]

# Longer rows of an uncompressed page, in bytes, are read in parts.
_LONG_ROW = 1 << 14
# The planes of YCbCr that may be subsampled.
_CHROMA = frozenset({1, 2})
# The largest JPEG coding unit (MCU).
_MCU = 16


class OpenFile:
    """
    A descriptor for positioned reads, closed with this object.

    :param descriptor: of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor).atexit = False


class TiffTiles:
    """
    The tiles of a page; threads may share this object.

    With random access the file stays open as long as this object, so a region comes from
    one version of the file.  For compressed strips it is open during decoding only.

    :param open_file: opens the file.
    :param owner: identifies the file in caches.
    :param page: the page.
    :param tiles: where its tiles are.
    :param samples: how they are decoded; ``codecs.table`` has no ``problem`` with them.
    """

    def __init__(self, open_file: Callable[[], OpenFile], owner: Hashable, page: Page,
                 tiles: StoredTiles | OldJpeg, samples: Samples) -> None:
        self._open_file = open_file
        self._file: OpenFile | None = None
        self._owner = owner
        self._key = page.offset, page.shift
        self._tiles = tiles
        self._planes = page.planes
        self._decoder: table.Decoder = (
            fax.FaxDecoder(samples.coding) if page.compression in fax.COMPRESSIONS
            else table.decoder(samples.coding))
        self._compression = page.compression_name
        self.samples = samples
        self.is_tiled = page.tile is not None
        #: The size of a tile, or of every strip but the last, in pixels.
        self.tile = tiles.tile
        #: The number of rows of tiles, or of strips.
        self.down = tiles.down
        #: The memory that this object takes.
        self.bytes = tiles.bytes
        coding = samples.coding
        self._is_direct = samples.convert is None and self._planes == 1
        # Whether the samples in the file equal those in memory, except for the byte order.
        self._is_raw = (
            page.compression == UNCOMPRESSED and coding.predictor == 1 and
            coding.fill_order == 1 and self._is_direct and coding.dtype is not None and
            coding.dtype.kind != 'c' and coding.bits == 8 * coding.dtype.itemsize)
        self._is_swapped = (coding.order != np.dtype('u2').newbyteorder('=').str[0]
                            and samples.dtype.itemsize > 1)
        #: Whether reading a rectangle decodes little more than the rectangle.
        self.is_random = self.is_tiled or self._is_raw
        #: The most halvings at which tiles are decoded directly.
        self.halvings = (self._decoder.halvings if self.is_tiled and self._is_direct and
                         not any(extent % _MCU for extent in tiles.tile) else 0)

    @cached_property
    def jpeg_chroma(self) -> tuple[int, int] | None:
        """
        The chroma subsampling of the first JPEG tile that is not empty.

        :returns: None if there is none, or if it cannot be passed on undecoded.
        """
        for number in range(self._tiles.count):
            if not self._tiles.is_empty(number):
                try:
                    data = self._tiles.read(self._descriptor(), number)
                except StoredTileError:
                    return None
                found = (self._decoder.complete(data, self.tile)
                         if isinstance(self._decoder, JpegDecoder) else None)
                return None if found is None else found[1]
        return None

    def stored(self, column: int, row: int) -> bytes | None:
        """
        The compressed bytes of a tile of a page without separate planes; None if it is
        empty.

        :raises StoredTileError: if it cannot be read.
        """
        number = row * self._tiles.across + column
        return (None if self._tiles.is_empty(number) else
                self._tiles.read(self._descriptor(), number))

    def keep_open(self, file: OpenFile) -> None:
        """Read from an open file."""
        self._file = file

    def read(self, rect: Rect, out: Array | None = None) -> Array:
        """
        Read a rectangle.

        :param rect: in pixels of the page, inside it.
        :param out: an array (rect.height, rect.width, bands) to fill, of any strides.
        :returns: ``out``, or a new array.
        :raises TileSourceError: if a tile cannot be read or decoded.
        """
        if out is None:
            out = np.empty((rect.height, rect.width, self.samples.bands), self.samples.dtype)
        for number, whole, part in self._under(rect):
            view = out[part.top - rect.top:part.bottom - rect.top,
                       part.left - rect.left:part.right - rect.left]
            if self._is_raw:
                self._read_raw(number, whole, part, view)
            elif part == whole:
                self._fill(number, view)
            else:
                pixels = kept_tiles.get(self._owner, self._key, number)
                if pixels is None:
                    pixels = self._tile(number)
                    kept_tiles.put(self._owner, self._key, number, pixels)
                view[...] = pixels[part.top - whole.top:part.bottom - whole.top,
                                   part.left - whole.left:part.right - whole.left]
        return out

    def read_smaller(self, halvings: int, rect: Rect) -> Array:
        """
        Read a rectangle at reduced size; pixels do not depend on the rectangle.

        :param halvings: 1 to ``self.halvings``.
        :param rect: in pixels of the smaller picture.
        :returns: a new array (rect.height, rect.width, bands).
        :raises TileSourceError: if a tile cannot be read or decoded.
        """
        factor = 1 << halvings
        size, tile = self._tiles.size, self.tile
        out = np.empty((rect.height, rect.width, self.samples.bands), self.samples.dtype)
        full = Rect(*(value * factor for value in rect)).clipped(Rect(0, 0, *size))
        for number, whole, _ in self._under(full):
            # The last coding units may extend beyond the page; samples from there would be
            # averaged into the last pixels.
            if any(extent < most and extent % _MCU
                   for extent, most in zip(whole[2:], tile, strict=True)):
                pixels = reduce_pixels(self.read(whole), factor, averaged=True)
            else:
                pixels = self._decoded_smaller(number, halvings)
            target = Rect(whole.left // factor, whole.top // factor,
                          -(-whole.width // factor), -(-whole.height // factor))
            part = target.clipped(rect)
            out[part.top - rect.top:part.bottom - rect.top,
                part.left - rect.left:part.right - rect.left] = pixels[
                    part.top - target.top:part.bottom - target.top,
                    part.left - target.left:part.right - target.left]
        return out

    def strips(self, first: int, end: int) -> Iterator[tuple[int, Array]]:
        """
        Decode strips in order.

        :param first: the first strip.
        :param end: the strip after the last.
        :returns: yields the number of a first row and rows, in an array that may be reused.
        :raises TileSourceError: if a strip cannot be read or decoded.
        """
        opened = copy.copy(self)
        opened._file = self._open_file()
        for number in range(first, end):
            top = number * self.tile.height
            size = self._tiles.tile_size(number)
            if self._is_direct:
                rows = scratch('strip', (size.height, size.width, self.samples.bands),
                               self.samples.dtype)
                opened._fill(number, rows)
            else:
                rows = opened._tile(number)[:size.height, :size.width]
            yield top, rows

    def _under(self, rect: Rect) -> Iterator[tuple[int, Rect, Rect]]:
        """The tiles under a rectangle: number, pixels in the page, pixels in the rectangle."""
        (width, height), size = self.tile, self._tiles.size
        for row in range(rect.top // height, -(-rect.bottom // height)):
            for column in range(rect.left // width, -(-rect.right // width)):
                left, top = column * width, row * height
                whole = Rect(left, top, min(width, size.width - left),
                             min(height, size.height - top))
                yield row * self._tiles.across + column, whole, whole.clipped(rect)

    # One tile

    def _descriptor(self) -> int:
        """The descriptor of the file, opened if it is not yet."""
        file = self._file
        if file is None:
            # If two threads do this at the same time, one of the files is closed again.
            file = self._file = self._open_file()
        return file.descriptor

    def _fill(self, number: int, view: Array) -> None:
        """Decode the part of a tile that lies in the page into an array."""
        size = self._tiles.tile_size(number)
        if self._is_direct and view.flags.c_contiguous and (
                view.shape[1], view.shape[0]) == size and not self._tiles.is_empty(number):
            pixels = self._decoded(number, view)
            if np.may_share_memory(pixels, view):
                return
        else:
            pixels = self._tile(number)
        view[...] = pixels[:view.shape[0], :view.shape[1]]

    def _tile(self, number: int) -> Array:
        """The pixels of a tile, at least those in the page: (rows, cols, bands)."""
        numbers = [number + plane * self._tiles.count for plane in range(self._planes)]
        size = self._tiles.tile_size(number)
        if all(map(self._tiles.is_empty, numbers)):
            # Blank pixels; they are not converted.
            return np.zeros((size.height, size.width, self.samples.bands), self.samples.dtype)
        if self._planes == 1:
            pixels = self._decoded(number)
        else:
            pixels = np.zeros((size.height, size.width, self._planes), self.samples.coding.dtype)
            for plane, each in enumerate(numbers):
                if not self._tiles.is_empty(each):
                    band = self._decoded(each)[..., 0]
                    if plane in _CHROMA:
                        across, down = self.samples.coding.subsampling
                        band = band.repeat(down, axis=0).repeat(across, axis=1)
                    band = band[:size.height, :size.width]
                    pixels[:band.shape[0], :band.shape[1], plane] = band
        return pixels if self.samples.convert is None else self.samples.convert(pixels)

    def _decoded(self, number: int, out: Array | None = None) -> Array:
        """
        Read and decode a tile.

        :raises TileSourceError: if it cannot be read or decoded, or has too few pixels.
        """
        size = self._tiles.tile_size(number)
        if number // self._tiles.count in _CHROMA:
            # Chroma planes may be subsampled.
            across, down = self.samples.coding.subsampling
            size = Size(-(-size.width // across), -(-size.height // down))
        try:
            data = self._tiles.read(self._descriptor(), number)
            pixels = self._decoder.decode(data, size, out)
        except (StoredTileError, DecodeError) as exc:
            raise self._failed(number, str(exc)) from exc
        page, place = self._tiles.size, number % self._tiles.count
        if pixels.shape[0] < size.height or pixels.shape[1] < size.width:
            # It may end at the edge of the page.
            row, column = divmod(place, self._tiles.across)
            rows = min(size.height, page.height - row * self.tile.height)
            cols = min(size.width, page.width - column * self.tile.width)
            if pixels.shape[0] < rows or pixels.shape[1] < cols:
                reason = (f'its picture has {pixels.shape[1]} x {pixels.shape[0]} pixels, not '
                          f'{size.width} x {size.height}')
                raise self._failed(number, reason)
        return pixels

    def _decoded_smaller(self, number: int, halvings: int) -> Array:
        """Read a tile and decode it at reduced size; zeros if it is empty."""
        scale = 1 << halvings
        size = self._tiles.tile_size(number)
        rows, cols = size.height // scale, size.width // scale
        if self._tiles.is_empty(number):
            return np.zeros((rows, cols, self.samples.bands), self.samples.dtype)
        try:
            data = self._tiles.read(self._descriptor(), number)
            pixels = self._decoder.decode_smaller(data, size, halvings)
        except (StoredTileError, DecodeError) as exc:
            raise self._failed(number, str(exc)) from exc
        if pixels.shape[0] < rows or pixels.shape[1] < cols:
            # A tile cut at the edge of the page, or a damaged one, is decoded at full size;
            # that raises the error.
            whole = self._decoded(number)
            return reduce_pixels(whole, scale, averaged=True)
        return pixels

    def _read_raw(self, number: int, whole: Rect, part: Rect, view: Array) -> None:
        """Read a part of an uncompressed tile into an array."""
        if self._tiles.is_empty(number):
            view[...] = 0
            return
        try:
            offset, count = self._tiles.extent(number)
        except StoredTileError as exc:
            raise self._failed(number, str(exc)) from exc
        pixel_bytes = self.samples.bands * self.samples.dtype.itemsize
        row_bytes = self.tile.width * pixel_bytes
        first = (part.top - whole.top) * row_bytes
        left = (part.left - whole.left) * pixel_bytes
        if first + (part.height - 1) * row_bytes + left + part.width * pixel_bytes > count:
            raise self._failed(number, f'it has only {count} bytes')
        start = offset + first
        if part.width == self.tile.width and view.flags.c_contiguous:
            self._read_into(number, view, start)
        elif row_bytes > _LONG_ROW and row_bytes > 2 * part.width * pixel_bytes and \
                view.strides[1:] == (pixel_bytes, self.samples.dtype.itemsize):
            for row in range(part.height):
                self._read_into(number, view[row], start + row * row_bytes + left)
        else:
            # From the first pixel to the last: the file may end there.
            rows = scratch('stored rows', (part.height, self.tile.width, self.samples.bands),
                           self.samples.dtype)
            used = (part.height - 1) * self.tile.width + part.width
            self._read_into(number, rows.reshape(-1)[:used * self.samples.bands], start + left)
            view[...] = rows[:, :part.width]
        if self._is_swapped:
            view.byteswap(inplace=True)

    def _read_into(self, number: int, array: Array, offset: int) -> None:
        """Fill a contiguous array from the file."""
        try:
            if read_into(self._descriptor(), array, offset) == array.nbytes:
                return
            reason = 'the file ends within it'
        except OSError as exc:
            reason = str(exc.strerror)
        raise self._failed(number, reason)

    def _failed(self, number: int, reason: str) -> TileSourceError:
        """An error that says which tile cannot be decoded, and why."""
        place = number % self._tiles.count
        row, column = divmod(place, self._tiles.across)
        what = f'stored tile {column}, {row}' if self.is_tiled else f'strip {place}'
        if self._planes > 1:
            what += f' of band {number // self._tiles.count}'
        return TileSourceError(
            f'{what}: its {self._compression} data cannot be decoded: {reason}')


def open_tiles(open_file: Callable[[], OpenFile], owner: Hashable,
               page: Page) -> TiffTiles | None:
    """
    The tiles of a page.

    :param open_file: opens the file.
    :param owner: identifies the file in caches.
    :param page: the page.
    :returns: None if only libvips can read the page.
    :raises TileSourceError: if the file cannot be opened.
    """
    file = open_file()
    try:
        tiff = TiffDirectories(file.descriptor)
        if problem(tiff, page) is not None:
            return None
        samples, tiles = samples_of(tiff, page), stored_tiles(tiff, page)
        big = tiles.tile.area * samples.coding.samples > LIMITS.codecs_tile_samples
        if big and page.compression != UNCOMPRESSED:
            return None
        found = TiffTiles(open_file, owner, page, tiles, samples)
    except (TiffFormatError, StoredTileError, DecodeError):
        # libvips raises the error.
        return None
    if found.is_random:
        found.keep_open(file)
    return found
