"""
Find libvips' loader for a file and open images with it.

libvips chooses the loader from the first bytes of a file.  The loader is called by name
with a libvips *source*, so that libvips does not parse the path for ``[options]``, does not
return an image from its cache of operations, and closes the descriptor with the image.
Loaders that cannot read sources get the path.

The setting ``source_vips_loaders`` (``base.settings``) is checked for each file before
libvips decodes it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyvips
from pyvips import ffi, vips_lib

from ..base.errors import TileSourceError, vips_errors, vips_reason
from ..base.files import SHARES_DESCRIPTORS, PositionedReader, read_at
from ..base.formats import format_of
from ..base.identity import Identity, identity_of_descriptor, open_regular
from ..base.limits import LIMITS
from ..base.settings import LOADERS, allowed_loaders
from ..codecs.jpeg_2000 import Jpeg2000Error
from ..codecs.jpeg_2000 import decode as decode_jpeg_2000
from .known_formats import (
    FORMATS,
    GET_A_FULLER_LIBVIPS,
    MAGICK_SIGNATURES,
    SIGNATURES,
    has_loader,
    has_operation,
)

# Loaders for tables of numbers and for bytes without a header: not images.
_NOT_IMAGES = frozenset({'csvload', 'matrixload', 'rawload'})
# Loaders that need sources with a file name, and the first bytes of their files.
_NAMED_SOURCES = {
    # CFITSIO also reads gzipped files.
    'fitsload': (b'SIMPLE', b'\x1f\x8b'), 'openslideload': (b'',),
    'vipsload': (b'\x08\xf2\xa6\xb6', b'\xb6\xa6\xf2\x08')}
# The first bytes of TIFF and BigTIFF files.
_TIFF_HEADS = frozenset({b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'})
# The least serious problem at which a loader fails.  In TIFF a damaged tile is only a
# warning; other libraries also warn about files that they decode correctly.
_FAIL_ON = {'tiffload': 'warning'}
_DEFAULT_FAIL_ON = 'error'
# In error messages of libtiff and libheif if a codec is missing.
_LACKS = ('not configured', 'not implemented', 'not been built in', 'Unsupported codec',
          'Unsupported feature')
# Ultra HDR files are JPEG files with a second image, the gain map for HDR displays.
_READ_AS = {'uhdrload': 'jpegload'}
# VIPS_OPERATION_UNTRUSTED of libvips' VipsOperationFlags, since libvips 8.13.
_UNTRUSTED = 16


class Loader(NamedTuple):
    """
    A loader of libvips and how to call it.

    :param name: without the variant, such as 'tiffload'.
    :param through: its input: 'descriptor' or 'file' for a source without or with a file
        name, 'path' for a path; 'codec' if imagecodecs decodes the file instead of libvips.
    """

    name: str
    through: str

    @property
    def fail_on(self) -> str:
        """The value of libvips' option ``fail_on``."""
        return _FAIL_ON.get(self.name, _DEFAULT_FAIL_ON)


_JPEG_2000 = Loader('jp2kload', 'codec')
_LIBVIPS_READS_JPEG_2000 = has_loader('jp2kload')


class Found(NamedTuple):
    """
    The loader for a file.

    :param loader: the loader.
    :param source: the source in which libvips recognised the format, if an image can be
        loaded from it.
    :param fallback: a loader that also reads such files, if the first cannot open this one.
    """

    loader: Loader
    source: pyvips.Source | None = None
    fallback: Loader | None = None


