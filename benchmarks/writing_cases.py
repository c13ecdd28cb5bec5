"""
Defines the cases that write lossless pictures, data and holes, and their targets.
"""

from __future__ import annotations

from typing import Any

from .cases import Case, Run
from .data import slide
from .figures import Bound, FactRatio, Ratio, Value, highest, open_files, scaled

# Targets of ``write``: what it adds to the canvas in MB, and open files in all.
_ADDED, _FILES = 40, 12

_DATA = {'labels': 0.8, 'float32': 0.5, 'uint16': 0.65}


def writing_cases(count: int) -> list[Case]:
    """
    Writing without loss, and with holes.

    :param count: how many tiles of 256 x 256.
    """
    real = [] if slide() is None else [lossless(count, 'histology')]
    return [lossless(count), *real, zstd(count), *(data(kind, count, bound)
                                            for kind, bound in _DATA.items()),
            holes(count, 'holes', 'holes'), holes(count, 'outline', 'holes in two of five')]


def job(kind: str, count: int, **options: Any) -> Run:
    """A run that writes a kind of picture."""
    return Run('write', {'kind': kind, 'count': count, 'options': options})


def lossless(count: int, kind: str = 'rgb') -> Case:
    """RGB without loss, against LZW of libvips and against tifffile."""
    runs = {'ours': job(kind, count, lossy=False), 'bare': job(kind, count),
            'tifffile': job(kind, count)}
    name = 'RGB' if kind == 'rgb' else kind
    title = f'add and write {count:,} {name} tiles without loss'
    return Case('write-lossless' + ('' if kind == 'rgb' else f'-{kind}'), runs, (
        Ratio(title, 'ours', 'bare', Bound(0.55)),
        Ratio(title, 'ours', 'tifffile', Bound(1.1)),
        FactRatio(f'bytes of {count:,} {name} tiles without loss', 'ours', 'bare', Bound(0.78),
                  'bytes'),
        *costs(f'{count:,} {name} tiles without loss')), rounds=5)


def zstd(count: int) -> Case:
    """RGB as zstd, against LZW of libvips."""
    return Case('write-zstd', {
        'ours': job('rgb', count, compression='zstd'), 'bare': job('rgb', count)},
        (Ratio(f'add and write {count:,} RGB tiles as zstd', 'ours', 'bare', Bound(0.35)),
         *costs(f'{count:,} RGB tiles as zstd')), rounds=5)


def data(kind: str, count: int, bound: float) -> Case:
    """One band of data, against LZW of libvips."""
    runs = dict.fromkeys(('ours', 'bare'), job(kind, count))
    return Case(f'write-{kind}', runs, (
        Ratio(f'add and write {count:,} tiles, {kind}', 'ours', 'bare', Bound(bound)),
        *costs(f'{count:,} tiles, {kind}')), rounds=5)


def holes(count: int, kind: str, which: str) -> Case:
    """
    RGB with holes, with loss, against the same without holes.

    :param kind: 'holes' or 'outline', see ``writing.kinds``.
    :param which: the holes in the titles of the figures.
    """
    title = f'{count:,} RGB tiles with {which}'
    return Case(f'write-{kind}', {
        'ours': Run('write', {'kind': kind, 'count': count, 'exact': False}),
        'ours without holes': Run('write', {'kind': 'rgb', 'count': count, 'exact': False}),
    }, (Ratio(f'add and write {title}, with loss', 'ours', 'ours without holes', Bound(1.15)),
        *costs(title)), rounds=5)


def costs(title: str) -> tuple[Value, Value]:
    """Memory and open files of ``write``."""
    return (Value(f'memory that write adds, {title}', 'ours', Bound(_ADDED),
                  lambda reports: scaled(highest(reports, 'added'), 1e-6), 'MB'),
            open_files(f'open files, {title}', 'ours', Bound(_FILES)))
