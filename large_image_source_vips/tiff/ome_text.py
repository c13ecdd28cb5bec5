"""
Make the OME-XML text of an OME-TIFF file, by the OME schema 2016-06.

OME has the axes C, Z and T, and one image for each stage position (here the axis XY).
Other axes are combined with T; the text then has the original axes as JSON in an annotation
(``json_text``).  Other readers see a longer T.

Values are in OME's default units: sizes in µm, times in s.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..base.frames import Annotations, Axes, rgb_of
from ..base.geometry import Size
from .json_text import JSON_NAMESPACE, json_fields
from .ome import unit_in_mm, unit_in_seconds

NAMESPACE = 'http://www.openmicroscopy.org/Schemas/OME/2016-06'
_SCHEMA = 'http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd'
_XSI = 'http://www.w3.org/2001/XMLSchema-instance'
_KEY_VALUES = 'openmicroscopy.org/omero/client/mapAnnotation'

_TYPES = {
    'uint8': 'uint8', 'int8': 'int8', 'uint16': 'uint16', 'int16': 'int16', 'uint32': 'uint32',
    'int32': 'int32', 'float32': 'float', 'float64': 'double', 'complex64': 'complex',
    'complex128': 'double-complex'}
# Characters that XML 1.0 does not allow.
_NOT_XML = '[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]'
# The allowed relative difference of the steps of evenly spaced values: decimals such as 0.1
# are not exact.
_STEP_SHARE = 1e-6


@dataclass(frozen=True)
class OmeImage:
    """
    The image that the text describes.

    :param size: of each page.
    :param dtype: of the samples.
    :param samples: the samples of each pixel, alpha included.
    :param pixel_size: width and height of a pixel in mm, None where unknown.
    :param annotations: the axes, channels, values and texts.
    :param associated: the size and samples of each associated image, by key; their
        pages, of uint8, follow those of the frames.
    :param positions: of the frames; None if they fill the axes in order.
    :param name: of the image.
    """

    size: Size
    dtype: np.dtype[Any]
    samples: int
    pixel_size: tuple[float | None, float | None] = (None, None)
    annotations: Annotations = field(default_factory=Annotations)
    associated: Mapping[str, tuple[Size, int]] = field(default_factory=dict)
    positions: Sequence[Mapping[str, int]] | None = None
    name: str = ''

    @property
    def frames(self) -> Sequence[Mapping[str, int]]:
        """The position of each frame."""
        if self.positions is None:
            return list(self.annotations.axes.positions())
        return self.positions


@dataclass(frozen=True)
class _Plan:
    """
    The mapping of the axes of a file to those of OME.

    :param images: the positions on XY; one image each.
    :param order: C, Z and T, fastest first.
    :param lengths: of C, Z and T.
    :param folded: the axes combined in T, slowest first; ['t'] or [] if only t is.
    """

    images: int
    order: str
    lengths: Mapping[str, int]
    folded: Sequence[str]

    def place(self, axes: Axes, position: Mapping[str, int]) -> dict[str, int]:
        """The position of a frame on C, Z and T."""
        time = 0
        for axis in self.folded:
            time = time * axes.lengths[axis] + position[axis]
        return {'C': position.get('c', 0), 'Z': position.get('z', 0), 'T': time}


def ome_text(image: OmeImage) -> str:
    """
    The text, ASCII only, for the ImageDescription of the first page.

    The pages are the frames in their order, then the associated images.
    """
    annotations = image.annotations
    ElementTree.register_namespace('', NAMESPACE)
    ElementTree.register_namespace('xsi', _XSI)
    root = _element('OME', {f'{{{_XSI}}}schemaLocation': f'{NAMESPACE} {_SCHEMA}',
                            'Creator': 'large_image_source_vips'})
    plan = _plan(annotations.axes)
    if annotations.magnification is not None:
        _add(_add(root, 'Instrument', ID='Instrument:0'), 'Objective', ID='Objective:0',
             NominalMagnification=_number(annotations.magnification))
    structured = _structured(image)
    pages = _pages_by_image(image.frames)
    for number in range(plan.images):
        element = _add(root, 'Image', ID=f'Image:{number}',
                       Name=image.name or f'Image {number}')
        _describe(element, annotations)
        _pixels(element, image, plan, number, pages.get(number, []))
        for annotation in structured:
            _add(element, 'AnnotationRef', ID=annotation.get('ID', ''))
    for number, (key, (size, samples)) in enumerate(image.associated.items()):
        which = plan.images + number
        element = _add(root, 'Image', ID=f'Image:{which}', Name=key)
        pixels = _add(
            element, 'Pixels', ID=f'Pixels:{which}', DimensionOrder='XYCZT', Type='uint8',
            SizeX=size.width, SizeY=size.height, SizeC=samples, SizeZ=1, SizeT=1)
        _add(pixels, 'Channel', ID=f'Channel:{which}:0', SamplesPerPixel=samples)
        _add(pixels, 'TiffData', IFD=len(image.frames) + number, PlaneCount=1)
    if structured:
        _add(root, 'StructuredAnnotations').extend(structured)
    # Other characters become references, so the text is ASCII and valid UTF-8.
    text = ElementTree.tostring(root, encoding='us-ascii', xml_declaration=False).decode()
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'


def _plan(axes: Axes) -> _Plan:
    """Map the axes of the frames to those of OME."""
    lengths = axes.lengths
    folded = [axis for axis in lengths if axis not in ('c', 'z', 'xy')]
    ranked = {'c': 'C', 'z': 'Z'}
    if folded:
        # T takes the place of its fastest axis.
        ranked[folded[-1]] = 'T'
    order = ''.join(ranked[axis] for axis in reversed([*lengths]) if axis in ranked)
    order += ''.join(letter for letter in 'CZT' if letter not in order)
    time = 1
    for axis in folded:
        time *= lengths[axis]
    return _Plan(lengths.get('xy', 1), order,
                 {'C': lengths.get('c', 1), 'Z': lengths.get('z', 1), 'T': time}, folded)


# The page and the position of a frame.
Page = tuple[int, Mapping[str, int]]


def _pages_by_image(positions: Sequence[Mapping[str, int]]) -> dict[int, list[Page]]:
    """The pages of the frames, by their position on XY."""
    found: dict[int, list[Page]] = {}
    for page, position in enumerate(positions):
        found.setdefault(position.get('xy', 0), []).append((page, position))
    return found


def _describe(element: ElementTree.Element, annotations: Annotations) -> None:
    """Add the description and the objective of an image."""
    if annotations.description is not None:
        text = annotations.description
        _add(element, 'Description').text = _xml(
            text if isinstance(text, str) else json.dumps(text))
    if annotations.magnification is not None:
        _add(element, 'InstrumentRef', ID='Instrument:0')
        _add(element, 'ObjectiveSettings', ID='Objective:0')


def _pixels(element: ElementTree.Element, image: OmeImage, plan: _Plan, number: int,
            pages: Sequence[Page]) -> None:
    """Add the pixels of an image: sizes, channels, the page and position of each plane."""
    annotations = image.annotations
    attributes: dict[str, Any] = {
        'ID': f'Pixels:{number}', 'DimensionOrder': f'XY{plan.order}',
        'Type': _TYPES[image.dtype.name], 'SizeX': image.size.width, 'SizeY': image.size.height,
        'SizeC': plan.lengths['C'] * image.samples, 'SizeZ': plan.lengths['Z'],
        'SizeT': plan.lengths['T']}
    steps = dict(zip('XY', image.pixel_size, strict=True))
    for axis, size in {**steps, 'Z': _step(annotations, 'z', _lengths(annotations, 'z'))}.items():
        if size is not None:
            attributes[f'PhysicalSize{axis}'] = _number(size * 1e3)
    increment = _step(annotations, 't', _times(annotations)) if list(plan.folded) == ['t'] else None
    if increment is not None:
        attributes['TimeIncrement'] = _number(increment)
    pixels = _add(element, 'Pixels', **attributes)
    for channel in range(plan.lengths['C']):
        _channel(pixels, image, number, channel)
    _planes(pixels, plan, annotations, pages)


def _channel(pixels: ElementTree.Element, image: OmeImage, number: int, channel: int) -> None:
    """Add a channel: its name, colour and wavelength."""
    annotations = image.annotations
    attributes: dict[str, Any] = {
        'ID': f'Channel:{number}:{channel}', 'SamplesPerPixel': image.samples}
    value = annotations.values_at({'c': channel}).get('c')
    names = annotations.channel_names or ()
    if image.samples == 1 or 'c' in annotations.axes.lengths or len(names) == 1:
        if channel < len(names):
            attributes['Name'] = names[channel]
        if channel < len(annotations.channel_colors):
            color = rgb_of(annotations.channel_colors[channel])
            if color is not None:
                # RGBA in a signed integer.
                attributes['Color'] = int.from_bytes(bytes([*color, 255]), 'big', signed=True)
    if 'Name' not in attributes and isinstance(value, str):
        attributes['Name'] = value
    wavelength = _in_unit(value, (annotations.units or {}).get('c'), unit_in_mm, None)
    if wavelength is not None and wavelength > 0:
        attributes['EmissionWavelength'] = _number(wavelength * 1e6)
    _add(pixels, 'Channel', **attributes)


def _planes(pixels: ElementTree.Element, plan: _Plan, annotations: Annotations,
            pages: Sequence[Page]) -> None:
    """Add the page of each plane, and its position in space and time where known."""
    places = [(page, plan.place(annotations.axes, position)) for page, position in pages]
    # One element for each page: large_image's source 'ometiff' does not take a count.
    for page, place in places:
        _add(pixels, 'TiffData', IFD=page, PlaneCount=1,
             **{f'First{axis}': start for axis, start in place.items()})
    if annotations.values is None:
        return
    lengths, times = _lengths(annotations, 'z'), _times(annotations)
    planes = []
    for _, position in pages:
        values = annotations.values_at(position)
        attributes: dict[str, Any] = {}
        time = _in_unit(values.get('t'), *times)
        if time is not None:
            attributes['DeltaT'] = _number(time)
        depth = _in_unit(values.get('z'), *lengths)
        if depth is not None:
            attributes.update(PositionZ=_number(depth * 1e3), PositionZUnit='µm')
        planes.append(attributes)
    if any(planes):
        # That source needs all planes or none.
        for (_, place), attributes in zip(places, planes, strict=True):
            _add(pixels, 'Plane', **{f'The{axis}': start for axis, start in place.items()},
                 **attributes)


def _structured(image: OmeImage) -> list[ElementTree.Element]:
    """
    The annotations: data that OME-XML cannot hold, and the further metadata as key-value
    pairs.

    OMERO and QuPath show the pairs.
    """
    annotations = image.annotations
    result = []
    fields = json_fields(annotations, image.associated, complete=image.positions is None)
    if fields:
        element = _element('CommentAnnotation', {'ID': 'Annotation:0',
                                                 'Namespace': JSON_NAMESPACE})
        _add(element, 'Value').text = json.dumps(fields)
        result.append(element)
    if isinstance(annotations.metadata, dict) and annotations.metadata:
        element = _element('MapAnnotation', {'ID': 'Annotation:1', 'Namespace': _KEY_VALUES})
        pairs = _add(element, 'Value')
        for key, value in annotations.metadata.items():
            _add(pairs, 'M', K=_xml(key)).text = _xml(
                value if isinstance(value, str) else json.dumps(value))
        result.append(element)
    return result


# The name of a unit, the function that converts it, and the factor if there is no name.
Unit = tuple[Any, Callable[[str], float | None], float | None]


def _lengths(annotations: Annotations, axis: str) -> Unit:
    """The unit of an axis of lengths, in mm; µm if not given."""
    return (annotations.units or {}).get(axis), unit_in_mm, 1e-3


def _times(annotations: Annotations) -> Unit:
    """The unit of the axis T, in s; s if not given."""
    return (annotations.units or {}).get('t'), unit_in_seconds, 1.0


def _in_unit(value: Any, unit: Any, factor_of: Callable[[str], float | None],
             default: float | None) -> float | None:
    """A value converted by its unit; None if it is not a number, or the unit is unknown."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    factor = default if unit is None else factor_of(str(unit))
    return None if factor is None else value * factor


