"""
The formats that this libvips reads: suffixes, MIME types, and what it lacks.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import pyvips

# The suffixes of each loader, as in libvips' documentation of its loaders.
# libvips itself only lists what it can save.
_SUFFIXES = {
    'analyzeload': 'hdr img',
    'fitsload': 'fits fit fts',
    'gifload': 'gif',
    'heifload': 'heic heif avif',
    'jp2kload': 'j2k jp2 jpt j2c jpc',
    'jpegload': 'jpg jpeg jpe jfif',
    'jxlload': 'jxl',
    'magickload': 'bmp dcm dds ico psd ras xcf xpm',
    'matload': 'mat',
    'niftiload': 'nii nii.gz',
    'openexrload': 'exr',
    'openslideload': 'svs vms vmu ndpi scn mrxs svslide bif',
    'pdfload': 'pdf',
    'pngload': 'png',
    'ppmload': 'pbm pgm ppm pnm pfm pam',
    'radload': 'hdr',
    'rawload': '',
    'svgload': 'svg svgz svg.gz',
    'tiffload': 'tif tiff',
    'uhdrload': '',
    'vipsload': 'v vips',
    'webpload': 'webp',
}

# The MIME types of each loader: what IANA has registered, and what else is in
# use for these files.
_MIME_TYPES = {
    'fitsload': 'image/fits application/fits',
    'gifload': 'image/gif',
    'heifload': 'image/heic image/heif image/avif',
    'jp2kload': 'image/jp2 image/jpx image/j2c',
    'jpegload': 'image/jpeg image/jpg',
    'jxlload': 'image/jxl',
    'magickload': 'application/dicom image/bmp image/vnd.adobe.photoshop image/vnd.microsoft.icon '
                  'image/x-icon image/x-ms-bmp image/x-pcx image/x-tga image/x-xpixmap',
    'niftiload': 'image/x-nifti',
    'openexrload': 'image/x-exr',
    'openslideload': 'image/x-ndpi image/x-svs',
    'pdfload': 'application/pdf',
    'pngload': 'image/png',
    'ppmload': 'image/x-portable-anymap image/x-portable-bitmap image/x-portable-graymap '
               'image/x-portable-pixmap',
    'radload': 'image/vnd.radiance image/x-hdr',
    'svgload': 'image/svg+xml',
    'tiffload': 'image/tiff image/x-ptif image/x-tiff',
    'webpload': 'image/webp',
}

# What is left to ImageMagick, by its bytes and where they are.  It guesses at
# anything else, and once it tried its own TIFF reader, an error in any other
# TIFF file ends the process: it has put itself in the place of libtiff's error
# handler (seen with ImageMagick 6.9).
_FOR_MAGICK = (
    (0, b'BM'), (0, b'8BPS'), (128, b'DICM'), (0, b'DDS '), (0, b'\0\0\1\0'),
    (0, b'Y\xa6j\x95'), (0, b'gimp xcf'), (0, b'/* XPM */'),
)


class _Kind(NamedTuple):
    """How to recognise a kind of file for which this libvips may lack the loader."""

    starts_at: int
    magic: bytes
    name: str
    loader: str
    library: str

_MISSING = (
    _Kind(0, b'%PDF', 'PDF', 'pdfload', 'Poppler or PDFium'),
    _Kind(4, b'jP  \r\n\x87\n', 'JPEG 2000', 'jp2kload', 'OpenJPEG'),
    _Kind(0, b'\xff\x4f\xff\x51', 'JPEG 2000', 'jp2kload', 'OpenJPEG'),
    _Kind(0, b'\xff\x0a', 'JPEG XL', 'jxlload', 'libjxl'),
    _Kind(4, b'JXL \r\n\x87\n', 'JPEG XL', 'jxlload', 'libjxl'),
    _Kind(4, b'ftyp', 'HEIF or AVIF', 'heifload', 'libheif'),
    _Kind(0, b'SIMPLE  =', 'FITS', 'fitsload', 'CFITSIO'),
    _Kind(0, b'v/1\x01', 'OpenEXR', 'openexrload', 'OpenEXR'),
    _Kind(0, b'#?RADIANCE', 'Radiance', 'radload', 'its Radiance support'),
    _Kind(344, b'n+1\0', 'NIfTI', 'niftiload', 'NIfTI'),
    _Kind(128, b'DICM', 'DICOM', 'openslideload', 'OpenSlide'),
    _Kind(0, b'BM', 'BMP', 'magickload', 'ImageMagick'),
    _Kind(0, b'8BPS', 'Photoshop', 'magickload', 'ImageMagick'),
    _Kind(0, b'MATLAB', 'MATLAB', 'matload', 'matio'),
    _Kind(0, b'P6', 'PPM', 'ppmload', 'its PPM support'),
    _Kind(0, b'P5', 'PGM', 'ppmload', 'its PPM support'),
    _Kind(0, b'<svg', 'SVG', 'svgload', 'librsvg'),
    _Kind(0, b'RIFF', 'WebP', 'webpload', 'libwebp'),
    _Kind(0, b'GIF8', 'GIF', 'gifload', 'its GIF support'),
    _Kind(0, b'\x89PNG', 'PNG', 'pngload', 'libpng'),
    _Kind(0, b'\xff\xd8\xff', 'JPEG', 'jpegload', 'libjpeg'),
)

GET_A_FULLER_LIBVIPS = (
    "install one that has it, such as Debian's libvips42 or conda-forge's libvips, and pyvips "
    'without its binary extra')


@functools.cache
def has_operation(name: str) -> bool:
    """Whether this libvips has an operation, such as a loader."""
    return bool(pyvips.type_find('VipsOperation', name))


def has_loader(name: str) -> bool:
    """Whether this libvips has a loader in any variant."""
    return has_operation(name) or has_operation(f'{name}_source')


def known_suffixes() -> list[str]:
    """The suffixes of the files that this libvips can load, in lower case, without the dot."""
    return sorted({suffix for loader, suffixes in _SUFFIXES.items() if has_loader(loader)
                   for suffix in suffixes.split()})


def known_mime_types() -> list[str]:
    """The MIME types of the files that this libvips can load."""
    return sorted({kind for loader, kinds in _MIME_TYPES.items() if has_loader(loader)
                   for kind in kinds.split()})
