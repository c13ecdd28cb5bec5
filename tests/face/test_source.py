"""Files through the public API: tiles, metadata, styles, caches."""

import io
import json
import os
import pickle

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import pyvips
import tifffile
from large_image.constants import TILE_FORMAT_NUMPY
from large_image.exceptions import TileSourceError, TileSourceFileNotFoundError

import large_image_source_vips
from helpers.around import declare_empty, real_file
from helpers.pixels import random_pixels, smooth_pixels


def open_file(path, **kwargs):
    return large_image_source_vips.open(str(path), **kwargs)


def full(source, frame=None):
    return source.getRegion(format=TILE_FORMAT_NUMPY, frame=frame)[0]


@pytest.mark.parametrize('tile', [None, (64, 64)], ids=['strips', 'tiles'])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
@pytest.mark.parametrize('bands', [1, 3, 5])
def test_regions_are_exact(tmp_path, dtype, bands, tile):
    pixels = random_pixels((500, 701, bands), dtype)
    tifffile.imwrite(tmp_path / 'a.tif', pixels if bands > 1 else pixels[..., 0], tile=tile,
                     metadata=None,
                     photometric='rgb' if bands == 3 else 'minisblack',
                     planarconfig='contig' if bands > 1 else None)
    source = open_file(tmp_path / 'a.tif')
    metadata = source.getMetadata()
    assert (metadata['sizeX'], metadata['sizeY'], metadata['levels']) == (701, 500, 3)
    assert (metadata['dtype'], metadata['bandCount']) == (dtype, bands)
    np.testing.assert_array_equal(full(source), pixels)
    json.dumps(metadata)
    json.dumps(source.getInternalMetadata())


def test_frames_have_axes_and_channels(tmp_path):
    pixels = random_pixels((2, 5, 3, 70, 101), 'uint16')
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='minisblack', ome=True, metadata={
        'axes': 'TZCYX', 'Channel': {'Name': ['DAPI', 'GFP', 'RFP']}})
    source = open_file(tmp_path / 'a.tif')
    metadata = source.getMetadata()
    assert metadata['IndexRange'] == {'IndexC': 3, 'IndexZ': 5, 'IndexT': 2}
    assert metadata['IndexStride'] == {'IndexC': 1, 'IndexZ': 3, 'IndexT': 15}
    assert metadata['channels'] == ['DAPI', 'GFP', 'RFP']
    assert metadata['channelmap'] == {'DAPI': 0, 'GFP': 1, 'RFP': 2}
    for number, frame in enumerate(metadata['frames']):
        np.testing.assert_array_equal(
            full(source, number)[..., 0],
            pixels[frame['IndexT'], frame['IndexZ'], frame['IndexC']])


def test_plain_frames_are_numbered(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', random_pixels((4, 70, 101)), photometric='minisblack',
                     metadata=None)
    metadata = open_file(tmp_path / 'a.tif').getMetadata()
    assert [frame['Frame'] for frame in metadata['frames']] == [0, 1, 2, 3]
    assert 'IndexRange' not in metadata
    json.dumps(metadata)


def test_associated_images_are_encoded():
    source = open_file(real_file('CMU-1-Small-Region.tiff'))
    assert source.getAssociatedImagesList() == ['label', 'macro', 'thumbnail']
    data, mime = source.getAssociatedImage('label', encoding='PNG')
    assert mime == 'image/png'
    assert PIL.Image.open(io.BytesIO(data)).size == (387, 463)
    assert source.getAssociatedImage('nothing') is None
    assert source.getNativeMagnification() == {
        'magnification': 20, 'mm_x': pytest.approx(0.000499), 'mm_y': pytest.approx(0.000499)}


def test_profiles_are_known_and_can_be_left_out(tmp_path):
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB')).tobytes()
    pixels = random_pixels((70, 101, 3))
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', iccprofile=profile)
    source = open_file(tmp_path / 'a.tif', style={'icc': False})
    assert len(source.getICCProfiles()) == 1
    np.testing.assert_array_equal(full(source), pixels)


def test_files_without_profiles_have_none(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', random_pixels((70, 101, 3)), photometric='rgb')
    assert open_file(tmp_path / 'a.tif').getICCProfiles() is None


def test_a_bad_tile_is_an_error_and_not_cached(tmp_path):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, random_pixels((600, 600, 3)), photometric='rgb', tile=(256, 256),
                     compression='deflate')
    whole = path.read_bytes()
    source = open_file(path)
    expected = source.getTile(0, 0, source.levels - 1, numpyAllowed='always').copy()
    os.truncate(path, len(whole) // 2)
    for _ in range(2):
        with pytest.raises(TileSourceError, match=r'frame 0, level 2, tile 2, 2 .*a\.tif'):
            source.getTile(2, 2, source.levels - 1, numpyAllowed='always')
    path.write_bytes(whole)
    assert source.getTile(2, 2, source.levels - 1, numpyAllowed='always').any()
    np.testing.assert_array_equal(
        source.getTile(0, 0, source.levels - 1, numpyAllowed='always'), expected)


def test_empty_tiles_are_blank(tmp_path):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, smooth_pixels(600, 600), photometric='rgb', tile=(256, 256),
                     compression='jpeg')
    declare_empty(path, 4)
    source = open_file(path)
    assert not source.getTile(1, 1, source.levels - 1, numpyAllowed='always').any()
    assert source.getTile(1, 0, source.levels - 1, numpyAllowed='always').any()


