"""Lower levels of pictures with alpha: transparent colours have no effect."""

import struct

import numpy as np
import PIL.Image
import pytest
import pyvips
import tifffile

from helpers.around import needs
from helpers.pixels import random_pixels
from helpers.reading import level
from helpers.reduce_model import modelled
from helpers.tiff_bytes import LONG, SHORT, gray_page, tiff_bytes
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.base.reduce import reduce_pixels
from large_image_source_vips.reading import levels as levels_module
from large_image_source_vips.reading import rows as decoding
from large_image_source_vips.reading.reader import FileReader

RED, BLUE = (250, 40, 60), (0, 0, 255)


def columns(rows, cols, dtype='uint8', colours=3):
    """Opaque red columns, and between them colours that nobody can see."""
    scale = 257 if dtype == 'uint16' else 1
    pixels = np.zeros((rows, cols, colours + 1), dtype)
    pixels[:, 0::2, :-1] = np.multiply(RED[:colours], scale)
    pixels[:, 0::2, -1] = 65535 if dtype == 'uint16' else 255
    pixels[:, 1::2, :-1] = np.multiply(BLUE[-colours:], scale)
    return pixels


def assert_red(path, *, colours=3, tolerance=0, scale=1, reductions=range(1, 7)):
    """That all levels of a picture of ``columns`` are as red as its visible pixels."""
    reader = FileReader(path)
    assert reader.bands == colours + 1
    for reduction in reductions:
        found = level(reader, reduction)
        assert (found[..., -1] > 0).all()
        np.testing.assert_allclose(
            found[..., :-1], np.broadcast_to(np.multiply(RED[:colours], scale),
                                             found[..., :-1].shape), atol=tolerance)


STORED = {
    'tiles': {'tile': (256, 256)},
    'deflated tiles': {'tile': (256, 256), 'compression': 'deflate', 'predictor': True},
    'small tiles': {'tile': (48, 80), 'compression': 'lzw'},
    'strips': {'rowsperstrip': 7},
    'deflated strips': {'rowsperstrip': 64, 'compression': 'deflate'},
    'one strip': {'rowsperstrip': 4000},
}


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('colours', [1, 3])
@pytest.mark.parametrize('stored', STORED)
def test_tiff(tmp_path, stored, colours, dtype):
    tifffile.imwrite(tmp_path / 'a.tif', columns(701, 1303, dtype, colours),
                     photometric='rgb' if colours == 3 else 'minisblack', planarconfig='contig',
                     extrasamples=['unassalpha'], metadata=None,
                     **{key: value for key, value in STORED[stored].items()
                        if key != 'predictor' or dtype != 'float32'})
    assert_red(tmp_path / 'a.tif', colours=colours, scale=257 if dtype == 'uint16' else 1,
               tolerance=1e-3)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turned_tiff(tmp_path, orientation):
    tifffile.imwrite(tmp_path / 'a.tif', columns(301, 503), photometric='rgb', tile=(64, 64),
                     extrasamples=['unassalpha'], extratags=[(274, 'H', 1, orientation, True)])
    assert_red(tmp_path / 'a.tif')


def test_strips_that_are_only_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(levels_module, '_MAX_KEPT', 1000)
    monkeypatch.setattr(levels_module, 'MAX_LEVEL_MEMORY', 1000)
    monkeypatch.setattr(decoding, '_BAND_BYTES', 1000)
    tifffile.imwrite(tmp_path / 'a.tif', columns(1301, 701), photometric='rgb', rowsperstrip=13,
                     extrasamples=['unassalpha'])
    assert_red(tmp_path / 'a.tif', reductions=(5, 4, 3, 2, 1))


def test_a_pixel_has_one_value_whatever_it_is_read_with(tmp_path):
    pixels = random_pixels((901, 1101, 4))
    pixels[::3, ::5, 3] = 0
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', tile=(64, 64),
                     extrasamples=['unassalpha'])
    reader = FileReader(tmp_path / 'a.tif')
    for reduction in (1, 2):
        whole = level(FileReader(tmp_path / 'a.tif'), reduction)
        np.testing.assert_array_equal(whole, modelled(pixels, 1 << reduction, -1))
        part = reader.read(0, reduction, Rect(51, 33, 100, 77))
        np.testing.assert_array_equal(part, whole[33:110, 51:151])


