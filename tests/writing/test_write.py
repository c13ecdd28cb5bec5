"""Files written from a sink: layout, options, names, errors."""

import os
import signal
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import PIL.Image
import pytest
import pyvips
import tifffile
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.pixels import random_pixels
from helpers.sink import make_sink, random_tile, read_all, read_file
from large_image_source_vips.tiff.write import needs_bigtiff
from large_image_source_vips.writing import atomic

PARTIAL = atomic.PARTIAL_PREFIX


def photo(rows=700, cols=900):
    """Something smooth, as JPEG likes it, (rows, cols, 3) uint8."""
    y, x = np.mgrid[:rows, :cols]
    bands = [128 + 100 * np.sin(x / 60 + k) * np.cos(y / 80 - k) for k in range(3)]
    return np.stack(bands, axis=2).astype(np.uint8)


def pages(path):
    with tifffile.TiffFile(path) as file:
        return [(page.shape, page.compression.name, page.tilewidth, page.tilelength)
                for page in file.pages]


def test_the_default_is_a_tiled_jpeg_pyramid(tmp_path):
    make_sink(photo()).write(tmp_path / 'a.tif')
    assert pages(tmp_path / 'a.tif') == [
        ((700, 900, 3), 'JPEG', 256, 256), ((350, 450, 3), 'JPEG', 256, 256),
        ((175, 225, 3), 'JPEG', 256, 256)]
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        for k, page in enumerate(file.pages):
            exact = photo()[::2 ** k, ::2 ** k][:page.shape[0], :page.shape[1]]
            assert np.abs(page.asarray().astype(int) - exact).mean() < 4


def test_lossless_is_deflate_with_picked_lower_levels(tmp_path):
    tile = photo()
    make_sink(tile).write(tmp_path / 'a.tif', lossy=False)
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        assert [page.compression.name for page in file.pages] == ['ADOBE_DEFLATE'] * 3
        assert [page.predictor.name for page in file.pages] == ['HORIZONTAL'] * 3
        assert np.array_equal(file.pages[0].asarray(), tile)
        picked = file.pages[1].asarray()
        assert any(np.array_equal(picked, tile[dy::2, dx::2]) for dy in (0, 1) for dx in (0, 1))


@pytest.mark.parametrize(('dtype', 'bands', 'predictor'), [
    ('uint16', 1, 'HORIZONTAL'), ('uint16', 3, 'HORIZONTAL'), ('int16', 3, 'HORIZONTAL'),
    ('int32', 1, 'HORIZONTAL'), ('uint32', 1, 'HORIZONTAL'), ('float32', 3, 'FLOATINGPOINT'),
    ('uint8', 5, 'HORIZONTAL'), ('int8', 3, 'HORIZONTAL')])
def test_what_jpeg_cannot_hold_is_lossless_by_default(tmp_path, dtype, bands, predictor):
    tile = random_tile(dtype, (300, 300, bands))
    make_sink(tile).write(tmp_path / 'a.tif')
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        assert file.pages[0].compression.name == 'ADOBE_DEFLATE'
        assert file.pages[0].predictor.name == predictor
    assert np.array_equal(read_file(tmp_path / 'a.tif'), tile)


@pytest.mark.parametrize('labels', [
    np.random.default_rng(0).choice([3, 77, 200], (900, 900)),
    np.random.default_rng(1).choice([3, 77, 200], (900, 900)).astype(np.int32),
    np.random.default_rng(2).random((900, 900)) > 0.5], ids=['int64', 'int32', 'bool'])
@pytest.mark.parametrize('holes', [False, True])
def test_labels_survive_at_every_level(tmp_path, labels, holes):
    sink = make_sink(labels)
    occurring = set(np.unique(labels).tolist())
    if holes:
        sink.addTile(labels, 1000, 500)
        occurring.add(0)
    for level in range(sink.levels):
        tile = sink.getTile(0, 0, level, numpyAllowed='always')
        assert set(np.unique(tile[:, :, 0]).tolist()) <= occurring | {0}
    sink.write(tmp_path / 'a.tif')
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        assert len(file.pages) >= 3
        for page in file.pages:
            values = page.asarray()
            values = values[..., 0] if values.ndim == 3 else values
            assert set(np.unique(values).tolist()) <= occurring
    assert np.array_equal(read_file(tmp_path / 'a.tif')[:900, :900, 0], labels)


