"""
Defines what is measured, and the targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .figures import (
    Bound,
    Figure,
    Growth,
    Ratio,
    Same,
    Value,
    WorstStep,
    each,
    highest,
    memory,
    open_files,
    scaled,
)

# Tolerance, in 8-bit values, of the means of the cells of a tile between
# contenders that decode, reduce and compress differently.
CLOSE = 3.0

# The same for computed levels: the released package picks pixels, which keeps the
# grain, and this one averages them.
PICKED = 8.0

# Targets of the sink: peak memory in MB, and open files.
SINK_MEMORY = 700
SINK_FILES = 40


@dataclass(frozen=True)
class Run:
    """
    One job of one contender.

    :param task: one of ``tasks.TASKS``.
    :param params: its parameters.
    :param files: (kind, size) of the files of ``data`` that it reads; their
        paths are passed as 'path' and, if more than one, 'others'.
    :param once: whether it takes too long to repeat.
    """

    task: str
    params: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[tuple[str, int], ...] = ()
    once: bool = False


@dataclass(frozen=True)
class Case:
    """
    Runs that are compared, and their figures.

    :param name: its name for ``--case``.
    :param runs: label -> run; see ``figures`` for labels.
    :param figures: the rows of the table.
    :param same: which runs must agree.
    :param rounds: how often the runs are repeated, in turn.
    :param free_gb: the free disk space that it needs, in GB; without it, it is left out.
    """

    name: str
    runs: Mapping[str, Run]
    figures: tuple[Figure, ...]
    same: tuple[Same, ...] = ()
    rounds: int = 5
    free_gb: int = 0


@dataclass(frozen=True)
class Scale:
    """
    Sizes of files, regions and so on.

    :param side: width and height of the images that are read, in pixels.
    :param photo: width and height of the JPEG file of 'low-levels-jpeg'.
    :param tiles: how many tiles are read.
    :param region: width and height of the region that is read.
    :param walk: width and height of the region that is iterated over.
    :param pages: how many pages the file of 'pages' has.
    :param slides: how many slides are opened, and their width.
    """

    side: int = 20000
    photo: int = 10000
    tiles: int = 600
    region: int = 4096
    walk: int = 8192
    pages: int = 600
    slides: tuple[int, int] = (200, 20000)


FULL = Scale()
QUICK = Scale(side=4000, photo=4000, tiles=120, region=2048, walk=2048, pages=100,
              slides=(20, 5000))


def sink_case(count: int, *figures: Figure, peer: bool = False, rounds: int = 3) -> Case:
    """
    Add and write aligned tiles of 256 x 256.

    :param count: how many tiles.
    :param figures: the rows of the table.
    :param peer: whether the peer takes part, besides bare libvips.
    :param rounds: how often the runs are repeated.
    """
    job = Run('stitch', {'count': count})
    runs = {'ours': job, 'bare': job}
    same = [Same('ours', 'bare')]
    if peer:
        runs['peer'] = Run('stitch', {'count': count}, once=count > 400)
        same.append(Same('ours', 'peer', CLOSE))
    return Case(f'sink-{count}', runs, figures, tuple(same), rounds)


def sink_cases() -> list[Case]:
    """Adding and writing tiles."""
    bare = Bound(0.9)
    return [
        sink_case(100, Ratio('add and write 100 tiles', 'peer', 'ours', Bound(at_least=True)),
                  peer=True),
        sink_case(400, Ratio('add and write 400 tiles', 'peer', 'ours', Bound(30, at_least=True)),
                  peer=True),
        sink_case(900, Ratio('add and write 900 tiles', 'peer', 'ours',
                             Bound(100, at_least=True)), peer=True),
        sink_case(2500, Ratio('add and write 2,500 tiles', 'ours', 'bare', bare)),
        sink_case(10000, Ratio('add and write 10,000 tiles', 'ours', 'bare', bare),
                  memory('peak memory, 10,000 tiles', 'ours', Bound(SINK_MEMORY)),
                  open_files('open files, 10,000 tiles', 'ours', Bound(SINK_FILES))),
        Case('sink-shifted', {
            'ours': Run('stitch', {'count': 10000}),
            # 10 % of 256 is 25.6.
            'ours shifted': Run('stitch', {'count': 10000, 'step': 230, 'offset': -37}),
        }, (Ratio('10,000 tiles, shifted by -37, overlapping, against aligned ones',
                  'ours shifted', 'ours', Bound(2)),), rounds=3),
        many_tiles(40000),
        very_many_tiles(100000),
        Case('sink-small', {
            'ours': Run('stitch', {'count': 1000000, 'size': 32}, once=True),
        }, (each('1,000,000 tiles of 32 x 32, each call', 'ours', Bound(aim=30), 'add', 'us'),
            memory('peak memory, 1,000,000 tiles of 32 x 32', 'ours', Bound(SINK_MEMORY)),
            open_files('open files, 1,000,000 tiles of 32 x 32', 'ours', Bound(SINK_FILES))),
            rounds=1),
        blended(1600),
        shared(10000),
        growing(10000, 100),
        many_frames('frames', 1000, 2048, 2048, 1),
        many_frames('frames-sparse', 40, 20000, 250, 100),
        threads(256, 4000),
        threads(2048, 100),
    ]


def many_tiles(count: int) -> Case:
    """Very many tiles of 256 x 256: the time for each, compared with 10,000 tiles."""
    return Case(f'sink-{count}', {
        'ours': Run('stitch', {'count': count}, once=True),
        'ours 10,000': Run('stitch', {'count': 10000}, once=True),
    }, (Ratio(f'add and write {count:,} tiles, each', 'ours', 'ours 10,000', Bound(1.3),
              each=True),
        memory(f'peak memory, {count:,} tiles', 'ours', Bound(SINK_MEMORY)),
        open_files(f'open files, {count:,} tiles', 'ours', Bound(SINK_FILES))), rounds=1)


def very_many_tiles(count: int) -> Case:
    """
    The same for files that do not fit in memory, with bare libvips on the same disk.

    What each tile takes more is then mostly the disk's.
    """
    few = Run('stitch', {'count': 10000}, once=True)
    many = Run('stitch', {'count': count}, once=True)
    return Case(f'sink-{count}', {
        'ours': many, 'bare': many, 'ours 10,000': few, 'bare 10,000': few,
    }, (Growth(f'each of {count:,} tiles against each of 10,000', ('ours', 'bare'),
               ('ours 10,000', 'bare 10,000'), Bound(1.1)),
        memory(f'peak memory, {count:,} tiles', 'ours', Bound(SINK_MEMORY)),
        open_files(f'open files, {count:,} tiles', 'ours', Bound(SINK_FILES))),
        (Same('ours', 'bare'),), rounds=1, free_gb=60)


def blended(count: int) -> Case:
    """Tiles that overlap by a quarter, averaged, against the last one on top."""
    job = {'count': count, 'step': 192}
    return Case('sink-blend', {
        'ours': Run('stitch', job),
        'ours mean': Run('stitch', {**job, 'blend': 'mean'}),
        'ours feather': Run('stitch', {**job, 'blend': 'feather'}),
    }, (Ratio(f'{count:,} tiles that overlap by a quarter, mean against over',
              'ours mean', 'ours', Bound(2)),
        Ratio(f'{count:,} tiles that overlap by a quarter, feather against over',
              'ours feather', 'ours', Bound(2)),
        memory(f'peak memory, {count:,} tiles, feather', 'ours feather', Bound(SINK_MEMORY))),
        rounds=3)


def shared(count: int) -> Case:
    """Processes that add to one image, against bare writes, and one process."""
    return Case('sink-shared', {
        'bare': Run('shared', {'count': count}),
        'ours': Run('shared', {'count': count}),
        'ours one': Run('stitch', {'count': count}),
    }, (Ratio(f'4 processes add {count:,} tiles, against os.write',
              'ours', 'bare', Bound(1 / 0.85), 'add'),
        Ratio(f'{count:,} tiles of 4 processes brought together and written, against 1 process',
              'ours', 'ours one', Bound(1.5), 'write')), rounds=5)


def many_frames(name: str, count: int, side: int, tile: int, each: int) -> Case:
    """Channels of 16 bits as OME-TIFF, and a tenth as many."""
    job = {'count': count, 'side': side, 'tile': tile, 'each': each}
    title = f'{count:,} channels of {side:,} x {side:,}'
    if each * tile * tile < side * side:
        title += f' with {each} tiles each'
    return Case(name, {
        'ours': Run('frames', job, once=True),
        'ours a tenth': Run('frames', {**job, 'count': count // 10}, once=True),
    }, (Ratio(f'{title}, each', 'ours', 'ours a tenth', Bound(1.3), each=True),
        memory(f'peak memory, {title}', 'ours', Bound(SINK_MEMORY)),
        open_files(f'open files, {title}', 'ours', Bound(SINK_FILES))), rounds=1)


def growing(count: int, turns: int) -> Case:
    """Read the lowest level of an image while it grows."""
    return Case('sink-growing', {'ours': Run('watch', {'count': count, 'turns': turns})}, (
        each(f'at {count:,} tiles: add one, get the lowest level', 'ours', Bound(20),
             'total', 'ms'),
        Value('the slowest of these turns', 'ours', Bound(20),
              lambda reports: scaled(highest(reports, 'slowest'), 1e3), 'ms')), rounds=3)


def threads(size: int, count: int) -> Case:
    """Add tiles from one thread and from four."""
    one = {'count': count, 'size': size}
    # "Not slower" within the difference of two equal runs.
    bound = Bound(0.95 if size <= 256 else 1, at_least=True)
    return Case(f'sink-threads-{size}', {
        'ours 1 thread': Run('stitch', one),
        'ours 4 threads': Run('stitch', {**one, 'threads': 4}),
    }, (Ratio(f'add {count:,} tiles of {size} x {size} from 4 threads, not 1',
              'ours 1 thread', 'ours 4 threads', bound, part='add'),),
        (Same('ours 1 thread', 'ours 4 threads'),))


def tile_case(name: str, title: str, kind: str, scale: Scale, contenders: tuple[str, ...],
              bounds: Mapping[str, Bound], threads: int = 1, encoded: bool = False) -> Case:
    """
    Read scattered tiles.

    :param name: of the case.
    :param title: of the figures.
    :param kind: of the file.
    :param scale: how many tiles, of how large a file.
    :param contenders: who takes part, besides this package.
    :param bounds: contender -> target; for 'bare' the time of this package divided
        by that of libvips, else the time of the contender divided by ours.
    :param threads: how many threads read.
    :param encoded: whether to read tiles encoded as JPEG.
    """
    job = Run('tiles', {'count': scale.tiles, 'threads': threads, 'encoded': encoded},
              ((kind, scale.side),))
    figures = tuple(
        Ratio(title, 'ours', other, bound, each=True) if other == 'bare'
        else Ratio(title, other, 'ours', bound, each=True) for other, bound in bounds.items())
    # Other decoders and encoders may round differently; bare libvips uses the same.
    same = tuple(Same('ours', other, None if other == 'bare' else CLOSE) for other in contenders)
    return Case(name, dict.fromkeys(('ours', *contenders), job), figures, same)


def tile_case_on(file: tuple[str, int], name: str, title: str, count: int,
                 bound: Bound) -> Case:
    """Read scattered tiles of a file; the figure is our time divided by bare libvips'."""
    job = Run('tiles', {'count': count, 'threads': 1, 'encoded': False}, (file,))
    return Case(name, {'ours': job, 'bare': job},
                (Ratio(title, 'ours', 'bare', bound, each=True),), (Same('ours', 'bare'),))


