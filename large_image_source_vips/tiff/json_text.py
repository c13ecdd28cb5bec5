"""
JSON texts of this package in TIFF files, for data that OME-XML and TIFF tags cannot hold.

OME-XML contains the JSON as an annotation; in other files it is the ImageDescription.  If
there is only a plain text description, the ImageDescription is that text.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from ..base.frames import Annotations, Axes, by_label, hex_color
from ..base.limits import LIMITS
from .ome import ome_root

# The namespace of the annotation in OME-XML, and the key of the JSON in other files.
JSON_NAMESPACE = 'large_image_source_vips/frames'
_KEY = 'large_image_source_vips'
_START = f'{{"{_KEY}": '
# Starts of descriptions that programs parse; they would take the file for another maker's:
# XML, JSON, ImageJ, SCIFIO, Aperio, DICOM.
_MAKERS = ('<', '{', 'ImageJ', 'SCIFIO', 'Aperio', 'DCS', '\ufeff')


def json_fields(annotations: Annotations, associated: Collection[str] = (), *, ome: bool = True,
              complete: bool = True) -> dict[str, Any]:
    """
    Collect the data for the JSON text.

    :param annotations: of the image.
    :param associated: the keys of the associated images.
    :param ome: whether OME-XML holds the rest.
    :param complete: whether the frames fill the axes in order.
    :returns: an object for JSON; empty if there is nothing to store.
    """
    fields: dict[str, Any] = {}
    description = annotations.description
    if ome and complete and (associated or any(
            axis not in ('c', 'z', 't') or length == 1
            for axis, length in annotations.axes.lengths.items())):
        fields['axes'] = dict(annotations.axes.lengths)
    if annotations.value_axes is not None:
        fields['frameAxes'] = list(annotations.value_axes)
    if annotations.units is not None:
        fields['frameUnits'] = dict(annotations.units)
    if annotations.values is not None:
        fields['frameValues'] = [
            [dict(key), dict(values)] for key, values in annotations.values.items()]
    if annotations.channel_names is not None and 'c' not in annotations.axes.lengths:
        fields['channelNames'] = list(annotations.channel_names)
    if annotations.channel_colors and 'c' not in annotations.axes.lengths:
        fields['channelColors'] = list(annotations.channel_colors)
    if description is not None and not (ome and isinstance(description, str)):
        fields['imageDescription'] = description
    if annotations.metadata is not None:
        fields['additionalMetadata'] = annotations.metadata
    if annotations.magnification is not None and not ome:
        fields['magnification'] = annotations.magnification
    if associated:
        fields['associated'] = list(associated)
    labels = {'palette': annotations.palette, 'classNames': annotations.class_names}
    return {**fields, **{name: {str(label): text for label, text in found.items()}
                         for name, found in labels.items() if found is not None}}


def plain_text(annotations: Annotations, associated: Collection[str] = ()) -> str:
    """The ImageDescription of a file of one frame without OME-XML; '' for none."""
    fields = json_fields(annotations, associated, ome=False)
    text = fields.get('imageDescription')
    if {*fields} == {'imageDescription'} and isinstance(text, str) and (
            text.strip() and '\0' not in text and not text.startswith(_MAKERS)):
        return text
    if not fields:
        return ''
    return json.dumps({_KEY: fields})


def read_json_text(text: str) -> dict[str, Any]:
    """
    Parse the JSON text of this package.

    :param text: the ImageDescription of the first page.
    :returns: as from ``json_fields``; empty if there is no such text, or it is malformed.
    """
    if text.startswith(_START):
        found = _json(text)
        fields = found.get(_KEY) if isinstance(found, dict) else None
        return fields if isinstance(fields, dict) else {}
    root = ome_root(text) if JSON_NAMESPACE in text else None
    for element in () if root is None else root.iter('CommentAnnotation'):
        if element.get('Namespace') == JSON_NAMESPACE:
            found = _json(element.findtext('Value') or '')
            return found if isinstance(found, dict) else {}
    return {}


def _json(text: str) -> Any:
    """The value of a text in JSON; None if it is malformed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def axes_of_json(fields: Mapping[str, Any]) -> Axes | None:
    """
    The axes in a JSON text of this package.

    :param fields: from ``read_json_text``.
    :returns: None if they are missing or malformed.
    """
    lengths = fields.get('axes')
    if not isinstance(lengths, dict) or not all(
            isinstance(length, int) and 1 <= length <= LIMITS.base_frames
            for length in lengths.values()):
        return None
    axes = Axes(lengths)
    return axes if axes.count <= LIMITS.base_frames else None


def associated_of_json(fields: Mapping[str, Any]) -> list[str]:
    """
    The keys of the associated images, which are the last pages, in their order.

    :param fields: from ``read_json_text``.
    :returns: empty if there are none, or they are malformed.
    """
    keys = fields.get('associated')
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        return []
    return keys if len({*keys}) == len(keys) else []


def labels_of_json(fields: Mapping[str, Any], name: str) -> dict[int, str] | None:
    """
    The colours or names of labels in a JSON text of this package.

    :param fields: from ``read_json_text``.
    :param name: 'palette' or 'classNames'.
    :returns: by label; None if they are missing or malformed.
    """
    found = fields.get(name)
    if not isinstance(found, dict):
        return None
    try:
        labels = {int(label): text for label, text in found.items()}
        return by_label(labels, name, hex_color if name == 'palette' else str)
    except ValueError:
        return None
