"""
The table of TIFF compressions, and the decoder and library for each.

``CODECS`` has a row for each compression.  ``decoder`` returns the decoder for a
``Coding``, which describes how the samples of a tile are coded; ``problem`` returns the
reason if there is none.

=====================  ===========================  ====================
compression            codec                        library
=====================  ===========================  ====================
1                      none                         numpy
5                      LZW                          imagecodecs
6                      old-style JPEG               simplejpeg
7                      JPEG                         simplejpeg
8, 32946, 50013        deflate                      imagecodecs
32773                  PackBits                     imagecodecs
33003, 33005, 34712    JPEG 2000                    imagecodecs
34887                  LERC                         imagecodecs
34933                  PNG                          imagecodecs
34925                  LZMA                         Python's lzma
50000                  zstd                         imagecodecs
50001                  WebP                         imagecodecs
50002, 52546           JPEG XL                      imagecodecs
=====================  ===========================  ====================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt

from ..base.geometry import Size
from ..base.libraries import missing_codec
from . import image_codecs, jpeg, lossless
from .coding import Coding, DecodeError

__all__ = ['CODECS', 'Codec', 'Coding', 'DecodeError', 'Decoder', 'decoder', 'problem']

Array = npt.NDArray[Any]


class Decoder(Protocol):
    """Decodes tiles of one ``Coding``; threads may share it."""

    # The largest k for which it decodes at 1 / 2 ** k of the size; 0 for none.
    halvings: int

    def decode(self, data: bytes, size: Size, out: Array | None = None) -> Array:
        """
        Decode a tile.

        :param data: its stored bytes.
        :param size: its declared width and height in pixels.
        :param out: a C-contiguous array (rows, cols, samples) of ``Coding.dtype`` and that
            size, which may be filled and returned.
        :returns: an array (rows, cols, samples).  Codecs with a size in the stream, such as
            JPEG, return that size.
        :raises DecodeError: if the data is damaged, or contradicts the coding.
        """

    def decode_smaller(self, data: bytes, size: Size, halvings: int) -> Array:
        """
        Decode a tile at 1 / 2 ** halvings of its size, sides rounded up.

        :raises DecodeError: as ``decode``.
        """


class Codec(NamedTuple):
    """
    A row of the table.

    :param name: for error texts.
    :param library: the import name of the library that it needs; '' for none.
    :param function: of imagecodecs, '' for none.
    :param problem: returns the reason why tiles of a coding cannot be decoded; None if they
        can.
    :param make: makes the decoder.
    """

    name: str
    library: str
    function: str
    problem: Callable[[Coding], str | None]
    make: Callable[[Coding], Decoder]


def _bytes_codec(name: str, library: str, function: str,
                 decompress: lossless.Decompress) -> Codec:
    return Codec(name, library, function, lossless.problem,
                 lambda coding: lossless.SampleDecoder(coding, decompress))


def _picture_codec(name: str, function: str, read: image_codecs.Read) -> Codec:
    return Codec(name, 'imagecodecs', function, image_codecs.problem,
                 lambda coding: image_codecs.PictureDecoder(coding, read))


_DEFLATE = _bytes_codec('deflate', 'imagecodecs', 'deflate_decode', lossless.inflated)
_JPEG_2000 = _picture_codec('JPEG 2000', 'jpeg2k_decode', image_codecs.jpeg_2000)
_JPEG_XL = _picture_codec('JPEG XL', 'jpegxl_decode', image_codecs.jpeg_xl)

CODECS: dict[int, Codec] = {
    1: _bytes_codec('uncompressed', '', '', lossless.as_stored),
    5: _bytes_codec('LZW', 'imagecodecs', 'lzw_decode', lossless.from_lzw),
    6: Codec('old-style JPEG', 'simplejpeg', '', jpeg.problem, jpeg.OldJpegDecoder),
    7: Codec('JPEG', 'simplejpeg', '', jpeg.problem, jpeg.JpegDecoder),
    8: _DEFLATE,
    32946: _DEFLATE,
    50013: _DEFLATE,
    32773: _bytes_codec('PackBits', 'imagecodecs', 'packbits_decode', lossless.from_packbits),
    33003: _JPEG_2000,
    33005: _JPEG_2000,
    34712: _JPEG_2000,
    34887: _picture_codec('LERC', 'lerc_decode', image_codecs.lerc),
    34933: _picture_codec('PNG', 'png_decode', image_codecs.png),
    34925: _bytes_codec('LZMA', 'lzma', '', lossless.from_lzma),
    50000: _bytes_codec('zstd', 'imagecodecs', 'zstd_decode', lossless.from_zstd),
    50001: _picture_codec('WebP', 'webp_decode', image_codecs.webp),
    50002: _JPEG_XL,
    52546: _JPEG_XL,
}


def problem(coding: Coding) -> str | None:
    """
    The reason why tiles of a coding cannot be decoded, with what to install if that helps.

    :returns: a clause for an error message; None if they can be decoded.
    """
    codec = CODECS.get(coding.compression)
    if codec is None:
        return f'there is no decoder for TIFF compression {coding.compression}'
    return codec.problem(coding) or (
        missing_codec(codec.library, codec.function, codec.name) if codec.library else None)


@lru_cache(maxsize=256)
def decoder(coding: Coding) -> Decoder:
    """
    The decoder for tiles of a coding.

    :raises DecodeError: if there is none.
    """
    reason = problem(coding)
    if reason:
        raise DecodeError(reason)
    return CODECS[coding.compression].make(coding)
