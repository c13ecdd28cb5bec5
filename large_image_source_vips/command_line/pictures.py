"""
The commands ``thumbnail``, ``tile`` and ``region``: save a part of an image as PNG, JPEG or
NPY.

NPY files have the samples unchanged.  PNG and JPEG files have 8 bits and colours corrected
by the ICC profile, as in large_image; other samples are scaled by their minimum and
maximum, with a note.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from large_image.constants import TILE_FORMAT_NUMPY

from ..notebook import as_picture, in_colors, small_labels
from .arguments import (
    Area,
    CommandError,
    Commands,
    add_command,
    add_frame,
    add_overwrite,
    area,
    by_label,
    checked_frame,
    checked_level,
    clipped,
    counting,
    file_path,
    open_source,
    refuse_existing,
    whole_numbers,
)
from .messages import reason

Pixels = npt.NDArray[Any]

_QUALITY = 90
# The largest width and height that libjpeg writes.
_JPEG_SIDE = 65500
# Pillow's names of the formats by suffix; '' for NumPy's format.
_FORMATS = {'.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG', '.npy': ''}


def add_commands(commands: Commands, shared: argparse.ArgumentParser) -> None:
    """Add ``thumbnail``, ``tile`` and ``region``."""
    thumbnail = add_command(
        commands, shared, 'thumbnail', lambda options: _run(options, _thumbnail),
        'save a thumbnail', 'The whole image as .png, .jpg or .npy.')
    _add_files(thumbnail)
    thumbnail.add_argument('--size', type=counting(2), default=512, metavar='N',
                           help='the longest side in pixels; default 512')
    tile = add_command(
        commands, shared, 'tile', lambda options: _run(options, _tile), 'save a tile',
        "A tile of 256 x 256 pixels of large_image's grid as .png, .jpg or .npy.")
    _add_files(tile)
    tile.add_argument('--at', type=whole_numbers(2, 'COLUMN,ROW'), required=True,
                      metavar='COLUMN,ROW', help='the place of the tile in the grid')
    _add_level(tile)
    region = add_command(
        commands, shared, 'region', lambda options: _run(options, _region), 'save a rectangle',
        'Part of the image as .png, .jpg or .npy.')
    _add_files(region)
    region.add_argument('--crop', type=area, metavar='X,Y,WIDTH,HEIGHT',
                        help='in pixels of full resolution; default: the whole image')
    how = region.add_mutually_exclusive_group()
    _add_level(how)
    how.add_argument('--size', type=counting(2), metavar='N',
                     help='reduce it until no side is longer than N pixels')


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('file', type=file_path, metavar='FILE')
    parser.add_argument('out', type=file_path, metavar='OUT', help='a .png, .jpg or .npy file')
    parser.add_argument('--quality', type=counting(1), default=_QUALITY, metavar='N',
                        help=f'quality of a JPEG file, 1 to 100; default {_QUALITY}')
    add_frame(parser)
    add_overwrite(parser)


def _add_level(parser: Any) -> None:
    parser.add_argument('--level', type=counting(0), metavar='N',
                        help='the level; 0 is the smallest; default: full resolution')


def _run(options: argparse.Namespace, read: Callable[[Any, argparse.Namespace], Pixels]) -> int:
    suffix = options.out.suffix.lower()
    if suffix not in _FORMATS:
        msg = f'{options.out} must end in .png, .jpg or .npy; convert writes other formats.'
        raise CommandError(msg)
    if options.quality > 100:
        msg = f'--quality is {options.quality}, but goes from 1 to 100.'
        raise CommandError(msg)
    refuse_existing(options.out, options.overwrite)
    source = open_source(options.file, raw=not _FORMATS[suffix])
    checked_frame(source, options.frame)
    pixels = read(source, options)
    if _FORMATS[suffix] and source.palette is not None:
        pixels = in_colors(pixels, by_label(source.palette))
    save(pixels, options.out, options.quality, options.overwrite)
    return 0


def _thumbnail(source: Any, options: argparse.Namespace) -> Pixels:
    if source.palette is not None:
        side = min(options.size, max(source.sizeX, source.sizeY))
        return small_labels(source, side, options.frame)
    pixels, _ = source.getThumbnail(
        options.size, options.size, format=TILE_FORMAT_NUMPY, frame=options.frame)
    return np.asarray(pixels)


def _tile(source: Any, options: argparse.Namespace) -> Pixels:
    column, row = options.at
    level = checked_level(source, options.level)
    scale = 1 << source.levels - 1 - level
    columns = -(-source.sizeX // (source.tileWidth * scale))
    rows = -(-source.sizeY // (source.tileHeight * scale))
    if column >= columns or row >= rows:
        msg = (f'There is no tile {column}, {row} in level {level}, which has {columns} x {rows} '
               'tiles, counted from 0.')
        raise CommandError(msg)
    return np.asarray(source.getTile(
        column, row, level, frame=options.frame, numpyAllowed='always'))


def _region(source: Any, options: argparse.Namespace) -> Pixels:
    whole = Area(0, 0, source.sizeX, source.sizeY)
    wanted = clipped(options.crop or whole, whole)
    if options.level is not None:
        return read_level(source, checked_level(source, options.level), wanted, options.frame)
    size = options.size
    reduced = {} if size is None else {'output': {'maxWidth': size, 'maxHeight': size}}
    pixels, _ = source.getRegion(
        region={'left': wanted.left, 'top': wanted.top, 'width': wanted.width,
                'height': wanted.height, 'units': 'base_pixels'},
        format=TILE_FORMAT_NUMPY, frame=options.frame, **reduced)
    return np.asarray(pixels)


def read_level(source: Any, level: int, wanted: Area, frame: int) -> Pixels:
    """
    The pixels of a level under a rectangle.

    :param level: 0 is the smallest.
    :param wanted: the rectangle, inside the image.
    :returns: an array (rows, cols, bands): all level pixels that the rectangle touches.
    """
    scale = 1 << source.levels - 1 - level
    left, top = wanted.left // scale, wanted.top // scale
    right = -(-(wanted.left + wanted.width) // scale)
    bottom = -(-(wanted.top + wanted.height) // scale)
    across, down = source.tileWidth, source.tileHeight
    found = np.empty((bottom - top, right - left, source.bandCount), source.dtype)
    for row in range(top // down, -(-bottom // down)):
        for column in range(left // across, -(-right // across)):
            tile = source.getTile(column, row, level, frame=frame, numpyAllowed='always')
            first, start = row * down, column * across
            part = tile[max(top - first, 0):bottom - first, max(left - start, 0):right - start]
            below, beside = max(first - top, 0), max(start - left, 0)
            found[below:below + part.shape[0], beside:beside + part.shape[1]] = part
    return found


def save(pixels: Pixels, path: Path, quality: int, overwrite: bool) -> None:
    """
    Save pixels; the file appears when it is complete.

    :param pixels: an array (rows, cols, bands).
    :param path: a .png, .jpg or .npy file.
    :param quality: that of JPEG.
    :param overwrite: whether an existing file may be replaced.
    :raises CommandError: if it exists and may not be replaced, or cannot be written.
    """
    encoded = io.BytesIO()
    form = _FORMATS[path.suffix.lower()]
    if form:
        image = _picture(pixels, form)
        if form == 'JPEG' and max(image.size) > _JPEG_SIDE:
            msg = (f'{path} cannot hold {image.width} x {image.height} pixels: a JPEG file has at '
                   f'most {_JPEG_SIDE} a side; write a .png or .npy, or pass --size.')
            raise CommandError(msg)
        image.save(encoded, form, **({'quality': quality} if form == 'JPEG' else {}))
    else:
        np.save(encoded, pixels)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    except OSError as exc:
        msg = f'{path} cannot be written: no file can be created in {path.parent}: {reason(exc)}.'
        raise CommandError(msg) from exc
    try:
        with open(descriptor, 'wb') as file:
            file.write(encoded.getbuffer())
        os.chmod(temporary, 0o666 & ~_umask())
        # It may have been created in the meantime.
        refuse_existing(path, overwrite)
        os.replace(temporary, path)
    except OSError as exc:
        msg = f'{path} cannot be written: {reason(exc)}.'
        raise CommandError(msg) from exc
    finally:
        # It is there only after an error.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _picture(pixels: Pixels, form: str) -> PIL.Image.Image:
    """Convert pixels to an 8-bit image for the format."""
    image, notes = as_picture(pixels)
    if form == 'JPEG' and image.mode in {'LA', 'RGBA'}:
        notes.append('transparent parts white')
        below = PIL.Image.new('RGBA', image.size, 'white')
        image = PIL.Image.alpha_composite(below, image.convert('RGBA')).convert('RGB')
    if notes:
        print(f'The picture shows {", ".join(notes)}; a .npy file holds all values.',
              file=sys.stderr)
    return image