def find_loader(path: str, descriptor: int, default: str | Collection[str] = 'all') -> Found:
    """
    Find the loader for a file.

    :param path: an absolute path.
    :param descriptor: an open descriptor of that file.
    :param default: the loaders that the setting 'default' stands for.
    :raises TileSourceError: if no loader can read the file, or the setting does not allow
        it.
    """
    allowed = _loader_filter(default)
    head = read_at(descriptor, 512, 0)
    # Untrusted loaders (OpenSlide) open only sources with a file name.
    named = any(head.startswith(starts) and (allowed is None or allowed(name)) and
                has_loader(name) for name, starts in _NAMED_SOURCES.items())
    with vips_errors(f'Cannot read {path!r}'):
        source = (pyvips.Source.new_from_file(os.fsencode(path)) if named
                  else _unnamed_source(descriptor))
        found = vips_lib.vips_foreign_find_load_source(source.pointer)
    through = 'descriptor'
    if found == ffi.NULL and (allowed is None or any(map(allowed, _loaders_by_path()))):
        # libvips parses the last '[...]' as options; an empty one protects the path.
        found = vips_lib.vips_foreign_find_load(os.fsencode(path) + b'[]')
        through = 'path'
    vips_lib.vips_error_clear()
    name = '' if found == ffi.NULL else _operation_of_class(ffi.string(found).decode())
    base = name.removesuffix('_source')
    base = _READ_AS.get(base, base)
    if not _LIBVIPS_READS_JPEG_2000 and _is_jpeg_2000(head):
        name, (base, through) = 'jp2kload_source', _JPEG_2000
    if base in {'', 'magickload'} and head[:4] in _TIFF_HEADS:
        # libvips reads the first directory to recognise TIFF.  This package reads some
        # files that libtiff cannot, and gives better errors for the others.
        base, through = 'tiffload', 'descriptor'
    if not base or (base == 'magickload' and not any(
            signature.matches(head) for signature in MAGICK_SIGNATURES)):
        hint = '' if allowed is None else (
            f'; loaders that the setting {LOADERS} does not allow were not tried')
        raise TileSourceError(_no_loader_message(path, head) + hint)
    if base in _NOT_IMAGES:
        msg = f'Cannot read {path!r}: it is a table of numbers or text, not an image'
        raise TileSourceError(msg)
    if allowed is not None and not allowed(base):
        msg = (f'Refused to read {path!r}: its loader {base} is not allowed by the setting '
               f'{LOADERS}')
        raise TileSourceError(msg)
    if through in {'path', 'codec'}:
        return Found(Loader(base, through))
    if base in _NAMED_SOURCES or not SHARES_DESCRIPTORS:
        # OpenSlide recognises some TIFF files, such as exported slides, and then refuses
        # them.
        fallback = (Loader('tiffload', 'descriptor' if SHARES_DESCRIPTORS else 'file')
                   if base == 'openslideload' and head[:4] in _TIFF_HEADS and
                   (allowed is None or allowed('tiffload')) else None)
        return Found(Loader(base, 'file'), fallback=fallback)
    # libvips refuses some subsampled images.
    fallback = _JPEG_2000 if base == 'jp2kload' else None
    return Found(Loader(base, through), None if named else source, fallback)


def _is_jpeg_2000(head: bytes) -> bool:
    """Whether a file that begins with these bytes is JPEG 2000."""
    return any(signature.loader == 'jp2kload' and signature.matches(head)
               for signature in SIGNATURES)


