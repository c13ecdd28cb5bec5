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

import functools
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import pyvips
from large_image import config
from pyvips import ffi, vips_lib

from ..base.errors import TileSourceError, vips_errors, vips_reason
from ..base.files import SHARES_DESCRIPTORS, PositionedReader, read_at
from ..base.identity import Identity, identity_of_descriptor, open_regular
from .known_formats import (
    _FOR_MAGICK,
    _MISSING,
    _SUFFIXES,
    GET_A_FULLER_LIBVIPS,
    has_loader,
    has_operation,
)

config.ConfigValues.setdefault('source_vips_loaders', 'default')

# Tables of numbers and headerless bytes are not taken for images.
_NOT_IMAGES = frozenset({'csvload', 'matrixload', 'rawload'})
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