def test_a_changed_file_is_seen_at_the_next_open(tmp_path):
    path = tmp_path / 'a.tif'
    for seed, size in enumerate(((100, 120), (100, 120), (130, 90))):
        pixels = random_pixels((*size, 3), seed=seed)
        tifffile.imwrite(path, pixels, photometric='rgb')
        np.testing.assert_array_equal(full(open_file(path)), pixels)


def test_an_opened_source_can_be_pickled(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', random_pixels((100, 120, 3)), photometric='rgb')
    source = open_file(tmp_path / 'a.tif')
    np.testing.assert_array_equal(full(pickle.loads(pickle.dumps(source))), full(source))


@pytest.mark.parametrize('kind', ['missing', 'directory', 'empty', 'text', 'pipe', 'cut'])
def test_what_cannot_be_read_is_said_without_an_error(tmp_path, kind):
    path = tmp_path / 'a.tif'
    if kind == 'directory':
        path.mkdir()
    elif kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'cut':
        tifffile.imwrite(path, random_pixels((100, 120, 3)))
        os.truncate(path, 8)
    elif kind != 'missing':
        path.write_text('' if kind == 'empty' else 'hello')
    assert large_image_source_vips.canRead(str(path)) is False


@pytest.mark.parametrize('path', [None, 3, object(), {}, b'a\0'])
def test_nothing_at_all_can_be_read(path):
    assert large_image_source_vips.canRead(path) is False


@pytest.mark.parametrize('compression', ['jpeg', 'deflate', 'lzw', 'none'])
def test_an_opened_file_is_written_as_another(tmp_path, compression):
    pixels = smooth_pixels(500, 701)
    pyvips.Image.new_from_array(pixels).tiffsave(
        str(tmp_path / 'a.tif'), tile=True, compression=compression, pyramid=True)
    source = open_file(tmp_path / 'a.tif')
    expected = full(source)
    source.write(str(tmp_path / 'b.tif'), lossy=False)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / 'b.tif', key=0), expected)


@pytest.mark.parametrize('orientation', [3, 6])
def test_a_turned_file_is_written_as_it_is_seen(tmp_path, orientation):
    pixels = random_pixels((300, 401, 3))
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', tile=(64, 64), metadata=None,
                     extratags=[(274, 'H', 1, orientation, True)])
    source = open_file(tmp_path / 'a.tif')
    source.write(str(tmp_path / 'b.tif'), lossy=False)
    found = tifffile.imread(tmp_path / 'b.tif', key=0)
    expected = np.rot90(pixels, 2) if orientation == 3 else np.rot90(pixels, -1)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(full(open_file(tmp_path / 'b.tif')), expected)


def test_a_png_is_written_as_a_slide(tmp_path):
    pixels = random_pixels((300, 401, 3))
    PIL.Image.fromarray(pixels).save(tmp_path / 'a.jpg', quality=95)
    source = open_file(tmp_path / 'a.jpg')
    source.write(str(tmp_path / 'b.tif'), lossy=False)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / 'b.tif', key=0), full(source))


@pytest.mark.parametrize('position', [(1.0, 0.0, 2.0), (np.int64(1), np.uint8(0), np.int32(2))])
def test_positions_may_be_whole_numbers_of_any_type(tmp_path, position):
    pixels = np.arange(600 * 700 * 3, dtype=np.uint8).reshape(600, 700, 3)
    tifffile.imwrite(tmp_path / 'a.tif', pixels, tile=(256, 256), photometric='rgb')
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    tile = source.getTile(*position, numpyAllowed='always')
    assert np.array_equal(tile, pixels[:256, 256:512])


@pytest.mark.parametrize('position', [(0.5, 0, 0), (0, 0, 1.5), ('0', 0, 0), (0, None, 0)])
def test_positions_that_are_no_whole_numbers_are_named(tmp_path, position):
    tifffile.imwrite(tmp_path / 'a.tif', np.zeros((600, 700, 3), np.uint8), photometric='rgb')
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    with pytest.raises(TileSourceError, match='must be a whole number'):
        source.getTile(*position)


@pytest.mark.parametrize('path', [None, 5, 'folder'])
def test_what_is_no_file_is_not_found(tmp_path, path):
    """As the released package says it, so that `except FileNotFoundError` goes on working."""
    with pytest.raises(TileSourceFileNotFoundError):
        large_image_source_vips.open(tmp_path if path == 'folder' else path)
