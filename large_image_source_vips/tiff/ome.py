"""
Parse the OME-XML and ImageJ descriptions of TIFF files: axes, channels, pixel size.

OME-XML follows the OME schema 2016-06 and its older versions.  The pages of an ImageJ
hyperstack are in the order of ImageJ's TIFF writer: channel fastest, then slice, then
frame.  Malformed texts give no or fewer results, never an error.
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

# Units of length in mm, by the names that OME and ImageJ use.
MM_OF_UNIT = {
    'm': 1e3, 'dm': 1e2, 'cm': 10.0, 'mm': 1.0, 'µm': 1e-3, 'μm': 1e-3, 'um': 1e-3,
    'micron': 1e-3, 'microns': 1e-3, 'micrometer': 1e-3, 'nm': 1e-6, 'pm': 1e-9, 'Å': 1e-7,
    'in': 25.4, 'inch': 25.4, 'ft': 304.8, 'pt': 25.4 / 72, 'millimeter': 1.0, 'centimeter': 10.0,
    'meter': 1e3, 'nanometer': 1e-6, 'km': 1e6,
}
_AXES = ('C', 'Z', 'T')
# The bound for the planes of one image: sizes in a hostile text multiply.
_MAX_PLANES = LIMITS.tiff_ome_planes


class Plane(NamedTuple):
    """The page of one plane of pixels, and its position on each axis."""

    page: int
    axes: Mapping[str, int]


class Channel(NamedTuple):
    """The name and colour ('#rrggbb') of a channel, None where not given."""

    name: str | None
    color: str | None


@dataclass(frozen=True)
class Series:
    """
    One OME image.

    :param size: (width, height) in pixels, (0, 0) if unknown.
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
    """Parse a finite positive number, else None."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def _whole(text: str | None, default: int) -> int:
    """Parse a non-negative integer, else return the default."""
    return int(text) if text is not None and re.fullmatch(r'\d{1,9}', text.strip()) else default


def ome_root(text: str) -> ElementTree.Element | None:
    """
    Parse an OME-XML document and strip the namespaces from its tags.

    :param text: the image description of a file.
    :returns: the root element; None if the text is not OME-XML, is malformed, or
        defines entities, which OME-XML never needs and attacks use.
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
    Read the images of an OME-XML document, with the planes that are in this file.

    :param text: the document.
    :param file_name: of this file, without its folder.
    :param samples: samples per pixel in the file, for documents that do not describe
        their channels.
    :returns: one entry per image; empty if the text is not OME-XML.
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
    """The pixel size along an axis in mm; the schema's default unit is µm."""
    size = _positive(pixels.get(f'PhysicalSize{axis}'))
    factor = MM_OF_UNIT.get(pixels.get(f'PhysicalSize{axis}Unit', 'µm'))
    return size * factor if size and factor else None


def _color(text: str | None) -> str | None:
    """Convert OME's colour, RGBA in a signed 32-bit integer, to '#rrggbb'."""
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
    """The position of a plane on each axis longer than 1."""
    for axis in order:
        number, place = divmod(number, extent[axis])
        if axis in used:
            yield f'Index{axis}', place


def _channel_planes(pixels: ElementTree.Element, size_c: int, samples: int) -> int:
    """
    The number of planes along C.

    SizeC counts samples: an RGB image has SizeC 3 but one plane.
    """
    channels = pixels.findall('Channel')
    counts = [max(1, _whole(channel.get('SamplesPerPixel'), 1)) for channel in channels]
    if channels and sum(counts) == size_c:
        return len(channels)
    return size_c // samples if size_c % samples == 0 else size_c


def _is_here(root: ElementTree.Element, entry: ElementTree.Element, file_name: str) -> bool:
    """Whether a TiffData element refers to this file, not another of the data set."""
    uuid = entry.find('UUID')
    if uuid is None:
        return True
    name = uuid.get('FileName')
    if name and os.path.basename(name) == file_name:
        return True
    own = root.get('UUID')
    if own and uuid.text and own.strip() == uuid.text.strip():
        return True
    # A single-file data set that was renamed.
    names = {other.get('FileName') for other in root.iter('UUID')}
    return len(names) <= 1 and not own


def imagej_fields(text: str) -> dict[str, str]:
    """Parse the fields of an ImageJ description; empty if the text is none."""
    if not text.startswith('ImageJ='):
        return {}
    pairs = (line.partition('=') for line in text.splitlines())
    return {key.strip(): value.strip() for key, mark, value in pairs if mark}


def described_images(text: str, size: tuple[int, int], samples: int) -> int:
    """
    The number of images that ImageJ or tifffile says a file has; 1 if neither says so.

    :param text: the image description of the first page.
    :param size: width and height of an image.
    :param samples: its samples per pixel.
    """
    if text.startswith('{"shape": ['):
        # tifffile: {"shape": [12, 50, 60]}
        found = re.match(r'\{"shape": \[(\d{1,9}(?:, \d{1,9})*)\]', text)
        extents = [int(extent) for extent in found[1].split(',')] if found else []
        images, rest = divmod(math.prod(extents), size[0] * size[1] * samples)
        return 1 if rest else images
    return _whole(imagej_fields(text).get('images'), 1)


def imagej_axes(fields: Mapping[str, str], frames: int) -> list[dict[str, int]]:
    """
    The position of each page of a hyperstack on its axes.

    :param fields: from ``imagej_fields``.
    :param frames: the number of pages.
    :returns: one dictionary per page; empty if the fields give another number of pages.
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
    """The unit of an ImageJ resolution in mm; None if unknown."""
    unit = fields.get('unit', '').encode().decode('unicode_escape', 'replace') if (
        '\\u' in fields.get('unit', '')) else fields.get('unit', '')
    return MM_OF_UNIT.get(unit)
