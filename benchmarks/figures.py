"""
Computes the rows of the table from the outcomes of a case, and compares outcomes.

A *label* names a run within a case, such as 'ours', 'ours shifted', 'bare', 'peer'
or 'tiff'.  The part before the first blank is the contender.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

# One outcome, as worker.py reports it; and all of a case: label -> one for each round.
Report = Mapping[str, Any]
Reports = Mapping[str, Sequence[Report]]

CONTENDERS = {
    'ours': 'this package',
    'bare': 'bare libvips',
    'tifffile': 'tifffile',
    'peer': 'released',
    'tiff': 'tiff source',
    'openslide': 'OpenSlide',
    'cucim': 'cuCIM',
    'fastslide': 'fastslide',
}

MB = 1e6


class Row(NamedTuple):
    """One row of the table."""

    figure: str
    here: str
    there: str
    measured: str
    target: str
    reached: str


@dataclass(frozen=True)
class Bound:
    """
    A target.

    :param limit: the value to reach; None if there is only an aim.
    :param at_least: whether more is better.
    :param aim: a better value, which is not required.
    """

    limit: float | None = None
    at_least: bool = False
    aim: float | None = None

    def __str__(self) -> str:
        sign = '>=' if self.at_least else '<='
        words = [] if self.limit is None else [f'{sign} {self.limit:g}']
        words += [] if self.aim is None else [f'aim {self.aim:g}']
        return ', '.join(words) or '-'

    def reached(self, value: float) -> str:
        """Whether a value reaches the target: 'yes', 'NO' or '-', as in the table."""
        limit = self.aim if self.limit is None else self.limit
        if limit is None:
            return '-'
        return 'yes' if (value >= limit if self.at_least else value <= limit) else 'NO'


def duration(seconds: float) -> str:
    """Format a time in s, ms or us."""
    unit, scale = next(
        ((unit, scale) for unit, scale in (('s', 1.0), ('ms', 1e-3)) if seconds >= scale),
        ('us', 1e-6))
    return f'{seconds / scale:.3g} {unit}'


def typical(reports: Sequence[Report], part: str = 'total') -> float:
    """The median of the seconds of a part."""
    seconds: float = median(report['seconds'][part] for report in reports)
    return seconds


def highest(reports: Sequence[Report], fact: str) -> float | None:
    """The largest value of a fact, or None if the system does not report it."""
    values = [report['facts'][fact] for report in reports if fact in report['facts']]
    return max(values, default=None)


@dataclass(frozen=True)
class Ratio:
    """
    The time of one run divided by that of another: the median of the rounds.

    :param title: what is compared.
    :param of: the label of the dividend.
    :param by: the label of the divisor.
    :param bound: the target.
    :param part: the part of the run that is compared.
    :param each: whether to compare the time for each tile, for runs with
        different numbers of tiles.
    """

    title: str
    of: str
    by: str
    bound: Bound
    part: str = 'total'
    each: bool = False

    def row(self, reports: Reports) -> Row:
        """The row of the table."""
        rounds = min(len(reports[self.of]), len(reports[self.by]))
        if rounds == 1:
            # One of the two takes too long to repeat.
            value = self._time(reports[self.of]) / self._time(reports[self.by])
        else:
            value = median(self._time([reports[self.of][index]]) /
                           self._time([reports[self.by][index]]) for index in range(rounds))
        here, there = (self.of, self.by) if self.of.startswith('ours') else (self.by, self.of)
        return Row(self.title, self._shown(here, reports), self._named(there, reports),
                   f'{value:.3g} x', str(self.bound), self.bound.reached(value))

    def _time(self, reports: Sequence[Report]) -> float:
        scale = reports[0]['facts']['count'] if self.each else 1
        return typical(reports, self.part) / scale

    def _shown(self, label: str, reports: Reports) -> str:
        return duration(self._time(reports[label]))

    def _named(self, label: str, reports: Reports) -> str:
        contender, _blank, rest = label.partition(' ')
        return f'{rest or CONTENDERS[contender]} {self._shown(label, reports)}'


@dataclass(frozen=True)
class Value:
    """
    A figure of one run.

    :param title: what is measured.
    :param label: the run.
    :param bound: the target, in ``unit``.
    :param get: computes the figure from all reports of the run; None if the
        system does not report it.
    :param unit: the unit of the figure.
    """

    title: str
    label: str
    bound: Bound
    get: Callable[[Sequence[Report]], float | None]
    unit: str

    def row(self, reports: Reports) -> Row:
        """The row of the table."""
        value = self.get(reports[self.label])
        if value is None:
            return Row(self.title, 'not reported', '-', '-', str(self.bound), '-')
        shown = f'{value:.3g} {self.unit}' if value < 100 else f'{value:,.0f} {self.unit}'
        return Row(self.title, shown, '-', shown, str(self.bound), self.bound.reached(value))


@dataclass(frozen=True)
class WorstStep:
    """
    The largest ratio between the same part of two runs.

    :param title: what is compared.
    :param ours: the label of the dividend.
    :param other: the label of the divisor.
    :param bound: the target for the largest ratio.
    :param from_opening: whether to compare the time from the first part of a file to
        the end of each part; the name of a part starts with the file's number.
    """

    title: str
    ours: str
    other: str
    bound: Bound
    from_opening: bool = False

    def row(self, reports: Reports) -> Row:
        """The row of the table, which names the step."""
        ours, other = self._times(reports[self.ours]), self._times(reports[self.other])
        ratios = {part: ours[part] / other[part] for part in ours}
        worst = max(ratios, key=lambda part: ratios[part])
        return Row(f'{self.title} ({worst})', duration(ours[worst]),
                   f'released {duration(other[worst])}',
                   f'{ratios[worst]:.3g} x', str(self.bound), self.bound.reached(ratios[worst]))

    def _times(self, reports: Sequence[Report]) -> dict[str, float]:
        """The time of each part, or from opening to its end."""
        times: dict[str, float] = {}
        passed: dict[str, float] = {}
        for part in reports[0]['seconds']:
            if part == 'total':
                continue
            file = part.split()[0]
            took = typical(reports, part)
            passed[file] = passed.get(file, 0) + took
            if not self.from_opening:
                times[part] = took
            elif not part.endswith('open'):
                # A viewer shows nothing before the first tiles.
                times[part] = passed[file]
        return times


@dataclass(frozen=True)
class FactRatio:
    """
    A fact of one run divided by that of another, such as the bytes of files.

    :param title: what is compared.
    :param of: the label of the dividend.
    :param by: the label of the divisor.
    :param bound: the target.
    :param fact: its name.
    """

    title: str
    of: str
    by: str
    bound: Bound
    fact: str

    def row(self, reports: Reports) -> Row:
        """The row of the table, in millions."""
        of, by = (median(report['facts'][self.fact] for report in reports[label]) / MB
                  for label in (self.of, self.by))
        return Row(self.title, f'{of:.3g} M', f'{CONTENDERS[self.by]} {by:.3g} M',
                   f'{of / by:.3g} x', str(self.bound), self.bound.reached(of / by))


@dataclass(frozen=True)
class Growth:
    """
    How much longer each tile takes among many than among few, compared with another contender.

    :param title: what is compared.
    :param many: the labels of the runs with many tiles, of the dividend and the divisor.
    :param few: those of the runs with few.
    :param bound: the target.
    """

    title: str
    many: tuple[str, str]
    few: tuple[str, str]
    bound: Bound

    def row(self, reports: Reports) -> Row:
        """The row of the table."""
        here, there = (self._each(reports[many]) / self._each(reports[few])
                       for many, few in zip(self.many, self.few, strict=True))
        name = CONTENDERS[self.many[1].partition(' ')[0]]
        return Row(self.title, f'{here:.3g} x', f'{name} {there:.3g} x', f'{here / there:.3g} x',
                   str(self.bound), self.bound.reached(here / there))

    @staticmethod
    def _each(reports: Sequence[Report]) -> float:
        count: float = reports[0]['facts']['count']
        return typical(reports) / count


Figure = Ratio | Value | WorstStep | FactRatio | Growth


def memory(title: str, label: str, bound: Bound) -> Value:
    """The peak resident memory of a run, in MB."""
    return Value(title, label, bound,
                 lambda reports: scaled(highest(reports, 'memory'), 1 / MB), 'MB')


def open_files(title: str, label: str, bound: Bound) -> Value:
    """The largest number of files that a run had open at once."""
    return Value(title, label, bound, lambda reports: highest(reports, 'files'), 'files')


def each(title: str, label: str, bound: Bound, part: str, unit: str) -> Value:
    """The time for one tile or turn in a part of a run; ``unit`` is 'us' or 'ms'."""
    scale = {'us': 1e6, 'ms': 1e3}[unit]
    return Value(title, label, bound,
                 lambda reports: typical(reports, part) / reports[0]['facts']['count'] * scale,
                 unit)


def scaled(value: float | None, scale: float) -> float | None:
    """A value multiplied by a scale, or None for None."""
    return None if value is None else value * scale


@dataclass(frozen=True)
class Same:
    """
    Two runs that must give the same pixels.

    :param one: a label.
    :param other: another label.
    :param tolerance: None if every bit must agree, else the largest difference of
        the means of the cells of a tile.
    """

    one: str
    other: str
    tolerance: float | None = None

    def differences(self, reports: Reports) -> list[str]:
        """Describe the differences; empty if there are none."""
        first, second = reports[self.one][0], reports[self.other][0]
        if self.tolerance is None:
            return [] if first['digest'] == second['digest'] else [
                f'{self.one} and {self.other} differ: {first["digest"]}, {second["digest"]}']
        if len(first['sketches']) != len(second['sketches']):
            return [f'{self.one} and {self.other} give different numbers of tiles']
        return [
            f'{self.one} and {self.other} differ by {off:.1f} in tile {number}'
            for number, off in enumerate(map(
                sketches_differ, first['sketches'], second['sketches']))
            if off > self.tolerance]


def sketches_differ(one: list[float] | None, other: list[float] | None) -> float:
    """
    The largest difference of two sketches.

    :returns: 0 if only the other contender has no tile.
    """
    if one is None or other is None:
        return 0.0 if one is not None else float('inf')
    if len(one) != len(other):
        return float('inf')
    return max((abs(a - b) for a, b in zip(one, other, strict=True)), default=0.0)


def steady(label: str, reports: Sequence[Report]) -> list[str]:
    """Describe whether a run gave different pixels in different rounds; empty if not."""
    digests = {report['digest'] for report in reports}
    return [] if len(digests) == 1 else [f'{label} gives other pixels each round: {digests}']


def table(rows: Sequence[Row]) -> str:
    """Format the rows as a reStructuredText table."""
    titles = Row('figure', 'this package', 'compared with', 'measured', 'target', 'reached')
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    rule = '  '.join('=' * width for width in widths)
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in [titles, *rows]]
    return '\n'.join([rule, lines[0], rule, *lines[1:], rule])
