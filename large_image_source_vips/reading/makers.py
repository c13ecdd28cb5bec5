"""
Determine pixel size and magnification of TIFF files, one function per maker.

``MAKERS`` has one row for each maker or program.  Its function recognises the maker's files
and reads the values.  If no row has a pixel size, the resolution tags are used.

Sources: the format pages and the code of OpenSlide, tifffile and Bio-Formats; the OME
schema; ImageJ's TiffEncoder.  Input is not trusted: malformed values count as missing.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..base.limits import LIMITS
from ..tiff import ome
from ..tiff.json_text import read_json_text
from ..tiff.ome import positive, unit_in_mm, xml_root
from ..tiff.page import DESCRIPTION
from .maker_tags import UNKNOWN, Header, PixelSize, Scale, decimal, fields_of

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MICRON, _NANOMETRE, _METRE = 1e-3, 1e-6, 1e3
# Private tags.
_APERIO_MAGNIFICATION, _APERIO_MPP = 55001, 55002
_NDPI_FORMAT, _NDPI_LENS, _NDPI_PROPERTIES = 65420, 65421, 65449
_ARGOS, _MICRO_MANAGER, _LSM, _OLYMPUS, _FEI = 65000, 51123, 34412, 33560, (34680, 34682)


class Maker(NamedTuple):
    """
    A row of the table.

    :param name: of the maker or program.
    :param place: where the values are stored, for the documentation.
    :param read: returns the values; None if the file is not from this maker.
    """

    name: str
    place: str
    read: Callable[[Header], Scale | None]


def tiff_scale(header: Header) -> Scale:
    """
    The scale of a TIFF file.

    If several rows recognise the file, the first that has a value counts.
    """
    size, magnification = UNKNOWN, None
    further: dict[str, Any] = {}
    for maker in MAKERS:
        found = maker.read(header)
        if found is not None:
            size = size if any(size) else found.pixel_size
            magnification = magnification or found.magnification
            further.update(found.further)
    return Scale(size if any(size) else header.resolution, magnification, further)


def _square(size: float | None, unit: float) -> PixelSize:
    """The pixel size of square pixels of a side in a unit; unknown if that is None."""
    side = positive(size * unit) if size else None
    return side, side


def _aperio(header: Header) -> Scale | None:
    """Fields after the first '|'; text before it, and values, are free text."""
    if not header.description.startswith('Aperio'):
        return None
    fields = fields_of(header.fields_text.split('|')[1:])
    microns = decimal(fields.get('MPP')) or header.number(_APERIO_MPP)
    return Scale(_square(microns, _MICRON),
                 decimal(fields.get('AppMag')) or header.number(_APERIO_MAGNIFICATION),
                 {'aperio': fields})


def _ome(header: Header) -> Scale | None:
    series = ome.ome_series(header.description, '', 1, 1)
    if not series:
        return None
    images = [{'name': one.name, 'channels': [channel._asdict() for channel in one.channels]}
              for one in series[:LIMITS.reading_items]]
    return Scale(series[0].pixel_size, series[0].magnification, {'ome': {'images': images}})


def _imagej(header: Header) -> Scale | None:
    """The resolution tags count pixels per unit of the text; without one, per inch or cm."""
    fields = ome.imagej_fields(header.description)
    if not fields:
        return None
    across, down = (positive(unit / count) if unit and count else None for unit, count in zip(
        ome.imagej_units(fields), header.resolution_tags(), strict=True))
    return Scale((across, down), None, {'imagej': fields})


def _philips(header: Header) -> Scale | None:
    """
    DICOM_PIXEL_SPACING, in mm between rows, then between columns.

    The value of the scanned image is used, else the smallest of its levels.
    """
    root = header.root('DataObject')
    if root is None or root.get('ObjectType') != 'DPUfsImport':
        return None
    slide = next((item for item in root.iter('DataObject')
                  if _philips_text(item, 'PIM_DP_IMAGE_TYPE') == 'WSI'), root)
    candidates = [slide, *(item for item in slide.iter('DataObject') if item is not slide)]
    sizes = [size for size in map(_philips_spacing, candidates) if all(size)]
    own = _philips_spacing(slide)
    derivation = _philips_text(slide, 'DICOM_DERIVATION_DESCRIPTION').partition('sourceFilename')[0]
    # The first entry of 'levels' is the magnification, or a number above 10000.
    levels = fields_of(reversed(derivation.split('-'))).get('levels', '').partition(',')[0]
    power = positive(levels)
    return Scale(own if all(own) else min(sizes, default=UNKNOWN),
                 power if power and power <= 200 else None)


def _philips_text(item: Element, name: str) -> str:
    """The text of an attribute of a DataObject."""
    return next(((attribute.text or '').strip() for attribute in item.findall('Attribute')
                 if attribute.get('Name') == name), '')


def _philips_spacing(item: Element) -> PixelSize:
    """The pixel size of a DataObject."""
    numbers = [positive(part) for part in
               _philips_text(item, 'DICOM_PIXEL_SPACING')[:200].replace('"', ' ').split()]
    return (numbers[1], numbers[0]) if len(numbers) == 2 else UNKNOWN


def _hamamatsu(header: Header) -> Scale | None:
    """NDPI: the tag SourceLens, and the usual resolution tags."""
    if not header.has(_NDPI_FORMAT):
        return None
    # Hamamatsu misspells these keys.
    properties = fields_of(header.text(_NDPI_PROPERTIES).splitlines())
    power = (header.number(_NDPI_LENS, header.page) or
             positive(properties.get('Objective.Lens.Magnificant')))
    return Scale(UNKNOWN, power, {'hamamatsu': properties} if properties else {})


def _leica(header: Header) -> Scale | None:
    """SCN: the extent of each image in nm and pixels; the image of the frame's size counts."""
    root = header.root('scn')
    if root is None:
        return None
    found = []
    for image in root.iter('image'):
        view, pixels = image.find('view'), image.find('pixels')
        extents = [[positive(item.get(f'size{axis}')) for axis in 'XY']
                   for item in (view, pixels) if item is not None]
        if len(extents) == 2 and all(map(all, extents)):
            across, down = (positive(nm / count * _NANOMETRE) if nm and count else None
                            for nm, count in zip(*extents, strict=True))
            fits = extents[1] == list(header.page.size)
            found.append((not fits, across or 0.0, down or 0.0, decimal(image.findtext(
                'scanSettings/objectiveSettings/objective'))))
    # If no size fits, the image with the smallest pixels: the others are overviews.
    best = min(found, key=lambda item: item[:3], default=None)
    return Scale() if best is None else Scale((best[1] or None, best[2] or None), best[3])


