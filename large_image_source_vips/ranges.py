"""
The smallest and largest value of each band over the tiles of a canvas.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .samples import Patch


class BandRanges:
    """
    Running minima and maxima of the tiles as they were given.

    Each band counts only the tiles that have it.  Alpha is kept apart, so that
    it stays behind the colours when a gray image becomes a colour one.
    """

    def __init__(self) -> None:
        self._colors: tuple[list[Any], list[Any]] = ([], [])
        self._alpha: tuple[Any, Any] | None = None
        self._color_bands = 0
        self._dtype: np.dtype[Any] | None = None

    def add(self, patch: Patch) -> None:
        """Take in a tile."""
        low, high = patch.low, patch.high
        self._dtype = low.dtype if self._dtype is None else np.result_type(self._dtype, low.dtype)
        count = min(len(low), patch.meaning.color_bands)
        for values, new, pick in zip(self._colors, (low, high), (np.fmin, np.fmax), strict=True):
            for band in range(count):
                if band < len(values):
                    values[band] = pick(values[band], new[band])
                else:
                    values.append(new[band])
        if len(low) > count:
            before = self._alpha or (low[-1], high[-1])
            self._alpha = np.fmin(before[0], low[-1]), np.fmax(before[1], high[-1])

    def as_dict(self) -> dict[str, npt.NDArray[Any]] | None:
        """The ranges as 'min' and 'max', each (bands,); None without tiles."""
        if self._dtype is None:
            return None
        alpha = [] if self._alpha is None else [[value] for value in self._alpha]
        return {
            name: np.array([*values, *(alpha[index] if alpha else [])], self._dtype)
            for index, (name, values) in enumerate(zip(('min', 'max'), self._colors, strict=True))}
