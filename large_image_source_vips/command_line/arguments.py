"""
Parse and check arguments that several commands share.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import large_image_source_vips

# Schemes have at least two letters; one letter is a Windows drive.
_ADDRESS = re.compile('[A-Za-z][A-Za-z0-9+]+:/')
# An image has no more frames; the list of a longer range would only fill memory.
_MOST_FRAMES = 1 << 20


class CommandError(Exception):
    """A command cannot be carried out; the text is shown to the user."""


class Commands(Protocol):
    """What ``argparse`` returns for sub-commands."""

    def add_parser(self, name: str, **kwargs: Any) -> argparse.ArgumentParser: ...


class Area(NamedTuple):
    """A rectangle in full-resolution pixels from the top left corner of the image."""

    left: int
    top: int
    width: int
    height: int


def add_command(commands: Commands, shared: argparse.ArgumentParser, name: str,
                run: Callable[[argparse.Namespace], int], summary: str,
                more: str = '') -> argparse.ArgumentParser:
    """
    Add a command.

    :param run: called with the parsed options; returns the exit status.
    :param summary: one line for the list of commands.
    :param more: further sentences for the help of the command.
    """
    parser = commands.add_parser(
        name, parents=[shared], help=summary,
        description=f'{summary[:1].upper()}{summary[1:]}.  {more}'.strip())
    parser.set_defaults(run=run)
    return parser


def whole_numbers(count: int, names: str, least: int = 0) -> Callable[[str], tuple[int, ...]]:
    """
    The type of an argument of several whole numbers separated by commas.

    :param count: the number of numbers.
    :param names: their names for error texts, such as 'X,Y', or 'a whole number' for one.
    :param least: the smallest number allowed.
    """
    def parse(text: str) -> tuple[int, ...]:
        try:
            numbers = tuple(int(part) for part in text.split(','))
        except ValueError:
            numbers = ()
        if len(numbers) != count or min(numbers) < least:
            what = f'{names} in whole numbers' if count > 1 else names
            msg = f'{text!r} is not {what} of at least {least}'
            raise argparse.ArgumentTypeError(msg)
        return numbers
    return parse


def area(text: str) -> Area:
    """The type of the argument X,Y,WIDTH,HEIGHT."""
    found = Area(*whole_numbers(4, 'X,Y,WIDTH,HEIGHT')(text))
    if not (found.width and found.height):
        msg = f'{text!r} has no pixels'
        raise argparse.ArgumentTypeError(msg)
    return found


def counting(least: int = 1) -> Callable[[str], int]:
    """The type of an argument that is a whole number of at least ``least``."""
    def parse(text: str) -> int:
        return whole_numbers(1, 'a whole number', least)(text)[0]
    return parse


def frame_numbers(text: str) -> tuple[int, ...] | None:
    """
    The type of the argument of frames: ``3``, ``0,2,5-7`` or ``all``.

    :returns: frame numbers counted from 0; None for all.
    """
    if text == 'all':
        return None
    numbers: list[int] = []
    try:
        for part in text.split(','):
            first, dash, last = part.partition('-')
            span = range(int(first), int(last if dash else first) + 1)
            if not span or span.stop > _MOST_FRAMES:
                raise ValueError
            numbers.extend(span)
    except ValueError:
        msg = f'{text!r} is not a list of frames such as 3, 0,2,5-7 or all; they count from 0'
        raise argparse.ArgumentTypeError(msg) from None
    return tuple(numbers)


def file_path(text: str) -> Path:
    """The type of an argument that names a file."""
    if not text:
        msg = 'the name of the file is empty'
        raise argparse.ArgumentTypeError(msg)
    return Path(text)


def add_frame(parser: argparse.ArgumentParser) -> None:
    """Add the option for one frame."""
    parser.add_argument('--frame', type=counting(0), default=0, metavar='N',
                        help='the frame, counted from 0; default 0')


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add the option --overwrite."""
    parser.add_argument('--overwrite', action='store_true', help='replace an existing file')


