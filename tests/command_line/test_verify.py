"""
``verify`` finds every damaged tile, and nothing else.
"""

import numpy as np
import pytest
import tifffile

from helpers.command_line import run
from helpers.pixels import random_pixels


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / 'a.tif'
    pixels = random_pixels((600, 800, 3))
    with tifffile.TiffWriter(path) as tiff:
        for _ in range(2):
            tiff.write(pixels, tile=(256, 256), compression='deflate', photometric='rgb',
                       metadata=None)
        tiff.write(pixels[:90, :70], description='label', compression='deflate',
                   photometric='rgb', metadata=None)
    return path


def damage(path, page, tile):
    """Overwrite a tile or strip."""
    with tifffile.TiffFile(path) as tiff:
        start, size = (table[tile] for table in (
            tiff.pages[page].dataoffsets, tiff.pages[page].databytecounts))
    with path.open('r+b') as file:
        file.seek(start)
        file.write(b'\xff' * size)


def test_a_sound_file(capsys, slide):
    done = run(capsys, 'verify', slide)
    # Two frames of 4 x 3, 2 x 2 and 1 tiles, and the label.
    assert done == (0, f'{slide}: all 35 tiles and images can be read\n', '')


def test_damaged_tiles_are_named(capsys, slide):
    damage(slide, 1, 6)
    done = run(capsys, 'verify', slide)
    assert done.status == 1
    lines = done.out.splitlines()
    # The tile, and the computed ones that need it.
    assert [line.removeprefix(f'{slide}: ')[:33] for line in lines[:-1]] == [
        'frame 1, level 2, tile 2, 1: Cann', 'frame 1, level 1, tile 1, 0: Cann',
        'frame 1, level 0, tile 0, 0: Cann']
    assert 'DAMAGED: 3 of 35' in lines[-1]


def test_damaged_associated_images_are_named(capsys, slide):
    damage(slide, 2, 0)
    done = run(capsys, 'verify', slide)
    assert (done.status, len(done.out.splitlines())) == (1, 2)
    assert "associated image 'label'" in done.out


def test_a_missing_file_does_not_stop_the_others(capsys, slide, tmp_path):
    done = run(capsys, 'verify', tmp_path / 'none.tif', slide)
    assert done.status == 1
    first, second = done.out.splitlines()
    assert 'No such file' in first
    assert 'can be read' in second


def test_long_lists_are_cut(capsys, tmp_path):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, random_pixels((2700, 2700)), tile=(256, 256), compression='deflate')
    for tile in range(121):
        damage(path, 0, tile)
    done = run(capsys, 'verify', path)
    lines = done.out.splitlines()
    # 121 tiles of full resolution, and all computed ones: 36, 9, 4, 1.
    assert '... and 71 more' in lines[100]
    assert 'DAMAGED: 171 of 171' in lines[101]


def test_a_damaged_last_tile_of_one_job(capsys, tmp_path):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, np.zeros((512, 512), 'uint8') + np.arange(512, dtype='uint8'),
                     tile=(256, 256), compression='deflate')
    damage(path, 0, 3)
    done = run(capsys, 'verify', '--jobs', '1', path)
    assert 'level 1, tile 1, 1' in done.out
