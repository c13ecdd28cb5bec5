"""
Decode tiles in image formats with their own header: JPEG 2000, WebP, PNG, JPEG XL, LERC.

Size, bands and sample type must be exactly those that the TIFF page declares, so a small
stream cannot claim a large image.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.geometry import Size
from ..base.libraries import imagecodecs
from .coding import Coding, DecodeError
from .colours import ycbcr_to_rgb

Array = npt.NDArray[Any]

# Decodes a stream into an array.
Read = Callable[[Any, Coding, Array], Any]

_JPEG_2000_YCBCR = 33003
# LERC's further compressions, and a bound on the size of decompressed blobs.
_LERC_DEFLATE, _LERC_ZSTD = 1, 2
_LERC_OVERHEAD = 1 << 16


def jpeg_2000(data: Any, coding: Coding, out: Array) -> Any:
    """A codestream, alone or in a JP2 file; Aperio's YCbCr is converted to RGB."""
    pixels = imagecodecs().jpeg2k_decode(data, out=out)
    if coding.samples == 3 and coding.compression == _JPEG_2000_YCBCR:
        return ycbcr_to_rgb(pixels, most=(1 << coding.bits) - 1)
    return pixels


def webp(data: Any, coding: Coding, out: Array) -> Any:
    """WebP; an opaque image may lack the alpha band."""
    return imagecodecs().webp_decode(data, hasalpha=coding.samples == 4, out=out)


def png(data: Any, coding: Coding, out: Array) -> Any:
    """PNG."""
    del coding
    return imagecodecs().png_decode(data, out=out)


def jpeg_xl(data: Any, coding: Coding, out: Array) -> Any:
    """JPEG XL."""
    del coding
    return imagecodecs().jpegxl_decode(data, numthreads=1, out=out)


def lerc(data: Any, coding: Coding, out: Array) -> Any:
    """LERC; the blob may be compressed with deflate or zstd."""
    further = coding.lerc[1] if len(coding.lerc) > 1 else 0
    most = out.nbytes * 2 + _LERC_OVERHEAD
    if further == _LERC_DEFLATE:
        data = zlib.decompressobj().decompress(data, most)
    elif further == _LERC_ZSTD:
        data = imagecodecs().zstd_decode(data, out=most)
    return imagecodecs().lerc_decode(data, out=out)


def problem(coding: Coding) -> str | None:
    """The reason why images of a coding cannot be decoded; None if they can."""
    if coding.dtype is None or coding.dtype.kind == 'c':
        return (f'samples of {coding.bits} bits in TIFF sample format {coding.sample_format} '
                'cannot be decoded')
    return None


class PictureDecoder:
    """
    A ``table.Decoder`` for tiles in image formats.

    :param coding: of the tiles.
    :param read: the codec.
    """

    halvings = 0

    def __init__(self, coding: Coding, read: Read) -> None:
        assert coding.dtype is not None  # else the table has a problem with it
        self._coding = coding
        self._read = read
        self._dtype = coding.dtype

    def decode(self, data: bytes, size: Size, out: Array | None = None) -> Array:
        """See ``table.Decoder``."""
        shape = size.height, size.width, self._coding.samples
        pixels = np.empty(shape, self._dtype) if out is None else out
        # Gray images have two dimensions.
        buffer = pixels[..., 0] if shape[2] == 1 else pixels
        try:
            found = np.asarray(self._read(data, self._coding, buffer))
        except (RuntimeError, ValueError, TypeError, zlib.error) as exc:
            msg = (f'it is damaged, or is not {size.width} x {size.height} pixels of {shape[2]} x '
                   f'{self._dtype}: {exc}')
            raise DecodeError(msg) from exc
        if found.size != pixels.size or found.dtype != self._dtype:
            msg = f'it contains {found.shape} x {found.dtype}, not {shape} x {self._dtype}'

            raise DecodeError(msg)
        result: Array = found.reshape(shape)
        return result

    def decode_smaller(self, data: bytes, size: Size, halvings: int) -> Array:
        """Not possible; see ``halvings``."""
        raise NotImplementedError

