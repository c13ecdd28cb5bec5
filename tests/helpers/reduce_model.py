"""Means of blocks of pixels in exact numbers: an oracle for the tests."""

import itertools
from fractions import Fraction

import numpy as np


def modelled(pixels, factor, alpha):
    """Every block by itself, integers as fractions; floats in double precision."""
    exact = pixels.dtype.kind == 'u'
    rows, cols, bands = pixels.shape
    result = np.empty((-(-rows // factor), -(-cols // factor), bands), pixels.dtype)
    for row, col in itertools.product(*map(range, result.shape[:2])):
        block = pixels[row * factor:(row + 1) * factor, col * factor:(col + 1) * factor]
        block = block.reshape(-1, bands)
        weights = [int(one) if exact else float(max(one, 0)) for one in block[:, alpha]]
        if len(set(weights)) == 1:
            weights = [1] * len(weights)
        for band in range(bands):
            own = [1] * len(weights) if band == alpha % bands else weights
            values = [int(one) if exact else float(one) for one in block[:, band]]
            total = sum(value * weight for value, weight in zip(values, own, strict=True) if weight)
            # Fractions, like numpy, round halves to even.
            result[row, col, band] = (round(Fraction(total, sum(own))) if exact
                                      else total / sum(own))
    return result
