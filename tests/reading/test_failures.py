"""Decoding errors are raised, and reading works again when the file is repaired."""

import os
import shutil

import numpy as np
import PIL.Image
import pytest
import pyvips
import tifffile
from large_image.exceptions import TileSourceError, TileSourceFileNotFoundError

from helpers.around import declare_empty, overwrite
from helpers.pixels import random_pixels, smooth_pixels
from helpers.reading import level, level_by_tiles
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.reading.reader import FileReader

COMPRESSIONS = [None, 'deflate', 'lzw', 'jpeg']


def write_tiff(path, pixels, compression=None, tile=(64, 64)):
    tifffile.imwrite(path, pixels, photometric='rgb', compression=compression, tile=tile)


def tile_place(path, number):
    """The offset and byte count of a tile or strip, in the file."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        return page.dataoffsets[number], page.databytecounts[number]


@pytest.mark.parametrize('compression', COMPRESSIONS)
@pytest.mark.parametrize('tile', [None, (64, 64)], ids=['strips', 'tiles'])
def test_a_file_cut_before_opening(tmp_path, compression, tile):
    path = tmp_path / 'a.tif'
    write_tiff(path, smooth_pixels(300, 400), compression, tile)
    number = 3 if tile else 0
    offset, count = tile_place(path, number)
    whole = path.read_bytes()
    # Keep the directory: everything of the tile but its first bytes is blanked
    # out by moving the end of the file to before it.
    with tifffile.TiffFile(path) as tiff:
        if tiff.pages[0].offset > offset:
            pytest.skip('this writer puts the directory behind the pixels')
    path.write_bytes(whole[:offset + count // 2])
    reader = FileReader(path)
    with pytest.raises(TileSourceError, match=r'level 1, tile 0, 0 .*a\.tif'):
        level(reader)


@pytest.mark.parametrize('compression', COMPRESSIONS)
@pytest.mark.parametrize('tile', [None, (64, 64)], ids=['strips', 'tiles'])
def test_a_file_cut_after_opening_and_repaired(tmp_path, compression, tile):
    path = tmp_path / 'a.tif'
    write_tiff(path, smooth_pixels(300, 400), compression, tile)
    whole = path.read_bytes()
    expected = level(FileReader(path))
    reader = FileReader(path)
    first = reader.read(0, 0, Rect(0, 0, 10, 10))
    os.truncate(path, len(whole) * 2 // 3)
    with pytest.raises(TileSourceError, match=r'a\.tif'):
        level(reader)
    path.write_bytes(whole)
    np.testing.assert_array_equal(level(reader), expected)
    np.testing.assert_array_equal(reader.read(0, 0, Rect(0, 0, 10, 10)), first)


@pytest.mark.parametrize('compression', ['deflate', 'lzw'])
@pytest.mark.parametrize('tile', [None, (64, 64)], ids=['strips', 'tiles'])
def test_a_damaged_tile(tmp_path, compression, tile):
    path = tmp_path / 'a.tif'
    pixels = random_pixels((300, 400, 3))
    write_tiff(path, pixels, compression, tile)
    offset, count = tile_place(path, 0)
    overwrite(path, offset, bytes([255]) * (count - 8))
    reader = FileReader(path)
    with pytest.raises(TileSourceError, match='frame 0, level 1, tile 0, 0 '):
        reader.read(0, 0, Rect(0, 0, 64, 64))
    for reduction in (1, 2, 3, 4):
        with pytest.raises(TileSourceError, match=r'frame 0, level '):
            level(reader, reduction)
    if tile:
        # The others are as they were.
        np.testing.assert_array_equal(reader.read(0, 0, Rect(64, 64, 336, 236)), pixels[64:, 64:])


@pytest.mark.parametrize('compression', [None, 'deflate', 'jpeg'])
@pytest.mark.parametrize('size', [(300, 400), (600, 800)])
def test_tiles_that_are_declared_empty_are_blank(tmp_path, compression, size):
    path = tmp_path / 'a.tif'
    write_tiff(path, smooth_pixels(*size), compression)
    expected = level(FileReader(path)).copy()
    across = -(-size[1] // 64)
    for row, col in ((0, 1), (2, 2), (4, across - 1)):
        declare_empty(path, row * across + col)
        expected[row * 64:row * 64 + 64, col * 64:col * 64 + 64] = 0
    reader = FileReader(path)
    np.testing.assert_array_equal(level(reader), expected)
    np.testing.assert_array_equal(level_by_tiles(reader, side=100), expected)
    for reduction in (1, 3):
        step = 1 << reduction
        found = level(reader, reduction)
        assert not found[:64 // step, 64 // step:128 // step].any()
        assert found[:64 // step, :64 // step].any()


def test_strips_that_are_declared_empty_are_blank(tmp_path):
    path = tmp_path / 'a.tif'
    pixels = smooth_pixels(300, 400)
    tifffile.imwrite(path, pixels, photometric='rgb', compression='deflate', rowsperstrip=32)
    declare_empty(path, 4)
    expected = pixels.copy()
    expected[128:160] = 0
    np.testing.assert_array_equal(level(FileReader(path)), expected)


def test_damage_beside_an_empty_tile_is_still_an_error(tmp_path):
    path = tmp_path / 'a.tif'
    write_tiff(path, random_pixels((300, 400, 3)), 'deflate')
    offset, count = tile_place(path, 0)
    overwrite(path, offset, bytes([255]) * (count - 8))
    declare_empty(path, 1)
    reader = FileReader(path)
    with pytest.raises(TileSourceError, match='deflate data cannot be decoded'):
        reader.read(0, 0, Rect(0, 0, 128, 64))
    assert not reader.read(0, 0, Rect(64, 0, 64, 64)).any()


def test_a_page_that_lists_too_few_tiles_is_refused(tmp_path):
    path = tmp_path / 'a.tif'
    write_tiff(path, smooth_pixels(300, 400))
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[256].valueoffset
    overwrite(path, place, (4000).to_bytes(2, 'little'))
    with pytest.raises(TileSourceError, match='lists 35 of its 315 tiles'):
        FileReader(path)


@pytest.mark.parametrize('compression', [None, 'lzw', 'deflate', 'packbits'])
def test_a_small_file_that_claims_to_be_huge_is_refused(tmp_path, compression):
    path = tmp_path / 'a.tif'
    write_tiff(path, smooth_pixels(90, 130), compression, None)
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags[256]
    assert tag.valuebytecount in {2, 4}
    overwrite(path, tag.offset + 2, b'\4\0\1\0\0\0' + (1 << 26).to_bytes(4, 'little'))
    with pytest.raises(TileSourceError, match='more than a file of'):
        FileReader(path)


@pytest.mark.parametrize('compression', [None, 'lzw', 'deflate', 'packbits'])
@pytest.mark.parametrize('tile', [None, (1024, 1024)], ids=['strips', 'tiles'])
def test_data_that_compress_as_well_as_can_be_are_read(tmp_path, compression, tile):
    path = tmp_path / 'a.tif'
    pixels = np.full((4000, 4000), 7, 'uint8')
    tifffile.imwrite(path, pixels, photometric='minisblack', compression=compression, tile=tile,
                     rowsperstrip=None if tile else 4000, metadata=None,
                     compressionargs={'level': 9} if compression == 'deflate' else None)
    np.testing.assert_array_equal(level(FileReader(path))[..., 0], pixels)


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.webp', '.gif'])
@pytest.mark.parametrize('share', [0.3, 0.6, 0.95])
def test_cut_files_of_other_formats(tmp_path, suffix, share):
    path = tmp_path / f'a{suffix}'
    PIL.Image.fromarray(random_pixels((300, 400, 3))).save(path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(TileSourceError, match=f'a{suffix}'):
        level(FileReader(path))


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.webp', '.gif'])
def test_other_formats_cut_after_opening_and_repaired(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    PIL.Image.fromarray(random_pixels((300, 400, 3))).save(path)
    expected = level(FileReader(path))
    reader = FileReader(path)
    whole = path.read_bytes()
    os.truncate(path, len(whole) // 2)
    with pytest.raises(TileSourceError, match=f'a{suffix}'):
        level(reader)
    path.write_bytes(whole)
    np.testing.assert_array_equal(level(reader), expected)


@pytest.mark.parametrize('suffix', ['.tif', '.png', '.jpg'])
def test_a_file_that_was_deleted_and_came_back(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    PIL.Image.fromarray(random_pixels((300, 400, 3))).save(path)
    reader = FileReader(path)
    expected = level(reader).copy()
    shutil.move(path, tmp_path / 'b')
    with pytest.raises(TileSourceFileNotFoundError, match=f'a{suffix}'):
        level(reader)
    shutil.copy(tmp_path / 'b', path)
    np.testing.assert_array_equal(level(reader), expected)


@pytest.mark.parametrize('suffix', ['.tif', '.png', '.jpg', '.gif', '.webp', '.v'])
def test_a_file_that_was_replaced_by_one_like_it_is_read_anew(tmp_path, suffix):
    first, second = (random_pixels((300, 400, 3), seed=seed) for seed in (1, 2))
    save(tmp_path / f'a{suffix}', first)
    save(tmp_path / f'b{suffix}', second)
    expected = level(FileReader(tmp_path / f'b{suffix}')).copy()
    reader = FileReader(tmp_path / f'a{suffix}')
    level(reader), level(reader, 3)
    os.replace(tmp_path / f'b{suffix}', tmp_path / f'a{suffix}')
    np.testing.assert_array_equal(level(reader), expected)
    np.testing.assert_array_equal(level(FileReader(tmp_path / f'a{suffix}')), expected)


DESCRIPTIONS = {
    'pixel size': lambda reader: reader.pixel_size,
    'header fields': lambda reader: {
        name: value for name, value in reader.internal_metadata().items()
        if name in {'xres', 'image-description', 'imagej'}},
    'axes': lambda reader: reader.frame_axes(),
    'profile': lambda reader: reader.icc_profiles(),
    'pixels': lambda reader: level(reader, frame=1).tolist(),
}


@pytest.mark.parametrize('first_look', DESCRIPTIONS)
def test_descriptions_and_pixels_are_of_the_same_version_of_a_file(tmp_path, first_look):
    for number, name in enumerate('ab'):
        tifffile.imwrite(
            tmp_path / name, random_pixels((2, 30, 40), seed=number), imagej=True,
            resolution=(1000 * (number + 1),) * 2, metadata={'axes': 'TZ'[number] + 'YX',
                                                             'unit': 'mm'})
    expected = {name: look(FileReader(tmp_path / 'b')) for name, look in DESCRIPTIONS.items()}
    reader = FileReader(tmp_path / 'a')
    os.replace(tmp_path / 'b', tmp_path / 'a')
    assert DESCRIPTIONS[first_look](reader) == expected[first_look]
    for name, look in DESCRIPTIONS.items():
        assert look(reader) == expected[name]


def test_the_description_of_a_file_that_is_gone_is_an_error_that_names_it(tmp_path):
    save(tmp_path / 'a.tif', random_pixels((30, 40, 3)))
    reader = FileReader(tmp_path / 'a.tif')
    os.remove(tmp_path / 'a.tif')
    for look in (reader.internal_metadata, lambda: reader.pixel_size, reader.frame_axes):
        with pytest.raises(TileSourceFileNotFoundError, match=r'metadata of .*a\.tif'):
            look()


def save(path, pixels):
    pyvips.Image.new_from_array(pixels).write_to_file(str(path))


@pytest.mark.parametrize('suffix', ['.tif', '.png', '.jpg'])
def test_a_file_that_was_replaced_by_another_is_an_error(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    save(path, random_pixels((300, 400, 3)))
    reader = FileReader(path)
    level(reader)
    save(path, random_pixels((301, 400, 3)))
    with pytest.raises(TileSourceError, match='replaced by a different image'):
        level(reader)
    assert FileReader(path).size == (400, 301)


def reads_or_says(path, words):
    """The pixels, or None if libvips does not read the file and that is well explained."""
    try:
        return level(FileReader(path))
    except TileSourceError as exc:
        explained = all(word in str(exc) for word in (path.name, *words))
    assert explained
    return None


@pytest.mark.parametrize('tile', [None, (64, 64)], ids=['strips', 'tiles'])
@pytest.mark.parametrize(('compression', 'name'), [
    ('jpeg2000', 'JPEG 2000'), ('zstd', 'ZSTD'), ('lzma', 'LZMA'), ('lerc', 'LERC'),
    ('jpegxl', 'JPEG XL')])
def test_a_codec_that_libvips_lacks_is_named(tmp_path, compression, name, tile):
    pixels = smooth_pixels(300, 400)
    write_tiff(tmp_path / 'a.tif', pixels, compression, tile)
    found = reads_or_says(
        tmp_path / 'a.tif', [f'its {name} data cannot be decoded', 'lacks that codec', 'install'])
    if found is not None:
        np.testing.assert_allclose(found, pixels, atol=3)


def test_doubles_of_tiff_are_exact_or_an_error(tmp_path):
    pixels = random_pixels((30, 40), 'float64')
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='minisblack')
    found = reads_or_says(tmp_path / 'a.tif', ['64-bit'])
    if found is not None:
        np.testing.assert_array_equal(found[..., 0], pixels)


def test_bands_in_tiles_of_their_own_are_exact_or_an_error(tmp_path):
    pixels = random_pixels((150, 211, 3))
    tifffile.imwrite(tmp_path / 'a.tif', pixels.transpose(2, 0, 1), photometric='rgb',
                     planarconfig='separate', tile=(64, 64))
    found = reads_or_says(tmp_path / 'a.tif', ['separate'])
    if found is not None:
        np.testing.assert_array_equal(found, pixels)


def test_a_damaged_first_tile_of_a_rare_codec_does_not_keep_a_file_from_opening(tmp_path):
    path = tmp_path / 'a.tif'
    write_tiff(path, random_pixels((300, 400, 3)), 'webp')
    if reads_or_says(path, ['install']) is None:
        pytest.skip('this libvips has no WebP in TIFF')
    offset, count = tile_place(path, 0)
    overwrite(path, offset, bytes(count))
    reader = FileReader(path)
    assert reader.read(0, 0, Rect(64, 64, 64, 64)).any()
    with pytest.raises(TileSourceError, match='WebP data cannot be decoded'):
        reader.read(0, 0, Rect(0, 0, 64, 64))


def test_a_later_page_that_lists_too_few_tiles(tmp_path):
    path = tmp_path / 'a.tif'
    pixels = smooth_pixels(512, 512)
    with tifffile.TiffWriter(path) as tiff:
        for _ in range(2):
            tiff.write(pixels, photometric='rgb', tile=(256, 256), compression='lzw',
                       metadata=None)
    with tifffile.TiffFile(path) as tiff:
        tags = [tiff.pages[1].tags[code] for code in (324, 325)]
    for tag in tags:
        overwrite(path, tag.offset + 4, (2).to_bytes(4, 'little'))
        overwrite(path, tag.valueoffset, bytes(4))
    reader = FileReader(path)
    np.testing.assert_array_equal(level(reader), pixels)
    assert not reader.read(1, 0, Rect(0, 0, 256, 256)).any()
    with pytest.raises(TileSourceError, match='frame 1'):
        reader.read(1, 0, Rect(0, 256, 256, 256))
