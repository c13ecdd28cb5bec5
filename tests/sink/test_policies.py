"""Blend policies, compared with exact arithmetic."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.blend_model import Tile, blended
from helpers.sink import assert_same, random_tile, read_all, read_shown
from helpers.sink_model import Model

POLICIES = ['mean', 'feather', 'sum', 'max', 'min']
SUMS = {'u': 'uint32', 'i': 'int32', 'f': 'float32'}
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True,
                    suppress_health_check=[HealthCheck.too_slow])


def result_dtype(policy, dtype):
    return SUMS[np.dtype(dtype).kind] if policy == 'sum' else dtype


@st.composite
def tiles_of(draw, dtype, bands, *, weighted=True, alpha=True):
    """Small tiles around the corner of four blocks, so that most overlap."""
    found = []
    for _ in range(draw(st.integers(1, 6))):
        rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
        rows, cols = draw(st.integers(1, 9)), draw(st.integers(1, 9))
        color = random_tile(dtype, (rows, cols, bands), draw(st.integers(0, 1 << 32)))
        kinds = ['plain', 'mask'] + ['weight', 'both'] * weighted + ['alpha'] * alpha
        kind = draw(st.sampled_from(kinds))
        mask = weight = transparency = None
        if kind in ('mask', 'both'):
            mask = rng.random((rows, cols)) < 0.6
        if kind in ('weight', 'both'):
            # Sums of these are exact.
            weight = rng.integers(0, 9, (rows, cols)) / 4
        if kind == 'alpha':
            transparency = random_tile(dtype, (rows, cols), draw(st.integers(0, 1 << 32)))
            if np.dtype(dtype).kind == 'f':
                transparency = np.clip(transparency, 0, 255)
        found.append(Tile(color, draw(st.integers(248, 260)), draw(st.integers(248, 260)),
                          mask, weight, transparency))
    return found


def sink_of(policy, tiles, **kwargs):
    sink = large_image_source_vips.new(blend=policy, **kwargs)
    for tile in tiles:
        sink.addTile(tile.given, tile.x, tile.y, mask=tile.mask, weight=tile.weight)
    return sink


def assert_near(found, expected):
    """Equal; 32-bit floats up to the last bit."""
    if expected.dtype.kind == 'f':
        np.testing.assert_array_max_ulp(found, expected, 1)
    else:
        assert_same(found, expected)


@pytest.mark.parametrize(('policy', 'dtype', 'bands'), [
    *itertools.product(POLICIES, ['uint8', 'int16', 'float32'], [1, 3]),
    ('mean', 'uint16', 3), ('feather', 'int8', 1), ('max', 'uint32', 3), ('mean', 'int32', 1)])
def test_tiles_are_blended_exactly(policy, dtype, bands):
    @EXAMPLES
    @given(tiles_of(dtype, bands, weighted=policy in ('mean', 'feather', 'sum'),
                    alpha=policy != 'sum' and dtype != 'int8'))
    def check(tiles):
        found = read_all(sink_of(policy, tiles))
        assert_near(found, blended(policy, tiles, result_dtype(policy, dtype), found.shape))

    check()


@pytest.mark.parametrize('policy', ['over', 'first'])
@pytest.mark.parametrize('dtype', ['uint8', 'float32'])
def test_the_first_or_the_last_tile_is_seen(policy, dtype):
    @EXAMPLES
    @given(tiles_of(dtype, 3, weighted=False))
    def check(tiles):
        model = Model(dtype, 3)
        for tile in tiles if policy == 'over' else reversed(tiles):
            model.add(tile.given, tile.x, tile.y, tile.mask)
        found = read_all(sink_of(policy, tiles))
        expected = model.add_extent([
            (tile.x, tile.y, tile.color.shape[1], tile.color.shape[0]) for tile in tiles])
        assert_same(found, expected, near=True)

    check()


@pytest.mark.parametrize('policy', POLICIES)
@pytest.mark.parametrize('dtype', ['uint8', 'float32', 'float64'])
def test_the_order_of_tiles_changes_no_bit(policy, dtype, tmp_path_factory):
    @EXAMPLES
    @given(tiles_of(dtype, 3, weighted=policy in ('mean', 'feather', 'sum')), st.randoms())
    def check(tiles, random):
        folder = tmp_path_factory.mktemp('spool') / 'tiles'
        first = read_all(sink_of(policy, tiles))
        shuffled = random.sample(tiles, len(tiles))
        assert_same(read_all(sink_of(policy, shuffled)), first)
        # As added by two processes.
        half = sink_of(policy, shuffled[::2], spool=folder)
        other = sink_of(policy, shuffled[1::2], spool=folder)
        assert_same(read_all(half), first)
        other.close()
        half.close(delete=True)

    check()


@pytest.mark.parametrize('policy', ['mean', 'sum'])
def test_results_of_64_bit_floats_are_64_bit_floats(policy):
    tiles = [random_tile('float64', (5, 5, 3), seed) for seed in range(8)]
    found = read_all(sink_of(policy, [Tile(tile, 0, 0) for tile in tiles]))
    assert found.dtype == np.float64
    expected = np.sum(tiles, axis=0) / (8 if policy == 'mean' else 1)
    np.testing.assert_allclose(found[..., :3], expected, rtol=1e-14)


def test_halves_are_rounded_to_even():
    sink = large_image_source_vips.new(blend='mean')
    sink.addTile(np.array([[0, 1, 2, 3]], np.uint8))
    sink.addTile(np.array([[1, 2, 3, 4]], np.uint8))
    assert read_all(sink)[0, :, 0].tolist() == [0, 2, 2, 4]


@pytest.mark.parametrize('policy', ['mean', 'max', 'min', 'feather', 'sum'])
def test_without_weight_there_is_a_hole(policy, tmp_path):
    sink = large_image_source_vips.new(blend=policy)
    mask = np.ones((20, 30), bool)
    mask[5:10, 7:9] = False
    sink.addTile(np.full((20, 30, 3), 7, np.uint8), mask=mask)
    assert np.array_equal(read_all(sink)[:, :, 3] > 0, mask)
    sink.write(tmp_path / 'holes.tif', lossy=False)
    shown = read_shown(tmp_path / 'holes.tif')
    assert np.array_equal(shown[:, :, 3] > 0, mask)
    assert (shown[mask][:, :3] == 7).all()


def test_what_is_nan_without_weight_does_not_spread():
    sink = large_image_source_vips.new(blend='mean')
    tile = np.full((4, 4), 2, np.float32)
    sink.addTile(tile)
    tile = np.full((4, 4), np.nan, np.float32)
    sink.addTile(tile, weight=np.zeros((4, 4)))
    sink.addTile(tile, mask=np.zeros((4, 4), bool))
    assert (read_all(sink)[:, :, 0] == 2).all()


@pytest.mark.parametrize(('policy', 'value'), [('max', 5), ('min', 2)])
def test_nan_is_neither_largest_nor_smallest(policy, value):
    sink = large_image_source_vips.new(blend=policy)
    for sample in (np.nan, 2, 5, np.nan):
        sink.addTile(np.full((4, 4), sample, np.float32))
    sink.addTile(np.full((4, 4), np.nan, np.float32), 4)
    found = read_all(sink)[:, :, 0]
    assert (found[:, :4] == value).all()
    assert np.isnan(found[:, 4:]).all()


def test_feathered_tiles_pass_over_into_each_other():
    """Two tiles of 0 and 100 that overlap by 8 of 16 columns, in the middle rows."""
    sink = large_image_source_vips.new(blend='feather')
    sink.addTile(np.zeros((16, 16), np.float32))
    sink.addTile(np.full((16, 16), 100, np.float32), 8)
    row = read_all(sink)[8, 8:16, 0]
    down = np.minimum(np.arange(8, 0, -1), 8)
    up = np.arange(1, 9)
    np.testing.assert_allclose(row, 100 * up / (up + down), rtol=1e-6)


@pytest.mark.parametrize(('accumulator', 'values', 'expected'), [
    ('float32', [1, 2], 1.5), ('uint16', [200, 255], 228), ('int8', [3, 4], 4)])
def test_the_dtype_of_a_mean_can_be_chosen(accumulator, values, expected):
    sink = large_image_source_vips.new(blend='mean', accumulator=accumulator)
    for value in values:
        sink.addTile(np.full((4, 4), value, np.uint8))
    found = read_all(sink)
    assert found.dtype == accumulator
    assert (found[:, :, 0] == expected).all()


def test_counts_of_tiles_are_a_sum():
    sink = large_image_source_vips.new(blend='sum', accumulator='uint16')
    for step in range(5):
        sink.addTile(np.ones((40, 40), np.uint8), 10 * step, 0)
    assert read_all(sink)[0, ::10, 0].tolist() == [1, 2, 3, 4, 4, 3, 2, 1]


def test_a_sum_that_does_not_fit_says_so():
    sink = large_image_source_vips.new(blend='sum', accumulator='uint8')
    sink.addTile(np.full((4, 4), 200, np.uint8))
    sink.addTile(np.full((4, 4), 100, np.uint8))
    with pytest.raises(TileSourceError, match='is 300, which uint8 cannot hold'):
        sink.getTile(0, 0, 0)


@pytest.mark.parametrize('policy', ['mean', 'feather', 'sum'])
def test_labels_have_no_mean(policy):
    sink = large_image_source_vips.new(blend=policy)
    with pytest.raises(TileSourceError, match='Labels cannot be added'):
        sink.addTile(np.ones((4, 4), np.uint8), interpretation='labels')
    sink.addTile(np.ones((4, 4), np.uint8))
    assert read_all(sink)[0, 0, 0] == 1


@pytest.mark.parametrize(('policy', 'value'), [('over', 2), ('first', 1)])
def test_labels_win_or_lose(policy, value):
    sink = large_image_source_vips.new(blend=policy)
    for label in (1, 2):
        sink.addTile(np.full((4, 4), label, np.uint16), interpretation='labels')
    assert read_all(sink)[0, 0, 0] == value


@pytest.mark.parametrize(('kwargs', 'words'), [
    ({'blend': 'median'}, 'blend must be one of over, first, mean'),
    ({'blend': 'max', 'accumulator': 'float32'}, 'keeps the dtype'),
    ({'blend': 'mean', 'accumulator': 'complex64'}, 'accumulator must be one of'),
    ({'blend': 'mean', 'accumulator': 'no dtype'}, 'accumulator must be one of')])
def test_a_wrong_policy_is_refused(kwargs, words):
    with pytest.raises(TileSourceError, match=words):
        large_image_source_vips.new(**kwargs)


@pytest.mark.parametrize(('weight', 'words'), [
    (np.ones((3, 4)), 'the shape'), (np.full((4, 4), -1.0), 'not negative'),
    (np.full((4, 4), np.nan), 'finite'), ('text', 'floats')])
def test_a_wrong_weight_is_refused(weight, words):
    sink = large_image_source_vips.new(blend='mean')
    with pytest.raises(TileSourceError, match=words):
        sink.addTile(np.ones((4, 4), np.uint8), weight=weight)


def test_weights_are_for_means_and_sums():
    for sink in (large_image_source_vips.new(), large_image_source_vips.new(blend='max')):
        with pytest.raises(TileSourceError, match='weight= is for images with'):
            sink.addTile(np.ones((4, 4), np.uint8), weight=np.ones((4, 4)))


def test_a_tile_with_an_order_lies_over_lower_ones():
    sink = large_image_source_vips.new()
    for order in (3, 1, 2.5, None, 2):
        sink.addTile(np.full((4, 4), 10 * (order or 0), np.uint8), order=order)
    assert read_all(sink)[0, 0, 0] == 30


def test_an_order_comes_with_the_first_tile():
    sink = large_image_source_vips.new()
    sink.mm_x = 0.5
    sink.addTile(np.zeros((4, 4), np.uint8))
    with pytest.raises(TileSourceError, match='from the first tile on'):
        sink.addTile(np.zeros((4, 4), np.uint8), order=1)
    sink = large_image_source_vips.new()
    sink.mm_x, sink.minWidth, sink.imageDescription = 0.5, 30, 'text'
    sink.addTile(np.zeros((4, 4), np.uint8), order=1)
    assert (sink.mm_x, sink.sizeX, sink.imageDescription) == (0.5, 30, 'text')
    with pytest.raises(TileSourceError, match='order must be None or a number'):
        sink.addTile(np.zeros((4, 4), np.uint8), order='high')


@pytest.mark.parametrize('policy', ['over', 'mean'])
def test_a_key_counts_once(policy):
    sink = large_image_source_vips.new(blend=policy)
    tile = np.full((4, 4), 10, np.uint8)
    sink.addTile(tile, key=('slide', 1))
    sink.addTile(np.full((4, 4), 20, np.uint8), key=2)
    sink.addTile(tile, key=('slide', 1))
    assert sink.added(('slide', 1))
    assert not sink.added('other')
    assert read_all(sink)[0, 0, 0] == {'over': 20, 'mean': 15}[policy]
    for other in ({'tile': tile + 1}, {'tile': tile, 'x': 1}, {'tile': tile, 'c': 1}):
        with pytest.raises(TileSourceError, match=r"The key \('slide', 1\) was given to"):
            sink.addTile(key=('slide', 1), **other)
    with pytest.raises(TileSourceError, match='key must be'):
        sink.addTile(tile, key=1.5)


@pytest.mark.parametrize('policy', ['mean', 'feather', 'max', 'first'])
def test_lower_levels_are_those_of_the_blended_pixels(policy):
    """Of floats, whose means of 2 x 2 are rounded once."""
    tiles = [Tile(random_tile('float32', (300, 300, 1), seed), 200 * seed, 100 * seed)
             for seed in range(3)]
    sink = sink_of(policy, tiles)
    full = read_all(sink)
    low = sink.getRegion(
        format='numpy', output={'maxWidth': -(-full.shape[1] // 2)})[0]
    plain = large_image_source_vips.new()
    plain.addTile(full)
    expected = plain.getRegion(
        format='numpy', output={'maxWidth': -(-full.shape[1] // 2)})[0]
    assert_same(low, expected)


@pytest.mark.parametrize('policy', ['mean', 'over', 'first'])
def test_frames_are_blended_each_by_itself(policy):
    rng = np.random.default_rng(5)
    stack = rng.integers(0, 200, (2, 3, 40, 50), np.uint8)
    other = rng.integers(0, 200, (3, 40, 50), np.uint8)
    weight = rng.integers(1, 5, (3, 40, 50)) if policy == 'mean' else None
    sink = large_image_source_vips.new(blend=policy)
    sink.addTile(stack, axes='czyx', key='stack')
    sink.addTile(other, axes='zyx', c=1, weight=weight, z_value=[1.5, 2.5, 3.5])
    expected = stack.astype(float)
    if policy == 'mean':
        expected[1] = (expected[1] + other * weight.astype(float)) / (1 + weight)
    elif policy == 'over':
        expected[1] = other
    frames = sink.getMetadata()['frames']
    assert len(frames) == 6
    for number, frame in enumerate(frames):
        found = sink.getRegion(format='numpy', frame=number)[0][:, :, 0]
        wanted = np.rint(expected[frame['IndexC'], frame['IndexZ']])
        assert np.array_equal(found, wanted)
    assert [frame['ValueZ'] for frame in frames[3:]] == [1.5, 2.5, 3.5]


def test_tiles_of_other_dtypes_and_bands_are_joined():
    sink = large_image_source_vips.new(blend='max')
    sink.addTile(np.full((4, 4), 7, np.uint8))
    sink.addTile(np.full((4, 4, 3), 300, np.uint16), 2)
    found = read_all(sink)
    assert found.dtype == np.uint16
    plain = large_image_source_vips.new()
    plain.addTile(np.full((4, 4), 7, np.uint8))
    plain.addTile(np.full((4, 4, 3), 300, np.uint16), 2)
    assert_same(found, read_all(plain))


def test_ranges_are_those_of_the_tiles():
    sink = large_image_source_vips.new(blend='mean')
    for value in (3, 9):
        sink.addTile(np.full((4, 4), value, np.uint8))
    assert sink.bandRanges['min'].tolist() == [3]
    assert sink.bandRanges['max'].tolist() == [9]


def mean_of_opaque(policy, tiles, shape):
    """The mean in exact integers, or in 64-bit floats; halves to even."""
    total, weights = np.zeros(shape, object), np.zeros(shape[:2], object)
    for x, y, tile in tiles:
        rows, cols = tile.shape[:2]
        weight = np.ones((rows, cols), object)
        if policy == 'feather':
            down = np.minimum(np.arange(1, rows + 1), np.arange(rows, 0, -1))
            across = np.minimum(np.arange(1, cols + 1), np.arange(cols, 0, -1))
            weight = np.minimum.outer(down, across).astype(object)
        values = tile.astype(object)
        total[y:y + rows, x:x + cols] += values * weight[:, :, np.newaxis]
        weights[y:y + rows, x:x + cols] += weight
    weights = np.where(weights == 0, 1, weights)[:, :, np.newaxis]
    if tiles[0][2].dtype.kind == 'f':
        return (total.astype(float) / weights.astype(float))
    twice = 2 * total + weights
    found = twice // (2 * weights)
    return found - ((twice % (2 * weights) == 0) & (found % 2 == 1))


@pytest.mark.parametrize(('dtype', 'bands', 'side', 'step', 'count'), [
    # Sums in 16-bit integers, in 32-bit and in 64-bit floats; more tiles than areas are made of.
    ('uint8', 3, 96, 72, 4), ('uint8', 1, 200, 40, 4), ('uint8', 3, 300, 4, 5),
    ('int8', 3, 96, 64, 3), ('uint16', 3, 40, 9, 4), ('int16', 1, 100, 75, 3),
    ('uint16', 1, 300, 150, 2), ('uint32', 1, 60, 45, 3), ('int32', 3, 60, 45, 3),
    ('float32', 3, 96, 72, 3), ('float64', 1, 96, 72, 3)])
@pytest.mark.parametrize('policy', ['mean', 'feather'])
def test_opaque_tiles_of_any_size_are_averaged_exactly(policy, dtype, bands, side, step, count):
    """Extreme and equal samples, across the edges of blocks, some pixels under one tile only."""
    rng = np.random.default_rng(side + step)
    low, high = (-1, 1) if dtype[0] == 'f' else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    tiles = []
    for number in range(count * count):
        tile = rng.uniform(low, high, (side, side + 1, bands)).astype(dtype)
        tile[rng.random(tile.shape) < 0.3] = high
        tile[:side // 2, ::2] = rng.integers(0, 2, (side // 2, side // 2 + 1, bands))
        tiles.append((step * (number % count), step * (number // count), tile))
    sink = large_image_source_vips.new(blend=policy)
    for x, y, tile in rng.permutation(np.array(tiles, object)):
        sink.addTile(tile, x, y)
    found = read_all(sink)[:, :, :bands]
    expected = mean_of_opaque(policy, tiles, found.shape)
    if dtype[0] == 'f':
        np.testing.assert_allclose(found, expected, rtol=2e-7 if dtype == 'float32' else 1e-15,
                                   atol=1e-12)
    else:
        assert np.array_equal(found, expected.astype(dtype))


def test_hundreds_of_tiles_on_one_place_are_averaged_exactly():
    """257 x 65535 is the largest sum of 16-bit samples; 256 halves are close to no integer."""
    sink = large_image_source_vips.new(blend='mean')
    rng = np.random.default_rng(4)
    tiles = [rng.choice(np.array([0, 1, 65534, 65535], np.uint16), (5, 90, 1)) for _ in range(301)]
    for count, tile in enumerate(tiles, 1):
        sink.addTile(tile)
        if count in (128, 129, 256, 257, 301):
            expected = mean_of_opaque('mean', [(0, 0, tile) for tile in tiles[:count]], (5, 90, 1))
            assert np.array_equal(read_all(sink)[:, :, :1], expected.astype(np.uint16))
