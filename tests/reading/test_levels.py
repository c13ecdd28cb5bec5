"""Computed levels: averaged or picked, complete at the edges, computed once."""

import threading

import numpy as np
import PIL.Image
import pytest
import pyvips
import tifffile
from large_image.exceptions import TileSourceError

from helpers.around import declare_empty
from helpers.pixels import block_means, random_pixels, smooth_pixels
from helpers.reading import level, level_by_tiles
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.base.reduce import reduce_pixels
from large_image_source_vips.reading import level_cache as level_cache_module
from large_image_source_vips.reading import levels as levels_module
from large_image_source_vips.reading import rows as decoding
from large_image_source_vips.reading.reader import FileReader

KINDS = {'tiles': {'tile': (64, 64)}, 'strips': {}}


def level_count(reader):
    return 1 + max(0, (max(reader.size) - 1) // 256).bit_length()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_photographs_are_averaged(tmp_path, dtype, kind):
    pixels = random_pixels((701, 1303, 3), dtype)
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', **KINDS[kind])
    reader = FileReader(tmp_path / 'a.tif')
    for reduction in (1, 2):
        # One rounding, to the nearest.
        tolerance = 0.5 if pixels.dtype.kind == 'u' else 1e-2
        expected = block_means(pixels, 1 << reduction)
        np.testing.assert_allclose(level(reader, reduction), expected, atol=tolerance)
    for reduction in (3, 4, 5, 6):
        expected = block_means(level(reader, reduction - 1), 2)
        np.testing.assert_allclose(level(reader, reduction), expected, atol=tolerance)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('dtype', ['int8', 'int16', 'uint32', 'int32'])
def test_labels_are_picked(tmp_path, dtype, kind):
    pixels = random_pixels((701, 1303), dtype)
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='minisblack', **KINDS[kind])
    reader = FileReader(tmp_path / 'a.tif')
    for reduction in range(6):
        step = 1 << reduction
        np.testing.assert_array_equal(level(reader, reduction)[..., 0], pixels[::step, ::step])


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.gif'])
def test_palette_images_are_picked(tmp_path, suffix):
    image = PIL.Image.fromarray(smooth_pixels(701, 1303)).quantize(16)
    image.save(tmp_path / f'a{suffix}')
    reader = FileReader(tmp_path / f'a{suffix}')
    colours = {tuple(colour) for colour in level(reader).reshape(-1, reader.bands).tolist()}
    assert len(colours) <= 16
    for reduction in (1, 3, 4):
        found = level(reader, reduction)
        assert {tuple(pixel) for pixel in found.reshape(-1, reader.bands).tolist()} <= colours


@pytest.mark.parametrize('kind', KINDS)
def test_a_pattern_of_lines_becomes_gray(tmp_path, kind):
    pixels = np.zeros((600, 900), 'uint8')
    pixels[:, ::2] = 255
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='minisblack', **KINDS[kind])
    reader = FileReader(tmp_path / 'a.tif')
    for reduction in range(1, 5):
        assert set(np.unique(level(reader, reduction)).tolist()) <= {127, 128}


def test_many_levels_do_not_make_an_image_brighter(tmp_path):
    pixels = random_pixels((2048, 2048))
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='minisblack', tile=(256, 256))
    reader = FileReader(tmp_path / 'a.tif')
    for reduction in range(1, 6):
        assert abs(level(reader, reduction).mean() - pixels.mean()) < 0.1


@pytest.mark.parametrize('size', [(4100, 300), (300, 4100), (5000, 3), (3, 5000), (1, 1), (257, 1),
                                  (256, 256), (1025, 513)])
@pytest.mark.parametrize('kind', ['tiles', 'strips', 'pyramid', 'sub-IFDs', 'png', 'jpeg'])
def test_every_tile_of_every_level_is_valid(tmp_path, kind, size):
    pixels = smooth_pixels(size[1], size[0])
    path = str(tmp_path / 'a.tif')
    image = pyvips.Image.new_from_array(pixels)
    if kind in {'png', 'jpeg'}:
        image.write_to_file(path := str(tmp_path / f'a.{kind}'))
    else:
        image.tiffsave(path, tile=kind != 'strips', pyramid=kind in {'pyramid', 'sub-IFDs'},
                       subifd=kind == 'sub-IFDs', compression='deflate')
    reader = FileReader(path)
    assert reader.size == size
    for reduction in range(level_count(reader)):
        found = level_by_tiles(reader, reduction)
        assert found.shape == (*reader.size.reduced(reduction)[::-1], 3)
        np.testing.assert_array_equal(found, level(reader, reduction))
        # Smooth all over: no black and no garbage in the last columns and rows.
        expected = block_means(pixels, 1 << reduction)
        assert np.abs(found - expected).mean() < 12


@pytest.mark.parametrize('kind', KINDS)
def test_a_pixel_has_one_value_whatever_it_is_read_with(tmp_path, kind):
    tifffile.imwrite(tmp_path / 'a.tif', random_pixels((1300, 1701, 3)), photometric='rgb',
                     **KINDS[kind])
    reader = FileReader(tmp_path / 'a.tif')
    rng = np.random.default_rng(5)
    for reduction in range(6):
        whole = level(reader, reduction)
        for _ in range(8):
            left, right = sorted(rng.choice(whole.shape[1] + 1, 2, replace=False).tolist())
            top, bottom = sorted(rng.choice(whole.shape[0] + 1, 2, replace=False).tolist())
            part = reader.read(0, reduction, Rect(left, top, right - left, bottom - top))
            np.testing.assert_array_equal(part, whole[top:bottom, left:right])