def _ventana(header: Header) -> Scale | None:
    """The attributes ScanRes (µm) and Magnification of iScan, in the XMP of an early page."""
    for text in (header.description, *header.first_pages_xmp()):
        root = xml_root(text) if '<iScan' in text else None
        scan = None if root is None else next(root.iter('iScan'), None)
        if scan is not None:
            return Scale(_square(decimal(scan.get('ScanRes')), _MICRON),
                         decimal(scan.get('Magnification')))
    level = re.match(r'level=\d+ mag=(\S+)', header.text(DESCRIPTION, 200, header.page))
    return Scale(UNKNOWN, decimal(level[1])) if level else None


def _trestle(header: Header) -> Scale | None:
    """The resolution tags are µm per pixel, whatever their unit; the magnification is text."""
    if not header.software.startswith('MedScan'):
        return None
    fields = fields_of(header.fields_text.split(';'))
    across, down = (positive(size * _MICRON) if size else None
                    for size in header.resolution_tags())
    return Scale((across, down), decimal(fields.get('Objective Power')), {'trestle': fields})


def _argos(header: Header) -> Scale | None:
    """AVS: XML in a private tag."""
    text = header.text(_ARGOS, LIMITS.tiff_text)
    root = xml_root(text) if text.startswith('<Argos') else None
    if root is None:
        return None
    return Scale(UNKNOWN, decimal(root.findtext('ObjectiveMagnification')))


def _perkin_elmer(header: Header) -> Scale | None:
    """QPTIFF: XML of the first page, and the usual resolution tags."""
    root = header.root('PerkinElmer-QPI-ImageDescription')
    if root is None:
        return None
    power = root.findtext('.//Magnification') or root.findtext('.//Objective') or ''
    return Scale(_square(decimal(root.findtext('.//PixelSizeMicrons')), _MICRON),
                 decimal(power.strip().removesuffix('x')))


def _metaseries(header: Header) -> Scale | None:
    """MetaMorph: properties in XML, with a unit, if the calibration is on."""
    root = header.root('MetaData')
    if root is None:
        return None
    values = {item.get('id'): item.get('value', '') for item in root.iter('prop')}
    unit = unit_in_mm(values.get('spatial-calibration-units', ''))
    if not unit or values.get('spatial-calibration-state', 'on') != 'on':
        return Scale()
    across, down = (positive((decimal(values.get(f'spatial-calibration-{axis}')) or 0) * unit)
                    for axis in 'xy')
    return Scale((across, down))


def _micro_manager(header: Header) -> Scale | None:
    """JSON in a private tag; 0 means not calibrated."""
    values = _json(header.text(_MICRO_MANAGER))
    return None if values is None else Scale(_square(positive(values.get('PixelSizeUm')), _MICRON))


