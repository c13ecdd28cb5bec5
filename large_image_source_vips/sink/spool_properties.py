"""
Encode annotations and associated images as JSON properties of a shared spool.

Each field of ``Annotations`` is one property, and so is each associated image.  The axes
follow from the tiles.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.frames import Annotations

Array = npt.NDArray[Any]

_FIELDS = tuple(field.name for field in dataclasses.fields(Annotations) if field.name != 'axes')
_TUPLES = frozenset({'channel_names', 'channel_colors', 'value_axes'})
_BY_LABEL = frozenset({'palette', 'class_names'})
_IMAGE = 'associated_'


def encoded(name: str, value: Any) -> Any:
    """Convert a field of ``Annotations`` for JSON."""
    if name == 'values' and value is not None:
        return [[list(key), dict(found)] for key, found in value.items()]
    return value


def decoded(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Decode the fields of ``Annotations`` from the properties of a spool."""
    found = {name: properties[name] for name in _FIELDS if name in properties}
    if found.get('values') is None:
        # Values from tiles are kept.
        found.pop('values', None)
    for name, value in found.items():
        if name in _TUPLES and value is not None:
            found[name] = tuple(value)
        elif name in _BY_LABEL and value is not None:
            # JSON has only strings as keys.
            found[name] = {int(label): text for label, text in value.items()}
        elif name == 'values':
            found[name] = {tuple((axis, place) for axis, place in key): values
                           for key, values in value}
    return found


def associated_name(key: str) -> str:
    """The property name of an associated image; valid as a file name."""
    return _IMAGE + hashlib.sha256(key.encode()).hexdigest()[:16]


def encoded_image(pixels: Array) -> dict[str, Any]:
    """Convert an associated image (rows, cols, bands) of uint8 for JSON."""
    return {'shape': pixels.shape, 'samples': base64.b64encode(pixels.tobytes()).decode()}


def associated(properties: Mapping[str, Any]) -> dict[str, Array]:
    """Decode the associated images from the properties of a spool, by key."""
    found = {}
    for name, value in sorted(properties.items()):
        if name.startswith(_IMAGE):
            key, image = value
            found[key] = np.frombuffer(
                base64.b64decode(image['samples']), np.uint8).reshape(image['shape'])
    return found
