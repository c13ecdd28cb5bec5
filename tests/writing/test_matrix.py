"""
All compressions, dtypes, numbers of bands and alpha, read back by this source and others.

Where the others hold the data:

==========  =================================================  ==============================
reader      compressions                                       samples
==========  =================================================  ==============================
tifffile    all                                                all
libvips     all but JPEG 2000; some builds lack zstd            all but 64-bit floats, complex
rasterio    all but JPEG 2000                                  all but complex
Pillow      all but WebP and JPEG 2000                         uint8 of 1 to 4 bands; uint16,
                                                               int32 and float32 of 1
OpenSlide   all but WebP and JPEG 2000                         uint8 gray and RGB
==========  =================================================  ==============================
"""

import functools
import warnings

import numpy as np
import PIL.features
import PIL.Image
import pytest
import pyvips
import tifffile
from large_image.exceptions import TileSourceError
from large_image.tilesource.resample import ResampleMethod

import large_image_source_vips
from helpers.sink import make_sink, random_tile, read_all
from large_image_source_vips.codecs.encode import COMPRESSIONS

DTYPES = ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'float32', 'float64']
# Bands without alpha, and whether there is alpha.
SAMPLES = [(1, False), (1, True), (3, False), (3, True), (5, False)]
GENERAL = ['deflate', 'zstd', 'lzw', 'packbits', 'none']
NAMES = {'deflate': 'ADOBE_DEFLATE', 'jpeg2000': 'JPEG2000'}
PILLOW = {('uint8', 1), ('uint8', 2), ('uint8', 3), ('uint8', 4), ('uint16', 1), ('int32', 1),
          ('float32', 1)}
SHAPE = 300, 420

CASES = [
    *((name, dtype, bands, alpha) for name in GENERAL for dtype in DTYPES
      for bands, alpha in SAMPLES),
    ('webp', 'uint8', 3, False), ('webp', 'uint8', 3, True),
    *(('jpeg2000', dtype, bands, alpha) for dtype in ('uint8', 'uint16')
      for bands, alpha in SAMPLES[:4]),
    ('jpeg', 'uint8', 1, False), ('jpeg', 'uint8', 3, False)]


def libvips_decodes(name):
    """Whether this libvips has the codec in TIFF files."""
    if name == 'jpeg2000':
        # It reads those with the numbers of Aperio alone, 33003 to 33005.
        return False
    try:
        data = pyvips.Image.black(128, 128, bands=3).copy(interpretation='srgb').tiffsave_buffer(
            compression=name, tile=True, tile_width=128, tile_height=128)
        # libvips 8.14 may write what it cannot read.
        pyvips.Image.new_from_buffer(data, '', fail_on='warning').avg()
    except pyvips.Error:
        return False
    return True


def tile_of(dtype, bands, alpha, lossy):
    if lossy:
        y, x = np.mgrid[:SHAPE[0], :SHAPE[1]]
        parts = [128 + 100 * np.sin(x / 60 + k) * np.cos(y / 80 - k) for k in range(bands)]
        return np.stack(parts, axis=2).astype(dtype)
    return random_tile(dtype, (*SHAPE, bands + alpha))


def with_libvips(path):
    return pyvips.Image.new_from_file(str(path), fail_on='warning').numpy()


def with_pillow(path):
    with PIL.Image.open(path) as image:
        return np.asarray(image)


def with_rasterio(path):
    import rasterio

    with rasterio.open(path) as file:
        return np.moveaxis(file.read(), 0, 2)


def with_openslide(path, gray):
    import openslide

    with openslide.OpenSlide(path) as slide:
        assert slide.level_count == len(tifffile.TiffFile(path).pages)
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
        return pixels[:, :, :1 if gray else 3]


def readers_of(name, dtype, bands):
    """The functions that read such a file here; bands with alpha."""
    if libvips_decodes(name) and dtype != 'float64':
        yield with_libvips
    usual = name not in {'webp', 'jpeg2000'}
    if usual and (dtype, bands) in PILLOW and PIL.features.check('libtiff'):
        yield with_pillow
    shown = usual and (dtype, bands) in {('uint8', 1), ('uint8', 3)}
    for package, reader, holds in (
            ('rasterio', with_rasterio, name != 'jpeg2000'),
            ('openslide', functools.partial(with_openslide, gray=bands == 1), shown)):
        try:
            __import__(package)
        except ImportError:
            continue
        if holds:
            yield reader


