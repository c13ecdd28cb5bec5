"""
Decoding in another process, for forked children.

Some loaders of libvips decode with its pool of threads.  A child process that
was forked, not started anew, believes that it has the threads of its parent and
would wait for them for ever.  There those loaders run in a process of their
own, which is started anew, and the pixels come through a pipe.
"""

from __future__ import annotations

import multiprocessing.spawn
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.files import after_fork_in_child

# Loaders that were seen to decode in the calling thread alone, libvips 8.14
# and 8.18.
_CALLING_THREAD_ONLY = frozenset({
    'fitsload', 'gifload', 'heifload', 'jp2kload', 'jpegload', 'jxlload', 'openslideload',
    'pngload', 'ppmload', 'radload', 'svgload', 'tiffload', 'vipsload',
})
# What runs there; it says which error it was by its exit status.
_PROGRAM = 'from large_image_source_vips.reading.decode_process import main; main()'
_FAILED = 3


class _State:
    """Whether this process was forked off one that had the package loaded."""

    forked = False


def _after_fork() -> None:
    _State.forked = True


after_fork_in_child(_after_fork)


def has_threads() -> bool:
    """Whether libvips has its pool of threads in this process."""
    return not _State.forked


def must_decode_elsewhere(loader_name: str) -> bool:
    """Whether a loader could wait for ever in this process."""
    return _State.forked and loader_name not in _CALLING_THREAD_ONLY


def decode_elsewhere(request: Any, row_shape: tuple[int, int], dtype: np.dtype[Any],
                     total_rows: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """
    All pixels of a picture.

    :param request: the arguments of ``decoding.decode_anew``; they are pickled.
    :param row_shape: (cols, bands).
    :param dtype: of the samples.
    :param total_rows: how many rows there are.
    :returns: the first row and the rows, in multiples of 8 but for the last.
    :raises TileSourceError: if they cannot be decoded.
    """
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    with subprocess.Popen([os.fsdecode(multiprocessing.spawn.get_executable()), '-c', _PROGRAM],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=environment) as process:
        assert process.stdin is not None  # they are pipes
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(pickle.dumps(request))
        process.stdin.close()
        row_bytes = row_shape[0] * row_shape[1] * dtype.itemsize
        step = max(8, (4 << 20) // row_bytes // 8 * 8)
        for top in range(0, total_rows, step):
            rows = min(step, total_rows - top)
            data = process.stdout.read(rows * row_bytes)
            if len(data) < rows * row_bytes:
                break
            yield top, np.frombuffer(data, dtype).reshape(rows, *row_shape)
        words = process.stderr.read().decode('utf-8', 'replace').strip()
    if process.returncode:
        msg = words if process.returncode == _FAILED else (
            f'decoding in another process failed: {words[-500:] or process.returncode}')
        raise TileSourceError(msg)


def main() -> None:
    """What runs in the other process: a request comes in, pixels go out."""
    # decoding imports this module.
    from .rows import decode_anew

    request = pickle.load(sys.stdin.buffer)
    try:
        for _, rows in decode_anew(*request):
            sys.stdout.buffer.write(np.ascontiguousarray(rows).data)
    except TileSourceError as exc:
        sys.stderr.write(str(exc))
        sys.stderr.flush()
        sys.exit(_FAILED)
    sys.stdout.flush()
