"""
Decode CCITT fax tiles with libvips' TIFF reader.

libvips gets a TIFF file with this tile only, so every warning of libtiff concerns the tile,
and damage is an error.  imagecodecs decodes damaged tiles without an error.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from ..base.errors import vips_reason
from ..base.geometry import Size
from ..base.limits import LIMITS
from ..codecs.coding import Coding, DecodeError

# Modified Huffman, T.4 and T.6 (TIFF 6.0, sections 10 and 11).
COMPRESSIONS = frozenset({2, 3, 4})
_SHORT, _LONG = 3, 4
_T4_OPTIONS, _T6_OPTIONS = 292, 293


_thread_warnings = threading.local()


class _WarningCollector(logging.Filter):
    """Collects the warnings of libvips in a thread that asked for them, instead of logging them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        found: list[str] | None = getattr(_thread_warnings, 'warnings', None)
        if found is None:
            return True
        found.append(record.getMessage().removeprefix('VIPS: '))
        return False


logging.getLogger('pyvips').addFilter(_WarningCollector())


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """
    The warnings of libvips in this thread.

    libvips 8.14 logs the warnings of libtiff and continues, whatever the option
    ``fail_on``; later versions fail.  If a program sets the level of the logger 'pyvips'
    above WARNING, libvips 8.14 therefore returns damaged fax tiles as libtiff decodes them.
    """
    _thread_warnings.warnings = found = list[str]()
    try:
        yield found
    finally:
        del _thread_warnings.warnings


def problem(coding: Coding) -> str | None:
    """Why fax tiles of a coding cannot be decoded; None if they can."""
    if coding.bits != 1 or coding.predictor != 1:
        return f'CCITT fax data of {coding.bits} bits cannot be decoded'
    return None


class FaxDecoder:
    """
    A ``codecs.table.Decoder`` of fax tiles; threads may share it.

    :param coding: of the tiles.
    """

    halvings = 0

    def __init__(self, coding: Coding) -> None:
        self._coding = coding

    def decode(self, data: bytes, size: Size,
               out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """See ``codecs.table.Decoder``."""
        width = size.width * self._coding.samples
        if width > LIMITS.tiff_side:
            msg = f'its rows of {width} samples are too long'
            raise DecodeError(msg)
        file = self._file(bytes(data), width, size.height)
        try:
            with _warnings() as warnings:
                source = pyvips.Source.new_from_memory(file)
                # With random access libvips would decode in its own threads.
                image = pyvips.Image.tiffload_source(
                    source, fail_on='warning', access='sequential')
                fetched = pyvips.Region.new(image).fetch(0, 0, width, size.height)
        except pyvips.Error as exc:
            raise DecodeError(vips_reason(exc)) from exc
        if warnings:
            raise DecodeError(warnings[0])
        pixels = np.frombuffer(fetched, np.uint8) >> 7
        shaped = pixels.reshape(size.height, size.width, self._coding.samples)
        if out is None:
            return shaped
        out[...] = shaped
        return out

    def decode_smaller(self, data: bytes, size: Size, halvings: int) -> npt.NDArray[Any]:
        """Not possible; see ``halvings``."""
        raise NotImplementedError

    def _file(self, data: bytes, width: int, height: int) -> bytes:
        """A TIFF file of one strip, 1 bit for each pixel; 1 is white."""
        coding = self._coding
        tags = {256: (_LONG, width), 257: (_LONG, height), 258: (_SHORT, 1),
                259: (_SHORT, coding.compression), 262: (_SHORT, 1),
                266: (_SHORT, 2 if coding.fill_order == 2 else 1),
                273: (_LONG, 8), 277: (_SHORT, 1),
                278: (_LONG, height), 279: (_LONG, len(data)),
                {4: _T6_OPTIONS}.get(coding.compression, _T4_OPTIONS): (_LONG, coding.fax_options)}
        if coding.compression == 2:
            del tags[_T4_OPTIONS]
        padded = data + bytes(len(data) % 2)
        entries = b''.join(
            struct.pack('<HHI', tag, kind, 1) + (struct.pack('<HH', value, 0) if kind == _SHORT
                                                 else struct.pack('<I', value))
            for tag, (kind, value) in sorted(tags.items()))
        return (struct.pack('<2sHI', b'II', 42, 8 + len(padded)) + padded +
                struct.pack('<H', len(tags)) + entries + bytes(4))
