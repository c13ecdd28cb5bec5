"""
The benchmark program: figures computed from times, and detection of different outputs.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

# Behind everything else, so that an installed package is the one that is tested.
sys.path.append(str(Path(__file__).parent.parent))

from benchmarks import (
    __main__,
    cases,
    figures,
    outcome,
    reading,
    runner,
    sink,
    writing,
    writing_cases,
)


def report(seconds=1.0, digest='a', sketches=((1.0, 2.0),), **facts):
    return {'seconds': {'total': seconds}, 'facts': {'count': 10, **facts}, 'digest': digest,
            'sketches': [None if cells is None else list(cells) for cells in sketches]}


def row(figure, **reports):
    return figure.row({label.replace('_', ' '): each for label, each in reports.items()})


def test_ratio_is_the_median_of_the_rounds():
    figure = figures.Ratio('x', 'peer', 'ours', figures.Bound(3, at_least=True))
    made = row(figure, peer=[report(8), report(90), report(6)],
               ours=[report(2), report(3), report(1)])
    assert (made.measured, made.reached) == ('6 x', 'yes')
    assert (made.here, made.there) == ('2 s', 'released 8 s')


def test_ratio_with_a_run_that_was_made_once():
    figure = figures.Ratio('x', 'peer', 'ours', figures.Bound(50, at_least=True))
    made = row(figure, peer=[report(80)], ours=[report(1), report(2), report(9)])
    assert (made.measured, made.reached) == ('40 x', 'NO')


def test_ratio_tile_by_tile():
    figure = figures.Ratio('x', 'ours', 'ours 10', figures.Bound(1.3), each=True)
    made = row(figure, ours=[report(4, count=100)], ours_10=[report(0.5)])
    assert (made.here, made.there, made.measured) == ('40 ms', '10 50 ms', '0.8 x')


@pytest.mark.parametrize(('bound', 'value', 'word'), [
    (figures.Bound(1.3, aim=1.1), 1.2, 'yes'), (figures.Bound(1.3), 1.31, 'NO'),
    (figures.Bound(2, at_least=True), 1.9, 'NO'), (figures.Bound(aim=30), 31, 'NO'),
    (figures.Bound(), 5, '-')])
def test_bound(bound, value, word):
    assert bound.reached(value) == word


def test_worst_step_is_named():
    def steps(**seconds):
        return [{'seconds': {'total': 9, **seconds}}]

    figure = figures.WorstStep('browse', 'ours', 'peer', figures.Bound(1))
    made = row(figure, ours=steps(open=1, zoom=3), peer=steps(open=2, zoom=2))
    assert made.figure == 'browse (zoom)'
    assert (made.measured, made.reached) == ('1.5 x', 'NO')


def test_worst_time_from_opening():
    def steps(*seconds):
        parts = ('0 open', '0 zoom', '1 open', '1 zoom')
        return [{'seconds': {'total': 9, **dict(zip(parts, seconds, strict=True))}}]

    figure = figures.WorstStep('browse', 'ours', 'peer', figures.Bound(1), from_opening=True)
    made = row(figure, ours=steps(1, 3, 2, 1), peer=steps(3, 1, 1, 3))
    assert made.figure == 'browse (0 zoom)'
    assert (made.measured, made.reached) == ('1 x', 'yes')


def test_unknown_memory_is_no_failure():
    made = row(figures.memory('x', 'ours', figures.Bound(700)), ours=[report()])
    assert (made.measured, made.reached) == ('-', '-')


@pytest.mark.parametrize(('same', 'reports', 'count'), [
    (figures.Same('ours', 'bare'), (report(), report()), 0),
    (figures.Same('ours', 'bare'), (report(), report(digest='b')), 1),
    (figures.Same('ours', 'bare', 3), (report(), report(digest='b')), 0),
    (figures.Same('ours', 'bare', 3), (report(), report(sketches=[(1, 5.5)])), 1),
    (figures.Same('ours', 'bare', 3), (report(), report(sketches=[None])), 0),
    (figures.Same('ours', 'bare', 3), (report(sketches=[None]), report()), 1),
    (figures.Same('ours', 'bare', 3), (report(), report(sketches=[(1,)])), 1),
    (figures.Same('ours', 'bare', 3), (report(), report(sketches=[])), 1),
])
def test_different_outputs_are_noticed(same, reports, count):
    case = cases.Case('x', {}, (), (same,))
    found = runner.differences(case, {'ours': reports[:1], 'bare': reports[1:]})
    assert len(found) == count


def test_outputs_that_change_are_noticed():
    case = cases.Case('x', {}, ())
    assert runner.differences(case, {'ours': [report(), report(digest='b')]})


def test_table_is_restructured_text():
    lines = figures.table([figures.Row('a', 'b', 'c', '1 x', '>= 2', 'NO')]).splitlines()
    assert len(lines) == 5
    assert lines[0] == lines[2] == lines[4]
    assert set(lines[0]) == {'=', ' '}
    assert lines[3].split() == ['a', 'b', 'c', '1', 'x', '>=', '2', 'NO']


@pytest.mark.parametrize('every', [
    cases.full_cases() + writing_cases.writing_cases(2500),
    cases.quick_cases() + writing_cases.writing_cases(100)], ids=['full', 'quick'])
def test_cases_are_told_apart_and_name_what_they_have(every):
    names = [case.name for case in every]
    assert len(names) == len(set(names))
    for case in every:
        needed = {getattr(item, name) for item in [*case.figures, *case.same]
                  for name in ('of', 'by', 'label', 'ours', 'other', 'one') if hasattr(item, name)}
        for item in case.figures:
            if isinstance(item, figures.Growth):
                needed.update(item.many, item.few)
        assert needed <= set(case.runs)
        assert {runner.contender(label) for label in case.runs} <= set(figures.CONTENDERS)


def test_sketch_shows_where_something_is():
    tile = np.zeros((8, 8, 4), np.uint8)
    tile[:2, 6:, 1] = 200
    cells = outcome.sketch(tile)
    assert len(cells) == 4 * 4 * 3
    assert [index for index, value in enumerate(cells) if value] == [3 * 3 + 1]


def test_tiles_cover_a_square_and_differ():
    places = [(x, y) for _number, x, y in sink.positions(9, 230, 37)]
    assert places[:4] == [(37, 37), (267, 37), (497, 37), (37, 267)]
    pool = sink.tile_pool(16, 9)
    assert len({tile.tobytes() for tile in pool}) == len(pool) > 1


def test_view_stays_inside():
    assert reading.view(5000, 300, 5) == [(0, 0)]
    assert reading.view(5000, 300, 0) == [(column, row) for row in (0, 1)
                                          for column in range(8, 12)]


@pytest.mark.parametrize(('size', 'levels'), [(1, 1), (256, 1), (257, 2), (512, 2), (20000, 8)])
def test_levels(size, levels):
    assert reading.level_count(size, 1) == reading.level_count(1, size) == levels
    assert len(reading.grid(size, 1, levels - 1)) == 1


def test_only_whole_pixels_of_a_level_are_compared():
    tile = np.ones((256, 256, 4))
    assert reading.trimmed(tile, 0, 0, 7, 20000, 300).shape == (2, 156, 3)
    assert reading.trimmed(tile, 1, 0, 0, 300, 256).shape == (256, 44, 3)
    assert reading.trimmed(None, 0, 0, 7, 20000, 300) is None


def test_worker_that_fails_is_an_error(tmp_path):
    at = runner.Runner({'bare': sys.executable}, tmp_path, verbose=False)
    with pytest.raises(runner.WorkerError, match='no-such-task'):
        at.work('bare', cases.Run('no-such-task'))


def test_measures_and_agrees_with_bare_libvips(tmp_path):
    at = runner.Runner(dict.fromkeys(('ours', 'bare'), sys.executable), tmp_path, verbose=False)
    rows, wrong = at.run(cases.sink_case(9, figures.Ratio(
        'add and write 9 tiles', 'ours', 'bare', figures.Bound()), rounds=1))
    assert not wrong
    assert [made.figure for made in rows] == ['add and write 9 tiles']


@pytest.mark.parametrize('case', writing_cases.writing_cases(4), ids=lambda case: case.name)
def test_writing_keeps_the_values_of_all_contenders(case, tmp_path):
    pythons = dict.fromkeys(('ours', 'bare', 'tifffile'), sys.executable)
    rows, wrong = runner.Runner(pythons, tmp_path, verbose=False).run(case, 1)
    assert not wrong
    assert len(rows) == len(case.figures)


def test_a_value_that_is_lost_is_an_error(tmp_path):
    made = outcome.Outcome(facts={'count': 1})
    pool = [np.zeros((256, 256, 1), np.uint8)]
    writing.tifffile_alone(pool[0], str(tmp_path / 'a.tif'))
    writing.prove(made, str(tmp_path / 'a.tif'), pool, exact=True)
    with pytest.raises(ValueError, match='tile 0'):
        writing.prove(made, str(tmp_path / 'a.tif'), [pool[0] + 1], exact=True)


def test_ratio_of_a_fact():
    figure = figures.FactRatio('x', 'ours', 'bare', figures.Bound(0.8), 'bytes')
    made = row(figure, ours=[report(bytes=3e6)], bare=[report(bytes=4e6)])
    assert (made.measured, made.reached) == ('0.75 x', 'yes')


def test_growth_is_compared_with_that_of_another():
    figure = figures.Growth('x', ('ours', 'bare'), ('ours 10', 'bare 10'), figures.Bound(1.1))
    made = row(figure, ours=[report(30, count=100)], bare=[report(40, count=100)],
               ours_10=[report(1)], bare_10=[report(2)])
    assert (made.here, made.there, made.measured) == ('3 x', 'bare libvips 2 x', '1.5 x')
    assert made.reached == 'NO'


@pytest.mark.parametrize(('free', 'expected'), [(59e9, False), (61e9, True)])
def test_a_case_that_the_disk_cannot_hold_is_left_out_with_the_reason(
        monkeypatch, capsys, tmp_path, free, expected):
    case, = (case for case in cases.full_cases() if case.name == 'sink-100000')
    monkeypatch.setattr(__main__.shutil, 'disk_usage', lambda _: types.SimpleNamespace(free=free))
    assert __main__.has_room(case, tmp_path) is expected
    assert ('needs 60 GB' in capsys.readouterr().err) is not expected
