"""
Decode whole JPEG 2000 files with imagecodecs (OpenJPEG).

For files that libvips refuses: those whose subsampled components do not divide the size of
the image, and all of them where it was built without OpenJPEG.  imagecodecs converts sYCC to
RGB and repeats subsampled components.
"""

from __future__ import annotations

import importlib
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.limits import LIMITS

# The markers SOC and SIZ, with which a code stream begins (ISO/IEC 15444-1, annex A).
_START = b'\xff\x4f\xff\x51'


class Jpeg2000Error(Exception):
    """The file cannot be decoded; the message says why."""


def decoded_bytes(data: bytes) -> int:
    """
    The bytes of the decoded image, according to the header of the code stream.

    :raises Jpeg2000Error: if there is none.
    """
    start = data.find(_START)
    if start < 0 or len(data) < start + 43:
        msg = 'it has no header of a JPEG 2000 code stream'
        raise Jpeg2000Error(msg)
    right, bottom, left, top = struct.unpack_from('>4I', data, start + 8)
    count: int = struct.unpack_from('>H', data, start + 40)[0]
    width: int = max(0, right - left)
    height: int = max(0, bottom - top)
    depth = data[start + 42] & 0x7f
    return width * height * count * (1 + depth // 8)


def decode(data: bytes) -> npt.NDArray[Any]:
    """
    Decode a file or a code stream.

    :param data: all of it.
    :returns: an array (rows, cols, bands).
    :raises Jpeg2000Error: if it is damaged, too large, or imagecodecs is not installed.
    """
    size = decoded_bytes(data)
    if size > LIMITS.codecs_picture:
        msg = f'it has {size} bytes of pixels, which have to be decoded at once'
        raise Jpeg2000Error(msg)
    try:
        imagecodecs: Any = importlib.import_module('imagecodecs')
        pixels = np.asarray(imagecodecs.jpeg2k_decode(data))
    except ImportError as exc:
        msg = f'imagecodecs decodes it, which cannot be imported: {exc}'
        raise Jpeg2000Error(msg) from exc
    except (RuntimeError, ValueError, TypeError) as exc:
        raise Jpeg2000Error(str(exc)) from exc
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
