"""
Determine the pixel size and magnification of an image from its file.

Sizes are in mm per full-resolution pixel, after the orientation is applied.  Unknown values
are None.  Resolutions that writers fill in without knowing one (``MADE_UP``) count as
unknown.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyvips

from ..base.files import read_at
from ..tiff.directories import TiffDirectories, TiffFormatError
from ..tiff.ome import positive
from ..tiff.page import RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION, Page
from .file import SourceFile
from .layout import TRANSPOSED, Layout
from .maker_tags import UNKNOWN, Header, PixelSize
from .makers import describe_tiff
from .png_chunks import png_chunks

# Lengths in mm.
_INCH, _CENTIMETRE, _METRE = 25.4, 10.0, 1000.0
# By the tag ResolutionUnit; 1 is 'none'.
_TIFF_UNITS = {2: _INCH, 3: _CENTIMETRE}


class MadeUp(NamedTuple):
    """
    A resolution that is written when the real one is unknown.

    :param kind: the header that states it; '' for any.
    :param unit: the unit of length in mm; 1 for any unit.
    :param pixels: the number of pixels per unit, in both directions.
    :param reason: what writes it.
    """

    kind: str
    unit: float
    pixels: float
    reason: str


# These apply to numbers in headers, not to makers' texts and OpenSlide's properties, which no
# writer fills in by default.
MADE_UP = (
    MadeUp('', 1.0, 1, 'the default of libvips, 1 pixel per mm, which its savers write'),
    MadeUp('JFIF', _INCH, 25, 'the same as whole pixels per inch, as JFIF stores it'),
    MadeUp('', _INCH, 1, 'TIFF and EXIF require a number; no scanner has such large pixels'),
    MadeUp('', _CENTIMETRE, 1, 'the same in the other unit'),
    MadeUp('', _METRE, 1, 'the same in PNG'),
    MadeUp('EXIF', _INCH, 72, 'EXIF 2.3, 4.6.4: 72 is written if the resolution is unknown'),
)
# Headers round resolutions to 32-bit floats or fractions.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Description:
    """
    The scale of an image.

    :param pixel_size: (x, y) in mm.
    :param magnification: that of the objective.
    :param further: more entries for the internal metadata.
    """

    pixel_size: PixelSize = UNKNOWN
    magnification: float | None = None
    further: Mapping[str, Any] = field(default_factory=dict)


def size_from_resolution(kind: str, unit: float | None, across: Any, down: Any) -> PixelSize:
    """
    The pixel size from a resolution in a header.

    :param kind: the header: 'TIFF', 'EXIF', 'JFIF', 'PNG' or 'libvips'.
    :param unit: the unit of length in mm; None if there is none, which leaves only the
        aspect ratio of the pixels.
    :param across: the number of pixels per unit from left to right.  Anything but a
        positive finite number counts as missing; if one direction is missing, the other is
        used for both.
    :param down: the same from top to bottom.
    :returns: (x, y) in mm; ``UNKNOWN`` if it is missing or ``MADE_UP``.
    """
    columns, rows = positive(across), positive(down)
    columns, rows = columns or rows, rows or columns
    if unit is None or columns is None or rows is None:
        return UNKNOWN
    for rule in MADE_UP:
        # Headers state 1 pixel per mm in their own unit.
        count = rule.pixels * unit if rule.unit == 1 else rule.pixels
        if rule.kind in {'', kind} and rule.unit in {1, unit} and all(
                math.isclose(found, count, rel_tol=_ROUNDING) for found in (columns, rows)):
            return UNKNOWN
    size = positive(unit / columns), positive(unit / rows)
    return size if all(size) else UNKNOWN


def describe(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """
    The scale of the first frame of a file.

    :param image: an open image of that frame.
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
    """Makers' texts take precedence over the resolution tags; see ``makers``."""
    del image
    with file.descriptor() as descriptor:
        try:
            tiff = TiffDirectories(descriptor)
            first = next(tiff.pages())
            page = layout.frames[0].levels[0].page or first
            header = Header(tiff, first, page, _tiff_resolution(tiff, page))
            return Description(*describe_tiff(header))
        except (TiffFormatError, StopIteration):
            return Description()


def _tiff_resolution(tiff: TiffDirectories, page: Page) -> PixelSize:
    """The pixel size from the resolution tags."""
    unit = tiff.integers(page.entries.get(RESOLUTION_UNIT))
    # TIFF 6.0: the default unit is the inch.
    return size_from_resolution(
        'TIFF', _TIFF_UNITS.get(unit[0] if unit else 2),
        *(tiff.number(page.entries.get(tag)) for tag in (X_RESOLUTION, Y_RESOLUTION)))


def _describe_openslide(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """The properties of OpenSlide that are the same for every vendor."""
    del file, layout

    def number(name: str) -> float | None:
        return positive(image.get(name)) if image.get_typeof(name) else None

    across, down = (number(f'openslide.mpp-{axis}') for axis in 'xy')
    return Description((across and across / 1000, down and down / 1000),
                       number('openslide.objective-power'))


def _describe_png(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """The chunk pHYs (PNG 1.2, 11.3.5.3), in pixels per metre if its unit is 1; else EXIF."""
    del layout
    with file.descriptor() as descriptor:
        for chunk in png_chunks(descriptor):
            if chunk.kind == b'pHYs' and chunk.size == 9:
                data = read_at(descriptor, 9, chunk.offset)
                if len(data) == 9:
                    across, down, unit = struct.unpack('>IIB', data)
                    return Description(size_from_resolution(
                        'PNG', _METRE if unit == 1 else None, across, down))
    return Description(_exif_resolution(image))


def _describe_jpeg(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """
    The density of the JFIF header (unit 1: inch, 2: cm), else that of EXIF.

    libvips does not distinguish a missing density from 72 per inch.
    """
    del layout
    with file.descriptor() as descriptor:
        head = read_at(descriptor, 20, 0)
    if head[2:4] == b'\xff\xe0' and head[6:11] == b'JFIF\0' and len(head) >= 18:
        unit, across, down = struct.unpack_from('>BHH', head, 13)
        size = size_from_resolution('JFIF', {1: _INCH, 2: _CENTIMETRE}.get(unit), across, down)
        if any(size):
            return Description(size)
    return Description(_exif_resolution(image))


def _describe_exif(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """Formats that state a resolution only in EXIF."""
    del file, layout
    return Description(_exif_resolution(image))


def _exif_resolution(image: pyvips.Image) -> PixelSize:
    """The resolution of EXIF, from the first directory as decoded by libvips."""
    def value(name: str) -> str:
        key = f'exif-ifd0-{name}'
        return str(image.get(key)).split('(')[0].strip() if image.get_typeof(key) else ''

    unit = {'inch': _INCH, 'centimeter': _CENTIMETRE, '2': _INCH, '3': _CENTIMETRE}.get(
        value('ResolutionUnit').lower())
    return size_from_resolution(
        'EXIF', unit, *(_ratio(value(f'{axis}Resolution')) for axis in 'XY'))


def _ratio(text: str) -> float | None:
    """A positive number, written as one or as numerator/denominator."""
    above, slash, below = text.partition('/')
    top, bottom = positive(above), positive(below) if slash else 1.0
    return top / bottom if top and bottom else None


def _describe_resolution(file: SourceFile, layout: Layout, image: pyvips.Image) -> Description:
    """Formats for which libvips returns the resolution of the file or its rendering."""
    del file, layout
    return Description(size_from_resolution('libvips', 1.0, image.xres, image.yres))


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
