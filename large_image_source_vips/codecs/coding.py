"""
Describe how the samples of a TIFF tile are coded: compression, bits, predictor, byte order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

UNSIGNED, SIGNED, FLOAT, UNDEFINED, COMPLEX_INTEGER, COMPLEX = 1, 2, 3, 4, 5, 6


class DecodeError(Exception):
    """A tile cannot be decoded; the reason is a clause for an error message."""


@dataclass(frozen=True)
class Coding:
    """
    How the samples of the tiles or strips of a TIFF page are coded.

    The parameters are those of the TIFF tags of the same names.

    :param compression: the number of the codec.
    :param samples: the samples per pixel of one tile; 1 if each tile holds one band
        (planar configuration 2).
    :param bits: the bits of each sample.
    :param sample_format: 1 unsigned, 2 signed, 3 float, 4 undefined, 5 complex integer,
        6 complex float.
    :param photometric: the meaning of the samples.
    :param predictor: 1 none, 2 horizontal differences, 3 floating point.
    :param order: the byte order of the file, '<' or '>'.
    :param fill_order: 2 if the bits of each byte are reversed.
    :param bits_each: the bits of each sample if they differ; else empty.
    :param subsampling: of the chroma of YCbCr, horizontal and vertical.
    :param jpeg_tables: the tables shared by JPEG tiles; b'' if there are none.
    :param fax_options: T4Options or T6Options.
    :param lerc: the version and the further compression of LERC: 0 none, 1 deflate, 2 zstd.
    """

    compression: int
    samples: int
    bits: int = 8
    sample_format: int = UNSIGNED
    photometric: int = 1
    predictor: int = 1
    order: str = '<'
    fill_order: int = 1
    bits_each: tuple[int, ...] = ()
    subsampling: tuple[int, ...] = (1, 1)
    jpeg_tables: bytes = b''
    fax_options: int = 0
    lerc: tuple[int, ...] = ()

    @cached_property
    def dtype(self) -> np.dtype[Any] | None:
        """
        The native dtype of decoded samples; None if there is none.

        For integers the smallest sufficient dtype; for 24-bit floats 32 bits.
        """
        if self.sample_format in {UNSIGNED, UNDEFINED}:
            sizes = [size for size in (1, 2, 4, 8) if self.bits <= 8 * size]
            return np.dtype(f'u{sizes[0]}') if sizes and self.bits > 0 else None
        kinds = {SIGNED: ('i', {8: 1, 16: 2, 32: 4, 64: 8}),
                 FLOAT: ('f', {16: 2, 24: 4, 32: 4, 64: 8}), COMPLEX: ('c', {64: 8, 128: 16})}
        kind, sizes_of_bits = kinds.get(self.sample_format, ('', {}))
        size = sizes_of_bits.get(self.bits)
        return np.dtype(f'{kind}{size}') if size else None
