"""
Track the smallest and largest value of each band over all tiles of a canvas.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Consecutive tiles of one shape up to this size in bytes are combined pixel by pixel, which
# is faster in numpy than finding the extremes of each.  Measured: without it, adding tiles
# of 32 x 32 takes 1.8 times as long.
_SMALL_BYTES = 1 << 15


class BandRanges:
    """
    Running minima and maxima of the tiles, before any conversion.

    The range of a band includes only tiles with that band.  Alpha is kept separately, so it
    stays the last band when a gray image becomes RGB.
    """

    def __init__(self) -> None:
        self._colors: tuple[Array, Array] | None = None
        self._alpha: tuple[Array, Array] | None = None
        # The smallest and largest integer colour sample.
        self._extremes: tuple[int, int] | None = None
        # Per-pixel minima and maxima of the last small tiles, their number of colour bands,
        # and whether the values are the stored samples.
        self._pixels: tuple[Array, Array, int, bool] | None = None
        self._lock = threading.Lock()

    @staticmethod
    def measured(given: Array) -> tuple[Array, Array] | None:
        """
        The smallest and largest values of a tile, (bands,) each.

        Call it before acquiring a lock.

        :param given: (rows, cols, bands).
        :returns: None for a small tile, which ``add`` handles faster.
        """
        return _ranges(given, given) if given.nbytes > _SMALL_BYTES else None

    def add(self, given: Array, color_bands: int, *, samples: bool = True,
            measured: tuple[Array, Array] | None = None) -> None:
        """
        Add a tile.

        :param given: the values before conversion, (rows, cols, bands).
        :param color_bands: the colour bands of the canvas.
        :param samples: whether the values are stored unchanged; False for a pixelmap.
        :param measured: the result of ``measured``, if it was called before.
        """
        count = min(given.shape[2], color_bands)
        measured = measured or self.measured(given)
        if measured is not None:
            low, high = measured
            with self._lock:
                self._widen(low, high, count, samples)
            return
        with self._lock:
            if self._pixels is not None:
                low, high, *kind = self._pixels
                if low.shape == given.shape and low.dtype == given.dtype and (
                        kind == [count, samples]):
                    smaller, larger = _functions(given)
                    smaller(low, given, out=low)
                    larger(high, given, out=high)
                    return
                self._fold()
            self._pixels = given.copy(), given.copy(), count, samples

    def count(self, low: Array, high: Array, color_bands: int) -> None:
        """
        Add the smallest and largest values (bands,) of a tile.

        :param color_bands: the colour bands of the tile.
        """
        with self._lock:
            self._widen(low, high, min(len(low), color_bands), True)

    @staticmethod
    def of(given: Array) -> tuple[Array, Array]:
        """The smallest and largest values (bands,) of a tile (rows, cols, bands)."""
        return _ranges(given, given)

    def _fold(self) -> None:
        """Add the extremes of the small tiles to the ranges."""
        if self._pixels is not None:
            low, high, count, samples = self._pixels
            self._pixels = None
            self._widen(*_ranges(low, high), count, samples)

    def _widen(self, low: Array, high: Array, count: int, samples: bool) -> None:
        """Add the minima and maxima (bands,) of a tile; the first `count` bands are colours."""
        self._colors = _merged(self._colors, low[:count], high[:count])
        if len(low) > count:
            self._alpha = _merged(self._alpha, low[count:], high[count:])
        if not samples:
            # A pixelmap is stored as uint8 colours.
            found = 0, 255
        elif low.dtype.kind not in 'iu':
            return
        else:
            found = int(low[:count].min()), int(high[:count].max())
        known = self._extremes
        self._extremes = found if known is None else (
            min(known[0], found[0]), max(known[1], found[1]))

    def extremes(self) -> tuple[int, int]:
        """The smallest and largest integer colour sample; 0, 0 without any."""
        with self._lock:
            self._fold()
            return self._extremes or (0, 0)

    def as_dict(self) -> dict[str, Array] | None:
        """The ranges, 'min' and 'max' of shape (bands,); None without tiles."""
        with self._lock:
            self._fold()
            colors, alpha = self._colors, self._alpha
        if colors is None:
            return None
        alpha = alpha or (np.zeros(0, np.uint8), np.zeros(0, np.uint8))
        return {name: np.concatenate([colors[index], alpha[index]])
                for index, name in enumerate(('min', 'max'))}


def _functions(array: Array) -> tuple[np.ufunc, np.ufunc]:
    """The minimum and maximum functions for a dtype; NaN is ignored."""
    return (np.fmin, np.fmax) if array.dtype.kind == 'f' else (np.minimum, np.maximum)


def _ranges(low: Array, high: Array) -> tuple[Array, Array]:
    """
    The smallest value of each band of one array, and the largest of another.

    :param low: (rows, cols, bands).
    :param high: of the same shape.
    :returns: two arrays (bands,).
    """
    result = []
    for array, function in zip((low, high), _functions(low), strict=True):
        # Rows first, because numpy is fastest with long contiguous inner loops.  Measured:
        # over both axes at once, adding tiles of 256 x 256 takes 17 times as long.
        columns: Array = function.reduce(array, axis=0)
        result.append(function.reduce(columns.reshape(-1, array.shape[2]), axis=0))
    return result[0], result[1]


def _merged(ranges: tuple[Array, Array] | None, low: Array, high: Array) -> tuple[Array, Array]:
    """Extend ranges by those of another tile, band by band."""
    if ranges is None:
        return low, high
    old_low, old_high = ranges
    if len(low) == len(old_low):
        return np.fmin(old_low, low), np.fmax(old_high, high)
    common = min(len(low), len(old_low))
    longer_low, longer_high = (low, high) if len(low) > common else ranges
    return (np.concatenate([np.fmin(old_low[:common], low[:common]), longer_low[common:]]),
            np.concatenate([np.fmax(old_high[:common], high[:common]), longer_high[common:]]))
