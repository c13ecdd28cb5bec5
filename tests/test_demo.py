"""
The example of the README does what it says, on the photograph and on others.
"""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

SCRIPT = Path(__file__).parent.parent / 'examples' / 'stitch.py'


@pytest.fixture(scope='module')
def stitch():
    spec = importlib.util.spec_from_file_location('stitch', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture(rows, cols, bands, dtype=np.uint8):
    """Something smooth, as a photograph is, so that JPEG stays near it."""
    y, x = np.mgrid[:rows, :cols]
    planes = [127 + 100 * np.sin(x / (17 + band) + band) * np.cos(y / 29) for band in range(bands)]
    array = np.stack(planes, axis=2) * (np.iinfo(dtype).max / 255)
    return np.squeeze(array).astype(dtype)


def saved(folder, array):
    path = folder / 'photo.png'
    PIL.Image.fromarray(array).save(path)
    return path


def pages(path):
    with tifffile.TiffFile(path) as tiff:
        return [(page.shape[:2], page.tile, page.asarray()) for page in tiff.pages]


def test_runs_from_the_command_line(tmp_path):
    pytest.importorskip('skimage', reason='the default photograph is in scikit-image')
    done = subprocess.run(
        [sys.executable, SCRIPT, '--output', tmp_path / 'demo'], cwd=tmp_path,
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '512 x 512 pixels' in done.stdout
    assert 'VipsFileTileSource' in done.stdout
    assert 'equals the picture in all 786,432 samples' in done.stdout
    # The progress bar came to its end.
    assert '100%' in done.stderr
    assert sorted(file.name for file in (tmp_path / 'demo').iterdir()) == [
        'immunohistochemistry-lossless.tif', 'immunohistochemistry-thumbnail.png',
        'immunohistochemistry.tif']


@pytest.fixture(scope='module')
def made(stitch, tmp_path_factory):
    """A picture of 700 x 1100 pixels and the folder with what became of it."""
    folder = tmp_path_factory.mktemp('demo')
    array = picture(700, 1100, 3)
    stitch.main([str(saved(folder, array)), '--output', str(folder), '--tile', '200',
                 '--overlap', '31'])
    return array, folder


@pytest.mark.parametrize('name', ['photo.tif', 'photo-lossless.tif'])
def test_slide_is_a_pyramid_of_tiles(made, name):
    _array, folder = made
    sizes, tiles, _pixels = zip(*pages(folder / name), strict=True)
    assert sizes[:3] == ((700, 1100), (350, 550), (175, 275))
    for (rows, cols), (half_rows, half_cols) in itertools.pairwise(sizes):
        assert half_rows in {rows // 2, -(-rows // 2)}
        assert half_cols in {cols // 2, -(-cols // 2)}
    # The last one is a single tile.
    assert max(sizes[-1]) <= 256
    assert set(tiles) == {(256, 256)}


def test_lossless_slide_holds_the_picture(made):
    array, folder = made
    assert np.array_equal(pages(folder / 'photo-lossless.tif')[0][2], array)


def test_lossy_slide_is_near_the_picture(made):
    array, folder = made
    difference = np.abs(pages(folder / 'photo.tif')[0][2].astype(int) - array)
    assert difference.mean() < 3


def test_lower_level_shows_the_same(made):
    array, folder = made
    half = array.reshape(350, 2, 550, 2, 3).mean(axis=(1, 3))
    difference = np.abs(pages(folder / 'photo.tif')[1][2] - half)
    assert difference.mean() < 3


def test_thumbnail_fits(made):
    _array, folder = made
    with PIL.Image.open(folder / 'photo-thumbnail.png') as image:
        # 700 / 1100 of the width.
        assert image.size in {(256, 162), (256, 163)}


@pytest.mark.parametrize('array', [
    picture(90, 130, 1), picture(300, 300, 1, np.uint16), picture(1, 1, 3), picture(5, 600, 3),
], ids=['gray', '16 bit', 'one pixel', 'narrow'])
def test_other_pictures(stitch, tmp_path, capsys, array):
    # One that is a single pixel is squeezed to that.
    array = array if array.ndim > 1 else array.reshape(1, 1, 3)
    stitch.main([str(saved(tmp_path, array)), '--output', str(tmp_path), '--tile', '64',
                 '--overlap', '8'])
    assert f'in all {array.size:,} samples' in capsys.readouterr().out


def test_patches_cover_the_picture(stitch):
    array = picture(100, 70, 3)
    seen = np.zeros_like(array)
    for left, top, patch in stitch.cut(array, 32, 5):
        seen[top:top + patch.shape[0], left:left + patch.shape[1]] = patch
    assert np.array_equal(seen, array)


def test_difference_is_noticed(stitch, made):
    array, folder = made
    other = array.copy()
    other[350, 550, 1] ^= 1
    with pytest.raises(SystemExit, match='does not hold'):
        stitch.verify(folder / 'photo-lossless.tif', other)


@pytest.mark.parametrize('arguments', [
    ['--tile', '10', '--overlap', '10'], ['--overlap', '-1'], ['no/such/file.png']])
def test_nonsense_is_refused(stitch, capsys, arguments):
    with pytest.raises(SystemExit) as refusal:
        stitch.main(arguments)
    assert refusal.value.code == 2
    assert 'usage' in capsys.readouterr().err
