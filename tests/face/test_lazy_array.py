"""Levels as lazy arrays, which read pixels when they are sliced."""

import pickle

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.pixels import random_pixels
from helpers.sink import run_threads

PIXELS = random_pixels((700, 900, 3))


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp('slides') / 'slide.tif'
    with tifffile.TiffWriter(path) as file:
        file.write(PIXELS, tile=(128, 128), photometric='rgb', compression='deflate', subifds=0)
        file.write(PIXELS[::2, ::2], tile=(128, 128), photometric='rgb', subfiletype=1)
    return path


@pytest.fixture(scope='module')
def source(path):
    return large_image_source_vips.open(path)


@pytest.fixture(scope='module')
def array(source):
    return source.asArray()


def test_it_describes_itself(array):
    assert (array.shape, array.dtype, array.ndim) == (PIXELS.shape, np.uint8, 3)
    assert array.chunks == (128, 128, 3)
    assert (len(array), array.size, array.nbytes) == (700, PIXELS.size, PIXELS.nbytes)
    assert '(700, 900, 3) uint8' in repr(array)


def indices(length):
    bound = st.none() | st.integers(-length - 5, length + 5)
    step = st.none() | st.integers(-400, 400).filter(bool)
    return st.integers(-length, length - 1) | st.builds(slice, bound, bound, step)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(rows=indices(700), cols=indices(900), bands=indices(3))
def test_slices_are_those_of_numpy(array, rows, cols, bands):
    for key in ((rows, cols, bands), (rows, cols), rows, (..., bands), (rows, ...)):
        found = array[key]
        assert np.array_equal(found, PIXELS[key])
        assert found.shape == PIXELS[key].shape


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(-700, 699)), st.sampled_from([0, 1, 2]))
def test_an_index_may_be_an_array(array, places, axis):
    length = PIXELS.shape[axis]
    places = np.array([place % length for place in places], int)
    for chosen in (places, list(places), np.isin(np.arange(length), places)):
        key = [slice(3)] * 3
        key[axis] = chosen
        assert np.array_equal(array[tuple(key)], PIXELS[tuple(key)])


@pytest.mark.parametrize('key', [
    700, -701, (0, 900), (0, 0, 3), (0, 0, 0, 0), (..., ...), None, 1.5, 'a', ([1], [2]),
    [[1, 2]], [1.5], [True]], ids=repr)
def test_a_wrong_index_is_an_index_error(array, key):
    with pytest.raises(IndexError):
        array[key]


def test_it_is_what_numpy_makes_of_it(array):
    assert np.array_equal(np.asarray(array), PIXELS)
    assert np.asarray(array, np.float32).dtype == np.float32
    found = array[:10]
    found[...] = 0
    assert np.array_equal(array[:10], PIXELS[:10])


def test_levels_count_from_the_full_resolution(source):
    assert np.array_equal(np.asarray(source.asArray(1)), PIXELS[::2, ::2])
    assert source.levels == 3
    small = source.asArray(level=2)
    assert small.shape == (175, 225, 3)
    tile = source.getTile(0, 0, 0, numpyAllowed='always')
    assert np.array_equal(small[...], tile[:175, :225])
    for level in (3, -1, 'a'):
        with pytest.raises(TileSourceError, match='level must be a whole number from 0 to 2'):
            source.asArray(level)
    with pytest.raises(TileSourceError, match='frame must be a whole number from 0 to 0'):
        source.asArray(frame=1)


def test_frames_are_arrays_each(tmp_path):
    stack = random_pixels((4, 50, 60), 'uint16')
    tifffile.imwrite(tmp_path / 'stack.ome.tif', stack, photometric='minisblack',
                     metadata={'axes': 'ZYX'})
    source = large_image_source_vips.open(tmp_path / 'stack.ome.tif')
    for frame in range(4):
        assert np.array_equal(source.asArray(frame=frame)[:, :, 0], stack[frame])


def test_only_tiles_that_are_touched_are_decoded(path, monkeypatch):
    """Every 300th row and column, and single pixels."""
    source = large_image_source_vips.open(path, noCache=True)
    asked = []
    read = source._regions.read

    def seen(place, *args):
        asked.append(place.rect)
        return read(place, *args)

    monkeypatch.setattr(source._regions, 'read', seen)
    array = source.asArray()
    assert np.array_equal(array[::300, 5::300], PIXELS[::300, 5::300])
    assert sum(rect.width * rect.height for rect in asked) == 9
    asked.clear()
    assert np.array_equal(array[[3, 650], 200], PIXELS[[3, 650], 200])
    assert [(rect.width, rect.height) for rect in asked] == [(1, 1), (1, 1)]
    # Of neighbouring tiles some are read at once, so memory is bounded.
    asked.clear()
    assert np.array_equal(array[::50, ::50], PIXELS[::50, ::50])
    assert max(rect.width for rect in asked) <= 8 * 128


def test_it_can_be_pickled_and_used_in_threads(array):
    copied = pickle.loads(pickle.dumps(array))
    found = {}

    def read(first):
        found[first] = copied[first::3]

    run_threads(*(lambda first=first: read(first) for first in range(3)))
    for first, pixels in found.items():
        assert np.array_equal(pixels, PIXELS[first::3])


def test_a_style_applies(path):
    source = large_image_source_vips.open(
        path, style={'bands': [{'band': 1, 'palette': ['#000', '#fff'], 'min': 0, 'max': 255}]})
    array = source.asArray()
    expected = source.getRegion(format='numpy')[0]
    assert array.shape == expected.shape
    assert np.array_equal(array[100:600, 250:300], expected[100:600, 250:300])


def test_a_new_image_has_arrays(tmp_path):
    sink = large_image_source_vips.new()
    with pytest.raises(TileSourceError, match='add a tile'):
        sink.asArray()
    sink.addTile(PIXELS)
    array = sink.asArray()
    assert np.array_equal(array[5:9, ..., :3], PIXELS[5:9])
    sink.addTile(PIXELS, -10)
    with pytest.raises(TileSourceError, match='size of the image has changed'):
        array[0]
    with large_image_source_vips.new(spool=tmp_path / 'spool') as sink:
        sink.addTile(PIXELS)
        array = pickle.loads(pickle.dumps(sink.asArray(1)))
        assert array.shape == (350, 450, 4)


def test_dask_takes_it_as_it_is(array):
    dask_array = pytest.importorskip('dask.array')
    found = dask_array.from_array(array)
    assert np.array_equal(found.compute(), PIXELS)
    assert np.array_equal(found[[5, 300], 100:200].compute(), PIXELS[[5, 300], 100:200])
    mean = dask_array.from_array(array, chunks=(256, 256, 3)).mean(axis=(0, 1))
    np.testing.assert_allclose(mean.compute(), PIXELS.mean(axis=(0, 1)))


def test_xarray_takes_it_as_it_is(array):
    xarray = pytest.importorskip('xarray')
    found = xarray.DataArray(array, dims=('y', 'x', 's'))
    assert np.array_equal(found.isel(y=slice(10, 20)).values, PIXELS[10:20])
