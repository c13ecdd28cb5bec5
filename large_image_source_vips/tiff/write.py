"""
Write TIFF files of tiles that are already compressed.

tifffile writes the directories; it is used nowhere else but for OME-XML.  What it and
libvips cannot do is done afterwards: neither can leave out the resolution, and tifffile
writes equal tiles again and again.  Tags and types: TIFF 6.0 (Adobe, 1992).
"""

from __future__ import annotations

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
from . import directories as tiff

if TYPE_CHECKING:
    import tifffile

# Compression of JPEG tiles, and the PhotometricInterpretation of YCbCr.
_JPEG, _YCBCR, _RGB = 7, 6, 2
_SUB_IFDS = 330
_CENTIMETRE = 3
_LARGEST = (1 << 32) - 1

# Room in a classic TIFF for all but the tiles: directories, profiles, padding.
_MARGIN = 1 << 24
# Bytes in the tables of a directory for each tile: an offset and a length.
_TABLE_ENTRY = 8

RESOLUTION = frozenset({tiff.X_RESOLUTION, tiff.Y_RESOLUTION, tiff.RESOLUTION_UNIT})


@dataclass(frozen=True)
class WrittenPage:
    """
    One directory, and its tiles.

    :param size: in pixels.
    :param tile: width and height of a tile.
    :param dtype: of the samples; bool for a mask of 1 bit.
    :param samples: the number of bands, alpha included.
    :param photometric: TIFF's PhotometricInterpretation.
    :param compression: TIFF's number.
    :param tiles: yields the compressed tiles row by row; ``b''`` for each that equals an
        earlier one.
    :param first_same: for each tile the number of the first one that equals it.
    :param extra_samples: the ExtraSamples of the bands that are not colours: 0 for data,
        2 for alpha.
    :param predictor: TIFF's Predictor.
    :param subsampling: of the chroma of JPEG tiles in YCbCr.
    :param reduced: whether it is a lower level.
    """

    size: Size
    tile: Size
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


def write_tiff(path: str, pages: Sequence[WrittenPage], masks: Sequence[WrittenPage],
               data_bytes: int, pixel_size: tuple[float | None, float | None],
               profile: bytes | None = None) -> None:
    """
    Write a pyramid to a new file.

    :param path: the file; it must not exist.
    :param pages: the levels, largest first; each is a page.
    :param masks: the transparency masks of all levels, if any; they become sub-IFDs of the
        first page.
    :param data_bytes: the sum of the lengths of all tiles, which decides for BigTIFF.
    :param pixel_size: width and height in mm, None where unknown.
    :param profile: the ICC profile, if any.
    :raises OSError: if the file cannot be written.
    :raises TileSourceError: if a TIFF file cannot hold the pixel size.
    """
    stated = resolution_of(pixel_size)
    everything = [*pages, *masks]
    tables = sum(_TABLE_ENTRY * page.first_same.size for page in everything)
    common: dict[str, Any] = {
        'resolution': stated, 'resolutionunit': _CENTIMETRE if stated else None}
    # When needed: it takes a tenth of a second to import.
    import tifffile

    # tifffile would not report an error when it closes a file.
    with open(path, 'xb') as file, tifffile.TiffWriter(
            file, bigtiff=needs_bigtiff(data_bytes + tables), byteorder='<') as writer:
        _write_page(writer, pages[0], iccprofile=profile, subifds=len(masks), **common)
        for mask in masks:
            _write_page(writer, mask, is_mask=True, **common)
        for page in pages[1:]:
            _write_page(writer, page, iccprofile=profile, **common)
    removed = frozenset() if stated else RESOLUTION
    _finish(path, removed, [pages[0].first_same, *(mask.first_same for mask in masks),
                            *(page.first_same for page in pages[1:])])


def needs_bigtiff(written_bytes: int) -> bool:
    """Whether a file of so many bytes of tiles and their tables needs 64-bit offsets."""
    return written_bytes > (1 << 32) - _MARGIN


def _write_page(writer: tifffile.TiffWriter, page: WrittenPage, is_mask: bool = False,
                **options: Any) -> None:
    shape: tuple[int, ...] = page.size.height, page.size.width
    if page.samples > 1:
        shape = (*shape, page.samples)
        options['planarconfig'] = 'contig'
    if page.compression == _JPEG:
        # tifffile takes tiles for YCbCr unless told otherwise.
        options['subsampling'] = page.subsampling
        if page.photometric == _RGB:
            options['compressionargs'] = {'outcolorspace': 'rgb'}
    if page.extra_samples:
        options['extrasamples'] = page.extra_samples
    if not is_mask:
        options['photometric'] = page.photometric
    # The predictor of compressed tiles is only stated.
    writer.write(
        iter(page.tiles), shape=shape, dtype=page.dtype, tile=(page.tile.height, page.tile.width),
        compression=None if page.compression == 1 else page.compression,
        predictor=page.predictor if page.predictor > 1 else None,
        subfiletype=page.reduced | 4 * is_mask, metadata=None, software=False, **options)


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
    :param tags: by default those of the resolution, for which libvips writes 10 pixels
        per cm if it is unknown.
    :raises TileSourceError: if the file is not little-endian TIFF.
    """
    _finish(path, tags, None)


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


def _finish(path: str, removed: frozenset[int],
            first_same: Sequence[npt.NDArray[np.int64]] | None) -> None:
    """
    Remove tags from all directories, and give equal tiles the same offset.

    :param path: a little-endian TIFF file.
    :param removed: the tags.
    :param first_same: as in ``WrittenPage``, for each directory; sub-IFDs come behind the
        page that they belong to.
    """
    with open(path, 'r+b', buffering=0) as file:
        directories = _Directories(path, file.fileno())
        for number, offset in enumerate(directories.offsets()):
            if first_same is not None:
                directories.share(offset, first_same[number])
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
        """Give tiles the offset and length of the first one that equals them."""
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
