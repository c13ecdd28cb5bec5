"""
Functions that tests run in other processes.

A process that is spawned imports this module to find the function.
"""

import multiprocessing

from large_image.tilesource import TileSource

from helpers.reading import level
from large_image_source_vips.reading.reader import FileReader


def in_a_spawned_process(work, parts):
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.map(work, parts)


def sum_of(what):
    """The sum of the samples of a source or of a tile."""
    pixels = what.getRegion(format='numpy')[0] if isinstance(what, TileSource) else what['tile']
    return int(pixels.astype('int64').sum())


def place_and_sum(tile):
    return tile['x'], tile['y'], int(tile['tile'].sum()), tile['tile'].flags.writeable


def sums_of_levels(path):
    """The sums of a file's samples at full resolution and at an eighth of it."""
    reader = FileReader(path)
    return level(reader).sum(), level(reader, 3).sum()
