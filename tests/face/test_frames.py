"""Images with channels, planes, times and positions: adding, reading back, metadata."""

import functools
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.frames_model import FramesModel
from helpers.sink import make_sink, random_tile, read_all

DTYPES = ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'float32', 'float64']


def read_frame(source, frame, level=None):
    """The pixels of a frame at a level (rows, cols, bands)."""
    level = source.levels - 1 if level is None else level
    scale = 1 << source.levels - 1 - level
    rows, cols = -(-source.sizeY // scale), -(-source.sizeX // scale)
    result = np.zeros((rows, cols, source.bandCount), source.dtype)
    for y in range(-(-rows // 256)):
        for x in range(-(-cols // 256)):
            tile = source.getTile(x, y, level, numpyAllowed='always', frame=frame)
            part = result[y * 256:y * 256 + 256, x * 256:x * 256 + 256]
            part[...] = tile[:part.shape[0], :part.shape[1]]
    return result


@st.composite
def histories(draw):
    """Tiles with their positions on axes that appear one after the other."""
    dtype = draw(st.sampled_from(DTYPES))
    bands = draw(st.sampled_from([1, 3, 5]))
    names = draw(st.permutations(['c', 'z', 't', 'xy', 'q']))
    longest = draw(st.sampled_from([1, 1, 2]))
    tiles = []
    for number in range(draw(st.integers(1, 8))):
        known = names[:draw(st.integers(0, 4))]
        position = {name: draw(st.integers(0, longest)) for name in known}
        rows, cols = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        x, y = draw(st.integers(0, 550)), draw(st.integers(0, 40))
        tiles.append((random_tile(dtype, (rows, cols, bands), number), x, y, position,
                      draw(st.booleans())))
    return dtype, bands, tiles


# These are averaged; all others are labels.
AVERAGED = {'uint8': 255, 'uint16': 65535, 'float32': 4000, 'float64': 4000}


def assert_levels(source, number, expected, means):
    """
    Compare the lower levels of a frame.

    :param expected: its full resolution; a level has every second pixel.
    :param means: None, or what gives the means of a level instead.
    """
    for down in range(1, source.levels):
        found = read_frame(source, number, source.levels - 1 - down)
        if means is None:
            np.testing.assert_array_equal(found, expected[::1 << down, ::1 << down])
        else:
            # How much of four pixels was covered is rounded to 8 bits.
            span = AVERAGED[expected.dtype.name]
            np.testing.assert_allclose(
                found, means(down), rtol=0, atol=max(1, span * (1e-6 if down == 1 else 0.01)))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories())
def test_every_frame_and_level_is_that_of_a_numpy_model(tmp_path, history):
    dtype, bands, tiles = history
    sink = large_image_source_vips.new()
    rows = max(y + tile.shape[0] for tile, _, y, _, _ in tiles)
    cols = max(x + tile.shape[1] for tile, x, _, _, _ in tiles)
    # An axis makes frames, which have no alpha.
    tiles = [(tile, x, y, {**position, 'w': 0}, masked) for tile, x, y, position, masked in tiles]
    model = FramesModel(rows, cols, bands, dtype)
    for tile, x, y, position, masked in tiles:
        mask = random_tile(bool, tile.shape[:2], x) if masked else None
        sink.addTile(tile, x, y, mask, **position)
        model.add(tile, x, y, position, mask)
    lengths = {f'Index{axis.upper()}': length for axis, length in model.lengths.items()}
    sink.write(tmp_path / 'a.ome.tif', lossy=False)
    written = large_image_source_vips.open(tmp_path / 'a.ome.tif')
    for source in (sink, written):
        metadata = source.getMetadata()
        assert metadata.get('IndexRange', {}) == {
            axis: length for axis, length in lengths.items() if length > 1}
        json.dumps(metadata)
        assert (source.sizeY, source.sizeX, source.bandCount) == (rows, cols, bands)
        frames = metadata.get('frames', [{}])
        assert len(frames) == math.prod(lengths.values())
        for number, frame in enumerate(frames):
            expected = model.at(frame)
            np.testing.assert_array_equal(read_frame(source, number), expected)
            # What is written without loss has no values that were not added.
            averaged = source is sink and dtype in AVERAGED
            assert_levels(source, number, expected,
                          functools.partial(model.means_at, frame) if averaged else None)


def test_a_new_axis_keeps_what_every_frame_shows():
    sink = make_sink(random_tile('uint8', (300, 300), 0), c=0)
    sink.addTile(random_tile('uint8', (300, 300), 1), c=1)
    before = [read_frame(sink, frame, level) for frame in range(2) for level in range(2)]
    sink.addTile(random_tile('uint8', (300, 300), 2), z=2)
    frames = sink.getMetadata()['frames']
    assert [(frame['IndexZ'], frame['IndexC']) for frame in frames] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    after = [read_frame(sink, frame, level) for frame in range(2) for level in range(2)]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(read_frame(sink, 4)[:, :, 0], random_tile('uint8', (300, 300), 2))
    assert not read_frame(sink, 2).any()
    assert not read_frame(sink, 5, 0).any()


def test_lower_levels_of_a_frame_follow_its_changes_only():
    sink = make_sink(np.full((512, 512), 10, np.uint8), c=0)
    sink.addTile(np.full((512, 512), 20, np.uint8), c=1)
    assert [read_frame(sink, frame, 0).max() for frame in range(2)] == [10, 20]
    sink.addTile(np.full((512, 512), 30, np.uint8), c=1)
    assert [read_frame(sink, frame, 0).min() for frame in range(2)] == [10, 30]
    sink.addTile(np.full((100, 700), 40, np.uint8), c=0)
    assert read_frame(sink, 1, 0).shape == (128, 175, 1)
    assert read_frame(sink, 1, 0)[:, :128].min() == 30


def test_one_call_adds_several_frames():
    array = random_tile('uint16', (2, 3, 40, 50), 1)
    sink = make_sink(array, axes='czyx')
    assert sink.getMetadata()['IndexStride'] == {'IndexC': 3, 'IndexZ': 1}
    for number, (c, z) in enumerate(np.ndindex(2, 3)):
        np.testing.assert_array_equal(read_frame(sink, number)[:, :, 0], array[c, z])
    # The same array, its dimensions in another order, at another place.
    sink.addTile(array.transpose(3, 1, 0, 2), 10, 20, axes=['x', 'z', 'c', 'y'], z=1)
    assert sink.getMetadata()['IndexRange'] == {'IndexC': 2, 'IndexZ': 4}
    np.testing.assert_array_equal(read_frame(sink, 7)[20:, 10:, 0], array[1, 2])


def test_a_stack_is_added_whole_or_not_at_all():
    sink = make_sink(np.zeros((30, 40, 3), np.uint8), c=0)
    state = sink.getState(), json.dumps(sink.getMetadata())
    with pytest.raises(TileSourceError):
        sink.addTile(np.zeros((4, 30, 40, 5), np.uint8), axes='zyxs', z=3, z_value=4)
    with pytest.raises(TileSourceError, match='5 multiband bands'):
        sink.addTile(np.zeros((30, 40, 5), np.uint8), c=7, c_value='late')
    with pytest.raises(TileSourceError, match='frames'):
        sink.addTile(np.zeros((30, 40, 3), np.uint8), c=1 << 30)
    assert (sink.getState(), json.dumps(sink.getMetadata())) == state
    assert sink.bandRanges['max'].tolist() == [0, 0, 0]


def test_frames_have_alpha_only_if_a_tile_has():
    sink = make_sink(np.ones((30, 40), np.uint8))
    assert sink.bandCount == 2
    sink.addTile(np.ones((30, 40), np.uint8), c=1)
    assert sink.bandCount == 1
    assert read_frame(sink, 1).shape == (30, 40, 1)
    sink.addTile(np.full((20, 20, 2), 255, np.uint8), c=2)
    assert sink.bandCount == 2
    assert read_frame(sink, 2)[25, 25].tolist() == [0, 0]
    assert read_frame(sink, 1)[25, 25].tolist() == [1, 255]


def test_a_mask_of_multiband_data_keeps_what_was_there():
    first, second = random_tile('float32', (30, 40, 6), 1), random_tile('float32', (30, 40, 6), 2)
    mask = random_tile(bool, (30, 40), 3)
    sink = make_sink(first)
    sink.addTile(second, 0, 0, mask)
    np.testing.assert_array_equal(read_all(sink), np.where(mask[:, :, None], second, first))
    sink.addTile(second, 40, 0, mask)
    np.testing.assert_array_equal(
        read_all(sink)[:, 40:], np.where(mask[:, :, None], second, 0))


def test_a_mask_of_a_stack_is_for_each_frame():
    stack, masks = random_tile('uint8', (3, 30, 40), 1), random_tile(bool, (3, 30, 40), 2)
    sink = make_sink(np.full((3, 30, 40), 9, np.uint8), axes='zyx')
    sink.addTile(stack, 0, 0, masks, axes='zyx')
    for z in range(3):
        np.testing.assert_array_equal(
            read_frame(sink, z)[:, :, 0], np.where(masks[z], stack[z], 9))


@pytest.mark.parametrize('axes', ['yx', ['y', 'x'], 'zyx', ('t', 'c', 'y', 'x', 's')])
def test_axes_at_the_place_of_the_interpretation_are_an_error_that_names_them(axes):
    sink = large_image_source_vips.new()
    with pytest.raises(TileSourceError, match='axes='):
        sink.addTile(np.zeros((30, 40), np.uint8), 0, 0, None, axes)
    assert sink.levels == 0


def test_an_interpretation_that_looks_like_axes_stays_one():
    assert make_sink(np.ones((3, 4, 3), np.float32), interpretation='xyz').bandCount == 4


def test_an_array_with_named_dimensions_may_have_its_bands_first():
    array = random_tile('uint8', (3, 40, 50), 1)
    sink = make_sink(array, axes='syx')
    np.testing.assert_array_equal(read_all(sink)[:, :, :3], np.moveaxis(array, 0, -1))


def test_values_are_in_the_metadata_of_each_frame():
    sink = make_sink(np.zeros((3, 30, 40), np.uint8), axes='zyx', z_value=[0, 0.5, 1], c=0,
                     c_value='DAPI')
    sink.addTile(np.zeros((30, 40), np.uint8), c=1, c_value=np.str_('CD4'))
    sink.frameUnits = {'z': 'µm'}
    metadata = sink.getMetadata()
    assert [(frame['IndexC'], frame['ValueC'], frame['IndexZ'], frame['ValueZ'])
            for frame in metadata['frames']] == [
        (0, 'DAPI', 0, 0), (0, 'DAPI', 1, 0.5), (0, 'DAPI', 2, 1),
        (1, 'CD4', 0, 0), (1, 0, 1, 0), (1, 0, 2, 0)]
    assert metadata['ValueZ']['units'] == 'µm'
    assert sink.frameAxes == ['c', 'z']
    assert sink.frameValues.shape == (2, 3, 2)
    for frame in metadata['frames']:
        assert {type(value) for value in frame.values()} <= {int, float, str}


def test_a_style_takes_bands_of_several_frames():
    sink = make_sink(np.full((30, 40), 100, np.uint8), c=0)
    sink.addTile(np.full((30, 40), 200, np.uint8), c=1)
    sink.style = {'bands': [
        {'frame': 0, 'palette': ['#000', '#f00'], 'min': 0, 'max': 255},
        {'frame': 1, 'palette': ['#000', '#0f0'], 'min': 0, 'max': 255}]}
    tile = sink.getTile(0, 0, 0, numpyAllowed='always')
    assert tile[10, 10, :3].tolist() == [100, 200, 0]


def test_channels_are_named_as_the_base_class_does():
    sink = make_sink(np.zeros((3, 30, 40), np.uint8), axes='cyx')
    sink.channelNames = ['DAPI', 'CD4', 'CD8', 'unused']
    metadata = sink.getMetadata()
    assert metadata['channels'] == ['DAPI', 'CD4', 'CD8']
    assert metadata['channelmap'] == {'DAPI': 0, 'CD4': 1, 'CD8': 2}
    assert [frame['Channel'] for frame in metadata['frames']] == ['DAPI', 'CD4', 'CD8']


def test_a_frame_that_was_never_written_costs_nothing():
    sink = make_sink(np.ones((30, 40), np.uint8), t=0)
    before = len(sink._store._layers.color.slots)
    sink.addTile(np.ones((30, 40), np.uint8), t=99_999)
    assert sink._store.frame_count == 100_000
    assert len(sink._store._layers.color.slots) == before + 1
    assert not sink.getTile(0, 0, 0, frame=50_000, numpyAllowed='always').any()
    assert sink.getTile(0, 0, 0, frame=99_999, numpyAllowed='always')[0, 0, 0] == 1
