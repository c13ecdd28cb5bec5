"""
The outcome of one measurement: times, facts, and a digest of the pixels.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]

# A sketch of a tile is the means of this many cells in each direction.
SKETCH_CELLS = 4

# How many tiles of a series are sketched; the digest covers all of them.
SKETCHES = 64


@dataclass
class Outcome:
    """
    The result of one job.

    :param seconds: the time of each named part; always includes 'total'.
    :param facts: other figures: peak memory in bytes, counts.
    :param digest: a hash of all pixels in order, for contenders that must agree
        in every bit.
    :param sketches: coarse means of tiles, for contenders that reduce or
        compress differently; None for a tile that could not be read.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    digest: str = ''
    sketches: list[list[float] | None] = field(default_factory=list)

    @contextmanager
    def timed(self, part: str = 'total') -> Iterator[None]:
        """Add the time of a block to a part, and record the peak memory at its end."""
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0) + time.perf_counter() - start
        peak = peak_memory()
        if peak is not None:
            self.facts['memory'] = peak

    def prove(self, tiles: list[Pixels | None]) -> None:
        """
        Record the digest and the sketches of the results.

        :param tiles: arrays (rows, cols, bands), in the same order for all
            contenders.
        """
        signature = hashlib.blake2b(digest_size=16)
        for tile in tiles:
            if tile is not None:
                signature.update(repr((tile.shape, str(tile.dtype))).encode())
                signature.update(np.ascontiguousarray(tile).data)
        self.digest = signature.hexdigest()
        self.sketches = [None if tile is None else sketch(tile) for tile in tiles[:SKETCHES]]

    def as_json(self) -> dict[str, Any]:
        """The outcome as one JSON object, with the versions of the libraries."""
        import pyvips

        versions = {
            'libvips': '.'.join(str(pyvips.version(part)) for part in range(3)),
            'python': sys.version.split()[0],
        }
        module = sys.modules.get('large_image_source_vips')
        if module is not None:
            # A source tree may not be installed.
            with suppress(metadata.PackageNotFoundError):
                name = 'large-image-source-vips'
                versions[name] = metadata.version(name)
            versions['from'] = str(module.__file__)
        return {'seconds': self.seconds, 'facts': self.facts, 'digest': self.digest,
                'sketches': self.sketches, 'versions': versions}


def peak_memory() -> int | None:
    """
    The peak resident memory of this process in bytes, pages of mapped files included.

    :returns: None if the system does not report it.
    """
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == 'darwin' else peak * 1024


def sketch(tile: Pixels) -> list[float]:
    """
    The means of the cells of a coarse grid.

    :param tile: an array (rows, cols, bands); alpha is ignored.
    :returns: the values of up to three bands, cell by cell.
    """
    bands = tile[:, :, :3 if tile.shape[2] >= 3 else 1].astype(float)
    rows = np.array_split(bands, SKETCH_CELLS, axis=0)
    cells = [cell for row in rows for cell in np.array_split(row, SKETCH_CELLS, axis=1)]
    return [round(float(value), 2)
            for cell in cells if cell.size for value in cell.mean(axis=(0, 1))]
