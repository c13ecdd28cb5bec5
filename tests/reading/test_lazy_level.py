"""Formats without random access: only requested rows are decoded, once."""

import gc
import io
import itertools
import os
import pathlib

import numpy as np
import PIL.Image
import pytest
import pyvips
import tifffile
from large_image.exceptions import TileSourceError

from helpers.around import declare_empty, in_a_forked_child, in_threads, needs, overwrite
from helpers.pixels import random_pixels, smooth_pixels
from helpers.reading import level, level_by_tiles, read
from large_image_source_vips.base import libraries
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.codecs import lossless
from large_image_source_vips.reading import level_cache, stored_levels
from large_image_source_vips.reading import rows as decoding
from large_image_source_vips.reading.reader import FileReader
from large_image_source_vips.reading.tiff_tiles import TiffTiles


@pytest.fixture
def counted(monkeypatch):
    """The rows that were decoded: pairs of the first and the one behind the last."""
    rows = []

    def count(where, name):
        original = getattr(where, name)

        def counting(*args):
            for top, pixels in original(*args):
                rows.append((top, top + pixels.shape[0]))
                yield top, pixels

        monkeypatch.setattr(where, name, counting)

    count(decoding, '_rows')
    count(TiffTiles, 'strips')
    monkeypatch.setattr(decoding, '_BAND_BYTES', 20_000)
    monkeypatch.setattr(decoding, '_CHUNK_BYTES', 20_000)
    monkeypatch.setattr(decoding, '_PIECE_BYTES', 3_000)
    monkeypatch.setattr(stored_levels, '_MIN_STOPPED', 0)
    return rows


@pytest.fixture(params=['imagecodecs', 'libvips'])
def inflated_by(request, monkeypatch):
    """With and without imagecodecs, as where it cannot be installed."""
    if request.param == 'libvips':
        monkeypatch.setattr(libraries, 'imagecodecs', lambda: None)
        monkeypatch.setattr(lossless, 'imagecodecs', lambda: None)


@pytest.mark.parametrize('rows_each', [1, 3, 8, 13, 64, 4000])
@pytest.mark.parametrize('compression', ['deflate', 'lzw', 'packbits', 'jpeg'])
def test_strips_are_decoded_where_they_are_needed(tmp_path, counted, inflated_by, compression,
                                               rows_each):
    rows_each = 8 if compression == 'jpeg' and rows_each < 8 else rows_each
    if compression == 'jpeg' and rows_each == 13:
        rows_each = 16
    pixels = smooth_pixels(1301, 400)
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', compression=compression,
                     rowsperstrip=rows_each)
    expected = tifffile.imread(tmp_path / 'a.tif')
    tolerance = 2 if compression == 'jpeg' else 0
    reader = FileReader(tmp_path / 'a.tif')
    found = reader.read(0, 0, Rect(10, 900, 256, 256))
    np.testing.assert_allclose(found.astype(int), expected[900:1156, 10:266], atol=tolerance)
    if rows_each < 1000:
        assert min(top for top, _bottom in counted) > 900 - 2 * max(64, rows_each)
        assert sum(bottom - top for top, bottom in counted) < 500
    np.testing.assert_allclose(level_by_tiles(reader).astype(int), expected, atol=tolerance)
    level_by_tiles(reader)
    assert sum(bottom - top for top, bottom in counted) == 1301
    assert len(set(counted)) == len(counted)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
@pytest.mark.parametrize('bands', [1, 3, 5])
@pytest.mark.parametrize('orientation', [1, 6])
@pytest.mark.parametrize('order', ['<', '>'])
def test_strips_of_every_kind_are_exact(tmp_path, counted, inflated_by, dtype, bands,
                                         orientation, order):
    pixels = random_pixels((333, 201, bands), dtype)
    tifffile.imwrite(tmp_path / 'a.tif', pixels if bands > 1 else pixels[..., 0], rowsperstrip=7,
                     photometric='rgb' if bands == 3 else 'minisblack', byteorder=order,
                     planarconfig='contig' if bands > 1 else None, compression='zlib',
                     predictor=True, metadata=None, extratags=[(274, 'H', 1, orientation, True)])
    expected = pixels if orientation == 1 else np.rot90(pixels, -1)
    reader = FileReader(tmp_path / 'a.tif')
    np.testing.assert_array_equal(level_by_tiles(reader, side=64), expected)
    assert counted


def test_several_threads_decode_each_strip_once(tmp_path, counted, inflated_by):
    pixels = random_pixels((2000, 300, 3))
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', compression='zlib',
                     rowsperstrip=16)
    reader = FileReader(tmp_path / 'a.tif')
    wrong = []

    def look(seed):
        for top in np.random.default_rng(seed).permutation(8) * 250:
            found = reader.read(0, 0, Rect(0, int(top), 300, 250))
            if not np.array_equal(found, pixels[top:top + 250]):
                wrong.append(top)

    in_threads(look, range(4))
    assert not wrong
    assert sum(bottom - top for top, bottom in counted) == 2000


KINDS = {'.jpg': {'quality': 95}, '.png': {}, '.gif': {}, '.ppm': {}, '.webp': {'lossless': True},
         '.tif': {}}
JPG, PNG, GIF, WEBP = (pytest.param(f'.{name}', marks=needs(f'{loader}load')) for name, loader in (
    ('jpg', 'jpeg'), ('png', 'png'), ('gif', 'gif'), ('webp', 'webp')))
PPM = pytest.param('.ppm', marks=needs('ppmload'))


def make(path, rows=900, cols=700):
    """An image file, and its pixels as Pillow reads them."""
    image = PIL.Image.fromarray(smooth_pixels(rows, cols))
    image.save(path, **KINDS[path.suffix])
    with PIL.Image.open(path) as saved:
        return np.asarray(saved.convert('RGB'))


