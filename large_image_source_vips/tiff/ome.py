"""
Parse the OME-XML and ImageJ descriptions of TIFF files: axes, channels, pixel size.

OME-XML follows the OME schema 2016-06 and its older versions.  The pages of an ImageJ
hyperstack are in the order of ImageJ's TIFF writer: channel fastest, then slice, then
frame.  Malformed texts give no or fewer results, never an error.  Time and memory depend on
the length of the text, not on the numbers in it (``base.limits``).
"""

from __future__ import annotations

import itertools
import math
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..base.limits import LIMITS

# Units of length in mm, by the names that OME and ImageJ use.  'Âµm' is 'µm' in UTF-8, read
# as Latin-1 by some program.
MM_OF_UNIT = {
    'm': 1e3, 'dm': 1e2, 'cm': 10.0, 'mm': 1.0, 'µm': 1e-3, 'μm': 1e-3, 'Âµm': 1e-3, '㎛': 1e-3,
    'um': 1e-3, 'µ': 1e-3, 'μ': 1e-3, 'nm': 1e-6, 'pm': 1e-9, 'Å': 1e-7, 'km': 1e6, 'in': 25.4,
    'ft': 304.8, 'yd': 914.4, 'thou': 0.0254, 'pt': 25.4 / 72, 'inch': 25.4, 'inches': 25.4,
    'foot': 304.8, 'feet': 304.8, 'micron': 1e-3, 'micrometer': 1e-3, 'micrometre': 1e-3,
    'millimeter': 1.0, 'millimetre': 1.0, 'centimeter': 10.0, 'centimetre': 10.0, 'meter': 1e3,
    'metre': 1e3, 'nanometer': 1e-6, 'nanometre': 1e-6, 'angstrom': 1e-7,
}
# Units of time in s, by name.
_SECONDS = {
    's': 1.0, 'sec': 1.0, 'second': 1.0, 'ms': 1e-3, 'millisecond': 1e-3, 'us': 1e-6, 'µs': 1e-6,
    'microsecond': 1e-6, 'min': 60.0, 'minute': 60.0, 'h': 3600.0, 'hour': 3600.0,
    'd': 86400.0, 'day': 86400.0}
_AXES = ('C', 'Z', 'T')


def unit_in_mm(name: str) -> float | None:
    """
    A unit of length in mm; None if it is unknown, such as 'pixel'.

    Words may be in upper case and plural.  ImageJ writes 'µ' as a Java escape.
    """
    name = re.sub(r'\\u([0-9a-fA-F]{4})', lambda code: chr(int(code[1], 16)), name[:100]).strip()
    word = name.lower()
    # Symbols differ by case: 'Mm' are not 'mm'.
    return MM_OF_UNIT.get(name) or (
        MM_OF_UNIT.get(word) or MM_OF_UNIT.get(word.removesuffix('s')) if len(word) > 3 else None)


def unit_in_seconds(name: str) -> float | None:
    """A unit of time in s; None if it is unknown."""
    return _SECONDS.get(name) or _SECONDS.get(name.lower().removesuffix('s'))


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


