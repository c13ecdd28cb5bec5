"""
``thumbnail``, ``tile`` and ``region`` save part of an image.
"""

import numpy as np
import PIL.Image
import pytest
import tifffile

import large_image_source_vips
from helpers.command_line import run
from helpers.pixels import random_pixels

PIXELS = random_pixels((700, 900, 3))


@pytest.fixture
def slide(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', tile=(256, 256))
    return tmp_path / 'a.tif'


def saved(path):
    return np.load(path) if path.suffix == '.npy' else np.asarray(PIL.Image.open(path))


@pytest.mark.parametrize('suffix', ['.png', '.npy'])
def test_region_is_exact(capsys, slide, tmp_path, suffix):
    out = tmp_path / f'out{suffix}'
    assert run(capsys, 'region', slide, out, '--crop', '100,200,333,222').status == 0
    np.testing.assert_array_equal(saved(out), PIXELS[200:422, 100:433])


def test_region_is_clipped(capsys, slide, tmp_path):
    run(capsys, 'region', slide, tmp_path / 'a.npy', '--crop', '890,650,500,500')
    np.testing.assert_array_equal(saved(tmp_path / 'a.npy'), PIXELS[650:, 890:])


def test_region_of_a_level_has_all_pixels_it_touches(capsys, slide, tmp_path):
    run(capsys, 'region', slide, tmp_path / 'a.npy', '--crop', '101,203,700,397', '--level', '1')
    source = large_image_source_vips.open(slide, edge=True)
    level = np.empty((350, 450, 3), 'uint8')
    for row in range(2):
        for column in range(2):
            tile = source.getTile(column, row, 1, numpyAllowed='always')
            level[row * 256:row * 256 + 256, column * 256:column * 256 + 256] = tile
    np.testing.assert_array_equal(saved(tmp_path / 'a.npy'), level[101:300, 50:401])


@pytest.mark.parametrize('size', [100, 37])
def test_thumbnail_fits(capsys, slide, tmp_path, size):
    run(capsys, 'thumbnail', slide, tmp_path / 'a.png', '--size', size)
    assert max(saved(tmp_path / 'a.png').shape) == size


def test_tile_of_the_grid(capsys, slide, tmp_path):
    run(capsys, 'tile', slide, tmp_path / 'a.npy', '--at', '3,2')
    np.testing.assert_array_equal(saved(tmp_path / 'a.npy'), PIXELS[512:, 768:])
    run(capsys, 'tile', slide, tmp_path / 'b.npy', '--at', '0,0', '--level', '0')
    assert saved(tmp_path / 'b.npy').shape == (175, 225, 3)


def test_frames(capsys, tmp_path):
    stack = random_pixels((4, 50, 60), 'uint16')
    tifffile.imwrite(tmp_path / 'a.tif', stack, photometric='minisblack')
    run(capsys, 'region', tmp_path / 'a.tif', tmp_path / 'a.npy', '--frame', '3')
    np.testing.assert_array_equal(saved(tmp_path / 'a.npy')[..., 0], stack[3])
    done = run(capsys, 'region', tmp_path / 'a.tif', tmp_path / 'b.npy', '--frame', '4')
    assert (done.status, 'no frame 4' in done.err) == (1, True)


def test_a_picture_of_other_samples_is_scaled_and_says_so(capsys, tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', np.uint16([[1000, 1500], [2000, 3000]]))
    done = run(capsys, 'region', tmp_path / 'a.tif', tmp_path / 'a.png')
    assert 'values 1000 to 3000 as 0 to 255' in done.err
    np.testing.assert_array_equal(saved(tmp_path / 'a.png'), [[0, 64], [128, 255]])


def test_a_picture_of_many_bands_shows_three(capsys, tmp_path):
    pixels = random_pixels((5, 6, 7))
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='minisblack', planarconfig='contig')
    done = run(capsys, 'region', tmp_path / 'a.tif', tmp_path / 'a.png')
    assert 'bands 1 to 3 of 7' in done.err
    np.testing.assert_array_equal(saved(tmp_path / 'a.png'), pixels[..., :3])


def test_transparent_parts_are_white_in_jpeg(capsys, tmp_path):
    PIL.Image.new('RGBA', (16, 16), (255, 0, 0, 0)).save(tmp_path / 'a.png')
    run(capsys, 'region', tmp_path / 'a.png', tmp_path / 'a.jpg')
    assert saved(tmp_path / 'a.jpg').min() == 255


@pytest.mark.parametrize(('arguments', 'words'), [
    (['tile', 'a.tif', 'o.png', '--at', '4,0'], 'no tile 4, 0 in level 2, which has 4 x 3'),
    (['tile', 'a.tif', 'o.png', '--at', '0,0', '--level', '3'], 'no level 3'),
    (['tile', 'a.tif', 'o.png'], '--at'),
    (['region', 'a.tif', 'o.png', '--crop', '900,0,1,1'], 'outside of the image'),
    (['region', 'a.tif', 'o.png', '--crop', '1,2,3'], 'X,Y,WIDTH,HEIGHT'),
    (['region', 'a.tif', 'o.png', '--crop', '1,2,0,3'], 'no pixels'),
    (['region', 'a.tif', 'o.bmp'], 'must end in .png'),
    (['region', 'a.tif', 'no/o.png'], 'no folder'),
    (['region', 'a.tif', 'o.jpg', '--quality', '101'], 'from 1 to 100'),
    (['thumbnail', 'none.tif', 'o.png'], 'No such file'),
])
def test_one_sentence_and_nothing_written(capsys, slide, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    done = run(capsys, *arguments)
    assert done.status == 1
    (error,) = done.err.splitlines()
    assert words in error
    assert [path.name for path in tmp_path.iterdir()] == ['a.tif']


def test_nothing_is_replaced_unless_asked(capsys, slide, tmp_path):
    (tmp_path / 'a.png').write_text('mine')
    done = run(capsys, 'thumbnail', slide, tmp_path / 'a.png')
    assert (done.status, '--overwrite' in done.err) == (1, True)
    assert (tmp_path / 'a.png').read_text() == 'mine'
    assert run(capsys, 'thumbnail', slide, tmp_path / 'a.png', '--overwrite').status == 0
    assert saved(tmp_path / 'a.png').shape[2] == 3


@pytest.mark.parametrize('command', [
    ['thumbnail', '--size', 77], ['region', '--crop', '100,50,300,200'], ['tile', '--at', '1,1'],
    ['region', '--level', '0']])
def test_labels_have_the_colours_of_their_palette(capsys, tmp_path, command):
    labels = np.where(random_pixels((700, 900)) > 120, 1, 3).astype('uint8')
    sink = large_image_source_vips.new()
    sink.palette = ['black', 'red', 'white', 'blue']
    sink.addTile(labels)
    sink.write(tmp_path / 'a.tif')
    name, *options = command
    for suffix in ('.png', '.npy'):
        out = tmp_path / f'b{suffix}'
        assert run(capsys, name, tmp_path / 'a.tif', out, *options).status == 0
    found, shown = saved(tmp_path / 'b.npy')[..., 0], saved(tmp_path / 'b.png')
    assert set(np.unique(found)) == {1, 3}
    np.testing.assert_array_equal(
        shown, np.array([[0, 0, 0], [255, 0, 0], [0, 0, 0], [0, 0, 255]], 'uint8')[found])


def test_a_jpeg_file_has_a_largest_width(capsys, tmp_path):
    tifffile.imwrite(tmp_path / 'in.tif', np.zeros((2, 70000), np.uint8))
    done = run(capsys, 'region', tmp_path / 'in.tif', tmp_path / 'a.jpg')
    assert (done.status, done.err.count('\n')) == (1, 1)
    assert '70000 x 2 pixels: a JPEG file has at most 65500 a side' in done.err
    assert not (tmp_path / 'a.jpg').exists()
    assert run(capsys, 'region', tmp_path / 'in.tif', tmp_path / 'a.png').status == 0
