"""
Parse the position keywords and ``axes=`` of ``addTile``, and find the frames of a tile.

Nothing here reads or copies pixels: ``split`` returns views of the arrays it is given.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.attributes import closest
from ..base.errors import TileSourceValueError, shown
from ..base.frames import plain_value

Array = npt.NDArray[Any]

_VALUE = '_value'
# Names of dimensions that are not axes of frames.
_PLANE = ('y', 'x', 's')
# Parameters of addTile.
_OPTIONS = frozenset(('axes', 'interpretation', 'key', 'mask', 'order', 'tile', 'weight'))
# Names for OME's axes.
_WORDS = {
    'channel': 'c', 'channels': 'c', 'slice': 'z', 'plane': 'z', 'depth': 'z', 'time': 't',
    'timepoint': 't', 'position': 'xy', 'scene': 'xy'}


def as_position(value: Any, name: str) -> int:
    """
    Convert a coordinate to an int.

    :param value: an integer of any type, or a float without a fraction.
    :param name: of the coordinate, for the error text.
    :raises TileSourceError: for any other value.
    """
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, (float, np.floating)) and float(value).is_integer():
            return int(value)
    msg = f'{name} must be a whole number, not {shown(value)}.'
    raise TileSourceValueError(msg)


@dataclass(frozen=True)
class Placement:
    """
    The position of a tile among the frames.

    :param starts: the position of its first frame on each named axis, slowest axis first.
    :param values: the values of the positions, by axis: a number or text for the first
        position, or a list with one for each position of the array.
    :param dimensions: the names of the array's dimensions; None if it is (rows, cols) or
        (rows, cols, bands).
    """

    starts: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    dimensions: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Target:
    """
    The frames of one tile.

    :param positions: of the frames, in order; {} for an image without axes.
    :param lengths: the minimum length of each axis, slowest first.
    :param values: the values of each frame that has any, by axis.
    """

    positions: Sequence[Mapping[str, int]] = ({},)
    lengths: Mapping[str, int] = field(default_factory=dict)
    values: Sequence[tuple[Mapping[str, int], Mapping[str, Any]]] = ()


ONE_FRAME = Target()


def make_placement(axes: Any, keywords: Mapping[str, Any],
                   known: Sequence[str] = ()) -> Placement:
    """
    Parse the position keywords and the ``axes`` of ``addTile``.

    New axes become the slowest ones, the last keyword the slowest of all, as in the zarr
    sink.

    :param axes: None, or the names of the array's dimensions with x and y, as a string of
        letters or a list.
    :param keywords: such as ``{'z': 3, 'z_value': 1.5}``.
    :param known: the axes of the image, slowest first.
    :raises TileSourceValueError: if a name or a value is not allowed.
    """
    dimensions = None if axes is None else _dimensions(axes)
    starts: dict[str, int] = {}
    values: dict[str, Any] = {}
    for given, value in keywords.items():
        is_value = given.lower().endswith(_VALUE)
        name = given.lower().removesuffix(_VALUE)
        into: dict[str, Any] = values if is_value else starts
        _check_name(name, given)
        if name in into:
            msg = f'addTile() got {given!r} twice; the case of a name does not matter.'
            raise TileSourceValueError(msg)
        into[name] = _value(value, given) if is_value else _start(value, given)
    named = (dimensions or ()) + tuple(starts) + tuple(values)
    _check_words(dict.fromkeys([*known, *named]), known)
    own = [name for name in dimensions or () if name not in _PLANE]
    late = [name for name in dict.fromkeys([*starts, *values]) if name not in [*known, *own]]
    order = [*reversed(late), *(name for name in known if name not in own), *own]
    return Placement({name: starts.get(name, 0) for name in order}, values, dimensions)


def looks_like_axes(interpretation: Any) -> bool:
    """
    Whether the argument for ``interpretation`` must be meant as ``axes``.

    In the zarr sink ``axes`` is the parameter at that position.

    :param interpretation: neither None nor the name of an interpretation.
    """
    if isinstance(interpretation, (list, tuple)):
        return True
    return isinstance(interpretation, str) and interpretation.isalpha() and (
        {'x', 'y'} <= set(interpretation.lower())) and (
        len(set(interpretation.lower())) == len(interpretation))


def _dimensions(axes: Any) -> tuple[str, ...]:
    """The names of an array's dimensions."""
    if not isinstance(axes, (str, list, tuple)) or not all(isinstance(name, str) for name in axes):
        msg = f"axes must be a string such as 'zyxs' or a list of names, not {shown(axes)}."
        raise TileSourceValueError(msg)
    names = tuple(name.lower() for name in axes)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = f'axes={axes!r} names {", ".join(repeated)} more than once.'
        raise TileSourceValueError(msg)
    if not {'x', 'y'} <= set(names):
        msg = f"axes={axes!r} must contain 'y' and 'x', the rows and columns of the tile."
        raise TileSourceValueError(msg)
    for name in names:
        if name not in _PLANE:
            _check_name(name, name)
    return names


