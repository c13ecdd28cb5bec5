"""
Decode tiles with lossless compressions: none, PackBits, LZW, deflate, zstd, LZMA.

A tile must decompress to the bytes of its size; fewer are an error.  Then the order of bits
is reversed (FillOrder 2), packed integers are unpacked, bytes are swapped and differences
are summed (Predictor, TIFF 6.0, section 14, and TIFF Technical Note 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.geometry import Size
from ..base.libraries import imagecodecs
from .coding import FLOAT, Coding, DecodeError
from .colours import from_data_units

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

# Decompresses stored bytes, at most as many as the array has, if possible into the array;
# returns the bytes.
Decompress = Callable[[Any, Bytes], Any]

_BIT_REVERSED = np.packbits(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1)[:, ::-1], axis=1)[:, 0]
_WHOLE_BYTES = frozenset({8, 16, 32, 64, 128})
# The widest packed integers that imagecodecs unpacks.
_MOST_BITS = 32


def as_stored(data: Any, out: Bytes) -> Any:
    """Uncompressed data; further bytes may follow."""
    return memoryview(data)[:out.size]


def inflated(data: Any, out: Bytes) -> Any:
    """Deflate with zlib's header and checksum."""
    return imagecodecs().deflate_decode(data, out=out)


def from_zstd(data: Any, out: Bytes) -> Any:
    """A frame of zstd."""
    return imagecodecs().zstd_decode(data, out=out)


def from_lzw(data: Any, out: Bytes) -> Any:
    """LZW, of either bit order."""
    return imagecodecs().lzw_decode(data, out=out)


def from_packbits(data: Any, out: Bytes) -> Any:
    """PackBits."""
    library = imagecodecs()
    try:
        return library.packbits_decode(data, out=out)
    except library.PackbitsError:
        # Further bytes may follow, if the byte count is not exact.
        return library.packbits_decode(data[:_packbits_length(data, out.size)], out=out)


def _packbits_length(data: bytes, size: int) -> int:
    """The number of stored bytes that decompress to ``size`` bytes."""
    at = found = 0
    while found < size and at < len(data):
        head = data[at]
        found += head + 1 if head < 128 else 257 - head if head > 128 else 0
        at += head + 2 if head < 128 else 2 if head > 128 else 1
    return at


def from_lzma(data: Any, out: Bytes) -> Any:
    """An xz stream; checksums and end are checked."""
    import lzma

    stream = lzma.LZMADecompressor()
    # One byte more than needed, to reach the checksum.
    found = stream.decompress(bytes(data), out.size + 1)
    if not stream.eof:
        raise DecodeError('it ends early' if stream.needs_input else
                          'it has more bytes than the pixels')
    return found


def problem(coding: Coding) -> str | None:
    """The reason why samples of a coding cannot be unpacked; None if they can."""
    if coding.dtype is None:
        return (f'samples of {coding.bits} bits in TIFF sample format {coding.sample_format} '
                'cannot be decoded')
    if coding.bits_each and (coding.dtype.kind != 'u' or coding.bits > 16 or
                             len(coding.bits_each) != coding.samples):
        return (f'{coding.samples} samples per tile of {coding.bits_each} bits cannot be '
                'unpacked')
    if _has_units(coding) and not (
            coding.bits in {8, 16} and len(coding.subsampling) == 2 and
            all(factor in {1, 2, 4} for factor in coding.subsampling)):
        return f'chroma subsampled by {coding.subsampling} cannot be arranged'
    if (coding.bits_each or _has_units(coding)) and coding.predictor != 1:
        return 'a predictor does not go with samples of different widths or subsampled chroma'
    if coding.predictor == 1:
        if coding.bits_each or coding.bits in _WHOLE_BYTES or imagecodecs() is not None:
            return None
        return (f'samples of {coding.bits} bits are unpacked by imagecodecs, which cannot be '
                'imported; install it with "pip install imagecodecs"')
    if coding.predictor == 2 and coding.dtype.kind != 'c' and (
            coding.bits in {8, 16, 32, 64} or (coding.bits < 16 and coding.dtype.kind == 'u')):
        return None
    if coding.predictor == 3 and coding.sample_format == FLOAT:
        return None
    return f'the predictor {coding.predictor} does not go with samples of {coding.bits} bits'


def _has_units(coding: Coding) -> bool:
    """Whether samples form data units with subsampled chroma."""
    return coding.samples == 3 and coding.subsampling != (1, 1)