@pytest.mark.filterwarnings('ignore:.*georeferenced', 'ignore:.*64-bit floats')
@pytest.mark.parametrize(('name', 'dtype', 'bands', 'alpha'), CASES)
def test_what_is_written_is_read_back(tmp_path, name, dtype, bands, alpha):
    lossy = name == 'jpeg'
    tile = tile_of(dtype, bands, alpha, lossy)
    sink = make_sink(tile, interpretation='multiband' if bands > 3 else None)
    sink.write(tmp_path / 'a.tif', lossy=lossy, compression=name, tileSize=128)
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        assert [page.shape[:2] for page in file.pages] == [(300, 420), (150, 210), (75, 105)]
        assert {page.compression.name for page in file.pages} == {
            NAMES.get(name, name.upper())}
        assert {(page.tilewidth, page.tilelength) for page in file.pages} == {(128, 128)}
        levels = [page.asarray().reshape(*page.shape[:2], -1) for page in file.pages]
    exact = levels[0]
    if lossy:
        assert np.abs(exact.astype(int) - tile).max() < 12
    else:
        for level, pixels in enumerate(levels):
            np.testing.assert_array_equal(pixels, tile[::1 << level, ::1 << level])
    for reader in readers_of(name, dtype, bands + alpha):
        found = reader(tmp_path / 'a.tif').reshape(exact.shape)
        assert found.dtype == exact.dtype, reader
        np.testing.assert_array_equal(found, exact, err_msg=str(reader))


@pytest.mark.filterwarnings('ignore:.*64-bit floats')
@pytest.mark.parametrize(('name', 'dtype', 'bands', 'alpha'), CASES)
def test_this_source_reads_what_it_writes(tmp_path, name, dtype, bands, alpha):
    lossy = name == 'jpeg'
    sink = make_sink(tile_of(dtype, bands, alpha, lossy),
                     interpretation='multiband' if bands > 3 else None)
    sink.write(tmp_path / 'a.tif', lossy=lossy, compression=name)
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    np.testing.assert_array_equal(
        read_all(source), tifffile.imread(tmp_path / 'a.tif', key=0).reshape(*SHAPE, -1))


@pytest.mark.parametrize('name', COMPRESSIONS)
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize(('bands', 'alpha'), SAMPLES)
def test_what_the_data_cannot_have_is_an_error_that_lists_what_they_can(
        tmp_path, name, dtype, bands, alpha):
    if (name, dtype, bands, alpha) in CASES:
        return
    sink = make_sink(tile_of(dtype, bands, alpha, False),
                     interpretation='multiband' if bands > 3 else None)
    with pytest.raises(TileSourceError, match=f"compression='{name}'.*deflate, zstd, lzw"):
        sink.write(tmp_path / 'a.tif', compression=name, lossy=name == 'jpeg')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(('kwargs', 'said'), [
    ({'compression': 'gzip'}, "compression must be jpeg, webp.*not 'gzip'"),
    ({'compression': 'jpeg', 'lossy': False}, 'lossy is False.*deflate'),
    ({'quality': 0}, 'quality must be a whole number from 1 to 100'),
    ({'quality': 90.5}, 'quality must be'),
    ({'compression': 'lzw', 'quality': 80}, 'lossless.*jpeg, webp or jpeg2000'),
    ({'subsampling': '4:1:1'}, "subsampling must be 4:4:4, 4:2:2 or 4:2:0, not '4:1:1'"),
    ({'compression': 'lzw', 'subsampling': '4:2:0'}, 'only with compression'),
    ({'predictor': 'horizontal'}, "predictor='horizontal' is not possible with.*jpeg.*none"),
    ({'compression': 'zstd', 'predictor': 'float'}, 'can have none or horizontal'),
    ({'tileSize': 100}, 'multiple of 16'), ({'tileSize': 'x'}, 'multiple of 16'),
    ({'tileSize': 0}, 'multiple of 16'), ({'tileSize': 1 << 20}, 'multiple of 16'),
    ({'resample': 'best'}, 'resample must be a ResampleMethod.*lanczos'),
    ({'fill': (1, 2)}, 'fill must be 3 numbers'), ({'fill': (1, 2, 300)}, 'fill must be'),
    ({'tileSize': (256, 128)}, 'both the width and the height of a tile; not'),
    ({'quality': 80, 'lossy': False}, 'quality=80 is not possible.*lossy is False'),
    ({'fill': True}, 'fill must be'), ({'fill': 'red'}, 'fill must be'),
    ({'dtype': 'int8'}, 'would change the values of uint8'),
    ({'dtype': 'nothing'}, 'dtype must be a dtype'),
    ({'vips_kwargs': {}, 'compression': 'zstd'}, 'compression is not possible: vips_kwargs')])
