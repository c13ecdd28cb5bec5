"""
Arrays for what is needed for a moment only.

Fresh memory is handed out by the system page by page, each of them cleared, which
takes longer than most of what is done with it here.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

# What a thread keeps under one name, at most.
_MAX_KEPT = 16 << 20

_kept = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """
    An array with anything in it, for the calling thread.

    :param name: of the purpose; the array is good until the thread asks for the
        next one of that name.
    :param shape: of the array.
    :param dtype: of the array.
    """
    count = int(np.prod(shape))
    size = count * dtype.itemsize
    buffer = vars(_kept).get(name)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, np.uint8)
        if size <= _MAX_KEPT:
            setattr(_kept, name, buffer)
    return np.frombuffer(buffer, dtype, count).reshape(shape)
