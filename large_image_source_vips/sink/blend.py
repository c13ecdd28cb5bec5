"""
Blend policies: combine the samples of overlapping tiles in a block.

``paste`` puts a tile over existing samples (policy 'over').  ``combined`` computes a block
from all its tiles:

=========  =====================================================================================
policy     a pixel is
=========  =====================================================================================
over       the last tile; partly transparent pixels are composited over those below
first      the first tile, composited over later ones
mean       the mean of all tiles
feather    their mean, weighted with the distance to the edge of the tile
max, min   the largest or smallest sample of each band
sum        the sum of all tiles
=========  =====================================================================================

The weight of a pixel is 0 where the mask is false, and its alpha if it is partly
transparent.  Pixels with a total weight of 0 are holes.

Opaque and masked-out pixels are exact; only partly transparent pixels use float arithmetic.
Sums of integers are exact: in 32-bit integers where these suffice, else in 64-bit floats
below 2 ** 53.  Quotients are rounded to nearest, halves to even.  A mean does not depend on
the order of tiles: as a float, a quotient of integers below 2 ** 52 is halfway between two
integers only if it is exactly halfway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError, shown
from ..base.formats import FORMAT_OF_DTYPE, Meaning, opaque_alpha
from ..base.transparency import copy_bands
from .records import Samples
from .weighted import Piece, hole_alpha, weighted

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
        # A contiguous copy, because it is read several times: comparing a band of
        # interleaved samples takes 10 times as long.
        tile_alpha = np.ascontiguousarray(tile_alpha)
        mask = _blend(color, alpha, tile_color, tile_alpha, mask)
    if mask is None:
        copy_bands(color, tile_color)
    else:
        # Measured: per band takes a quarter of the time of all bands at once.
        for band in range(color.shape[2]):
            np.copyto(color[:, :, band], tile_color[:, :, band], where=mask)
    if alpha is not None:
        opaque = opaque_alpha(alpha.dtype) if tile_alpha is None else tile_alpha
        if mask is None:
            alpha[...] = opaque
        else:
            np.copyto(alpha, opaque, where=mask, casting='unsafe')


def _blend(color: Array, alpha: Array | None, tile_color: Array, tile_alpha: Array,
           mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_] | None:
    """
    Composite the partly transparent pixels of a tile over the samples below.

    Porter and Duff's *over* for colours that are not premultiplied: with alpha a of
    the tile and b below, the result has alpha a + b (1 - a), and its colour is the
    mean of both colours weighted with a and b (1 - a).

    :returns: (rows, cols), True where the tile is opaque or covers an empty pixel, and is
        stored unchanged; None if that is everywhere.
    """
    opaque = opaque_alpha(tile_alpha.dtype)
    replaces = tile_alpha >= opaque
    if alpha is not None:
        replaces |= ~(alpha > 0)
    if mask is None and replaces.all():
        return None
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


# Policies

POLICIES = ('over', 'first', 'mean', 'feather', 'max', 'min', 'sum')
# Policies with weights.  Their result depends on the order of tiles only in the last bits
# of floats; tiles are sorted to fix these, too.
WEIGHTED = frozenset({'mean', 'feather', 'sum'})
# Policies that depend on the order of tiles.
ORDERED = frozenset({'over', 'first'})

# The dtype of a sum, by the kind of samples.
_SUM_DTYPES = {'u': np.dtype(np.uint32), 'i': np.dtype(np.int32), 'f': np.dtype(np.float32)}


def result_dtype(policy: str, dtype: np.dtype[Any], accumulator: str | None) -> np.dtype[Any]:
    """
    The dtype of an image.

    :param dtype: of the tiles.
    :param accumulator: the dtype of sums and means.  None: for means that of the tiles, for
        sums 32 bits of the same kind, or 64-bit floats for 64-bit floats.
    """
    if accumulator is not None:
        return np.dtype(accumulator)
    return _SUM_DTYPES[dtype.kind] if policy == 'sum' and dtype != np.float64 else dtype


def checked_accumulator(accumulator: Any, policy: str | None) -> str:
    """
    Check the dtype of sums and means.

    :param policy: the blend policy, or None for that of an existing spool.
    :raises TileSourceError: if libvips lacks the dtype, or the policy does not use one.
    """
    if policy is not None and policy not in WEIGHTED:
        msg = (f"accumulator is for blend='mean', 'feather' and 'sum'; blend={policy!r} keeps the "
               f'dtype of the tiles.')
        raise TileSourceError(msg)
    names = sorted(dtype.name for dtype in FORMAT_OF_DTYPE if dtype.kind in 'iuf')
    try:
        name = str(np.dtype(accumulator))
    except (TypeError, ValueError):
        name = ''
    if name not in names:
        msg = f'accumulator must be one of {", ".join(names)}, not {shown(accumulator)}.'
        raise TileSourceError(msg)
    return name


def check_weight(policy: str) -> None:
    """
    Check that the policy uses weights.

    :raises TileSourceError: if it does not.
    """
    if policy not in WEIGHTED:
        msg = (f"weight= is for images with blend='mean', 'feather' or 'sum'; this one has "
               f'blend={policy!r}.')
        raise TileSourceError(msg)


def check_policy(policy: str, meaning: Meaning) -> None:
    """
    Check that a policy can blend the samples.

    :raises TileSourceError: for labels, if the policy computes new values.
    """
    if meaning.labels and policy in WEIGHTED:
        msg = (f"Labels cannot be added to an image with blend='{policy}', because a {policy} of "
               f"labels has no meaning; use blend='over' or 'first', or convert the tile to "
               f'floats.')
        raise TileSourceError(msg)


def combined(policy: str, pieces: Sequence[Piece], shape: tuple[int, int, int],
             dtype: np.dtype[Any]) -> tuple[Array, Array | None]:
    """
    Make a block of all its tiles.

    :param policy: one of ``POLICIES``.
    :param pieces: in order; their samples are read one after another.
    :param shape: of the colour: (rows, cols, bands).
    :param dtype: of the result.
    :returns: colour, 0 in holes, and alpha (rows, cols), None if all pixels are opaque;
        except for 'over' and 'first', alpha is opaque or 0.
    :raises TileSourceError: if the dtype cannot hold a sum.
    """
    if policy in ORDERED:
        return _stacked(pieces, shape, dtype)
    if policy in WEIGHTED:
        return weighted(policy, pieces, shape, dtype)
    return _extreme(policy, pieces, shape, dtype)


def _stacked(pieces: Sequence[Piece], shape: tuple[int, int, int],
             dtype: np.dtype[Any]) -> tuple[Array, Array | None]:
    """Paste pieces in order."""
    color, alpha = np.zeros(shape, dtype), np.zeros(shape[:2], dtype)
    for piece in pieces:
        samples = piece.read()
        paste(color[piece.place], alpha[piece.place], samples.color, samples.alpha, samples.mask)
    return color, None if (alpha == opaque_alpha(dtype)).all() else alpha


def _present(samples: Samples) -> npt.NDArray[np.bool_] | None:
    """Where there are pixels; None for everywhere."""
    if samples.alpha is None:
        return samples.mask
    present: npt.NDArray[np.bool_] = samples.alpha > 0
    return present if samples.mask is None else present & samples.mask


def _extreme(policy: str, pieces: Sequence[Piece], shape: tuple[int, int, int],
             dtype: np.dtype[Any]) -> tuple[Array, Array | None]:
    """The largest or smallest sample of each band; NaN only if all are NaN."""
    choose = np.fmax if policy == 'max' else np.fmin
    color, covered = np.zeros(shape, dtype), np.zeros(shape[:2], np.bool_)
    for piece in pieces:
        samples = piece.read()
        present, under, known = _present(samples), color[piece.place], covered[piece.place]
        chosen = choose(under, samples.color)
        if not known.all():
            chosen = np.where(known[:, :, np.newaxis], chosen, samples.color)
        if present is None:
            under[...], known[...] = chosen, True
        else:
            np.copyto(under, chosen, where=present[:, :, np.newaxis])
            known |= present
    return color, hole_alpha(covered, dtype)
