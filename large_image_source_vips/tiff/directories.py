"""
Read TIFF and BigTIFF directories: pages, sub-IFDs and tags.

libvips reports little of this, and only after opening each page.

Input is not trusted: offsets and counts are checked against the file size, loops in the
chain of directories are detected, and the number of entries and the size of a value are
bounded (``base.limits``).  Errors that other readers tolerate are tolerated: tags out of
order or repeated, a missing photometric interpretation, tiles listed in the tags of strips,
old-style JPEG that is declared as RGB.

Tags and types: TIFF 6.0 (Adobe, 1992), its supplement 1 (sub-IFDs), and the BigTIFF
design (AWare Systems).
"""

from __future__ import annotations

import codecs
import logging
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.files import read_at
from ..base.geometry import Size
from ..base.limits import LIMITS
from .page import (
    BITS,
    COMPRESSION,
    FILL_ORDER,
    HEIGHT,
    OLD_JPEG,
    ORIENTATION,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    ROWS_PER_STRIP,
    SAMPLE_FORMAT,
    SAMPLES,
    STRIP_COUNTS,
    STRIP_OFFSETS,
    SUB_IFDS,
    SUBFILE_TYPE,
    TILE_HEIGHT,
    TILE_WIDTH,
    UNCOMPRESSED,
    WIDTH,
    Entry,
    Page,
)

# The bytes of one value of each type, and its numpy code.  A rational is a pair of
# integers; ASCII and UNDEFINED are bytes.
_TYPES = {
    1: (1, 'u1'), 2: (1, 'u1'), 3: (2, 'u2'), 4: (4, 'u4'), 5: (8, 'u4'), 6: (1, 'i1'),
    7: (1, 'u1'), 8: (2, 'i2'), 9: (4, 'i4'), 10: (8, 'i4'), 11: (4, 'f4'), 12: (8, 'f8'),
    13: (4, 'u4'), 16: (8, 'u8'), 17: (8, 'i8'), 18: (8, 'u8'),
}
# The byte order marks of UTF-16.
_UTF_16 = frozenset({codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE})
_INTEGERS = frozenset({1, 3, 4, 6, 8, 9, 13, 16, 17, 18})
_RATIONALS = frozenset({5, 10})
# The struct codes of the integer types.
_CODES = {1: 'B', 3: 'H', 4: 'I', 6: 'b', 8: 'h', 9: 'i', 13: 'I', 16: 'Q', 17: 'q', 18: 'Q'}

# The bytes of one read: usually a directory and the values that follow it.
_READ_AHEAD = 1024

# CCITT compressions; in their data 0 is white (ITU-T T.4).
_FAX = frozenset({2, 3, 4})
_RGB, _YCBCR = 2, 6
# SamplesPerPixel is a SHORT.
_MOST_SAMPLES = 65535
# An unassigned photometric interpretation, for which libvips does not convert samples.
_NO_PHOTOMETRIC = 34

_logger = logging.getLogger(__name__)


class TiffFormatError(ValueError):
    """The file is not TIFF, or its directories are damaged."""


class TooManyEntriesError(TiffFormatError):
    """The directories of the file have more than ``LIMITS.tiff_entries`` entries in total."""


def decode_text(data: bytes, *, is_cut: bool = False) -> str:
    """
    Decode bytes as UTF-8, or as Latin-1 if they are not UTF-8.

    :param is_cut: whether the last character may be incomplete; it is then left out.
    """
    try:
        return codecs.utf_8_decode(data, 'strict', not is_cut)[0]
    except UnicodeDecodeError:
        return data.decode('latin-1')