def _step(annotations: Annotations, axis: str, unit: Unit) -> float | None:
    """
    The step along an axis, converted by the unit.

    None unless the values are evenly rising numbers and do not depend on other axes.
    """
    values = annotations.values_array()
    if values is None or annotations.value_axes is None or axis not in annotations.value_axes:
        return None
    number = annotations.value_axes.index(axis)
    along = np.moveaxis(values[..., number], number, 0)
    along = along.reshape(len(along), -1)
    converted = [_in_unit(value, *unit) for value in along[:, 0]]
    if len(converted) < 2 or not all(
            (row == row[0]).all() for row in along) or None in converted:
        return None
    steps = np.diff(np.array(converted, float))
    step = float(steps.mean())
    even = step > 0 and bool((abs(steps - step) <= _STEP_SHARE * step).all())
    return step if even else None


def _number(value: float | None) -> str:
    """A number in decimals, without rounding errors of unit conversions."""
    return f'{value:.12g}'


def _xml(text: str) -> str:
    """A text without the characters that XML does not allow."""
    return re.sub(_NOT_XML, '\ufffd', text)


def _element(tag: str, attributes: Mapping[str, Any]) -> ElementTree.Element:
    return ElementTree.Element(
        f'{{{NAMESPACE}}}{tag}', {key: _xml(str(value)) for key, value in attributes.items()})


def _add(parent: ElementTree.Element, tag: str, **attributes: Any) -> ElementTree.Element:
    """Add an element with attributes to another."""
    element = _element(tag, attributes)
    parent.append(element)
    return element

