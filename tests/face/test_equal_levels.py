"""A sink and a file with the same pixels have the same lower levels."""

import numpy as np
import pytest
import tifffile

from helpers.pixels import random_pixels
from helpers.reading import level
from helpers.sink import make_sink
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.reading.reader import FileReader


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('shape', [(600, 1000, 4), (601, 999, 4), (513, 770, 2), (257, 600, 3)])
def test_a_level_of_a_sink_is_that_of_the_same_pixels_in_a_file(tmp_path, dtype, shape):
    pixels = np.abs(random_pixels(shape, dtype, 1))
    if shape[2] in {2, 4}:
        rng = np.random.default_rng(2)
        opaque = 65535 if dtype == 'uint16' else 255
        pixels[..., -1] = rng.choice([0, 1, opaque // 3, opaque, opaque], shape[:2])
        # Parts that are opaque all over, and parts with nothing in them.
        pixels[:256, :256, -1], pixels[256:, 300:500, -1] = opaque, 0
    sink = make_sink(pixels)
    tifffile.imwrite(
        tmp_path / 'a.tif', pixels, photometric='rgb' if shape[2] > 2 else 'minisblack',
        tile=(256, 256), planarconfig='contig',
        **({'extrasamples': ['unassalpha']} if shape[2] in {2, 4} else {}))
    reader = FileReader(tmp_path / 'a.tif')
    half = level(reader, 1)
    held = sink._store.read(0, 1, Rect(0, 0, *reader.size.reduced(1)))
    np.testing.assert_array_equal(held[..., :shape[2]], half)
    # A quarter is rounded once or twice; at the edges, halving twice also weights parts of
    # blocks in another way.
    rows, cols = shape[0] // 4, shape[1] // 4
    quarter = level(reader, 2)[:rows, :cols].astype(float)
    held = sink._store.read(0, 2, Rect(0, 0, cols, rows))[..., :shape[2]]
    visible = quarter[..., -1] > 8 if shape[2] in {2, 4} else np.full(quarter.shape[:2], True)
    limit = 2 if dtype != 'float32' else 1e-3
    np.testing.assert_allclose(held[visible], quarter[visible], rtol=1e-5, atol=limit)