class TiffDirectories:
    """
    The directories of one open TIFF file.

    Threads may share this object, because all reads are positioned.

    :param descriptor: of the file.
    :raises TiffFormatError: if the file has no TIFF header.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._file_size = os.fstat(descriptor).st_size
        head = read_at(descriptor, 16, 0)
        # '<' or '>', as in numpy and struct.
        self.order = {b'II': '<', b'MM': '>'}.get(head[:2], '')
        if len(head) < 8 or not self.order:
            msg = 'it does not start with a TIFF header'
            raise TiffFormatError(msg)
        version = struct.unpack_from(self.order + 'H', head, 2)[0]
        if version not in {42, 43} or (version == 43 and len(head) < 16):
            msg = f'its TIFF version is {version}, not 42 or 43'
            raise TiffFormatError(msg)
        self.big = version == 43
        self._count = struct.Struct(self.order + ('Q' if self.big else 'H'))
        self._entry = struct.Struct(self.order + ('HHQ8s' if self.big else 'HHI4s'))
        self._pointer = struct.Struct(self.order + ('Q' if self.big else 'I'))
        self._integers = {kind: struct.Struct(self.order + _CODES[kind]) for kind in _INTEGERS}
        self.first_offset_at = 8 if self.big else 4
        self._first: int = self._pointer.unpack_from(head, self.first_offset_at)[0]
        # The entries read so far: directories may overlap, so a small file can have many.
        self._entries_read = 0

    def single_page_patches(self, page: Page,
                            strips: tuple[int, int] | None = None) -> dict[int, bytes]:
        """
        The bytes to replace in the file so that a page is its only one.

        :param page: the page, possibly a sub-IFD.
        :param strips: the first strip of the picture and the one after the last; None
            for all.
        :returns: the new bytes by their offset in the file.
        """
        patches = {self.first_offset_at: self._pointer.pack(page.offset),
                   page.next_offset_at: self._pointer.pack(0)}
        if page.is_separate_gray:
            entry = page.entries[PHOTOMETRIC]
            patches[entry.offset] = np.array(_NO_PHOTOMETRIC, self._dtype(entry.kind)).tobytes()
        if strips is None:
            return patches
        first, end = strips
        rows = min(page.size.height, end * page.rows_per_strip) - first * page.rows_per_strip
        height = page.entries[HEIGHT]
        patches[height.offset] = np.array(rows, self._dtype(height.kind)).tobytes()
        for tag in (STRIP_OFFSETS, STRIP_COUNTS):
            entry = page.entries[tag]
            width = _TYPES[entry.kind][0]
            values = entry.offset + first * width
            size = (end - first) * width
            value = (self.read(values, size).ljust(self._pointer.size, b'\0')
                     if size <= self._pointer.size else self._pointer.pack(values))
            patches[entry.at + 4] = self._pointer.pack(end - first) + value
        return patches

    def pages(self) -> Iterator[Page]:
        """
        Iterate over the pages of the main chain, in order.

        A later page that cannot be read ends the chain, as in libtiff.  A page that occurs
        a second time ends it, too, with a warning.

        :raises TiffFormatError: if the first page cannot be read, or there are too many
            directories or entries.
        """
        offset, seen = self._first, set[int]()
        while offset:
            if offset in seen:
                _logger.warning('A chain of %d TIFF directories leads back to the one at offset '
                                '%d; each is read once.', len(seen), offset)
                return
            if len(seen) >= LIMITS.tiff_directories:
                msg = f'it has more than {LIMITS.tiff_directories} directories'
                raise TiffFormatError(msg)
            seen.add(offset)
            try:
                page, offset = self._page(offset)
            except TooManyEntriesError:
                raise
            except TiffFormatError:
                if len(seen) == 1:
                    raise
                return
            yield page

    def page_at(self, offset: int) -> Page:
        """
        Read the page at an offset, such as a sub-IFD.

        :raises TiffFormatError: if there is no valid directory.
        :raises TooManyEntriesError: if all directories together have too many entries.
        """
        return self._page(offset)[0]

    def _page(self, offset: int) -> tuple[Page, int]:
        """Read a page and the offset of the next one, 0 for none."""
        block, entries, next_offset_at, next_offset = self._entries(offset)
        sub_offsets = (tuple(self.integers(entries[SUB_IFDS], limit=LIMITS.tiff_sub_ifds))
                       if SUB_IFDS in entries else ())
        self._count_entries(len(sub_offsets))

        def several(tag: int, most: int) -> Sequence[int]:
            entry = entries.get(tag)
            if entry is None or entry.kind not in _INTEGERS or not entry.values:
                return ()
            number, count = self._integers[entry.kind], min(entry.values, most)
            at = entry.offset - offset
            if 0 <= at <= len(block) - count * number.size:
                if count == 1:
                    return number.unpack_from(block, at)
                return tuple(value for value, in number.iter_unpack(
                    block[at:at + count * number.size]))
            return self.integers(entry._replace(values=count))

        def first(tag: int, default: int) -> int:
            return next(iter(several(tag, 1)), default) if tag in entries else default

        size = Size(first(WIDTH, 0), first(HEIGHT, 0))
        if min(size) < 1:
            msg = f'its directory at offset {offset} has no image size'
            raise TiffFormatError(msg)
        tile = Size(first(TILE_WIDTH, 0), first(TILE_HEIGHT, 0)) if TILE_WIDTH in entries else None
        largest = max((size, tile or size), key=max)
        if max(largest) > LIMITS.tiff_side:
            msg = (f'its directory at offset {offset} claims {largest.width} x {largest.height} '
                   f'pixels; at most {LIMITS.tiff_side} are read in each direction')
            raise TiffFormatError(msg)
        compression = first(COMPRESSION, UNCOMPRESSED)
        samples, photometric = _samples_and_photometric(first, compression)
        if not 1 <= samples <= _MOST_SAMPLES:
            msg = f'its directory at offset {offset} claims {samples} samples per pixel'
            raise TiffFormatError(msg)
        bits = several(BITS, max(1, samples)) or [8 if compression == OLD_JPEG else 1]
        page = Page(
            offset=offset, next_offset_at=next_offset_at, size=size, bits=max(bits),
            sample_format=first(SAMPLE_FORMAT, 1), samples=samples,
            photometric=photometric,
            planar=first(PLANAR, 1), compression=compression,
            orientation=first(ORIENTATION, 1),
            subfile_type=first(SUBFILE_TYPE, 0), tile=tile,
            rows_per_strip=first(ROWS_PER_STRIP, size.height),
            sub_offsets=sub_offsets, predictor=first(PREDICTOR, 1),
            bits_each=tuple(bits) if len(set(bits)) > 1 else (), fill_order=first(FILL_ORDER, 1),
            entries=entries)
        return page, next_offset

    def _entries(self, offset: int) -> tuple[bytes, dict[int, Entry], int, int]:
        """Read a directory: its bytes, entries, offset of the next-pointer, next-pointer."""
        block = self.read(offset, _READ_AHEAD)
        if len(block) < self._count.size:
            msg = f'its directory at offset {offset} lies beyond the end of the file'
            raise TiffFormatError(msg)
        count = self._count.unpack_from(block)[0]
        end = self._count.size + count * self._entry.size
        if not 1 <= count <= 4096 or offset + end > self._file_size:
            msg = f'its directory at offset {offset} is damaged: it claims {count} entries'
            raise TiffFormatError(msg)
        self._count_entries(count)
        if end + self._pointer.size > len(block):
            block = self.read(offset, end + self._pointer.size)
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

    def _count_entries(self, count: int) -> None:
        """
        Add to the number of entries (and offsets of sub-IFDs) that were read.

        :raises TooManyEntriesError: if there are too many.
        """
        self._entries_read += count
        if self._entries_read > LIMITS.tiff_entries:
            msg = f'its directories have more than {LIMITS.tiff_entries} entries in all'
            raise TooManyEntriesError(msg)

    def _dtype(self, kind: int) -> np.dtype[Any]:
        """The numpy dtype of a TIFF type, in the byte order of the file."""
        return np.dtype(self.order + _TYPES[kind][1])

    @property
    def file_size(self) -> int:
        """The size of the file in bytes, when this object was made."""
        return self._file_size

    def read(self, offset: int, size: int) -> bytes:
        """Read bytes of the file; fewer than ``size`` at its end."""
        if not 0 <= offset < self._file_size:
            return b''
        return read_at(self._descriptor, size, offset)

    def array(self, entry: Entry | None) -> npt.NDArray[np.generic] | None:
        """
        Read all values of an entry.

        :returns: an array (count,), for rationals (count, 2); None if there are no values,
            or if they exceed the file or the memory bound.
        """
        if entry is None or not entry.values:
            return None
        size = _TYPES[entry.kind][0] * entry.values
        if size > LIMITS.tiff_value or entry.offset + size > self._file_size:
            return None
        data = self.read(entry.offset, size)
        if len(data) < size:
            return None
        values = np.frombuffer(data, self._dtype(entry.kind))
        return values.reshape(-1, 2) if entry.kind in _RATIONALS else values

    def integers(self, entry: Entry | None, limit: int = LIMITS.tiff_integers) -> list[int]:
        """Read integers; empty if the entry holds other types, or more than ``limit``."""
        if entry is None or entry.kind not in _INTEGERS or entry.values > limit:
            return []
        values = self.array(entry)
        return [] if values is None else [int(value) for value in values.tolist()]

    def number(self, entry: Entry | None) -> float | None:
        """Read the first number; None if there is none or its denominator is 0."""
        values = None if entry is None else self.array(entry._replace(values=min(entry.values, 1)))
        if values is None or not values.size:
            return None
        if values.ndim == 2:
            above, below = (int(value) for value in values[0])
            return float(Fraction(above, below)) if below else None
        return float(values[0])

    def text(self, entry: Entry | None, limit: int | None = None) -> str:
        """
        Read the text of an ASCII entry up to its first NUL.

        TIFF allows only ASCII, but programs also write UTF-8, Latin-1, and UTF-16 with a
        byte order mark.

        :param limit: the most bytes to read, by default ``LIMITS.tiff_text``; the rest is
            left out.
        :returns: '' if there is none.
        """
        limit = LIMITS.tiff_text if limit is None else limit
        data = self.data(entry, limit)
        if data[:2] in _UTF_16:
            return data.decode('utf-16', 'replace').partition('\0')[0]
        data, end, _ = data.partition(b'\0')
        return decode_text(data, is_cut=not end and entry is not None and entry.values > limit)

    def data(self, entry: Entry | None, limit: int | None = None) -> bytes:
        """Read the first bytes of an entry; b'' if it has other types."""
        if entry is None or entry.kind not in {1, 2, 7}:
            return b''
        count = entry.values if limit is None else min(entry.values, limit)
        values = self.array(entry._replace(values=count))
        return b'' if values is None else values.tobytes()


def _samples_and_photometric(first: Callable[[int, int], int],
                             compression: int) -> tuple[int, int]:
    """
    The number of samples and the photometric interpretation of a page.

    :param first: returns the first value of a tag, or a default.
    """
    if compression == OLD_JPEG:
        # Some writers leave tags out, or declare the YCbCr of their JPEG data as RGB.
        photometric = first(PHOTOMETRIC, _RGB if first(SAMPLES, 3) == 3 else 1)
        photometric = _YCBCR if photometric == _RGB else photometric
        return first(SAMPLES, 3 if photometric == _YCBCR else 1), photometric
    samples = first(SAMPLES, 1)
    usual = 0 if compression in _FAX else _RGB if samples >= 3 else 1
    return samples, first(PHOTOMETRIC, usual)
