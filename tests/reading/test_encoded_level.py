"""``getTile`` returns stored JPEG tiles as complete files."""

import io

import numpy as np
import PIL.Image
import pytest
import pyvips
from large_image import config

import large_image_source_vips


@pytest.fixture
def passing():
    before = config.getConfig('source_vips_pass_jpeg')
    config.setConfig('source_vips_pass_jpeg', True)
    yield
    config.setConfig('source_vips_pass_jpeg', before)


@pytest.mark.usefixtures('passing')
@pytest.mark.parametrize('quality', [70, 95])
def test_a_stored_jpeg_tile_is_complete_and_has_the_right_colours(tmp_path, quality):
    y, x = np.mgrid[:300, :600]
    pixels = np.stack([x % 256, y % 256, (x + y) // 4], axis=2).astype(np.uint8)
    path = str(tmp_path / 'a.tif')
    pyvips.Image.new_from_array(pixels).copy(interpretation='srgb').tiffsave(
        path, compression='jpeg', Q=quality, tile=True, tile_width=256, tile_height=256)
    source = large_image_source_vips.open(path, encoding='JPEG')
    tile = source.getTile(1, 0, source.levels - 1)
    decoded = np.asarray(PIL.Image.open(io.BytesIO(tile)))
    exact = source.getRegion(
        region={'left': 256, 'top': 0, 'width': 256, 'height': 256}, format='numpy')[0]
    np.testing.assert_array_equal(decoded, exact)
    # At the edge of the image a tile is cropped, and so made anew.
    edge = PIL.Image.open(io.BytesIO(source.getTile(2, 1, source.levels - 1)))
    shown = np.asarray(edge)[:300 - 256, :600 - 512].astype(int)
    assert np.abs(shown - pixels[256:, 512:]).mean() < 12
