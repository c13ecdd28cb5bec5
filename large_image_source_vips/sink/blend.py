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

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.formats import FORMAT_OF_DTYPE, Meaning, opaque_alpha

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
    if mask is None and tile_color.flags.c_contiguous:
        color[...] = tile_color
    else:
        # Measured: per band takes a quarter of the time of all bands at once.
        for band in range(color.shape[2]):
            np.copyto(color[:, :, band], tile_color[:, :, band],
                      where=True if mask is None else mask)
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


class Piece(NamedTuple):
    """
    The part of a tile in a block.

    :param place: its rows and columns in the block.
    :param color: (rows, cols, bands) of the dtype of the canvas.
    :param alpha: (rows, cols) of that dtype, or None if all pixels are opaque.
    :param mask: (rows, cols), False where the tile has no pixel, or None.
    :param weight: (rows, cols) of floats, or None.
    :param left: columns of the tile left of the part.
    :param top: rows of the tile above it.
    :param cols: of the whole tile.
    :param rows: of the whole tile.
    """

    place: tuple[slice, slice]
    color: Array
    alpha: Array | None
    mask: npt.NDArray[np.bool_] | None
    weight: Array | None
    left: int
    top: int
    cols: int
    rows: int


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
    except TypeError:
        name = ''
    if name not in names:
        msg = f'accumulator must be one of {", ".join(names)}, not {accumulator!r}.'
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


def combined(policy: str, pieces: Iterable[Piece], shape: tuple[int, int, int],
             dtype: np.dtype[Any], partly: bool) -> tuple[Array, Array | None]:
    """
    Compute a block from all its tiles.

    :param policy: one of ``POLICIES``.
    :param pieces: in order; each is used once.
    :param shape: of the colour: (rows, cols, bands).
    :param dtype: of the result.
    :param partly: whether any piece has alpha.
    :returns: colour, 0 in holes, and alpha (rows, cols), None if all pixels are opaque;
        only 'over' and 'first' give partly transparent pixels.
    :raises TileSourceError: if the dtype cannot hold a sum.
    """
    if policy in ORDERED:
        return _stacked(pieces, shape, dtype)
    if policy in WEIGHTED:
        return _weighted(policy, pieces, shape, dtype, partly)
    return _extreme(policy, pieces, shape, dtype)


def _stacked(pieces: Iterable[Piece], shape: tuple[int, int, int],
             dtype: np.dtype[Any]) -> tuple[Array, Array | None]:
    """Paste pieces on top of each other."""
    color, alpha = np.zeros(shape, dtype), np.zeros(shape[:2], dtype)
    for piece in pieces:
        paste(color[piece.place], alpha[piece.place], piece.color, piece.alpha, piece.mask)
    return color, None if (alpha == opaque_alpha(dtype)).all() else alpha


def _present(piece: Piece) -> npt.NDArray[np.bool_] | None:
    """Where a piece has pixels; None for everywhere."""
    if piece.alpha is None:
        return piece.mask
    present: npt.NDArray[np.bool_] = piece.alpha > 0
    return present if piece.mask is None else present & piece.mask


def _extreme(policy: str, pieces: Iterable[Piece], shape: tuple[int, int, int],
             dtype: np.dtype[Any]) -> tuple[Array, Array | None]:
    """The largest or smallest sample of each band; NaN only where all samples are NaN."""
    choose = np.fmax if policy == 'max' else np.fmin
    color, covered = np.zeros(shape, dtype), np.zeros(shape[:2], np.bool_)
    for piece in pieces:
        present, under, known = _present(piece), color[piece.place], covered[piece.place]
        chosen = choose(under, piece.color)
        if not known.all():
            chosen = np.where(known[:, :, np.newaxis], chosen, piece.color)
        if present is None:
            under[...], known[...] = chosen, True
        else:
            np.copyto(under, chosen, where=present[:, :, np.newaxis])
            known |= present
    return color, _hole_alpha(covered, dtype)


def _hole_alpha(covered: npt.NDArray[np.bool_], dtype: np.dtype[Any]) -> Array | None:
    """Alpha that is opaque where ``covered`` is true; None if that is everywhere."""
    if covered.all():
        return None
    return np.where(covered, np.array(opaque_alpha(dtype), dtype), np.array(0, dtype))


def _weighted(policy: str, pieces: Iterable[Piece], shape: tuple[int, int, int],
              dtype: np.dtype[Any], partly: bool) -> tuple[Array, Array | None]:
    """
    The mean or sum of pieces.

    There is a sum and a weight for each sample, not for each pixel, so that numpy's inner
    loops run over whole rows.
    """
    rows, cols, bands = shape
    total, weights = np.zeros((rows, cols * bands)), np.zeros((rows, cols * bands))
    for piece in pieces:
        place = piece.place[0], slice(piece.place[1].start * bands, piece.place[1].stop * bands)
        samples = piece.color.reshape(piece.color.shape[0], -1)
        weight = _weight(policy, piece, bands, partly)
        if weight is None:
            total[place] += samples
            weights[place] += 1
            continue
        product = samples * weight
        if dtype.kind == 'f':
            # A pixel with weight 0 may be NaN or infinite.
            product[np.broadcast_to(weight == 0, product.shape)] = 0
        total[place] += product
        weights[place] += weight
    covered = weights > 0
    if policy != 'sum':
        np.divide(total, weights, out=total, where=covered)
    color = _as_dtype(total, dtype).reshape(shape)
    return color, _hole_alpha(covered[:, ::bands], dtype)


def _weight(policy: str, piece: Piece, bands: int, partly: bool) -> Array | None:
    """
    The weights of a piece, (rows, cols * bands); None if all are 1.

    Unless the caller gave weights they are integers, so sums of integers are exact.  Alpha
    is a fraction only in a sum.
    """
    weight: Array | None = None
    opaque = float(opaque_alpha(piece.color.dtype))
    if policy == 'feather' and piece.weight is None:
        down = _edge_distance(piece.top, piece.color.shape[0], piece.rows)
        across = _edge_distance(piece.left, piece.color.shape[1], piece.cols)
        weight = np.minimum.outer(down, np.repeat(across, bands))
    for factor in (piece.weight, piece.mask, piece.alpha):
        if factor is not None:
            wide = np.repeat(factor.astype(np.float64), bands, axis=1)
            if factor is piece.alpha:
                wide = np.clip(wide, 0, opaque) / (opaque if policy == 'sum' else 1)
            weight = wide if weight is None else weight * wide
    if partly and piece.alpha is None and policy != 'sum':
        # From 0 to the opaque value, like the alpha of other pieces.
        weight = np.full((1, 1), opaque) if weight is None else weight * opaque
    return weight


def _edge_distance(start: int, count: int, length: int) -> Array:
    """The distance of rows or columns from the edge of a tile in pixels, at least 1."""
    number = np.arange(start + 1, start + count + 1, dtype=np.float64)
    return np.minimum(number, length + 1 - number)


def _as_dtype(values: Array, dtype: np.dtype[Any]) -> Array:
    """
    Convert to the dtype of the result.

    :raises TileSourceError: if it cannot hold a value.
    """
    if dtype.kind == 'f':
        return values.astype(dtype)
    np.rint(values, out=values)
    low, high = values.min(), values.max()
    info = np.iinfo(dtype)
    if low < info.min or high > info.max:
        msg = (f'The sum of overlapping tiles is {low if low < info.min else high:.0f}, which '
               f"{dtype} cannot hold; use new(blend='sum', accumulator='float32') or "
               f"blend='mean'.")
        raise TileSourceError(msg)
    return values.astype(dtype)