def load(loader: Loader, path: str, identity: Identity | None, options: Mapping[str, Any], *,
         sequential: bool = False, source: pyvips.Source | None = None) -> pyvips.Image:
    """
    Open a new libvips image on a file.

    :param loader: from ``find_loader``.
    :param path: an absolute path.
    :param identity: the expected identity of the file; None not to check.
    :param options: options of the loader.
    :param sequential: whether the pixels are read once, from top to bottom.
    :param source: a source to read from instead of the file.
    :raises TileSourceError: if the file has changed or libvips cannot open it.
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
        if loader.through == 'codec':
            return _decode_jpeg_2000(path, descriptor)
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


def lacks_codec(error: pyvips.Error) -> bool:
    """Whether an error of libvips means that it has no decoder for a compression."""
    return any(words in vips_reason(error) for words in _LACKS)


def why_not_decoded(compression: str, error: pyvips.Error) -> str:
    """
    The reason why pixels could not be decoded, with the remedy if the codec is missing.

    :param compression: its name, '' if the format has only one.
    :param error: the error of libvips.
    """
    parts = [f'its {compression} data cannot be decoded'] if compression else []
    parts.append(vips_reason(error))
    if lacks_codec(error):
        parts.append(f'this libvips lacks that codec; {GET_A_FULLER_LIBVIPS}')
    return '; '.join(parts)


def _is_trusted(name: str) -> bool:
    """Whether libvips considers a loader fit for untrusted input."""
    if not pyvips.at_least_libvips(8, 13):
        msg = (f"The setting {LOADERS} = 'trusted' needs libvips 8.13 or newer; give a list of "
               'loaders instead.')
        raise TileSourceError(msg)
    if not has_loader(name):
        return False
    variant = name if has_operation(name) else f'{name}_source'
    return not pyvips.Introspect.get(variant).flags & _UNTRUSTED


def _loader_filter(default: str | Collection[str]) -> Callable[[str], bool] | None:
    """A function that tells whether a loader is allowed; None if all are."""
    allowed = allowed_loaders(default)
    if 'all' in allowed:
        return None
    if 'trusted' in allowed:
        return lambda name: name in allowed or _is_trusted(name)
    return allowed.__contains__


def _unnamed_source(descriptor: int) -> pyvips.Source:
    """A source without a file name on an open file."""
    if SHARES_DESCRIPTORS:
        return pyvips.Source.new_from_descriptor(descriptor)
    reader = PositionedReader(descriptor)
    source = pyvips.SourceCustom()
    source.on_read(reader.read)
    source.on_seek(reader.seek)
    return source


@functools.cache
def _operation_of_class(class_name: str) -> str:
    """The operation of a class such as VipsForeignLoadTiffSource."""
    return str(pyvips.nickname_find(pyvips.type_from_name(class_name)))


def _loaders_by_path() -> list[str]:
    """The loaders of this libvips without a variant for sources."""
    return [name for name in FORMATS
            if has_operation(name) and not has_operation(f'{name}_source')]


def _no_loader_message(path: str, head: bytes) -> str:
    """The error text for a file that begins with these bytes."""
    version = '.'.join(str(pyvips.version(part)) for part in range(3))
    for signature in SIGNATURES:
        if signature.matches(head) and not has_loader(signature.loader):
            return (f'Cannot read {path!r}: it looks like {signature.name}, and this libvips '
                    f'({version}) has no {signature.loader}, which needs '
                    f'{FORMATS[signature.loader].library}; {GET_A_FULLER_LIBVIPS}')
    return f'Cannot read {path!r}: this libvips ({version}) does not recognise its format'


def _load_source(name: str, path: str, source: pyvips.Source,
                 arguments: dict[str, Any]) -> pyvips.Image:
    """Load from a source; the path is for error messages."""
    with vips_errors(f'Cannot read {path!r}'):
        return getattr(pyvips.Image, f'{name}_source')(source, **arguments)


def _decode_jpeg_2000(path: str, descriptor: int) -> pyvips.Image:
    """An image in memory with the pixels of a JPEG 2000 file."""
    try:
        size = os.fstat(descriptor).st_size
        if size > LIMITS.codecs_picture:
            msg = f'it has {size} bytes of pixels, too many to decode in one piece'
            raise Jpeg2000Error(msg)
        pixels = decode_jpeg_2000(read_at(descriptor, size, 0))
        band_format = format_of(pixels.dtype)
    except (Jpeg2000Error, KeyError, MemoryError) as exc:
        msg = f'Cannot read {path!r}: {exc}'
        raise TileSourceError(msg) from exc
    rows, cols, bands = pixels.shape
    image = pyvips.Image.new_from_memory(
        np.ascontiguousarray(pixels).reshape(-1), cols, rows, bands, band_format)
    colours = {1: 'b-w', 2: 'b-w', 3: 'srgb', 4: 'srgb'}.get(bands, 'multiband')
    deep = {'b-w': 'grey16', 'srgb': 'rgb16'} if pixels.dtype == np.uint16 else {}
    return image.copy(interpretation=deep.get(colours, colours))


def _load_path(name: str, path: bytes, arguments: dict[str, Any]) -> pyvips.Image:
    """Load with a loader that reads only paths."""
    image = getattr(pyvips.Image, name)(path, **arguments)
    # The image may come from libvips' cache, from before the file changed.  After
    # invalidation libvips does not return it again.
    image.invalidate()
    return getattr(pyvips.Image, name)(path, **arguments)
