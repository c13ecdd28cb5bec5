"""
JPEG files with holes written by this package, in other readers.

Each must show the right pixels where there are any, white where there are none, and all levels.
Readers that are not installed are skipped; ``tox -e interop`` has all of them.
"""

import functools

import numpy as np
import PIL.Image
import PIL.ImageSequence
import pytest
import pyvips
import tifffile

import large_image_source_vips
from helpers.native_readers import (
    elsewhere,
    gdal_levels,
    gdal_mask,
    gdal_read,
    large_image_openslide,
    openslide_levels,
    openslide_read,
)
from helpers.other_readers import LargeImage, needs
from helpers.pixels import smooth_pixels

LEVELS = 4


def with_tifffile(path):
    with tifffile.TiffFile(path) as file:
        return [page.asarray() for page in file.pages]


def with_libvips(path):
    count = pyvips.Image.new_from_file(path).get('n-pages')
    return [pyvips.Image.new_from_file(path, page=page).numpy() for page in range(count)]


def with_pillow(path):
    with PIL.Image.open(path) as image:
        return [np.asarray(frame) for frame in PIL.ImageSequence.Iterator(image)]


def with_gdal(path):
    needs('rasterio', 'rasterio')
    return [elsewhere(gdal_read, path, None, level)
            for level in range(elsewhere(gdal_levels, path, None))]


def with_openslide(path):
    needs('openslide', 'openslide-python openslide-bin')
    return [elsewhere(openslide_read, path, level)
            for level in range(elsewhere(openslide_levels, path))]


def with_large_image_openslide(path):
    needs('large_image_source_openslide', 'large-image-source-openslide openslide-bin')
    return elsewhere(large_image_openslide, path)


def with_large_image(name, path):
    reader = LargeImage(name, path)
    return [reader.read(0, {}, level) for level in range(reader.levels)]


READERS = {
    'tifffile': with_tifffile, 'libvips': with_libvips, 'Pillow': with_pillow,
    'GDAL': with_gdal, 'OpenSlide': with_openslide,
    'large_image openslide': with_large_image_openslide,
    **{f'large_image {name}': functools.partial(with_large_image, name)
       for name in ('tiff', 'tifffile', 'vips')}}


def holed(bands):
    """A photograph without a disc, a corner and single pixels; other colours lie under them."""
    rows, cols = 1100, 1500
    pixels = smooth_pixels(rows, cols)[:, :, :bands]
    y, x = np.mgrid[:rows, :cols]
    shown = (x - 700) ** 2 + (y - 500) ** 2 > 300 ** 2
    shown[:200, :300] = False
    shown[600::101, 1100::103] = False
    pixels[~shown] = 90
    return pixels, shown


@pytest.fixture(scope='module', params=[1, 3], ids=['gray', 'RGB'])
def written(request, tmp_path_factory):
    """A written file, its pixels (rows, cols, bands) and where they are shown."""
    path = tmp_path_factory.mktemp('holes') / 'a.tif'
    pixels, shown = holed(request.param)
    alpha = np.where(shown, 255, 0).astype(np.uint8)
    sink = large_image_source_vips.new()
    # As one tile and as aligned ones, which the sink keeps in different ways.
    sink.addTile(np.dstack([pixels, alpha]))
    sink.addTile(np.dstack([pixels, alpha])[256:512, 512:768], 512, 256)
    sink.write(path, compression='jpeg')
    return path, pixels, shown


def shares(shown, level):
    """How much of each pixel of a level is shown, without the last ones of odd sizes."""
    scale = 1 << level
    rows, cols = (size // scale for size in shown.shape)
    cells = shown[:rows * scale, :cols * scale].reshape(rows, scale, cols, scale)
    return cells.mean(axis=(1, 3))


@pytest.mark.parametrize('name', READERS)
def test_readers_show_the_pixels_and_all_levels(written, name):
    path, pixels, shown = written
    bands = pixels.shape[2]
    levels = READERS[name](str(path))
    assert len(levels) == LEVELS
    for level, found in enumerate(levels):
        scale = 1 << level
        assert found.shape[:2] == tuple(-(-size // scale) for size in shown.shape)
        share = shares(shown, level)
        rows, cols = share.shape
        found = found.reshape(*found.shape[:2], -1)[:rows, :cols, :bands].astype(float)
        means = pixels[:rows * scale, :cols * scale].reshape(
            rows, scale, cols, scale, bands).mean(axis=(1, 3))
        assert np.abs(found - means)[share == 1].mean() < 3
        assert np.median(found[share == 0]) > 253


def test_gdal_masks_what_is_not_shown(written):
    path, _, shown = written
    needs('rasterio', 'rasterio')
    for level in range(LEVELS):
        share = shares(shown, level)
        shape = tuple(-(-size // (1 << level)) for size in shown.shape)
        mask = elsewhere(gdal_mask, str(path), shape)
        found = mask[:share.shape[0], :share.shape[1]] > 0
        # GDAL picks pixels of the largest mask.
        inside = np.pad(share, 1, 'edge')
        around = np.stack([inside[down:down + share.shape[0], right:right + share.shape[1]]
                           for down in range(3) for right in range(3)])
        assert not found[(around == 0).all(axis=0)].any()
        assert found[(around == 1).all(axis=0)].all()


def test_this_source_reads_the_mask_as_alpha(written):
    path, pixels, shown = written
    for level, found in enumerate(with_large_image('vips', path)):
        assert found.shape[2] == pixels.shape[2] + 1
        share = shares(shown, level)
        clear = np.abs(share - 0.5) > 0.02 * level
        alpha = found[:share.shape[0], :share.shape[1], -1]
        assert set(np.unique(alpha)) <= {0, 255}
        assert np.array_equal(alpha[clear] > 0, share[clear] >= 0.5)