@pytest.mark.parametrize(('photometric', 'extra', 'alpha'), [
    ('rgb', [2], 3), ('rgb', [0], None), ('rgb', [2, 0], 3), ('rgb', [0, 2], 4),
    ('rgb', [2, 2], None), ('rgb', [0, 0], None), ('rgb', [0, 0, 2], 5), ('minisblack', [2], 1),
    ('minisblack', [0], None), ('minisblack', [0, 0, 0, 2], 4), ('minisblack', [0, 0], None)])
@pytest.mark.parametrize('stored', ['tiles', 'strips'])
def test_extra_samples_say_what_is_alpha(tmp_path, stored, photometric, extra, alpha):
    colours = 3 if photometric == 'rgb' else 1
    pixels = random_pixels((101, 67, colours + len(extra)))
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric=photometric, extrasamples=extra,
                     planarconfig='contig', metadata=None, **STORED[stored])
    found = level(FileReader(tmp_path / 'a.tif'), 1)
    expected = (reduce_pixels(pixels, 2, averaged=True) if alpha is None
                else modelled(pixels, 2, alpha))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(('samples', 'alpha'), [(2, -1), (3, None), (4, -1), (5, None)])
def test_one_sample_more_without_a_word_is_alpha(tmp_path, samples, alpha):
    pixels = random_pixels((101, 67, samples))
    page = gray_page(
        67, 101, tag258=(SHORT, [8] * samples), tag262=(SHORT, [1 if samples < 3 else 2]),
        tag277=(SHORT, [samples]), tag279=(LONG, [pixels.size]))
    (tmp_path / 'a.tif').write_bytes(tiff_bytes(page, after_header=pixels.tobytes()))
    assert FileReader(tmp_path / 'a.tif')._layout.frames[0].alpha == alpha


def test_associated_alpha_is_divided_out_before(tmp_path):
    pixels = random_pixels((100, 67, 4))
    pixels[..., :3] = pixels[..., :3].astype(int) * pixels[..., 3:] // 255
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', extrasamples=['assocalpha'])
    reader = FileReader(tmp_path / 'a.tif')
    found = level(reader, 1).astype(float)
    np.testing.assert_array_equal(found, modelled(level(reader), 2, -1))
    # Multiplied in again, that is the mean of what the file holds.
    share = found[..., 3:] / 255
    means = pixels.reshape(50, 2, 67, 4)[:, :, :66].reshape(50, 2, 33, 2, 4).mean(axis=(1, 3))
    np.testing.assert_allclose((found[..., :3] * share)[:, :33], means[..., :3], atol=2)


def test_ink_with_alpha(tmp_path):
    pixels = np.zeros((200, 300, 5), np.uint8)
    pixels[:, ::2] = (0, 200, 100, 0, 255)
    pixels[:, 1::2] = (255, 0, 0, 0, 0)
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='separated', extrasamples=[2],
                     tile=(64, 64))
    reader = FileReader(tmp_path / 'a.tif')
    visible = level(reader)[0, 0]
    assert reader.bands == 4
    for reduction in (1, 2, 3):
        assert (level(reader, reduction)[..., :3] == visible[:3]).all()


@pytest.mark.parametrize(('name', 'options', 'tolerance'), [
    ('a.png', {}, 0), ('a.webp', {'lossless': True, 'exact': True}, 0)])
def test_formats_that_are_one_stream(tmp_path, name, options, tolerance):
    PIL.Image.fromarray(columns(701, 1303)).save(tmp_path / name, **options)
    assert_red(tmp_path / name, tolerance=tolerance)


def test_gray_and_alpha_of_16_bits_in_png(tmp_path):
    image = pyvips.Image.new_from_array(columns(300, 400, 'uint16', 1))
    image.copy(interpretation='grey16').pngsave(str(tmp_path / 'a.png'))
    assert_red(tmp_path / 'a.png', colours=1, scale=257, reductions=(1, 2, 3))


def test_a_mapped_file(tmp_path):
    image = pyvips.Image.new_from_array(columns(300, 400))
    image.copy(interpretation='srgb').vipssave(str(tmp_path / 'a.v'))
    assert_red(tmp_path / 'a.v')


def test_bands_of_data_are_all_averaged_alike(tmp_path):
    pixels = random_pixels((100, 99, 4))
    pyvips.Image.new_from_array(pixels).copy(interpretation='multiband').vipssave(
        str(tmp_path / 'a.v'))
    np.testing.assert_array_equal(level(FileReader(tmp_path / 'a.v'), 1),
                                  reduce_pixels(pixels, 2, averaged=True))


