"""Caching of pictures that are decoded as a whole for a viewer."""

import contextlib
import os
from types import SimpleNamespace

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import pyvips
import tifffile
from large_image.constants import TILE_FORMAT_NUMPY
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.around import in_a_forked_child, in_threads, needs
from helpers.pixels import block_means, smooth_pixels
from helpers.reading import level, level_by_tiles
from large_image_source_vips.base import files
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.reading import level_cache, levels, loader, stored_levels, survey
from large_image_source_vips.reading import rows as decoding
from large_image_source_vips.reading.file_version import Version
from large_image_source_vips.reading.layout import Opening
from large_image_source_vips.reading.reader import FileReader

ROWS, COLS = 1111, 1703


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch):
    """Bounds for small files; and not all rows of a piece are written at once."""
    monkeypatch.setattr(survey, '_JPEG_WORTH', 1000)
    for module in (levels, survey):
        monkeypatch.setattr(module, 'LARGE_PICTURE', 1 << 20)
    monkeypatch.setattr(stored_levels, '_MIN_STOPPED', 1 << 20)
    monkeypatch.setattr(decoding, '_BAND_BYTES', 1 << 16)
    monkeypatch.setattr(level_cache, 'MAX_LEVEL_MEMORY', 1 << 20)
    monkeypatch.setattr(level_cache, '_WRITE_BYTES', 1000)
    monkeypatch.setattr(levels, 'MAX_LEVEL_MEMORY', 1 << 20)


def save_jpeg(path):
    PIL.Image.fromarray(smooth_pixels(ROWS, COLS)).save(path, quality=95)


def save_strips(path):
    tifffile.imwrite(path, smooth_pixels(ROWS, COLS), photometric='rgb', rowsperstrip=40,
                     compression='zlib', predictor=True, metadata=None)


KINDS = [pytest.param('a.jpg', save_jpeg, marks=needs('jpegload')),
         pytest.param('a.tif', save_strips)]


def kept(source):
    """Whether all of the first frame of a source, or a reader, is decoded."""
    store = getattr(source, '_store', source)
    first = store._layout.frames[0].levels[0]
    found = level_cache.cached_levels.peek(store._file.serial, first.opening)
    return found is not None and found.complete


def open_file(path):
    return large_image_source_vips.open(str(path), noCache=True)


@needs('jpegload')
def test_a_small_tile_has_all_the_rest_kept(tmp_path, monkeypatch):
    save_jpeg(tmp_path / 'a.jpg')
    plain = FileReader(tmp_path / 'a.jpg')
    expected = [level(plain, reduction) for reduction in range(5, -1, -1)][::-1]
    plain.close()
    del plain
    source = open_file(tmp_path / 'a.jpg')
    assert not kept(source)
    source.getTile(0, 0, 0)
    assert kept(source)
    # From here on nothing is decoded.
    monkeypatch.setattr(decoding.Decoder, 'rows', None)
    monkeypatch.setattr(decoding.Decoder, 'write_all', None)
    for reduction in (2, 1, 0, 3, 4, 5):
        np.testing.assert_array_equal(
            level_by_tiles(source._store, reduction), expected[reduction])


@pytest.mark.parametrize(('name', 'save'), KINDS)
@pytest.mark.parametrize('look', [
    lambda source: source.getThumbnail(width=200),
    lambda source: source.getRegion(output={'maxWidth': 200}, format=TILE_FORMAT_NUMPY),
    lambda source: list(source.tileIterator(scale={'magnification': None}, output={
        'maxWidth': 100}, format=TILE_FORMAT_NUMPY)),
], ids=['thumbnail', 'region', 'iterator'])
def test_a_small_region_has_not(tmp_path, name, save, look):
    save(tmp_path / name)
    source = open_file(tmp_path / name)
    look(source)
    assert not kept(source)


@needs('jpegload')
@pytest.mark.parametrize('bound', ['_MAX_KEPT', '_MAX_ALL_KEPT'])
def test_what_is_too_large_is_not_kept(tmp_path, monkeypatch, bound):
    monkeypatch.setattr(levels, bound, 4 << 20)
    save_jpeg(tmp_path / 'a.jpg')
    source = open_file(tmp_path / 'a.jpg')
    source.getTile(0, 0, 0)
    assert not kept(source)
    found = level_by_tiles(source._store, 0)
    assert np.abs(found.astype(int) - smooth_pixels(ROWS, COLS)).max() < 30


@needs('jpegload')
def test_without_room_the_small_tile_is_there(tmp_path, monkeypatch):
    save_jpeg(tmp_path / 'a.jpg')
    source = open_file(tmp_path / 'a.jpg')
    with monkeypatch.context() as patch:
        patch.setattr(level_cache.shutil, 'disk_usage', lambda _path: SimpleNamespace(free=1000))
        tile = source.getTile(0, 0, 0, numpyAllowed='always')
        assert not kept(source)
    expected = block_means(smooth_pixels(ROWS, COLS), 8)
    found = tile[:expected.shape[0], :expected.shape[1]].astype(int)
    assert np.abs(found - expected).max() < 8
    assert level(source._store).shape == (ROWS, COLS, 3)


