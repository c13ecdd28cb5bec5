"""Formats read with ImageMagick: signatures and pixels."""

import struct
from contextlib import suppress

import numpy as np
import PIL.Image
import pytest
import pyvips
from large_image.exceptions import TileSourceError

from helpers.around import needs
from helpers.pixels import random_pixels
from helpers.reading import level
from large_image_source_vips.reading.known_formats import MAGICK_SIGNATURES, known_suffixes
from large_image_source_vips.reading.reader import FileReader

PIXELS = random_pixels((40, 57, 3))
PILLOW = {
    'bmp': {}, 'tga': {}, 'rle.tga': {'compression': 'tga_rle'}, 'top.tga': {'orientation': 1},
    'sgi': {}, 'rgb': {}, 'pcx': {}, 'dds': {}}


@needs('magickload')
@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'L', 'P'])
@pytest.mark.parametrize('name', PILLOW)
def test_files_by_pillow(tmp_path, name, mode):
    image = PIL.Image.fromarray(PIXELS)
    image = image.quantize(16) if mode == 'P' else image.convert(mode)
    try:
        image.save(tmp_path / f'a.{name}', **PILLOW[name])
    except (OSError, ValueError) as exc:
        pytest.skip(f'Pillow does not write it: {exc}')
    with PIL.Image.open(tmp_path / f'a.{name}') as saved:
        expected = np.asarray(saved.convert('RGB'))
    # The name does not matter.
    (tmp_path / f'a.{name}').rename(tmp_path / 'a')
    reader = FileReader(tmp_path / 'a')
    assert reader.internal_metadata()['vips-loader'] == 'magickload'
    found = level(reader)
    if found.shape[2] < 3:
        found = np.repeat(found[..., :1], 3, 2)
    np.testing.assert_array_equal(found[..., :3], expected)


@needs('magickload')
@needs('magicksave')
@pytest.mark.parametrize('kind', ['dpx', 'viff', 'psb', 'psd', 'sgi', 'pcx'])
def test_files_by_image_magick(tmp_path, kind):
    image = pyvips.Image.new_from_array(PIXELS)
    image.magicksave(str(tmp_path / 'a.bin'), format=kind)
    found = level(FileReader(tmp_path / 'a.bin'))
    if found.dtype == np.uint16:
        found = found / 257
    np.testing.assert_allclose(found[..., :3], PIXELS, atol=0.5)


def tga(kind=2, bits=24, width=57, height=40, mapped=0, map_length=0, map_bits=0, flags=0):
    return struct.pack('<3B2HB4H2B', 0, mapped, kind, 0, map_length, map_bits, 0, 0, width,
                       height, bits, flags) + bytes(57 * 40 * 4)


def recognised(head):
    return [signature.name for signature in MAGICK_SIGNATURES if signature.matches(head[:512])]


@pytest.mark.parametrize(('head', 'names'), [
    (tga(), ['TGA']), (tga(kind=10, bits=32, flags=8), ['TGA']), (tga(kind=3, bits=8), ['TGA']),
    (tga(kind=1, bits=8, mapped=1, map_length=16, map_bits=24), ['TGA']),
    # ImageMagick would read these wrongly, or they are something else.
    (tga(kind=3, bits=16), []), (tga(kind=0), []), (tga(kind=4), []), (tga(bits=7), []),
    (tga(width=0), []), (tga(height=0), []), (tga(mapped=1), []), (tga(mapped=2), []),
    (tga(flags=0x40), []), (tga(flags=9), []), (tga(map_length=3), []), (tga(map_bits=24), []),
    (tga(kind=1, bits=8, mapped=1, map_length=0, map_bits=24), []), (b'', []), (bytes(512), []),
    (tga()[:17], []), (b'\0\0\1\0' + bytes(100), ['Windows icon']),
    (b'\x01\xda\0\1\0\3' + bytes(100), ['SGI']), (b'\x01\xda\1\2\0\1' + bytes(100), ['SGI']),
    (b'\x01\xda\2\1\0\3' + bytes(100), []), (b'\x01\xda\0\1\0\4' + bytes(100), []),
    (b'\x01\xda', []), (b'\n\5\1\x08' + bytes(100), ['PCX']), (b'\n\5\0\x08' + bytes(100), []),
    (b'\n\n\n\n', []), (b'\n<svg/>', []), (b'SDPX', ['DPX']), (b'XPDS', ['DPX']),
    # Formats of text, which can refer to other files.
    (b'<?xml version="1.0"?><msl/>', []), (b'push graphic-context\n', []), (b'id=ImageMagick', []),
    (b'%!PS', []), (b'#define a_width 3', [])])
def test_signatures(head, names):
    assert recognised(head) == names


@pytest.mark.skipif(bool(pyvips.type_find('VipsOperation', 'magickload')),
                    reason='this libvips has magickload')
@pytest.mark.parametrize(('data', 'name'), [
    (tga(), 'TGA'), (b'\x01\xda\0\1\0\3' + bytes(600), 'SGI'),
    (b'\n\5\1\x08' + bytes(600), 'PCX')])
def test_the_missing_loader_is_named(tmp_path, data, name):
    (tmp_path / 'a').write_bytes(data)
    with pytest.raises(TileSourceError, match=f'{name}.*ImageMagick'):
        FileReader(tmp_path / 'a')


@needs('magickload')
def test_suffixes():
    assert {'tga', 'sgi', 'pcx', 'dpx', 'viff', 'psb'} <= set(known_suffixes())


@needs('magickload')
@pytest.mark.parametrize('seed', range(4))
def test_damaged_files_only_raise_source_errors(tmp_path, seed):
    rng = np.random.default_rng(seed)
    for name in ('a.tga', 'a.sgi', 'a.pcx'):
        PIL.Image.fromarray(PIXELS).save(tmp_path / name)
        original = (tmp_path / name).read_bytes()
        for _ in range(10):
            data = bytearray(original)
            for place in rng.integers(0, 40, 3):
                data[place] = rng.integers(0, 256)
            (tmp_path / name).write_bytes(data[:rng.integers(20, len(data))])
            with suppress(TileSourceError):
                level(FileReader(tmp_path / name), 1)
