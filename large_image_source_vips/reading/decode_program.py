"""
The program that runs in the process started by ``decode_process``.
"""

from __future__ import annotations

import pickle
import sys

import numpy as np

from ..base.errors import TileSourceError
from .decode_process import FAILED
from .rows import decode_file


def main() -> None:
    """Read a request from standard input, decode it and write the pixels to standard output."""
    request = pickle.load(sys.stdin.buffer)
    try:
        for _, rows in decode_file(*request):
            sys.stdout.buffer.write(np.ascontiguousarray(rows).data)
    except TileSourceError as exc:
        sys.stderr.write(str(exc))
        sys.stderr.flush()
        sys.exit(FAILED)
    sys.stdout.flush()
