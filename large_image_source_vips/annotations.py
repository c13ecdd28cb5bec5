"""
Properties of a source that describe the image: channel names, values of frames, texts.

Their names and formats are those of large_image's zarr sink.  They can be read on every
source and set on new images.  Each read returns a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .base.errors import TileSourceValueError, shown
from .base.frames import (
    Annotations,
    by_label,
    hex_color,
    json_value,
    listed_by_label,
    positive_number,
    rgb_of,
    values_of_array,
)
from .source import StoreTileSource

if TYPE_CHECKING:
    from .sink.canvas import Canvas

# A function of the new value and the current annotations that returns the fields to change.
Check = Callable[[Any, Annotations], Mapping[str, Any]]


def _annotation(get: Callable[[Annotations], Any], check: Check, doc: str) -> property:
    """
    A property stored in the ``Annotations`` of a store.

    :param get: the value of the property; it is copied.
    :param check: converts a new value; raises a TileSourceError if it is not valid.
    """
    def read(self: AnnotatedTileSource) -> Any:
        return copy.deepcopy(get(self._store.annotations))

    def write(self: AnnotatedTileSource, value: Any) -> None:
        canvas = self._canvas
        canvas.annotate(lambda known: check(value, known))
        self._changed()

    return property(read, write, doc=doc)


def checked_key(value: Any) -> str | None:
    """
    Check the key of an associated image.

    :raises TileSourceError: if it is neither a text nor None.
    """
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    msg = f'imageKey must be a text or None, not {shown(value)}.'
    raise TileSourceValueError(msg)


def _texts(value: Any, name: str) -> tuple[str, ...]:
    """Check a list of texts; None is an empty one."""
    if value is None:
        return ()
    if isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value):
        return tuple(str(text) for text in value)
    msg = f'{name} must be a list of texts or None, not {shown(value)}.'
    raise TileSourceValueError(msg)


def _colors(value: Any) -> tuple[str, ...]:
    colors = _texts(value, 'channelColors')
    wrong = [color for color in colors if rgb_of(color) is None]
    if wrong:
        msg = (f"channelColors must be colours such as 'FF0000', '#ff0000' or 'red'; "
               f'{wrong[0]!r} is not a colour.')
        raise TileSourceValueError(msg)
    return colors


def _value_axes(value: Any, known: Annotations) -> dict[str, Any]:
    """Check the axes with values; units and values of other axes are dropped."""
    if value is None:
        return {'value_axes': None, 'units': None, 'values': None}
    axes = tuple(name.lower() for name in _texts(value, 'frameAxes'))
    if len(set(axes)) < len(axes) or {'x', 'y', 's'} & set(axes):
        msg = f'frameAxes must name axes of frames, each once, not {shown(value)}.'
        raise TileSourceValueError(msg)
    units = known.units and {axis: unit for axis, unit in known.units.items() if axis in axes}
    return {'value_axes': axes, 'units': units, 'values': known.values_on(axes)}


def _units(value: Any, known: Annotations) -> dict[str, Any] | None:
    axes = _known_axes(known, 'frameUnits')
    if value is None:
        return None
    if not isinstance(value, dict) or not all(axis in axes for axis in value):
        msg = (f'frameUnits must be a dictionary with keys of frameAxes ({", ".join(axes)}), '
               f'not {shown(value)}.')
        raise TileSourceValueError(msg)
    result: dict[str, Any] = json_value(value, 'frameUnits')
    return result


def _values(value: Any, known: Annotations) -> Any:
    axes = _known_axes(known, 'frameValues')
    return None if value is None else values_of_array(value, axes)


def _known_axes(known: Annotations, name: str) -> tuple[str, ...]:
    if known.value_axes is None:
        msg = f'Set frameAxes, a list of names of axes, before {name}.'
        raise TileSourceValueError(msg)
    return known.value_axes


class AnnotatedTileSource(StoreTileSource):
    """A tile source with properties that describe its channels and frames."""

    if TYPE_CHECKING:
        @property
        def _canvas(self) -> Canvas: ...

        def _changed(self) -> None: ...

    channelNames = _annotation(
        lambda annotations: annotations.channel_names and list(annotations.channel_names),
        lambda value, _: {'channel_names': _texts(value, 'channelNames') or None},
        """
        The names of the channels, or None.

        A list with one name for each position on the axis C, or without that axis for each
        band.

        :raises TileSourceError: if it is set to anything else.
        """)

    channelColors = _annotation(
        lambda annotations: list(annotations.channel_colors),
        lambda value, _: {'channel_colors': _colors(value)},
        """
        The colours of the channels, a list such as ``['0000FF', '#00ff00', 'red']``.

        It is empty if they are unknown.

        :raises TileSourceError: if one is not a colour.
        """)

    frameAxes = _annotation(
        lambda annotations: annotations.value_axes and list(annotations.value_axes),
        _value_axes,
        """
        The axes whose positions have values, a list such as ``['z', 't']``, or None.

        Values passed to ``addTile`` add their axes.
        """)

    frameUnits = _annotation(
        lambda annotations: None if annotations.units is None else dict(annotations.units),
        lambda value, known: {'units': _units(value, known)},
        """
        The units of the values, by axis, or None.

        :raises TileSourceError: if ``frameAxes`` is not set, or lacks an axis; it is also
            a ValueError.
        """)

    frameValues = _annotation(
        Annotations.values_array,
        lambda value, known: {'values': _values(value, known)},
        """
        The values of the positions, or None.

        An array of objects: one dimension for each of ``frameAxes``, then one with the
        value on each of these axes.  Unknown values are 0.

        :raises TileSourceError: if ``frameAxes`` is not set, or the array has another
            number of dimensions; it is also a ValueError.
        """)

    imageDescription = _annotation(
        lambda annotations: annotations.description,
        lambda value, _: {'description': json_value(value, 'imageDescription')},
        """
        A text, or anything that can be stored as JSON; None if there is none.

        :raises TileSourceError: if it is set to anything else.
        """)

    additionalMetadata = _annotation(
        lambda annotations: annotations.metadata,
        lambda value, _: {'metadata': json_value(value, 'additionalMetadata')},
        """
        Further metadata, anything that can be stored as JSON; None if there are none.

        :raises TileSourceError: if it is set to anything else.
        """)

    magnification = _annotation(
        lambda annotations: annotations.magnification,
        lambda value, _: {'magnification': positive_number(value, 'magnification')},
        """
        The magnification of the objective if the file states it, else None.

        ``getNativeMagnification`` estimates it if only the pixel size is known.
        """)

    palette = _annotation(
        lambda annotations: listed_by_label(annotations.palette),
        lambda value, _: {'palette': by_label(value, 'palette', hex_color)},
        """
        The colours of labels, or None.

        A list that begins with label 0, such as ``['#000000', 'red', (0, 128, 255)]``, or a
        dictionary by label; '#rrggbb' when it is read.  An image with a palette is one band
        of integers, which are never averaged or compressed with loss.

        :raises TileSourceError: if it is set to anything else; it is also a ValueError.
        """)

    classNames = _annotation(
        lambda annotations: listed_by_label(annotations.class_names),
        lambda value, _: {'class_names': by_label(
            value, 'classNames', lambda name: name if isinstance(name, str) else None)},
        """
        The names of labels, or None: a list that begins with label 0, or a dictionary.

        :raises TileSourceError: if it is set to anything else; it is also a ValueError.
        """)
