"""
What a file says of itself besides its pixels.

Sizes are in mm per full-resolution pixel, as seen (an orientation that turns
the image exchanges them).  What a file does not say is None; nothing is made up,
neither here nor by who wrote the file: see ``MADE_UP``.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyvips

from ..base.errors import TileSourceError
from ..base.files import read_at
from ..base.limits import LIMITS
from ..tiff import ome
from ..tiff.directories import (
    DESCRIPTION,
    ICC_PROFILE,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    Y_RESOLUTION,
    Page,
    TiffDirectories,
    TiffFormatError,
)
from .file import SourceFile
from .layout import TRANSPOSED, Layout
from .unpack import unpacker

PixelSize = tuple[float | None, float | None]
UNKNOWN: PixelSize = (None, None)
# Units of length in mm.
_INCH, _CENTIMETRE, _METRE = 25.4, 10.0, 1000.0
# The values of the tag ResolutionUnit; 1 is 'none'.
_TIFF_UNITS = {2: _INCH, 3: _CENTIMETRE}
_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
# Text longer than this is cut in the internal metadata, and longer lists too.
_MAX_TEXT = LIMITS.reading_text
_MAX_ITEMS = LIMITS.reading_items
# Further frames that are described one by one.
_MAX_FRAMES = LIMITS.reading_described_frames


class MadeUp(NamedTuple):
    """
    A resolution that is written where none is known.

    :param kind: the header that it is in; '' for any.
    :param unit: the unit of length in mm; 0 for any.
    :param pixels: how many it counts in a unit, in both directions.
    :param reason: who writes it.
    """

    kind: str
    unit: float
    pixels: float
    reason: str


# Only numbers in headers are judged by this, not texts, which nobody writes by default:
# OME-XML, Aperio, ImageJ with a unit, OpenSlide's properties.
MADE_UP = (
    MadeUp('', 1.0, 1, 'libvips takes an image to have 1 pixel a mm, and its savers write that'),
    MadeUp('JFIF', _INCH, 25, 'the same as whole pixels an inch, of which JFIF has no other'),
    MadeUp('', _INCH, 1, 'TIFF and EXIF demand a number; no scanner has so large pixels'),
    MadeUp('', _CENTIMETRE, 1, 'the same in the other unit'),
    MadeUp('', _METRE, 1, 'the same in PNG'),
    MadeUp('EXIF', _INCH, 72, 'EXIF 2.3, 4.6.4: where the resolution is unknown, 72 is designated'),
)
# Resolutions are rounded to 32-bit floats and fractions.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Description:
    """
    What is known of an image.

    :param pixel_size: (x, y) in mm.
    :param magnification: of the objective.
    :param further: entries for the internal metadata.
    """

    pixel_size: PixelSize = UNKNOWN
    magnification: float | None = None
    further: Mapping[str, Any] = field(default_factory=dict)


def positive(value: Any) -> float | None:
    """A finite number above 0, from a number or text; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def pixel_size(kind: str, unit: float | None, across: Any, down: Any) -> PixelSize:
    """
    The size of a pixel where a header counts pixels in a unit of length.

    :param kind: the header: 'TIFF', 'EXIF', 'JFIF', 'PNG' or 'libvips'.
    :param unit: in mm; None if there is none: then the numbers only say how the
        pixels are shaped.
    :param across: how many pixels a unit has from left to right.  0, negative and
        infinite numbers and what is no number count as not given; if only one
        direction is given, it goes for both.
    :param down: the same from top to bottom.
    :returns: (x, y) in mm; unknown where not given or ``MADE_UP``.
    """
    columns, rows = positive(across), positive(down)
    columns, rows = columns or rows, rows or columns
    if unit is None or columns is None or rows is None:
        return UNKNOWN
    for rule in MADE_UP:
        # Any header may give 1 pixel a mm in another unit.
        count = rule.pixels * unit if rule.unit == 1 else rule.pixels
        if rule.kind in {'', kind} and rule.unit in {1, unit} and all(
                math.isclose(found, count, rel_tol=_ROUNDING) for found in (columns, rows)):
            return UNKNOWN
    size = positive(unit / columns), positive(unit / rows)
    return size if all(size) else UNKNOWN