@pytest.mark.parametrize('orientation', [1, 3, 6])
def test_a_large_jpeg_is_shrunk_on_load(tmp_path, orientation):
    exif = PIL.Image.Exif()
    exif[274] = orientation
    pixels = smooth_pixels(1234, 4321)
    PIL.Image.fromarray(pixels).save(tmp_path / 'a.jpg', quality=95, exif=exif)
    reader = FileReader(tmp_path / 'a.jpg')
    decoded = level(reader).astype(int)
    for reduction in range(5):
        expected = block_means(decoded, 1 << reduction)
        found = level_by_tiles(reader, reduction)
        rows, cols = (extent >> reduction for extent in decoded.shape[:2])
        np.testing.assert_allclose(found[:rows, :cols], expected[:rows, :cols], atol=4)
        # libvips leaves out the last, partial column and row of blocks.
        np.testing.assert_allclose(found, expected, atol=20)


def test_a_level_is_made_once_for_all_threads_and_sources(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / 'a.tif', random_pixels((1300, 1701, 3)), photometric='rgb',
                     tile=(64, 64))
    passes = []
    original = levels_module.Levels._reduce_level

    def counting(self, picture, nearest, *args):
        passes.append(nearest)
        return original(self, picture, nearest, *args)

    monkeypatch.setattr(levels_module.Levels, '_reduce_level', counting)
    readers = [FileReader(tmp_path / 'a.tif') for _ in range(4)]
    start = threading.Barrier(len(readers))
    found = []

    def look(reader):
        start.wait()
        found.append(level(reader, 5))

    threads = [threading.Thread(target=look, args=(reader,)) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passes == [0]
    assert len(found) == 4
    for pixels in found:
        np.testing.assert_array_equal(pixels, found[0])


def test_planes_that_do_not_fit_into_memory_go_to_a_file(tmp_path, monkeypatch):
    pixels = random_pixels((1300, 1701, 3))
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', compression='zlib')
    monkeypatch.setattr(level_cache_module, 'MAX_LEVEL_MEMORY', 100_000)
    reader = FileReader(tmp_path / 'a.tif')
    np.testing.assert_array_equal(level_by_tiles(reader), pixels)
    assert level_cache_module.cached_levels.bytes(on_disk=True) >= pixels.nbytes
    assert list(tmp_path.iterdir()) == [tmp_path / 'a.tif']


def test_no_room_for_a_plane_is_said(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / 'a.tif', random_pixels((300, 301, 3)), photometric='rgb',
                     compression='zlib')
    monkeypatch.setattr(level_cache_module, 'MAX_LEVEL_MEMORY', 1000)
    monkeypatch.setattr(level_cache_module.tempfile, 'tempdir', str(tmp_path / 'missing'))
    reader = FileReader(tmp_path / 'a.tif')
    with pytest.raises(TileSourceError, match='Not enough space for 270900 bytes'):
        level(reader)


@pytest.mark.parametrize('empty', [None, 3], ids=['whole', 'with an empty strip'])
@pytest.mark.parametrize('band_bytes', [1000, 1 << 30], ids=['bands', 'one band'])
def test_a_picture_too_large_to_keep_is_only_passed_over(tmp_path, monkeypatch, empty,
                                                         band_bytes):
    pixels = smooth_pixels(1300, 1701)
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', rowsperstrip=13)
    if empty is not None:
        declare_empty(tmp_path / 'a.tif', empty)
        pixels[13 * empty:13 * empty + 13] = 0
    monkeypatch.setattr(levels_module, '_MAX_KEPT', 1000)
    monkeypatch.setattr(levels_module, 'MAX_LEVEL_MEMORY', 1000)
    monkeypatch.setattr(decoding, '_BAND_BYTES', band_bytes)
    reader = FileReader(tmp_path / 'a.tif')
    found = level(reader, 3)
    held = level_cache_module.cached_levels
    opening = reader._layout.frames[0].levels[0].opening
    assert {key[1] for key in held._slots if key[0] == reader._file.serial} == {
        (opening, 0, 2), (opening, 0, 3)}
    # What was made in passing is what would be computed for a tile.
    np.testing.assert_allclose(level(reader, 2), block_means(pixels, 4), atol=0.5)
    np.testing.assert_allclose(found, block_means(level(reader, 2), 2), atol=0.5)


@pytest.mark.parametrize('factor', [2, 4, 8])
@pytest.mark.parametrize('shape', [(16, 24, 3), (17, 25, 1), (3, 100, 2), (1, 1, 4), (8, 9, 3)])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32', 'float64'])
def test_means_are_of_the_pixels_that_exist(dtype, shape, factor):
    pixels = random_pixels(shape, dtype)
    found = reduce_pixels(pixels, factor, averaged=True)
    expected = block_means(pixels, factor)
    assert found.dtype == pixels.dtype
    if pixels.dtype.kind == 'u':
        np.testing.assert_array_equal(found, np.rint(expected))
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)


def test_means_of_the_largest_values_do_not_overflow():
    for dtype in ('uint8', 'uint16'):
        pixels = np.full((64, 64, 2), np.iinfo(dtype).max, dtype)
        for factor in (2, 4, 8):
            assert (reduce_pixels(pixels, factor, averaged=True) == pixels[0, 0]).all()
