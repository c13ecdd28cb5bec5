"""
What the texts that microscopes leave in a TIFF file say: OME-XML and ImageJ.

OME-XML is read as the OME schema 2016-06 and its older versions describe it;
the order of ImageJ's hyperstacks is that of its TIFF writer (channel fastest,
then slice, then frame).
"""

from __future__ import annotations

import itertools
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..base.limits import LIMITS

# Lengths in mm.  OME's own names, and those that ImageJ writes.
MM_OF_UNIT = {
    'm': 1e3, 'dm': 1e2, 'cm': 10.0, 'mm': 1.0, 'µm': 1e-3, 'μm': 1e-3, 'um': 1e-3,
    'micron': 1e-3, 'microns': 1e-3, 'micrometer': 1e-3, 'nm': 1e-6, 'pm': 1e-9, 'Å': 1e-7,
    'in': 25.4, 'inch': 25.4, 'ft': 304.8, 'pt': 25.4 / 72, 'millimeter': 1.0, 'centimeter': 10.0,
    'meter': 1e3, 'nanometer': 1e-6, 'km': 1e6,
}
_AXES = ('C', 'Z', 'T')
# More planes than this are not what one file holds.
_MAX_PLANES = LIMITS.tiff_ome_planes


class Plane(NamedTuple):
    """One plane of pixels: the page it is on, and where it belongs."""

    page: int
    axes: Mapping[str, int]


class Channel(NamedTuple):
    """A channel as OME-XML describes it; colour as '#rrggbb' where given."""

    name: str | None
    color: str | None


@dataclass(frozen=True)
class Series:
    """
    Planes that belong together.

    :param size: (width, height) in pixels, (0, 0) if not stated.
    :param planes: in frame order.
    :param channels: in order of the axis C.
    :param pixel_size: (x, y) in mm, None where unknown.
    :param magnification: of the objective, None if unknown.
    """

    name: str
    size: tuple[int, int]
    planes: tuple[Plane, ...]
    channels: tuple[Channel, ...] = ()
    pixel_size: tuple[float | None, float | None] = (None, None)
    magnification: float | None = None


def _positive(text: Any) -> float | None:
    """A finite positive number, or None."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def _whole(text: str | None, default: int) -> int:
    """A whole number of 0 or more, or a default."""
    return int(text) if text is not None and re.fullmatch(r'\d{1,9}', text.strip()) else default


def ome_root(text: str) -> ElementTree.Element | None:
    """
    The root of an OME-XML document, without namespaces in its tags.

    :param text: what a file has as its description.
    :returns: None if it is not OME-XML, is damaged, or defines entities, which
        OME-XML never does and attacks do.
    """
    head = text[:4096]
    if '<OME' not in head and ':OME' not in head:
        return None
    if '<!DOCTYPE' in text or '<!ENTITY' in text:
        return None
    try:
        root = ElementTree.fromstring(text.strip().encode())
    except (ElementTree.ParseError, ValueError, RecursionError):
        return None
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition('}')[2]
    return root if root.tag == 'OME' else None


def ome_series(text: str, file_name: str, samples: int) -> list[Series]:
    """
    The images of an OME-XML document, as far as their planes are in this file.

    :param text: the document.
    :param file_name: of this file, without its folder.
    :param samples: samples of each pixel in the file, for documents that do
        not describe their channels.
    :returns: one entry for each image, empty if the text is not OME-XML.
    """
    root = ome_root(text)
    if root is None:
        return []
    objectives = {element.get('ID'): element for element in root.iter('Objective')}
    series = []
    for image in root.findall('Image'):
        pixels = image.find('Pixels')
        if pixels is None:
            continue
        settings = image.find('ObjectiveSettings')
        if settings is None:
            settings = image.find('ObjectiveRef')
        objective = objectives.get(settings.get('ID')) if settings is not None else None
        series.append(Series(
            name=image.get('Name') or '',
            size=(_whole(pixels.get('SizeX'), 0), _whole(pixels.get('SizeY'), 0)),
            planes=tuple(_planes(root, pixels, file_name, samples)),
            channels=tuple(Channel(channel.get('Name'), _color(channel.get('Color')))
                           for channel in pixels.findall('Channel')),
            pixel_size=(_physical(pixels, 'X'), _physical(pixels, 'Y')),
            magnification=None if objective is None else (
                _positive(objective.get('NominalMagnification')) or
                _positive(objective.get('CalibratedMagnification')))))
    return series


def _physical(pixels: ElementTree.Element, axis: str) -> float | None:
    """The size of a pixel along an axis in mm; the schema's default unit is um."""
    size = _positive(pixels.get(f'PhysicalSize{axis}'))
    factor = MM_OF_UNIT.get(pixels.get(f'PhysicalSize{axis}Unit', 'µm'))
    return size * factor if size and factor else None


