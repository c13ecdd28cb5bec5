"""Lossy files of images with holes: JPEG tiles and transparency masks."""

import itertools

import numpy as np
import PIL.Image
import pytest
import pyvips
import tifffile

import large_image_source_vips
from helpers.sink import make_sink, read_file, read_shown


def photo(rows, cols, bands=3):
    y, x = np.mgrid[:rows, :cols]
    parts = [128 + 100 * np.sin(x / 60 + k) * np.cos(y / 80 - k) for k in range(bands)]
    return np.stack(parts, axis=2).astype(np.uint8)


def holed(rows, cols, bands=3):
    """A photo of which a disk and a corner are missing, (rows, cols, bands + 1)."""
    y, x = np.mgrid[:rows, :cols]
    shown = (x - cols / 2) ** 2 + (y - rows / 3) ** 2 > (min(rows, cols) / 4) ** 2
    shown[: rows // 8, : cols // 9] = False
    return np.dstack([photo(rows, cols, bands), np.where(shown, 255, 0).astype(np.uint8)])


def masks_of(path):
    with tifffile.TiffFile(path) as file:
        return [(page.asarray(), page.subfiletype, page.photometric.name)
                for page in file.pages[0].pages or ()]


@pytest.mark.parametrize('bands', [1, 3])
@pytest.mark.parametrize('size', [(1, 1), (300, 5), (256, 256), (257, 513), (2100, 1300)])
def test_every_level_has_a_mask_of_its_size(tmp_path, size, bands):
    tile = holed(*size, bands)
    tile[0, 0, bands] = 0
    make_sink(tile).write(tmp_path / 'a.tif', compression='jpeg')
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        shapes = [page.shape[:2] for page in file.pages]
        assert {page.compression.name for page in file.pages} == {'JPEG'}
    masks = masks_of(tmp_path / 'a.tif')
    assert [mask.shape for mask, _, _ in masks] == shapes
    assert [kind for _, kind, _ in masks] == [4] + [5] * (len(shapes) - 1)
    assert {photometric for _, _, photometric in masks} == {'MASK'}
    assert shapes[0] == size
    assert max(shapes[-1]) <= 256
    for larger, smaller in itertools.pairwise(shapes):
        assert smaller == (-(-larger[0] // 2), -(-larger[1] // 2))


@pytest.mark.parametrize('bands', [1, 3])
def test_masks_and_colours_are_right_at_every_level(tmp_path, bands):
    tile = holed(1100, 1500, bands)
    make_sink(tile).write(tmp_path / 'a.tif', compression='jpeg')
    shown = tile[:, :, bands] > 0
    for level in range(3):
        found = read_shown(tmp_path / 'a.tif', level)
        scale = 1 << level
        rows, cols = 1100 // scale * scale, 1500 // scale * scale
        cells = shown[:rows, :cols].reshape(rows // scale, scale, cols // scale, scale)
        share = cells.mean(axis=(1, 3))
        mask = found[:rows // scale, :cols // scale, bands] > 0
        # Rounding at each level may decide otherwise where half of a cell is shown.
        clear = np.abs(share - 0.5) > 0.02 * level
        assert np.array_equal(mask[clear], share[clear] >= 0.5)
        inside = share == 1
        exact = tile[:rows, :cols, :bands].reshape(
            rows // scale, scale, cols // scale, scale, bands).mean(axis=(1, 3))
        error = np.abs(found[:rows // scale, :cols // scale, :bands] - exact)[inside]
        assert error.mean() < 3
        assert np.quantile(error, 0.99) < 12


def test_colours_of_holes_do_not_bleed_into_lower_levels(tmp_path):
    tile = holed(1024, 1024)
    tile[:, :, :3] = np.where(tile[:, :, 3:] > 0, 100, 255)
    make_sink(tile).write(tmp_path / 'a.tif', fill=100)
    for level in range(3):
        colours = read_file(tmp_path / 'a.tif') if level == 0 else tifffile.imread(
            tmp_path / 'a.tif', key=level)
        assert np.abs(colours.astype(int) - 100).max() <= 1


@pytest.mark.parametrize(('fill', 'expected'), [
    (None, (255, 255, 255)), ((10, 200, 30), (10, 200, 30)), (77, (77, 77, 77))])
def test_what_is_under_holes_has_the_colour_asked_for(tmp_path, fill, expected):
    tile = holed(900, 900)
    sink = make_sink(tile)
    sink.addTile(tile, 3000, 2000)
    sink.write(tmp_path / 'a.tif', fill=fill)
    colours = read_file(tmp_path / 'a.tif').astype(int)
    # In the middle of the disk, in the corner, and where no tile is.
    for row, col in ((300, 450), (10, 10), (2500, 1000)):
        assert np.abs(colours[row, col] - expected).max() <= 2


@pytest.mark.parametrize('fill', [None, (10, 200, 30)])
def test_without_alpha_holes_show_the_fill_or_what_is_stored(tmp_path, fill):
    tile = holed(300, 300)
    sink = make_sink(tile)
    sink.addTile(tile, 600, 0)
    sink.write(tmp_path / 'a.tif', alpha=False, lossy=False, fill=fill)
    found = read_file(tmp_path / 'a.tif')
    assert found.shape == (300, 900, 3)
    expected = np.zeros((300, 900, 4), np.uint8)
    expected[:, :300] = expected[:, 600:] = tile
    wanted = expected[:, :, :3].copy()
    if fill is not None:
        wanted[expected[:, :, 3] == 0] = fill
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(('kwargs', 'compression'), [
    ({}, 'ADOBE_DEFLATE'), ({'compression': 'webp'}, 'WEBP'), ({'lossy': False}, 'ADOBE_DEFLATE')])
def test_partly_transparent_pixels_keep_their_alpha(tmp_path, kwargs, compression):
    tile = holed(300, 400)
    tile[5:60, 100:200, 3] = 99
    make_sink(tile).write(tmp_path / 'a.tif', **kwargs)
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        assert {page.compression.name for page in file.pages} == {compression}
    found = read_file(tmp_path / 'a.tif')
    assert np.array_equal(found[:, :, 3], tile[:, :, 3])
    if compression != 'WEBP':
        assert np.array_equal(found, tile)


def test_other_programs_read_the_colours_and_the_levels(tmp_path):
    tile = holed(1100, 1500)
    make_sink(tile).write(tmp_path / 'a.tif')
    shown = tile[:, :, 3] > 0
    sizes = [(1500, 1100), (750, 550), (375, 275), (188, 138)]
    for page, size in enumerate(sizes):
        image = pyvips.Image.new_from_file(str(tmp_path / 'a.tif'), page=page)
        assert (image.width, image.height) == size
        with PIL.Image.open(tmp_path / 'a.tif') as pil:
            assert pil.n_frames == len(sizes)
            pil.seek(page)
            assert pil.size == size
            assert np.array_equal(np.asarray(pil), image.numpy())
    image = pyvips.Image.new_from_file(str(tmp_path / 'a.tif')).numpy()
    assert np.abs(image.astype(int) - tile[:, :, :3])[shown].mean() < 3
    assert np.median(image[~shown]) == 255


def test_this_source_sees_the_levels_and_no_other_images(tmp_path):
    make_sink(holed(1100, 1500)).write(tmp_path / 'a.tif')
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    assert (source.sizeX, source.sizeY, source.levels) == (1500, 1100, 4)
    assert source.getAssociatedImagesList() == []
    assert 'frames' not in source.getMetadata()


@pytest.mark.parametrize('bands', [1, 3])
def test_blank_places_take_no_bytes(tmp_path, bands):
    tile = photo(512, 512, bands)
    make_sink(tile).write(tmp_path / 'small.tif', compression='jpeg')
    sink = make_sink(tile)
    sink.addTile(tile, 25_600, 25_600)
    sink.write(tmp_path / 'large.tif', compression='jpeg')
    small, large = ((tmp_path / name).stat().st_size for name in ('small.tif', 'large.tif'))
    tiles = sum((-(-26_112 // (256 << level))) ** 2 for level in range(8))
    # 16 bytes of tables for each tile and its mask, and the two places.
    assert large < 3 * small + 2 * 16 * 1.1 * tiles
    for page in (0, 6):
        image = pyvips.Image.new_from_file(str(tmp_path / 'large.tif'), page=page)
        found = image.crop(image.width // 2, image.height // 2, 1, 1).numpy()
        assert np.unique(found).tolist() == [255]
    image = pyvips.Image.new_from_file(str(tmp_path / 'large.tif'))
    found = image.crop(25_600, 25_600, 512, 512).numpy().reshape(512, 512, bands)
    assert np.abs(found.astype(int) - tile).mean() < 3
