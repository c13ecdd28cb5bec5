"""Deflated TIFF pages, which the package imagecodecs decodes where it is installed."""

import random

import numpy as np
import pytest
import pyvips
import tifffile
from large_image.exceptions import TileSourceError

from helpers.around import declare_empty, in_threads, overwrite
from helpers.pixels import random_pixels
from helpers.reading import level, level_by_tiles
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.codecs import lossless as deflate
from large_image_source_vips.reading import handles
from large_image_source_vips.reading import rows as decoding
from large_image_source_vips.reading.reader import FileReader

pytest.importorskip('imagecodecs')


@pytest.fixture
def inflated(monkeypatch):
    """The tiles and strips that were inflated here."""
    numbers = []
    original = deflate.DeflatedPage._inflate

    def counting(self, number, out):
        original(self, number, out)
        numbers.append(number)

    monkeypatch.setattr(deflate.DeflatedPage, '_inflate', counting)
    return numbers


def by_libvips(path, monkeypatch):
    """All pixels of a file as they come without imagecodecs."""
    with monkeypatch.context() as patch:
        patch.setattr(deflate, 'codecs', lambda: None)
        reader = FileReader(path)
        pixels = level(reader)
        reader.close()
    return pixels


@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
@pytest.mark.parametrize('bands', [1, 3])
@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('predictor', [False, True])
@pytest.mark.parametrize('shape', [{'tile': (64, 128)}, {'tile': (256, 256)},
                                   {'rowsperstrip': 17}, {'rowsperstrip': 5000}],
                         ids=['small tiles', 'tiles', 'strips', 'one strip'])
def test_pixels_are_exact(tmp_path, inflated, monkeypatch, dtype, bands, order, predictor, shape):
    pixels = random_pixels((517, 601, bands), dtype)
    tifffile.imwrite(tmp_path / 'a.tif', pixels if bands == 3 else pixels[..., 0], **shape,
                     photometric='rgb' if bands == 3 else 'minisblack', byteorder=order,
                     compression='zlib', predictor=predictor, metadata=None)
    reader = FileReader(tmp_path / 'a.tif')
    found = level_by_tiles(reader)
    assert inflated
    assert len(set(inflated)) == len(inflated)
    np.testing.assert_array_equal(found, pixels)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, by_libvips(tmp_path / 'a.tif', monkeypatch))
    numbers = random.Random(1)
    for _ in range(20):
        left, top = numbers.randrange(600), numbers.randrange(516)
        rect = Rect(left, top, numbers.randint(1, 601 - left), numbers.randint(1, 517 - top))
        np.testing.assert_array_equal(
            reader.read(0, 0, rect), pixels[rect.top:rect.bottom, rect.left:rect.right])


@pytest.mark.parametrize('options', [
    {'photometric': 'miniswhite'}, {'dtype': 'int16'}, {'dtype': 'float32'}, {'bands': 4},
    {'tile': (512, 512)}, {'tile': (48, 48)},
    {'planarconfig': 'separate', 'bands': 3, 'tile': None},
], ids=str)
def test_other_pages_are_left_to_libvips(tmp_path, inflated, options):
    options = {'tile': (64, 64), 'photometric': 'minisblack', **options}
    bands = options.pop('bands', 1)
    pixels = random_pixels((300, 400, bands), options.pop('dtype', 'uint8'))
    separate = options.get('planarconfig') == 'separate'
    data = pixels.transpose(2, 0, 1) if separate else pixels if bands > 1 else pixels[..., 0]
    if bands > 1:
        options.setdefault('planarconfig', 'contig')
    tifffile.imwrite(tmp_path / 'a.tif', data, compression='zlib', predictor=True, metadata=None,
                     **options)
    found = level(FileReader(tmp_path / 'a.tif'))
    assert not inflated
    inverted = options['photometric'] == 'miniswhite'
    np.testing.assert_array_equal(found, 255 - pixels if inverted else pixels)