@pytest.mark.parametrize('holes', [False, True])
def test_pixelmaps_survive_at_every_level(tmp_path, holes):
    labels = np.random.default_rng(0).choice([5, 300, 70000], (900, 900))
    sink = make_sink(labels, interpretation='pixelmap')
    if holes:
        sink.addTile(labels, 1000, 500, interpretation='pixelmap')
    sink.write(tmp_path / 'a.tif')
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        for page in file.pages:
            digits = page.asarray()[:, :, :3].astype(np.int64)
            values = digits[:, :, 0] + 256 * digits[:, :, 1] + 65536 * digits[:, :, 2]
            assert set(np.unique(values).tolist()) <= {5, 300, 70000} | ({0} if holes else set())


def test_opaque_images_have_no_alpha_in_the_file(tmp_path):
    tile = np.dstack([photo(300, 300), np.full((300, 300), 255, np.uint8)])
    make_sink(tile).write(tmp_path / 'a.tif')
    assert read_file(tmp_path / 'a.tif').shape == (300, 300, 3)


def test_alpha_can_be_left_out(tmp_path):
    sink = make_sink(photo(300, 300), 50, 0)
    sink.write(tmp_path / 'a.tif', alpha=False, lossy=False)
    written = read_file(tmp_path / 'a.tif')
    assert written.shape == (300, 350, 3)
    assert np.array_equal(written[:, 50:], photo(300, 300))


def test_data_bands_are_marked_as_data(tmp_path):
    make_sink(random_tile('uint8', (40, 40, 7))).write(tmp_path / 'a.tif')
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        page = file.pages[0]
        assert page.photometric.name == 'MINISBLACK'
        assert [int(value) for value in page.extrasamples] == [0] * 6


def test_cmyk_is_marked_as_inks(tmp_path):
    tile = random_tile('uint8', (40, 40, 4))
    make_sink(tile, interpretation='cmyk').write(tmp_path / 'a.tif')
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        assert file.pages[0].photometric.name == 'SEPARATED'
        assert file.pages[0].extrasamples == ()
    assert np.array_equal(read_file(tmp_path / 'a.tif'), tile)


def test_bigtiff_goes_by_the_bytes_that_are_written():
    assert not needs_bigtiff(4_200_000_000)
    assert needs_bigtiff(4_300_000_000)


def test_small_files_are_classic_tiff(tmp_path):
    make_sink(np.ones((10, 10), np.float32)).write(tmp_path / 'a.tif')
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        assert not file.is_bigtiff


@pytest.mark.parametrize('crop', [(0, 0, 100, 50), (37, 41, 500, 300), (256, 256, 256, 256)])
@pytest.mark.parametrize('x', [0, -100])
def test_a_crop_is_what_is_written(tmp_path, crop, x):
    tile = photo()
    sink = make_sink(tile, x, 0)
    sink.crop = crop
    assert sink.crop == crop
    sink.write(tmp_path / 'a.tif', lossy=False)
    left, top, width, height = crop
    assert np.array_equal(read_file(tmp_path / 'a.tif'),
                          tile[top:top + height, left:left + width])
    assert (sink.sizeX, sink.sizeY) == (900, 700)


@pytest.mark.parametrize('crop', [(0, 0, 901, 10), (800, 650, 10_000, 51), (899, 699, 1, 1000)])
def test_a_crop_that_reaches_beyond_the_image_ends_with_it(tmp_path, crop):
    tile = photo()
    sink = make_sink(tile)
    sink.crop = crop
    sink.write(tmp_path / 'a.tif', lossy=False)
    left, top, width, height = crop
    assert np.array_equal(read_file(tmp_path / 'a.tif'),
                          tile[top:top + height, left:left + width])


@pytest.mark.parametrize('crop', [(900, 0, 10, 10), (0, 700, 10, 10), (5000, 5000, 1, 1)])
def test_a_crop_outside_of_the_image_is_an_error(tmp_path, crop):
    sink = make_sink(photo())
    sink.crop = crop
    with pytest.raises(TileSourceError, match='outside of the image, which has 900 x 700 pixels'):
        sink.write(tmp_path / 'a.tif')
    assert os.listdir(tmp_path) == []


