"""
Jobs of many processes: add tiles to one image whose tiles are kept in a folder.

The bare contender writes the same bytes with ``os.write``, each process to a file of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from multiprocessing.synchronize import Barrier
from typing import Any

from .outcome import Outcome, Pixels
from .reading import TILE, module_of
from .sink import positions, prove_written, tile_pool

# Where tiles are kept: not on a disk, whose speed would be measured.
MEMORY = '/dev/shm'


def shared(contender: str, count: int, processes: int = 4) -> Outcome:
    """
    Add tiles from many processes, and write a JPEG pyramid.

    :param contender: the contender.
    :param count: how many tiles.
    :param processes: how many processes add them.
    """
    outcome = Outcome(facts={'count': count})
    pool = tile_pool(TILE, count)
    parent = MEMORY if os.path.isdir(MEMORY) else None
    with tempfile.TemporaryDirectory(prefix='bench-', dir=parent) as folder:
        spool = os.path.join(folder, 'tiles')
        os.mkdir(spool)
        context = multiprocessing.get_context('spawn')
        start, done = context.Barrier(processes + 1), context.Barrier(processes + 1)
        workers = [context.Process(target=_work, args=(
            contender, spool, pool, count, range(first, count, processes), start, done))
            for first in range(processes)]
        for worker in workers:
            worker.start()
        start.wait()
        with outcome.timed('add'):
            done.wait()
        for worker in workers:
            worker.join()
        if contender != 'bare':
            path = os.path.join(folder, 'written.tif')
            with outcome.timed('write'), module_of(contender).new(spool=spool) as sink:
                sink.write(path)
            prove_written(outcome, path)
        outcome.seconds['total'] = sum(outcome.seconds.values())
    return outcome


def _work(contender: str, spool: str, pool: list[Pixels], count: int, numbers: range,
          start: Barrier, done: Barrier) -> None:
    """Add the tiles of one process."""
    places = list(positions(count, TILE, 0))
    if contender == 'bare':
        name = os.path.join(spool, str(os.getpid()))
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)
        start.wait()
        for number in numbers:
            os.write(descriptor, pool[number % len(pool)].data)
        done.wait()
        os.close(descriptor)
        return
    sink: Any = module_of(contender).new(spool=spool)
    start.wait()
    for number in numbers:
        _, x, y = places[number]
        sink.addTile(pool[number % len(pool)], x=x, y=y)
    done.wait()
    sink.close()