def test_a_wrong_choice_is_an_error_that_says_what_is_possible(tmp_path, kwargs, said):
    sink = make_sink(tile_of('uint8', 3, False, True))
    with pytest.raises(TileSourceError, match=said):
        sink.write(tmp_path / 'a.tif', **kwargs)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['compression', 'quality', 'tileSize', 'fill', 'dtype'])
def test_choices_for_tiff_are_refused_for_other_formats(tmp_path, name):
    sink = make_sink(tile_of('uint8', 3, False, True))
    value = {'compression': 'deflate', 'quality': 80, 'tileSize': 512, 'fill': 0,
             'dtype': 'uint8'}[name]
    with pytest.raises(TileSourceError, match=f'{name} is not possible: a .png file is written'):
        sink.write(tmp_path / 'a.png', **{name: value})


@pytest.mark.parametrize(('suffix', 'key'), [('.jpg', 'quality'), ('.webp', 'quality')])
def test_quality_of_other_formats(tmp_path, suffix, key):
    sink = make_sink(tile_of('uint8', 3, False, True))
    for value in (20, 95):
        sink.write(tmp_path / f'{value}{suffix}', **{key: value})
    small, large = ((tmp_path / f'{value}{suffix}').stat().st_size for value in (20, 95))
    assert small < large
    for wrong in (0, 101, 'high', True):
        with pytest.raises(TileSourceError, match='quality must be a whole number'):
            sink.write(tmp_path / f'b{suffix}', **{key: wrong})


# Single choices


@pytest.mark.parametrize(('quality', 'subsampling', 'colours', 'chroma'), [
    (None, None, 'RGB', None), (95, None, 'RGB', None), (75, None, 'YCBCR', (2, 2)),
    (None, '4:4:4', 'YCBCR', (1, 1)), (75, '4:2:2', 'YCBCR', (2, 1)),
    (95, '4:2:0', 'YCBCR', (2, 2))])
def test_jpeg_has_the_colours_and_chroma_that_it_states(
        tmp_path, quality, subsampling, colours, chroma):
    tile = tile_of('uint8', 3, False, True)
    make_sink(tile).write(tmp_path / 'a.tif', quality=quality, subsampling=subsampling)
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        page = file.pages[0]
        assert page.photometric.name == colours
        if chroma:
            assert page.subsampling == chroma
        first = page.asarray()
    for found in (first, with_libvips(tmp_path / 'a.tif'), with_pillow(tmp_path / 'a.tif'),
                  read_all(large_image_source_vips.open(tmp_path / 'a.tif'))):
        assert np.abs(found.astype(int) - tile).mean() < 3


def test_a_higher_quality_makes_a_larger_file(tmp_path):
    sink = make_sink(random_tile('uint8', (300, 300, 3)))
    for name in ('jpeg', 'webp'):
        sizes = []
        for quality in (20, 60, 95):
            sink.write(tmp_path / 'a.tif', compression=name, quality=quality)
            sizes.append((tmp_path / 'a.tif').stat().st_size)
        assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(('dtype', 'predictor', 'expected'), [
    ('uint8', None, 'HORIZONTAL'), ('uint8', 'none', 'NONE'), ('uint16', 'yes', 'HORIZONTAL'),
    ('float32', None, 'FLOATINGPOINT'), ('float32', 'float', 'FLOATINGPOINT')])
@pytest.mark.parametrize('name', ['deflate', 'zstd', 'lzw'])
def test_the_predictor_is_the_one_asked_for(tmp_path, name, dtype, predictor, expected):
    tile = random_tile(dtype, (300, 300, 3))
    make_sink(tile).write(tmp_path / 'a.tif', compression=name, predictor=predictor, lossy=False)
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        assert tifffile.PREDICTOR(file.pages[0].predictor).name == expected
        np.testing.assert_array_equal(file.pages[0].asarray(), tile)