# The pixel size


@pytest.mark.parametrize('mm', [1.0, 0.00025, 0.000499, 0.1234567, 1e-7, 25.4, 1 / 3, 1e4])
@pytest.mark.parametrize('lossy', [True, False])
def test_the_pixel_size_comes_back(tmp_path, mm, lossy):
    sink = make_sink(photo(50, 50))
    sink.mm_x, sink.mm_y = mm, mm * 2
    sink.write(tmp_path / 'a.tif', lossy=lossy)
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    assert source.mm_x == pytest.approx(mm, rel=1e-6)
    assert source.mm_y == pytest.approx(mm * 2, rel=1e-6)


@pytest.mark.parametrize(('suffix', 'mm', 'tolerance'), [
    ('v', 0.00025, 1e-6), ('v', 25.4, 1e-6), ('v', 1e-7, None), ('png', 0.00025, 1e-6),
    ('png', 0.0846666, 1e-5), ('png', 25.4, None), ('jpg', 0.00025, 1e-5), ('jpg', 1e-7, None)])
def test_other_formats_hold_the_pixel_size_or_say_that_they_cannot(
        tmp_path, suffix, mm, tolerance):
    sink = make_sink(photo(50, 50))
    sink.mm_x = mm
    path = str(tmp_path / f'a.{suffix}')
    if tolerance is None:
        with pytest.raises(TileSourceError, match='pixel size'):
            sink.write(path)
        assert os.listdir(tmp_path) == []
        return
    sink.write(path)
    image = pyvips.Image.new_from_file(path)
    assert 1 / image.xres == pytest.approx(mm, rel=tolerance)
    assert 1 / image.yres == pytest.approx(mm, rel=tolerance)


def test_one_pixel_size_serves_for_both(tmp_path):
    sink = make_sink(photo(50, 50))
    sink.mm_y = 0.002
    sink.write(tmp_path / 'a.tif')
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    assert source.mm_x == pytest.approx(0.002)


@pytest.mark.parametrize('kwargs', [{}, {'lossy': False}, {'vips_kwargs': {'compression': 'lzw'}}])
@pytest.mark.parametrize('alpha', [False, True])
def test_an_unknown_pixel_size_is_not_invented(tmp_path, kwargs, alpha):
    sink = make_sink(photo(300, 300), 10 * alpha, 0)
    sink.mm_x = 0.5
    sink.mm_x = None
    sink.write(tmp_path / 'a.tif', **kwargs)
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        for page in file.pages:
            assert not {'XResolution', 'YResolution', 'ResolutionUnit'} & {
                tag.name for tag in page.tags}
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    assert source.getNativeMagnification() == {'magnification': None, 'mm_x': None, 'mm_y': None}


@pytest.mark.parametrize('compression', ['none', 'jpeg', 'lzw'])
@pytest.mark.parametrize(('mm', 'options', 'expected'), [
    # In pixels per unit, of which 2 is the inch and 3 the centimetre.
    (None, {'xres': 4000.0, 'yres': 2000.0, 'resunit': 'cm'}, (40_000, 20_000, 3)),
    (None, {'xres': 4000.0, 'yres': 2000.0, 'resunit': 'inch'}, (101_600, 50_800, 2)),
    (0.5, {'xres': 4000.0, 'yres': 2000.0, 'resunit': 'cm'}, (40_000, 20_000, 3)),
    # What is not given is the image's own, or what libvips takes for it.
    (0.001, {'xres': 4000.0, 'resunit': 'cm'}, (40_000, 5_000, 3)),
    (0.001, {'yres': 4000.0, 'resunit': 'cm'}, (10_000, 40_000, 3)),
    (0.001, {'resunit': 'cm'}, (10_000, 5_000, 3)),
    (0.001, {'resunit': 'inch'}, (25_400, 12_700, 2)),
    (None, {'xres': 4000.0, 'resunit': 'cm'}, (40_000, 10, 3)),
    (None, {'resunit': 'inch'}, (25.4, 25.4, 2)),
    # Without any of them, the image's own.
    (0.001, {}, (10_000, 5_000, 3)), (None, {}, None)])