def _check_name(name: str, given: str) -> None:
    """
    Check the name of an axis.

    :param name: in lower case, without '_value'.
    :param given: the keyword.
    :raises TileSourceValueError: if it is reserved, or a misspelt option.
    """
    if name == 'level':
        msg = ('addTile() takes no level: add full-resolution tiles only; the lower levels are '
               'computed from them.')
    elif name in _PLANE:
        msg = (f'{given!r} cannot be a position among the frames: x and y place a tile in its '
               f'frame, and s are its bands, which are added together.')
    elif not name.isidentifier():
        msg = f'{given!r} is not the name of an axis; use letters, digits and underscores.'
    elif name == 'frame':
        msg = ('addTile() takes no frame number, because it changes when an axis grows; give the '
               'position on each axis, such as c=1, z=0.')
    else:
        close = 'axes' if name == 'axis' else closest(name, _OPTIONS)
        if close is None:
            return
        msg = f'addTile() has no option {given!r}; did you mean {close!r}?'
    raise TileSourceValueError(msg)


def _check_words(names: Iterable[str], known: Sequence[str]) -> None:
    """Refuse both a name for an axis, possibly misspelt, and its letter."""
    names = list(names)
    for name in names:
        letter = _WORDS.get(closest(name, frozenset(_WORDS)) or '', name)
        if letter != name and letter in names:
            place = 'the image has' if name in known or letter in known else 'this tile has'
            msg = (f'{name!r} and {letter!r} would be two axes, and {place} the other one '
                   f'already; use {letter}= for both.')
            raise TileSourceValueError(msg)


def _start(value: Any, name: str) -> int:
    """The position of a tile on an axis."""
    start = as_position(value, name)
    if start < 0:
        msg = f'{name} must be at least 0, not {start}: positions among the frames do not move.'
        raise TileSourceValueError(msg)
    return start


