"""
Defines the cases that read regions of real histology, and their targets.
"""

from __future__ import annotations

from collections.abc import Mapping

from .cases import CLOSE, Case, Run, tile_case_on
from .figures import Bound, Ratio, Same

LIBRARIES = ('openslide', 'cucim', 'fastslide')


def squares_case(name: str, title: str, file: tuple[str, int], bounds: Mapping[str, Bound],
                 **params: int | bool) -> Case:
    """
    Read random squares; each figure is our time divided by that of another contender.

    :param name: of the case.
    :param title: of the figures.
    :param file: kind and size.
    :param bounds: contender -> target.
    :param params: of ``regions.regions``.
    """
    job = Run('regions', params, (file,))
    same = tuple(Same('ours', other, None if other == 'bare' else CLOSE)
                 for other in bounds if other in {'bare', 'tiff'})
    return Case(name, dict.fromkeys(('ours', *bounds), job), tuple(
        Ratio(title, 'ours', other, bound, each=True) for other, bound in bounds.items()), same)


def region_cases(side: int, count: int) -> list[Case]:
    """
    Regions of real histology.

    :param side: width and height of the files in pixels.
    :param count: how many squares are read.
    """
    one, reduced = Bound(1), Bound(1.05)
    libraries = dict.fromkeys(LIBRARIES, Bound(1.15)) | {'openslide': Bound()}
    cases = []
    for quality, bound in (('q90', 1.0), ('q75', 1.1)):
        file = (f'histology-{quality}', side)
        cases.append(tile_case_on(file, f'tile-{quality}', f'numpy tile, {quality}, 1 thread',
                                  count, Bound(bound)))
        for threads in (1, 2):
            end = f'{quality}, threads: {threads}'
            cases += [
                squares_case(f'region-512-{quality}-{threads}', f'getRegion 512 x 512, {end}',
                             file, {'bare': one, 'tiff': one, 'peer': Bound(), **libraries},
                             size=512, count=count, threads=threads),
                squares_case(f'region-half-{quality}-{threads}',
                             f'getRegion 224 x 224 at 1/2, {end}', file,
                             {'bare': reduced, 'tiff': one},
                             size=224, count=count, threads=threads, reduction=1),
                squares_case(f'region-quarter-{quality}-{threads}',
                             f'getRegion 256 x 256 at 1/4, {end}', file,
                             {'bare': reduced, 'tiff': one},
                             size=256, count=count, threads=threads, reduction=2)]
    for threads in (1, 2):
        cases.append(squares_case(
            f'region-none-{threads}', f'getRegion 512 x 512, uncompressed, threads: {threads}',
            ('histology-none', side), {'bare': one}, size=512, count=count, threads=threads))
    cases.append(squares_case(
        'region-again', 'the same 512 x 512 again', ('histology-q90', side),
        {'tiff': Bound(1.1)}, size=512, count=count, again=True))
    # The released package hangs in these.
    for kind in ('q75', '240'):
        cases.append(process_case(
            f'patches-{kind}', f'random 224 x 224 in 4 forked workers, {kind}',
            Run('patches', {'size': 224, 'count': 4 * count, 'workers': 4},
                ((f'histology-{kind}', side),))))
    for size in (224, 256, 512):
        cases.append(process_case(
            f'eager-{size}', f'eagerIterator, 2 workers, {size}',
            Run('eager', {'size': size, 'side': min(side, 8192)}, (('histology-q75', side),))))
    return cases


def process_case(name: str, title: str, job: Run) -> Case:
    """Read in worker processes; the figure is the tiff source's time divided by ours."""
    return Case(name, {'ours': job, 'tiff': job}, (
        Ratio(title, 'tiff', 'ours', Bound(1.05, at_least=True), each=True),))