def reading_cases(scale: Scale) -> list[Case]:
    """Reading tiles, levels and regions."""
    twice, thrice = Bound(2, at_least=True), Bound(3, at_least=True)
    side, photo = scale.side, scale.photo
    low = ('flat-tiled', side)
    return [
        tile_case('tile', 'numpy tile, JPEG pyramid, 1 thread', 'jpeg-pyramid', scale,
                  ('peer', 'bare', 'tiff'),
                  {'peer': twice, 'bare': Bound(1.2), 'tiff': Bound(1, at_least=True)}),
        tile_case('tile-threads', 'numpy tile, JPEG pyramid, 2 threads', 'jpeg-pyramid', scale,
                  ('peer', 'bare'), {'peer': thrice, 'bare': Bound()}, threads=2),
        tile_case('deflate-threads', 'numpy tile, deflate TIFF, 2 threads', 'deflate-pyramid',
                  scale, ('peer', 'bare'), {'peer': thrice, 'bare': Bound()}, threads=2),
        tile_case('encoded', 'JPEG-encoded tile, JPEG pyramid, 1 thread', 'jpeg-pyramid', scale,
                  ('peer', 'tiff'), {'peer': Bound(1.5, at_least=True), 'tiff': Bound()},
                  encoded=True),
        levels_case('low-levels', 'all tiles of the 4 lowest levels, flat tiled TIFF, cold', low,
                    Bound(4, at_least=True)),
        levels_case('low-levels-jpeg', 'all tiles of the 4 lowest levels, JPEG file, cold',
                    ('photo', photo), twice),
        browsing(side),
        Case('region', dict.fromkeys(('ours', 'bare', 'peer'), Run(
            'region', {'size': scale.region}, (('jpeg-pyramid', side),))), (
            Ratio(f'getRegion {scale.region} x {scale.region}', 'peer', 'ours', twice),
            Ratio(f'getRegion {scale.region} x {scale.region}', 'ours', 'bare', Bound())),
            (Same('ours', 'bare'), Same('ours', 'peer', CLOSE))),
        Case('iterate', dict.fromkeys(('ours', 'peer'), Run(
            'iterate', {'size': scale.walk, 'tile': 512}, (('jpeg-pyramid', side),))), (
            Ratio(f'tileIterator of 512 x 512 over {scale.walk} x {scale.walk}',
                  'peer', 'ours', twice),), (Same('ours', 'peer', CLOSE),), rounds=3),
        Case('pages', dict.fromkeys(('ours', 'peer'), Run(
            'last_page', {}, (('pages', scale.pages),))), (
            Ratio(f'{scale.pages}-page TIFF: open, read the last page', 'peer', 'ours',
                  Bound(50, at_least=True)),), (Same('ours', 'peer', CLOSE),)),
        slides(*scale.slides),
    ]


