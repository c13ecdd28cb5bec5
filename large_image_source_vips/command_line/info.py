"""
The command ``info``: show the contents of a file as a table or as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .arguments import Commands, add_command, by_label, file_path, open_source
from .messages import one_line

# The prefix of axes of frames in large_image's metadata, such as IndexC.
_AXIS = 'Index'
# The most labels in a table.
_LABELS = 20
_SAMPLES = {1: 'gray', 2: 'gray and alpha', 3: 'RGB', 4: 'RGB and alpha'}


def add_commands(commands: Commands, shared: argparse.ArgumentParser) -> None:
    """Add ``info``."""
    parser = add_command(
        commands, shared, 'info', run, 'show what is in a file',
        'Level 0 is the smallest, as in large_image.')
    parser.add_argument('files', nargs='+', type=file_path, metavar='FILE')
    parser.add_argument('--json', action='store_true',
                        help='JSON; with several files, one line for each')


def run(options: argparse.Namespace) -> int:
    """Describe each file; a file that cannot be read does not stop the others."""
    status = 0
    for number, path in enumerate(options.files):
        try:
            found = describe(path)
        except Exception as exc:
            if len(options.files) == 1 or options.verbose:
                raise
            sys.stdout.flush()
            print(one_line(exc), file=sys.stderr)
            status = 1
            continue
        if options.json:
            print(json.dumps(found))
        else:
            print('\n' * (number > 0) + table(found))
    return status


def describe(path: Path) -> dict[str, Any]:
    """
    Describe the contents of a file in JSON types.

    :raises TileSourceError: if it cannot be read.
    """
    source = open_source(path)
    metadata = source.getMetadata()
    internal = source.getInternalMetadata()
    storage = internal['storage']
    profiles = source.getICCProfiles(onlyInfo=True) or []
    return {
        'file': str(path),
        'loader': internal['vips-loader'],
        'width': metadata['sizeX'],
        'height': metadata['sizeY'],
        'mm_x': metadata['mm_x'],
        'mm_y': metadata['mm_y'],
        'magnification': metadata['magnification'],
        'dtype': metadata['dtype'],
        'bands': metadata['bandCount'],
        'interpretation': internal['interpretation'],
        'frames': max(1, len(metadata.get('frames', ()))),
        'axes': {key.removeprefix(_AXIS): count
                 # Sorted, because large_image does not sort them.
                 for key, count in sorted(metadata.get('IndexRange', {}).items())},
        'channels': metadata.get('channels'),
        'palette': source.palette,
        'classes': source.classNames,
        'levels': storage['levels'],
        'associated': {name: storage['associated'][name]
                       for name in source.getAssociatedImagesList()},
        'profile': next((profile for profile in profiles if profile), None),
    }


def table(found: dict[str, Any]) -> str:
    """
    The table of one file.

    :param found: as from ``describe``.
    """
    rows = {
        'size': f'{found["width"]:,} x {found["height"]:,} pixels{_extent(found)}',
        'pixel size': _pixel_size(found),
        'magnification': f'{found["magnification"]:.4g}' if found['magnification'] else 'unknown',
        'samples': _samples(found),
        'frames': _frames(found),
        **({} if found['palette'] is None and found['classes'] is None else
           {'labels': _labels(found)}),
        'levels': '\n'.join(_level(level) for level in reversed(found['levels'])),
        'associated': '\n'.join(
            f'{name}: {_size(image)}, {_layout(image)}'
            for name, image in found['associated'].items()) or 'none',
        'profile': (found['profile'] or 'none').splitlines()[0],
        'loader': found['loader'],
    }
    width = max(map(len, rows)) + 2
    lines = [found['file']]
    for name, text in rows.items():
        for place, line in enumerate(text.splitlines()):
            lines.append(f'  {"" if place else name:<{width}}{line}')
    return '\n'.join(lines)


def _extent(found: dict[str, Any]) -> str:
    if not (found['mm_x'] and found['mm_y']):
        return ''
    return (f', {found["width"] * found["mm_x"]:.4g} x {found["height"] * found["mm_y"]:.4g} mm')


def _pixel_size(found: dict[str, Any]) -> str:
    across, down = found['mm_x'], found['mm_y']
    if not (across and down):
        return 'unknown'
    if abs(across / down - 1) < 1e-6:
        return f'{across * 1000:.6g} um'
    return f'{across * 1000:.6g} x {down * 1000:.6g} um'


def _samples(found: dict[str, Any]) -> str:
    meaning = found['interpretation']
    if meaning in {'b-w', 'grey16', 'srgb', 'rgb16', 'rgb'}:
        meaning = _SAMPLES.get(found['bands'], meaning)
    bands = 'band' if found['bands'] == 1 else 'bands'
    return f'{found["dtype"]}, {found["bands"]} {bands}, {meaning}'


def _labels(found: dict[str, Any]) -> str:
    """The labels with a colour or a name, one line for each of the first ones."""
    colors, names = by_label(found['palette']), by_label(found['classes'])
    labels = sorted({*colors, *names})
    lines = [' '.join(filter(None, (f'{label:>3}', colors.get(label), names.get(label))))
             for label in labels[:_LABELS]]
    if len(labels) > _LABELS:
        lines.append(f'and {len(labels) - _LABELS:,} more')
    return '\n'.join(lines) or 'none has a colour'


def _frames(found: dict[str, Any]) -> str:
    axes = ', '.join(f'{axis} {count}' for axis, count in found['axes'].items())
    text = f'{found["frames"]:,}' + (f' ({axes})' if axes else '')
    if found['channels']:
        text += '\nchannels: ' + ', '.join(map(str, found['channels']))
    return text


def _size(part: dict[str, Any]) -> str:
    return f'{part["width"]:,} x {part["height"]:,}'


def _level(level: dict[str, Any]) -> str:
    return f'{level["level"]:>2}  {_size(level):>17}  {_layout(level)}'


def _layout(part: dict[str, Any]) -> str:
    """The source of pixels and how they are stored."""
    words = [part['from']]
    if part['tileWidth']:
        words.append(f'tiles of {part["tileWidth"]} x {part["tileHeight"]}')
    if part['compression']:
        words.append(part['compression'])
    return ', '.join(words)
