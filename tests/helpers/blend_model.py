"""
Blend policies pixel by pixel, in fractions: an oracle for the tests.
"""

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from helpers.sink_model import opaque_value


class Tile(NamedTuple):
    color: np.ndarray
    x: int
    y: int
    mask: Any = None
    weight: Any = None
    alpha: Any = None

    @property
    def given(self):
        """The array for ``addTile``."""
        return self.color if self.alpha is None else np.dstack([self.color, self.alpha])


def _weight(policy, tile, row, col):
    """The weight of a pixel, a fraction."""
    if tile.mask is not None and not tile.mask[row, col]:
        return Fraction(0)
    rows, cols = tile.color.shape[:2]
    weight = Fraction(1)
    if tile.weight is not None:
        weight = Fraction(float(tile.weight[row, col]))
    elif policy == 'feather':
        weight = Fraction(min(row + 1, col + 1, rows - row, cols - col))
    if tile.alpha is not None:
        opaque = opaque_value(tile.color.dtype)
        weight *= min(max(Fraction(float(tile.alpha[row, col])) / opaque, 0), 1)
    return weight


def _rounded(value, dtype):
    if dtype.kind == 'f':
        return dtype.type(float(value))
    # Python rounds halves to even.
    return dtype.type(round(value))


def blended(policy, tiles, dtype, shape):
    """
    An image of tiles.

    :param policy: 'mean', 'feather', 'sum', 'max' or 'min'.
    :param tiles: with the corner of the image at 0, 0.
    :param dtype: of the result.
    :param shape: (rows, cols, bands) of the result, the last band alpha.
    """
    dtype = np.dtype(dtype)
    found = {}
    for tile in tiles:
        for row in range(tile.color.shape[0]):
            for col in range(tile.color.shape[1]):
                weight = _weight(policy, tile, row, col)
                if weight > 0:
                    found.setdefault((tile.y + row, tile.x + col), []).append(
                        (weight, [Fraction(value.item()) for value in tile.color[row, col]]))
    result = np.zeros(shape, dtype)
    for place, parts in found.items():
        weights = [weight for weight, _ in parts]
        for band in range(shape[2] - 1):
            values = [value[band] for _, value in parts]
            if policy in ('max', 'min'):
                value = max(values) if policy == 'max' else min(values)
            else:
                value = sum(weight * value for weight, value in zip(weights, values, strict=True))
                if policy != 'sum':
                    value /= sum(weights)
            result[(*place, band)] = _rounded(value, dtype)
        result[(*place, shape[2] - 1)] = opaque_value(dtype)
    return result
