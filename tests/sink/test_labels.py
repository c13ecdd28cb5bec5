"""Labels: lower levels are not averaged, and compression is lossless."""

import warnings

import numpy as np
import PIL.Image
import pytest
import pyvips
import tifffile
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.sink import make_sink, read_file


def classes(count, shape=(700, 900)):
    """A map of so many classes in blobs, with values from 0."""
    rows, cols = np.indices(shape)
    return ((rows // 7 * 31 + cols // 11 * 17) % count).astype(np.uint8)


def level_values(path):
    with tifffile.TiffFile(path) as file:
        return [np.unique(page.asarray()) for page in file.pages]


@pytest.mark.parametrize('dtype', ['bool', 'uint8', 'uint16', 'int16', 'uint32', 'int64'])
def test_labels_are_kept_to_the_bit_in_every_level(tmp_path, dtype):
    tile = classes(2 if dtype == 'bool' else 200).astype(dtype)
    sink = make_sink(tile, interpretation='labels')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        sink.write(tmp_path / 'a.tif')
    assert np.array_equal(read_file(tmp_path / 'a.tif')[:, :, 0], tile)
    for values in level_values(tmp_path / 'a.tif'):
        assert set(values) <= set(np.unique(tile))
    for z in range(sink.levels):
        level = sink.getTile(0, 0, z, numpyAllowed='always')[:, :, 0]
        assert set(np.unique(level)) <= {*np.unique(tile), 0}


def test_labels_of_floats_are_refused():
    sink = large_image_source_vips.new()
    with pytest.raises(TileSourceError, match="'labels' must hold integers, not float32"):
        sink.addTile(np.zeros((10, 10), np.float32), interpretation='labels')
    assert (sink.sizeX, sink.sizeY) == (0, 0)


@pytest.mark.parametrize('seen', [True, False])
def test_a_label_tile_makes_every_level_picked(seen):
    tile = np.zeros((1024, 1024), np.uint8)
    tile[:, ::2] = 200
    tile[:, 1::2] = 100
    sink = make_sink(tile)
    if seen:
        assert (sink.getTile(0, 0, 0, numpyAllowed='always')[:, :, 0] == 150).all()
    sink.addTile(np.full((16, 16), 3, np.uint8), 1000, 1000, interpretation='labels')
    for z in range(sink.levels):
        level = sink.getTile(0, 0, z, numpyAllowed='always')[:, :, 0]
        assert set(np.unique(level)) <= {3, 100, 200}


def test_levels_are_averaged_again_after_none_but_labels_were_there():
    """Labels stay labels: a plain tile added later does not turn them into a picture."""
    sink = make_sink(classes(5), interpretation='labels')
    sink.addTile(np.full((50, 50), 201, np.uint8), 3, 3)
    values = np.unique(sink.getTile(0, 0, 0, numpyAllowed='always')[:, :, 0])
    assert set(values) <= {0, 1, 2, 3, 4, 201}


# Few values: taken for labels when written


@pytest.mark.parametrize(('count', 'exact'), [(1, True), (2, True), (64, True), (65, False)])
@pytest.mark.parametrize('x', [0, 5])
def test_a_band_of_few_values_is_written_as_labels(tmp_path, count, exact, x):
    tile = classes(count)
    sink = make_sink(tile)
    if x:
        # In blocks that are not those of the file.
        sink = make_sink(tile, -5, -7)
    if exact:
        with pytest.warns(UserWarning, match='at most 64 different values'):
            sink.write(tmp_path / 'a.tif')
        assert np.array_equal(read_file(tmp_path / 'a.tif')[:, :, 0], tile)
        for values in level_values(tmp_path / 'a.tif'):
            assert set(values) <= set(range(count))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            sink.write(tmp_path / 'a.tif')
        with tifffile.TiffFile(tmp_path / 'a.tif') as file:
            assert file.pages[0].compression.name == 'JPEG'


def test_a_warning_of_few_values_points_at_who_writes(tmp_path):
    with pytest.warns(UserWarning, match='few values|different values') as caught:
        make_sink(classes(3)).write(tmp_path / 'a.tif')
    assert caught[0].filename == __file__


def test_the_rule_changes_the_file_and_not_the_image(tmp_path):
    tile = np.zeros((1024, 1024), np.uint8)
    tile[:, ::2] = 200
    sink = make_sink(tile)
    with pytest.warns(UserWarning, match='different values'):
        sink.write(tmp_path / 'a.tif')
    assert (sink.getTile(0, 0, 0, numpyAllowed='always')[:, :, 0] == 100).all()
    sink.addTile(np.arange(256, dtype=np.uint8).reshape(16, 16), 0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        sink.write(tmp_path / 'a.tif')


@pytest.mark.parametrize('kwargs', [
    {'lossy': False}, {'vips_kwargs': {'compression': 'deflate', 'tile': True}}])
def test_no_warning_where_the_rule_changes_nothing(tmp_path, kwargs):
    sink = make_sink(classes(3))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        sink.write(tmp_path / 'a.tif', **kwargs)
        sink.write(tmp_path / 'a.png')
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / 'a.png')), classes(3))


def test_colour_and_wider_samples_are_no_labels(tmp_path):
    rgb = np.dstack([classes(3)] * 3) * 60
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        make_sink(rgb).write(tmp_path / 'a.tif')
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        assert file.pages[0].compression.name == 'JPEG'


def test_a_class_map_in_a_file_stays_one(tmp_path):
    tile = classes(7)
    tifffile.imwrite(tmp_path / 'in.tif', tile, tile=(256, 256), compression='deflate')
    source = large_image_source_vips.open(str(tmp_path / 'in.tif'))
    with pytest.warns(UserWarning, match='different values'):
        source.write(tmp_path / 'out.tif')
    assert np.array_equal(read_file(tmp_path / 'out.tif')[:, :, 0], tile)


def test_labels_are_webp_without_loss(tmp_path):
    tile = classes(100)
    make_sink(tile, interpretation='labels').write(tmp_path / 'a.webp')
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / 'a.webp').convert('L')), tile)


def test_labels_in_a_format_that_always_loses_are_warned_of(tmp_path):
    sink = make_sink(classes(100), interpretation='labels')
    with pytest.warns(UserWarning, match=r'a\.jpg.*is always lossy.*\.png'):
        sink.write(tmp_path / 'a.jpg')


def test_deepzoom_of_labels_is_png(tmp_path):
    if not pyvips.type_find('VipsOperation', 'dzsave'):
        pytest.skip('this libvips writes no DeepZoom')
    tile = classes(100, (300, 300))
    make_sink(tile, interpretation='labels').write(tmp_path / 'a.dzi')
    whole = tmp_path / 'a_files' / '9' / '0_0.png'
    assert np.array_equal(np.asarray(PIL.Image.open(whole))[:200, :200], tile[:200, :200])
