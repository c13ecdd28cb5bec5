"""
Axes of frames, and annotations of an image: channel names, units, values, texts.

A frame has a position on every axis, 0 if not given.  So adding an axis later changes the
numbers of earlier frames, but not their positions.
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.ImageColor

from .errors import TileSourceValueError, shown
from .limits import LIMITS

# The nonzero positions of a frame, sorted by axis.
Position = tuple[tuple[str, int], ...]


def position_key(position: Mapping[str, int]) -> Position:
    """The hashable form of a position; axes at 0 are left out."""
    return tuple(sorted((axis, place) for axis, place in position.items() if place))


@dataclass(frozen=True)
class Axes:
    """
    The axes of an image and their lengths, slowest first.

    Frames are numbered from 0, the last axis fastest.  Without axes there is one frame.
    """

    lengths: Mapping[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of frames."""
        return math.prod(self.lengths.values())

    def position(self, frame: int) -> dict[str, int]:
        """The position of a frame on each axis."""
        result = {}
        for axis, length in reversed([*self.lengths.items()]):
            frame, result[axis] = divmod(frame, length)
        return {axis: result[axis] for axis in self.lengths}

    def number(self, position: Mapping[str, int]) -> int:
        """The number of the frame at a position; missing axes are at 0."""
        result = 0
        for axis, length in self.lengths.items():
            result = result * length + position.get(axis, 0)
        return result

    def positions(self) -> Iterator[dict[str, int]]:
        """The positions of all frames, in order."""
        return (self.position(frame) for frame in range(self.count))

    def grown(self, lengths: Mapping[str, int]) -> Axes:
        """
        Extend the axes so that they contain a tile.

        A new axis is inserted before the axis that follows it in the tile; if there is
        none, after the axis that precedes it; else first.

        :param lengths: the lengths that the tile needs, slowest axis first.
        :returns: new axes, or this object if they are long enough.
        :raises TileSourceError: if there would be too many frames.
        """
        if all(self.lengths.get(axis, 0) >= length for axis, length in lengths.items()):
            return self
        order = list(self.lengths)
        for place, axis in reversed(list(enumerate(lengths))):
            if axis not in order:
                known = [order.index(other) if other in order else -1 for other in lengths]
                following = [index for index in known[place + 1:] if index >= 0]
                order.insert(following[0] if following else max(known[:place], default=-1) + 1,
                             axis)
        result = Axes({axis: max(self.lengths.get(axis, 1), lengths.get(axis, 1))
                       for axis in order})
        if result.count > LIMITS.base_frames:
            sizes = ', '.join(f'{axis} {length}' for axis, length in result.lengths.items())
            msg = (f'The image would have {result.count:,} frames ({sizes}); the maximum is '
                   f'{LIMITS.base_frames:,}.')
            raise TileSourceValueError(msg)
        return result


@dataclass(frozen=True)
class Annotations:
    """
    The axes, channels, values and texts of an image, in the formats of large_image's zarr
    sink.

    :param axes: of the frames; empty if there is one frame, or if the frames of a file do
        not fill a grid.
    :param channel_names: along the axis C or, without one, of the bands; None if unknown.
    :param channel_colors: likewise, such as 'FF0000'.
    :param value_axes: the axes whose positions have values; None if not set.
    :param units: of the values, by axis; None if not set.
    :param values: the values of positions (microns, seconds, names), by position on the
        value axes, then by axis; None if no position has a value.
    :param description: a text, or anything that JSON can store; None if not set.
    :param metadata: further metadata, anything that JSON can store; None if not set.
    :param magnification: of the objective; None if not stated.
    :param palette: the colours of labels, '#rrggbb' by label; None if the image has none.
    :param class_names: the names of labels, by label; None if not set.
    """

    axes: Axes = field(default_factory=Axes)
    channel_names: tuple[str, ...] | None = None
    channel_colors: tuple[str, ...] = ()
    value_axes: tuple[str, ...] | None = None
    units: Mapping[str, Any] | None = None
    values: Mapping[Position, Mapping[str, Any]] | None = None
    description: Any = None
    metadata: Any = None
    magnification: float | None = None
    palette: Mapping[int, str] | None = None
    class_names: Mapping[int, str] | None = None

    def value_key(self, position: Mapping[str, int]) -> Position:
        """The key of a position in ``values``."""
        return position_key({axis: position.get(axis, 0) for axis in self.value_axes or ()})

    def values_at(self, position: Mapping[str, int]) -> dict[str, Any]:
        """The value of a position on each value axis; 0 where none was given."""
        if self.values is None or self.value_axes is None:
            return {}
        found = self.values.get(self.value_key(position), {})
        return {axis: found.get(axis, 0) for axis in self.value_axes}

    def values_array(self) -> npt.NDArray[np.object_] | None:
        """The values of all positions: one dimension per value axis, then one entry per axis."""
        if self.values is None or self.value_axes is None:
            return None
        lengths = {axis: self.axes.lengths.get(axis, 1) for axis in self.value_axes}
        for key in self.values:
            for axis, place in key:
                lengths[axis] = max(lengths[axis], place + 1)
        array = np.zeros((*lengths.values(), len(lengths)), object)
        for key, found in self.values.items():
            places = dict(key)
            entry = array[tuple(places.get(axis, 0) for axis in self.value_axes)]
            entry[:] = [found.get(axis, 0) for axis in self.value_axes]
        return array

    def values_on(self, axes: tuple[str, ...]) -> dict[Position, dict[str, Any]] | None:
        """The values on other axes; values at positions that these axes lack are dropped."""
        if self.values is None:
            return None
        return {key: {axis: value for axis, value in found.items() if axis in axes}
                for key, found in self.values.items() if {axis for axis, _ in key} <= {*axes}}

    def frames(self) -> list[dict[str, Any]]:
        """
        The position and the values of each frame, as in large_image's ``getMetadata``.

        :returns: dictionaries such as ``{'IndexC': 0, 'ValueC': 'DAPI'}``.
        """
        return [{**{f'Index{axis.upper()}': place for axis, place in position.items()},
                 **{f'Value{axis.upper()}': value
                    for axis, value in self.values_at(position).items()}}
                for position in self.axes.positions()]


