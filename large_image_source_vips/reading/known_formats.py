"""
List the formats that libvips can read: suffixes, MIME types, signatures and libraries.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import NamedTuple

import pyvips


class Format(NamedTuple):
    """
    The formats of one libvips loader.

    :param suffixes: without the dot, separated by spaces, from libvips' documentation;
        libvips itself lists only the suffixes that it can save.
    :param mime_types: those registered with IANA and others in use.
    :param library: the library that libvips needs for it.
    """

    suffixes: str
    mime_types: str = ''
    library: str = ''


# By the name of the loader, without ``_source`` or ``_buffer``.
FORMATS = {
    'analyzeload': Format('hdr img'),
    'fitsload': Format('fits fit fts', 'image/fits application/fits', 'CFITSIO'),
    'gifload': Format('gif', 'image/gif', 'its GIF support'),
    'heifload': Format('heic heif avif', 'image/heic image/heif image/avif', 'libheif'),
    'jp2kload': Format('j2k jp2 jpt j2c jpc', 'image/jp2 image/jpx image/j2c', 'OpenJPEG'),
    'jpegload': Format('jpg jpeg jpe jfif', 'image/jpeg image/jpg', 'libjpeg'),
    'jxlload': Format('jxl', 'image/jxl', 'libjxl'),
    'magickload': Format(
        'bmp dcm dds dpx ico pcx psb psd ras rgb sgi tga viff xcf xpm',
        'application/dicom image/bmp image/sgi image/vnd.adobe.photoshop '
        'image/vnd.microsoft.icon image/x-dpx image/x-icon image/x-ms-bmp image/x-pcx '
        'image/x-sgi image/x-tga image/x-targa image/x-viff image/x-xpixmap', 'ImageMagick'),
    'matload': Format('mat', '', 'matio'),
    'niftiload': Format('nii nii.gz', 'image/x-nifti', 'NIfTI'),
    'openexrload': Format('exr', 'image/x-exr', 'OpenEXR'),
    'openslideload': Format(
        'svs vms vmu ndpi scn mrxs svslide bif', 'image/x-ndpi image/x-svs', 'OpenSlide'),
    'pdfload': Format('pdf', 'application/pdf', 'Poppler or PDFium'),
    'pngload': Format('png', 'image/png', 'libpng'),
    'ppmload': Format(
        'pbm pgm ppm pnm pfm pam',
        'image/x-portable-anymap image/x-portable-bitmap image/x-portable-graymap '
        'image/x-portable-pixmap', 'its PPM support'),
    'radload': Format('hdr', 'image/vnd.radiance image/x-hdr', 'its Radiance support'),
    'rawload': Format(''),
    'svgload': Format('svg svgz svg.gz', 'image/svg+xml', 'librsvg'),
    'tiffload': Format('tif tiff', 'image/tiff image/x-ptif image/x-tiff', 'libtiff'),
    'uhdrload': Format(''),
    'vipsload': Format('v vips'),
    'webpload': Format('webp', 'image/webp', 'libwebp'),
}


class Signature(NamedTuple):
    """
    Bytes by which a format is recognised.

    :param start: their offset in the file.
    :param magic: the bytes.
    :param name: of the format.
    :param loader: the loader that reads it.
    :param test: checks the first 512 bytes, for formats with a short magic.
    """

    start: int
    magic: bytes
    name: str
    loader: str
    test: Callable[[bytes], bool] | None = None

    def matches(self, head: bytes) -> bool:
        """Whether the first bytes of a file have the signature."""
        return head.startswith(self.magic, self.start) and (
            self.test is None or self.test(head))


def _is_tga(head: bytes) -> bool:
    """
    Whether all fields of a TGA header are plausible; the format has no magic.

    Truevision TGA File Format Specification 2.0, page 6.
    """
    if len(head) < 18:
        return False
    (_, mapped, kind, map_start, map_length, map_bits, _, _, width, height, bits,
     flags) = struct.unpack_from('<3B2HB4H2B', head)
    if kind not in _TGA_BITS or bits not in _TGA_BITS[kind] or not (width and height):
        return False
    has_map = kind in {1, 9}
    return (mapped == has_map and flags & 0xc0 == 0 and flags & 0x0f <= 8 and
            (bool(map_length) and map_bits in {15, 16, 24, 32} if has_map
             else map_start == map_length == map_bits == 0))


# The possible bits per pixel by image type: palette, RGB and gray, then the same
# compressed.  ImageMagick would read gray with alpha (16 bits) as gray of 16 bits.
_TGA_BITS = {1: {8}, 2: {15, 16, 24, 32}, 3: {8}, 9: {8}, 10: {15, 16, 24, 32}, 11: {8}}


def _is_sgi(head: bytes) -> bool:
    """Whether the storage, bytes and dimensions of an SGI header are possible."""
    return len(head) >= 6 and head[2] in {0, 1} and head[3] in {1, 2} and \
        int.from_bytes(head[4:6], 'big') in {1, 2, 3}


def _is_pcx(head: bytes) -> bool:
    """Whether version, encoding and bits of a PCX header are possible."""
    return len(head) >= 4 and head[1] in {0, 2, 3, 4, 5} and head[2] == 1 and \
        head[3] in {1, 2, 4, 8}


# The only files that ImageMagick may read, because it guesses the format of others.  Once
# it has tried its TIFF reader, an error in any other TIFF file ends the process, because it
# replaces libtiff's error handler (seen with ImageMagick 6.9).
MAGICK_SIGNATURES = (
    Signature(0, b'BM', 'BMP', 'magickload'),
    Signature(0, b'8BPS', 'Photoshop', 'magickload'),
    Signature(128, b'DICM', 'DICOM', 'magickload'),
    Signature(0, b'DDS ', 'DirectDraw Surface', 'magickload'),
    Signature(0, b'\0\0\1\0', 'Windows icon', 'magickload'),
    Signature(0, b'Y\xa6j\x95', 'Sun raster', 'magickload'),
    Signature(0, b'gimp xcf', 'GIMP', 'magickload'),
    Signature(0, b'/* XPM */', 'X pixmap', 'magickload'),
    Signature(0, b'\x01\xda', 'SGI', 'magickload', _is_sgi),
    Signature(0, b'\n', 'PCX', 'magickload', _is_pcx),
    Signature(0, b'SDPX', 'DPX', 'magickload'),
    Signature(0, b'XPDS', 'DPX', 'magickload'),
    Signature(0, b'\xab\x01', 'VIFF', 'magickload'),
    Signature(0, b'', 'TGA', 'magickload', _is_tga),
)

# For errors that name the missing loader; the first match counts.
SIGNATURES = (
    Signature(0, b'%PDF', 'PDF', 'pdfload'),
    Signature(4, b'jP  \r\n\x87\n', 'JPEG 2000', 'jp2kload'),
    Signature(0, b'\xff\x4f\xff\x51', 'JPEG 2000', 'jp2kload'),
    Signature(0, b'\xff\x0a', 'JPEG XL', 'jxlload'),
    Signature(4, b'JXL \r\n\x87\n', 'JPEG XL', 'jxlload'),
    Signature(4, b'ftyp', 'HEIF or AVIF', 'heifload'),
    Signature(0, b'SIMPLE  =', 'FITS', 'fitsload'),
    Signature(0, b'v/1\x01', 'OpenEXR', 'openexrload'),
    Signature(0, b'#?RADIANCE', 'Radiance', 'radload'),
    Signature(344, b'n+1\0', 'NIfTI', 'niftiload'),
    Signature(128, b'DICM', 'DICOM', 'openslideload'),
    Signature(0, b'MATLAB', 'MATLAB', 'matload'),
    Signature(0, b'P6', 'PPM', 'ppmload'),
    Signature(0, b'P5', 'PGM', 'ppmload'),
    Signature(0, b'<svg', 'SVG', 'svgload'),
    Signature(0, b'RIFF', 'WebP', 'webpload'),
    Signature(0, b'GIF8', 'GIF', 'gifload'),
    Signature(0, b'\x89PNG', 'PNG', 'pngload'),
    Signature(0, b'\xff\xd8\xff', 'JPEG', 'jpegload'),
    *MAGICK_SIGNATURES,
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
    return sorted({suffix for loader, known in FORMATS.items() if has_loader(loader)
                   for suffix in known.suffixes.split()})


def known_mime_types() -> list[str]:
    """The MIME types of the files that this libvips can load."""
    return sorted({kind for loader, known in FORMATS.items() if has_loader(loader)
                   for kind in known.mime_types.split()})