def _value(value: Any, name: str) -> Any:
    """Check a value that can be stored as JSON, or a list of such values."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain_value(part, name) for part in value]
    return plain_value(value, name)


def split(placement: Placement, tile: Any, mask: Any = None) -> tuple[Target, Any, Any]:
    """
    Find the frames of a tile, and arrange them one below the other.

    :param placement: from ``make_placement``.
    :param tile: an array with the named dimensions, of which leading ones may be missing;
        anything else is one frame.
    :param mask: None, or an array of the tile's dimensions with or without 's'; leading
        ones may be missing, and 2 dimensions are y and x.
    :returns: the frames; the tile, as (frames x rows, cols, bands) if it is an array with
        named dimensions; the mask, likewise.  They are views where possible.
    :raises TileSourceError: if dimensions, mask or values do not fit.
    """
    names = placement.dimensions
    axes: list[str] = []
    extents: tuple[int, ...] = ()
    if names is not None and isinstance(tile, np.ndarray):
        tile, names = _completed(tile, names)
        tile = np.moveaxis(tile, [names.index(name) for name in _PLANE], [-3, -2, -1])
        axes, extents = [name for name in names if name not in _PLANE], tile.shape[:-3]
        if mask is not None:
            mask = _arranged_mask(np.asarray(mask), names, extents)
            mask = mask.reshape(-1, *mask.shape[len(extents) + 1:])
        tile = tile.reshape(-1, *tile.shape[-2:])
    starts, lengths = placement.starts, dict(zip(axes, extents, strict=True))
    positions = [{**starts, **{axis: starts[axis] + step
                               for axis, step in zip(axes, place, strict=True)}}
                 for place in np.ndindex(extents)]
    return Target(
        positions, {axis: start + lengths.get(axis, 1) for axis, start in starts.items()},
        list(_values_of(placement, lengths))), tile, mask


def _values_of(placement: Placement, extents: Mapping[str, int],
               ) -> Iterator[tuple[dict[str, int], dict[str, Any]]]:
    """
    The values of positions: a single one is for the first position, a list for all on its
    axis.

    :param extents: the length of the tile on each of its axes.
    :raises TileSourceError: if a list has more or fewer values than the tile positions.
    """
    single = {axis: value for axis, value in placement.values.items()
              if not isinstance(value, list)}
    lists = {axis: value for axis, value in placement.values.items() if isinstance(value, list)}
    for axis, values in lists.items():
        if len(values) != extents.get(axis, 1):
            msg = (f'{axis}_value has {len(values)} values, but the tile has '
                   f'{extents.get(axis, 1)} positions on {axis}.')
            raise TileSourceValueError(msg)
    for steps in itertools.product(*(range(len(values)) for values in lists.values())):
        places = dict(zip(lists, steps, strict=True))
        found = {**single, **{axis: lists[axis][step] for axis, step in places.items()}}
        if found:
            yield {axis: start + places.get(axis, 0)
                   for axis, start in placement.starts.items()}, found


def _completed(tile: Array, dimensions: tuple[str, ...]) -> tuple[Array, tuple[str, ...]]:
    """
    A view of an array with one dimension per name, and the names including 's'.

    Leading axes of frames may be missing, and so may the bands.
    """
    names, array = dimensions, tile
    front = min(names.index(name) for name in names if name in _PLANE)
    if 's' not in names:
        names = (*names, 's')
        if array.ndim < len(names):
            array = array[..., np.newaxis]
    elif array.ndim == len(names) - front - 1:
        array = np.expand_dims(array, names.index('s') - front)
    missing = len(names) - array.ndim
    if not 0 <= missing <= front or 0 in tile.shape:
        msg = (f'A tile of the shape {tile.shape} does not have the dimensions '
               f'{", ".join(names)}; name each of its dimensions in axes, and none of 0.')
        raise TileSourceValueError(msg)
    return array[(np.newaxis,) * missing], names


def _arranged_mask(mask: Array, names: Sequence[str], extents: tuple[int, ...]) -> Array:
    """
    Transpose a mask: axes of frames, then rows, columns and possibly bands.

    :param names: of the tile's dimensions.
    :param extents: the lengths of the axes of frames; a mask without an axis, or of length
        1 on it, applies to all positions.
    """
    own = [name for name in names if name != 's']
    if mask.ndim == 2:
        own = [name for name in own if name in _PLANE]
    elif mask.ndim != len(own):
        own = list(names[max(0, len(names) - mask.ndim):])
    if len(own) == mask.ndim and {'x', 'y'} <= set(own):
        order = sorted(own, key=lambda name: -1 if name not in _PLANE else _PLANE.index(name))
        frames = len([name for name in own if name not in _PLANE])
        mask = mask.transpose([own.index(name) for name in order])
        plane = mask.shape[frames:]
        mask = mask[(np.newaxis,) * (len(extents) - frames)]
        if all(size in (1, extent) for size, extent in zip(mask.shape, extents, strict=False)):
            return np.broadcast_to(mask, (*extents, *plane))
    msg = (f'A mask of the shape {mask.shape} does not fit a tile with the dimensions '
           f'{", ".join(names)}.')
    raise TileSourceValueError(msg)
