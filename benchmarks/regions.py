"""
Jobs that read regions, as data loaders do: random squares, in threads and in processes.

Besides the contenders of ``reading`` there are other readers of slides: 'openslide',
'cucim' (on the processor) and 'fastslide', which return colours and no alpha.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyvips

from .outcome import Outcome, Pixels
from .reading import open_source

# How many regions are read before the measurement.
WARM_UP = 30
# Width and height of the tiles of the files.
TILE = 256

# Reads the square at a left and top edge in level pixels.
RegionReader = Callable[[int, int], Pixels]


def pin(processors: int) -> None:
    """
    Let this process use so many processors, so that no contender uses more.

    It has no effect on systems without ``os.sched_setaffinity``.
    """
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:processors])


def keep_tiles_as_libvips(path: str, reduction: int) -> None:
    """
    Let large_image's cache hold as many tiles as libvips keeps of a level: two rows.

    :param path: the file.
    :param reduction: how many times the level is halved.
    """
    import large_image

    across = (pyvips.Image.new_from_file(path).width >> reduction) // TILE
    # The cache takes a portion of the memory, and counts each tile as RGBA of 16 bits.
    all_memory = large_image.cache_util.pickAvailableCache(8 * TILE ** 2, 1)
    large_image.config.setConfig('cache_python_memory_portion', all_memory // (2 * (1 + across)))


def region_reader(contender: str, path: str, size: int, reduction: int = 0) -> RegionReader:
    """
    A function that reads squares of a stored level.

    :param contender: the contender.
    :param path: the file, whose page or level ``reduction`` is reduced so.
    :param size: width and height of the squares in level pixels.
    :param reduction: how many times the level is halved.
    """
    if contender == 'bare':
        return _bare(path, size, reduction)
    if contender == 'openslide':
        return _openslide(path, size, reduction)
    if contender == 'cucim':
        return _cucim(path, size, reduction)
    if contender == 'fastslide':
        return _fastslide(path, size, reduction)
    source, scale = open_source(contender, path), 1 << reduction

    def read(left: int, top: int) -> Pixels:
        more = {'output': {'maxWidth': size, 'maxHeight': size}} if reduction else {}
        pixels: Pixels = source.getRegion(format='numpy', region={
            'left': left * scale, 'top': top * scale,
            'width': size * scale, 'height': size * scale}, **more)[0]
        return pixels

    return read


def _bare(path: str, size: int, reduction: int) -> RegionReader:
    """Read with ``Region.fetch``, with an image and a region for each thread."""
    mine = threading.local()

    def read(left: int, top: int) -> Pixels:
        if not hasattr(mine, 'region'):
            # A source of its own, because images of one path are shared.
            image = pyvips.Image.new_from_source(
                pyvips.Source.new_from_file(path), '', page=reduction)
            mine.region, mine.bands = pyvips.Region.new(image), image.bands
        pixels = mine.region.fetch(left, top, size, size)
        return np.frombuffer(pixels, np.uint8).reshape(size, size, mine.bands)

    return read


def _openslide(path: str, size: int, reduction: int) -> RegionReader:
    slide = importlib.import_module('openslide').OpenSlide(path)
    return lambda left, top: np.asarray(slide.read_region(
        (left << reduction, top << reduction), reduction, (size, size)))


def _cucim(path: str, size: int, reduction: int) -> RegionReader:
    slide = importlib.import_module('cucim').CuImage(path)
    return lambda left, top: np.asarray(slide.read_region(
        (left << reduction, top << reduction), (size, size), reduction))


def _fastslide(path: str, size: int, reduction: int) -> RegionReader:
    slide = importlib.import_module('fastslide').FastSlide.from_file_path(path)
    return lambda left, top: np.asarray(
        slide.read_region((left, top), reduction, (size, size)).numpy())


def squares(path: str, size: int, reduction: int, count: int, seed: int) -> list[tuple[int, int]]:
    """Random squares inside an image: left and top edges in level pixels."""
    header = pyvips.Image.new_from_file(path)
    width, height = header.width >> reduction, header.height >> reduction
    chosen = random.Random(seed)
    return [(chosen.randrange(width - size), chosen.randrange(height - size))
            for _ in range(count)]


def regions(contender: str, path: str, size: int, count: int, reduction: int = 0,
            threads: int = 1, again: bool = False) -> Outcome:
    """
    Read random squares.

    :param contender: the contender.
    :param path: the file.
    :param size: width and height of the squares in level pixels.
    :param count: how many squares.
    :param reduction: how many times the level is halved.
    :param threads: how many threads share them; and on how many processors.
    :param again: whether to read one square again and again.
    """
    pin(threads)
    if contender in {'ours', 'peer', 'tiff'} and not again:
        keep_tiles_as_libvips(path, reduction)
    read = region_reader(contender, path, size, reduction)
    places = squares(path, size, reduction, count, 1)
    if again:
        places = places[:1] * count
    outcome = Outcome(facts={'count': count})
    with ThreadPoolExecutor(threads) as pool:
        before = places[:1] if again else squares(path, size, reduction, WARM_UP, 2)
        for _pixels in pool.map(lambda place: read(*place), before * threads):
            pass
        shares = [places[number::threads] for number in range(threads)]

        def read_all(share: list[tuple[int, int]]) -> None:
            # Each is released at once, as a program does that uses it.
            for place in share:
                read(*place)

        with outcome.timed():
            for _none in pool.map(read_all, shares):
                pass
    outcome.prove([read(*place)[:, :, :3] for place in places[:64]])
    return outcome


def patches(contender: str, path: str, size: int, count: int, workers: int) -> Outcome:
    """
    Read random squares in forked processes, as the workers of a ``DataLoader`` do.

    The file is opened before the processes are forked.

    :param contender: the contender.
    :param path: the file.
    :param size: width and height of the squares in pixels.
    :param count: how many squares, of all workers together.
    :param workers: how many processes.
    """
    read = region_reader(contender, path, size)
    # The parent has read, too; what it has open must not be used by its children.
    first = [read(*place) for place in squares(path, size, 0, 8, 3)]
    context = multiprocessing.get_context('fork')
    results, start = context.SimpleQueue(), context.Barrier(workers + 1)

    def work(number: int) -> None:
        places = squares(path, size, 0, count // workers, 10 + number)
        for place in places[:WARM_UP]:
            read(*place)
        start.wait()
        results.put(sum(int(read(*place)[0, 0, 0]) for place in places))

    processes = [context.Process(target=work, args=(number,)) for number in range(workers)]
    for process in processes:
        process.start()
    outcome = Outcome(facts={'count': count // workers * workers})
    start.wait()
    with outcome.timed():
        sums = sorted(results.get() for _process in processes)
    for process in processes:
        process.join()
    outcome.prove([*first, np.array(sums).reshape(-1, 1, 1)])
    return outcome


def eager(contender: str, path: str, size: int, side: int) -> Outcome:
    """
    Iterate over a square with ``eagerIterator`` and two workers.

    :param contender: the contender.
    :param path: the file.
    :param size: width and height of the tiles in pixels.
    :param side: width and height of the square in pixels.
    """
    source = open_source(contender, path)
    options = {'tile_size': {'width': size, 'height': size}, 'workers': 2, 'batch': 16,
               'scale': {'mm_x': source.getMetadata()['mm_x'],
                         'mm_y': source.getMetadata()['mm_y']}}
    outcome = Outcome()
    kept: list[Any] = []
    count = 0
    with source.eagerIterator(
            region={'left': 0, 'top': 0, 'width': side, 'height': side,
                    'units': 'base_pixels'}, **options) as batches:
        iterator = iter(batches)
        # Excludes the start of the processes.
        next(iterator)
        with outcome.timed():
            for batch in iterator:
                count += len(batch['gx'])
                if len(kept) < 4:
                    kept.append(np.array(batch['tile']))
    outcome.facts['count'] = count
    outcome.prove([np.concatenate(list(pixels)) for pixels in kept])
    return outcome