@pytest.mark.parametrize('suffix', [JPG, PNG, GIF, PPM, WEBP, '.tif'])
def test_pieces_of_rows_fit_together(tmp_path, counted, suffix):
    pixels = make(tmp_path / f'a{suffix}')
    found = read(tmp_path / f'a{suffix}')[..., :3]
    # libjpeg decides for itself how it makes chroma larger.
    assert np.abs(found.astype(int) - pixels).max() <= (40 if suffix == '.jpg' else 0)
    whole = pyvips.Image.new_from_file(str(tmp_path / f'a{suffix}')).numpy()
    np.testing.assert_array_equal(found, whole[..., :3])


@pytest.mark.parametrize('suffix', [JPG, PNG, PPM])
@pytest.mark.parametrize('on_disk', [False, True])
def test_decoding_stops_where_nothing_more_is_needed(tmp_path, counted, monkeypatch, suffix,
                                                     on_disk):
    if on_disk:
        monkeypatch.setattr(level_cache, 'MAX_LEVEL_MEMORY', 1000)
    make(tmp_path / f'a{suffix}')
    whole = pyvips.Image.new_from_file(str(tmp_path / f'a{suffix}')).numpy()
    reader = FileReader(tmp_path / f'a{suffix}')
    for top, bottom in ((0, 100), (50, 300), (10, 20), (600, 700), (300, 600), (0, 900)):
        found = reader.read(0, 0, Rect(0, top, 700, bottom - top))
        np.testing.assert_array_equal(found, whole[top:bottom])
        if bottom < 800:
            assert counted[-1][1] < 800
    # Once, from the top to the bottom.
    assert counted[0][0] == 0
    assert counted[-1][1] == 900
    assert all(first[1] == second[0] for first, second in itertools.pairwise(counted))


@pytest.mark.parametrize('suffix', [JPG, PNG, PPM])
def test_another_thread_goes_on_where_one_stopped(tmp_path, counted, suffix):
    make(tmp_path / f'a{suffix}')
    whole = pyvips.Image.new_from_file(str(tmp_path / f'a{suffix}')).numpy()
    reader = FileReader(tmp_path / f'a{suffix}')
    found = []

    def look(top):
        found.append(np.array_equal(reader.read(0, 0, Rect(0, top, 700, 100)),
                                    whole[top:top + 100]))

    for top in (0, 200, 400, 600, 800):
        in_threads(look, [top])
    assert found == [True] * 5
    assert counted[-1][1] == 900


def test_strips_that_are_not_listed_are_an_error(tmp_path, counted):
    pixels = random_pixels((256, 256))
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, pixels, photometric='minisblack', rowsperstrip=16, compression='zlib',
                     metadata=None)
    declare_empty(path, 0)
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags
        places = [tags[code].offset + 4 for code in (273, 279)]
    for place in places:
        overwrite(path, place, (8).to_bytes(4, 'little'))
    reader = FileReader(path)
    with pytest.raises(TileSourceError, match=r'a\.tif'):
        reader.read(0, 0, Rect(0, 100, 256, 100))
    with pytest.raises(TileSourceError, match=r'a\.tif'):
        level(reader, 3)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system has no fork')
def test_a_forked_child_decodes_anew_what_was_begun(tmp_path, counted):
    make(tmp_path / 'a.png')
    reader = FileReader(tmp_path / 'a.png')
    reader.read(0, 0, Rect(0, 0, 700, 300))
    found = in_a_forked_child(lambda: level(reader).tobytes())
    assert counted[-1][1] < 900
    assert level(reader).tobytes() == found
    assert counted[-1][1] == 900


@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='there is no /proc/self/fd')
def test_a_decoder_that_waits_goes_with_its_file(tmp_path, counted):
    make(tmp_path / 'a.png')

    def is_open():
        return any(str(tmp_path) in os.readlink(entry)
                   for entry in pathlib.Path('/proc/self/fd').iterdir() if entry.is_symlink())

    reader = FileReader(tmp_path / 'a.png')
    reader.read(0, 0, Rect(0, 0, 700, 300))
    assert counted[-1][1] < 900
    assert is_open()
    del reader
    gc.collect()
    assert not is_open()


@needs('pngload')
@pytest.mark.parametrize('on_disk', [False, True])
def test_what_comes_before_the_damage_can_be_read(tmp_path, counted, monkeypatch, on_disk):
    if on_disk:
        monkeypatch.setattr(level_cache, 'MAX_LEVEL_MEMORY', 1000)
    pixels = random_pixels((900, 700, 3))
    path = tmp_path / 'a.png'
    PIL.Image.fromarray(pixels).save(path)
    os.truncate(path, path.stat().st_size // 2)
    reader = FileReader(path)
    for _ in range(2):
        np.testing.assert_array_equal(reader.read(0, 0, Rect(0, 0, 700, 200)), pixels[:200])
        with pytest.raises(TileSourceError, match='level 2, tile 0, 2'):
            reader.read(0, 0, Rect(0, 700, 700, 100))


@needs('pngload')
def test_a_file_that_comes_back_is_read_again(tmp_path, counted):
    """An error is not kept: the disk may have been full, or the network away."""
    pixels = random_pixels((400, 300, 3))
    data = io.BytesIO()
    PIL.Image.fromarray(pixels).save(data, 'PNG')
    path = tmp_path / 'a.png'
    path.write_bytes(data.getvalue())
    stamp = path.stat()
    reader = FileReader(path)
    with open(path, 'r+b') as file:
        file.truncate(len(data.getvalue()) // 2)
    with pytest.raises(TileSourceError):
        level(reader)
    path.write_bytes(data.getvalue())
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    np.testing.assert_array_equal(level(reader), pixels)
