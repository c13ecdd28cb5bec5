"""
A small reader of TIFF and BigTIFF directories.

libvips decodes the pixels; this module answers what libvips does not tell, or
tells only at the price of opening every page: how many pages there are and of
what kind, where their sub-IFDs are, which resolution tags are present, which
tiles are declared empty.

Everything read from a file is taken to be hostile: offsets and counts are
checked against the size of the file before anything is read, loops in the
chain of directories are noticed, and the memory for one value is bounded.

Tag numbers and types are those of TIFF 6.0 (Adobe, 1992), of its supplement 1
(sub-IFDs) and of the BigTIFF design (AWare Systems).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..base.files import read_at
from ..base.geometry import Size
from ..base.limits import LIMITS

# The bytes of one value of each type, and numpy's code for it.  Rationals are
# pairs; ASCII and UNDEFINED are bytes.
_TYPES = {
    1: (1, 'u1'), 2: (1, 'u1'), 3: (2, 'u2'), 4: (4, 'u4'), 5: (8, 'u4'), 6: (1, 'i1'),
    7: (1, 'u1'), 8: (2, 'i2'), 9: (4, 'i4'), 10: (8, 'i4'), 11: (4, 'f4'), 12: (8, 'f8'),
    13: (4, 'u4'), 16: (8, 'u8'), 17: (8, 'i8'), 18: (8, 'u8'),
}
_INTEGERS = frozenset({1, 3, 4, 6, 8, 9, 13, 16, 17, 18})
_RATIONALS = frozenset({5, 10})
# The codes of the module struct for the integers.
_CODES = {1: 'B', 3: 'H', 4: 'I', 6: 'b', 8: 'h', 9: 'i', 13: 'I', 16: 'Q', 17: 'q', 18: 'Q'}

SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
DESCRIPTION, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP = 270, 273, 274, 277, 278
STRIP_COUNTS, X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT = 279, 282, 283, 284, 296
SOFTWARE, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 305, 322, 323, 324, 325
PREDICTOR, SUB_IFDS, EXTRA_SAMPLES, SAMPLE_FORMAT = 317, 330, 338, 339
JPEG_TABLES, ICC_PROFILE = 347, 34675

# What a value of a tag may take in memory; an OME-XML of a large screen is some
# 50 MB, the table of a slide of 10 million tiles 80 MB.
_MAX_VALUE_BYTES = LIMITS.tiff_value
# More directories than any instrument writes; a bound for broken chains.
_MAX_DIRECTORIES = LIMITS.tiff_directories
# One read that holds an ordinary directory and what it points to right behind it.
_READ_AHEAD = 1024

# Names of the compressions of the tag, for messages and the documentation.
_OLD_JPEG, _JPEG, _YCBCR = 6, 7, 6
_DEFLATE = frozenset({8, 32946})
_JPEG_COLOURS = frozenset({(1, 1), (2, 3), (6, 3)})
# What the sides of a tile are multiples of, and those of the largest unit of JPEG.
MCU = 16
_GRAY = frozenset({0, 1})
# A photometric interpretation that means nothing: libvips takes samples as they are.
_NO_PHOTOMETRIC = 34
# Photometric interpretation and samples: gray with black as 0, and RGB.
_PLAIN_COLOURS = frozenset({(1, 1), (2, 3)})
COMPRESSIONS = {
    1: 'uncompressed', 2: 'CCITT RLE', 3: 'CCITT fax 3', 4: 'CCITT fax 4', 5: 'LZW',
    6: 'old-style JPEG', 7: 'JPEG', 8: 'deflate', 32773: 'PackBits', 32946: 'deflate',
    33003: 'JPEG 2000 (YCbCr)',
    33005: 'JPEG 2000 (RGB)', 34676: 'SGI LogLuv', 34677: 'SGI LogLuv', 34712: 'JPEG 2000',
    34887: 'LERC', 34925: 'LZMA', 50000: 'ZSTD', 50001: 'WebP', 50002: 'JPEG XL',
}


class TiffFormatError(ValueError):
    """The bytes are not a TIFF file that can be followed."""


class Entry(NamedTuple):
    """
    One entry of a directory.

    :param kind: the type of its values.
    :param values: how many there are.
    :param offset: where they are in the file.
    :param at: where the entry itself is.
    """

    kind: int
    values: int
    offset: int
    at: int


@dataclass(frozen=True)
class Page:
    """
    One directory of a TIFF file: what a picture is like, without its pixels.

    Sizes are in pixels as they are stored, before the orientation is applied.
    """

    offset: int
    next_offset_at: int
    size: Size
    bits: int
    sample_format: int
    samples: int
    photometric: int
    planar: int
    compression: int
    orientation: int
    subfile_type: int
    tile: Size | None
    rows_per_strip: int
    sub_offsets: tuple[int, ...]
    predictor: int
    entries: dict[int, Entry] = field(repr=False, compare=False)

    @property
    def kind(self) -> tuple[object, ...]:
        """What must agree for two pages to have the same dtype and bands."""
        family = {0: 1, 6: 2}.get(self.photometric, self.photometric)
        return self.bits, self.sample_format, self.samples, family

    @property
    def compression_name(self) -> str:
        """The compression in words."""
        return COMPRESSIONS.get(self.compression, f'compression {self.compression}')

    @cached_property
    def is_plain_deflate(self) -> bool:
        """Whether it is deflated, 8 or 16 bit, gray or RGB without further samples."""
        return (
            self.compression in _DEFLATE and self.bits in {8, 16} and self.sample_format == 1 and
            self.planar == 1 and (self.photometric, self.samples) in _PLAIN_COLOURS and
            self.predictor in {1, 2})

    @cached_property
    def is_plain_jpeg(self) -> bool:
        """Whether it is in JPEG tiles of gray, RGB or YCbCr, and nothing else."""
        return (
            self.compression == _JPEG and self.bits == 8 and self.planar == 1 and
            self.sample_format == 1 and (self.photometric, self.samples) in _JPEG_COLOURS and
            self.tile is not None and min(self.tile) > 0 and
            not any(extent % MCU for extent in self.tile))

    @property
    def is_separate_gray(self) -> bool:
        """
        Whether it has several planes of gray, in strips.

        Up to 8.18 at least, libvips decodes no more than the first row of each
        strip of these; of planes of anything else it decodes all.
        """
        return (self.planar == 2 and self.samples > 1 and self.tile is None and
                self.photometric in _GRAY and PHOTOMETRIC in self.entries)

    @cached_property
    def has_whole_strips(self) -> bool:
        """Whether each strip holds some rows of all samples and is decoded on its own."""
        lists = [self.entries.get(tag) for tag in (STRIP_OFFSETS, STRIP_COUNTS)]
        return (
            self.tile is None and HEIGHT in self.entries and self.rows_per_strip > 0 and
            (self.planar == 1 or self.samples == 1) and self.compression != _OLD_JPEG and
            # Without JPEG, subsampled colours are for libtiff to make sense of.
            (self.photometric != _YCBCR or self.compression == _JPEG) and
            all(entry is not None and entry.values == -(-self.size.height // self.rows_per_strip)
                for entry in lists))

    @property
    def tile_count(self) -> int:
        """How many tiles (or strips) the page lists."""
        entry = self.entries.get(TILE_OFFSETS if self.tile else STRIP_OFFSETS)
        return entry.values if entry else 0


class TiffDirectories:
    """
    The directories of one open TIFF file.

    :param descriptor: a descriptor of the file; only positioned reads are made
        on it, so that several threads may use it.
    :raises TiffFormatError: if the file does not start as a TIFF file does.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._file_size = os.fstat(descriptor).st_size
        head = read_at(descriptor, 16, 0)
        self._order = {b'II': '<', b'MM': '>'}.get(head[:2], '')
        if len(head) < 8 or not self._order:
            msg = 'it does not start with a TIFF header'
            raise TiffFormatError(msg)
        version = struct.unpack_from(self._order + 'H', head, 2)[0]
        if version not in {42, 43} or (version == 43 and len(head) < 16):
            msg = f'its TIFF version is {version}, not 42 or 43'
            raise TiffFormatError(msg)
        self.big = version == 43
        self._count = struct.Struct(self._order + ('Q' if self.big else 'H'))
        self._entry = struct.Struct(self._order + ('HHQ8s' if self.big else 'HHI4s'))
        self._pointer = struct.Struct(self._order + ('Q' if self.big else 'I'))
        self._integers = {kind: struct.Struct(self._order + _CODES[kind]) for kind in _INTEGERS}
        self.first_offset_at = 8 if self.big else 4
        self._first: int = self._pointer.unpack_from(head, self.first_offset_at)[0]

    def pointer(self, offset: int) -> bytes:
        """An offset as the bytes that this file would hold it in."""
        return bytes(self._pointer.pack(offset))

    def alone(self, page: Page, strips: tuple[int, int] | None = None) -> dict[int, bytes]:
        """
        What to write over the file, and where, so that a page is its only one.

        :param page: the page, also a sub-IFD.
        :param strips: which of its strips make up the picture then, from the
            first of these numbers to before the second; None for all.
        :returns: bytes by their offset in the file.
        """
        patches = {self.first_offset_at: self._pointer.pack(page.offset),
                   page.next_offset_at: self._pointer.pack(0)}
        if page.is_separate_gray:
            entry = page.entries[PHOTOMETRIC]
            patches[entry.offset] = np.array(
                _NO_PHOTOMETRIC, self._dtype(entry.kind)).tobytes()
        if strips is None:
            return patches
        first, end = strips
        rows = min(page.size.height, end * page.rows_per_strip) - first * page.rows_per_strip
        height = page.entries[HEIGHT]
        patches[height.offset] = np.array(
            rows, self._dtype(height.kind)).tobytes()
        for tag in (STRIP_OFFSETS, STRIP_COUNTS):
            entry = page.entries[tag]
            width = _TYPES[entry.kind][0]
            values = entry.offset + first * width
            size = (end - first) * width
            value = (self._read(values, size).ljust(self._pointer.size, b'\0')
                     if size <= self._pointer.size else self._pointer.pack(values))
            patches[entry.at + 4] = self._pointer.pack(end - first) + value
        return patches

    def pages(self) -> Iterator[Page]:
        """
        The pages of the main chain, in order.

        :raises TiffFormatError: if the first cannot be read, or the chain loops.
            A later page that cannot be read ends the chain, as in libtiff.
        """
        offset, seen = self._first, set[int]()
        while offset:
            if offset in seen or len(seen) >= _MAX_DIRECTORIES:
                msg = 'its chain of directories does not end'
                raise TiffFormatError(msg)
            seen.add(offset)
            try:
                page, offset = self._page(offset)
            except TiffFormatError:
                if len(seen) == 1:
                    raise
                return
            yield page

    def page_at(self, offset: int) -> Page:
        """
        The page whose directory is at an offset, such as a sub-IFD.

        :raises TiffFormatError: if there is no directory of a picture.
        """
        return self._page(offset)[0]

    def _page(self, offset: int) -> tuple[Page, int]:
        """A page and the offset of the next one, 0 for none."""
        block, entries, next_offset_at, next_offset = self._entries(offset)

        def first(tag: int, default: int) -> int:
            entry = entries.get(tag)
            if entry is None or entry.kind not in _INTEGERS or not entry.values:
                return default
            number = self._integers[entry.kind]
            if 0 <= entry.offset - offset <= len(block) - number.size:
                return int(number.unpack_from(block, entry.offset - offset)[0])
            values = self.integers(entry._replace(values=1))
            return values[0] if values else default

        size = Size(first(WIDTH, 0), first(HEIGHT, 0))
        if min(size) < 1:
            msg = f'its directory at {offset} states no size'
            raise TiffFormatError(msg)
        tile = Size(first(TILE_WIDTH, 0), first(TILE_HEIGHT, 0)) if TILE_WIDTH in entries else None
        page = Page(
            offset=offset, next_offset_at=next_offset_at, size=size, bits=first(BITS, 1),
            sample_format=first(SAMPLE_FORMAT, 1), samples=first(SAMPLES, 1),
            photometric=first(PHOTOMETRIC, 0), planar=first(PLANAR, 1),
            compression=first(COMPRESSION, 1), orientation=first(ORIENTATION, 1),
            subfile_type=first(SUBFILE_TYPE, 0), tile=tile,
            rows_per_strip=first(ROWS_PER_STRIP, size.height),
            sub_offsets=tuple(self.integers(entries.get(SUB_IFDS), limit=LIMITS.tiff_sub_ifds))
            if SUB_IFDS in entries else (), predictor=first(PREDICTOR, 1), entries=entries)
        return page, next_offset

    def _entries(self, offset: int) -> tuple[bytes, dict[int, Entry], int, int]:
        """A directory as bytes, its entries, where its next-pointer is, and what that says."""
        block = self._read(offset, _READ_AHEAD)
        if len(block) < self._count.size:
            msg = f'its directory at {offset} lies beyond the end'
            raise TiffFormatError(msg)
        count = self._count.unpack_from(block)[0]
        end = self._count.size + count * self._entry.size
        if not 1 <= count <= 4096 or offset + end > self._file_size:
            msg = f'its directory at {offset} is damaged'
            raise TiffFormatError(msg)
        if end + self._pointer.size > len(block):
            block = self._read(offset, end + self._pointer.size)
        entries: dict[int, Entry] = {}
        inline = self._pointer.size
        at = offset + self._count.size
        for tag, kind, values, raw in self._entry.iter_unpack(block[self._count.size:end]):
            width = _TYPES.get(kind, (0, ''))[0]
            if width:
                where = (at + self._entry.size - inline if width * values <= inline
                         else self._pointer.unpack(raw)[0])
                entries.setdefault(tag, Entry(kind, values, where, at))
            at += self._entry.size
        tail = block[end:end + self._pointer.size]
        following = self._pointer.unpack(tail)[0] if len(tail) == self._pointer.size else 0
        return block, entries, offset + end, following

    @property
    def order(self) -> str:
        """The byte order of the file as numpy and struct write it, '<' or '>'."""
        return self._order

    def _dtype(self, kind: int) -> np.dtype[Any]:
        """The numpy dtype of a type of values, in the byte order of the file."""
        return np.dtype(self._order + _TYPES[kind][1])

    def _read(self, offset: int, size: int) -> bytes:
        """Bytes of the file; fewer than asked for at its end."""
        if not 0 <= offset < self._file_size:
            return b''
        return read_at(self._descriptor, size, offset)

    def array(self, entry: Entry | None) -> npt.NDArray[np.generic] | None:
        """
        All values of an entry as stored; rationals as pairs (count, 2).

        :returns: the values, or None if there are none or they do not fit into
            the file.
        """
        if entry is None or not entry.values:
            return None
        size = _TYPES[entry.kind][0] * entry.values
        if size > _MAX_VALUE_BYTES or entry.offset + size > self._file_size:
            return None
        data = self._read(entry.offset, size)
        if len(data) < size:
            return None
        values = np.frombuffer(data, self._dtype(entry.kind))
        return values.reshape(-1, 2) if entry.kind in _RATIONALS else values

    def integers(self, entry: Entry | None, limit: int = LIMITS.tiff_integers) -> list[int]:
        """The values of an entry of integers; empty if it holds none, or more than a limit."""
        if entry is None or entry.kind not in _INTEGERS or entry.values > limit:
            return []
        values = self.array(entry)
        return [] if values is None else [int(value) for value in values.tolist()]

    def number(self, entry: Entry | None) -> float | None:
        """The first value of an entry of numbers; None if there is none or its divisor is 0."""
        values = None if entry is None else self.array(entry._replace(values=min(entry.values, 1)))
        if values is None or not values.size:
            return None
        if values.ndim == 2:
            above, below = (int(value) for value in values[0])
            return float(Fraction(above, below)) if below else None
        return float(values[0])

    def text(self, entry: Entry | None) -> str:
        """The text of an ASCII entry up to its first NUL; '' if there is none."""
        return self.data(entry).split(b'\0', 1)[0].decode('utf-8', 'replace')

    def data(self, entry: Entry | None) -> bytes:
        """The bytes of an entry of bytes; b'' if there are none."""
        values = None if entry is None or entry.kind not in {1, 2, 7} else self.array(entry)
        return b'' if values is None else values.tobytes()

    def empty_tiles(self, page: Page) -> npt.NDArray[np.bool_] | None:
        """
        Which tiles (or strips) a page declares empty: offset 0 and byte count 0.

        :returns: a flag for each, in file order, or None if there are none.
        """
        places = self.places(page)
        if places is None:
            return None
        empty = (places[0] == 0) & (places[1] == 0)
        return empty if empty.any() else None

    def places(self, page: Page) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
        """
        Where the tiles (or strips) of a page are.

        :returns: their offsets and byte counts, in file order; None if the page
            does not list both, alike.
        """
        tags = (TILE_OFFSETS, TILE_COUNTS) if page.tile else (STRIP_OFFSETS, STRIP_COUNTS)
        offsets, counts = (self.array(page.entries.get(tag)) for tag in tags)
        if offsets is None or counts is None or offsets.shape != counts.shape:
            return None
        return offsets, counts
