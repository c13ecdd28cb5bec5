"""
Decode JPEG tiles, at full size or at 1/2, 1/4 or 1/8, and make complete JPEG files of them.

A tile in a TIFF file lacks the shared tables and does not specify its colour space; the
page has both, in JPEGTables and PhotometricInterpretation (TIFF Technical Note 2).  Here
they replace the application segments of the stream, which may contradict the page.  Damage
is an error, because simplejpeg raises an error for every warning of libjpeg.

Decoding at reduced size is faster than averaging a full decode; samples differ by one or
two gray values.

Segments and markers: ITU-T T.81, annex B.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..base.geometry import Size
from ..base.libraries import imagecodecs, missing_codec
from .coding import Coding, DecodeError

Array = npt.NDArray[Any]

# Adobe's APP14 segment without its last byte: 1 for YCbCr, 0 for RGB.  Without this segment
# decoders guess the colour space.
_ADOBE = b'\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00'
# Markers (ITU-T T.81, table B.1); for those before the scan the second byte.
_START, _END = b'\xff\xd8', b'\xff\xd9'
_SCAN, _RESTARTS, _APPLICATION = 0xDA, 0xDD, range(0xE0, 0xF0)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Baseline, extended and progressive frames, which every viewer decodes.
_COMMON_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_RGB, _YCBCR = 2, 6
# simplejpeg's names for unconverted samples, by number of bands.
_COLOURS = {1: 'GRAY', 3: 'RGB', 4: 'CMYK'}


class _Head(NamedTuple):
    """The segments of a stream up to its scan."""

    # The stored bytes of these segments.
    stored: bytes
    # The same with tables and colours, without application segments.
    complete: bytes
    # The marker of the frame, its size, bits and sampling factors by component.
    marker: int
    size: Size
    bits: int
    sampling: tuple[tuple[int, int], ...]


def problem(coding: Coding) -> str | None:
    """The reason why JPEG tiles of a coding cannot be decoded; None if they can."""
    if coding.bits != 8 or coding.sample_format != 1:
        return f'JPEG data of {coding.bits} bits cannot be decoded'
    if coding.samples == 2:
        return missing_codec('imagecodecs', 'jpeg8_decode', 'JPEG of 2 bands')
    if coding.samples not in _COLOURS:
        return f'JPEG data of {coding.samples} bands cannot be decoded'
    return None


class JpegDecoder:
    """
    A ``table.Decoder`` for JPEG tiles; threads may share it.

    :param coding: of the tiles.
    """

    halvings = 3

    def __init__(self, coding: Coding) -> None:
        self._samples = coding.samples
        # Damaged tables are an error for every tile; libvips might decode tiles with wrong
        # tables.
        self._damaged: str | None = None
        tables: list[bytes] = []
        if coding.jpeg_tables:
            try:
                tables = _segments(coding.jpeg_tables)[0]
            except DecodeError as exc:
                self._damaged = f'JPEGTables: {exc}'
        self._before = _START + b''.join(tables)
        if coding.samples == 3:
            self._before += _ADOBE + bytes((coding.photometric == _YCBCR,))
        # The head of the latest tile; most tiles have the same.
        self._head = _Head(b'\0', b'', 0, Size(0, 0), 0, ())
        if coding.samples == 2:
            self.halvings = 0

    def decode(self, data: bytes, size: Size, out: Array | None = None) -> Array:
        """See ``table.Decoder``."""
        head = self._checked(data, size)
        stream = head.complete + data[len(head.stored):]
        if self._samples == 2:
            return _two_bands(stream, head)
        fits = out is not None and head.size == size
        return self._decoded(stream, head.size, out if fits else None)

    def decode_smaller(self, data: bytes, size: Size, halvings: int) -> Array:
        """See ``table.Decoder``."""
        head = self._checked(data, size)
        scale = 1 << halvings
        wanted = Size(-(-head.size.width // scale), -(-head.size.height // scale))
        return self._decoded(head.complete + data[len(head.stored):], wanted, None,
                             min_width=wanted.width, min_height=wanted.height)

    def _decoded(self, stream: bytes, size: Size, out: Array | None, **options: int) -> Array:
        """Decode a complete stream to pixels of a size."""
        import simplejpeg

        try:
            pixels: Array = simplejpeg.decode_jpeg(
                stream, _COLOURS[self._samples], buffer=out, **options)
        except ValueError as exc:
            raise DecodeError(str(exc)) from exc
        if pixels.shape != (size.height, size.width, self._samples):
            msg = f'it decodes to {pixels.shape}, not to {size.width} x {size.height}'
            raise DecodeError(msg)
        return pixels

    def complete(self, data: bytes, size: Size) -> tuple[bytes, tuple[int, int]] | None:
        """
        Make a JPEG file that every viewer can decode.

        :param data: the stored bytes.
        :param size: the width and height that it must have.
        :returns: the file and its chroma subsampling; None if the header or the end is not
            valid, or if some viewers cannot decode it.
        """
        try:
            head = self._checked(data, size)
        except DecodeError:
            return None
        end = data.rstrip(b'\0') if data.endswith(b'\0') else data
        if (not end.endswith(_END) or head.size != size or head.marker not in _COMMON_FRAMES or
                self._samples not in {1, 3}):
            return None
        first, *others = head.sampling
        if any(factors != (1, 1) for factors in others):
            return None
        return (head.complete + end[len(head.stored):],
                first if self._samples == 3 else (1, 1))

    def _checked(self, data: bytes, size: Size) -> _Head:
        """
        The head of a tile.

        :raises DecodeError: if the stream contradicts the page, or claims an image much
            larger than the tile.
        """
        if self._damaged is not None:
            raise DecodeError(self._damaged)
        head = self._head
        if not data.startswith(head.stored):
            self._head = head = self._parsed(data)
        if len(head.sampling) != self._samples or head.bits != 8:
            msg = (f'it has {len(head.sampling)} bands of {head.bits} bits, not '
                   f'{self._samples} of 8')
            raise DecodeError(msg)
        if head.size.area > 4 * max(size.area, 1 << 16):
            msg = (f'it claims {head.size.width} x {head.size.height} pixels, not '
                   f'{size.width} x {size.height}')
            raise DecodeError(msg)
        return head

    def _parsed(self, data: bytes) -> _Head:
        """Parse the head of a stream."""
        segments, end = _segments(data)
        if not segments or segments[-1][1] != _SCAN:
            msg = 'it has no scan'
            raise DecodeError(msg)
        frames = [segment for segment in segments if segment[1] in _FRAMES]
        if len(frames) != 1 or len(frames[0]) < 10 or len(frames[0]) < 10 + 3 * frames[0][9]:
            msg = 'it has no frame header'
            raise DecodeError(msg)
        frame = frames[0]
        bits, height, width = struct.unpack('>BHH', frame[4:9])
        sampling = tuple(divmod(factors, 16) for factors in frame[11:10 + 3 * frame[9]:3])
        return _Head(data[:end], self._before + b''.join(segments), frame[1],
                     Size(width, height), bits, sampling)


class OldJpegDecoder(JpegDecoder):
    """
    A ``table.Decoder`` for the streams that ``tiff.old_jpeg`` assembles.

    YCbCr is not converted, and chroma is repeated for all pixels of its unit (TIFF 6.0,
    section 21), because ReferenceBlackWhite may change the colours.

    :param coding: of the tiles.
    """

    halvings = 0

    def __init__(self, coding: Coding) -> None:
        super().__init__(replace(coding, photometric=_RGB, jpeg_tables=b''))

    def decode(self, data: bytes, size: Size, out: Array | None = None) -> Array:
        """See ``table.Decoder``."""
        head = self._checked(data, size)
        return self._decoded(
            head.complete + data[len(head.stored):], head.size, None, fastupsample=True)


def _segments(stream: bytes) -> tuple[list[bytes], int]:
    """
    Parse the segments of a stream up to its scan header, without application segments.

    :returns: the segments, and the offset where they end.
    :raises DecodeError: if the stream is not JPEG.
    """
    if not stream.startswith(_START):
        msg = 'it does not begin with a JPEG header'
        raise DecodeError(msg)
    kept, at = [], 2
    while at + 4 <= len(stream) and stream[at] == 0xFF and stream[at:at + 2] != _END:
        if stream[at + 1] == 0xFF:
            # Markers may be preceded by any number of fill bytes.
            at += 1
            continue
        end = at + 2 + int.from_bytes(stream[at + 2:at + 4], 'big')
        if not at + 4 <= end <= len(stream):
            msg = 'a header exceeds it'
            raise DecodeError(msg)
        if stream[at + 1] not in _APPLICATION:
            kept.append(stream[at:end])
        is_last = stream[at + 1] == _SCAN
        at = end
        if is_last:
            break
    return kept, at


# Two bands, which simplejpeg cannot decode


def _two_bands(stream: bytes, head: _Head) -> Array:
    """
    Decode a stream of two bands.

    imagecodecs decodes it but does not report damage.  So simplejpeg first decodes the same
    blocks as an image of four bands, with half as many coding units (MCU).  Those pixels
    are wrong, because each band predicts its first coefficients, but damage raises an
    error.

    :raises DecodeError: if it is damaged, or its blocks cannot be regrouped.
    """
    import simplejpeg

    regrouped = _as_four_bands(stream, head)
    try:
        if regrouped is None:
            msg = 'this kind of JPEG with 2 bands cannot be checked for damage'
            raise DecodeError(msg)
        simplejpeg.decode_jpeg(regrouped, 'CMYK')
        found = np.asarray(imagecodecs().jpeg8_decode(stream))
    except (ValueError, RuntimeError) as exc:
        raise DecodeError(str(exc)) from exc
    if found.shape != (head.size.height, head.size.width, 2):
        msg = f'it decodes to {found.shape}'
        raise DecodeError(msg)
    return found


def _as_four_bands(stream: bytes, head: _Head) -> bytes | None:
    """Rearrange the blocks of two bands as four bands; None if that is impossible."""
    across, down = -(-head.size.width // 8), -(-head.size.height // 8)
    if head.sampling != ((1, 1), (1, 1)) or head.marker not in {0xC0, 0xC1}:
        return None
    if across % 2:
        # Rows of blocks are joined instead.
        across, down = across * 2, down // 2 if down % 2 == 0 else 0
    if not down:
        return None
    parts = [_START]
    segments, end = _segments(stream)
    for segment in segments:
        marker, bands = segment[1], segment[4:]
        if marker in _FRAMES:
            body = struct.pack('>BHHB', 8, down * 8, across * 4, 4) + b''.join(
                bytes((number + 1,)) + segment[11 + number % 2 * 3:13 + number % 2 * 3]
                for number in range(4))
        elif marker == _SCAN:
            if bands[0] != 2:
                return None
            body = b'\4' + b''.join(
                bytes((number + 1, bands[2 + number % 2 * 2])) for number in range(4)) + bands[5:]
        elif marker == _RESTARTS:
            interval = int.from_bytes(bands[:2], 'big')
            if interval % 2:
                return None
            body = struct.pack('>H', interval // 2)
        else:
            parts.append(segment)
            continue
        parts.append(bytes((0xFF, marker)) + struct.pack('>H', len(body) + 2) + body)
    return b''.join(parts) + stream[end:]
