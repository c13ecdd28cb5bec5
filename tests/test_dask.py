"""
The Dask example gives the same result as one process, and can be continued.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import large_image_source_vips
from helpers.blend_model import Tile, blended

pytest.importorskip('dask.distributed')
pytest.importorskip('skimage')

SCRIPT = Path(__file__).parent.parent / 'examples' / 'predict_dask.py'


@pytest.fixture(scope='module')
def example():
    spec = importlib.util.spec_from_file_location('predict_dask', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def slide(tmp_path):
    """A small slide: something brown on something blue."""
    y, x = np.mgrid[:90, :130]
    brown = (np.hypot(y - 40, x - 60) < 30)[:, :, None]
    pixels = np.where(brown, [120, 80, 40], [200, 200, 230]).astype(np.uint8)
    tifffile.imwrite(tmp_path / 'small.tif', pixels, tile=(64, 64), photometric='rgb')
    return tmp_path / 'small.tif', pixels


def test_patches_are_those_of_one_process(example, slide, tmp_path):
    path, pixels = slide
    output = tmp_path / 'out' / 'dab.tif'
    # A run that was killed has left a patch.
    output.parent.mkdir()
    sink = large_image_source_vips.new(spool=f'{output}.spool', blend='feather')
    places = example.cut(130, 90, 48, 16)
    example.predict(places[3], str(path), sink)
    sink.close()

    done = subprocess.run(
        [sys.executable, SCRIPT, path, '--output', output, '--patch', '48', '--overlap', '16'],
        capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f'130 x 90 pixels, of {len(places)} patches' in done.stdout
    tiles = [Tile(example.model(pixels[top:bottom, left:right])[:, :, None], left, top)
             for left, top, right, bottom in places]
    expected = blended('feather', tiles, 'uint8', (90, 130, 2))[:, :, 0]
    found = tifffile.imread(output, key=0)
    # It is stored as JPEG.
    assert np.abs(found.astype(int) - expected).mean() < 2
    assert found[40, 60] > 100 > found[5, 5]
    assert not Path(f'{output}.spool').exists()


def test_patches_cover_a_slide(example):
    for width, height in ((130, 90), (48, 48), (10, 200), (129, 49)):
        seen = np.zeros((height, width), bool)
        for left, top, right, bottom in example.cut(width, height, 48, 16):
            assert 0 < right - left <= 48
            assert 0 < bottom - top <= 48
            seen[top:bottom, left:right] = True
        assert seen.all()


@pytest.mark.parametrize('arguments', [
    ['--patch', '10', '--overlap', '10'], ['--workers', '0'], ['no/such/file.tif']])
def test_nonsense_is_refused(example, capsys, arguments):
    with pytest.raises(SystemExit) as refusal:
        example.main(arguments)
    assert refusal.value.code == 2
    assert 'usage' in capsys.readouterr().err
