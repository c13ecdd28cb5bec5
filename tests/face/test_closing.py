"""Closing a source frees its resources; other sources that use them still work."""

import os
from contextlib import suppress

import large_image
import numpy as np
import pytest
import tifffile
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.pixels import random_pixels
from helpers.sink import read_all

PIXELS = random_pixels((300, 400, 3))
STYLE = {'bands': [{'band': 1, 'palette': ['#000', '#fff'], 'min': 0, 'max': 255}]}

needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='needs /proc')


@pytest.fixture
def path(tmp_path):
    tifffile.imwrite(tmp_path / 'slide.tif', PIXELS, tile=(128, 128), photometric='rgb')
    return tmp_path / 'slide.tif'


def descriptors():
    """The open files of this process, by number."""
    found = {}
    for descriptor in os.listdir('/proc/self/fd'):
        with suppress(OSError):
            found[descriptor] = os.readlink(f'/proc/self/fd/{descriptor}')
    return found


def test_use_after_closing_is_an_error(path, tmp_path):
    opened = large_image_source_vips.open(path, noCache=True)
    sink = large_image_source_vips.new()
    sink.addTile(PIXELS)
    for source in (opened, sink):
        source.close()
        source.close()
        for use in (lambda source=source: source.getTile(0, 0, 0),
                    lambda source=source: source.getRegion(format='numpy'),
                    lambda source=source: source.getMetadata(),
                    lambda source=source: source.addTile(PIXELS),
                    lambda source=source: source.write(tmp_path / 'never.tif'),
                    lambda source=source: source.crop,
                    lambda source=source: source.mm_x,
                    lambda source=source: source.__enter__()):
            with pytest.raises(TileSourceError, match='has been closed'):
                use()
    assert not (tmp_path / 'never.tif').exists()


@needs_proc
def test_a_file_is_closed(path):
    with large_image_source_vips.open(path, noCache=True) as source:
        assert np.array_equal(source.getRegion(format='numpy')[0], PIXELS)
    assert str(path) not in descriptors().values()


@needs_proc
@pytest.mark.parametrize('kwargs', [{}, {'blend': 'mean'}])
def test_the_temporary_files_of_a_new_image_are_gone(kwargs):
    before = set(descriptors())
    with large_image_source_vips.new(**kwargs) as sink:
        sink.addTile(PIXELS)
        read_all(sink)
        assert set(descriptors()) - before
    assert not {number for number, name in descriptors().items()
                if number not in before and 'large_image_vips' in name}


def test_a_source_of_the_cache_stays_usable(path):
    first, second = large_image.open(path), large_image.open(path)
    assert first is second
    first.close()
    assert np.array_equal(second.getRegion(format='numpy')[0], PIXELS)


def test_a_styled_source_stays_usable(path):
    plain = large_image_source_vips.open(path, noCache=True)
    styled = large_image_source_vips.open(path, noCache=True, style=STYLE)
    expected = styled.getRegion(format='numpy')[0]
    plain.close()
    assert np.array_equal(styled.getRegion(format='numpy')[0], expected)


def test_an_image_is_closed_with_the_last_source_that_uses_it(tmp_path):
    sink = large_image_source_vips.new(style=STYLE, spool=tmp_path / 'spool')
    sink.addTile(PIXELS)
    expected = sink.getRegion(format='numpy')[0]
    other = type(sink)(sink._getLargeImagePath(), spool=str(tmp_path / 'spool'))
    sink.close()
    assert np.array_equal(read_all(other)[:, :, :3], PIXELS)
    assert expected.shape[:2] == PIXELS.shape[:2]
    other.close(delete=True)
    assert not (tmp_path / 'spool').exists()


def test_a_file_that_is_written_from_a_closed_image_is_whole(tmp_path):
    with large_image_source_vips.new(blend='max') as sink:
        sink.addTile(PIXELS)
        sink.write(tmp_path / 'out.tif', lossy=False)
    assert np.array_equal(tifffile.imread(tmp_path / 'out.tif', key=0), PIXELS)
