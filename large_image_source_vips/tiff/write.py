"""
Write TIFF files from compressed tiles.

tifffile writes the directories.  Two changes follow in the finished file, because tifffile
and libvips cannot do them: an unknown resolution is removed, and equal tiles share one
offset.  Tags and types: TIFF 6.0 (Adobe, 1992).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.files import read_at, write_at
from ..base.geometry import Size
from . import page as tiff

if TYPE_CHECKING:
    import tifffile

# Compression of JPEG tiles, and the PhotometricInterpretation of YCbCr.
_JPEG, _YCBCR, _RGB = 7, 6, 2
_SUB_IFDS = 330
_CENTIMETRE = 3
_LARGEST = (1 << 32) - 1

# Space in a classic TIFF for everything but tiles: directories, profiles, padding.
_MARGIN = 1 << 24
# Bytes in the tables of a directory for each tile: an offset and a length.
_TABLE_ENTRY = 8
# Other bytes of a directory: about 20 entries of 12 or 20 bytes, and their values.
_DIRECTORY = 1 << 10

RESOLUTION = frozenset({tiff.X_RESOLUTION, tiff.Y_RESOLUTION, tiff.RESOLUTION_UNIT})


@dataclass(frozen=True)
class WrittenPage:
    """
    A directory to write, with its tiles.

    :param size: in pixels.
    :param tile: width and height of a tile; None if the page is one strip.
    :param dtype: of the samples; bool for a mask of 1 bit.
    :param samples: the number of bands, alpha included.
    :param photometric: TIFF's PhotometricInterpretation.
    :param compression: TIFF's number.
    :param tiles: yields the compressed tiles row by row; ``b''`` for each that equals an
        earlier one.
    :param first_same: for each tile, the number of the first equal one.
    :param extra_samples: the ExtraSamples of the bands that are not colours: 0 for data,
        2 for alpha.
    :param predictor: TIFF's Predictor.
    :param subsampling: of the chroma of JPEG tiles in YCbCr.
    :param jpeg_tables: TIFF's JPEGTables; b'' if each JPEG tile has its own.
    :param reduced: whether it is a lower level.
    :param color_map: TIFF's ColorMap, (3, 2 ** bits), if the samples are indices into it.
    :param subfile_type: TIFF's NewSubfileType, if it is not that of a level or mask.
    """

    size: Size
    tile: Size | None
    dtype: np.dtype[Any]
    samples: int
    photometric: int
    compression: int
    tiles: Iterable[bytes]
    first_same: npt.NDArray[np.int64]
    extra_samples: tuple[int, ...] = ()
    predictor: int = 1
    subsampling: tuple[int, int] = (1, 1)
    reduced: bool = False
    jpeg_tables: bytes = b''
    subfile_type: int | None = None
    color_map: npt.NDArray[np.uint16] | None = None

    @property
    def is_mask(self) -> bool:
        """Whether it is a mask."""
        return self.dtype == np.bool_


@dataclass(frozen=True)
class WrittenImage:
    """
    A pyramid, or an image without levels.

    :param levels: largest first.
    :param masks: the transparency masks of all levels, if any; they become sub-IFDs of the
        first page.
    :param pixel_size: width and height in mm, None where unknown.
    :param profile: the ICC profile, if any.
    :param sub_levels: whether lower levels are sub-IFDs of the first page, not pages.
    :param description: the ImageDescription of the first page; '' for none.
    """

    levels: Sequence[WrittenPage]
    masks: Sequence[WrittenPage] = ()
    pixel_size: tuple[float | None, float | None] = (None, None)
    profile: bytes | None = None
    sub_levels: bool = False
    description: str = ''

    @property
    def subs(self) -> list[WrittenPage]:
        """The sub-IFDs of the first page."""
        return [*(self.levels[1:] if self.sub_levels else ()), *self.masks]

    @property
    def pages(self) -> list[WrittenPage]:
        """All directories in the order of the file: sub-IFDs follow their page."""
        return [self.levels[0], *self.subs, *(() if self.sub_levels else self.levels[1:])]


def write_tiff(path: str, images: Sequence[WrittenImage], data_bytes: int) -> None:
    """
    Write images to a new file.

    :param path: the file; it must not exist.
    :param images: in the order of the file.
    :param data_bytes: the total length of all tiles, to decide on BigTIFF.
    :raises OSError: if the file cannot be written.
    :raises TileSourceError: if a TIFF file cannot hold a pixel size.
    """
    tables = sum(_TABLE_ENTRY * page.first_same.size + _DIRECTORY
                 for image in images for page in image.pages)
    texts = sum(len(image.description) * 4 + len(image.profile or b'') for image in images)
    texts += sum(0 if page.color_map is None else page.color_map.nbytes
                 for image in images for page in image.pages)
    # Imported on demand; that takes a tenth of a second.
    import tifffile

    # tifffile would not report an error when it closes a file.
    with open(path, 'xb') as file, tifffile.TiffWriter(
            file, bigtiff=needs_bigtiff(data_bytes + tables + texts), byteorder='<') as writer:
        for image in images:
            _write_image(writer, image)
    _finish(path, [(frozenset() if any(image.pixel_size) else RESOLUTION, page.first_same)
                   for image in images for page in image.pages])


def _write_image(writer: tifffile.TiffWriter, image: WrittenImage) -> None:
    """Write the directories of an image."""
    stated = resolution_of(image.pixel_size)
    common: dict[str, Any] = {
        'resolution': stated, 'resolutionunit': _CENTIMETRE if stated else None}
    first, *others = image.pages
    # tifffile takes text in ASCII only; programs read UTF-8.
    _write_page(writer, first, iccprofile=image.profile, subifds=len(image.subs),
                description=image.description.encode() or None, **common)
    for page in others:
        _write_page(writer, page, iccprofile=None if page.is_mask else image.profile, **common)


def needs_bigtiff(written_bytes: int) -> bool:
    """Whether a file with this many bytes of tiles and tables needs 64-bit offsets."""
    return written_bytes > (1 << 32) - _MARGIN


def _write_page(writer: tifffile.TiffWriter, page: WrittenPage, **options: Any) -> None:
    shape: tuple[int, ...] = page.size.height, page.size.width
    if page.samples > 1:
        shape = (*shape, page.samples)
        options['planarconfig'] = 'contig'
    if page.compression == _JPEG:
        # tifffile assumes YCbCr by default.
        options['subsampling'] = page.subsampling
        if page.photometric == _RGB:
            options['compressionargs'] = {'outcolorspace': 'rgb'}
        options['jpegtables'] = page.jpeg_tables or None
    if page.extra_samples:
        options['extrasamples'] = page.extra_samples
    if not page.is_mask:
        options['photometric'] = page.photometric
    if page.color_map is not None:
        options['colormap'] = page.color_map
    if page.tile is None:
        options['rowsperstrip'] = page.size.height
    else:
        options['tile'] = page.tile.height, page.tile.width
    kind = page.reduced | 4 * page.is_mask if page.subfile_type is None else page.subfile_type
    # The tiles are already compressed with the predictor; this only sets the tag.
    writer.write(
        iter(page.tiles), shape=shape, dtype=page.dtype,
        compression=None if page.compression == 1 else page.compression,
        predictor=page.predictor if page.predictor > 1 else None,
        subfiletype=kind, metadata=None, software=False, **options)


# Resolutions


def resolution(mm: float) -> tuple[int, int]:
    """
    Convert a pixel size to pixels per cm as a TIFF rational.

    :param mm: the size of a pixel in mm.
    :raises TileSourceError: if no rational of 32-bit integers is within a relative
        error of 1e-6.
    """
    exact = Fraction(10) / Fraction(mm)
    # Both terms must stay below 2 ** 32.
    limit = _LARGEST if exact <= 1 else max(1, int(_LARGEST / exact))
    near = exact.limit_denominator(limit)
    if not 0 < near.numerator <= _LARGEST or abs(near / exact - 1) > Fraction(1, 10 ** 6):
        msg = f'A pixel size of {mm} mm cannot be stored in a TIFF file: it is too small or large.'
        raise TileSourceError(msg)
    return near.numerator, near.denominator


def resolution_of(pixel_size: tuple[float | None, float | None],
                  ) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """
    The resolution in pixels per cm, as two rationals; None if it is unknown.

    :param pixel_size: width and height in mm; if one is None, the other counts for both.
    :raises TileSourceError: if a TIFF file cannot hold it.
    """
    mm_x, mm_y = pixel_size[0] or pixel_size[1], pixel_size[1] or pixel_size[0]
    if mm_x is None or mm_y is None:
        return None
    return resolution(mm_x), resolution(mm_y)


def remove_tags(path: str, tags: frozenset[int] = RESOLUTION) -> None:
    """
    Remove tags from all directories of a little-endian TIFF file.

    :param path: the file.
    :param tags: by default those of the resolution: if it is unknown, libvips writes 10
        pixels per cm.
    :raises TileSourceError: if the file is not little-endian TIFF.
    """
    _finish(path, itertools.repeat((tags, None)))


# Changes to the directories of a finished file


class _Layout(NamedTuple):
    """The struct formats of a directory."""

    head: str
    entry: str
    pointer: str
    inline: int


_BIG = _Layout('<Q', '<HHQ', '<Q', 8)
_CLASSIC = _Layout('<H', '<HHI', '<I', 4)

# The numpy types of integers in TIFF: SHORT, LONG, IFD, LONG8, IFD8.
_INTEGERS = {3: '<u2', 4: '<u4', 13: '<u4', 16: '<u8', 18: '<u8'}


def _finish(path: str, changes: Iterable[
        tuple[frozenset[int], npt.NDArray[np.int64] | None]]) -> None:
    """
    Remove tags from directories, and set the same offset for equal tiles.

    :param path: a little-endian TIFF file.
    :param changes: for each directory the tags to remove, and ``first_same`` as in
        ``WrittenPage``; sub-IFDs follow their page.
    """
    with open(path, 'r+b', buffering=0) as file:
        directories = _Directories(path, file.fileno())
        for offset, (removed, first_same) in zip(directories.offsets(), changes, strict=False):
            if first_same is not None:
                directories.share(offset, first_same)
            if removed:
                directories.remove(offset, removed)


class _Directories:
    """
    The directories of an open file.

    :raises TileSourceError: if the file is not little-endian TIFF.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self._descriptor = descriptor
        start = read_at(descriptor, 16, 0)
        layout = {b'II*\0': _CLASSIC, b'II+\0': _BIG}.get(start[:4])
        if layout is None:
            msg = f'{path} is not a little-endian TIFF file, as it should be.'
            raise TileSourceError(msg)
        self._layout = layout
        self._first = struct.unpack_from(
            layout.pointer, start, 8 if layout is _BIG else 4)[0]

    def offsets(self) -> Iterator[int]:
        """The offsets of all directories, each followed by its sub-IFDs."""
        offset = self._first
        while offset:
            entries, following = self._read(offset)
            yield offset
            if _SUB_IFDS in entries:
                for child in self._integers(offset, _SUB_IFDS)[0]:
                    yield int(child)
            offset = following

    def _read(self, offset: int) -> tuple[dict[int, bytes], int]:
        """The packed entries of a directory by tag, and the offset of the next one."""
        layout = self._layout
        start = struct.calcsize(layout.head)
        size = struct.calcsize(layout.entry) + layout.inline
        count = struct.unpack(layout.head, read_at(self._descriptor, start, offset))[0]
        raw = read_at(self._descriptor, count * size + layout.inline, offset + start)
        entries = [raw[at:at + size] for at in range(0, count * size, size)]
        following = struct.unpack(layout.pointer, raw[count * size:])[0]
        return {struct.unpack_from('<H', entry)[0]: entry for entry in entries}, following

    def _integers(self, offset: int, tag: int) -> tuple[npt.NDArray[Any], int]:
        """The values of a tag of integers, and where in the file they are."""
        layout = self._layout
        entries, _ = self._read(offset)
        entry = entries[tag]
        _, kind, count = struct.unpack_from(layout.entry, entry)
        dtype = np.dtype(_INTEGERS[kind])
        if count * dtype.itemsize > layout.inline:
            place = struct.unpack(layout.pointer, entry[-layout.inline:])[0]
        else:
            place = (offset + struct.calcsize(layout.head) + len(entry) * (
                list(entries).index(tag) + 1) - layout.inline)
        raw = read_at(self._descriptor, count * dtype.itemsize, place)
        return np.frombuffer(raw, dtype), place

    def share(self, offset: int, first_same: npt.NDArray[np.int64]) -> None:
        """Set the offset and length of tiles to those of the first equal one."""
        if np.array_equal(first_same, np.arange(first_same.size)):
            return
        for tag in (tiff.TILE_OFFSETS, tiff.TILE_COUNTS):
            values, place = self._integers(offset, tag)
            write_at(self._descriptor, values[first_same], place)

    def remove(self, offset: int, tags: frozenset[int]) -> None:
        """Remove tags from a directory, which becomes shorter."""
        layout = self._layout
        entries, following = self._read(offset)
        kept = [entry for tag, entry in entries.items() if tag not in tags]
        write_at(self._descriptor, b''.join([
            struct.pack(layout.head, len(kept)), *kept,
            struct.pack(layout.pointer, following)]), offset)