@needs('jpegload')
def test_a_damaged_jpeg_is_an_error_and_its_first_rows_can_be_read(tmp_path):
    save_jpeg(tmp_path / 'a.jpg')
    whole = pyvips.Image.new_from_file(str(tmp_path / 'a.jpg')).numpy()
    os.truncate(tmp_path / 'a.jpg', (tmp_path / 'a.jpg').stat().st_size * 2 // 3)
    source = open_file(tmp_path / 'a.jpg')
    for _ in range(2):
        with pytest.raises(TileSourceError, match=r'a\.jpg'):
            source.getTile(0, 0, 0)
        with pytest.raises(TileSourceError, match=r'a\.jpg'):
            source.getTile(0, 4, 3)
        tile = source.getTile(1, 0, 3, numpyAllowed='always')
        np.testing.assert_array_equal(tile, whole[:256, 256:512])


@needs('jpegload')
@pytest.mark.skipif(not files.SHARES_DESCRIPTORS, reason='libvips does not take our descriptors')
def test_a_picture_that_is_wanted_whole_is_written_by_libvips(tmp_path, monkeypatch):
    save_jpeg(tmp_path / 'a.jpg')
    whole = pyvips.Image.new_from_file(str(tmp_path / 'a.jpg')).numpy()
    reader = FileReader(tmp_path / 'a.jpg')
    with monkeypatch.context() as patch:
        patch.setattr(decoding.Decoder, 'rows', None)
        np.testing.assert_array_equal(level(reader), whole)
    # One that was begun is gone on with.
    reader = FileReader(tmp_path / 'a.jpg')
    np.testing.assert_array_equal(reader.read(0, 0, Rect(0, 0, COLS, 100)), whole[:100])
    monkeypatch.setattr(decoding.Decoder, 'write_all', None)
    np.testing.assert_array_equal(level(reader), whole)


def test_strips_are_soon_decoded_again(tmp_path):
    save_strips(tmp_path / 'a.tif')
    source = open_file(tmp_path / 'a.tif')
    source.getTile(0, 0, 0)
    assert not kept(source)


def test_a_style_of_several_frames_is_no_reason_to_keep_any(tmp_path, monkeypatch):
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        for band in range(3):
            tiff.write(smooth_pixels(ROWS, COLS)[..., band], photometric='minisblack',
                       rowsperstrip=40, metadata=None)
    source = large_image_source_vips.open(str(tmp_path / 'a.tif'), noCache=True, style={
        'bands': [{'frame': frame, 'palette': colour}
                  for frame, colour in enumerate(('#f00', '#0f0', '#00f'))]})
    asked, read = [], Version.read

    def recording(self, frame, *args, keep=False, **options):
        asked.append((frame, keep))
        return read(self, frame, *args, keep=keep, **options)

    monkeypatch.setattr(Version, 'read', recording)
    source.getThumbnail(width=200)
    assert {frame for frame, _ in asked} == {0, 1, 2}
    assert not any(keep for _, keep in asked)
    source.getTile(0, 0, 0)
    assert any(keep for _, keep in asked)


@needs('svgload')
def test_drawings_are_not_drawn_larger_than_asked_for(tmp_path):
    (tmp_path / 'a.svg').write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="3000" height="2000">'
        '<circle cx="1500" cy="1000" r="800" fill="red"/></svg>')
    source = open_file(tmp_path / 'a.svg')
    source.getTile(0, 0, 0)
    assert not kept(source)


@needs('jpegload')
@pytest.mark.parametrize(('large', 'memory', 'reduction'), [
    (1 << 20, 1 << 20, 2), (1 << 20, 300_000, 3), (1 << 24, 1 << 20, 3)])
def test_the_smaller_jpeg(tmp_path, monkeypatch, large, memory, reduction):
    monkeypatch.setattr(survey, 'LARGE_PICTURE', large)
    monkeypatch.setattr(survey, 'MAX_LEVEL_MEMORY', memory)
    save_jpeg(tmp_path / 'a.jpg')
    reader = FileReader(tmp_path / 'a.jpg')
    assert list(reader._layout.frames[0].levels) == [0, reduction]
    for smaller in range(1, 6):
        found = level_by_tiles(reader, smaller).astype(int)
        means = block_means(smooth_pixels(ROWS, COLS), 1 << smaller)
        # Of a last block that is not whole, libvips shows nothing.
        assert np.abs(found - means)[:-1, :-1].max() < 12
        assert np.abs(found - means).mean() < 1


