"""
Reads what a file says of its channels and frames besides pixels.

OME-XML gives names, colours, units and positions; an annotation that this package writes
gives what OME has no place for (see ``tiff.ome_text``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..base.frames import Annotations, Axes, position_key
from ..tiff import ome
from ..tiff.directories import DESCRIPTION, TiffDirectories, TiffFormatError
from ..tiff.ome_text import ome_own, own_axes
from .file import SourceFile
from .layout import Layout

# The texts of makers, which their readers take apart; they are no description by a person.
_NOT_DESCRIPTIONS = ('ImageJ=', 'SCIFIO=', '<')


def annotations_of(file: SourceFile, layout: Layout, magnification: float | None) -> Annotations:
    """
    The annotations of a file.

    :param magnification: of the objective, None if the file does not state it.
    """
    text = _first_text(file)
    root, own = ome.ome_root(text), ome_own(text)
    axes = own_axes(own)
    if axes is None or axes.count != len(layout.frames):
        axes = axes_of(layout.axes)
    names = layout.channels or _texts(own.get('channelNames'))
    colors: Sequence[str] = _texts(own.get('channelColors'))
    description: Any = text if text and not text.startswith(_NOT_DESCRIPTIONS) else None
    if root is not None:
        first = root.find('Image')
        description = own.get('imageDescription') or (
            None if first is None else first.findtext('Description'))
        series = ome.ome_series(text, '', 1, 0)
        if not colors and series:
            found = [channel.color for channel in series[0].channels]
            colors = [color.lstrip('#').upper() for color in found if color] if all(found) else []
    value_axes = _texts(own.get('frameAxes')) or None
    units = own.get('frameUnits')
    return Annotations(
        axes, tuple(names) or None, tuple(colors), value_axes,
        units if isinstance(units, dict) and value_axes else None,
        _values(own.get('frameValues')) if value_axes else None, description,
        own.get('additionalMetadata'), magnification)


def axes_of(frames: Sequence[Mapping[str, int]]) -> Axes:
    """
    The axes of frames, from the position of each.

    :param frames: such as ``{'IndexC': 0, 'IndexZ': 3}``, in frame order.
    :returns: no axes if the frames are not a complete grid, numbered axis by axis.
    """
    if len(frames) < 2:
        return Axes()
    lengths = {key: 1 + max(frame.get(key, 0) for frame in frames) for key in frames[0]}
    if math.prod(lengths.values()) != len(frames):
        return Axes()
    # A slow axis is at 1 for the first time after many frames.
    first = {key: next((number for number, frame in enumerate(frames) if frame.get(key)), 0)
             for key in lengths}
    order = sorted(lengths, key=lambda key: -first[key])
    axes = Axes({key.removeprefix('Index').lower(): lengths[key] for key in order})
    expected = ({f'Index{axis.upper()}': place for axis, place in position.items()}
                for position in axes.positions())
    same = all(dict(frame) == wanted for frame, wanted in zip(frames, expected, strict=True))
    return axes if same else Axes()


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
    """A list of texts from a file; empty if it is none."""
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
