"""
Assemble the JPEG stream of a page of old-style JPEG (TIFF compression 6).

TIFF 6.0, section 22, spreads the stream over the file, and programs differ in how.
JPEGInterchangeFormat may have all of it.  Otherwise the strips have the coded samples: each
is one restart interval, without its marker.  The header is in the first strip, else in
JPEGInterchangeFormat, else only its tables are in tags.  Markers and segments: ITU-T T.81,
annex B.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .directories import TiffDirectories, TiffFormatError
from .page import OLD_JPEG_STREAM, PHOTOMETRIC, Page
from .tile_table import tile_table

YCBCR_SUBSAMPLING = 530
_RESTART_INTERVAL, _Q_TABLES, _DC_TABLES, _AC_TABLES = 515, 519, 520, 521
_START, _END, _SCAN = b'\xff\xd8', b'\xff\xd9', b'\xff\xda'
_RGB, _YCBCR = 2, 6
_RESTARTS, _HUFFMAN, _ADOBE = 0xDD, 0xC4, b'\xff\xee\x00\x0eAdobe'
# Segments that describe the coded samples: frames, and tables of Huffman codes, quantisation
# and restart intervals.
_NEEDED = frozenset({0xC0, 0xC1, 0xC2, 0xC3, _HUFFMAN, 0xDB, _RESTARTS})
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3})
_SEQUENTIAL = frozenset({0xC0, 0xC1})
# The end of the header of a sequential scan: all coefficients, whole.
_ALL = b'\0\x3f\0'


def old_jpeg_stream(tiff: TiffDirectories, page: Page) -> bytes:
    """
    Assemble the JPEG stream of a page.

    :raises TiffFormatError: if parts of it are missing in the file.
    """
    offset, length = (tiff.integers(page.entries.get(tag), limit=1)
                      for tag in OLD_JPEG_STREAM)
    elsewhere = tiff.read(offset[0], tiff.file_size) if offset else b''
    whole = elsewhere[:length[0]].rstrip(b'\0') if length else b''
    # Some writers give wrong offsets or byte counts of the strips where the stream is whole.
    is_whole = whole.endswith(_END) and _has_scan(whole)
    strips = [whole] if is_whole else _strips(tiff, page)
    first = strips[0] if strips[0].startswith(_START) else elsewhere
    head, end = _segments(first)
    if tiff.integers(page.entries.get(PHOTOMETRIC), limit=1) == [_RGB] and _is_rgb(first[:end]):
        msg = 'its old-style JPEG has RGB, which other programs show as YCbCr'
        raise TiffFormatError(msg)
    if first is strips[0]:
        strips[0] = first[end:]
    if not any(segment[1] in _FRAMES for segment in head):
        head = _tables(tiff, page)
    strips[0] = (_checked_scan(head, strips[0]) if strips[0].startswith(_SCAN) else
                 _scan_header(page, head) + strips[0])
    if len(strips) > 1:
        head.append(_segment(_RESTARTS, struct.pack('>H', _units_of_strip(page, head))))
        strips = [*(_with_restart(strip, number) for number, strip in enumerate(strips[:-1])),
                  strips[-1]]
    stream = b''.join([_START, *head, *strips])
    return stream if stream.endswith(_END) else stream + _END


def _strips(tiff: TiffDirectories, page: Page) -> list[bytes]:
    """The stored bytes of each strip."""
    table = tile_table(tiff, page)
    if table is None or len(table[0]) != page.pieces or page.planes > 1:
        msg = 'it does not list the strips of its old-style JPEG'
        raise TiffFormatError(msg)
    parts = []
    for offset, count in zip(*(values.tolist() for values in table), strict=True):
        parts.append(tiff.read(offset, count))
        if len(parts[-1]) < count or sum(map(len, parts)) > tiff.file_size:
            msg = f'strip {len(parts) - 1} of its old-style JPEG is not in the file'
            raise TiffFormatError(msg)
    return parts


def _units_of_strip(page: Page, head: list[bytes]) -> int:
    """
    The number of coding units (MCU) of a strip.

    :raises TiffFormatError: if strips do not consist of whole units.
    """
    frame = next(segment for segment in head if segment[1] in _FRAMES)
    factors = [divmod(each, 16) for each in frame[11::3]] if len(frame) > 12 else [(0, 0)]
    width, height = (8 * max(sides) for sides in zip(*factors, strict=True))
    if not width or not height or page.piece.height % height:
        msg = f'its strips of {page.piece.height} rows are not whole units of JPEG'
        raise TiffFormatError(msg)
    units: int = -(-page.size.width // width) * (page.piece.height // height)
    return min(0xFFFF, units)


def _with_restart(strip: bytes, number: int) -> bytes:
    """A strip with the restart marker that ends it."""
    marker = bytes((0xFF, 0xD0 + number % 8))
    return strip if strip.endswith(marker) else strip + marker


def _segments(stream: bytes) -> tuple[list[bytes], int]:
    """
    The needed segments of a stream, up to its scan or its coded samples.

    :returns: the segments, and the offset where they end.
    """
    kept: list[bytes] = []
    at = len(_START)
    if not stream.startswith(_START):
        return kept, 0
    while at + 4 <= len(stream) and stream[at] == 0xFF and stream[at + 1] != _SCAN[1]:
        end = at + 2 + int.from_bytes(stream[at + 2:at + 4], 'big')
        if stream[at:at + 2] == _END or end > len(stream):
            break
        if stream[at + 1] in _NEEDED:
            kept.append(stream[at:end])
        at = end
    return kept, at


def _has_scan(stream: bytes) -> bool:
    """Whether a stream has a frame and coded samples."""
    head, end = _segments(stream)
    return (any(segment[1] in _FRAMES for segment in head) and
            stream[end:end + len(_SCAN)] == _SCAN)


def _is_rgb(header: bytes) -> bool:
    """Whether the header of a stream says that its samples are RGB, as Adobe does."""
    at = header.find(_ADOBE)
    # The last byte of the segment: 0 for RGB, 1 for YCbCr.
    return at >= 0 and header[at + 15:at + 16] == b'\0'


def _tables(tiff: TiffDirectories, page: Page) -> list[bytes]:
    """Segments made of the tags that hold tables, one for each component."""
    segments = []
    offsets = {tag: tiff.integers(page.entries.get(tag))[:page.samples]
               for tag in (_Q_TABLES, _DC_TABLES, _AC_TABLES)}
    if any(len(found) != page.samples for found in offsets.values()) or page.samples > 4:
        msg = 'it lacks the tables of its old-style JPEG'
        raise TiffFormatError(msg)
    for number, offset in enumerate(offsets[_Q_TABLES]):
        segments.append(_segment(0xDB, bytes([number]) + tiff.read(offset, 64)))
    for kind, tag in ((0x00, _DC_TABLES), (0x10, _AC_TABLES)):
        for number, offset in enumerate(offsets[tag]):
            counts = tiff.read(offset, 16)
            values = tiff.read(offset + 16, sum(counts))
            segments.append(_segment(_HUFFMAN, bytes([kind + number]) + counts + values))
    interval = tiff.integers(page.entries.get(_RESTART_INTERVAL))
    if interval and interval[0]:
        segments.append(_segment(_RESTARTS, struct.pack('>H', interval[0] & 0xFFFF)))
    factors = [0x11] * page.samples
    if page.photometric == _YCBCR:
        found = tiff.integers(page.entries.get(YCBCR_SUBSAMPLING))
        across, down = found[:2] if len(found) > 1 else (2, 2)
        factors[0] = (across & 7) << 4 | (down & 7)
    frame = struct.pack('>BHHB', 8, *page.size[::-1], page.samples) if max(
        page.size) < 1 << 16 else b''
    segments.append(_segment(0xC0, frame + b''.join(
        bytes((number + 1, factor, number)) for number, factor in enumerate(factors))))
    return segments


def _scan_header(page: Page, head: list[bytes]) -> bytes:
    """The header of a scan of all components; each has its own tables, or the last ones."""
    most = max((table & 3 for segment in head if segment[1] == _HUFFMAN
                for table in _numbers_of_tables(segment)), default=0)
    frame = next(segment for segment in head if segment[1] in _FRAMES)
    components = b''.join(bytes((component, min(number, most) * 0x11))
                          for number, component in enumerate(frame[10::3]))
    return _segment(_SCAN[1], bytes([page.samples]) + components + _ALL)


def _checked_scan(head: list[bytes], scan: bytes) -> bytes:
    """A scan whose header has the only valid range of coefficients, 0 to 63, if sequential."""
    end = len(_SCAN) + int.from_bytes(scan[2:4], 'big')
    if not any(segment[1] in _SEQUENTIAL for segment in head):
        return scan
    return scan[:end - len(_ALL)] + _ALL + scan[end:]


def _numbers_of_tables(segment: bytes) -> Iterator[int]:
    """The class and number of each Huffman table of a segment."""
    at = 4
    while at + 17 <= len(segment):
        yield segment[at]
        at += 17 + sum(segment[at + 1:at + 17])


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack('>BBH', 0xFF, marker, 2 + len(content)) + content
