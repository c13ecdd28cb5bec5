"""
Functions for tests of shared spools that run in other processes.

A process that is spawned imports this module to find the function.
"""

import os
import sys

import numpy as np

# Imported now: a forked child that imports it may wait for a thread of its parent.
from numpy.random import default_rng

import large_image_source_vips
from helpers.sink import read_all

SIZE, STEP, COLUMNS = 40, 30, 6


def tile_of(number):
    """A tile of the image that the workers make: a slanted plane that its number names."""
    rng = default_rng(number)
    return rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)


def place_of(number):
    return number % COLUMNS * STEP - 20, number // COLUMNS * STEP - 10


def add(sink, numbers, keyed=True):
    """Add tiles that overlap by a quarter."""
    for number in numbers:
        x, y = place_of(number)
        sink.addTile(tile_of(number), x, y, key=f'tile {number}' if keyed else None)
    return sink


def add_in_process(sink, numbers, keyed=True):
    """Add tiles and flush; returns the number of the process."""
    add(sink, numbers, keyed)
    sink.flush()
    return os.getpid()


def pixels_in_process(sink):
    return read_all(sink)


def main():
    """Add the tiles of a range to the spool of a folder that are not there, until killed."""
    folder, first, end, step = sys.argv[1], *map(int, sys.argv[2:5])
    sink = large_image_source_vips.new(spool=folder)
    sys.stdout.write('ready\n')
    sys.stdout.flush()
    for number in range(first, end, step):
        if not sink.added(f'tile {number}'):
            add(sink, [number])
        if number % 7 == 0:
            sink.flush()
    sink.close()


if __name__ == '__main__':
    main()
