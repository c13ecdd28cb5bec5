"""Arrays and pictures for callers: cropping, filling, copying."""

import io

import numpy as np
import PIL.Image
import pytest
from large_image.tilesource.utilities import _encodeImageBinary

from large_image_source_vips.base.arrays import jpeg_file

NOISE = np.random.default_rng(3).integers(0, 256, (130, 200, 4), np.uint8)


@pytest.mark.parametrize('subsampling', [0, 1, 2])
@pytest.mark.parametrize('quality', [1, 75, 95, 100])
@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA'])
def test_a_jpeg_file_is_that_of_large_image(mode, quality, subsampling):
    tile = NOISE[:, :150, :len(mode)]
    picture = PIL.Image.fromarray(tile[..., 0] if mode == 'L' else tile)
    data = jpeg_file(tile, quality, subsampling)
    assert data == _encodeImageBinary(picture, 'JPEG', quality, subsampling, 'raw')
    assert PIL.Image.open(io.BytesIO(data)).mode == ('L' if mode == 'L' else 'RGB')


@pytest.mark.parametrize('tile', [
    NOISE[..., :2], NOISE[:0], NOISE.astype(np.uint16), NOISE.astype(bool), NOISE[..., 0],
    np.zeros((5, 5, 7), np.uint8)], ids=lambda tile: f'{tile.dtype} {tile.shape}')
def test_what_has_to_be_converted_first_is_no_jpeg_file(tile):
    assert jpeg_file(tile, 90, 0) is None


def test_unusual_arguments_are_left_to_large_image():
    assert jpeg_file(NOISE, '90', 0) is None
    assert jpeg_file(NOISE, 90, ':4:2:0:') is None