def add_writing(parser: argparse.ArgumentParser) -> None:
    """Add options for ``write``."""
    parser.add_argument('--compression', metavar='NAME',
                        help='jpeg, deflate, zstd, lzw, webp, jpeg2000, packbits or none')
    parser.add_argument('--quality', type=counting(1), metavar='N',
                        help='quality of lossy compression, 1 to 100')
    parser.add_argument('--tile-size', type=counting(16), metavar='N',
                        help='width and height of a tile of TIFF and DeepZoom in pixels')
    parser.add_argument('--lossless', action='store_true', help='keep every bit')
    parser.add_argument('--no-alpha', action='store_true',
                        help='write no transparency, which .jpg and DeepZoom cannot hold')
    add_overwrite(parser)


def writing_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of ``write`` from the options of ``add_writing``."""
    chosen = {'compression': options.compression, 'quality': options.quality,
              'tileSize': options.tile_size}
    return {'lossy': not options.lossless, 'alpha': not options.no_alpha,
            'overwriteAllowed': options.overwrite,
            **{name: value for name, value in chosen.items() if value is not None}}


def size_of(written: Path) -> int:
    """The number of bytes of a file that was written; for DeepZoom, of its tiles, too."""
    is_deepzoom = written.suffix.lower() in {'.dz', '.dzi'}
    tiles = written.with_name(f'{written.stem}_files')
    more = tiles.rglob('*') if is_deepzoom else ()
    described = written.with_suffix('.dzi') if written.suffix.lower() == '.dz' else written
    return described.stat().st_size + sum(file.stat().st_size for file in more if file.is_file())


def open_source(path: str | os.PathLike[str], *,
                raw: bool = False) -> large_image_source_vips.VipsFileTileSource:
    """
    Open a file, whatever its name.

    Tiles at the edge of the image are cropped to its pixels.

    :param raw: whether to return the samples of the file; else colours are corrected by the
        ICC profile, as in large_image.
    :raises TileSourceError: if it cannot be read.
    :raises CommandError: if it is a URL.
    """
    if _ADDRESS.match(str(path)):
        msg = f'{path} is an address, not a file; download it first.'
        raise CommandError(msg)
    return large_image_source_vips.open(
        path, noCache=True, edge=True, style={'icc': False} if raw else None)


def by_label(given: list[str] | dict[int, str] | None) -> dict[int, str]:
    """A palette, or class names, by label."""
    return dict(enumerate(given)) if isinstance(given, list) else given or {}


def checked_frame(source: Any, frame: int) -> int:
    """
    Check a frame number.

    :raises CommandError: if it has no such frame.
    """
    count = frame_count(source)
    if frame >= count:
        msg = (f'There is no frame {frame}; the file has {count}, counted from 0.' if count > 1
               else f'There is no frame {frame}; the file has only frame 0.')
        raise CommandError(msg)
    return frame


def frame_count(source: Any) -> int:
    """The number of frames of a source."""
    return max(1, len(source.getMetadata().get('frames', ())))


def checked_level(source: Any, level: int | None) -> int:
    """
    Check a level; None is full resolution.

    :raises CommandError: if it has no such level.
    """
    if level is None:
        return int(source.levels - 1)
    if level >= source.levels:
        msg = (f'There is no level {level}; the file has levels 0 (the smallest) to '
               f'{source.levels - 1} (full resolution).')
        raise CommandError(msg)
    return level


def clipped(wanted: Area, whole: Area) -> Area:
    """
    The part of a rectangle that is in the image.

    :raises CommandError: if there is none.
    """
    right = min(wanted.left + wanted.width, whole.width)
    bottom = min(wanted.top + wanted.height, whole.height)
    if right <= wanted.left or bottom <= wanted.top:
        msg = (f'The rectangle at {wanted.left}, {wanted.top} is outside of the image, which has '
               f'{whole.width} x {whole.height} pixels.')
        raise CommandError(msg)
    return Area(wanted.left, wanted.top, right - wanted.left, bottom - wanted.top)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """
    Check that a file may be written.

    :raises CommandError: if it exists and may not be replaced, or its folder is missing.
    """
    if path.exists() and not overwrite:
        msg = f'{path} exists; pass --overwrite to replace it.'
        raise CommandError(msg)
    if not path.parent.is_dir():
        msg = f'There is no folder {path.parent} to write {path.name} to.'
        raise CommandError(msg)
