"""
Selected frames of an image are written with their axes, names and values.
"""

import numpy as np
import pytest
import tifffile
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.pixels import random_pixels

PLANES = random_pixels((2, 3, 40, 50), 'uint16')                # T, C


@pytest.fixture
def stack(tmp_path):
    sink = large_image_source_vips.new()
    for t, c in np.ndindex(2, 3):
        sink.addTile(PLANES[t, c], c=c, t=t, t_value=[10.5, 20.5][t])
    sink.frameUnits = {'t': 's'}
    sink.channelNames = ['DAPI', 'GFP', 'Cy5']
    sink.channelColors = ['0000FF', '00FF00', 'FF0000']
    sink.write(tmp_path / 'in.ome.tif')
    return large_image_source_vips.open(tmp_path / 'in.ome.tif')


def number_of(source, t, c):
    """The number of a frame."""
    return next(frame['Frame'] for frame in source.getMetadata()['frames']
                if (frame['IndexT'], frame['IndexC']) == (t, c))


def written(source, path, places):
    source.write(path, lossy=False, frame=[number_of(source, *place) for place in places])
    return large_image_source_vips.open(path)


def pixels(source, frame):
    return source.getRegion(frame=frame, format='numpy')[0][..., 0]


@pytest.mark.parametrize('name', ['a.tif', 'a.ome.tif'])
def test_two_channels_of_all_times(stack, tmp_path, name):
    found = written(stack, tmp_path / name, [(0, 0), (0, 2), (1, 0), (1, 2)])
    assert found.channelNames == ['DAPI', 'Cy5']
    assert found.channelColors == ['0000FF', 'FF0000']
    assert found.getMetadata()['IndexRange'] == {'IndexC': 2, 'IndexT': 2}
    for t, c in np.ndindex(2, 2):
        np.testing.assert_array_equal(
            pixels(found, number_of(found, t, c)), PLANES[t, [0, 2][c]])
    assert [frame['ValueT'] for frame in found.getMetadata()['frames'] if
            frame['IndexT'] == 1] == [20.5, 20.5]


def test_an_axis_with_one_place_is_dropped(stack, tmp_path):
    found = written(stack, tmp_path / 'a.tif', [(1, 1), (1, 2)])
    assert found.getMetadata()['IndexRange'] == {'IndexC': 2}
    assert found.channelNames == ['GFP', 'Cy5']
    for frame in range(2):
        np.testing.assert_array_equal(pixels(found, frame), PLANES[1, 1 + frame])


def test_frames_that_do_not_fill_axes(stack, tmp_path):
    places = sorted([(0, 0), (0, 1), (1, 2)], key=lambda place: number_of(stack, *place))
    found = written(stack, tmp_path / 'a.tif', places)
    assert len(found.getMetadata()['frames']) == 3
    assert found.channelNames == ['DAPI', 'GFP', 'Cy5']
    for t, c in places:
        np.testing.assert_array_equal(pixels(found, number_of(found, t, c)), PLANES[t, c])
    # So does a copy.
    again = written(found, tmp_path / 'b.tif', places)
    assert again.getMetadata()['frames'] == found.getMetadata()['frames']


def test_order_and_repetition_do_not_matter(stack, tmp_path):
    stack.write(tmp_path / 'a.tif', frame=(3, 1, 3), lossy=False)
    stack.write(tmp_path / 'b.tif', frame=[1, 3], lossy=False)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / 'a.tif', key=[0, 1]),
                                  tifffile.imread(tmp_path / 'b.tif', key=[0, 1]))


def test_one_of_a_list_is_one_frame(stack, tmp_path):
    stack.write(tmp_path / 'a.png', frame=[number_of(stack, 1, 1)])
    found = large_image_source_vips.open(tmp_path / 'a.png')
    np.testing.assert_array_equal(pixels(found, 0), PLANES[1, 1])


def test_a_level_of_some_frames(stack, tmp_path):
    frames = [number_of(stack, 0, 1), number_of(stack, 1, 1)]
    sink = large_image_source_vips.new()
    big = random_pixels((700, 800))
    for t in range(2):
        sink.addTile(big + np.uint8(t), t=t, c=1)
    sink.write(tmp_path / 'big.tif', lossy=False)
    source = large_image_source_vips.open(tmp_path / 'big.tif')
    frames = [number for number, frame in enumerate(source.getMetadata()['frames'])
              if frame['IndexC'] == 1]
    source.write(tmp_path / 'a.tif', frame=frames, level=0, lossy=False)
    found = large_image_source_vips.open(tmp_path / 'a.tif')
    for place, frame in enumerate(frames):
        expected = source.getTile(0, 0, 0, frame=frame, numpyAllowed='always')
        np.testing.assert_array_equal(
            pixels(found, place), expected[:found.sizeY, :found.sizeX, 0])


@pytest.mark.parametrize(('frame', 'words'), [
    ([0, 6], 'has no frame 6'), ([], 'the list is empty'), ([0.5], 'whole number'),
    ('01', 'frame must be')])
def test_what_is_refused(stack, tmp_path, frame, words):
    with pytest.raises(TileSourceError, match=words):
        stack.write(tmp_path / 'a.tif', frame=frame)
    assert not (tmp_path / 'a.tif').exists()
