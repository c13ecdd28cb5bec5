"""
Compute means and sums of overlapping tiles in a block, with weights.

Only pixels under several tiles are computed; others are copied.  Sums are exact for
integers: 8-bit samples are summed in 16-bit integers, small sums in 32-bit floats, others
in 64-bit floats.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.formats import opaque_alpha
from ..base.limits import LIMITS
from ..base.threads import scratch
from .records import Kind, Samples

Array = npt.NDArray[Any]
Area = tuple[slice, slice]

# With more tiles in a block, dividing it into areas takes longer than it saves (measured).
_MOST_PIECES = 12

_U16, _F32, _F64 = np.dtype(np.uint16), np.dtype(np.float32), np.dtype(np.float64)

# Quotients of smaller sums are rounded in 32-bit floats as exact ones are: a quotient a / b
# that is not halfway between two integers differs from halfway by at least 1 / 2b, which is
# more than half the distance of 32-bit floats there.
_EXACT_F32 = 1 << 23


class Piece(NamedTuple):
    """
    The part of a tile in a block.

    :param place: its rows and columns in the block.
    :param top: rows of the tile above it.
    :param left: columns of the tile left of it.
    :param rows: of the whole tile.
    :param cols: of the whole tile.
    :param kind: the arrays that the tile has.
    :param read: returns the samples of the part, of the dtype of the canvas.
    """

    place: Area
    top: int
    left: int
    rows: int
    cols: int
    kind: Kind
    read: Callable[[], Samples]

    @property
    def is_plain(self) -> bool:
        """Whether all pixels are opaque, without a mask and weights."""
        return not (self.kind.alpha or self.kind.mask or self.kind.weight)

    def part(self, area: Area) -> Area:
        """The rows and columns of an area of the block, from the corner of the part."""
        down, across = (place.start for place in self.place)
        return (slice(area[0].start - down, area[0].stop - down),
                slice(area[1].start - across, area[1].stop - across))


def hole_alpha(covered: npt.NDArray[np.bool_], dtype: np.dtype[Any]) -> Array | None:
    """Alpha that is opaque where ``covered`` is true; None if that is everywhere."""
    if covered.all():
        return None
    return np.where(covered, np.array(opaque_alpha(dtype), dtype), np.array(0, dtype))


def weighted(policy: str, pieces: Sequence[Piece], shape: tuple[int, int, int],
             dtype: np.dtype[Any]) -> tuple[Array, Array | None]:
    """
    The mean or sum of pieces.

    :param policy: 'mean', 'feather' or 'sum'.
    :param pieces: in order; their samples are read one after another.
    :param shape: of the colour: (rows, cols, bands).
    :param dtype: of the result.
    :returns: colour, 0 in holes, and alpha (rows, cols), None if all pixels are opaque.
    :raises TileSourceError: if the dtype cannot hold a result.
    """
    if policy != 'sum' and all(
            piece.is_plain and np.can_cast(piece.kind.dtype, dtype) for piece in pieces) and (
            sum(_largest_weight(policy, piece) for piece in pieces) <= np.iinfo(_U16).max):
        return _plain_mean(policy, pieces, shape, dtype)
    return _any_mean(policy, pieces, shape, dtype)


# Pieces without alpha, masks and weights


def _largest_weight(policy: str, piece: Piece) -> int:
    return (min(piece.rows, piece.cols) + 1) // 2 if policy == 'feather' else 1


def _plain_mean(policy: str, pieces: Sequence[Piece], shape: tuple[int, int, int],
                dtype: np.dtype[Any]) -> tuple[Array, Array | None]:
    """The mean of opaque pieces."""
    rows, cols, bands = shape
    areas = _Areas([piece.place for piece in pieces], shape)
    # One weight for each sample, so that numpy's inner loops run over whole rows.
    weights = scratch('weights', (rows, cols * bands), _U16)
    covered = np.zeros((rows, cols), np.bool_)
    weights[...] = 0
    for piece in pieces:
        covered[piece.place] = True
        window = _window(piece, bands) if policy == 'feather' else None
        for area in areas.shared(piece.place):
            weights[_wide(area, bands)] += (
                1 if window is None else window[_wide(piece.part(area), bands)])
    sum_dtype = _sum_dtype([piece.kind.dtype for piece in pieces], int(weights.max()))
    total = scratch('total', weights.shape, sum_dtype)
    total[...] = 0
    result = np.zeros((rows, cols * bands), dtype)
    for piece in pieces:
        color = piece.read().color
        color = color.reshape(len(color), -1)
        window = _window(piece, bands) if policy == 'feather' else None
        for area in areas.single(piece.place):
            result[_wide(area, bands)] = color[_wide(piece.part(area), bands)]
        for area in areas.shared(piece.place):
            part, into = _wide(piece.part(area), bands), total[_wide(area, bands)]
            samples = color[part]
            if window is not None:
                product = scratch('product', samples.shape, sum_dtype)
                samples = np.multiply(samples, window[part], out=product, dtype=sum_dtype)
            np.add(into, samples, out=into, dtype=sum_dtype)
    # Holes have no weight.
    np.maximum(weights, 1, out=weights)
    for area in areas.shared((slice(0, rows), slice(0, cols))):
        _divide(total[_wide(area, bands)], weights[_wide(area, bands)],
                result[_wide(area, bands)])
    return result.reshape(shape), hole_alpha(covered, dtype)


def _sum_dtype(dtypes: list[np.dtype[Any]], weight: int) -> np.dtype[Any]:
    """
    The fastest dtype that holds sums exactly; 64-bit floats if none does.

    :param dtypes: of the samples.
    :param weight: the largest sum of weights.
    """
    if any(dtype.kind == 'f' for dtype in dtypes):
        return _F64
    peak = weight * max(max(-np.iinfo(dtype).min, np.iinfo(dtype).max) for dtype in dtypes)
    if peak <= np.iinfo(_U16).max and all(dtype.kind == 'u' for dtype in dtypes):
        return _U16
    return _F32 if peak < _EXACT_F32 else _F64


def _divide(total: Array, weights: Array, out: Array) -> None:
    """Divide sums by weights, rounded to nearest for integers, halves to even."""
    dtype = _F64 if _F64 in (total.dtype, out.dtype) else _F32
    means = np.divide(total, weights, out=scratch('product', total.shape, dtype), dtype=dtype)
    if out.dtype.kind != 'f':
        np.rint(means, out=means)
    np.copyto(out, means, casting='unsafe')


def _wide(area: Area, bands: int) -> Area:
    """The rows and samples of an area."""
    return area[0], slice(area[1].start * bands, area[1].stop * bands)


def _window(piece: Piece, bands: int) -> Array:
    """The weights of a piece under feather, (rows, cols * bands)."""
    rows, cols = (place.stop - place.start for place in piece.place)
    if piece.rows * piece.cols * bands * _U16.itemsize <= LIMITS.sink_window:
        whole = _tile_window(piece.rows, piece.cols, bands)
        return whole[piece.top:piece.top + rows,
                     piece.left * bands:(piece.left + cols) * bands]
    window: Array = np.minimum.outer(
        _edge_distance(piece.top, rows, piece.rows),
        np.repeat(_edge_distance(piece.left, cols, piece.cols), bands)).astype(_U16)
    return window


@functools.lru_cache(maxsize=4)
def _tile_window(rows: int, cols: int, bands: int) -> Array:
    """The weights of a tile under feather, (rows, cols * bands)."""
    return np.minimum.outer(
        _edge_distance(0, rows, rows).astype(_U16),
        np.repeat(_edge_distance(0, cols, cols).astype(_U16), bands))


class _Areas:
    """
    A block divided along the edges of all pieces.

    :param places: of the pieces.
    :param shape: of the block.
    """

    def __init__(self, places: list[Area], shape: tuple[int, ...]) -> None:
        if len(places) > _MOST_PIECES:
            # Compute all pixels.
            self._edges = [0, shape[0]], [0, shape[1]]
            self._counts = np.full((1, 1), len(places))
            return
        down, across = ({0, length} for length in shape[:2])
        for place in places:
            down |= {place[0].start, place[0].stop}
            across |= {place[1].start, place[1].stop}
        self._edges = sorted(down), sorted(across)
        rows, cols = ({edge: number for number, edge in enumerate(edges)}
                      for edges in self._edges)
        # The number of pieces on each cell.
        self._counts = np.zeros((len(rows) - 1, len(cols) - 1), np.intp)
        for place in places:
            self._counts[rows[place[0].start]:rows[place[0].stop],
                         cols[place[1].start]:cols[place[1].stop]] += 1

    def shared(self, place: Area) -> list[Area]:
        """The areas of a place that several pieces cover."""
        return list(self._found(place, self._counts > 1))

    def single(self, place: Area) -> list[Area]:
        """The areas of a place that one piece covers."""
        return list(self._found(place, self._counts == 1))

    def _found(self, place: Area, wanted: npt.NDArray[np.bool_]) -> Iterator[Area]:
        """Areas that cover the wanted cells of a place, each as wide as possible."""
        down, across = self._edges
        for number, row in enumerate(wanted.tolist()):
            top, bottom = max(down[number], place[0].start), min(down[number + 1], place[0].stop)
            if top >= bottom:
                continue
            start: int | None = None
            for column, is_wanted in enumerate([*row, False]):
                if is_wanted and start is None:
                    start = column
                elif not is_wanted and start is not None:
                    left, right = max(across[start], place[1].start), min(
                        across[column], place[1].stop)
                    start = None
                    if left < right:
                        yield slice(top, bottom), slice(left, right)


# Any pieces


def _any_mean(policy: str, pieces: Sequence[Piece], shape: tuple[int, int, int],
              dtype: np.dtype[Any]) -> tuple[Array, Array | None]:
    """
    The mean or sum of any pieces, in 64-bit floats.

    There is a sum and a weight for each sample, not for each pixel, so that numpy's inner
    loops run over whole rows.
    """
    rows, cols, bands = shape
    partly = any(piece.kind.alpha for piece in pieces)
    total, weights = np.zeros((rows, cols * bands)), np.zeros((rows, cols * bands))
    for piece in pieces:
        place, found = _wide(piece.place, bands), piece.read()
        samples = found.color.reshape(found.color.shape[0], -1)
        weight = _weight(policy, piece, found, bands, partly)
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
    return color, hole_alpha(covered[:, ::bands], dtype)


def _weight(policy: str, piece: Piece, samples: Samples, bands: int,
            partly: bool) -> Array | None:
    """
    The weights of a piece, (rows, cols * bands); None if all are 1.

    Unless the caller gave weights they are integers, so sums of integers are exact.  Alpha
    is a fraction only in a sum.
    """
    weight: Array | None = None
    opaque = float(opaque_alpha(samples.color.dtype))
    if policy == 'feather' and samples.weight is None:
        weight = _window(piece, bands).astype(np.float64)
    for factor in (samples.weight, samples.mask, samples.alpha):
        if factor is not None:
            wide = np.repeat(factor.astype(np.float64), bands, axis=1)
            if factor is samples.alpha:
                wide = np.clip(wide, 0, opaque) / (opaque if policy == 'sum' else 1)
            weight = wide if weight is None else weight * wide
    if partly and samples.alpha is None and policy != 'sum':
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
