"""
Read the axes, channel names, colours, units and texts of a file.

They come from OME-XML, and from the JSON that this package writes for what OME-XML cannot
hold (see ``tiff.json_text``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.frames import Annotations, Axes, Position, position_key
from ..tiff import ome
from ..tiff.directories import TiffDirectories, TiffFormatError
from ..tiff.json_text import axes_of_json, labels_of_json, read_json_text
from ..tiff.ome import positive, unit_in_mm, unit_in_seconds
from ..tiff.page import DESCRIPTION
from .file import SourceFile
from .layout import Layout

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

# The starts of descriptions that programs write for programs, not for people.
_NOT_DESCRIPTIONS = ('ImageJ=', 'SCIFIO=', '<')


def annotations_of(file: SourceFile, layout: Layout, magnification: float | None) -> Annotations:
    """
    The annotations of a file.

    :param magnification: of the objective, None if the file does not state it.
    """
    text = _first_text(file)
    root, fields = ome.ome_root(text), read_json_text(text)
    axes = axes_of_json(fields)
    if axes is None or '' in axes.lengths or axes.count != len(layout.frames):
        axes = axes_of(layout.axes)
    names = layout.channels or _texts(fields.get('channelNames'))
    colors: Sequence[str] = _texts(fields.get('channelColors'))
    description: Any = text if text and not text.startswith(_NOT_DESCRIPTIONS) else None
    if fields and root is None:
        description = fields.get('imageDescription')
    if root is not None:
        first = root.find('Image')
        description = fields.get('imageDescription') or (
            None if first is None else first.findtext('Description'))
        series = ome.ome_series(text, '', 1, 0)
        if not colors and series:
            found = [channel.color for channel in series[0].channels]
            colors = [color.lstrip('#').upper() for color in found if color] if all(found) else []
    of_labels = layout.bands - (layout.frames[0].alpha is not None) == 1 and (
        layout.dtype.kind in 'iu')
    annotations = Annotations(axes, tuple(names) or None, tuple(colors), description=description,
                        metadata=fields.get('additionalMetadata'), magnification=magnification,
                        # Programs that convert labels to RGB may keep our JSON.
                        palette=labels_of_json(fields, 'palette') if of_labels else None,
                        class_names=labels_of_json(fields, 'classNames'))
    value_axes = _texts(fields.get('frameAxes')) or None
    if value_axes is None:
        return annotations if root is None else _with_steps(annotations, root)
    units = fields.get('frameUnits')
    return replace(annotations, value_axes=value_axes,
                   units=units if isinstance(units, dict) else None,
                   values=_values(fields.get('frameValues')))


def _with_steps(annotations: Annotations, root: Element) -> Annotations:
    """Add depths in µm and times in s, from the steps along Z and T in OME-XML."""
    pixels = root.find('Image/Pixels')
    if pixels is None:
        return annotations
    depth, time = positive(pixels.get('PhysicalSizeZ')), positive(pixels.get('TimeIncrement'))
    per_mm = unit_in_mm(pixels.get('PhysicalSizeZUnit', 'µm'))
    per_second = unit_in_seconds(pixels.get('TimeIncrementUnit', 's'))
    steps = {axis: step for axis, step in {
        'z': depth and per_mm and depth * per_mm * 1e3,
        't': time and per_second and time * per_second}.items()
        if step and annotations.axes.lengths.get(axis, 1) > 1}
    value_axes = tuple(axis for axis in annotations.axes.lengths if axis in steps)
    if not value_axes:
        return annotations
    values: dict[Position, dict[str, Any]] = {}
    for place in np.ndindex(*(annotations.axes.lengths[axis] for axis in value_axes)):
        position = dict(zip(value_axes, place, strict=True))
        values[position_key(position)] = {
            # Twelve digits: 0.3, not 0.30000000000000004.
            axis: float(f'{steps[axis] * number:.12g}') for axis, number in position.items()}
    units = {'z': 'µm', 't': 's'}
    return replace(annotations, value_axes=value_axes, values=values,
                   units={axis: units[axis] for axis in value_axes})


def axes_of(frames: Sequence[Mapping[str, int]]) -> Axes:
    """
    The axes of frames, from the position of each.

    :param frames: such as ``{'IndexC': 0, 'IndexZ': 3}``, in frame order.
    :returns: no axes if the frames are not a complete grid, numbered axis by axis.
    """
    if len(frames) < 2:
        return Axes()
    axes, positions = _enclosing_axes(frames), positions_of(frames)
    same = axes.count == len(frames) and all(
        found == wanted for found, wanted in zip(positions, axes.positions(), strict=True))
    return axes if same else Axes()


def positions_of(frames: Sequence[Mapping[str, int]]) -> list[dict[str, int]]:
    """The position of each frame by axis: ``{'IndexC': 0}`` -> ``{'c': 0}``."""
    return [{key.removeprefix('Index').lower(): place for key, place in frame.items()}
            for frame in frames]


def _enclosing_axes(frames: Sequence[Mapping[str, int]]) -> Axes:
    """The shortest axes that contain all positions."""
    lengths = {key: 1 + max(frame.get(key, 0) for frame in frames) for key in frames[0]}
    # The slowest axis is the last one to leave position 0.
    first = {key: next((number for number, frame in enumerate(frames) if frame.get(key)), 0)
             for key in lengths}
    order = sorted(lengths, key=lambda key: -first[key])
    return Axes({key.removeprefix('Index').lower(): lengths[key] for key in order})


def with_positions(annotations: Annotations, layout: Layout,
                   ) -> tuple[Annotations, list[dict[str, int]] | None]:
    """
    Annotations to write, with axes that cover all frames of a file.

    :param annotations: those of the file.
    :returns: the annotations, and the position of each frame (None if the frames fill the
        axes in order).  Frames without axes get one axis with the name ''.
    """
    count = len(layout.frames)
    if annotations.axes.count == count:
        return annotations, None
    if layout.axes:
        return replace(annotations, axes=_enclosing_axes(layout.axes)), positions_of(layout.axes)
    return replace(annotations, axes=Axes({'': count})), None


def _first_text(file: SourceFile) -> str:
    """The ImageDescription of the first page of a TIFF file; '' for other files."""
    if file.loader.name != 'tiffload':
        return ''
    with file.descriptor() as descriptor:
        try:
            tiff = TiffDirectories(descriptor)
            return tiff.text(next(tiff.pages()).entries.get(DESCRIPTION))
        except (TiffFormatError, StopIteration):
            return ''


def _texts(found: Any) -> tuple[str, ...]:
    """A list of texts from a file; empty if it is not such a list."""
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        return ()
    return tuple(found)


def _values(found: Any) -> dict[Any, dict[str, Any]] | None:
    """The values of positions from a file; None if they are malformed."""
    try:
        return {position_key({str(axis): int(place) for axis, place in position.items()}):
                dict(values) for position, values in found}
    except (TypeError, ValueError, AttributeError):
        return None
