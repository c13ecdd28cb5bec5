"""All sample types are read as by other readers."""

import numpy as np
import PIL.Image
import pytest
import pyvips
import tifffile
from large_image.tilesource.utilities import _imageToPIL

from helpers.pixels import random_pixels
from helpers.reading import level, level_by_tiles, read
from large_image_source_vips.base.formats import DTYPE_OF_FORMAT
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.reading.reader import FileReader, to_pil

DTYPES = ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'float32']


@pytest.mark.parametrize('tile', [None, (64, 96)], ids=['strips', 'tiles'])
@pytest.mark.parametrize('bands', [1, 2, 3, 4, 5])
@pytest.mark.parametrize('dtype', DTYPES)
def test_tiff_samples_are_exact(tmp_path, dtype, bands, tile):
    pixels = random_pixels((150, 211, bands), dtype)
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, pixels, photometric='rgb' if bands in {3, 4} else 'minisblack',
                     planarconfig='contig' if bands > 1 else None, tile=tile,
                     extrasamples=[0] * (bands - 1) if bands in {2, 5} else None)

    reader = FileReader(path)

    assert reader.size == (211, 150)
    assert reader.dtype == np.dtype(dtype)
    assert reader.bands == bands
    np.testing.assert_array_equal(level(reader), pixels)
    np.testing.assert_array_equal(level_by_tiles(reader, side=50), pixels)


@pytest.mark.parametrize('compression', [None, 'lzw', 'deflate', 'packbits'])
@pytest.mark.parametrize('tile', [None, (64, 64)], ids=['strips', 'tiles'])
@pytest.mark.parametrize('byteorder', ['<', '>'])
@pytest.mark.parametrize('bigtiff', [False, True], ids=['classic', 'big'])
def test_tiff_containers_are_exact(tmp_path, compression, tile, byteorder, bigtiff):
    pixels = random_pixels((150, 211, 3), 'uint16')
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, pixels, photometric='rgb', compression=compression, tile=tile,
                     byteorder=byteorder, bigtiff=bigtiff)
    np.testing.assert_array_equal(read(path), pixels)


def test_planes_stored_apart_are_one_image(tmp_path):
    pixels = random_pixels((150, 211, 3))
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, pixels.transpose(2, 0, 1), photometric='rgb', planarconfig='separate')
    np.testing.assert_array_equal(read(path), pixels)


@pytest.mark.parametrize('rows_each', [1, 8, 64, 200])
@pytest.mark.parametrize('bands', [2, 3, 4, 5])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
@pytest.mark.parametrize('order', ['<', '>'])
def test_planes_of_gray_stored_apart_are_one_image(tmp_path, dtype, bands, rows_each, order):
    """Libvips alone decodes the first row of each strip only."""
    pixels = random_pixels((150, 211, bands), dtype)
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, pixels.transpose(2, 0, 1), photometric='minisblack', metadata=None,
                     planarconfig='separate', rowsperstrip=rows_each, compression='zlib',
                     byteorder=order)
    reader = FileReader(path)
    np.testing.assert_array_equal(level_by_tiles(reader), pixels)
    assert reader.interpretation == 'multiband'
    with reader.picture() as picture:
        color, alpha = picture.read(Rect(0, 0, 211, 150))
    assert alpha is None
    np.testing.assert_array_equal(color, pixels)


def test_white_may_be_zero(tmp_path):
    pixels = random_pixels((50, 61))
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, pixels, photometric='miniswhite')
    np.testing.assert_array_equal(read(path)[..., 0], np.asarray(PIL.Image.open(path)))


@pytest.mark.parametrize('inverted', [False, True], ids=['black is 0', 'white is 0'])
def test_one_bit_is_black_and_white(tmp_path, inverted):
    pixels = random_pixels((50, 61)) > 127
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, pixels, photometric='miniswhite' if inverted else 'minisblack')
    expected = np.asarray(PIL.Image.open(path).convert('L'))
    np.testing.assert_array_equal(read(path)[..., 0], expected)