def _large_image(header: Header) -> Scale | None:
    """large_image's converter stores the metadata of its source as JSON."""
    text = header.fields_text
    values = _json(text) if text.startswith('{') and 'large_image_converter' in text else None
    kept = values.get('large_image_converter') if values else None
    scale = kept.get('metadata') if isinstance(kept, dict) else None
    return Scale(UNKNOWN, positive(scale.get('magnification'))) if isinstance(scale, dict) else None


def _this_package(header: Header) -> Scale | None:
    """This package stores values without a TIFF tag as JSON."""
    own = read_json_text(header.description) if header.description[:1] == '{' else {}
    return Scale(UNKNOWN, positive(own.get('magnification'))) if own else None


def _json(text: str) -> dict[str, Any] | None:
    """Parse a JSON object; None if the text is not one."""
    try:
        values = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _zeiss_lsm(header: Header) -> Scale | None:
    """Zeiss LSM: voxel sizes in m, the first two of three, behind ten 32-bit fields."""
    data = header.data(_LSM, 64)
    if len(data) < 56 or data[:4] not in {b'\x4c\x49\x00\x03', b'\x4c\x49\x00\x04'}:
        return None
    across, down = (positive(size * _METRE) for size in struct.unpack_from('<2d', data, 40))
    return Scale((across, down))


def _olympus(header: Header) -> Scale | None:
    """Olympus SIS: a list of blocks; that of type 1 has a power of ten and sizes in m."""
    entry = header.first.entries.get(_OLYMPUS)
    head = b'' if entry is None else header.bytes_at(_pointer(header, _OLYMPUS), 60)
    if len(head) < 60 or not head.startswith(b'SIS0'):
        return None
    count = struct.unpack_from('<H', head, 58)[0]
    blocks = header.bytes_at(_pointer(header, _OLYMPUS) + 60, 8 * min(count, 1000))
    for kind, _, offset in struct.iter_unpack('<HHI', blocks[:len(blocks) // 8 * 8]):
        block = header.bytes_at(offset, 46)
        if kind == 1 and len(block) == 46:
            power, across, down, magnification = struct.unpack('<10xhdd8xd2x', block)
            unit = 10.0 ** power * _METRE if abs(power) < 30 else 0.0
            return Scale((positive(across * unit), positive(down * unit)), positive(magnification))
    return Scale()


def _pointer(header: Header, tag: int) -> int:
    """The offset of the structure that a tag holds or refers to."""
    entry = header.first.entries[tag]
    return entry.offset if entry.values > 1 else int(header.number(tag) or 0)


def _fei(header: Header) -> Scale | None:
    """FEI: lines of fields, with the size of a pixel in m."""
    text = next((header.text(tag) for tag in _FEI if header.has(tag)), '')
    fields = fields_of(text.splitlines())
    if not fields:
        return None
    across, down = (positive((positive(fields.get(f'Pixel{side}')) or 0) * _METRE)
                    for side in ('Width', 'Height'))
    return Scale((across, down))


# Descriptions come before private tags, which programs often leave unchanged when they edit
# a file.
MAKERS = (
    Maker('Aperio', 'ImageDescription: MPP, AppMag; private tags', _aperio),
    Maker('OME', 'ImageDescription: PhysicalSizeX, Objective', _ome),
    Maker('ImageJ', 'ImageDescription: unit; resolution tags', _imagej),
    Maker('Philips', 'ImageDescription: DICOM_PIXEL_SPACING', _philips),
    Maker('Hamamatsu', 'SourceLens, Objective.Lens.Magnificant; resolution tags', _hamamatsu),
    Maker('Leica', 'ImageDescription: view and pixels of an image', _leica),
    Maker('Trestle', 'resolution tags in µm; ImageDescription: Objective Power', _trestle),
    Maker('PerkinElmer', 'ImageDescription: PixelSizeMicrons, Magnification', _perkin_elmer),
    Maker('MetaMorph', 'ImageDescription: spatial-calibration-x', _metaseries),
    Maker('Argos', 'private tag: ObjectiveMagnification; resolution tags', _argos),
    Maker('Micro-Manager', 'private tag: PixelSizeUm', _micro_manager),
    Maker('Zeiss LSM', 'private tag: VoxelSizeX', _zeiss_lsm),
    Maker('Olympus SIS', 'private tag', _olympus),
    Maker('FEI', 'private tag: PixelWidth', _fei),
    Maker('large_image', 'ImageDescription: magnification; resolution tags', _large_image),
    Maker('this package', 'ImageDescription: magnification; resolution tags', _this_package),
    Maker('Ventana', 'XMP or ImageDescription: ScanRes, Magnification', _ventana),
)