def test_pages_that_libvips_wrote(tmp_path, inflated):
    pixels = random_pixels((700, 900, 3))
    pyvips.Image.new_from_array(pixels).tiffsave(
        str(tmp_path / 'a.tif'), compression='deflate', predictor='horizontal', tile=True,
        tile_width=256, tile_height=256, pyramid=True, bigtiff=True)
    reader = FileReader(tmp_path / 'a.tif')
    np.testing.assert_array_equal(level_by_tiles(reader), pixels)
    assert len(inflated) == 12
    image = pyvips.Image.new_from_file(str(tmp_path / 'a.tif'), page=1)
    np.testing.assert_array_equal(level_by_tiles(reader, 1), image.numpy())


@pytest.mark.parametrize('shape', [{'tile': (64, 64)}, {'rowsperstrip': 16}],
                         ids=['tiles', 'strips'])
def test_empty_tiles_are_blank(tmp_path, shape):
    pixels = random_pixels((256, 256), 'uint8')
    tifffile.imwrite(tmp_path / 'a.tif', pixels, compression='zlib', photometric='minisblack',
                     **shape)
    declare_empty(tmp_path / 'a.tif', 2)
    if 'tile' in shape:
        pixels[:64, 128:192] = 0
    else:
        pixels[32:48] = 0
    np.testing.assert_array_equal(level(FileReader(tmp_path / 'a.tif'))[..., 0], pixels)


@pytest.mark.parametrize('shape', [{'tile': (64, 64)}, {'rowsperstrip': 16}],
                         ids=['tiles', 'strips'])
@pytest.mark.parametrize('damage', ['zeros', 'flipped', 'short'])
def test_damage_is_an_error_and_what_is_whole_can_be_read(tmp_path, monkeypatch, shape, damage):
    monkeypatch.setattr(decoding, '_BAND_BYTES', 1000)
    pixels = random_pixels((256, 256), 'uint8')
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, pixels, compression='zlib', photometric='minisblack', metadata=None,
                     **shape)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[-1], page.databytecounts[-1]
        counts = page.tags[325 if 'tile' in shape else 279]
        last = counts.valueoffset + (counts.count - 1) * (counts.valuebytecount // counts.count)
    if damage == 'zeros':
        overwrite(path, offset, bytes(count))
    elif damage == 'flipped':
        overwrite(path, offset + count // 2, b'\xff' * 20)
    else:
        overwrite(path, last, b'\x10\x00')
    reader = FileReader(path)
    np.testing.assert_array_equal(reader.read(0, 0, Rect(0, 0, 256, 64))[..., 0], pixels[:64])
    with pytest.raises(TileSourceError, match=r'a\.tif'):
        reader.read(0, 0, Rect(192, 192, 64, 64))


def test_threads_share_nothing_that_changes(tmp_path):
    pixels = random_pixels((1024, 1024, 3))
    tifffile.imwrite(tmp_path / 'a.tif', pixels, compression='zlib', predictor=True,
                     photometric='rgb', tile=(128, 128))
    reader = FileReader(tmp_path / 'a.tif')
    wrong = []

    def look(seed):
        numbers = random.Random(seed)
        for _ in range(60):
            left, top = numbers.randrange(900), numbers.randrange(900)
            found = reader.read(0, 0, Rect(left, top, 120, 100))
            if not np.array_equal(found, pixels[top:top + 100, left:left + 120]):
                wrong.append((left, top))

    in_threads(look, range(4))
    assert not wrong


def test_a_file_that_changed_is_not_mistaken(tmp_path):
    path = tmp_path / 'a.tif'
    first, second = random_pixels((300, 300), seed=1), random_pixels((300, 300), seed=2)
    for pixels in (first, second, first):
        tifffile.imwrite(path, pixels, compression='zlib', photometric='minisblack', tile=(64, 64))
        if pixels is first and 'reader' not in locals():
            reader = FileReader(path)
        np.testing.assert_array_equal(level(reader)[..., 0], pixels)


def test_what_is_open_is_counted(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', random_pixels((512, 512)), compression='zlib',
                     photometric='minisblack', tile=(64, 64))
    reader = FileReader(tmp_path / 'a.tif')
    level(reader)
    serial = reader._file.serial
    assert any(key[0] == serial for key in handles.pool._handles)
    reader.close()
    assert not any(key[0] == serial for key in handles.pool._handles)