@pytest.mark.parametrize('bits', [2, 4])
def test_few_bits_fill_the_range(tmp_path, bits):
    # As Pillow has it: the largest sample is 255.
    pixels = random_pixels((50, 61)) % (1 << bits)
    path = tmp_path / 'a.tif'
    try:
        tifffile.imwrite(path, pixels, photometric='minisblack', bitspersample=bits)
    except NotImplementedError as exc:
        pytest.skip(f'this imagecodecs does not pack samples of {bits} bits: {exc}')
    expected = pixels * (255 // ((1 << bits) - 1))
    np.testing.assert_array_equal(read(path)[..., 0], expected)


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_palettes_become_colours(tmp_path, suffix, bits):
    indices = random_pixels((50, 61)) >> (8 - bits)
    image = PIL.Image.frombytes('P', (61, 50), indices.tobytes())
    palette = random_pixels((1 << bits, 3), seed=1)
    image.putpalette(palette.tobytes())
    path = tmp_path / f'a{suffix}'
    image.save(path, **({'bits': bits} if suffix == '.png' else {}))
    np.testing.assert_array_equal(read(path), np.asarray(image.convert('RGB')))


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('mode', ['L', 'LA', 'RGB', 'RGBA', 'I;16'])
def test_pillow_modes_are_exact(tmp_path, mode, suffix):
    bands = {'L': 1, 'LA': 2, 'RGB': 3, 'RGBA': 4, 'I;16': 1}[mode]
    dtype = 'uint16' if mode == 'I;16' else 'uint8'
    pixels = random_pixels((50, 61, bands), dtype)
    path = tmp_path / f'a{suffix}'
    PIL.Image.fromarray(pixels[..., 0] if bands == 1 else pixels).save(path)
    reader = FileReader(path)
    assert (reader.dtype, reader.bands) == (np.dtype(dtype), bands)
    np.testing.assert_array_equal(level(reader), pixels)


@pytest.mark.parametrize('bands', [3, 4])
def test_lossless_webp_is_exact(tmp_path, bands):
    pixels = random_pixels((50, 61, bands))
    if bands == 4:
        pixels[..., 3] |= 1  # colour under zero alpha is not kept by WebP
    path = tmp_path / 'a.webp'
    PIL.Image.fromarray(pixels).save(path, lossless=True)
    np.testing.assert_array_equal(read(path), pixels)


@pytest.mark.parametrize('mode', ['L', 'RGB'])
@pytest.mark.parametrize('progressive', [False, True])
def test_jpeg_is_decoded_as_pillow_does(tmp_path, mode, progressive):
    pixels = random_pixels((90, 121, 3))
    path = tmp_path / 'a.jpg'
    PIL.Image.fromarray(pixels).convert(mode).save(path, progressive=progressive, subsampling=0)
    expected = np.asarray(PIL.Image.open(path)).reshape(90, 121, -1)
    # Different builds of libjpeg may round differently.
    np.testing.assert_allclose(read(path), expected, atol=1)


@pytest.mark.parametrize('name', DTYPE_OF_FORMAT)
def test_the_format_of_libvips_keeps_every_format(tmp_path, name):
    dtype = DTYPE_OF_FORMAT[name]
    pixels = (random_pixels((20, 31, 2), 'float32') + 1j if dtype.kind == 'c'
              else random_pixels((20, 31, 2), dtype)).astype(dtype)
    path = tmp_path / 'a.v'
    pyvips.Image.new_from_memory(pixels.tobytes(), 31, 20, 2, name).vipssave(str(path))
    reader = FileReader(path)
    if dtype.kind == 'c':
        # The two components are two bands.
        pixels = pixels.view(f'float{dtype.itemsize * 4}')
    assert reader.dtype == pixels.dtype
    np.testing.assert_array_equal(level(reader), pixels)


def test_lab_of_three_bytes_and_a_half_is_unpacked(tmp_path):
    pixels = random_pixels((20, 31, 3), seed=3)
    packed = pyvips.Image.new_from_array(pixels).colourspace('labq')
    path = tmp_path / 'a.v'
    packed.vipssave(str(path))
    reader = FileReader(path)
    assert (reader.dtype, reader.bands) == (np.dtype('float32'), 3)
    expected = packed.LabQ2Lab().numpy()
    np.testing.assert_allclose(level(reader), expected, atol=1e-4)


def test_radiance_is_unpacked(tmp_path):
    pixels = np.abs(random_pixels((20, 31, 3), 'float32')) * 1e-3
    packed = pyvips.Image.new_from_array(pixels).copy(interpretation='scrgb').float2rad()
    path = tmp_path / 'a.v'
    packed.vipssave(str(path))
    expected = packed.rad2float().numpy()
    found = read(path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('suffix', ['.jpg', '.tif'])
def test_inks_become_colours_as_in_pillow(tmp_path, suffix):
    image = PIL.Image.fromarray(random_pixels((50, 61, 4)), 'CMYK')
    path = tmp_path / f'a{suffix}'
    image.save(path, **({'quality': 100, 'subsampling': 0} if suffix == '.jpg' else {}))
    reader = FileReader(path)
    assert (reader.bands, reader.interpretation) == (3, 'srgb')
    expected = np.asarray(PIL.Image.open(path).convert('RGB')).astype(int)
    assert np.abs(level(reader) - expected).max() <= 2


def test_inks_of_sixteen_bits_become_colours(tmp_path):
    pixels = np.array([[[0, 0, 0, 0], [65535, 0, 0, 0], [0, 0, 0, 65535], [0, 32768, 0, 32768]]],
                      'uint16')
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, pixels, photometric='separated')
    reader = FileReader(path)
    assert reader.interpretation == 'rgb16'
    white = 65535
    assert level(reader).tolist() == [
        [[white] * 3, [0, white, white], [0, 0, 0], [32767, 16383, 32767]]]


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['tiles', 'strips', 'jpeg'])
def test_orientation_is_applied(tmp_path, kind, orientation):
    path = tmp_path / ('a.jpg' if kind == 'jpeg' else 'a.tif')
    if kind == 'jpeg':
        exif = PIL.Image.Exif()
        exif[274] = orientation
        image = PIL.Image.fromarray(random_pixels((70, 101, 3)))
        image.save(path, exif=exif, quality=95)
    else:
        tifffile.imwrite(path, random_pixels((70, 101, 3)), photometric='rgb',
                         tile=(32, 32) if kind == 'tiles' else None,
                         extratags=[(274, 'H', 1, orientation, True)])
    stored = np.asarray(PIL.Image.open(path)) if kind == 'jpeg' else tifffile.imread(path)
    turned = {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
              5: stored.transpose(1, 0, 2), 6: np.rot90(stored, -1),
              7: stored[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(stored)}[orientation]
    reader = FileReader(path)
    assert reader.size == turned.shape[1::-1]
    np.testing.assert_allclose(level(reader), turned, atol=1 if kind == 'jpeg' else 0)
    np.testing.assert_allclose(
        level_by_tiles(reader, side=29), turned, atol=1 if kind == 'jpeg' else 0)


@pytest.mark.parametrize('bands', [1, 2, 3, 4, 5])
@pytest.mark.parametrize('dtype', DTYPES)
def test_associated_images_become_8_bits_as_in_large_image(dtype, bands):
    pixels = random_pixels((37, 41, bands), dtype)
    if dtype.startswith('float'):
        pixels[:4, :4, 0] = [np.nan, np.inf, -np.inf, -3]
        pixels[4:8, :4, 0] = [0.999, 254.999, 256, 1e30]
    else:
        pixels[:2, :2, 0] = np.iinfo(dtype).min, np.iinfo(dtype).max
    before = pixels.copy()
    for view in (pixels, pixels[::-2, ::3]):
        found, expected = to_pil(view), _imageToPIL(view)
        assert found.mode == expected.mode
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    np.testing.assert_array_equal(pixels, before)
