"""
From a path to open libvips images.

libvips names the loader for the bytes of a file; that loader is then called by
name through a libvips *source*.  So a path is never parsed for ``[options]``,
an image is never taken from libvips' cache of operations, and dropping an image
closes its descriptor at once.  Loaders that have no such variant are given the
path as a plain argument.

Which loaders may be used is the setting ``source_vips_loaders``:

:'default': every loader; in Girder, where files are what users upload, the
    trusted ones and OpenSlide.
:'all': every loader of this libvips.
:'trusted': those that libvips does not mark as unfit for untrusted input.
:a list of names: such as ``['tiffload', 'jpegload']``; 'trusted' may be one.

It is looked at for each file, before libvips decodes anything of it.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import pyvips
from large_image import config
from large_image.exceptions import TileSourceError, TileSourceFileNotFoundError
from pyvips import ffi, vips_lib

from ..base.errors import vips_errors, vips_reason
from ..base.files import READ_FLAGS, SHARES_DESCRIPTORS, PositionedReader, read_at

config.ConfigValues.setdefault('source_vips_loaders', 'default')

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
# Tables of numbers and headerless bytes are not taken for images.
_NOT_IMAGES = frozenset({'csvload', 'matrixload', 'rawload'})
# What is left to ImageMagick, by its bytes and where they are.  It guesses at
# anything else, and once it tried its own TIFF reader, an error in any other
# TIFF file ends the process: it has put itself in the place of libtiff's error
# handler (seen with ImageMagick 6.9).
_FOR_MAGICK = (
    (0, b'BM'), (0, b'8BPS'), (128, b'DICM'), (0, b'DDS '), (0, b'\0\0\1\0'),
    (0, b'Y\xa6j\x95'), (0, b'gimp xcf'), (0, b'/* XPM */'),
)
# Loaders whose source variant wants to know the name of the file, and how the files
# begin that they may be for.
_NAMED_SOURCES = {
    # Compressed ones, too, which CFITSIO reads.
    'fitsload': (b'SIMPLE', b'\x1f\x8b'), 'openslideload': (b'',),
    'vipsload': (b'\x08\xf2\xa6\xb6', b'\xb6\xa6\xf2\x08')}
# How much must be amiss for a loader to fail instead of handing out what it
# has.  With TIFF nothing less shows a bad tile; elsewhere libraries also warn
# of files that they decode perfectly well.
_FAIL_ON = {'tiffload': 'warning'}
_DEFAULT_FAIL_ON = 'error'
# VIPS_OPERATION_UNTRUSTED of libvips' VipsOperationFlags, since libvips 8.13.
_UNTRUSTED = 16


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


class Identity(NamedTuple):
    """What the file system says of the contents of a file."""

    size: int
    mtime_ns: int
    device: int
    inode: int


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


def _identity_of(status: os.stat_result) -> Identity:
    return Identity(status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)


def file_identity(path: Any) -> Identity | None:
    """
    What the file system says of a file; changes when the file does.

    :param path: anything at all.
    :returns: None if it is not the path of something that exists.
    """
    try:
        return _identity_of(os.stat(os.fspath(path)))
    except (TypeError, ValueError, OSError):
        return None


class Loader(NamedTuple):
    """
    One of libvips' loaders, and how to call it.

    :param name: without the variant, such as 'tiffload'.
    :param through: 'descriptor' or 'file', the two kinds of source, or 'path'.
    """

    name: str
    through: str

    @property
    def fail_on(self) -> str:
        """How much must be amiss for this loader to fail."""
        return _FAIL_ON.get(self.name, _DEFAULT_FAIL_ON)


def _is_trusted(name: str) -> bool:
    """Whether libvips holds a loader to be fit for untrusted input."""
    if not pyvips.at_least_libvips(8, 13):
        msg = ("The setting source_vips_loaders = 'trusted' needs libvips 8.13 or newer; give a "
               'list of loaders instead.')
        raise TileSourceError(msg)
    if not has_loader(name):
        return False
    variant = name if has_operation(name) else f'{name}_source'
    return not pyvips.Introspect.get(variant).flags & _UNTRUSTED


def _policy(default: str | Collection[str]) -> Callable[[str], bool] | None:
    """
    The rule that says which loaders may be used, None for all of them.

    :param default: what the setting 'default' stands for.
    :raises TileSourceError: if the setting is not understood.
    """
    setting = config.getConfig('source_vips_loaders', 'default')
    if setting == 'default':
        setting = default
    names = setting.split(',') if isinstance(setting, str) else setting
    if not isinstance(names, (list, tuple, set, frozenset)) or not all(
            isinstance(name, str) for name in names):
        msg = ("The setting source_vips_loaders must be 'all', 'trusted' or a list of names, not "
               f'{setting!r}.')
        raise TileSourceError(msg)
    allowed = {name.strip().removesuffix('_source').removesuffix('_buffer') for name in names}
    if 'all' in allowed:
        return None
    if 'trusted' in allowed:
        return lambda name: name in allowed or _is_trusted(name)
    return allowed.__contains__


def absolute_path(path: Any) -> str:
    """
    The absolute path that a caller's path stands for now.

    :param path: a str, bytes or path object.
    :raises TileSourceError: if it is none of these or cannot be a path.
    """
    try:
        text = os.fsdecode(path)
        if b'\0' in os.fsencode(text):
            raise ValueError(text)
        return os.path.abspath(text)
    except (TypeError, ValueError) as exc:
        msg = f'Not the path of a file: {path!r:.200}'
        raise TileSourceError(msg) from exc


def open_regular(path: str) -> int:
    """
    A new descriptor of a regular file.

    :param path: an absolute path.
    :returns: a descriptor, for the caller to close.
    :raises TileSourceFileNotFoundError: if there is none.
    :raises TileSourceError: if it cannot be opened or is not a regular file.
    """
    try:
        # Opening a pipe or a device can block or have effects; look first.
        _check_regular(path, os.stat(path))
        descriptor = os.open(path, READ_FLAGS)
    except OSError as exc:
        if exc.errno in {errno.ENOENT, errno.ENOTDIR}:
            msg = f'No such file: {path!r}'
            raise TileSourceFileNotFoundError(msg) from exc
        msg = f'Cannot open {path!r}: {exc.strerror}'
        raise TileSourceError(msg) from exc
    try:
        _check_regular(path, os.fstat(descriptor))
    except TileSourceError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(path: str, status: os.stat_result) -> None:
    """Refuse what is not a file with bytes in it."""
    kinds = ((stat.S_ISDIR, 'a directory'), (stat.S_ISFIFO, 'a pipe'), (stat.S_ISSOCK, 'a socket'),
             (stat.S_ISCHR, 'a device'), (stat.S_ISBLK, 'a device'))
    for is_kind, kind in kinds:
        if is_kind(status.st_mode):
            msg = f'Cannot read {path!r}: it is {kind}, not a file'
            raise TileSourceError(msg)
    if not status.st_size:
        msg = f'Cannot read {path!r}: it is empty'
        raise TileSourceError(msg)


def identity_of_descriptor(descriptor: int) -> Identity:
    """What the file system says of an open file."""
    return _identity_of(os.fstat(descriptor))


class Found(NamedTuple):
    """
    A loader that was found.

    :param loader: which.
    :param source: what libvips looked at, if it can be loaded from as well.
    """

    loader: Loader
    source: pyvips.Source | None


def find_loader(path: str, descriptor: int, default: str | Collection[str] = 'all') -> Found:
    """
    The loader for a file, if the settings allow it.

    :param path: an absolute path.
    :param descriptor: an open descriptor of that file.
    :param default: what the setting 'default' stands for.
    :raises TileSourceError: if no loader knows the file, or it may not be used.
    """
    allowed = _policy(default)
    head = read_at(descriptor, 512, 0)
    # A source with a name lets loaders look at the file that libvips does not
    # trust (OpenSlide); the descriptor alone does not.
    named = any(head.startswith(starts) and (allowed is None or allowed(name)) and
                has_loader(name) for name, starts in _NAMED_SOURCES.items())
    with vips_errors(f'Cannot read {path!r}'):
        source = (pyvips.Source.new_from_file(os.fsencode(path)) if named
                  else _unnamed_source(descriptor))
        found = vips_lib.vips_foreign_find_load_source(source.pointer)
    through = 'descriptor'
    if found == ffi.NULL and (allowed is None or any(map(allowed, _loaders_by_path()))):
        # Behind '[]', which libvips takes for no options at all, nothing in the
        # path itself is taken for options.
        found = vips_lib.vips_foreign_find_load(os.fsencode(path) + b'[]')
        through = 'path'
    vips_lib.vips_error_clear()
    name = '' if found == ffi.NULL else _operation_of_class(ffi.string(found).decode())
    base = name.removesuffix('_source')
    if not name or (base == 'magickload' and not any(
            head.startswith(magic, start) for start, magic in _FOR_MAGICK)):
        hint = '' if allowed is None else (
            '; loaders that the setting source_vips_loaders does not allow were not asked')
        raise TileSourceError(_unknown(path, head) + hint)
    if base in _NOT_IMAGES:
        msg = f'Cannot read {path!r}: it is a table of numbers or text, not an image'
        raise TileSourceError(msg)
    if allowed is not None and not allowed(base):
        msg = (f'Refused to read {path!r}: its loader {base} is not among those that the setting '
               'source_vips_loaders allows')
        raise TileSourceError(msg)
    if through == 'path':
        return Found(Loader(base, through), None)
    if base in _NAMED_SOURCES or not SHARES_DESCRIPTORS:
        return Found(Loader(base, 'file'), None)
    return Found(Loader(base, through), None if named else source)


def _unnamed_source(descriptor: int) -> pyvips.Source:
    """A source on an open file that does not know its path."""
    if SHARES_DESCRIPTORS:
        return pyvips.Source.new_from_descriptor(descriptor)
    reader = PositionedReader(descriptor)
    source = pyvips.SourceCustom()
    source.on_read(reader.read)
    source.on_seek(reader.seek)
    return source


@functools.cache
def _operation_of_class(class_name: str) -> str:
    """The name of the operation that a class such as VipsForeignLoadTiffSource implements."""
    return str(pyvips.nickname_find(pyvips.type_from_name(class_name)))


def _loaders_by_path() -> list[str]:
    """The loaders that this libvips has only in the variant for paths."""
    return [name for name in _SUFFIXES
            if has_operation(name) and not has_operation(f'{name}_source')]


def _unknown(path: str, head: bytes) -> str:
    """Why no loader was found for a file that starts so, and what would help."""
    version = '.'.join(str(pyvips.version(part)) for part in range(3))
    for kind in _MISSING:
        found = head[kind.starts_at:].startswith(kind.magic)
        if found and not has_loader(kind.loader):
            return (f'Cannot read {path!r}: it looks like {kind.name}, and this libvips '
                    f'({version}) has no {kind.loader}, which needs {kind.library}; '
                    f'{GET_A_FULLER_LIBVIPS}')
    return f'Cannot read {path!r}: it is in no image format that this libvips ({version}) knows'


def lacks_codec(error: pyvips.Error) -> bool:
    """Whether libvips says that it has no decoder for a compression."""
    return any(words in vips_reason(error) for words in ('not configured', 'not implemented'))


def why_not_decoded(compression: str, error: pyvips.Error) -> str:
    """
    Why pixels could not be decoded, and what would help.

    :param compression: its name, '' if there is only one in the format.
    :param error: what libvips said.
    """
    parts = [f'its {compression} data cannot be decoded'] if compression else []
    parts.append(vips_reason(error))
    if lacks_codec(error):
        parts.append(f'this libvips lacks that codec; {GET_A_FULLER_LIBVIPS}')
    return '; '.join(parts)


def load(loader: Loader, path: str, identity: Identity | None, options: Mapping[str, Any], *,
         sequential: bool = False, source: pyvips.Source | None = None) -> pyvips.Image:
    """
    A fresh libvips image on a file.

    :param loader: from ``find_loader``.
    :param path: an absolute path.
    :param identity: what the file must still be; None not to check.
    :param options: of the loader.
    :param sequential: whether the pixels are wanted once, from top to bottom.
    :param source: to read from instead of the file itself.
    :raises TileSourceError: if the file is not what it was, or libvips refuses.
    """
    arguments = dict(options, fail_on=loader.fail_on)
    if sequential:
        arguments['access'] = 'sequential'
    if source is not None and identity is None:
        return _load_source(loader.name, path, source, arguments)
    descriptor = open_regular(path)
    try:
        if identity is not None and identity_of_descriptor(descriptor) != identity:
            msg = f'{path!r} was changed after it was opened'
            raise TileSourceError(msg)
        with vips_errors(f'Cannot read {path!r}'):
            if loader.through == 'path':
                return _load_path(loader.name, os.fsencode(path), arguments)
            if source is None:
                source = (pyvips.Source.new_from_descriptor(descriptor)
                          if loader.through == 'descriptor'
                          else pyvips.Source.new_from_file(os.fsencode(path)))
        return _load_source(loader.name, path, source, arguments)
    finally:
        os.close(descriptor)


def _load_source(name: str, path: str, source: pyvips.Source,
                 arguments: dict[str, Any]) -> pyvips.Image:
    """An image from a source; the path is that of the file, for errors."""
    with vips_errors(f'Cannot read {path!r}'):
        return getattr(pyvips.Image, f'{name}_source')(source, **arguments)


def _load_path(name: str, path: bytes, arguments: dict[str, Any]) -> pyvips.Image:
    """An image from a loader that only takes paths."""
    image = getattr(pyvips.Image, name)(path, **arguments)
    # What libvips gave may be in its cache since before the file changed; an
    # image that is marked so is not given out again.
    image.invalidate()
    return getattr(pyvips.Image, name)(path, **arguments)