def describe(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """
    What a file says of the scale of its image.

    :param file: the file.
    :param layout: what it holds.
    :param image: its first frame, open.
    """
    found = _DESCRIBERS.get(file.loader.name, _describe_nothing)(file, layout, image)
    across, down = found.pixel_size
    across, down = across or down, down or across
    if layout.frames[0].orientation in TRANSPOSED:
        across, down = down, across
    return Description((across, down), found.magnification, found.further)


def _describe_nothing(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    del file, layout, image
    return Description()


def _describe_tiff(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """OME-XML, Aperio and ImageJ say more than the tags, and are believed first."""
    del image
    with file.descriptor() as descriptor:
        try:
            tiff = TiffDirectories(descriptor)
            text = tiff.text(next(tiff.pages()).entries.get(DESCRIPTION))
        except (TiffFormatError, StopIteration):
            return Description()
        page = layout.frames[0].levels[0].page
        tags = UNKNOWN if page is None else _tiff_resolution(tiff, page)
        fields = ome.imagej_fields(text)
        unit = ome.imagej_unit(fields)
        if fields and unit and page is not None:
            across, down = map(positive, _resolution_tags(tiff, page))
            tags = (positive(unit / across) if across else None,
                    positive(unit / down) if down else None)
    if text.startswith('Aperio'):
        aperio = aperio_fields(text)
        microns = positive(aperio.get('MPP'))
        return Description((microns / 1000, microns / 1000) if microns else tags,
                           positive(aperio.get('AppMag')), {'aperio': aperio})
    series = ome.ome_series(text, '', 1)
    if series:
        first = series[0]
        size = first.pixel_size if any(first.pixel_size) else tags
        further = {'ome': {'images': [
            {'name': one.name, 'channels': [channel._asdict() for channel in one.channels]}
            for one in series]}}
        return Description(size, first.magnification, further)
    return Description(tags, None, {'imagej': fields} if fields else {})


def aperio_fields(text: str) -> dict[str, str]:
    """The ``key = value`` pairs of an Aperio description, which '|' separates."""
    pairs = (part.partition('=') for part in text.split('|')[1:])
    return {key.strip(): value.strip() for key, mark, value in pairs if mark}


def _tiff_resolution(tiff: TiffDirectories, page: Page) -> PixelSize:
    """The resolution tags; without a unit they only say how the pixels are shaped."""
    unit = tiff.integers(page.entries.get(RESOLUTION_UNIT))
    # TIFF 6.0: inch where the unit is not given.
    return pixel_size('TIFF', _TIFF_UNITS.get(unit[0] if unit else 2),
                      *_resolution_tags(tiff, page))


def _resolution_tags(tiff: TiffDirectories, page: Page) -> tuple[float | None, float | None]:
    """How many pixels a unit has, across and down."""
    return (tiff.number(page.entries.get(X_RESOLUTION)),
            tiff.number(page.entries.get(Y_RESOLUTION)))


def _describe_openslide(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """The properties that OpenSlide gives in the same way for every vendor."""
    del file, layout

    def number(name: str) -> float | None:
        return positive(image.get(name)) if image.get_typeof(name) else None

    across, down = (number(f'openslide.mpp-{axis}') for axis in 'xy')
    return Description((across and across / 1000, down and down / 1000),
                       number('openslide.objective-power'))


def _describe_png(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """The chunk pHYs (PNG 1.2, 11.3.5.3): pixels a metre, if its unit is 1; else EXIF."""
    del layout
    position = len(_PNG_SIGNATURE)
    with file.descriptor() as descriptor:
        # Ancillary chunks come before IDAT; there are not many of them.
        for _ in range(1000):
            head = read_at(descriptor, 8 + 9, position)
            if len(head) < 8 or head[4:8] == b'IDAT':
                break
            if head[4:8] == b'pHYs' and len(head) == 17:
                across, down, unit = struct.unpack('>IIB', head[8:])
                return Description(pixel_size('PNG', _METRE if unit == 1 else None, across, down))
            position += 12 + int.from_bytes(head[:4], 'big')
    return Description(_exif_resolution(image))


def _describe_jpeg(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """
    The density of the JFIF header (units 1: inch, 2: cm), else that of EXIF.

    libvips itself cannot tell an absent density from 72 a inch.
    """
    del layout
    with file.descriptor() as descriptor:
        head = read_at(descriptor, 20, 0)
    if head[2:4] == b'\xff\xe0' and head[6:11] == b'JFIF\0' and len(head) >= 18:
        unit, across, down = struct.unpack_from('>BHH', head, 13)
        size = pixel_size('JFIF', {1: _INCH, 2: _CENTIMETRE}.get(unit), across, down)
        if any(size):
            return Description(size)
    return Description(_exif_resolution(image))


def _describe_exif(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """Formats in which nothing but EXIF states a resolution."""
    del file, layout
    return Description(_exif_resolution(image))


def _exif_resolution(image: pyvips.Image) -> PixelSize:
    """The resolution of EXIF, as libvips decodes its first directory."""
    def value(name: str) -> str:
        key = f'exif-ifd0-{name}'
        return str(image.get(key)).split('(')[0].strip() if image.get_typeof(key) else ''

    unit = {'inch': _INCH, 'centimeter': _CENTIMETRE, '2': _INCH, '3': _CENTIMETRE}.get(
        value('ResolutionUnit').lower())
    return pixel_size('EXIF', unit, *(_ratio(value(f'{axis}Resolution')) for axis in 'XY'))


def _ratio(text: str) -> float | None:
    """A positive number written as one, or as numerator/denominator."""
    above, slash, below = text.partition('/')
    top, bottom = positive(above), positive(below) if slash else 1.0
    return top / bottom if top and bottom else None


def _describe_resolution(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """Formats in which libvips' resolution is what the file or its rendering has."""
    del file, layout
    return Description(pixel_size('libvips', 1.0, image.xres, image.yres))


_DESCRIBERS: dict[str, Callable[[SourceFile, Layout, pyvips.Image], Description]] = {
    'heifload': _describe_exif,
    'jpegload': _describe_jpeg,
    'jxlload': _describe_exif,
    'openslideload': _describe_openslide,
    'pdfload': _describe_resolution,
    'pngload': _describe_png,
    'tiffload': _describe_tiff,
    'vipsload': _describe_resolution,
    'webpload': _describe_exif,
}


# Colour profiles

def icc_profiles(file: SourceFile, layout: Layout, image: pyvips.Image) -> list[bytes | None]:
    """
    The ICC profile of each frame; empty if there is none at all.

    For TIFF the profile of each page is read, once where pages share it; for
    other formats the first frame has that of the file.
    """
    if unpacker(image).converts_colour:
        # They are sRGB already.
        return []
    count = len(layout.frames)
    if file.loader.name == 'tiffload':
        profiles = _tiff_profiles(file, layout)
    else:
        known = image.get_typeof('icc-profile-data')
        profile = bytes(image.get('icc-profile-data')) if known else None
        profiles = [profile] * count
    return profiles if any(profiles) else []


def _tiff_profiles(file: SourceFile, layout: Layout) -> list[bytes | None]:
    pages = [frame.levels[0].page for frame in layout.frames]
    entries = [page.entries.get(ICC_PROFILE) if page else None for page in pages]
    if not any(entries):
        return []
    seen: dict[bytes, bytes] = {}
    with file.descriptor() as descriptor:
        try:
            tiff = TiffDirectories(descriptor)
            read = {entry: tiff.data(entry) for entry in set(entries) if entry is not None}
        except TiffFormatError as exc:
            msg = f'Cannot read the ICC profiles of {file.path!r}: {exc}'
            raise TileSourceError(msg) from exc
    return [seen.setdefault(read[entry], read[entry]) or None if entry else None
            for entry in entries]


# Header fields

def header_fields(image: pyvips.Image) -> dict[str, Any]:
    """
    Every header field of an image under its own name, fit for ``json.dumps``.

    :param image: an open image.
    """
    return {name: json_safe(image.get(name), name) for name in image.get_fields()}


def json_safe(value: Any, name: str = '') -> Any:
    """
    A value that survives ``json.dumps``.

    Bytes become text where they are text (XMP, XML), else a description with
    their length and hash; what is huge is cut, with a note of its length.

    :param value: a header field.
    :param name: its name.
    """
    if isinstance(value, (bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _describe_bytes(bytes(value), name)
    if isinstance(value, (list, tuple)):
        items = [json_safe(item) for item in value[:_MAX_ITEMS]]
        return items if len(value) <= _MAX_ITEMS else [
            *items, f'... ({len(value)} items in all)']
    text = str(value).encode('utf-8', 'replace').decode('utf-8', 'replace')
    return text if len(text) <= _MAX_TEXT else (
        f'{text[:_MAX_TEXT]}... ({len(text)} characters in all)')


def _describe_bytes(data: bytes, name: str) -> Any:
    """Bytes as text if they are, else what they are."""
    stripped = data.rstrip(b'\0')
    if 'xmp' in name or stripped[:1] == b'<':
        try:
            return json_safe(stripped.decode('utf-8'))
        except UnicodeDecodeError:
            return _digest(data, name)
    return _digest(data, name)


def _digest(data: bytes, name: str) -> dict[str, Any]:
    return {'kind': name.removesuffix('-data') or 'bytes', 'length': len(data),
            'sha256': hashlib.sha256(data).hexdigest()}


def internal_metadata(file: SourceFile, layout: Layout, image: pyvips.Image,
                      description: Description) -> dict[str, Any]:
    """
    What libvips knows of a file, and what differs from frame to frame.

    No page but the first is opened for it.

    :param image: the first frame, open.
    """
    fields = header_fields(image)
    fields['filename'] = json_safe(file.path)
    fields['vips-loader'] = file.loader.name
    if layout.pages:
        # libvips may have been shown a single page only.
        fields['n-pages'] = layout.pages
    fields.update(json_safe_table(description.further))
    if len(layout.frames) > 1:
        fields['frames'] = _frame_fields(file, layout, image)
    return fields


def json_safe_table(value: Any) -> Any:
    """Nested dictionaries and lists fit for ``json.dumps``."""
    if isinstance(value, Mapping):
        return {str(key): json_safe_table(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe_table(item) for item in value]
    return json_safe(value)


def _frame_fields(file: SourceFile, layout: Layout, image: pyvips.Image) -> list[dict[str, Any]]:
    """What further frames have of their own, for frames 1, 2 and so on."""
    frames = layout.frames[1:_MAX_FRAMES]
    entries: list[dict[str, Any]] = [{} for _ in frames]
    delays = image.get('delay') if image.get_typeof('delay') else []
    if isinstance(delays, list):
        for entry, delay in zip(entries, delays[1:], strict=False):
            entry['delay'] = delay
    pages = [frame.levels[0].page for frame in frames]
    if any(page is not None and DESCRIPTION in page.entries for page in pages):
        with file.descriptor() as descriptor:
            tiff = TiffDirectories(descriptor)
            for entry, page in zip(entries, pages, strict=True):
                if page is not None and DESCRIPTION in page.entries:
                    entry['image-description'] = json_safe(
                        tiff.text(page.entries[DESCRIPTION]))
    return entries
