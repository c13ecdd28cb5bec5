"""
Read the headers of compressed tiles, and check their ends, without decompressing them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ..base.geometry import Size


def looks_complete(compression: int, data: bytes) -> bool:
    """
    Whether a tile has a valid header and, where its format has one, a valid end.

    :param compression: TIFF's number; False for all but those in ``_CHECKS``.
    :param data: the stored bytes.
    """
    check = _CHECKS.get(compression)
    return check is not None and check(data)


def _deflate(data: bytes) -> bool:
    """A zlib header without a dictionary (RFC 1950); only a decoder finds the end."""
    return (len(data) > 6 and data[0] & 15 == 8 and not data[1] & 32 and
            int.from_bytes(data[:2], 'big') % 31 == 0)


def _zstd(data: bytes) -> bool:
    """The magic number of a frame (RFC 8878)."""
    return data.startswith(b'\x28\xb5\x2f\xfd')


def _lzw(data: bytes) -> bool:
    """TIFF 6.0, section 13: a clear code of 9 bits, the most significant one first."""
    return len(data) > 3 and data[0] == 128 and not data[1] & 128


def _webp(data: bytes) -> bool:
    """A RIFF container of the length in its header."""
    return (data[:4] == b'RIFF' and data[8:12] == b'WEBP' and
            0 <= len(data) - 8 - int.from_bytes(data[4:8], 'little') < 2)


def _jpeg_2000(data: bytes) -> bool:
    """A codestream with start and size markers first, and the end marker last (T.800, annex A)."""
    return data[:4] == b'\xff\x4f\xff\x51' and data[-2:] == b'\xff\xd9'


def jpeg_2000_tile(head: bytes) -> Size:
    """
    The width and height of a tile in the header of a codestream (T.800, annex A.5.1).

    :param head: the beginning of a file, with or without boxes around the codestream.
    :returns: 0 x 0 if there is no such header.
    """
    at = head.find(b'\xff\x4f\xff\x51')
    sides = head[at + 24:at + 32]
    return Size(*struct.unpack('>II', sides)) if at >= 0 and len(sides) == 8 else Size(0, 0)


# By TIFF's number.
_CHECKS: dict[int, Callable[[bytes], bool]] = {
    1: lambda _: True, 5: _lzw, 8: _deflate, 32773: bool, 34712: _jpeg_2000, 50000: _zstd,
    50001: _webp}
