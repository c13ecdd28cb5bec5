"""
Decode a picture in a separate process, for forked children.

Some libvips loaders use libvips' thread pool.  Its threads do not survive a fork, and the
loader would wait for them forever.  In forked children these loaders therefore run in a new
process, which sends the pixels through a pipe, about 4 MB (at least 8 rows) at a time.
"""

from __future__ import annotations

import contextlib
import multiprocessing.spawn
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.files import after_fork_in_child
from ..base.limits import LIMITS

# Loaders that were observed to decode in the calling thread only, with libvips 8.14
# and 8.18.
_CALLING_THREAD_ONLY = frozenset({
    'fitsload', 'gifload', 'heifload', 'jp2kload', 'jpegload', 'jxlload', 'openslideload',
    'pngload', 'ppmload', 'radload', 'svgload', 'tiffload', 'vipsload',
})
# The program that the new process runs, and its exit status for a TileSourceError.
_PROGRAM = 'from large_image_source_vips.reading.decode_program import main; main()'
FAILED = 3


class _State:
    """Whether this process was forked after the package was imported."""

    forked = False


def _after_fork() -> None:
    _State.forked = True


after_fork_in_child(_after_fork)


def has_thread_pool() -> bool:
    """Whether libvips' thread pool works in this process."""
    return not _State.forked


def needs_own_process(loader_name: str) -> bool:
    """Whether a loader may wait forever in this process."""
    return _State.forked and loader_name not in _CALLING_THREAD_ONLY


class _ErrorOutput:
    """
    Reads the error output of a process in a thread, so that a full pipe never blocks the
    process.

    :param stream: the output; its last ``LIMITS.reading_message`` bytes are kept.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._data = b''
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while more := self._stream.read1(LIMITS.reading_message):  # type: ignore[attr-defined]
            self._data = (self._data + more)[-LIMITS.reading_message:]

    def text(self) -> str:
        """The end of the output, after the process has closed it."""
        self._thread.join()
        return self._data.decode('utf-8', 'replace').strip()


def decode_in_process(request: Any, row_shape: tuple[int, int], dtype: np.dtype[Any],
                      total_rows: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """
    Decode a picture in a new process.

    :param request: the arguments of ``rows.decode_file``, to be pickled.
    :param row_shape: (cols, bands).
    :param dtype: of the samples.
    :param total_rows: the height of the picture.
    :returns: yields the number of a first row and rows (rows, cols, bands), in
        multiples of 8 except for the last.
    :raises TileSourceError: if the picture cannot be decoded.
    """
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    with subprocess.Popen([os.fsdecode(multiprocessing.spawn.get_executable()), '-c', _PROGRAM],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=environment) as process:
        assert process.stdin is not None  # they are pipes
        assert process.stdout is not None
        assert process.stderr is not None
        words = _ErrorOutput(process.stderr)
        # The process has ended; its error output has the reason.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(pickle.dumps(request))
            process.stdin.close()
        row_bytes = row_shape[0] * row_shape[1] * dtype.itemsize
        step = max(8, (4 << 20) // row_bytes // 8 * 8)
        try:
            for top in range(0, total_rows, step):
                rows = min(step, total_rows - top)
                data = process.stdout.read(rows * row_bytes)
                if len(data) < rows * row_bytes:
                    break
                yield top, np.frombuffer(data, dtype).reshape(rows, *row_shape)
        except BaseException:
            # The rest is not needed; the caller may also have closed this generator.
            process.kill()
            raise
        finally:
            # Wait until the thread has read everything, then close the stream.
            message = words.text()
    if process.returncode:
        msg = message if process.returncode == FAILED else (
            f'the decoding process failed: {message[-500:] or process.returncode}')
        raise TileSourceError(msg)
