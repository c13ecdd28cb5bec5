"""
``info`` shows the contents of a file.
"""

import json

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import tifffile

import large_image_source_vips
from helpers.command_line import run
from helpers.pixels import random_pixels


@pytest.fixture
def slide(tmp_path):
    """A pyramid with one stored level, a label, a pixel size and a profile."""
    path = tmp_path / 'slide.tif'
    pixels = random_pixels((600, 800, 3))
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, tile=(128, 256), compression='deflate', photometric='rgb',
                   resolution=(40_000, 40_000), resolutionunit='CENTIMETER', subifds=1,
                   iccprofile=PIL.ImageCms.ImageCmsProfile(
                       PIL.ImageCms.createProfile('sRGB')).tobytes(), metadata=None)
        tiff.write(pixels[::2, ::2], tile=(128, 128), compression='lzw', photometric='rgb',
                   subfiletype=1, metadata=None)
        tiff.write(pixels[:90, :70], description='label', photometric='rgb', metadata=None)
    return path


@pytest.fixture
def stack(tmp_path):
    path = tmp_path / 'stack.ome.tif'
    tifffile.imwrite(path, np.zeros((2, 3, 40, 50), 'uint16'), ome=True, photometric='minisblack',
                     metadata={'axes': 'ZCYX', 'Channel': {'Name': ['DAPI', 'FITC', 'Cy5']}})
    return path


def test_table_of_a_pyramid(capsys, slide):
    done = run(capsys, 'info', slide)
    assert done.status == 0
    lines = {line[:17].strip(): line[17:] for line in done.out.splitlines()[1:]}
    assert done.out.splitlines()[0] == str(slide)
    assert lines['size'] == '800 x 600 pixels, 0.2 x 0.15 mm'
    assert lines['pixel size'] == '0.25 um'
    assert lines['magnification'] == '40'
    assert lines['samples'] == 'uint8, 3 bands, RGB'
    assert lines['associated'] == 'label: 70 x 90, page 1, uncompressed'
    assert lines['loader'] == 'tiffload'
    assert 'sRGB' in lines['profile']
    levels = [line.split(None, 4) for line in done.out.split('levels')[1].splitlines()[:3]]
    assert levels[0] == ['2', '800', 'x', '600', 'page 0, tiles of 256 x 128, deflate']
    assert levels[1] == ['1', '400', 'x', '300', 'sub-IFD 0 of page 0, tiles of 128 x 128, LZW']
    assert levels[2] == ['0', '200', 'x', '150', 'computed']


@pytest.mark.parametrize(('palette', 'names', 'shown'), [
    (['black', 'red'], ['glass', 'tumour'], ['0 #000000 glass', '1 #ff0000 tumour']),
    ({7: 'red'}, None, ['7 #ff0000']), (None, {3: 'fat'}, ['3 fat']),
    (['red'] * 300, None, [f'{label} #ff0000' for label in range(20)] + ['and 280 more'])])
def test_labels_with_colours_and_names(capsys, tmp_path, palette, names, shown):
    sink = large_image_source_vips.new()
    sink.palette, sink.classNames = palette, names
    sink.addTile(np.ones((64, 64), 'uint8'), interpretation='labels')
    sink.write(tmp_path / 'labels.tif')
    text = run(capsys, 'info', tmp_path / 'labels.tif').out
    lines = text.split('labels  ')[1].split('levels')[0].strip().splitlines()
    assert [line.strip() for line in lines] == shown
    found = json.loads(run(capsys, 'info', '--json', tmp_path / 'labels.tif').out)
    assert (found['palette'] is None, found['classes'] is None) == (palette is None, names is None)


def test_json_of_a_pyramid(capsys, slide):
    found = json.loads(run(capsys, 'info', '--json', slide).out)
    assert (found['width'], found['height'], found['mm_x']) == (800, 600, pytest.approx(0.00025))
    assert found['levels'][1] == {
        'level': 1, 'width': 400, 'height': 300, 'from': 'sub-IFD 0 of page 0', 'tileWidth': 128,
        'tileHeight': 128, 'compression': 'LZW'}
    assert found['levels'][0]['from'] == 'computed'
    assert found['levels'][0]['compression'] is None
    assert found['associated']['label']['height'] == 90


def test_frames_axes_and_channels(capsys, stack):
    done = run(capsys, 'info', stack)
    assert '6 (C 3, Z 2)' in done.out
    assert 'channels: DAPI, FITC, Cy5' in done.out
    found = json.loads(run(capsys, 'info', '--json', stack).out)
    assert (found['frames'], found['axes']) == (6, {'C': 3, 'Z': 2})
    assert found['dtype'] == 'uint16'


def test_what_is_unknown_is_said(capsys, tmp_path):
    PIL.Image.fromarray(random_pixels((9, 8, 3))).save(tmp_path / 'a.png')
    done = run(capsys, 'info', tmp_path / 'a.png')
    lines = {line[:17].strip(): line[17:] for line in done.out.splitlines()[1:]}
    assert lines['size'] == '8 x 9 pixels'
    assert {lines[name] for name in ('pixel size', 'magnification')} == {'unknown'}
    assert {lines[name] for name in ('profile', 'associated')} == {'none'}
    assert lines['loader'] == 'pngload'


def test_levels_that_a_decoder_makes(capsys, tmp_path):
    PIL.Image.fromarray(np.zeros((64, 5000, 3), 'uint8')).save(tmp_path / 'a.jpg')
    found = json.loads(run(capsys, 'info', '--json', tmp_path / 'a.jpg').out)
    assert [level['from'] for level in found['levels']].count('decoded at 1/8') == 1
    assert found['levels'][-1]['from'] == 'the whole file'


def test_several_files_one_of_them_bad(capsys, slide, stack, tmp_path):
    (tmp_path / 'text.tif').write_text('no image')
    done = run(capsys, 'info', '--json', slide, tmp_path / 'text.tif', stack)
    assert done.status == 1
    assert [json.loads(line)['file'] for line in done.out.splitlines()] == [str(slide), str(stack)]
    (error,) = done.err.splitlines()
    assert 'text.tif' in error
