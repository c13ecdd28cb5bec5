"""
Write TIFF directories, and correct those of files that libvips wrote.

libvips writes a resolution into every TIFF file, 10 pixels per cm if it is unknown,
and labels the fourth of many bands as alpha.  Tags and types: TIFF 6.0 (Adobe, 1992).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from ..base.errors import TileSourceError
from ..base.files import read_at, write_at
from . import directories as tiff

ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 2, 3, 4, 5, 7, 16
EXTRA_SAMPLES = 338
ICC_PROFILE = 34675

_WIDTHS = {ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1, LONG8: 8}
_CODES = {ASCII: 'B', SHORT: 'H', LONG: 'I', RATIONAL: 'I', LONG8: 'Q'}


class _Layout(NamedTuple):
    """The struct formats of a directory."""

    head: str
    entry: str
    pointer: str
    inline: int

    def length(self, entries: int) -> int:
        """The bytes of a directory without the values that follow it."""
        return (struct.calcsize(self.head) + self.inline +
                entries * (struct.calcsize(self.entry) + self.inline))


_BIG = _Layout('<Q', '<HHQ', '<Q', 8)
_CLASSIC = _Layout('<H', '<HHI', '<I', 4)

_CENTIMETRE = 3
_LARGEST = (1 << 32) - 1


class Field(NamedTuple):
    """A tag, its type and its values; a rational is two integers."""

    tag: int
    kind: int
    values: Sequence[int] | bytes

    @property
    def data(self) -> bytes:
        """The values as little-endian bytes."""
        if isinstance(self.values, bytes):
            return self.values
        return struct.pack(f'<{len(self.values)}{_CODES[self.kind]}', *self.values)

    @property
    def length(self) -> int:
        """The number of values."""
        return len(self.data) // _WIDTHS[self.kind]


def header(first_directory: int, big: bool) -> bytes:
    """The start of a little-endian TIFF file, BigTIFF or classic."""
    if big:
        return struct.pack('<2sHHHQ', b'II', 43, 8, 0, first_directory)
    return struct.pack('<2sHI', b'II', 42, first_directory)


def directory(fields: Sequence[Field], offset: int, big: bool, following: int = 0,
              kept: Mapping[int, bytes] | None = None) -> bytes:
    """
    Make a little-endian directory, followed by its values.

    :param fields: in any order.
    :param offset: the offset of the directory in the file.
    :param big: whether the file is a BigTIFF.
    :param following: the offset of the next directory, 0 if it is the last.
    :param kept: packed entries by tag, from another directory of the same file, whose
        values stay where they are.
    """
    layout = _BIG if big else _CLASSIC
    entries = dict(kept or {})
    start = offset + layout.length(len({*entries, *(field.tag for field in fields)}))
    behind = bytearray()
    for field in fields:
        value = field.data
        if len(value) > layout.inline:
            value = struct.pack(layout.pointer, start + len(behind))
            behind += field.data + bytes(-len(field.data) % 8)
        entries[field.tag] = struct.pack(
            layout.entry, field.tag, field.kind, field.length) + value.ljust(layout.inline, b'\0')
    return b''.join([
        struct.pack(layout.head, len(entries)), *(entries[tag] for tag in sorted(entries)),
        struct.pack(layout.pointer, following), behind])


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


def resolution_fields(pixel_size: tuple[float | None, float | None]) -> list[Field]:
    """
    Make the fields of a pixel size; none if it is unknown.

    :param pixel_size: width and height in mm; if one is None, the other counts for both.
    """
    mm_x, mm_y = pixel_size[0] or pixel_size[1], pixel_size[1] or pixel_size[0]
    if mm_x is None or mm_y is None:
        return []
    return [Field(tiff.X_RESOLUTION, RATIONAL, resolution(mm_x)),
            Field(tiff.Y_RESOLUTION, RATIONAL, resolution(mm_y)),
            Field(tiff.RESOLUTION_UNIT, SHORT, (_CENTIMETRE,))]


def edit_directories(path: str, remove: frozenset[int], fields: Sequence[Field]) -> None:
    """
    Change the directory of every page of a little-endian TIFF file.

    New directories are appended to the file; kept values are not moved.

    :param path: the file.
    :param remove: tags to remove.
    :param fields: fields to add, or to replace those of the same tag.
    :raises TileSourceError: if the file is not little-endian TIFF.
    """
    with open(path, 'r+b', buffering=0) as file:
        descriptor = file.fileno()
        head = read_at(descriptor, 16, 0)
        big = head[:4] == header(0, big=True)[:4]
        if not big and head[:4] != header(0, big=False)[:4]:
            msg = f'{path} is not a little-endian TIFF file, as libvips should have written.'
            raise TileSourceError(msg)
        layout = _BIG if big else _CLASSIC
        end = os.fstat(descriptor).st_size
        pointer_at = 8 if big else 4
        while True:
            offset = struct.unpack(layout.pointer, read_at(
                descriptor, layout.inline, pointer_at))[0]
            if not offset:
                return
            kept, following = _read_entries(descriptor, offset, layout)
            kept = {tag: entry for tag, entry in kept.items() if tag not in remove}
            end += -end % 8
            block = directory(fields, end, big, following, kept)
            write_at(descriptor, block, end)
            write_at(descriptor, struct.pack(layout.pointer, end), pointer_at)
            count = len({*kept, *(field.tag for field in fields)})
            pointer_at = end + layout.length(count) - layout.inline
            end += len(block)


def _read_entries(descriptor: int, offset: int, layout: _Layout) -> tuple[dict[int, bytes], int]:
    """Read the packed entries of a directory by tag, and the offset of the next one."""
    start = struct.calcsize(layout.head)
    size = struct.calcsize(layout.entry) + layout.inline
    count = struct.unpack(layout.head, read_at(descriptor, start, offset))[0]
    raw = read_at(descriptor, count * size + layout.inline, offset + start)
    entries = [raw[at:at + size] for at in range(0, count * size, size)]
    following = struct.unpack(layout.pointer, raw[count * size:])[0]
    return {struct.unpack_from('<H', entry)[0]: entry for entry in entries}, following