@needs('jp2ksave')
def test_jpeg_2000(tmp_path):
    image = pyvips.Image.new_from_array(columns(701, 1303)).copy(interpretation='srgb')
    image.jp2ksave(str(tmp_path / 'a.jp2'), lossless=True)
    assert_red(tmp_path / 'a.jp2')


def openexr(pixels):
    """An OpenEXR file of single rows without compression; RGBA as 16-bit floats."""
    rows, cols = pixels.shape[:2]
    window = struct.pack('<4i', 0, 0, cols - 1, rows - 1)
    channels = b''.join(struct.pack('<cxiB3xii', name, 1, 0, 1, 1)
                        for name in (b'A', b'B', b'G', b'R'))
    attributes = [
        (b'channels', b'chlist', channels + b'\0'), (b'compression', b'compression', b'\0'),
        (b'dataWindow', b'box2i', window), (b'displayWindow', b'box2i', window),
        (b'lineOrder', b'lineOrder', b'\0'),
        (b'pixelAspectRatio', b'float', struct.pack('<f', 1)),
        (b'screenWindowCenter', b'v2f', bytes(8)),
        (b'screenWindowWidth', b'float', struct.pack('<f', 1))]
    head = struct.pack('<II', 20000630, 2) + b''.join(
        name + b'\0' + kind + b'\0' + struct.pack('<I', len(value)) + value
        for name, kind, value in attributes) + b'\0'
    lines = [struct.pack('<iI', row, 8 * cols) + line.T[::-1].astype('<f2').tobytes()
             for row, line in enumerate(pixels)]
    start = len(head) + 8 * rows
    offsets = [start + row * len(lines[0]) for row in range(rows)]
    return b''.join([head, struct.pack(f'<{rows}Q', *offsets), *lines])


@needs('openexrload')
def test_colours_that_are_multiplied_by_alpha_have_plain_means(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 9, (30, 40, 4)).astype('float32') / 8
    pixels[..., :3] *= pixels[..., 3:]
    (tmp_path / 'a.exr').write_bytes(openexr(pixels))
    reader = FileReader(tmp_path / 'a.exr')
    # libvips may give alpha another range.
    np.testing.assert_allclose(level(reader)[..., :3], pixels[..., :3], atol=1e-3)
    np.testing.assert_array_equal(level(reader, 1), reduce_pixels(level(reader), 2, averaged=True))


def test_levels_that_a_file_stores_stay_as_they_are(tmp_path):
    full, half = columns(400, 600), random_pixels((200, 300, 4))
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        tiff.write(full, photometric='rgb', extrasamples=['unassalpha'], subifds=1, tile=(64, 64))
        tiff.write(half, photometric='rgb', extrasamples=['unassalpha'], tile=(64, 64),
                   subfiletype=1)
    reader = FileReader(tmp_path / 'a.tif')
    np.testing.assert_array_equal(level(reader, 1), half)
    np.testing.assert_array_equal(level(reader, 2), modelled(half, 2, -1))


def test_palettes_with_transparency_are_picked(tmp_path):
    image = PIL.Image.new('P', (300, 200))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1] * 30_000)
    image.save(tmp_path / 'a.png', transparency=1)
    reader = FileReader(tmp_path / 'a.png')
    full = level(reader)
    np.testing.assert_array_equal(level(reader, 1), full[::2, ::2])


def test_associated_images_have_alpha_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr('large_image_source_vips.reading.reader._MAX_ASSOCIATED', 64)
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        tiff.write(random_pixels((500, 500), 'int16'), photometric='minisblack', metadata=None)
        tiff.write(columns(120, 200), photometric='rgb', extrasamples=['unassalpha'],
                   description='label', metadata=None)
        tiff.write(columns(120, 200)[..., :3], photometric='rgb', description='macro',
                   metadata=None)
        tiff.write(random_pixels((120, 200), 'uint32'), photometric='minisblack',
                   description='overview', metadata=None)
    reader = FileReader(tmp_path / 'a.tif')
    label = np.asarray(reader.associated_image('label'))
    assert label.shape == (30, 50, 4)
    assert (label[..., :3] == RED).all()
    macro = np.asarray(reader.associated_image('macro'))
    assert (macro == np.rint((np.array(RED) + BLUE) / 2)).all()
    assert reader.associated_image('overview').size == (50, 30)
