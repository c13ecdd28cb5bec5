"""
Determine the pixel size and magnification of an image from its file.

Sizes are in mm per full-resolution pixel, after the orientation is applied; None if
unknown.  Default resolutions that programs write (``MADE_UP``) count as unknown.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pyvips

from ..base.files import read_at
from ..tiff.directories import TiffDirectories, TiffFormatError
from ..tiff.ome import positive
from ..tiff.page import RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION, Page
from .file import SourceFile
from .layout import TRANSPOSED, Layout
from .maker_tags import UNKNOWN, Header, PixelSize, Scale
from .makers import tiff_scale
from .png_chunks import png_chunks

# Lengths in mm.
_INCH, _CENTIMETRE, _METRE = 25.4, 10.0, 1000.0
# By the tag ResolutionUnit; 1 is 'none'.
_TIFF_UNITS = {2: _INCH, 3: _CENTIMETRE}


class MadeUp(NamedTuple):
    """
    A resolution that programs write if they do not know the real one.

    :param kind: the header that contains it; '' for any.
    :param unit: the unit of length in mm; 1 for any unit.
    :param pixels: the number of pixels per unit, in both directions.
    :param reason: the program or standard that writes it.
    """

    kind: str
    unit: float
    pixels: float
    reason: str


# These apply to numbers in headers, not to makers' texts and OpenSlide's properties, which
# have no default values.
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


def scale_of(file: SourceFile, layout: Layout, image: pyvips.Image) -> Scale:
    """
    The scale of the first frame of a file.

    :param image: an open image of that frame.
    """
    found = _READERS.get(file.loader.name, _scale_unknown)(file, layout, image)
    across, down = found.pixel_size
    across, down = across or down, down or across
    if layout.frames[0].orientation in TRANSPOSED:
        across, down = down, across
    return Scale((across, down), found.magnification, found.further)


def _scale_unknown(file: SourceFile, layout: Layout, image: pyvips.Image) -> Scale:
    del file, layout, image
    return Scale()


def _tiff_scale(file: SourceFile, layout: Layout, image: pyvips.Image) -> Scale:
    """TIFF: makers' texts, else the resolution tags; see ``makers``."""
    del image
    with file.descriptor() as descriptor:
        try:
            tiff = TiffDirectories(descriptor)
            first = next(tiff.pages())
            page = layout.frames[0].levels[0].page or first
            header = Header(tiff, first, page, _tiff_resolution(tiff, page))
            return tiff_scale(header)
        except (TiffFormatError, StopIteration):
            return Scale()


def _tiff_resolution(tiff: TiffDirectories, page: Page) -> PixelSize:
    """The pixel size from the resolution tags."""
    unit = tiff.integers(page.entries.get(RESOLUTION_UNIT))
    # TIFF 6.0: the default unit is the inch.
    return size_from_resolution(
        'TIFF', _TIFF_UNITS.get(unit[0] if unit else 2),
        *(tiff.number(page.entries.get(tag)) for tag in (X_RESOLUTION, Y_RESOLUTION)))


def _openslide_scale(file: SourceFile, layout: Layout, image: pyvips.Image) -> Scale:
    """OpenSlide's properties ``openslide.mpp-x`` and so on, equal for all vendors."""
    del file, layout

    def number(name: str) -> float | None:
        return positive(image.get(name)) if image.get_typeof(name) else None

    across, down = (number(f'openslide.mpp-{axis}') for axis in 'xy')
    return Scale((across and across / 1000, down and down / 1000),
                       number('openslide.objective-power'))


def _png_scale(file: SourceFile, layout: Layout, image: pyvips.Image) -> Scale:
    """The chunk pHYs (PNG 1.2, 11.3.5.3), in pixels per metre if its unit is 1; else EXIF."""
    del layout
    with file.descriptor() as descriptor:
        for chunk in png_chunks(descriptor):
            if chunk.kind == b'pHYs' and chunk.size == 9:
                data = read_at(descriptor, 9, chunk.offset)
                if len(data) == 9:
                    across, down, unit = struct.unpack('>IIB', data)
                    return Scale(size_from_resolution(
                        'PNG', _METRE if unit == 1 else None, across, down))
    return Scale(_exif_resolution(image))


def _jpeg_scale(file: SourceFile, layout: Layout, image: pyvips.Image) -> Scale:
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
            return Scale(size)
    return Scale(_exif_resolution(image))


def _exif_scale(file: SourceFile, layout: Layout, image: pyvips.Image) -> Scale:
    """Formats that state a resolution only in EXIF."""
    del file, layout
    return Scale(_exif_resolution(image))


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
    """A positive number, written as a decimal or as numerator/denominator."""
    above, slash, below = text.partition('/')
    top, bottom = positive(above), positive(below) if slash else 1.0
    return top / bottom if top and bottom else None


def _libvips_scale(file: SourceFile, layout: Layout, image: pyvips.Image) -> Scale:
    """Formats for which libvips returns the resolution of the file or of the rendering."""
    del file, layout
    return Scale(size_from_resolution('libvips', 1.0, image.xres, image.yres))


_READERS: dict[str, Callable[[SourceFile, Layout, pyvips.Image], Scale]] = {
    'heifload': _exif_scale,
    'jpegload': _jpeg_scale,
    'jxlload': _exif_scale,
    'openslideload': _openslide_scale,
    'pdfload': _libvips_scale,
    'pngload': _png_scale,
    'tiffload': _tiff_scale,
    'vipsload': _libvips_scale,
    'webpload': _exif_scale,
}