def positive(value: Any) -> float | None:
    """A finite number above 0 from a number or a text; None for anything else."""
    try:
        # Long numbers take long to convert, and no program writes them.
        number = float(value[:100] if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _whole(text: str | None, default: int) -> int:
    """Parse a non-negative integer, else return the default."""
    return int(text) if text is not None and re.fullmatch(r'\d{1,9}', text.strip()) else default


def xml_root(text: str) -> ElementTree.Element | None:
    """
    Parse an XML text and strip the namespaces from its tags.

    :returns: the root element; None if the text is malformed, has too many tags and
        attributes (``LIMITS.tiff_xml_marks``), or defines entities, which only attacks use.
    """
    if '<!DOCTYPE' in text or '<!ENTITY' in text:
        return None
    # Elements take up to 30 times the memory of their text.
    if text.count('<') + text.count('=') > LIMITS.tiff_xml_marks:
        return None
    try:
        # The text is already decoded, whatever encoding it declares.
        root = ElementTree.fromstring(text.strip())
    except (ElementTree.ParseError, ValueError, RecursionError):
        return None
    for element in root.iter():
        if '}' in element.tag:
            element.tag = sys.intern(element.tag.rpartition('}')[2])
    return root


def ome_root(text: str) -> ElementTree.Element | None:
    """
    Parse an OME-XML document; see ``xml_root``.

    :param text: the image description of a file.
    :returns: the root element; None if the text is not OME-XML.
    """
    head = text[:4096]
    if '<OME' not in head and ':OME' not in head:
        return None
    root = xml_root(text)
    return root if root is not None and root.tag == 'OME' else None


def ome_series(text: str, file_name: str, samples: int, pages: int) -> list[Series]:
    """
    Read the images of an OME-XML document, with the planes that are in this file.

    Time and memory are proportional to the length of the text and the number of pages.

    :param text: the document.
    :param file_name: of this file, without its folder.
    :param samples: samples per pixel in the file, for documents that do not describe
        their channels.
    :param pages: the number of pages of the file.
    :returns: one entry per image; empty if the text is not OME-XML, or places more planes
        in the file than ``LIMITS.tiff_ome_planes``.
    """
    root = ome_root(text)
    if root is None:
        return []
    objectives = {element.get('ID'): element for element in root.iter('Objective')}
    is_here = _file_test(root, file_name)
    series = []
    left = LIMITS.tiff_ome_planes
    for image in root.findall('Image'):
        pixels = image.find('Pixels')
        if pixels is None:
            continue
        planes, placed = _planes(pixels, is_here, samples, pages, left)
        left -= placed
        if left < 0:
            return []
        settings = image.find('ObjectiveSettings')
        if settings is None:
            settings = image.find('ObjectiveRef')
        objective = objectives.get(settings.get('ID')) if settings is not None else None
        series.append(Series(
            name=image.get('Name') or '',
            size=(_whole(pixels.get('SizeX'), 0), _whole(pixels.get('SizeY'), 0)),
            planes=planes,
            channels=tuple(Channel(channel.get('Name'), _color(channel.get('Color')))
                           for channel in pixels.findall('Channel')),
            pixel_size=(_physical(pixels, 'X'), _physical(pixels, 'Y')),
            magnification=None if objective is None else (
                positive(objective.get('NominalMagnification')) or
                positive(objective.get('CalibratedMagnification')))))
    return series


def _physical(pixels: ElementTree.Element, axis: str) -> float | None:
    """The pixel size along an axis in mm; the schema's default unit is µm."""
    size = positive(pixels.get(f'PhysicalSize{axis}'))
    factor = unit_in_mm(pixels.get(f'PhysicalSize{axis}Unit', 'µm'))
    return size * factor if size and factor else None


def _color(text: str | None) -> str | None:
    """Convert OME's colour, RGBA in a signed 32-bit integer, to '#rrggbb'."""
    if text is None or not re.fullmatch(r'-?\d{1,10}', text.strip()):
        return None
    return f'#{(int(text) >> 8) & 0xffffff:06x}'


def _planes(pixels: ElementTree.Element, is_here: Callable[[ElementTree.Element], bool],
            samples: int, pages: int, most: int) -> tuple[tuple[Plane, ...], int]:
    """
    The planes of an image that are in this file, in frame order.

    :param is_here: tells whether a TiffData element refers to this file.
    :param samples: samples per pixel in the file.
    :param pages: the number of pages of the file.
    :param most: stop when the elements have more planes than this.
    :returns: the planes, and their number with repeated ones.
    """
    named = re.sub('[^CZT]', '', pixels.get('DimensionOrder', 'XYCZT'))
    order = ''.join(dict.fromkeys((*named, *_AXES)))
    extent = {axis: max(1, _whole(pixels.get(f'Size{axis}'), 1)) for axis in _AXES}
    extent['C'] = _channel_planes(pixels, extent['C'], samples)
    total = math.prod(extent.values())
    # The number of planes from one position on an axis to the next.
    step = {axis: math.prod(extent[faster] for faster in order[:order.index(axis)])
            for axis in _AXES}
    found: dict[int, int] = {}
    placed = 0
    for entry in pixels.findall('TiffData') or [ElementTree.Element('TiffData')]:
        if not is_here(entry):
            continue
        first = sum(_whole(entry.get(f'First{axis}'), 0) * step[axis] for axis in _AXES)
        page = _whole(entry.get('IFD'), 0)
        count = _whole(entry.get('PlaneCount'), 1 if entry.get('IFD') is not None else total)
        count = max(0, min(count, total - first, pages - page))
        placed += count
        if placed > most:
            break
        for number in range(count):
            found.setdefault(first + number, page + number)
    used = [axis for axis in order if extent[axis] > 1]
    return tuple(Plane(found[number], dict(_position(number, order, extent, used)))
                 for number in sorted(found)), placed


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


def _file_test(root: ElementTree.Element,
               file_name: str) -> Callable[[ElementTree.Element], bool]:
    """A function that tells whether a TiffData element refers to this file."""
    own = (root.get('UUID') or '').strip()
    # A data set of a single file, which was renamed.
    is_only = not own and len({other.get('FileName') for other in root.iter('UUID')}) <= 1

    def is_here(entry: ElementTree.Element) -> bool:
        uuid = entry.find('UUID')
        if uuid is None or is_only:
            return True
        name = uuid.get('FileName')
        if name and os.path.basename(name) == file_name:
            return True
        return bool(own) and own == (uuid.text or '').strip()

    return is_here


def imagej_fields(text: str) -> dict[str, str]:
    """Parse the fields of an ImageJ description; empty if it is something else."""
    if not text.startswith('ImageJ='):
        return {}
    pairs = (line.partition('=') for line in text[:LIMITS.tiff_field_text].splitlines())
    return {key.strip(): value.strip() for key, mark, value in pairs if mark}


def described_images(text: str, size: tuple[int, int], samples: int) -> int:
    """
    The number of images according to a description of ImageJ or tifffile; else 1.

    :param text: the image description of the first page.
    :param size: width and height of an image.
    :param samples: its samples per pixel.
    """
    if text.startswith('{'):
        # tifffile: {"shape": [12, 50, 60]}, with other entries before or after it.
        found = re.search(r'"shape": \[(\d{1,9}(?:, \d{1,9}){0,9})\]', text)
        extents = [int(extent) for extent in found[1].split(',')] if found else []
        images, rest = divmod(math.prod(extents), max(1, size[0] * size[1] * samples))
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


def imagej_units(fields: Mapping[str, str]) -> tuple[float | None, float | None]:
    """The units of an ImageJ resolution in mm, across and down; None where unknown."""
    across = fields.get('unit', '')
    return unit_in_mm(across), unit_in_mm(fields.get('yunit', across))
