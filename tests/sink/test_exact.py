"""Pixels are written bit for bit as they were added."""

import numpy as np
import pytest

import large_image_source_vips
from helpers.sink import make_sink, random_tile, read_all, read_file

STORED = {
    'bool': 'uint8', 'int8': 'int8', 'uint8': 'uint8', 'int16': 'int16', 'uint16': 'uint16',
    'int32': 'int32', 'uint32': 'uint32', 'float16': 'float32', 'float32': 'float32',
    'float64': 'float64',
}


@pytest.mark.filterwarnings('ignore:.* has 64-bit floats')
@pytest.mark.parametrize('bands', [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize('dtype', STORED)
def test_lossless_round_trip(tmp_path, dtype, bands):
    tile = random_tile(dtype, (70, 300, bands))
    sink = make_sink(tile, interpretation='multiband' if bands > 4 else None)
    sink.write(tmp_path / 'a.tif', lossy=False)
    expected = tile.astype(STORED[dtype])
    written = read_file(tmp_path / 'a.tif')
    assert written.dtype == expected.dtype
    assert np.array_equal(written, expected)
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    assert source.dtype == expected.dtype
    assert np.array_equal(read_all(source), expected)


@pytest.mark.parametrize('dtype', ['bool', 'uint8', 'int16', 'uint16', 'float32'])
def test_two_dimensional_tiles_are_one_band(tmp_path, dtype):
    tile = random_tile(dtype, (40, 50))
    make_sink(tile).write(tmp_path / 'a.tif', lossy=False)
    assert np.array_equal(read_file(tmp_path / 'a.tif')[:, :, 0], tile.astype(STORED[dtype]))


@pytest.mark.parametrize(('low', 'high', 'stored'), [
    (0, 200, 'uint8'), (-3, 100, 'int8'), (0, 60000, 'uint16'), (-3, 30000, 'int16'),
    (0, 2 ** 32 - 1, 'uint32'), (-2 ** 31, 2 ** 31 - 1, 'int32')])
def test_wide_integers_get_the_smallest_format_that_holds_them(tmp_path, low, high, stored):
    tile = np.array([[low, high], [high, low]], np.int64)
    sink = make_sink(tile)
    assert np.dtype(sink.dtype) == stored
    sink.write(tmp_path / 'a.tif')
    written = read_file(tmp_path / 'a.tif')[:, :, 0]
    assert written.dtype == stored
    assert np.array_equal(written, tile)


def test_all_16_bit_values_survive(tmp_path):
    tile = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    make_sink(tile).write(tmp_path / 'a.tif')
    assert np.array_equal(read_file(tmp_path / 'a.tif')[:, :, 0], tile)
    make_sink(tile).write(tmp_path / 'a.png')
    with AllowedPng() as module:
        assert np.array_equal(read_all(module.open(tmp_path / 'a.png'))[:, :, 0], tile)


class AllowedPng:
    """The names that the source refuses by default include .png."""

    def __enter__(self):
        from large_image import config

        self._old = config.getConfig('source_vips_ignored_names')
        config.setConfig('source_vips_ignored_names', None)
        return large_image_source_vips

    def __exit__(self, *_):
        from large_image import config

        config.setConfig('source_vips_ignored_names', self._old)


@pytest.mark.parametrize('tile', [
    np.random.default_rng(1).integers(0, 2, (30, 40, 3), dtype=np.uint8),
    np.random.default_rng(2).random((30, 40, 3), dtype=np.float32),
    np.random.default_rng(3).random((30, 40, 3), dtype=np.float32) * 255,
    np.random.default_rng(4).integers(-9, 0, (30, 40), dtype=np.int16),
], ids=['zeros and ones', 'floats in 0..1', 'floats in 0..255', 'negative'])
def test_the_format_follows_the_dtype_and_not_the_values(tmp_path, tile):
    sink = make_sink(tile)
    assert sink.dtype == tile.dtype
    sink.write(tmp_path / 'a.tif', lossy=False)
    written = read_file(tmp_path / 'a.tif')
    assert written.dtype == tile.dtype
    assert np.array_equal(written.reshape(tile.shape), tile)


def test_nan_is_kept_and_left_out_of_the_ranges(tmp_path):
    tile = np.array([[1.5, np.nan], [-2.5, 7]], np.float32)
    sink = make_sink(tile)
    sink.write(tmp_path / 'a.tif')
    assert np.array_equal(read_file(tmp_path / 'a.tif')[:, :, 0], tile, equal_nan=True)
    assert sink.bandRanges['min'].tolist() == [-2.5]
    assert sink.bandRanges['max'].tolist() == [7]


def as_fortran(tile):
    return np.asfortranarray(tile)


def as_strided(tile):
    return np.repeat(np.repeat(tile, 2, axis=0), 3, axis=1)[::2, ::3]


def as_flipped(tile):
    return tile[::-1, ::-1].copy()[::-1, ::-1]


def as_swapped(tile):
    return tile.astype(tile.dtype.newbyteorder())


def as_read_only(tile):
    tile = tile.copy()
    tile.flags.writeable = False
    return tile


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int32', 'float32', 'float64', 'int64'])
@pytest.mark.parametrize('form', [as_fortran, as_strided, as_flipped, as_swapped, as_read_only])
def test_memory_layout_does_not_matter(dtype, form):
    tile = (random_tile('uint16', (280, 300, 3)) // 2).astype(dtype)
    given = form(tile)
    assert np.array_equal(given, tile)
    sink = make_sink(given)
    assert np.array_equal(read_all(sink)[:, :, :3], tile)


@pytest.mark.parametrize('interpretation', ['pixelmap', None])
def test_the_callers_array_is_neither_changed_nor_kept(interpretation):
    tile = random_tile('uint8', (300, 300))
    copy = tile.copy()
    mask = np.ones((300, 300), np.uint8)
    sink = make_sink(tile, mask=mask, interpretation=interpretation)
    assert np.array_equal(tile, copy)
    assert mask.all()
    before = read_all(sink)
    tile[...] = 0
    assert np.array_equal(read_all(sink), before)


def test_writing_again_after_more_tiles(tmp_path):
    first, second = random_tile('uint16', (100, 100, 3)), random_tile('uint16', (90, 80, 3), 1)
    sink = make_sink(first)
    sink.write(tmp_path / 'a.tif')
    assert np.array_equal(read_file(tmp_path / 'a.tif'), first)
    sink.addTile(second, 50, 40)
    sink.write(tmp_path / 'a.tif')
    expected = np.zeros((130, 130, 4), np.uint16)
    expected[:100, :100, :3], expected[:100, :100, 3] = first, 65535
    expected[40:, 50:, :3], expected[40:, 50:, 3] = second, 65535
    assert np.array_equal(read_file(tmp_path / 'a.tif'), expected)
    assert np.array_equal(read_all(sink), expected)


def test_an_image_of_many_blocks_is_whole(tmp_path):
    """More blocks than the pool holds in memory, added in any order."""
    rng = np.random.default_rng(5)
    whole = rng.integers(0, 65536, (3000, 4100, 3), dtype=np.uint16)
    places = [(x, y) for y in range(0, 3000, 190) for x in range(0, 4100, 210)]
    sink = large_image_source_vips.new()
    for index in rng.permutation(len(places)):
        x, y = places[index]
        sink.addTile(whole[y:y + 190, x:x + 210], x, y)
    sink.write(tmp_path / 'a.tif')
    assert np.array_equal(read_file(tmp_path / 'a.tif'), whole)
    assert np.array_equal(read_all(sink)[:, :, :3], whole)


@pytest.mark.parametrize(('x', 'y', 'rows', 'cols'), [
    (0, 64, 128, 256), (64, 0, 256, 128), (64, 64, 128, 128), (256, 256, 256, 256),
    (0, 0, 256, 255), (0, 0, 255, 256), (128, 0, 256, 256), (0, 128, 256, 256),
    (-256, -64, 64, 256), (-64, -256, 256, 64), (-128, -128, 256, 256), (767, 511, 1, 1)])
@pytest.mark.parametrize('bands', [1, 3])
def test_a_tile_inside_the_image_covers_its_own_pixels_only(x, y, rows, cols, bands):
    pixels = random_tile('uint8', (1024, 1024, bands))
    sink = make_sink(pixels, -256, -256)
    tile = random_tile('uint8', (rows, cols, bands), 1)
    sink.addTile(tile, x, y)
    pixels[y + 256:y + 256 + rows, x + 256:x + 256 + cols] = tile
    np.testing.assert_array_equal(read_all(sink)[:, :, :bands], pixels)