def _color(text: str | None) -> str | None:
    """OME's colour, a signed 32-bit integer RGBA, as '#rrggbb'."""
    if text is None or not re.fullmatch(r'-?\d{1,10}', text.strip()):
        return None
    return f'#{(int(text) >> 8) & 0xffffff:06x}'


def _planes(root: ElementTree.Element, pixels: ElementTree.Element, file_name: str,
            samples: int) -> list[Plane]:
    """The planes of an image that are in this file, in frame order."""
    order = re.sub('[^CZT]', '', pixels.get('DimensionOrder', 'XYCZT'))
    order += ''.join(axis for axis in _AXES if axis not in order)
    extent = {axis: max(1, _whole(pixels.get(f'Size{axis}'), 1)) for axis in _AXES}
    extent['C'] = _channel_planes(pixels, extent['C'], samples)
    total = math.prod(extent.values())
    if total > _MAX_PLANES:
        return []
    entries = pixels.findall('TiffData')
    pages: dict[int, int] = {}
    for entry in entries or [ElementTree.Element('TiffData')]:
        if not _is_here(root, entry, file_name):
            continue
        first = sum(_whole(entry.get(f'First{axis}'), 0) *
                    math.prod(extent[faster] for faster in order[:order.index(axis)])
                    for axis in order)
        page = _whole(entry.get('IFD'), 0)
        count = _whole(entry.get('PlaneCount'), 1 if entry.get('IFD') is not None else total)
        for step in range(min(count, total - first)):
            pages.setdefault(first + step, page + step)
    used = [axis for axis in order if extent[axis] > 1]
    return [Plane(pages[number], dict(_position(number, order, extent, used)))
            for number in sorted(pages)]


def _position(number: int, order: str, extent: Mapping[str, int],
              used: list[str]) -> Iterator[tuple[str, int]]:
    """Where the plane of a number lies on each axis that has an extent."""
    for axis in order:
        number, place = divmod(number, extent[axis])
        if axis in used:
            yield f'Index{axis}', place


def _channel_planes(pixels: ElementTree.Element, size_c: int, samples: int) -> int:
    """
    How many planes there are along C.

    SizeC counts samples: an RGB image has SizeC 3, and one plane.
    """
    channels = pixels.findall('Channel')
    counts = [max(1, _whole(channel.get('SamplesPerPixel'), 1)) for channel in channels]
    if channels and sum(counts) == size_c:
        return len(channels)
    return size_c // samples if size_c % samples == 0 else size_c


def _is_here(root: ElementTree.Element, entry: ElementTree.Element, file_name: str) -> bool:
    """Whether a TiffData element is about this file and not one beside it."""
    uuid = entry.find('UUID')
    if uuid is None:
        return True
    name = uuid.get('FileName')
    if name and os.path.basename(name) == file_name:
        return True
    own = root.get('UUID')
    if own and uuid.text and own.strip() == uuid.text.strip():
        return True
    # A file that was renamed and never had company.
    names = {other.get('FileName') for other in root.iter('UUID')}
    return len(names) <= 1 and not own


def imagej_fields(text: str) -> dict[str, str]:
    """The lines of an ImageJ description; empty if the text is not one."""
    if not text.startswith('ImageJ='):
        return {}
    pairs = (line.partition('=') for line in text.splitlines())
    return {key.strip(): value.strip() for key, mark, value in pairs if mark}


def imagej_axes(fields: Mapping[str, str], frames: int) -> list[dict[str, int]]:
    """
    Where each page of a hyperstack belongs.

    :param fields: from ``imagej_fields``.
    :param frames: how many pages there are.
    :returns: one dictionary a page; empty if the text does not account for
        every page.
    """
    extents = [max(1, _whole(fields.get(name), 1)) for name in ('channels', 'slices', 'frames')]
    if math.prod(extents) != frames:
        return []
    used = [(position, f'Index{axis}')
            for position, (axis, extent) in enumerate(zip(_AXES, extents, strict=True))
            if extent > 1]
    places = itertools.product(*(range(extent) for extent in reversed(extents)))
    return [{key: place[::-1][position] for position, key in used} for place in places]


def imagej_unit(fields: Mapping[str, str]) -> float | None:
    """The length in mm of the unit that an ImageJ file counts its resolution in."""
    unit = fields.get('unit', '').encode().decode('unicode_escape', 'replace') if (
        '\\u' in fields.get('unit', '')) else fields.get('unit', '')
    return MM_OF_UNIT.get(unit)
