"""
The command ``convert``: write any readable file as pyramidal TIFF, DeepZoom or a format of
libvips.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from .arguments import (
    Area,
    CommandError,
    Commands,
    add_command,
    add_writing,
    area,
    checked_frame,
    checked_level,
    clipped,
    counting,
    file_path,
    frame_count,
    frame_numbers,
    open_source,
    refuse_existing,
    size_of,
    writing_arguments,
)
from .deidentify import report_of
from .messages import one_line
from .progress import progress_bar, scaled

# Suffixes of files that contain all frames.
_OME = ('.ome.tif', '.ome.tiff')
# The longest delay of Ctrl-C.
_POLL_SECONDS = 0.1


class Job(NamedTuple):
    """A file to convert, and the file to write."""

    source: Path
    target: Path


class CancelledError(Exception):
    """Stops the other jobs when the user presses Ctrl-C."""


def add_commands(commands: Commands, shared: argparse.ArgumentParser) -> None:
    """Add ``convert``."""
    parser = add_command(
        commands, shared, 'convert', run, 'convert files to pyramids',
        'The suffix of OUT decides the format: .tif (a tiled pyramid), .ome.tif (OME-TIFF), .dzi '
        '(DeepZoom), or another that libvips saves.  With several files, OUT is a folder.')
    parser.add_argument('files', nargs='+', type=file_path, metavar='IN')
    parser.add_argument('out', type=file_path, metavar='OUT')
    add_writing(parser)
    parser.add_argument('--frames', type=frame_numbers, default=(), metavar='LIST',
                        help='frames to write, counted from 0: 3, 0,2,5-7 or all, the default')
    parser.add_argument('--crop', type=area, metavar='X,Y,WIDTH,HEIGHT',
                        help='write a rectangle only, in pixels of full resolution')
    parser.add_argument('--level', type=counting(0), metavar='N',
                        help='write this level as the full resolution; 0 is the smallest')
    parser.add_argument('--keep', type=_names, default=(), metavar='NAMES',
                        help='associated images to write, such as label,macro; default: all')
    parser.add_argument('--drop', type=_names, default=(), metavar='NAMES',
                        help='associated images to leave out, such as label,macro')
    parser.add_argument('--deidentify', action='store_true',
                        help='write nothing but pixels, their size and their colour profile, '
                             'and list what was left out')
    parser.add_argument('--suffix', default='.tif',
                        help='the suffix of files written to a folder; default .tif')
    parser.add_argument('--jobs', type=counting(), default=1, metavar='N',
                        help='files to convert at the same time; default 1')


def run(options: argparse.Namespace) -> int:
    """Convert the files; one that fails does not stop the others."""
    jobs = plan(options.files, options.out, options.suffix, options.overwrite)
    if len(jobs) > 1:
        if not options.out.parent.is_dir():
            msg = f'There is no folder {options.out.parent} to make {options.out.name} in.'
            raise CommandError(msg)
        options.out.mkdir(exist_ok=True)
    stop = threading.Event()
    alone = len(jobs) == 1
    total = _area_of(jobs[0].source, options) if alone else len(jobs)
    label = jobs[0].target.name if alone else 'converting'
    with progress_bar(label, total, 'px' if alone else ' files') as bar, \
            ThreadPoolExecutor(min(options.jobs, len(jobs))) as pool:
        running: dict[Future[str], Job] = {}
        try:
            for job in jobs:
                report = _stoppable(bar.share(total if alone else 1), stop)
                running[pool.submit(convert, job, options, report)] = job
            # With a timeout, because Ctrl-C just before a wait does not end it.
            while wait(running, _POLL_SECONDS).not_done:
                pass
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return _print_outcomes(list(running), running)


def _print_outcomes(finished: Sequence[Future[str]], jobs: Mapping[Future[str], Job]) -> int:
    """
    Print the outcome for each file.

    :returns: the exit status.
    :raises Exception: the error, if there is one file only.
    """
    status = 0
    for future in finished:
        error = future.exception()
        if error is None:
            print(future.result())
        elif len(finished) == 1:
            raise error
        else:
            status = 1
            print(f'{jobs[future].source}: {one_line(error)}', file=sys.stderr)
    return status


def plan(files: Sequence[Path], out: Path, suffix: str, overwrite: bool) -> list[Job]:
    """
    Determine the files to write.

    :param files: the files to convert.
    :param out: the file to write, or a folder for several.
    :param suffix: of files in the folder.
    :raises CommandError: if two files would get the same name, a file would replace itself,
        or one exists and may not be replaced.
    """
    if len(files) > 1 or out.is_dir():
        if out.exists() and not out.is_dir():
            msg = f'{out} is a file; to convert several files, name a folder.'
            raise CommandError(msg)
        suffix = suffix if suffix.startswith('.') else f'.{suffix}'
        jobs = [Job(file, out / f'{_stem(file)}{suffix}') for file in files]
    else:
        jobs = [Job(files[0], out)]
    taken: dict[Path, Path] = {}
    for job in jobs:
        if job.target in taken:
            msg = f'{taken[job.target]} and {job.source} would both be written to {job.target}.'
            raise CommandError(msg)
        taken[job.target] = job.source
        if out.exists() or job.target == out:
            refuse_existing(job.target, overwrite)
        with contextlib.suppress(OSError):
            if job.target.samefile(job.source):
                msg = f'{job.target} is the file to convert; write to another name.'
                raise CommandError(msg)
    return jobs


def convert(job: Job, options: argparse.Namespace, report: Callable[[float], None]) -> str:
    """
    Convert one file.

    :param report: called with the fraction done.
    :returns: one or more lines about the written file.
    """
    start = time.perf_counter()
    source = open_source(job.source)
    arguments = {**writing_arguments(options),
                 'frame': _frames(source, options.frames, job.target),
                 'associatedImages': _associated(source, options, job)}
    if options.crop is not None:
        arguments['crop'] = tuple(options.crop)
    if options.level is not None:
        arguments['level'] = checked_level(source, options.level)
    if options.deidentify:
        arguments['metadata'] = False
    source.write(job.target, progress=report, **arguments)
    seconds = time.perf_counter() - start
    lines = [f'{job.target}: {scaled(size_of(job.target))}B in {seconds:.1f} s']
    if options.deidentify:
        lines += report_of(source)
    return '\n'.join(lines)


def _frames(source: Any, chosen: tuple[int, ...] | None, target: Path) -> Any:
    """
    The argument ``frame`` of ``write``: None for all.

    :param chosen: as from ``frame_numbers``; empty if the user chose none.
    :raises CommandError: for frames that do not exist, and for several if the file can have
        only one.
    """
    count = frame_count(source)
    for frame in chosen or ():
        checked_frame(source, frame)
    several = len(set(chosen)) if chosen else count
    if several > 1 and not _is_tiff(target):
        msg = (f'A {target.suffix} file has only one frame, and the file has {count}; choose one '
               f'with --frames 0 to --frames {count - 1}, or write a .tif.')
        raise CommandError(msg)
    if not chosen:
        return None
    return chosen[0] if several == 1 else list(dict.fromkeys(chosen))


def _associated(source: Any, options: argparse.Namespace, job: Job) -> list[str]:
    """
    The names of the associated images to write, if the file can have any.

    :raises CommandError: if images to keep do not exist, or the file cannot have any.
    """
    there = source.getAssociatedImagesList()
    for name in (*options.keep, *options.drop):
        if name not in there:
            msg = (f'{job.source} has no associated image {name!r}; it has '
                   f'{", ".join(there) or "none"}.')
            raise CommandError(msg)
    if options.deidentify:
        if options.keep:
            msg = (f'--deidentify drops all associated images; leave out --keep '
                   f'{",".join(options.keep)}.')
            raise CommandError(msg)
        return []
    if options.keep and not _is_tiff(job.target):
        msg = (f'A {job.target.suffix} file cannot have associated images; leave out --keep '
               f'{",".join(options.keep)}, or write a .tif.')
        raise CommandError(msg)
    return [name for name in options.keep or there if name not in options.drop]


def _is_tiff(path: Path) -> bool:
    """Whether a file is written by this package, not by a saver of libvips."""
    return path.suffix.lower() in {'.tif', '.tiff'}


def _stoppable(report: Callable[[float], None], stop: threading.Event) -> Callable[[float], None]:
    """A progress function that cancels the write when ``stop`` is set."""
    def tell(fraction: float) -> None:
        if stop.is_set():
            raise CancelledError
        report(fraction)
    return tell


def _area_of(path: Path, options: argparse.Namespace) -> int:
    """The number of pixels that are written of a file, for the progress bar."""
    source = open_source(path)
    whole = Area(0, 0, source.sizeX, source.sizeY)
    part = whole if options.crop is None else clipped(options.crop, whole)
    scale = 1 << source.levels - 1 - checked_level(source, options.level)
    frames = len(set(options.frames or ())) or frame_count(source)
    return int(-(-part.width // scale) * -(-part.height // scale) * frames)


def _stem(path: Path) -> str:
    """The name of a file without its suffix, or without both of ``.ome.tif``."""
    return path.with_suffix('').stem if path.name.lower().endswith(_OME) else path.stem


def _names(text: str) -> tuple[str, ...]:
    """The type of an argument of names separated by commas."""
    return tuple(name.strip() for name in text.split(',') if name.strip())
