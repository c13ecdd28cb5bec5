"""
Mutated files through the reader: ``python tests/helpers/fuzz_reading.py [count [seed]]``.

Every file is opened, described and read at several places and levels.  The
only exception that may come out is ``TileSourceError``; nothing may crash, hang
or leave descriptors open.  The work is done in child processes, so that a
crash of one shows, with the file that caused it.
"""

import gc
import json
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
from large_image.exceptions import TileSourceError

from helpers.damage import mutate, seeds
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.reading.reader import FileReader

# A mutated file may be slow; what takes longer than this is taken to hang.
_SECONDS = 60
# What takes longer than this is kept, to find out why.
_SLOW = 3
_BATCH = 250


def look(path):
    """
    Everything that a viewer asks of a file.

    :returns: 'read' if it could be opened and read, 'refused' or 'failed'.
    """
    try:
        reader = FileReader(path)
    except TileSourceError:
        return 'refused'
    questions = [
        lambda: json.dumps(reader.internal_metadata(), allow_nan=False),
        lambda: reader.pixel_size, reader.icc_profiles, reader.frame_axes, reader.channel_names,
        *(lambda key=key: reader.associated_image(key) for key in reader.associated_names()[:3])]
    for frame in {0, reader.frame_count - 1}:
        for reduction in (0, 1, 3):
            size = reader.size.reduced(reduction)
            for left, top in ((0, 0), (size.width // 2, size.height - 1)):
                rect = Rect(left, top, 256, 256).clipped(Rect(0, 0, *size))
                questions.append(
                    lambda frame=frame, reduction=reduction, rect=rect:
                    reader.read(frame, reduction, rect).sum(dtype='float64'))
    answers = [is_answered(ask) for ask in questions]
    return 'read' if all(answers) else 'failed'


def is_answered(ask):
    """Whether a question is answered; one kind of error is allowed."""
    try:
        ask()
    except TileSourceError:
        return False
    return True


def run_batch(seed, count, folder, report):
    """
    Look at some mutated files.

    :param report: called with each result, and with the path before it is known.
    """
    rng = np.random.default_rng(seed)
    files = list(seeds().values())
    path = pathlib.Path(folder) / f'{seed}.bin'
    before = len(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else None
    for _ in range(count):
        path.write_bytes(mutate(files[int(rng.integers(0, len(files)))], files, rng))
        report(look(path))
    path.unlink()
    # What an exception's traceback refers to in a circle.
    gc.collect()
    if before is not None and len(os.listdir('/proc/self/fd')) > before + 4:
        msg = f'descriptors were left open: {os.listdir("/proc/self/fd")}'
        raise AssertionError(msg)


def _child(seed, count, folder, pipe):
    def report(result):
        pipe.send(result)

    run_batch(seed, count, folder, report)
    pipe.send('done')


def keep(folder, seed, why):
    """Copy the file that is being looked at, or the one behind it, to where it can be studied."""
    source = pathlib.Path(folder) / f'{seed}.bin'
    kept = pathlib.Path(tempfile.gettempdir()) / f'fuzz_{why}_{seed}.bin'
    if source.exists():
        kept.write_bytes(source.read_bytes())
    sys.stdout.write(f'{why}: {kept}\n')


def main(total=20_000, first_seed=1):
    """Run many batches in child processes, and say what came of them."""
    context = multiprocessing.get_context('spawn')
    counts = {'read': 0, 'failed': 0, 'refused': 0}
    slowest, problems, started = 0.0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for batch in range(-(-total // _BATCH)):
            seed = first_seed + batch
            ours, theirs = context.Pipe()
            child = context.Process(target=_child, args=(seed, _BATCH, folder, theirs))
            child.start()
            theirs.close()
            result = None
            while result != 'done':
                asked = time.monotonic()
                try:
                    result = ours.recv() if ours.poll(_SECONDS) else 'hung'
                except EOFError:
                    result = 'crashed'
                seconds = time.monotonic() - asked
                if seconds > max(slowest, _SLOW):
                    keep(folder, seed, f'slow_{seconds:.0f}s')
                slowest = max(slowest, seconds)
                if result in counts:
                    counts[result] += 1
                elif result != 'done':
                    problems += 1
                    keep(folder, seed, result)
                    child.kill()
                    break
            child.join()
    sys.stdout.write(f'{sum(counts.values())} files in {time.monotonic() - started:.0f} s, slowest '
                     f'{slowest:.1f} s: {counts}, {problems} problems\n')
    return problems


if __name__ == '__main__':
    sys.exit(bool(main(*map(int, sys.argv[1:]))))