def test_a_resolution_for_libvips_is_in_every_page(tmp_path, compression, mm, options, expected):
    sink = make_sink(photo(600, 700))
    if mm:
        sink.mm_x, sink.mm_y = mm, mm * 2
    sink.write(tmp_path / 'a.TIF', vips_kwargs={
        'compression': compression, 'tile': True, 'pyramid': True, **options})
    with tifffile.TiffFile(tmp_path / 'a.TIF') as file:
        assert len(file.pages) > 1
        if expected is None:
            assert not {'XResolution', 'YResolution', 'ResolutionUnit'} & {
                tag.name for page in file.pages for tag in page.tags}
            return
        tags = file.pages[0].tags
    stated = [above / below for above, below in (
        tags['XResolution'].value, tags['YResolution'].value)]
    assert stated == pytest.approx(expected[:2], rel=1e-6)
    assert tags['ResolutionUnit'].value == expected[2]


@pytest.mark.parametrize(('suffix', 'options'), [
    ('png', {'compression': 3}), ('jpg', {'Q': 80}), ('v', {})])
@pytest.mark.parametrize('mm', [None, 0.01])
def test_options_for_libvips_leave_the_pixel_size_of_other_formats(tmp_path, suffix, options, mm):
    sink = make_sink(photo(50, 50))
    sink.mm_x = mm
    sink.write(tmp_path / f'a.{suffix}', vips_kwargs=options)
    if mm:
        image = pyvips.Image.new_from_file(str(tmp_path / f'a.{suffix}'))
        assert 1 / image.xres == pytest.approx(mm, rel=1e-3)
    elif suffix != 'v':
        with PIL.Image.open(tmp_path / f'a.{suffix}') as image:
            image.load()
            assert 'dpi' not in image.info
            assert not {282, 283} & set(image.getexif())


def test_a_resolution_for_a_saver_without_one_is_an_error(tmp_path):
    with pytest.raises(TileSourceError, match=r'a\.png.*xres'):
        make_sink(photo(50, 50)).write(tmp_path / 'a.png', vips_kwargs={'xres': 4.0})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('suffix', ['png', 'jpg'])
def test_an_unknown_density_is_not_invented(tmp_path, suffix):
    make_sink(photo(50, 50)).write(tmp_path / f'a.{suffix}')
    with PIL.Image.open(tmp_path / f'a.{suffix}') as image:
        image.load()
        assert 'dpi' not in image.info
        assert not {282, 283} & set(image.getexif())


def test_a_pixel_size_that_tiff_cannot_hold_is_an_error(tmp_path):
    sink = make_sink(photo(50, 50))
    sink.mm_x = 1e-12
    with pytest.raises(TileSourceError, match='pixel size'):
        sink.write(tmp_path / 'a.tif')
    assert os.listdir(tmp_path) == []


# Other formats


def test_png_keeps_16_bits(tmp_path):
    tile = random_tile('uint16', (40, 40, 3))
    make_sink(tile).write(tmp_path / 'a.png')
    assert np.array_equal(pyvips.Image.pngload(str(tmp_path / 'a.png')).numpy(), tile)


@pytest.mark.parametrize(('suffix', 'dtype', 'bands', 'x', 'kwargs', 'reason'), [
    ('jpg', 'uint16', 3, 0, {}, 'uint16'), ('jpg', 'uint8', 3, 5, {}, 'alpha'),
    ('jpg', 'uint8', 3, 0, {'lossy': False}, 'always lossy'), ('png', 'float32', 3, 0, {}, 'float'),
    ('png', 'int8', 1, 0, {}, 'int8'), ('webp', 'uint16', 3, 0, {}, 'uint16'),
    ('dz', 'float32', 3, 0, {}, 'float')])
def test_what_a_format_would_change_is_an_error(
        tmp_path, suffix, dtype, bands, x, kwargs, reason):
    sink = make_sink(random_tile(dtype, (40, 40, bands)), x, 0)
    with pytest.raises(TileSourceError, match=reason):
        sink.write(tmp_path / f'a.{suffix}', **kwargs)
    assert os.listdir(tmp_path) == []
    sink.write(tmp_path / f'a.{suffix}', vips_kwargs={})
    assert os.listdir(tmp_path) != []