@needs('jpegload')
def test_threads_that_come_first_together(tmp_path):
    save_jpeg(tmp_path / 'a.jpg')
    plain = FileReader(tmp_path / 'a.jpg')
    expected = [level(plain, reduction) for reduction in (3, 1)]
    plain.close()
    del plain
    source = open_file(tmp_path / 'a.jpg')
    wrong = []

    def look(number):
        source.getTile(0, 0, number % 2)
        for reduction, pixels in zip((3, 1), expected, strict=True):
            if not np.array_equal(level(source._store, reduction), pixels):
                wrong.append(number)

    in_threads(look, range(4))
    assert not wrong
    assert kept(source)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system has no fork')
@needs('jpegload')
def test_a_forked_child_sees_the_same(tmp_path):
    save_jpeg(tmp_path / 'a.jpg')
    source = open_file(tmp_path / 'a.jpg')

    def tiles():
        return [source.getTile(0, 0, z, numpyAllowed='always').tobytes() for z in (0, 1, 2, 3)]

    found = in_a_forked_child(tiles)
    assert found == tiles()
    assert in_a_forked_child(tiles) == found


# Opening

@pytest.fixture
def loads(monkeypatch):
    """How often libvips was made to open a file."""
    options, load = [], loader.load

    def counting(*args, **kwargs):
        options.append(args[3])
        return load(*args, **kwargs)

    monkeypatch.setattr(loader, 'load', counting)
    return options


@pytest.mark.parametrize(('name', 'save'), KINDS)
def test_opening_asks_libvips_at_most_once(tmp_path, loads, name, save):
    save(tmp_path / name)
    source = open_file(tmp_path / name)
    assert (source.sizeX, source.sizeY, source.levels) == (COLS, ROWS, 4)
    assert source.dtype == np.uint8
    assert source.bandCount == 3
    assert len(loads) <= 1


def descriptors_of(path):
    """How many descriptors of a file this process has."""
    count = 0
    for entry in os.scandir('/proc/self/fd'):
        with contextlib.suppress(OSError):
            count += os.readlink(entry.path) == str(path)
    return count


@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='there is no /proc/self/fd')
@pytest.mark.parametrize(('name', 'save'), KINDS)
def test_an_open_source_holds_the_file_only_while_it_reads(tmp_path, name, save):
    save(tmp_path / name)
    sources = [open_file(tmp_path / name) for _ in range(3)]
    assert descriptors_of(tmp_path / name) == 0
    sources[0].getTile(0, 0, 0)
    assert descriptors_of(tmp_path / name) == 0


@needs('jpegload')
def test_profiles_are_read_when_they_are_needed(tmp_path, loads):
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB')).tobytes()
    image = PIL.Image.fromarray(smooth_pixels(300, 400))
    image.save(tmp_path / 'a.jpg', icc_profile=profile)
    image.save(tmp_path / 'b.jpg')
    with_profile, without = open_file(tmp_path / 'a.jpg'), open_file(tmp_path / 'b.jpg')
    assert len(loads) == 2
    assert with_profile._iccprofiles == [profile]
    assert with_profile.getICCProfiles(0) is not None
    assert not hasattr(without, '_iccprofiles')
    assert not hasattr(large_image_source_vips.new(), '_iccprofiles')
    read = len(loads)
    assert with_profile._iccprofiles
    assert not hasattr(without, '_iccprofiles')
    assert len(loads) == read


def test_profiles_are_those_of_the_file_as_it_is(tmp_path):
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB')).tobytes()
    pixels = smooth_pixels(300, 400)

    def write(name, **options):
        tifffile.imwrite(tmp_path / name, pixels, photometric='rgb', tile=(64, 64), **options)

    write('a.tif', iccprofile=profile)
    source = open_file(tmp_path / 'a.tif')
    write('b.tif')
    os.replace(tmp_path / 'b.tif', tmp_path / 'a.tif')
    assert not hasattr(source, '_iccprofiles')
    source = open_file(tmp_path / 'a.tif')
    write('b.tif', iccprofile=profile)
    os.replace(tmp_path / 'b.tif', tmp_path / 'a.tif')
    assert source._iccprofiles == [profile]
    source = open_file(tmp_path / 'a.tif')
    (tmp_path / 'a.tif').write_bytes(bytes(10_000))
    with pytest.raises(TileSourceError, match=r'a\.tif'):
        source._iccprofiles  # noqa: B018  (reading it is what fails)


def test_the_file_of_opening_is_the_one_that_was_found(tmp_path):
    """A file that is replaced while it is opened is an error or the new one."""
    save_strips(tmp_path / 'a.tif')
    file = large_image_source_vips.reading.file.source_file(str(tmp_path / 'a.tif'))
    other = smooth_pixels(64, 64, bands=1)[..., 0]
    tifffile.imwrite(tmp_path / 'b.tif', other)
    os.replace(tmp_path / 'b.tif', tmp_path / 'a.tif')
    if file.loader.through == 'descriptor' and file._sources:
        # It still is open; with OpenSlide libvips wants to open it by its name.
        assert file.open(Opening()).width == COLS
    with pytest.raises(TileSourceError, match='was changed'):
        file.open(Opening())
    np.testing.assert_array_equal(level(FileReader(tmp_path / 'a.tif'))[..., 0], other)
