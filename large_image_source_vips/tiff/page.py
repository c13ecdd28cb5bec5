"""
The properties of a TIFF page from its directory, and the numbers of TIFF tags.

A page holds the entries of its directory; values of tags are read on demand
(``tiff.directories``).

Tags: TIFF 6.0 (Adobe, 1992) and its supplements.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ..base.geometry import Size

SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
DESCRIPTION, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP = 270, 273, 274, 277, 278
FILL_ORDER = 266
STRIP_COUNTS, X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT = 279, 282, 283, 284, 296
SOFTWARE, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 305, 322, 323, 324, 325
PREDICTOR, SUB_IFDS, EXTRA_SAMPLES, SAMPLE_FORMAT = 317, 330, 338, 339
JPEG_TABLES, ICC_PROFILE = 347, 34675
# JPEGInterchangeFormat and JPEGInterchangeFormatLength.
OLD_JPEG_STREAM = 513, 514

UNCOMPRESSED, OLD_JPEG, _JPEG, _YCBCR = 1, 6, 7, 6
_SEPARATE = 2
_GRAY = frozenset({0, 1})
# Names for error texts and the documentation.
COMPRESSIONS = {
    1: 'uncompressed', 2: 'CCITT RLE', 3: 'CCITT fax 3', 4: 'CCITT fax 4', 5: 'LZW',
    6: 'old-style JPEG', 7: 'JPEG', 8: 'deflate', 32773: 'PackBits', 32946: 'deflate',
    33003: 'JPEG 2000 (YCbCr)', 33005: 'JPEG 2000 (RGB)', 34676: 'SGI LogLuv',
    34677: 'SGI LogLuv', 34712: 'JPEG 2000', 34887: 'LERC', 34925: 'LZMA', 50000: 'ZSTD',
    50001: 'WebP', 50002: 'JPEG XL', 50013: 'deflate',
}


class Entry(NamedTuple):
    """
    One entry of a directory.

    :param kind: the TIFF type of its values.
    :param values: their number.
    :param offset: their offset in the file.
    :param at: the offset of the entry itself.
    """

    kind: int
    values: int
    offset: int
    at: int


@dataclass(frozen=True)
class Page:
    """
    One directory of a TIFF file: the properties of a picture.

    Sizes are in stored pixels, before the orientation is applied.

    :param bits: of the widest sample.
    :param bits_each: the bits of each sample if they differ; else empty.
    :param fill_order: 2 if the bits of each compressed byte are in reverse order.
    :param shift: added to the offsets of strips, for images without a directory that follow
        the first one.
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
    bits_each: tuple[int, ...]
    fill_order: int
    entries: dict[int, Entry] = field(repr=False, compare=False)
    shift: int = 0

    @property
    def piece(self) -> Size:
        """The size of a tile, or of every strip but the last."""
        return self.tile or self.size._replace(height=min(self.rows_per_strip, self.size.height))

    @property
    def planes(self) -> int:
        """The number of planes, each with tiles or strips of its own."""
        return self.samples if self.planar == _SEPARATE else 1

    @property
    def pieces(self) -> int:
        """The number of tiles or strips that the size of the page requires."""
        across, down = (-(-extent // max(1, each))
                        for extent, each in zip(self.size, self.piece, strict=True))
        return across * down * self.planes

    @property
    def kind(self) -> tuple[object, ...]:
        """A value that is equal for pages of the same dtype and bands."""
        family = {0: 1, 6: 2}.get(self.photometric, self.photometric)
        return self.bits, self.bits_each, self.sample_format, self.samples, family

    @property
    def compression_name(self) -> str:
        """The name of the compression, for messages."""
        return COMPRESSIONS.get(self.compression, f'compression {self.compression}')

    @property
    def is_separate_gray(self) -> bool:
        """
        Whether the page has several gray planes in strips.

        libvips (at least up to 8.18) decodes only the first row of each strip of such
        pages; planes of other photometric interpretations are decoded correctly.
        """
        return (self.planar == 2 and self.samples > 1 and self.tile is None and
                self.photometric in _GRAY and PHOTOMETRIC in self.entries)

    @cached_property
    def has_whole_strips(self) -> bool:
        """Whether each strip holds rows of all samples and can be decoded on its own."""
        lists = [self.entries.get(tag) for tag in (STRIP_OFFSETS, STRIP_COUNTS)]
        return (
            self.tile is None and HEIGHT in self.entries and self.rows_per_strip > 0 and
            (self.planar == 1 or self.samples == 1) and self.compression != OLD_JPEG and
            # YCbCr without JPEG may be subsampled; libtiff reads it.
            (self.photometric != _YCBCR or self.compression == _JPEG) and
            all(entry is not None and entry.values == -(-self.size.height // self.rows_per_strip)
                for entry in lists))

    @property
    def table(self) -> tuple[Entry | None, Entry | None]:
        """
        The entries that list the offsets and the byte counts of the tiles or strips.

        Some writers list tiles in the tags of strips.
        """
        strips, tiles = (STRIP_OFFSETS, STRIP_COUNTS), (TILE_OFFSETS, TILE_COUNTS)
        for offsets, counts in (tiles, strips) if self.tile else (strips, tiles):
            if offsets in self.entries:
                return self.entries[offsets], self.entries.get(counts)
        return None, None

    @property
    def tile_count(self) -> int:
        """The number of tiles (or strips) that the page lists."""
        entry = self.table[0]
        return entry.values if entry else 0
