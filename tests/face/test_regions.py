"""Regions and iterations, whose tiles are decoded ahead by other threads."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from large_image.constants import TILE_FORMAT_NUMPY
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.around import in_a_forked_child, in_threads
from helpers.pixels import block_means, random_pixels

PIXELS = random_pixels((1300, 2100, 3))


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp('walk') / 'a.tif'
    tifffile.imwrite(path, PIXELS, photometric='rgb', tile=(64, 64), compression='deflate')
    return path


def open_file(path, **kwargs):
    # Without the tile cache of another test.
    return large_image_source_vips.open(str(path), noCache=True, **kwargs)


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=st.integers(0, 2099), top=st.integers(0, 1299), width=st.integers(1, 2100),
       height=st.integers(1, 1300))
def test_regions_anywhere(path, left, top, width, height):
    region = {'left': left, 'top': top, 'width': width, 'height': height}
    found, _format = open_file(path).getRegion(region=region, format=TILE_FORMAT_NUMPY)
    np.testing.assert_array_equal(found, PIXELS[top:top + height, left:left + width])


@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(200, 900), height=st.integers(200, 900),
       overlap=st.integers(0, 80), edges=st.booleans(), cached=st.booleans())
def test_iterations_of_any_tile_size(path, width, height, overlap, edges, cached):
    source = large_image_source_vips.open(str(path)) if cached else open_file(path)
    count = 0
    for tile in source.tileIterator(
            tile_size={'width': width, 'height': height},
            tile_overlap={'x': overlap, 'y': overlap, 'edges': edges}, format=TILE_FORMAT_NUMPY):
        left, top = tile['x'], tile['y']
        np.testing.assert_array_equal(
            tile['tile'], PIXELS[top:top + tile['height'], left:left + tile['width']])
        count += 1
    assert count == tile['iterator_range']['position']


def test_iterations_at_a_lower_scale(path):
    source = open_file(path)
    expected = block_means(PIXELS, 2)
    for tile in source.tileIterator(
            scale={'magnification': None}, output={'maxWidth': 1050, 'maxHeight': 650},
            tile_size={'width': 300, 'height': 200}, format=TILE_FORMAT_NUMPY):
        left, top = int(tile['x']), int(tile['y'])
        part = expected[top:top + tile['height'], left:left + tile['width']]
        assert np.abs(tile['tile'] - part).max() <= 0.5


def test_regions_that_are_scaled(path):
    source = open_file(path)
    image, _format = source.getRegion(output={'maxWidth': 333}, format=TILE_FORMAT_NUMPY)
    assert image.shape == (206, 333, 3)
    assert abs(image.mean() - PIXELS.mean()) < 1


def test_styles_and_frames(tmp_path):
    frames = random_pixels((3, 600, 900), 'uint16')
    tifffile.imwrite(tmp_path / 'a.ome.tif', frames, photometric='minisblack', ome=True,
                     metadata={'axes': 'CYX'}, tile=(128, 128))
    source = open_file(tmp_path / 'a.ome.tif')
    for number, frame in enumerate(frames):
        found = source.getRegion(format=TILE_FORMAT_NUMPY, frame=number)[0]
        np.testing.assert_array_equal(found[..., 0], frame)
    styled = open_file(tmp_path / 'a.ome.tif', style={'bands': [
        {'frame': number, 'palette': ['#000', color], 'min': 0, 'max': 65535}
        for number, color in enumerate(['#f00', '#0f0', '#00f'])]})
    found = styled.getRegion(format=TILE_FORMAT_NUMPY)[0]
    assert np.abs(found[..., :3] - frames.transpose(1, 2, 0) / 257.0).max() <= 1


def test_tiles_taken_in_any_order(path):
    source = open_file(path)
    tiles = list(source.tileIterator(tile_size={'width': 200, 'height': 300},
                                     format=TILE_FORMAT_NUMPY))
    order = list(range(len(tiles)))
    random.Random(1).shuffle(order)
    for number in [*order, *order[:5]]:
        tile = tiles[number]
        left, top = tile['x'], tile['y']
        np.testing.assert_array_equal(
            tile['tile'], PIXELS[top:top + tile['height'], left:left + tile['width']])
        tile.release()


def test_tiles_taken_by_several_threads(path):
    tiles = list(open_file(path).tileIterator(tile_size={'width': 200, 'height': 300},
                                              format=TILE_FORMAT_NUMPY))
    wrong = []

    def take(share):
        for tile in share:
            left, top = tile['x'], tile['y']
            expected = PIXELS[top:top + tile['height'], left:left + tile['width']]
            if not np.array_equal(tile['tile'], expected):
                wrong.append((left, top))

    in_threads(take, [tiles[start::3] for start in range(3)])
    assert not wrong


def test_info_and_length_are_those_of_large_image(path):
    source = open_file(path)
    iterator = source.tileIterator(tile_size={'width': 512, 'height': 512})
    assert len(iterator) == 15
    assert iterator.info['region']['width'] == 2100
    assert source.getSingleTile(tile_size={'width': 512, 'height': 512}, tile_position=7,
                                format=TILE_FORMAT_NUMPY)['tile'].shape == (512, 512, 3)


def test_a_tile_that_cannot_be_decoded_is_named(tmp_path):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, PIXELS, photometric='rgb', tile=(256, 256), compression='deflate')
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, length = page.dataoffsets[20], page.databytecounts[20]
    with open(path, 'r+b') as file:
        file.seek(offset)
        file.write(bytes(length))
    with pytest.raises(TileSourceError, match=r'level 4, tile 2, 2 .*a\.tif'):
        open_file(path).getRegion(format=TILE_FORMAT_NUMPY)


def _goes_on(iterator):
    """Whether the rest of an iteration is right."""
    right = True
    for tile in iterator:
        left, top = tile['x'], tile['y']
        right &= np.array_equal(
            tile['tile'], PIXELS[top:top + tile['height'], left:left + tile['width']])
    return right


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system has no fork')
def test_an_iteration_goes_on_in_a_forked_child(path):
    source = open_file(path)
    iterator = source.tileIterator(tile_size={'width': 300, 'height': 300},
                                   format=TILE_FORMAT_NUMPY)
    for _number in range(5):
        assert next(iterator)['tile'] is not None
    assert in_a_forked_child(_goes_on, iterator)
    # And one that starts anew.
    assert in_a_forked_child(lambda: np.array_equal(
        open_file(path).getRegion(format=TILE_FORMAT_NUMPY)[0], PIXELS))


LATE = """
import sys, threading, time
import numpy as np
import large_image_source_vips

def look():
    threading.main_thread().join()
    time.sleep(0.2)
    for path in sys.argv[1:]:
        source = large_image_source_vips.open(path)
        print(source.getRegion(format='numpy')[0].shape,
              source.getTile(0, 0, 0, numpyAllowed='always').shape, flush=True)

threading.Thread(target=look).start()
"""


def test_a_thread_that_outlives_the_main_one(path, tmp_path):
    """Python's pools of threads take nothing any more then."""
    tifffile.imwrite(tmp_path / 'b.tif', PIXELS, photometric='rgb', rowsperstrip=8,
                     compression='zlib')
    done = subprocess.run([sys.executable, '-c', LATE, str(path), str(tmp_path / 'b.tif')],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == '(1300, 2100, 3) (256, 256, 3)\n' * 2, done.stderr
