"""
Jobs that write images of many frames: filled ones, and sparse ones.
"""

from __future__ import annotations

import os
import random
import tempfile

import numpy as np

from .outcome import Outcome, Pixels
from .reading import module_of
from .sink import photograph

# At most so many different tiles are made and added repeatedly.
POOL = 8

# How many tiles of how many channels are read from the written file and compared.  Each
# channel takes an open file, which must not count as one of the sink.
SAMPLES = 60
SAMPLE_CHANNELS = 8


def frames(contender: str, count: int, side: int, tile: int, each: int) -> Outcome:
    """
    Add tiles of 16 bits to every channel, and write an OME-TIFF without loss.

    Places of the written file are compared with the tiles that were added.

    :param contender: the contender.
    :param count: how many channels, of one frame each.
    :param side: width and height of the image in pixels.
    :param tile: width and height of the tiles in pixels.
    :param each: how many tiles each channel gets, at random places on a grid of tiles; the
        last one is in the corner, so that the image has its size.
    """
    outcome = Outcome(facts={'count': count})
    pool = _tiles(tile)
    places = _places(count, side // tile, each)
    module = module_of(contender)
    with tempfile.TemporaryDirectory(prefix='bench-') as folder:
        path = os.path.join(folder, 'written.ome.tif')
        sink = module.new()
        with outcome.timed('add'):
            for number, (channel, column, row) in enumerate(places):
                sink.addTile(pool[number % POOL], column * tile, row * tile, c=channel)
        with outcome.timed('write'):
            sink.write(path)
        outcome.seconds['total'] = sum(outcome.seconds.values())
        outcome.facts['bytes'] = os.path.getsize(path)
        written = module.open(path)
        numbers = random.Random(2)
        channels = numbers.sample(range(count), min(SAMPLE_CHANNELS, count))
        samples = [number for number, place in enumerate(places) if place[0] in channels]
        for number in numbers.sample(samples, min(SAMPLES, len(samples))):
            channel, column, row = places[number]
            found = written.getRegion(format='numpy', frame=channel, region={
                'left': column * tile, 'top': row * tile, 'width': tile, 'height': tile})[0]
            if not np.array_equal(found, pool[number % POOL]):
                msg = f'the tile {column}, {row} of channel {channel} is not the one added'
                raise ValueError(msg)
    return outcome


def _tiles(size: int) -> list[Pixels]:
    """Different tiles of one band of 16 bits, which compress like a photograph."""
    return [photograph(size, size, seed)[1].numpy().astype(np.uint16)[..., np.newaxis] * 16 + seed
            for seed in range(1, POOL + 1)]


def _places(count: int, across: int, each: int) -> list[tuple[int, int, int]]:
    """The channel, column and row of each tile; none is given twice."""
    numbers = random.Random(1)
    places = []
    for channel in range(count):
        cells = numbers.sample(range(across * across - 1), each - 1)
        for cell in [*cells, across * across - 1]:
            row, column = divmod(cell, across)
            places.append((channel, column, row))
    return places
