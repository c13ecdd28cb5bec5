"""Reading with temporary files and descriptors as on other systems."""

import errno
import os

import numpy as np
import pytest
import tifffile
from large_image import config
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.around import in_threads
from helpers.pixels import smooth_pixels
from large_image_source_vips.base import files
from large_image_source_vips.reading import level_cache, loader
from large_image_source_vips.reading.level_cache import CachedLevel


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary files are made."""
    monkeypatch.setattr(files.tempfile, 'tempdir', str(tmp_path))
    return tmp_path


# Pixels in temporary files


@pytest.mark.parametrize('positions', [True, False])
def test_a_plane_in_a_file_holds_what_threads_put_into_it(folder, monkeypatch, positions):
    monkeypatch.setattr(level_cache, 'HAS_PREAD', positions)
    monkeypatch.setattr(level_cache, 'MAX_LEVEL_MEMORY', 1000)
    pixels = smooth_pixels(300, 200)
    plane = CachedLevel(pixels.shape, pixels.dtype)
    assert plane.on_disk

    def work(top):
        plane.put(top, pixels[top:top + 10, :90])
        plane.put(top, pixels[top:top + 10, 90:], 90)

    in_threads(work, range(0, 300, 10))
    assert np.array_equal(plane.finish().pixels, pixels)
    assert os.listdir(folder) == []
    with pytest.raises(ValueError, match='read-only'):
        plane.pixels[0, 0, 0] = 1


def test_a_full_temporary_folder_is_named(folder, monkeypatch):
    def refuse(*_args):
        raise OSError(errno.ENOSPC, 'full')

    monkeypatch.setattr(level_cache, 'reserve', refuse)
    monkeypatch.setattr(level_cache, 'MAX_LEVEL_MEMORY', 1000)
    with pytest.raises(TileSourceError, match=f'{folder}.*full'):
        CachedLevel((300, 200, 3), np.dtype(np.uint8))


# libvips where it does not share descriptors with Python


@pytest.fixture
def setting():
    """Change settings for one test; large_image remembers those that were asked for."""
    before = dict(config.ConfigValues)
    yield config.setConfig
    for key in ('source_vips_ignored_names', 'source_vips_loaders'):
        config.setConfig(key, before[key])


@pytest.mark.parametrize('name', ['a.tif', 'a.png', 'a.jpg', 'a.v'])
def test_files_are_read_without_giving_libvips_a_descriptor(
        tmp_path, monkeypatch, setting, name):
    pixels = smooth_pixels(300, 400)
    sink = large_image_source_vips.new()
    sink.addTile(pixels)
    sink.write(tmp_path / name, lossy=name == 'a.jpg')
    setting('source_vips_ignored_names', '')

    def refuse(*_args):
        raise AssertionError

    monkeypatch.setattr(loader, 'SHARES_DESCRIPTORS', False)
    monkeypatch.setattr(loader.pyvips.Source, 'new_from_descriptor', refuse)
    source = large_image_source_vips.open(tmp_path / name, noCache=True)
    region, _ = source.getRegion(format='numpy')
    assert np.abs(region.astype(int) - pixels).max() <= (12 if name == 'a.jpg' else 0)


def test_a_loader_that_is_not_allowed_is_not_asked_without_descriptors(
        tmp_path, monkeypatch, setting):
    tifffile.imwrite(tmp_path / 'a.tif', smooth_pixels(300, 400), tile=(256, 256))
    monkeypatch.setattr(loader, 'SHARES_DESCRIPTORS', False)
    setting('source_vips_loaders', ['tiffload'])
    source = large_image_source_vips.open(tmp_path / 'a.tif', noCache=True)
    assert source.getTile(0, 0, 0, numpyAllowed='always').shape[2] == 3
