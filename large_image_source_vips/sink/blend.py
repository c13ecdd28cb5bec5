"""
Pastes and blends the samples of a tile into those of a block: pure array arithmetic.

Opaque pixels replace what is below them bit for bit, and masked-out pixels keep it;
float arithmetic applies to partly transparent pixels only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.formats import opaque_alpha

Array = npt.NDArray[Any]


def paste(color: Array, alpha: Array | None, tile_color: Array, tile_alpha: Array | None,
          mask: npt.NDArray[np.bool_] | None) -> None:
    """
    Paste a tile over samples, in place.

    :param color: the samples below, (rows, cols, color bands).
    :param alpha: their alpha (rows, cols), or None if all are opaque.
    :param tile_color: of the same shape and dtype as ``color``.
    :param tile_alpha: (rows, cols), or None if the whole tile is opaque.
    :param mask: (rows, cols), False where nothing changes, or None.
    """
    if tile_alpha is not None:
        mask = _blend(color, alpha, tile_color, tile_alpha, mask)
    if mask is None:
        color[...] = tile_color
    else:
        np.copyto(color, tile_color, where=mask[:, :, np.newaxis])
    if alpha is not None:
        opaque = opaque_alpha(alpha.dtype) if tile_alpha is None else tile_alpha
        if mask is None:
            alpha[...] = opaque
        else:
            np.copyto(alpha, opaque, where=mask, casting='unsafe')


def _blend(color: Array, alpha: Array | None, tile_color: Array, tile_alpha: Array,
           mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
    """
    Composite the partly transparent pixels of a tile over the samples below.

    Porter and Duff's *over* for colours that are not premultiplied: with alpha a of
    the tile and b below, the result has alpha a + b (1 - a), and its colour is the
    mean of both colours weighted with a and b (1 - a).

    :returns: (rows, cols), True where the tile is to be stored unchanged, because it
        is opaque or covers an empty place.
    """
    opaque = opaque_alpha(tile_alpha.dtype)
    replaces = tile_alpha >= opaque
    if alpha is not None:
        replaces |= ~(alpha > 0)
    blends = ~replaces & (tile_alpha > 0)
    if mask is not None:
        replaces &= mask
        blends &= mask
    if blends.any():
        over = tile_alpha[blends].astype(np.float64) / opaque
        below: Any = 1.0
        if alpha is not None:
            below = np.minimum(alpha[blends].astype(np.float64) / opaque, 1.0)
        below = below * (1 - over)
        total = over + below
        mixed = (tile_color[blends] * over[:, np.newaxis] +
                 color[blends] * np.broadcast_to(below, over.shape)[:, np.newaxis])
        color[blends] = rounded(mixed / total[:, np.newaxis], color.dtype)
        if alpha is not None:
            alpha[blends] = rounded(total * opaque, alpha.dtype)
    return replaces


def rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    """Convert floats to a dtype, rounded to nearest for integers."""
    return (values if dtype.kind == 'f' else np.rint(values)).astype(dtype)