@pytest.mark.parametrize(('resample', 'reduce'), [
    (None, lambda cells: cells[:, 0, :, 0]), ('nearest', lambda cells: cells[:, 0, :, 0]),
    ('mean', lambda cells: np.rint(cells.mean(axis=(1, 3)))),
    ('max', lambda cells: cells.max(axis=(1, 3))),
    ('NP_MIN', lambda cells: cells.min(axis=(1, 3)))])
@pytest.mark.parametrize('bands', [1, 3])
def test_lower_levels_are_made_as_asked(tmp_path, resample, reduce, bands):
    tile = random_tile('uint8', (600, 400, bands))
    make_sink(tile).write(tmp_path / 'a.tif', lossy=False, resample=resample)
    cells = tile.reshape(300, 2, 200, 2, bands)
    found = tifffile.imread(tmp_path / 'a.tif', key=1).reshape(300, 200, bands)
    np.testing.assert_array_equal(found, reduce(cells))


@pytest.mark.parametrize('holes', [False, True])
@pytest.mark.parametrize('resample', [*ResampleMethod, 'mean', 'nearest', 'NP_MODE', 'lanczos'])
def test_every_method_of_large_image_is_known(tmp_path, resample, holes):
    tile = np.full((301, 217, 4 if holes else 3), 77, np.uint8)
    if holes:
        tile[..., 3] = 255
        tile[40:90, 100:, 3] = 0
    make_sink(tile).write(
        tmp_path / 'a.tif', compression='zstd', resample=resample, tileSize=48)
    for key, size in enumerate([(301, 217), (151, 109), (76, 55), (38, 28)]):
        level = tifffile.imread(tmp_path / 'a.tif', key=key)
        assert level.shape[:2] == size
        # Pillow multiplies colours by alpha meanwhile, and limits both to 255.
        shown = level[..., 3] > 128 if holes else np.ones(size, np.bool_)
        assert np.abs(level[shown][:, :3].astype(int) - 77).max() <= (8 if holes else 0)


def test_a_method_that_the_data_cannot_have_is_named_as_it_was_chosen(tmp_path):
    sink = make_sink(random_tile('uint16', (300, 300, 3)))
    with pytest.raises(TileSourceError, match=r"resample='PIL_NEAREST' is not possible.*nearest"):
        sink.write(tmp_path / 'a.tif', resample='PIL_NEAREST')
    sink.write(tmp_path / 'a.tif', resample='nearest')


@pytest.mark.parametrize('kwargs', [
    {'lossy': False}, {'dtype': 'float64'}, {'compression': 'zstd'}])
@pytest.mark.parametrize('name', ['a.tif', 'a.ome.tif'])
def test_one_warning_says_who_cannot_read_64_bit_floats(tmp_path, name, kwargs):
    tile = random_tile('float64', (300, 400, 2))
    sink = make_sink(tile, interpretation='multiband')
    assert sink.bandFormat == 'double'
    with pytest.warns(UserWarning, match=r"libvips, Pillow and the rele.*dtype='float32'") as said:
        sink.write(tmp_path / name, **kwargs)
    assert len(said) == 1
    source = large_image_source_vips.open(tmp_path / name)
    assert source.bandFormat == 'double'
    np.testing.assert_array_equal(read_all(source), tile)


@pytest.mark.parametrize('kwargs', [{}, {'lossy': False, 'dtype': 'float32'}])
def test_64_bit_floats_become_32_bits_without_a_warning(tmp_path, kwargs):
    tile = random_tile('float64', (300, 400))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        make_sink(tile).write(tmp_path / 'a.tif', **kwargs)
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        np.testing.assert_array_equal(file.pages[0].asarray(), tile.astype(np.float32).squeeze())


@pytest.mark.parametrize('resample', ['mean', 'median', 'lanczos'])
def test_labels_are_not_mixed(tmp_path, resample):
    sink = make_sink(random_tile('int32', (600, 600)))
    with pytest.raises(TileSourceError, match='would mix'):
        sink.write(tmp_path / 'a.tif', resample=resample)
    sink.write(tmp_path / 'a.tif', resample='mode')


def test_a_wider_dtype_can_be_chosen(tmp_path):
    tile = random_tile('uint8', (300, 300, 3))
    make_sink(tile).write(tmp_path / 'a.tif', dtype='uint16')
    found = tifffile.imread(tmp_path / 'a.tif', key=0)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, tile)
