"""
Decode whole JPEG 2000 files with imagecodecs (OpenJPEG).

Used for files that libvips cannot read: all if it was built without OpenJPEG, else those
with subsampled components that do not divide the size of the image.  imagecodecs converts
sYCC to RGB and repeats subsampled components.
"""

from __future__ import annotations

import importlib
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.limits import LIMITS

# The markers SOC and SIZ at the start of a codestream (ISO/IEC 15444-1, annex A).
_START = b'\xff\x4f\xff\x51'


class Jpeg2000Error(Exception):
    """A file cannot be decoded; the reason is a clause for an error message."""


def decoded_bytes(data: bytes) -> int:
    """
    The size of the decoded image in bytes, according to the header of the codestream.

    :raises Jpeg2000Error: if there is no such header.
    """
    start = data.find(_START)
    if start < 0 or len(data) < start + 43:
        msg = 'it has no header of a JPEG 2000 codestream'
        raise Jpeg2000Error(msg)
    right, bottom, left, top = struct.unpack_from('>4I', data, start + 8)
    count: int = struct.unpack_from('>H', data, start + 40)[0]
    width: int = max(0, right - left)
    height: int = max(0, bottom - top)
    depth = data[start + 42] & 0x7f
    return width * height * count * (1 + depth // 8)


def decode(data: bytes) -> npt.NDArray[Any]:
    """
    Decode a file or a codestream.

    :param data: all of it.
    :returns: an array (rows, cols, bands).
    :raises Jpeg2000Error: if it is damaged, too large, or imagecodecs is not installed.
    """
    size = decoded_bytes(data)
    if size > LIMITS.codecs_picture:
        msg = f'it has {size} bytes of pixels, too many to decode in one piece'
        raise Jpeg2000Error(msg)
    try:
        imagecodecs: Any = importlib.import_module('imagecodecs')
        pixels = np.asarray(imagecodecs.jpeg2k_decode(data))
    except ImportError as exc:
        msg = f'it needs imagecodecs, which cannot be imported: {exc}'
        raise Jpeg2000Error(msg) from exc
    except (RuntimeError, ValueError, TypeError) as exc:
        raise Jpeg2000Error(str(exc)) from exc
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