def levels_case(name: str, title: str, file: tuple[str, int], bound: Bound) -> Case:
    """Open a file without lower levels and read its lowest levels."""
    return Case(name, dict.fromkeys(('ours', 'bare', 'peer'), Run(
        'low_levels', {'levels': 4}, (file,))), (
        Ratio(title, 'peer', 'ours', bound), Ratio(title, 'ours', 'bare', Bound())),
        (Same('ours', 'bare', CLOSE), Same('ours', 'peer', PICKED)), rounds=3)


def browsing(side: int) -> Case:
    """Zoom into four kinds of files, as a viewer does."""
    files = tuple((kind, side) for kind in ('jpeg-pyramid', 'flat-tiled', 'flat-strips', 'photo'))
    return Case('browse', dict.fromkeys(('ours', 'peer'), Run('browse', {}, files)), (
        Ratio('browse: pyramid, flat tiles, flat strips, JPEG', 'peer', 'ours',
              Bound(3, at_least=True)),
        WorstStep('the worst step of it', 'ours', 'peer', Bound(1)),
        WorstStep('from opening to the end of a step, the worst', 'ours', 'peer', Bound(1),
                  from_opening=True)),
        (Same('ours', 'peer', PICKED),), rounds=3)


def slides(count: int, width: int) -> Case:
    """Keep many slides open at once."""
    files = tuple((f'slide-{number}', width) for number in range(count))
    half = count // 2
    return Case('slides', dict.fromkeys(('ours', 'peer'), Run('many_slides', {}, files)), (
        Value(f'resident memory after touching {count} slides, {width} wide', 'ours', Bound(),
              lambda reports: scaled(highest(reports, 'all'), 1e-6), 'MB'),
        Value(f'what the last {half} of them added', 'ours', Bound(50),
              growth, 'MB'),
        Value('the same, of the released package', 'peer', Bound(),
              growth, 'MB'),
        open_files(f'open files, {count} slides', 'ours', Bound())),
        (Same('ours', 'peer', CLOSE),), rounds=1)


def growth(reports: Any) -> float | None:
    """The resident memory, in MB, that the second half of many slides added."""
    half, every = highest(reports, 'half'), highest(reports, 'all')
    return None if half is None or every is None else (every - half) / 1e6


def quick_cases() -> list[Case]:
    """Small cases, which check in about two minutes that everything works and agrees."""
    sinks = [case for case in sink_cases() if case.name == 'sink-100']
    return [*sinks, many_frames('frames', 20, 512, 512, 1), growing(400, 20), threads(256, 400),
            *reading_cases(QUICK)]


def full_cases() -> list[Case]:
    """All cases in full size."""
    return [*reading_cases(FULL), *sink_cases()]
