"""Positions of frames: axes that grow in any order, keywords and dimensions of arrays."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from large_image_source_vips.base.errors import TileSourceError
from large_image_source_vips.base.frames import Axes, position_key
from large_image_source_vips.sink.axes import (
    looks_like_axes,
    make_placement,
    split,
)


def pieces(axes, keywords, tile, mask=None):
    """The frames of an array: position, tile (rows, cols, bands) and mask."""
    target, array, masks = split(make_placement(axes, keywords), tile, mask)
    rows = len(array) // len(target.positions)
    for number, position in enumerate(target.positions):
        part = slice(number * rows, (number + 1) * rows)
        yield position, array[part], None if masks is None else masks[part]


def lengths_of(axes, keywords, tile=None, known=()):
    return split(make_placement(axes, keywords, known), tile)[0].lengths


NAMES = st.sampled_from(['c', 'z', 't', 'xy', 'q', 'wave'])
LENGTHS = st.dictionaries(NAMES, st.integers(1, 4), max_size=4)


@given(LENGTHS)
def test_frames_are_numbered_in_the_order_of_a_numpy_array(lengths):
    axes = Axes(lengths)
    found = [tuple(position.values()) for position in axes.positions()]
    assert found == list(np.ndindex(*lengths.values()))
    assert [axes.number(position) for position in axes.positions()] == list(range(axes.count))
    assert all(list(position) == list(lengths) for position in axes.positions())


@given(st.lists(LENGTHS, max_size=6))
def test_axes_grow_and_keep_every_position(steps):
    axes, written = Axes(), set()
    for step in steps:
        written.add(position_key({name: length - 1 for name, length in step.items()}))
        before, axes = axes, axes.grown(step)
        # Known axes keep their order, and none becomes shorter.
        assert [name for name in axes.lengths if name in before.lengths] == list(before.lengths)
        assert all(axes.lengths[name] >= length for name, length in before.lengths.items())
        found = {position_key(position) for position in axes.positions()}
        assert len(found) == axes.count == math.prod(axes.lengths.values())
        assert written <= found
    assert axes.lengths == {
        name: max(step.get(name, 1) for step in steps)
        for name in axes.lengths}
    assert set(axes.lengths) == {name for step in steps for name in step}


def test_axes_that_are_long_enough_are_not_replaced():
    axes = Axes({'z': 3, 'c': 2})
    assert axes.grown({'c': 2}) is axes
    assert axes.grown({}) is axes


@pytest.mark.parametrize(('lengths', 'expected'), [
    ({'z': 1, 't': 1}, ['z', 't', 'c']),
    ({'t': 1, 'z': 1}, ['t', 'z', 'c']),
    ({'z': 1, 't': 1, 'q': 1, 'c': 1}, ['z', 't', 'q', 'c']),
    ({'c': 1, 'z': 1}, ['t', 'c', 'z']),
    ({'t': 1, 'z': 1, 'q': 1}, ['t', 'z', 'q', 'c']),
    ({'z': 1}, ['z', 't', 'c'])])
def test_a_new_axis_has_the_place_that_the_tile_gives_it(lengths, expected):
    assert list(Axes({'t': 2, 'c': 2}).grown(lengths).lengths) == expected


def test_a_later_keyword_is_a_slower_axis():
    lengths = lengths_of(None, {'c': 1, 'z': 2}, np.zeros((2, 2)))
    assert list(lengths.items()) == [('z', 3), ('c', 2)]


@pytest.mark.parametrize('keywords', [{'z': 1}, {'z': 1, 'c': 1}, {'c': 1, 'z': 1}])
def test_a_new_keyword_is_slower_than_all_axes_of_the_image(keywords):
    axes = Axes({'t': 2, 'c': 2})
    lengths = lengths_of(None, keywords, known=list(axes.lengths))
    assert list(axes.grown(lengths).lengths) == ['z', 't', 'c']


def test_too_many_frames_are_refused_with_the_axes():
    with pytest.raises(TileSourceError, match=r'1,100,000 frames \(z 1100, c 1000\)') as caught:
        Axes({'c': 1000}).grown({'z': 1100, 'c': 1})
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(('axes', 'keywords', 'message'), [
    (None, {'level': 1}, 'lower levels are computed'),
    (None, {'level_value': 1}, 'lower levels are computed'),
    (None, {'frame': 1}, 'no frame number'),
    (None, {'maks': 1}, "did you mean 'mask'"),
    (None, {'wieght': 1}, "did you mean 'weight'"),
    (None, {'axis': 1}, "did you mean 'axes'"),
    (None, {'interpretaton': 1}, "did you mean 'interpretation'"),
    (None, {'c': 1, 'chanel': 2}, 'use c= for both'),
    (None, {'z': 1, 'slice': 2}, 'use z= for both'),
    (None, {'c': 1.5}, 'c must be a whole number'),
    (None, {'c': 'DAPI'}, 'c must be a whole number'),
    (None, {'c': None}, 'c must be a whole number'),
    (None, {'c': -1}, 'at least 0'),
    (None, {'s': 1}, 'bands'),
    (None, {'x_value': 1}, 'place a tile in its frame'),
    (None, {'C': 1, 'c': 1}, 'twice'),
    (None, {'not a name': 1}, 'name of an axis'),
    (None, {'z_value': np.nan}, 'finite'),
    (None, {'z_value': {}}, 'finite'),
    ('zyz', {}, 'more than once'),
    ('zy', {}, "must contain 'y' and 'x'"),
    (5, {}, 'axes must be'),
    (['y', 1, 'x'], {}, 'axes must be'),
    (['level', 'y', 'x'], {}, 'lower levels'),
    (['y', 'x', 'z z'], {}, 'name of an axis')])
def test_what_cannot_be_an_axis_is_refused(axes, keywords, message):
    with pytest.raises(TileSourceError, match=message) as caught:
        make_placement(axes, keywords)
    assert isinstance(caught.value, ValueError)


def test_a_word_for_an_axis_of_the_image_is_refused():
    with pytest.raises(TileSourceError, match='use c= for both'):
        make_placement(None, {'chanel': 1}, ['z', 'c'])
    assert make_placement(None, {'channel': 1}).starts == {'channel': 1}


@pytest.mark.parametrize(('given', 'expected'), [
    ('zyx', True), ('yxs', True), ('tczyxs', True), (['y', 'x'], True), (('z', 'y', 'x'), True),
    ('rgb', False), ('lab', False), ('labels', False), ('yxy', False), ('multiband', False),
    (3, False)])
def test_axes_at_the_place_of_the_interpretation_are_recognised(given, expected):
    assert looks_like_axes(given) is expected


@given(st.data(), st.permutations('zcyxs'), st.integers(0, 2), st.integers(0, 2))
def test_an_array_is_split_by_the_names_of_its_dimensions(data, names, z, c):
    names = names[:data.draw(st.integers(2, 5))]
    if not {'y', 'x'} <= set(names):
        names = [*names, *({'y', 'x'} - set(names))]
    shape = [data.draw(st.integers(1, 4)) for _ in names]
    array = np.arange(math.prod(shape)).reshape(shape)
    mask = array % 3 == 0
    axes = data.draw(st.sampled_from([''.join(names), list(names)]))
    frames = {name: size for name, size in zip(names, shape, strict=True) if name in 'zc'}
    assert lengths_of(axes, {'z': z, 'c': c}, array) == {
        name: start + frames.get(name, 1) for name, start in {'c': c, 'z': z}.items()}
    seen = 0
    for position, part, part_mask in pieces(axes, {'z': z, 'c': c}, array, mask):
        rows, cols, bands = part.shape
        assert part_mask.shape[:2] == (rows, cols)
        seen += part.size
        for row, col, band in itertools.product(range(rows), range(cols), range(bands)):
            at = {'y': row, 'x': col, 's': band, 'z': position['z'] - z, 'c': position['c'] - c}
            value = array[tuple(at[name] for name in names)]
            assert part[row, col, band] == value
            given_mask = part_mask[row, col] if part_mask.ndim == 2 else part_mask[row, col, band]
            assert given_mask == (value % 3 == 0)
    assert seen == array.size


@pytest.mark.parametrize(('axes', 'shape', 'expected'), [
    ('yx', (2, 3), [(2, 3, 1)]),
    ('yxs', (2, 3), [(2, 3, 1)]),
    ('yx', (2, 3, 4), [(2, 3, 4)]),
    ('zyx', (5, 2, 3), [(2, 3, 1)] * 5),
    ('zyxs', (2, 3, 4), [(2, 3, 4)]),
    ('ztcyxs', (2, 3, 4), [(2, 3, 4)]),
    ('ztcyxs', (2, 3), [(2, 3, 1)]),
    ('zyx', (5, 2, 3, 4), [(2, 3, 4)] * 5),
    ('xyz', (3, 2, 5), [(2, 3, 1)] * 5)])
def test_missing_dimensions_are_added(axes, shape, expected):
    tile = np.zeros(shape)
    assert [part.shape for _, part, _ in pieces(axes, {}, tile)] == expected
    assert np.shares_memory(split(make_placement(axes, {}), tile)[1], tile) or axes == 'xyz'


@pytest.mark.parametrize(('axes', 'shape'), [
    ('yx', (2, 3, 4, 5)), ('yxs', (2, 3, 4, 5)), ('zyx', (3,)), ('yzx', (3, 3)),
    ('zyx', (0, 2, 3))])
def test_dimensions_that_do_not_fit_are_refused(axes, shape):
    with pytest.raises(TileSourceError, match='dimension'):
        split(make_placement(axes, {}), np.zeros(shape))


@pytest.mark.parametrize(('shape', 'fits'), [
    ((4, 5), True), ((3, 4, 5), True), ((1, 4, 5), True), ((3, 4, 5, 1), True),
    ((3, 4, 5, 2), True), ((1, 4, 5, 2), True), ((2, 4, 5), False), ((2, 4, 5, 2), False),
    ((1, 3, 4, 5, 2), False), ((5,), False)])
def test_a_mask_is_for_all_frames_or_for_each(shape, fits):
    mask = np.random.default_rng(1).random(shape) > 0.5
    tile = np.zeros((3, 4, 5, 2))
    if not fits:
        with pytest.raises(TileSourceError, match='mask of the shape'):
            split(make_placement('zyxs', {}), tile, mask)
        return
    for number, (_, _, part) in enumerate(pieces('zyxs', {}, tile, mask)):
        expected = mask if mask.ndim == 2 else mask[number if mask.shape[0] == 3 else 0]
        np.testing.assert_array_equal(part, expected)


def test_a_value_is_for_the_first_position_and_a_list_for_all():
    tile = np.zeros((3, 4, 5))
    target = split(make_placement('zyx', {
        'z': 2, 'z_value': np.array([0.5, 1, 1.5], np.float32), 'c_value': np.str_('DAPI'),
        't_value': np.int16(7)}), tile)[0]
    assert list(target.values) == [
        ({'t': 0, 'c': 0, 'z': 2 + place}, {'c': 'DAPI', 't': 7, 'z': 0.5 + place / 2})
        for place in range(3)]
    assert {type(value) for _, found in target.values for value in found.values()} == {
        float, str, int}
    assert target.lengths == {'t': 1, 'c': 1, 'z': 5}
    single = split(make_placement('zyx', {'z': 2, 'z_value': 1}), tile)[0]
    assert list(single.values) == [({'z': 2}, {'z': 1})]
    with pytest.raises(TileSourceError, match='2 values, but the tile has 3 positions on z'):
        split(make_placement('zyx', {'z_value': [1, 2]}), tile)
