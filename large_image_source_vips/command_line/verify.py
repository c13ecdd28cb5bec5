"""
The command ``verify``: read all pixels of a file, and list damaged tiles and images.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from .arguments import Commands, add_command, counting, file_path, frame_count, open_source
from .messages import one_line
from .progress import progress_bar

# The number of tiles requested at the same time: enough to keep the threads busy.
_AHEAD = 64
# The most damaged tiles listed for a file; further ones are counted.
_LISTED = 100


class Tile(NamedTuple):
    """A tile of large_image's grid; level 0 is the smallest."""

    frame: int
    level: int
    column: int
    row: int


class Outcome(NamedTuple):
    """
    The result for a file.

    :param tiles: the number of tiles.
    :param damaged: a sentence for each listed tile or associated image.
    :param damages: the number of all damaged ones.
    """

    tiles: int
    damaged: list[str]
    damages: int


def add_commands(commands: Commands, shared: argparse.ArgumentParser) -> None:
    """Add ``verify``."""
    parser = add_command(
        commands, shared, 'verify', run, 'read every tile and list damaged ones',
        'Reads all tiles of all levels and frames, and all associated images.  The exit '
        'status is 1 if anything is damaged.')
    parser.add_argument('files', nargs='+', type=file_path, metavar='FILE')
    parser.add_argument('--jobs', type=counting(), metavar='N', default=os.cpu_count() or 1,
                        help='threads that decode; default: the number of processors')


def run(options: argparse.Namespace) -> int:
    """Verify each file; one that is damaged does not stop the others."""
    status = 0
    for path in options.files:
        try:
            outcome = verify(path, options.jobs)
        except Exception as exc:
            if len(options.files) == 1 or options.verbose:
                raise
            print(f'{path}: {one_line(exc)}')
            status = 1
            continue
        for sentence in outcome.damaged:
            print(f'{path}: {sentence}')
        if outcome.damages > len(outcome.damaged):
            print(f'{path}: ... and {outcome.damages - len(outcome.damaged):,} more')
        if outcome.damages:
            status = 1
            print(f'{path}: DAMAGED: {outcome.damages:,} of {outcome.tiles:,} tiles and images '
                  'cannot be read')
        else:
            print(f'{path}: all {outcome.tiles:,} tiles and images can be read')
    return status


def verify(path: Path, jobs: int) -> Outcome:
    """
    Read every tile of every level and frame, and every associated image.

    :param jobs: the number of threads.
    :raises TileSourceError: if the file cannot be opened at all.
    """
    source = open_source(path, raw=True)
    names = source.getAssociatedImagesList()
    grids = [(-(-width // source.tileWidth), -(-height // source.tileHeight))
             for width, height in map(tuple, _level_sizes(source))]
    frames = frame_count(source)
    total = frames * sum(columns * rows for columns, rows in grids) + len(names)
    damaged: list[str] = []
    damages = 0

    def note(sentence: str | None) -> None:
        nonlocal damages
        if sentence is not None:
            damages += 1
            if len(damaged) < _LISTED:
                damaged.append(sentence)

    with progress_bar(os.path.basename(path), total, ' tiles') as bar, \
            ThreadPoolExecutor(jobs) as pool:
        waiting: list[Future[str | None]] = []
        tiles = _tiles(frames, grids)
        try:
            while True:
                waiting.extend(pool.submit(_damage, source, tile)
                               for tile in islice(tiles, _AHEAD - len(waiting)))
                if not waiting:
                    break
                note(waiting.pop(0).result())
                bar.advance(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        for name in names:
            note(_damaged_image(source, name))
            bar.advance(1)
    return Outcome(total, damaged, damages)


def _level_sizes(source: Any) -> list[tuple[int, int]]:
    """The size of each level, the smallest first."""
    sizes = []
    for level in range(source.levels):
        scale = 1 << source.levels - 1 - level
        sizes.append((-(-source.sizeX // scale), -(-source.sizeY // scale)))
    return sizes


def _tiles(frames: int, grids: list[tuple[int, int]]) -> Iterator[Tile]:
    """All tiles, full resolution first, row by row."""
    for frame in range(frames):
        for level in reversed(range(len(grids))):
            columns, rows = grids[level]
            for row in range(rows):
                for column in range(columns):
                    yield Tile(frame, level, column, row)


def _damage(source: Any, tile: Tile) -> str | None:
    """The damage of a tile; None if it can be read."""
    try:
        source.getTile(tile.column, tile.row, tile.level, frame=tile.frame, numpyAllowed='always')
    except Exception as exc:  # noqa: BLE001 - whatever a decoder raises is damage
        return (f'frame {tile.frame}, level {tile.level}, tile {tile.column}, {tile.row}: '
                f'{one_line(exc)}')
    return None


def _damaged_image(source: Any, name: str) -> str | None:
    """The damage of an associated image; None if it can be read."""
    try:
        source.getAssociatedImage(name)
    except Exception as exc:  # noqa: BLE001 - as for a tile
        return f'associated image {name!r}: {one_line(exc)}'
    return None
