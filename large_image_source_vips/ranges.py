"""
The smallest and largest value of each band over the tiles of a canvas.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .samples import Patch

Array = npt.NDArray[Any]


class BandRanges:
    """
    Running minima and maxima of the tiles as they were given.

    Each band counts only the tiles that have it.  Alpha is kept apart, so that
    it stays behind the colours when a gray image becomes a colour one.
    """

    def __init__(self) -> None:
        self._colors: tuple[Array, Array] | None = None
        self._alpha: tuple[Array, Array] | None = None

    def add(self, patch: Patch) -> None:
        """Take in a tile."""
        count = min(len(patch.low), patch.meaning.color_bands)
        self._colors = _merged(self._colors, patch.low[:count], patch.high[:count])
        if len(patch.low) > count:
            self._alpha = _merged(self._alpha, patch.low[count:], patch.high[count:])

    def as_dict(self) -> dict[str, Array] | None:
        """The ranges as 'min' and 'max', each (bands,); None without tiles."""
        if self._colors is None:
            return None
        alpha = self._alpha or (np.zeros(0, np.uint8), np.zeros(0, np.uint8))
        return {name: np.concatenate([self._colors[index], alpha[index]])
                for index, name in enumerate(('min', 'max'))}


def _merged(ranges: tuple[Array, Array] | None, low: Array, high: Array) -> tuple[Array, Array]:
    """Ranges widened by those of another tile, band by band."""
    if ranges is None:
        return low, high
    old_low, old_high = ranges
    if len(low) == len(old_low):
        return np.fmin(old_low, low), np.fmax(old_high, high)
    common = min(len(low), len(old_low))
    longer_low, longer_high = (low, high) if len(low) > common else ranges
    return (np.concatenate([np.fmin(old_low[:common], low[:common]), longer_low[common:]]),
            np.concatenate([np.fmax(old_high[:common], high[:common]), longer_high[common:]]))