def test_options_for_libvips_are_passed_as_they_are(tmp_path):
    make_sink(photo()).write(
        tmp_path / 'a.tif', lossy=True, vips_kwargs={'compression': 'deflate', 'tile': True})
    assert pages(tmp_path / 'a.tif') == [((700, 900, 3), 'ADOBE_DEFLATE', 128, 128)]
    assert np.array_equal(read_file(tmp_path / 'a.tif'), photo())


@pytest.mark.parametrize('kwargs', [{'no_such_option': 1}, {'compression': 'nonsense'}, {'Q': 'x'}])
def test_bad_options_are_an_error_and_leave_the_old_file(tmp_path, kwargs):
    (tmp_path / 'a.tif').write_bytes(b'old')
    with pytest.raises(TileSourceError, match=r'a\.tif'):
        make_sink(photo()).write(tmp_path / 'a.tif', vips_kwargs=kwargs)
    assert (tmp_path / 'a.tif').read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['a.tif']


@pytest.mark.parametrize('name', ['a.dz', 'a.dzi'])
def test_deepzoom(tmp_path, name):
    sink = make_sink(photo())
    sink.write(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ['a.dzi', 'a_files']
    with PIL.Image.open(tmp_path / 'a_files' / '10' / '0_0.jpg') as image:
        exact = photo()[:image.height, :image.width]
        assert np.abs(np.asarray(image).astype(int) - exact).mean() < 4
    (tmp_path / 'a_files' / 'stale').write_bytes(b'')
    sink.write(tmp_path / name)
    assert not (tmp_path / 'a_files' / 'stale').exists()
    with pytest.raises(TileSourceError, match=r'a\.dzi exists'):
        sink.write(tmp_path / name, overwriteAllowed=False)
    (tmp_path / 'a.dzi').unlink()
    with pytest.raises(TileSourceError, match='a_files exists'):
        sink.write(tmp_path / name, overwriteAllowed=False)


# Names


def test_overwriting_can_be_forbidden(tmp_path):
    sink = make_sink(photo(50, 50))
    sink.write(tmp_path / 'a.tif', overwriteAllowed=False)
    before = (tmp_path / 'a.tif').read_bytes()
    with pytest.raises(TileSourceError, match='exists'):
        sink.write(tmp_path / 'a.tif', overwriteAllowed=False)
    assert (tmp_path / 'a.tif').read_bytes() == before


@pytest.mark.parametrize('name', ['a', 'a.', 'a.xyz', 'a.tif[x]', 'a.tif[compression=lzw]'])
def test_unknown_suffixes_are_an_error_that_names_them(tmp_path, name):
    with pytest.raises(TileSourceError, match=r'writes no'):
        make_sink(photo(50, 50)).write(tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('name', [
    'a[page=1].tif', 'a b.tif', 'a,b.tif', "a'b.tif", 'ä.tif', '-a.tif', '@a.tif', 'a\nb.tif',
    'A.TIF', '.a.tif', b'a\xff.tif'], ids=repr)
def test_names_are_literal(tmp_path, name):
    folder = os.fsencode(tmp_path) if isinstance(name, bytes) else str(tmp_path)
    path = os.path.join(folder, name)
    make_sink(photo(50, 50)).write(path, lossy=False)
    assert os.listdir(folder) == [name]
    assert np.array_equal(read_all(large_image_source_vips.open(path)), photo(50, 50))


def test_folders_whose_names_are_no_text(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b'd\xff')
    os.mkdir(folder)
    make_sink(photo(50, 50)).write(os.path.join(folder, b'a.tif'))
    assert os.listdir(folder) == [b'a.tif']


@pytest.mark.parametrize('path', [None, 5, ''])
def test_what_is_no_path_is_an_error(path):
    with pytest.raises((TileSourceError, OSError)):
        make_sink(photo(50, 50)).write(path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(TileSourceError, match='nowhere'):
        make_sink(photo(50, 50)).write(tmp_path / 'nowhere' / 'a.tif')


def test_a_folder_is_not_overwritten(tmp_path):
    (tmp_path / 'a.tif').mkdir()
    with pytest.raises(TileSourceError, match='folder'):
        make_sink(photo(50, 50)).write(tmp_path / 'a.tif')


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    folder = tmp_path / 'closed'
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        pytest.skip('this user may write everywhere')
    with pytest.raises(TileSourceError, match='closed'):
        make_sink(photo(50, 50)).write(folder / 'a.tif')


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    make_sink(photo(50, 50)).write('~/a.tif')
    assert os.listdir(tmp_path) == ['a.tif']


def test_symbolic_links_stay(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link.tif').symlink_to(tmp_path / 'real' / 'a.tif')
    make_sink(photo(50, 50)).write(tmp_path / 'link.tif')
    assert (tmp_path / 'link.tif').is_symlink()
    assert (tmp_path / 'real' / 'a.tif').is_file()


# Opened sources


def test_writing_an_opened_source_converts_it(tmp_path):
    sink = make_sink(random_tile('uint16', (600, 500, 3)))
    sink.mm_x = 0.0005
    sink.write(tmp_path / 'a.tif')
    large_image_source_vips.open(tmp_path / 'a.tif').write(tmp_path / 'b.v')
    source = large_image_source_vips.open(tmp_path / 'b.v')
    assert np.array_equal(read_all(source), random_tile('uint16', (600, 500, 3)))
    assert source.mm_x == pytest.approx(0.0005)


def test_a_source_may_be_written_over_its_own_file(tmp_path):
    tile = random_tile('uint8', (600, 500, 3))
    make_sink(tile).write(tmp_path / 'a.tif', lossy=False)
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    source.write(tmp_path / 'a.tif', vips_kwargs={'compression': 'none'})
    assert np.array_equal(read_file(tmp_path / 'a.tif'), tile)
    assert pages(tmp_path / 'a.tif')[0][1] == 'NONE'
    assert np.array_equal(read_all(large_image_source_vips.open(tmp_path / 'a.tif')), tile)


def test_several_frames_want_a_choice(tmp_path):
    stack = random_tile('uint8', (3, 300, 400))
    tifffile.imwrite(tmp_path / 'a.tif', stack, photometric='minisblack')
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    with pytest.raises(TileSourceError, match='3 frames'):
        source.write(tmp_path / 'b.png')
    source.write(tmp_path / 'all.ome.tif', lossy=False)
    with tifffile.TiffFile(tmp_path / 'all.ome.tif') as file:
        assert np.array_equal(file.series[0].asarray(), stack)
        assert np.array_equal(file.series[0].levels[1].asarray(), stack[:, ::2, ::2])
    source.write(tmp_path / 'b.tif', lossy=False, frame=2)
    assert np.array_equal(read_file(tmp_path / 'b.tif')[:, :, 0], stack[2])
    with pytest.raises(TileSourceError, match='no frame 3'):
        source.write(tmp_path / 'b.tif', frame=3)


# Progress, and what goes wrong midway


@pytest.mark.parametrize('x', [0, 10], ids=['opaque', 'holes'])
def test_progress_is_told(tmp_path, x):
    seen = []
    make_sink(np.tile(photo(1000, 1000), (5, 5, 1)), x, 0).write(
        tmp_path / 'a.tif', progress=seen.append)
    assert seen[0] == 0
    assert seen[-1] == 1
    assert seen == sorted(seen)
    assert any(0 < fraction < 1 for fraction in seen)


def test_a_progress_bar(tmp_path, capsys):
    pytest.importorskip('tqdm')
    make_sink(photo(300, 300)).write(tmp_path / 'a.tif', progress=True)
    assert '100%' in capsys.readouterr().err


@pytest.mark.parametrize('x', [0, 10], ids=['opaque', 'holes'])
@pytest.mark.parametrize('kind', [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_progress_cancels(tmp_path, x, kind):
    def cancel(fraction):
        if fraction < 1:
            msg = 'enough'
            raise kind(msg)

    (tmp_path / 'a.tif').write_bytes(b'old')
    sink = make_sink(photo(3000, 3000), x, 0)
    with pytest.raises(kind, match='enough'):
        sink.write(tmp_path / 'a.tif', progress=cancel)
    assert (tmp_path / 'a.tif').read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['a.tif']
    sink.write(tmp_path / 'a.tif')
    assert len(pages(tmp_path / 'a.tif')) == 5


def run_script(script, *args, **kwargs):
    return subprocess.run(
        [sys.executable, '-c', textwrap.dedent(script), *map(str, args)],
        capture_output=True, text=True, check=False, **kwargs)


@pytest.mark.parametrize('x', [0, 10], ids=['opaque', 'holes'])
def test_a_limit_of_the_file_size_leaves_the_old_file(tmp_path, x):
    (tmp_path / 'a.tif').write_bytes(b'old')
    result = run_script("""
        import resource, sys
        import numpy as np
        import large_image_source_vips
        from large_image.exceptions import TileSourceError
        sink = large_image_source_vips.new()
        rng = np.random.default_rng(0)
        sink.addTile(rng.integers(0, 256, (2000, 2000, 3), dtype=np.uint8), int(sys.argv[2]), 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            sink.write(sys.argv[1])
        except TileSourceError as exc:
            print('refused:', exc)
    """, tmp_path / 'a.tif', x)
    assert result.stdout.startswith('refused:'), result.stderr
    assert (tmp_path / 'a.tif').read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['a.tif']


def test_a_spool_that_cannot_grow_leaves_the_image_as_it_was():
    result = run_script("""
        import resource
        import numpy as np
        import large_image_source_vips
        from large_image.exceptions import TileSourceError
        sink = large_image_source_vips.new()
        tile = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
        sink.addTile(tile)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, resource.RLIM_INFINITY))
        state, ranges = sink.getState(), sink.bandRanges['max'].tolist()
        for big in (np.zeros((3000, 3000, 3), np.uint8), np.zeros((2000, 2000, 3), np.float32)):
            try:
                sink.addTile(big, 100, 100)
            except TileSourceError as exc:
                print('refused:', exc)
        assert sink.getState() == state and sink.bandRanges['max'].tolist() == ranges
        assert sink.sizeX == 500 and sink.dtype == np.uint8
        again, _ = sink.getRegion(format='numpy')
        assert np.array_equal(again[:, :, :3], tile)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        sink.addTile(np.zeros((3000, 3000, 3), np.uint8), 100, 100)
        assert sink.sizeX == 3100
    """)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('refused:') == 2
    assert 'TMPDIR' in result.stdout


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_process_leaves_the_old_file(tmp_path, number):
    (tmp_path / 'a.tif').write_bytes(b'old')
    script = """
        import signal, sys
        import numpy as np
        import large_image_source_vips
        # A process in the background of a shell is started without it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sink = large_image_source_vips.new()
        tile = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
        for x in range(0, 12288, 1024):
            for y in range(0, 8192, 1024):
                sink.addTile(tile, x, y)
        def progress(fraction):
            if 0 < fraction < 1:
                print('writing', flush=True)
                # Not past this before the signal has come.
                sys.stdin.readline()
        sink.write(sys.argv[1], progress=progress)
        print('done', flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, '-c', textwrap.dedent(script), str(tmp_path / 'a.tif')],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'writing\n'
    process.send_signal(number)
    output, errors = process.communicate()
    assert 'done' not in output
    assert (tmp_path / 'a.tif').read_bytes() == b'old'
    left = [name for name in os.listdir(tmp_path) if name != 'a.tif']
    if number == signal.SIGINT:
        assert 'KeyboardInterrupt' in errors
        assert left == []
    else:
        assert all(name.startswith(PARTIAL) for name in left)


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('bands', [1, 3, 5])
@pytest.mark.parametrize('shift', [0, 300])
def test_a_file_of_libvips_holds_every_bit_of_floats(dtype, bands, shift, tmp_path):
    tile = np.random.default_rng(bands).standard_normal((270, 280, bands)).astype(dtype)
    sink = large_image_source_vips.new()
    sink.addTile(tile, shift, shift)
    sink.write(tmp_path / 'floats.v', alpha=False)
    found = pyvips.Image.new_from_file(str(tmp_path / 'floats.v')).numpy()
    assert found.dtype == dtype
    found = found.reshape(270 + shift, 280 + shift, bands)
    np.testing.assert_array_equal(found[shift:, shift:], tile)
    assert not found[:shift].any()


def test_a_truth_value_is_no_quality(tmp_path):
    sink = large_image_source_vips.new()
    sink.addTile(np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(TileSourceError, match='a whole number from 1 to 100, not True'):
        sink.write(tmp_path / 'a.tif', quality=True)


# The dtype to write

@pytest.mark.parametrize('dtype', ['complex64', 'complex128', 'bool', 'int8', 'float16', 'object'])
def test_a_dtype_that_makes_no_sense_is_refused(tmp_path, dtype):
    sink = large_image_source_vips.new()
    sink.addTile(random_pixels((50, 60, 3)))
    with pytest.raises(TileSourceError, match=r'float32, float64, .*uint16 or uint32') as error:
        sink.write(tmp_path / 'a.tif', dtype=dtype)
    assert 'complex64,' not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('dtype', ['>u2', np.uint16, np.dtype('<u2')])
def test_a_dtype_of_any_byte_order_is_that_of_the_samples(tmp_path, dtype):
    pixels = random_pixels((50, 60, 3))
    sink = large_image_source_vips.new()
    sink.addTile(pixels)
    sink.write(tmp_path / 'a.tif', dtype=dtype, lossy=False)
    found = tifffile.imread(tmp_path / 'a.tif')
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, pixels)


def test_resampling_methods_are_named_once(tmp_path):
    sink = large_image_source_vips.new()
    sink.addTile(random_pixels((50, 60, 3)))
    with pytest.raises(TileSourceError, match='resample must be') as error:
        sink.write(tmp_path / 'a.tif', resample='bogus')
    assert str(error.value).count('nearest') == 1


def test_one_warning_names_what_a_target_cannot_hold(tmp_path):
    sink = large_image_source_vips.new()
    sink.addTile(random_pixels((50, 60, 3)))
    sink.mm_x = sink.mm_y = 0.001
    sink.imageDescription = 'liver'
    sink.additionalMetadata = {'stain': 'H&E'}
    sink.addAssociatedImage(random_pixels((20, 30, 3)), 'label')
    with pytest.warns(UserWarning, match='only .tif files hold') as caught:
        sink.write(tmp_path / 'a.png')
    assert len(caught) == 1
    assert caught[0].filename == __file__
    text = str(caught[0].message)
    assert text.startswith(f'{tmp_path / "a.png"} is written without ')
    assert text.endswith('the description, metadata, associated images (label)')


@pytest.mark.parametrize('name', ['a.tif', 'a.ome.tif'])
def test_tiff_files_hold_all(tmp_path, name):
    sink = large_image_source_vips.new()
    sink.addTile(random_pixels((50, 60, 3)))
    sink.imageDescription = 'liver'
    sink.additionalMetadata = {'stain': 'H&E'}
    sink.addAssociatedImage(random_pixels((20, 30, 3)), 'label')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        sink.write(tmp_path / name)
        sink.write(tmp_path / 'b.png', metadata=False, associatedImages=[])
    written = large_image_source_vips.open(tmp_path / name)
    assert written.imageDescription == 'liver'
    assert written.additionalMetadata == {'stain': 'H&E'}
    assert written.getAssociatedImagesList() == ['label']


def test_the_same_warning_when_a_file_is_converted(tmp_path):
    sink = large_image_source_vips.new()
    sink.addTile(random_pixels((50, 60, 3)))
    sink.addAssociatedImage(random_pixels((20, 30, 3)), 'macro')
    sink.write(tmp_path / 'a.tif')
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    with pytest.warns(UserWarning, match=r'associated images \(macro\)') as caught:
        source.write(tmp_path / 'a.png')
    assert caught[0].filename == __file__


def test_warnings_name_the_line_of_the_caller(tmp_path):
    sink = large_image_source_vips.new()
    sink.addTile(np.full((50, 60), 1 / 3))
    with pytest.warns(UserWarning, match='has 64-bit floats') as caught:
        sink.write(tmp_path / 'a.tif', lossy=False)
    assert caught[0].filename == __file__
    sink = large_image_source_vips.new()
    sink.addTile(np.ones((50, 60), np.uint8), interpretation='labels')
    with pytest.warns(UserWarning, match='is always lossy') as caught:
        sink.write(tmp_path / 'a.jpg')
    assert caught[0].filename == __file__
