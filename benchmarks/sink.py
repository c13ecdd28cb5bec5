"""
Jobs that write: add tiles, write a pyramid, read it while it grows.

Bare libvips is the lower bound: it copies the same pixels into one memory map and
calls ``tiffsave`` with the options of this package's writer.  It must know the size
of the image beforehand; a sink does not.
"""

from __future__ import annotations

import math
import os
import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyvips

from .outcome import Outcome, Pixels
from .reading import TILE, module_of, numpy_tile

# At most so many different tiles are made and added repeatedly.
POOL = 64

# How many places of a written file are read and compared.
SAMPLES = 200

# The options that `write` uses for an opaque 8-bit image.
SAVE_OPTIONS = {
    'compression': 'jpeg',
    'Q': 90,
    'tile': True,
    'tile_width': TILE,
    'tile_height': TILE,
    'pyramid': True,
    'bigtiff': True,
}


def photograph(width: int, height: int, seed: int = 1) -> pyvips.Image:
    """
    An image that compresses like a photograph: smooth shapes, detail, grain.

    :param width: its width in pixels.
    :param height: its height in pixels.
    :param seed: the seed of the random numbers.
    :returns: an 8-bit RGB image, which is not computed yet.
    """
    numbers = np.random.default_rng(seed)

    def layer(cell: int, low: float, high: float) -> pyvips.Image:
        shape = (height // cell + 3, width // cell + 3, 3)
        dots = numbers.uniform(low, high, shape).astype(np.float32)
        return pyvips.Image.new_from_array(dots).resize(cell, kernel='cubic').crop(
            cell, cell, width, height)

    grain = [pyvips.Image.gaussnoise(width, height, mean=0, sigma=3, seed=seed * 3 + band)
             for band in range(3)]
    image = layer(256, 60, 220) + layer(16, -25, 25) + grain[0].bandjoin(grain[1:])
    return image.cast('uchar').copy(interpretation='srgb')


def tile_pool(size: int, count: int) -> list[Pixels]:
    """
    Different tiles, each in its own array, as programs make them.

    :param size: their width and height in pixels.
    :param count: how many tiles are needed; the pool may be smaller.
    """
    across = min(math.isqrt(POOL), max(1, 4096 // size), math.isqrt(count - 1) + 1)
    picture = photograph(across * size, across * size).numpy()
    return [picture[row * size:][:size, column * size:][:, :size].copy()
            for row in range(across) for column in range(across)]


def positions(count: int, step: int, offset: int) -> Iterator[tuple[int, int, int]]:
    """
    The positions of the tiles, row by row over a nearly square rectangle without holes.

    :param count: how many tiles.
    :param step: the distance between their corners in pixels.
    :param offset: x and y of the first corner.
    :returns: for each tile its number, x and y.
    """
    square = math.isqrt(count - 1) + 1
    across = next(columns for columns in range(square, count + 1) if count % columns == 0)
    for number in range(count):
        row, column = divmod(number, across)
        yield number, offset + column * step, offset + row * step


def stitch(contender: str, count: int, size: int = TILE, step: int | None = None,
           offset: int = 0, threads: int = 1, blend: str | None = None) -> Outcome:
    """
    Add tiles and write a JPEG pyramid.

    :param contender: the contender.
    :param count: how many tiles.
    :param size: their width and height in pixels.
    :param step: the distance between their corners; None for ``size``.  Tiles
        overlap if it is smaller.
    :param offset: x and y of the first corner.
    :param threads: how many threads add tiles.
    :param blend: what is seen where they overlap; None for the last tile.
    """
    outcome = Outcome(facts={'count': count})
    pool = tile_pool(size, count)
    places = positions(count, step or size, offset)
    with tempfile.TemporaryDirectory(prefix='bench-') as folder:
        path = os.path.join(folder, 'written.tif')
        if contender == 'bare':
            bare_stitch(outcome, pool, list(places), path)
        else:
            sink = module_of(contender).new(**({} if blend is None else {'blend': blend}))
            with outcome.timed('add'):
                add(sink, pool, places, threads)
            with outcome.timed('write'):
                sink.write(path)
        outcome.seconds['total'] = sum(outcome.seconds.values())
        outcome.facts['bytes'] = os.path.getsize(path)
        prove_written(outcome, path)
    return outcome


def add(sink: Any, pool: list[Pixels], places: Iterator[tuple[int, int, int]],
        threads: int) -> None:
    """Add a tile of the pool at every place."""
    if threads == 1:
        for number, x, y in places:
            sink.addTile(pool[number % len(pool)], x=x, y=y)
        return
    every = list(places)

    def share(first: int) -> None:
        for number, x, y in every[first::threads]:
            sink.addTile(pool[number % len(pool)], x=x, y=y)

    with ThreadPoolExecutor(threads) as executor:
        for _done in executor.map(share, range(threads)):
            pass


def bare_stitch(outcome: Outcome, pool: list[Pixels], places: list[tuple[int, int, int]],
                path: str) -> None:
    """Copy the tiles into a memory map and write it with libvips."""
    size = pool[0].shape[0]
    width = max(x for _number, x, _y in places) + size
    height = max(y for _number, _x, y in places) + size
    with tempfile.TemporaryFile() as spool:
        with outcome.timed('add'):
            pixels = np.memmap(spool, np.uint8, 'w+', shape=(height, width, 3))
            for number, x, y in places:
                pixels[y:y + size, x:x + size] = pool[number % len(pool)]
        with outcome.timed('write'):
            image = pyvips.Image.new_from_memory(pixels, width, height, 3, 'uchar')
            image.copy(interpretation='srgb').tiffsave(path, **SAVE_OPTIONS)


def prove_written(outcome: Outcome, path: str) -> None:
    """Read places of a written file, the same for all contenders."""
    image = pyvips.Image.new_from_file(path)
    fetch = pyvips.Region.new(image).fetch
    numbers = random.Random(2)
    found: list[Pixels | None] = []
    for _sample in range(SAMPLES):
        width, height = min(TILE, image.width), min(TILE, image.height)
        left = numbers.randint(0, image.width - width)
        top = numbers.randint(0, image.height - height)
        pixels = np.frombuffer(fetch(left, top, width, height), np.uint8)
        found.append(pixels.reshape(height, width, image.bands)[:, :, :3])
    outcome.prove(found)
    outcome.digest += f' {image.width} x {image.height}'


def watch(contender: str, count: int, turns: int) -> Outcome:
    """
    Add a tile and read the tile of the lowest level, repeatedly.

    The last tile read is compared with the averages of the tiles added.

    :param contender: the contender.
    :param count: how many tiles are added before.
    :param turns: how often to repeat.
    """
    pool = tile_pool(TILE, count)
    sink = module_of(contender).new()
    shown: dict[tuple[int, int], Pixels] = {}
    for number, x, y in positions(count, TILE, 0):
        sink.addTile(pool[number % len(pool)], x=x, y=y)
        shown[x, y] = pool[number % len(pool)]
    outcome = Outcome(facts={'count': turns})
    with outcome.timed('first look'):
        numpy_tile(sink, 0, 0, 0)
    numbers = random.Random(3)
    slowest = 0.0
    lowest = None
    for _turn in range(turns):
        x, y = numbers.choice(list(shown))
        tile = pool[numbers.randrange(len(pool))]
        before = outcome.seconds.get('total', 0.0)
        with outcome.timed():
            sink.addTile(tile, x=x, y=y)
            lowest = numpy_tile(sink, 0, 0, 0)
        slowest = max(slowest, outcome.seconds['total'] - before)
        shown[x, y] = tile
    outcome.facts['slowest'] = slowest
    assert lowest is not None
    expected = expected_lowest(shown, sink.levels)
    # The rest of the tile is outside the image.
    inside = lowest[:expected.shape[0], :expected.shape[1], :3].astype(float)
    difference = np.abs(inside - expected)
    # Each level rounds once.
    if difference.max() > sink.levels:
        msg = f'the lowest level is off by {difference.max()}'
        raise ValueError(msg)
    return outcome


def expected_lowest(shown: dict[tuple[int, int], Pixels], levels: int) -> Pixels:
    """The tile of level 0, computed by averaging the aligned tiles of an image."""
    scale = 1 << (levels - 1)
    cells = TILE // scale
    across = (max(x for x, _y in shown) // TILE + 1) * cells
    down = (max(y for _x, y in shown) // TILE + 1) * cells
    result = np.zeros((TILE, TILE, 3))
    for (x, y), tile in shown.items():
        means = tile.reshape(cells, scale, cells, scale, 3).mean(axis=(1, 3))
        result[y // TILE * cells:][:cells, x // TILE * cells:][:, :cells] = means
    return result[:down, :across]
