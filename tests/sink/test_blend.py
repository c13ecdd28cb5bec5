"""Overlaps, alpha, masks, promotion: the sink against a plain NumPy model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.sink import make_sink, random_tile, read_all
from helpers.sink_model import Model, opaque_value

DTYPES = ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'float32']


@st.composite
def operations(draw):
    """A few tiles with positions around a block's corner, alpha and masks."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    colors = draw(st.sampled_from([1, 3]))
    steps = []
    for _ in range(draw(st.integers(1, 5))):
        rows, cols = draw(st.integers(1, 7)), draw(st.integers(1, 7))
        x, y = draw(st.integers(-4, 4)), draw(st.integers(-4, 4))
        # Near a corner where four blocks meet, or near the origin.
        base = draw(st.sampled_from([0, 256, -256]))
        rng = np.random.default_rng(draw(st.integers(0, 2 ** 32)))
        tile = random_tile(dtype, (rows, cols, colors), int(rng.integers(1 << 30)))
        if draw(st.booleans()):
            opaque = opaque_value(dtype)
            # For floats never all within 0..1, which would be scaled.
            choices = np.array([0, opaque // 3, opaque // 2, opaque, opaque], dtype)
            alpha = rng.choice(choices, (rows, cols))
            alpha.flat[0] = opaque
            tile = np.dstack([tile, alpha])
        mask = rng.integers(0, 2, (rows, cols)).astype(bool) if draw(st.booleans()) else None
        steps.append((tile, base + x, base + y, mask))
    return dtype, colors, steps


@settings(max_examples=150, deadline=None)
@given(operations())
def test_any_sequence_of_tiles_is_what_numpy_makes_of_it(case):
    dtype, colors, steps = case
    sink, model, extents = large_image_source_vips.new(), Model(dtype, colors), []
    for tile, x, y, mask in steps:
        sink.addTile(tile, x, y, mask=mask)
        model.add(tile, x, y, mask)
        extents.append((x, y, tile.shape[1], tile.shape[0]))
    expected = model.add_extent(extents)
    actual = read_all(sink)
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    if dtype.kind == 'f':
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
    else:
        assert np.array_equal(actual, expected)
    assert sink.origin == {'x': min(0, *(e[0] for e in extents), 0),
                           'y': min(0, *(e[1] for e in extents), 0)}


@pytest.mark.parametrize('dtype', DTYPES)
def test_an_opaque_tile_covers_what_is_below(dtype):
    below, above = random_tile(dtype, (40, 40, 3)), random_tile(dtype, (20, 20, 3), 1)
    sink = make_sink(below)
    sink.addTile(above, 10, 10)
    expected = below.copy()
    expected[10:30, 10:30] = above
    result = read_all(sink)
    assert np.array_equal(result[:, :, :3], expected)
    assert (result[:, :, 3] == opaque_value(dtype)).all()


@pytest.mark.parametrize('shape', [(20, 30), (20, 30, 1)])
@pytest.mark.parametrize('dtype', ['bool', 'uint8', 'int64', 'float32'])
def test_masks_of_any_kind(shape, dtype):
    mask = (np.indices((20, 30)).sum(axis=0) % 3 == 0)
    tile = random_tile('uint8', (20, 30, 3))
    result = read_all(make_sink(tile, mask=(mask * 2.5).astype(dtype).reshape(shape)))
    assert np.array_equal(result[mask][:, :3], tile[mask])
    assert not result[~mask].any()


@pytest.mark.parametrize('mask', [
    np.ones((30, 20)), np.ones((30, 20, 3)), np.ones((3, 20, 30)), np.ones((1, 30)),
    np.ones((20, 30, 1, 1)), np.ones(600), np.ones((1, 1)), 'mask', [[1, 0]], [[1], [2, 3]]],
    ids=repr)
def test_masks_of_another_shape_are_refused(mask):
    sink = make_sink(random_tile('uint8', (5, 5, 3)))
    before = read_all(sink)
    with pytest.raises(TileSourceError, match=r'(?i)mask'):
        sink.addTile(random_tile('uint8', (20, 30, 3)), mask=mask)
    assert np.array_equal(read_all(sink), before)


def test_colour_under_zero_alpha_is_kept_on_an_empty_place():
    tile = random_tile('uint8', (10, 10, 4))
    tile[:, :, 3] = 0
    assert np.array_equal(read_all(make_sink(tile)), tile)


def test_a_float_alpha_between_0_and_1_is_scaled():
    tile = random_tile('float32', (10, 10, 4))
    tile[:, :, 3] = np.linspace(0, 1, 100).reshape(10, 10)
    result = read_all(make_sink(tile))
    assert np.array_equal(result[:, :, :3], tile[:, :, :3])
    np.testing.assert_allclose(result[:, :, 3], tile[:, :, 3] * 255, rtol=1e-6)


@pytest.mark.parametrize(('first', 'second', 'result'), [
    ('uint8', 'uint16', 'uint16'), ('uint8', 'int8', 'int16'), ('uint16', 'int16', 'int32'),
    ('uint8', 'float32', 'float32'), ('uint16', 'float16', 'float32'), ('bool', 'int16', 'int16'),
    ('int8', 'float64', 'float64'), ('int32', 'float64', 'float64'),
    ('float32', 'float64', 'float64')])
@pytest.mark.parametrize('order', [1, -1])
def test_mixed_formats_promote_and_keep_earlier_values(first, second, result, order):
    tiles = [random_tile(first, (300, 20, 3)), random_tile(second, (20, 300, 3), 1)][::order]
    sink = make_sink(tiles[0])
    sink.addTile(tiles[1], 10, 5)
    expected = np.zeros((max(tiles[0].shape[0], 5 + tiles[1].shape[0]),
                         max(tiles[0].shape[1], 10 + tiles[1].shape[1]), 4), result)
    for tile, x, y in ((tiles[0], 0, 0), (tiles[1], 10, 5)):
        part = expected[y:y + tile.shape[0], x:x + tile.shape[1]]
        part[:, :, :3], part[:, :, 3] = tile, opaque_value(result)
    assert sink.dtype == result
    assert np.array_equal(read_all(sink), expected)


def test_integers_that_no_common_format_holds_are_refused():
    sink = make_sink(np.full((4, 4), 2 ** 32 - 1, np.uint32))
    with pytest.raises(TileSourceError, match='no integer format'):
        sink.addTile(np.full((4, 4), -1, np.int32))
    assert sink.dtype == np.uint32
    small = make_sink(np.full((4, 4), 7, np.uint32))
    small.addTile(np.full((4, 4), -1, np.int32), 4, 0)
    assert small.dtype == np.int32
    assert read_all(small)[0, :, 0].tolist() == [7] * 4 + [-1] * 4


def test_integers_that_floats_do_not_hold_are_refused():
    sink = make_sink(np.full((4, 4), 2 ** 24 + 1, np.int32))
    with pytest.raises(TileSourceError, match='exactly'):
        sink.addTile(np.zeros((4, 4), np.float32))
    assert sink.dtype == np.int32


def test_partial_alpha_keeps_its_share_when_the_format_widens():
    tile = random_tile('uint8', (4, 4, 4))
    tile[:, :, 3] = [[0, 64, 128, 255]] * 4
    sink = make_sink(tile)
    sink.addTile(random_tile('uint16', (4, 4, 3)), 4, 0)
    result = read_all(sink)
    assert result[:, :4, 3].tolist() == [[0, 64 * 257, 128 * 257, 65535]] * 4
    assert np.array_equal(result[:, :4, :3], tile[:, :, :3])


def test_gray_mixed_with_colour_becomes_colour():
    gray, color = random_tile('uint8', (10, 10)), random_tile('uint8', (10, 10, 3), 1)
    for first, second in ((gray, color), (color, gray)):
        sink = make_sink(first)
        sink.addTile(second, 10, 0)
        result = read_all(sink)
        assert result.shape == (10, 20, 4)
        for at, tile in ((0, first), (10, second)):
            expected = tile if tile.ndim == 3 else np.repeat(tile[:, :, None], 3, axis=2)
            assert np.array_equal(result[:, at:at + 10, :3], expected)


@pytest.mark.parametrize(('first', 'second'), [(3, 5), (5, 3), (5, 7), (1, 5)])
def test_bands_that_cannot_be_reconciled_are_refused(first, second):
    sink = make_sink(random_tile('uint8', (9, 9, first)))
    before = read_all(sink)
    ranges = sink.bandRanges
    with pytest.raises(TileSourceError, match='bands'):
        sink.addTile(random_tile('uint8', (30, 30, second), 1), 3, 3)
    assert np.array_equal(read_all(sink), before)
    assert np.array_equal(sink.bandRanges['max'], ranges['max'])
    assert (sink.sizeX, sink.sizeY) == (9, 9)


def test_three_data_bands_stay_data():
    tile = random_tile('uint16', (9, 9, 3))
    sink = make_sink(tile, interpretation='multiband')
    assert sink.bandCount == 3
    sink.addTile(tile, 9, 0)
    assert np.array_equal(read_all(sink), np.hstack([tile, tile]))


@pytest.mark.parametrize(('interpretation', 'bands', 'count'), [
    ('hsv', 3, 4), ('lab', 3, 4), ('cmyk', 4, 5), ('cmyk', 5, 5), ('xyz', 4, 4), ('L', 1, 2),
    ('LA', 2, 2), ('LA', 1, 2), ('L', 2, 2), ('RGB', 3, 4), ('RGBA', 4, 4), ('RGBA', 3, 4),
    ('multiband', 4, 4), ('grey16', 1, 2)])
def test_interpretations_are_labels(interpretation, bands, count):
    tile = random_tile('uint8', (9, 9, bands))
    sink = make_sink(tile, interpretation=interpretation)
    result = read_all(sink)
    assert result.shape[2] == count == sink.bandCount
    assert np.array_equal(result[:, :, :bands], tile)


@pytest.mark.parametrize(('interpretation', 'bands'), [
    ('L', 3), ('LA', 3), ('RGBA', 5), ('RGB', 2), ('lab', 2), ('cmyk', 3), ('nonsense', 3),
    (7, 3), (['RGB'], 3), ('pixelmap', 3)])
def test_interpretations_that_do_not_fit_are_refused(interpretation, bands):
    with pytest.raises(TileSourceError, match='interpretation'):
        make_sink(random_tile('uint8', (9, 9, bands)), interpretation=interpretation)


@pytest.mark.parametrize('dtype', ['uint8', 'int8', 'uint16', 'int32', 'uint32', 'int64', 'uint64'])
def test_pixelmaps_of_any_integer_type(dtype):
    labels = random_tile(dtype, (20, 20))
    result = read_all(make_sink(labels, interpretation='pixelmap'))
    values = labels.astype(object)
    for band, divisor in enumerate((1, 256, 65536)):
        assert np.array_equal(result[:, :, band], (values // divisor % 256).astype(np.uint8))
    assert (result[:, :, 3] == 255).all()


def test_pixelmaps_of_floats_are_refused():
    with pytest.raises(TileSourceError, match='integers'):
        make_sink(np.ones((5, 5), np.float32), interpretation='pixelmap')
