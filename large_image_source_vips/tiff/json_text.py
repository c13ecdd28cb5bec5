"""
Texts of this package in TIFF files: what OME-XML and the tags of TIFF have no place for.

They are JSON: in OME-XML as an annotation, in other files as the ImageDescription.  There a
description that is plain text, with nothing else to say, stands for itself.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from ..base.frames import Annotations, Axes, by_label, hex_color
from ..base.limits import LIMITS
from .ome import ome_root

# The namespace of the annotation in OME-XML, and the key of the JSON in other files.
OWN_NAMESPACE = 'large_image_source_vips/frames'
_KEY = 'large_image_source_vips'
_START = f'{{"{_KEY}": '
# The starts of descriptions that programs take apart, so that they would take this file for
# another maker's: XML, JSON, ImageJ, SCIFIO, Aperio, DICOM.
_MAKERS = ('<', '{', 'ImageJ', 'SCIFIO', 'Aperio', 'DCS', '\ufeff')


def own_notes(notes: Annotations, associated: Collection[str] = (), *, ome: bool = True,
              complete: bool = True) -> dict[str, Any]:
    """
    What a text of this package holds.

    :param notes: of the image.
    :param associated: the keys of the associated images.
    :param ome: whether OME-XML says the rest.
    :param complete: whether the frames fill the axes in order.
    :returns: an object for JSON; empty if there is nothing to say.
    """
    own: dict[str, Any] = {}
    if ome and complete and (associated or any(
            axis not in ('c', 'z', 't') or length == 1
            for axis, length in notes.axes.lengths.items())):
        own['axes'] = dict(notes.axes.lengths)
    if notes.value_axes is not None:
        own['frameAxes'] = list(notes.value_axes)
    if notes.units is not None:
        own['frameUnits'] = dict(notes.units)
    if notes.values is not None:
        own['frameValues'] = [[dict(key), dict(values)] for key, values in notes.values.items()]
    if notes.channel_names is not None and 'c' not in notes.axes.lengths:
        own['channelNames'] = list(notes.channel_names)
    if notes.channel_colors and 'c' not in notes.axes.lengths:
        own['channelColors'] = list(notes.channel_colors)
    if notes.description is not None and not (ome and isinstance(notes.description, str)):
        own['imageDescription'] = notes.description
    if notes.metadata is not None:
        own['additionalMetadata'] = notes.metadata
    if notes.magnification is not None and not ome:
        own['magnification'] = notes.magnification
    if associated:
        own['associated'] = list(associated)
    return {**own, **{name: {str(label): text for label, text in found.items()}
                      for name, found in (('palette', notes.palette),
                                          ('classNames', notes.class_names)) if found is not None}}


def plain_text(notes: Annotations, associated: Collection[str] = ()) -> str:
    """The ImageDescription of a file of one frame without OME-XML; '' for none."""
    own = own_notes(notes, associated, ome=False)
    text = own.get('imageDescription')
    if {*own} == {'imageDescription'} and isinstance(text, str) and (
            text.strip() and '\0' not in text and not text.startswith(_MAKERS)):
        return text
    if not own:
        return ''
    return json.dumps({_KEY: own})


def read_own(text: str) -> dict[str, Any]:
    """
    What a text of this package says.

    :param text: the ImageDescription of the first page.
    :returns: as from ``own_notes``; empty if there is no such text, or it is malformed.
    """
    if text.startswith(_START):
        found = _json(text)
        own = found.get(_KEY) if isinstance(found, dict) else None
        return own if isinstance(own, dict) else {}
    root = ome_root(text) if OWN_NAMESPACE in text else None
    for element in () if root is None else root.iter('CommentAnnotation'):
        if element.get('Namespace') == OWN_NAMESPACE:
            found = _json(element.findtext('Value') or '')
            return found if isinstance(found, dict) else {}
    return {}


def _json(text: str) -> Any:
    """The value of a text in JSON; None if it is malformed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def own_axes(own: Mapping[str, Any]) -> Axes | None:
    """
    The axes that a text of this package states.

    :param own: from ``read_own``.
    :returns: None if there are none, or they are malformed.
    """
    lengths = own.get('axes')
    if not isinstance(lengths, dict) or not all(
            isinstance(length, int) and 1 <= length <= LIMITS.base_frames
            for length in lengths.values()):
        return None
    axes = Axes(lengths)
    return axes if axes.count <= LIMITS.base_frames else None


def own_associated(own: Mapping[str, Any]) -> list[str]:
    """
    The keys of the associated images, which are the last pages, in their order.

    :param own: from ``read_own``.
    :returns: empty if there are none, or they are malformed.
    """
    keys = own.get('associated')
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        return []
    return keys if len({*keys}) == len(keys) else []


def own_labels(own: Mapping[str, Any], name: str) -> dict[int, str] | None:
    """
    What a text of this package says of labels.

    :param own: from ``read_own``.
    :param name: 'palette' or 'classNames'.
    :returns: by label; None if there is nothing, or it is malformed.
    """
    found = own.get(name)
    if not isinstance(found, dict):
        return None
    try:
        labels = {int(label): text for label, text in found.items()}
        return by_label(labels, name, hex_color if name == 'palette' else str)
    except ValueError:
        return None
