"""
The command ``stitch``: combine image files into one pyramid, by positions in their names or
a table.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import large_image_source_vips

from .arguments import (
    CommandError,
    Commands,
    add_command,
    add_writing,
    file_path,
    open_source,
    refuse_existing,
    size_of,
    whole_numbers,
    writing_arguments,
)
from .messages import reason
from .progress import progress_bar, scaled

# Names of positions: in pixels, in a grid, and on axes of frames.
_PIXELS, _GRID, _FRAMES = ('x', 'y'), ('col', 'row'), ('c', 'z', 't')
_NAMES = frozenset((*_PIXELS, *_GRID, *_FRAMES))
# Steps of the progress bar: adding, then writing.
_STEPS = 2


class Placed(NamedTuple):
    """
    A file and its place.

    :param x: the left edge in pixels; it may be negative.
    :param y: the top edge in pixels.
    :param frame: positions on further axes, such as ``{'c': 1}``.
    """

    path: Path
    x: int
    y: int
    frame: Mapping[str, Any]


def add_commands(commands: Commands, shared: argparse.ArgumentParser) -> None:
    """Add ``stitch``."""
    parser = add_command(
        commands, shared, 'stitch', run, 'stitch image files to a pyramid',
        'PATTERN is the path of the files with {x} and {y} (pixels) or {col} and {row} (places '
        'in a grid) for numbers, and * for any text; or a .csv file with the columns '
        'name, x, y.  Where files overlap, later ones are on top: the order is that of the '
        'CSV file, else from top to bottom and left to right.')
    parser.add_argument('pattern', metavar='PATTERN', help="such as 'tiles/{x}_{y}.png'")
    parser.add_argument('out', type=file_path, metavar='OUT')
    parser.add_argument('--step', type=whole_numbers(2, 'WIDTH,HEIGHT', 1), metavar='WIDTH,HEIGHT',
                        help='distance of places in the grid; default: the size of the first file')
    parser.add_argument('--pixel-size', type=_micrometres, metavar='UM',
                        help='width and height of a pixel in micrometres')
    parser.add_argument('--labels', action='store_true',
                        help='the files are class maps: lossless, levels are not averaged')
    add_writing(parser)


def run(options: argparse.Namespace) -> int:
    """Add all files to a new image and write it."""
    refuse_existing(options.out, options.overwrite)
    placed = find(options.pattern, options.step)
    frames = _frames(placed, options.out)
    sink = large_image_source_vips.new()
    with progress_bar(options.out.name, _STEPS * len(placed), ' tiles') as bar:
        for tile in placed:
            try:
                sink.addTile(tile.path.read_bytes(), tile.x, tile.y,
                             interpretation='labels' if options.labels else None, **tile.frame)
            except Exception as exc:
                msg = f'{tile.path}: {reason(exc)}'
                raise CommandError(msg) from exc
            bar.advance(1)
        sink.mm_x = sink.mm_y = options.pixel_size
        sink.write(options.out, progress=bar.share(len(placed)), **writing_arguments(options))
    more = f'{frames:,} frames, ' if frames > 1 else ''
    print(f'{options.out}: {len(placed):,} files, {sink.sizeX:,} x {sink.sizeY:,} pixels, {more}'
          f'{scaled(size_of(options.out))}B')
    return 0


def find(pattern: str, step: Sequence[int] | None) -> list[Placed]:
    """
    The files and their positions, in the order in which they are added.

    :param pattern: a pattern of paths, or the path of a CSV file.
    :param step: the distance of grid positions; None for the size of the first file.
    :raises CommandError: if there are no files, or a position is missing.
    """
    if Path(pattern).suffix.lower() == '.csv' and '{' not in pattern:
        placed = read_csv(Path(pattern))
        if not placed:
            msg = f'{pattern} has no row that names a file.'
            raise CommandError(msg)
    else:
        placed = match(pattern, step)
    if not placed:
        msg = f'No file matches {pattern}.'
        raise CommandError(msg)
    return placed


def match(pattern: str, step: Sequence[int] | None) -> list[Placed]:
    """
    The files of a pattern, from top to bottom and left to right.

    :raises CommandError: if the pattern does not have exactly one pair of positions.
    """
    names = re.findall(r'\{(\w*)\}', pattern)
    unknown = [name for name in names if name not in _NAMES]
    pair = [axes for axes in (_PIXELS, _GRID) if set(axes) <= set(names)]
    if unknown or len(pair) != 1 or any(
            set(axes) & set(names) for axes in (_PIXELS, _GRID) if axes not in pair):
        msg = (f'The pattern {pattern!r} must hold {{x}} and {{y}}, or {{col}} and {{row}}; '
               f'{", ".join(f"{{{name}}}" for name in _FRAMES)} may be added.')
        raise CommandError(msg)
    across, down = pair[0]
    found = []
    for path, numbers in _paths(pattern):
        frame = {name: numbers[name] for name in _FRAMES if name in numbers}
        found.append(Placed(path, numbers[across], numbers[down], frame))
    found.sort(key=lambda tile: (sorted(tile.frame.items()), tile.y, tile.x, str(tile.path)))
    if found and pair[0] == _GRID:
        width, height = step or _size_of(found[0].path)
        found = [tile._replace(x=tile.x * width, y=tile.y * height) for tile in found]
    return found


def _paths(pattern: str) -> list[tuple[Path, dict[str, int]]]:
    """The files that match a pattern, and the numbers in their names."""
    # With forward slashes and without './', as the paths below.
    pattern = Path(pattern).as_posix()
    parts = re.split(r'(\{\w+\}|\*)', pattern)
    expression, seen = '', set[str]()
    for part in parts:
        name = part[1:-1]
        if part == '*':
            expression += '[^/]*'
        elif part[:1] == '{' and name not in seen:
            expression += rf'(?P<{name}>-?\d+)'
            seen.add(name)
        elif part[:1] == '{':
            expression += rf'(?P={name})'
        else:
            expression += re.escape(part)
    matches = re.compile(expression)
    # The folder above the first part that varies.
    fixed = Path(parts[0] + 'x').parent
    depth = len(Path(pattern).parts) - len(fixed.parts)
    found = []
    for path in sorted(fixed.glob('/'.join(['*'] * depth))):
        hit = matches.fullmatch(path.as_posix())
        if hit and path.is_file():
            found.append((path, {name: int(value) for name, value in hit.groupdict().items()}))
    return found


def read_csv(table: Path) -> list[Placed]:
    """
    The files of a CSV table, in its order.

    The first line may name the columns; else they are name, x, y, and c, z, t.  Names are
    relative to the folder of the table.

    :raises CommandError: if a row has no position, or names a missing file.
    """
    if not table.is_file():
        msg = f'There is no file {table}.'
        raise CommandError(msg)
    try:
        with table.open(newline='', encoding='utf-8-sig') as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as exc:
        msg = f'{table} is no CSV table in UTF-8: {exc}.'
        raise CommandError(msg) from exc
    columns = ['name', *_PIXELS, *_FRAMES]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if {'name', *_PIXELS} <= set(header):
        columns, rows = header, rows[1:]
    placed = []
    for number, row in enumerate(rows, 1):
        cells = dict(zip(columns, (cell.strip() for cell in row), strict=False))
        try:
            x, y = (int(cells[name]) for name in _PIXELS)
            frame = {name: int(cells[name]) for name in _FRAMES if cells.get(name)}
        except (KeyError, ValueError):
            msg = (f'Row {number} of {table} is {",".join(row)!r}; it must hold name,x,y in whole '
                   'pixels, and may hold c, z and t.')
            raise CommandError(msg) from None
        path = table.parent / cells['name']
        if not path.is_file():
            msg = f'Row {number} of {table} names {cells["name"]!r}, and there is no such file.'
            raise CommandError(msg)
        placed.append(Placed(path, x, y, frame))
    return placed


def _frames(placed: Sequence[Placed], out: Path) -> int:
    """
    The number of frames of all files.

    :raises CommandError: if the file to write can have only one.
    """
    count = len({tuple(sorted(tile.frame.items())) for tile in placed})
    if count > 1 and out.suffix.lower() not in {'.tif', '.tiff'}:
        msg = (f'The files belong to {count} frames (c, z, t), and a {out.suffix} file holds one; '
               'write a .tif.')
        raise CommandError(msg)
    return count


def _size_of(path: Path) -> tuple[int, int]:
    source = open_source(path)
    return int(source.sizeX), int(source.sizeY)


def _micrometres(text: str) -> float:
    """The type of a pixel size in um; returns mm."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float('inf'):
        msg = f'{text!r} is not a positive number of micrometres'
        raise argparse.ArgumentTypeError(msg)
    return value / 1000