def values_of_array(array: Any, axes: tuple[str, ...]) -> dict[Position, dict[str, Any]]:
    """
    Read the values of positions from an array.

    :param array: one dimension for each axis, then one of ``len(axes)``.
    :param axes: the value axes.
    :raises TileSourceValueError: if it has another shape, or values that are neither
        numbers nor text.
    """
    array = np.asarray(array, object)
    if array.ndim != len(axes) + 1 or array.shape[-1] != len(axes):
        msg = (f'frameValues must have {len(axes) + 1} dimensions, one for each of frameAxes '
               f'({", ".join(axes)}) and a last one of {len(axes)}, not the shape {array.shape}.')
        raise TileSourceValueError(msg)
    return {position_key(dict(zip(axes, place, strict=True))): {
        axis: plain_value(value, 'frameValues')
        for axis, value in zip(axes, array[place], strict=True)}
        for place in np.ndindex(array.shape[:-1])}


def plain_value(value: Any, name: str) -> Any:
    """
    Convert the value of a position to a built-in Python type.

    :param value: a number, text or None, or a numpy scalar of these.
    :param name: of the keyword or property, for the error text.
    :raises TileSourceError: for anything else, infinity and NaN.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    msg = f'{name} must be a finite number or text, not {shown(value)}.'
    raise TileSourceValueError(msg)



def frame_number(value: Any) -> int:
    """
    The number of a frame: an integer or a text with one, as in large_image; 0 for None.

    :raises TileSourceValueError: for anything else.
    """
    try:
        return 0 if value is None else int(value)
    except (TypeError, ValueError, OverflowError) as exc:
        msg = f'frame must be the number of a frame, not {shown(value)}.'
        raise TileSourceValueError(msg) from exc


def positive_number(value: Any, name: str) -> float | None:
    """
    Check a number that may be unknown.

    :param value: None, or a finite number above 0.
    :param name: of the property, for the error text.
    :raises TileSourceValueError: for anything else.
    """
    if value is None:
        return None
    msg = f'{name} must be positive or None, not {shown(value)}.'
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise TileSourceValueError(msg) from exc
    if not (result > 0 and math.isfinite(result)):
        raise TileSourceValueError(msg)
    return result


def json_value(value: Any, name: str) -> Any:
    """
    A copy of a value that can be stored as JSON.

    :param name: of the property, for the error text.
    :raises TileSourceValueError: if JSON cannot store it.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as exc:
        msg = f'{name} must be JSON serializable: {exc}'
        raise TileSourceValueError(msg) from exc


def rgb_of(color: Any) -> tuple[int, int, int] | None:
    """
    Red, green and blue of a colour, 0 to 255; None if it is not a colour.

    :param color: 'FF0000', '#ff0000' or a colour name of Pillow.
    """
    if not isinstance(color, str):
        return None
    for text in (color, f'#{color}'):
        try:
            red, green, blue = PIL.ImageColor.getrgb(text)[:3]
        except ValueError:
            continue
        return red, green, blue
    return None


def by_label(value: Any, name: str, each: Callable[[Any], str | None]) -> dict[int, str] | None:
    """
    Check a list or dictionary with an entry for each label.

    :param value: None, a list that begins with label 0, or a dictionary by label.
    :param name: of the property, for the error text.
    :param each: converts one entry; returns None if it is not valid.
    :raises TileSourceValueError: if it is something else, or has too many or invalid
        entries.
    """
    if value is None:
        return None
    found = value if isinstance(value, Mapping) else (
        dict(enumerate(value)) if isinstance(value, (list, tuple)) or (
            isinstance(value, np.ndarray) and value.ndim) else None)
    if found is None or len(found) > LIMITS.base_colors:
        msg = (f'{name} must be None, or a list or dictionary by label of at most '
               f'{LIMITS.base_colors:,} entries, not {shown(value)}.')
        raise TileSourceValueError(msg)
    result = {}
    for label, one in found.items():
        converted = each(one)
        if isinstance(label, bool) or not isinstance(label, numbers.Integral) or converted is None:
            msg = f'{name}: {shown(one)} is not valid for the label {shown(label)}.'
            raise TileSourceValueError(msg)
        result[int(label)] = converted
    return dict(sorted(result.items()))


def hex_color(color: Any) -> str | None:
    """
    A colour as '#rrggbb'; None if it is not a colour.

    :param color: as for ``rgb_of``, or red, green and blue from 0 to 255.
    """
    if not isinstance(color, (list, tuple, np.ndarray)):
        rgb = rgb_of(color)
    else:
        whole = len(color) == 3 and all(
            isinstance(part, numbers.Integral) and 0 <= int(part) <= 255 for part in color)
        rgb = (int(color[0]), int(color[1]), int(color[2])) if whole else None
    return None if rgb is None else '#{:02x}{:02x}{:02x}'.format(*rgb)


def listed_by_label(found: Mapping[int, str] | None) -> list[str] | dict[int, str] | None:
    """A list if the labels are 0, 1, ... without a gap, else a dictionary."""
    if found is None:
        return None
    return [*found.values()] if list(found) == list(range(len(found))) else dict(found)