class SampleDecoder:
    """
    A ``table.Decoder`` for tiles with lossless compressions.

    :param coding: of the tiles.
    :param decompress: the codec.
    """

    halvings = 0

    def __init__(self, coding: Coding, decompress: Decompress) -> None:
        assert coding.dtype is not None  # else the table has a problem with it
        self._coding = coding
        self._decompress = decompress
        self._dtype = coding.dtype
        self._packed = coding.bits not in _WHOLE_BYTES
        self._swapped = coding.order != ('<' if np.little_endian else '>')
        # Differences are of integers, also for floats.
        self._integers = np.dtype(f'u{coding.dtype.itemsize}') if coding.predictor == 2 else None
        self._has_units = _has_units(coding)
        # Whether the bytes can be used as samples without a copy.
        self._in_place = not (self._packed or coding.predictor == 3 or coding.bits_each or
                              self._has_units)

    def decode(self, data: bytes, size: Size, out: Array | None = None) -> Array:
        """See ``table.Decoder``."""
        coding = self._coding
        shape = size.height, size.width, coding.samples
        bits = sum(coding.bits_each) or coding.samples * coding.bits
        row_bytes = -(-size.width * bits // 8)
        if self._in_place:
            pixels = np.empty(shape, self._dtype) if out is None else out
            self._fill(data, pixels.reshape(-1).view(np.uint8))
            return self._undo_predictor(pixels)
        if self._has_units:
            return self._from_units(data, size)
        raw = np.empty((size.height, row_bytes), np.uint8)
        self._fill(data, raw.reshape(-1))
        pixels = (_undo_float_differences(raw, coding) if coding.predictor == 3 else
                  self._unpacked(raw, size.width))
        return pixels.reshape(shape)

    def _from_units(self, data: Any, size: Size) -> Array:
        """YCbCr samples with subsampled chroma."""
        across, down = self._coding.subsampling
        units = -(-size.width // across) * -(-size.height // down)
        raw = np.empty(units * (across * down + 2), self._dtype)
        self._fill(data, raw.view(np.uint8))
        return from_data_units(self._undo_predictor(raw), size.height, size.width, across, down)

    def decode_smaller(self, data: bytes, size: Size, halvings: int) -> Array:
        """Not possible; see ``halvings``."""
        raise NotImplementedError

    def _fill(self, data: Any, out: Bytes) -> None:
        """Decompress data to the bytes that a tile needs."""
        if self._coding.fill_order == 2:
            data = _BIT_REVERSED[np.frombuffer(data, np.uint8)].data
        try:
            found = self._decompress(data, out)
        except DecodeError:
            raise
        except Exception as exc:
            raise DecodeError(str(exc)) from exc
        view = memoryview(found).cast('B')
        if len(view) != out.size:
            msg = (f'it has only {len(view)} of the {out.size} bytes of the pixels'
                   if len(view) < out.size else
                   f'it has more than the {out.size} bytes of the pixels')
            raise DecodeError(msg)
        if not np.may_share_memory(found, out):
            out[:] = view

    def _undo_predictor(self, pixels: Array) -> Array:
        """Swap bytes and sum differences, in place."""
        if self._swapped and self._dtype.itemsize > 1:
            # The parts of a complex number are swapped separately.
            parts = pixels.view(np.dtype(f'u{self._dtype.itemsize // 2}')) \
                if self._dtype.kind == 'c' else pixels
            parts.byteswap(inplace=True)
        if self._integers is not None:
            stored = pixels.view(self._integers)
            library = imagecodecs()
            if library is not None:
                library.delta_decode(stored, axis=1, out=stored)
            else:
                np.cumsum(stored, axis=1, dtype=self._integers, out=stored)
        return pixels

    def _unpacked(self, raw: Bytes, width: int) -> Array:
        """Unpack samples without a numpy dtype, from rows of ``width`` pixels."""
        coding, order = self._coding, self._coding.order
        if coding.bits_each:
            return _unpack_each(raw, width, coding)
        if coding.bits == 24 and coding.sample_format == FLOAT:
            pixels: Array = imagecodecs().float24_decode(
                raw.reshape(-1).data, byteorder=order)
            return pixels
        # The highest bit comes first, also in little-endian files.
        if coding.bits > _MOST_BITS:
            return _unpack_each(raw, width, replace(
                coding, bits_each=(coding.bits,) * coding.samples))
        unpacked: Array = imagecodecs().packints_decode(
            raw.reshape(-1).data, self._dtype, coding.bits, runlen=width * coding.samples)
        if coding.predictor == 2:
            rows = unpacked.reshape(raw.shape[0], width, coding.samples)
            unpacked = np.cumsum(rows, axis=1, dtype=self._dtype)
            unpacked &= self._dtype.type((1 << coding.bits) - 1)
        return unpacked


def _unpack_each(raw: Bytes, width: int, coding: Coding) -> Array:
    """Samples of different widths, such as 5, 6 and 5 bits."""
    total = sum(coding.bits_each)
    if total == 16 and coding.order == '<':
        # A pixel is a 16-bit integer.
        raw = raw.reshape(raw.shape[0], -1, 2)[..., ::-1].reshape(raw.shape)
    bits = np.unpackbits(raw, axis=1)[:, :width * total].reshape(raw.shape[0], width, total)
    pixels = np.zeros((raw.shape[0], width, len(coding.bits_each)), coding.dtype)
    first = 0
    for band, count in enumerate(coding.bits_each):
        for place in range(first, first + count):
            pixels[..., band] = pixels[..., band] << 1 | bits[..., place]
        first += count
    return pixels


def _undo_float_differences(raw: Bytes, coding: Coding) -> Array:
    """
    Undo Predictor 3.

    The bytes of a row are sorted by significance, the highest first, and stored as
    differences from the byte ``samples`` before.

    :param raw: (rows, bytes of a row).
    :returns: all samples in one dimension.
    """
    rows, width, samples = raw.shape[0], coding.bits // 8, coding.samples
    summed = np.cumsum(raw.reshape(rows, -1, samples), axis=1, dtype=np.uint8)
    sorted_bytes = summed.reshape(rows, width, -1).transpose(0, 2, 1)
    if width == 3:
        pixels: Array = imagecodecs().float24_decode(
            np.ascontiguousarray(sorted_bytes).reshape(-1).data, byteorder='>')
        return pixels
    return np.ascontiguousarray(sorted_bytes).view(f'>f{width}').astype(f'f{width}')
