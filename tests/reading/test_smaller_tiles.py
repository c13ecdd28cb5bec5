"""JPEG tiles are decoded at reduced size for missing levels."""

import os

import numpy as np
import pytest
import pyvips
import tifffile
from large_image.exceptions import TileSourceError

from helpers.around import declare_empty, in_a_forked_child, overwrite, real_file
from helpers.pixels import block_means, random_pixels, smooth_pixels
from helpers.reading import level, level_by_tiles
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.codecs.jpeg import JpegDecoder
from large_image_source_vips.reading.reader import FileReader


@pytest.fixture
def decoded(monkeypatch):
    """The sizes of the tiles that were decoded smaller."""
    sizes = []
    original = JpegDecoder.decode_smaller

    def counting(self, data, size, halvings):
        sizes.append(size)
        return original(self, data, size, halvings)

    monkeypatch.setattr(JpegDecoder, 'decode_smaller', counting)
    return sizes


KINDS = {
    'libvips, 4:2:0': lambda path, pixels: save(path, pixels, Q=75),
    'libvips, 4:4:4': lambda path, pixels: save(path, pixels, Q=95),
    'libvips, RGB': lambda path, pixels: save(path, pixels, Q=95, rgbjpeg=True),
    'libvips, gray': lambda path, pixels: save(path, pixels[..., 1], Q=95),
    'tifffile': lambda path, pixels: tifffile.imwrite(
        path, pixels, photometric='rgb', compression='jpeg', tile=(128, 256)),
    'tifffile, gray': lambda path, pixels: tifffile.imwrite(
        path, pixels[..., 0], photometric='minisblack', compression='jpeg', tile=(64, 64)),
    'tifffile, big-endian': lambda path, pixels: tifffile.imwrite(
        path, pixels, photometric='rgb', compression='jpeg', tile=(240, 240), byteorder='>',
        bigtiff=True),
}


def save(path, pixels, **options):
    options = {'tile': True, 'tile_width': 256, 'tile_height': 256, 'compression': 'jpeg',
               **options}
    pyvips.Image.new_from_array(pixels).tiffsave(str(path), **options)


@pytest.mark.parametrize('kind', KINDS)
def test_levels_are_close_to_the_means(tmp_path, decoded, kind):
    KINDS[kind](tmp_path / 'a.tif', smooth_pixels(1111, 1703))
    reader = FileReader(tmp_path / 'a.tif')
    full = level(reader).astype(int)
    assert not decoded
    for reduction in (1, 2, 3):
        found = level_by_tiles(reader, reduction)
        difference = np.abs(found - block_means(full, 1 << reduction))
        assert difference.mean() < 0.6
        assert difference.max() < 6
    assert decoded
    for reduction in (4, 5, 6):
        np.testing.assert_allclose(
            level(reader, reduction), block_means(level(reader, reduction - 1), 2), atol=0.5)


@pytest.mark.parametrize('size', [(1111, 1703), (1024, 1280), (1030, 264), (264, 1036), (4, 3000)])
def test_the_border_shows_what_is_inside_only(tmp_path, decoded, size):
    # What is behind the edge of the image in its tiles is black.
    rows, cols = size
    pixels = np.full((-(-rows // 256) * 256, -(-cols // 256) * 256, 3), 0, 'uint8')
    pixels[:rows, :cols] = (200, 150, 100)
    save(tmp_path / 'whole.tif', pixels, Q=95)
    data = bytearray((tmp_path / 'whole.tif').read_bytes())
    with tifffile.TiffFile(tmp_path / 'whole.tif') as tiff:
        tags = tiff.pages[0].tags
        for code, value in ((256, cols), (257, rows)):
            at = tags[code].valueoffset
            data[at:at + tags[code].valuebytecount] = value.to_bytes(
                tags[code].valuebytecount, 'little')
    (tmp_path / 'a.tif').write_bytes(data)
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.size == (cols, rows)
    full = level(reader).astype(int)
    for reduction in (1, 2, 3):
        found = level_by_tiles(reader, reduction).astype(int)
        np.testing.assert_allclose(found, block_means(full, 1 << reduction), atol=6)
    assert level(reader, 4).min() > 60


@pytest.mark.parametrize('options', [
    {'restart_interval': 7}, {'interlace': True}, {'optimize_coding': True, 'Q': 100},
    {'subsample_mode': 'off'}, {'subsample_mode': 'on'}], ids=str)
def test_a_page_of_all_kinds_of_tiles(tmp_path, options):
    pixels = smooth_pixels(768, 768)
    save(tmp_path / 'a.tif', pixels, Q=75)
    expected = [level(FileReader(tmp_path / 'a.tif'), reduction) for reduction in (1, 2, 3)]
    image = pyvips.Image.new_from_array(pixels[256:512, 256:512])
    try:
        # A whole JPEG file, with tables of its own.
        tile = image.jpegsave_buffer(**{'Q': 90, **options})
    except pyvips.Error as exc:
        pytest.skip(str(exc))
    with tifffile.TiffFile(tmp_path / 'a.tif') as tiff:
        tags = [tiff.pages[0].tags[code] for code in (324, 325)]
        end = tiff.filehandle.size
    with (tmp_path / 'a.tif').open('ab') as file:
        file.write(tile)
    for tag, value in zip(tags, (end, len(tile)), strict=True):
        size = tag.valuebytecount // tag.count
        overwrite(tmp_path / 'a.tif', tag.valueoffset + 4 * size, value.to_bytes(size, 'little'))
    reader = FileReader(tmp_path / 'a.tif')
    for reduction, others in enumerate(expected, 1):
        found, side = level(reader, reduction), 256 >> reduction
        middle = slice(side, 2 * side), slice(side, 2 * side)
        means = block_means(pixels[256:512, 256:512], 1 << reduction)
        assert np.abs(found[middle].astype(int) - means).mean() < 2
        others[middle] = found[middle]
        np.testing.assert_array_equal(found, others)


@pytest.mark.parametrize('damage', [b'\x55' * 40, b'\xff\xd0' * 3, b'\xff\xd9', b'\xff\x00' * 30],
                         ids=['samples', 'restarts', 'end', 'zeros'])
def test_a_damaged_scan_leaves_other_tiles_alone(tmp_path, damage):
    save(tmp_path / 'a.tif', random_pixels((768, 768, 3)), Q=90)
    expected = [level(FileReader(tmp_path / 'a.tif'), reduction) for reduction in (1, 2, 3)]
    with tifffile.TiffFile(tmp_path / 'a.tif') as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[4], page.databytecounts[4]
    overwrite(tmp_path / 'a.tif', offset + count // 2, damage)
    reader = FileReader(tmp_path / 'a.tif')
    for reduction, undamaged in enumerate(expected, 1):
        side = 256 >> reduction
        for row, column in np.ndindex(3, 3):
            rect = Rect(column * side, row * side, side, side)
            if (row, column) != (1, 1):
                part = slice(rect.top, rect.bottom), slice(rect.left, rect.right)
                np.testing.assert_array_equal(reader.read(0, reduction, rect), undamaged[part])
        # And all of them together, unless libvips says that it is damaged.
        try:
            found = level(reader, reduction)
        except TileSourceError:
            continue
        undamaged[side:2 * side, side:2 * side] = found[side:2 * side, side:2 * side]
        np.testing.assert_array_equal(found, undamaged)


@pytest.mark.parametrize('kind', ['libvips, 4:2:0', 'tifffile, big-endian'])
def test_a_pixel_has_one_value_whatever_it_is_read_with(tmp_path, kind):
    KINDS[kind](tmp_path / 'a.tif', smooth_pixels(1111, 1703))
    readers = [FileReader(tmp_path / 'a.tif') for _ in range(2)]
    rng = np.random.default_rng(5)
    for reduction in (3, 2, 1, 4):
        whole = level(readers[0], reduction)
        for _ in range(8):
            left, right = sorted(rng.choice(whole.shape[1] + 1, 2, replace=False).tolist())
            top, bottom = sorted(rng.choice(whole.shape[0] + 1, 2, replace=False).tolist())
            part = readers[1].read(0, reduction, Rect(left, top, right - left, bottom - top))
            np.testing.assert_array_equal(part, whole[top:bottom, left:right])
        # Now from the plane that the lower levels are made of.
        level(readers[1], 5)
        np.testing.assert_array_equal(level_by_tiles(readers[1], reduction), whole)


def test_levels_between_stored_ones(tmp_path, decoded):
    pixels = smooth_pixels(2000, 3000)
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        for step in (1, 4, 16):
            tiff.write(pixels[::step, ::step], photometric='rgb', compression='jpeg',
                       tile=(256, 256), subfiletype=int(step > 1), metadata=None)
    reader = FileReader(tmp_path / 'a.tif')
    for reduction in (1, 3):
        before = len(decoded)
        stored = level(reader, reduction - 1)
        assert len(decoded) == before
        found = level(reader, reduction)
        assert len(decoded) > before
        assert np.abs(found - block_means(stored, 2)).mean() < 1


def test_the_tiff_file_says_what_the_colours_are(tmp_path):
    """Not what is written into each tile."""
    pixels = smooth_pixels(512, 512)
    save(tmp_path / 'rgb.tif', pixels, Q=95, rgbjpeg=True)
    expected = level(FileReader(tmp_path / 'rgb.tif'), 1).astype(int)
    data = (tmp_path / 'rgb.tif').read_bytes()
    with tifffile.TiffFile(tmp_path / 'rgb.tif') as tiff:
        page = tiff.pages[0]
        assert page.photometric == tifffile.PHOTOMETRIC.RGB
        offset, count = page.dataoffsets[0], page.databytecounts[0]
        tags = {code: page.tags[code].valueoffset for code in (324, 325)}
        at = {code: int.from_bytes(data[start:start + 4], 'little')
              if page.tags[code].count == 1 else start for code, start in tags.items()}
    # The same tile with a JFIF header, which says YCbCr, at the end of the file.
    tile = data[offset:offset + count]
    jfif = b'\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00'
    changed = tile[:2] + jfif + tile[2:]
    (tmp_path / 'a.tif').write_bytes(data + changed)
    overwrite(tmp_path / 'a.tif', at[324], len(data).to_bytes(4, 'little'))
    overwrite(tmp_path / 'a.tif', at[325], len(changed).to_bytes(4, 'little'))
    found = level(FileReader(tmp_path / 'a.tif'), 1).astype(int)
    np.testing.assert_array_equal(found, expected)


def test_empty_tiles_are_blank(tmp_path):
    pixels = smooth_pixels(512, 768)
    save(tmp_path / 'a.tif', pixels, Q=95)
    declare_empty(tmp_path / 'a.tif', 4)
    found = level(FileReader(tmp_path / 'a.tif'), 1)
    assert not found[128:, 128:256].any()
    assert np.abs(found[:128].astype(int) - block_means(pixels[:256], 2)).max() < 12


@pytest.mark.parametrize('damage', ['zeros', 'cut'])
def test_damage_is_an_error_of_its_tile(tmp_path, damage):
    save(tmp_path / 'a.tif', random_pixels((768, 768, 3)), Q=90)
    with tifffile.TiffFile(tmp_path / 'a.tif') as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[8], page.databytecounts[8]
    if damage == 'zeros':
        overwrite(tmp_path / 'a.tif', offset, bytes(count))
    else:
        overwrite(tmp_path / 'a.tif', offset + 2, b'\xff\xd9' + bytes(20))
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.read(0, 2, Rect(0, 0, 128, 128)).any()
    with pytest.raises(TileSourceError, match=r'a\.tif'):
        reader.read(0, 2, Rect(128, 128, 64, 64))
    with pytest.raises(TileSourceError, match=r'a\.tif'):
        level(reader, 4)


@pytest.mark.parametrize('frame', [
    b'\xff\xc0\x00\x08\x08\x01\x00\x01\x00\x00', b'\xff\xc0\x00\x02',
    b'\xff\xc0\x00\x0b\x08\x01\x00\x01\x00\x01\x01\x00\x00'], ids=['none', 'short', 'factors'])
@pytest.mark.parametrize('scan', [b'\xff\xda\x00\x03\x00', b'\xff\xda\x00\x02',
                                  b'\xff\xda\x00\x04\x01\x01'], ids=['none', 'empty', 'one'])
def test_headers_that_make_no_sense_are_an_error(tmp_path, frame, scan):
    save(tmp_path / 'a.tif', smooth_pixels(512, 512), Q=90)
    with tifffile.TiffFile(tmp_path / 'a.tif') as tiff:
        offsets = tiff.pages[0].dataoffsets
    for offset in offsets[:2]:
        overwrite(tmp_path / 'a.tif', offset, b'\xff\xd8' + frame + scan + b'\x01\xff\xd9')
    reader = FileReader(tmp_path / 'a.tif')
    with pytest.raises(TileSourceError, match=r'a\.tif'):
        level(reader, 1)
    assert reader.read(0, 1, Rect(0, 128, 128, 128)).any()


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system has no fork')
def test_a_forked_child_sees_the_same(tmp_path):
    save(tmp_path / 'a.tif', smooth_pixels(1500, 1500), Q=85)
    reader = FileReader(tmp_path / 'a.tif')
    level(reader, 2)

    def levels():
        return [level(reader, reduction).tobytes() for reduction in (1, 3, 5)]

    assert in_a_forked_child(levels) == levels()


@pytest.mark.parametrize('name', ['CMU-1-Small-Region.tiff'])
def test_real_slides(name, decoded):
    reader = FileReader(real_file(name))
    page = reader._layout.frames[0].levels[0].page
    if page is None:
        pytest.skip('this libvips reads it through OpenSlide')
    side = 1024
    width, height = reader.size
    left, top = width // 2 // 8 * 8, height // 2 // 8 * 8
    side = min(side, width - left, height - top) // 8 * 8
    full = reader.read(0, 0, Rect(left, top, side, side)).astype(int)
    for reduction in (1, 2, 3):
        if reduction in reader._layout.frames[0].levels:
            continue
        scale = 1 << reduction
        found = reader.read(0, reduction, Rect(
            left // scale, top // scale, side // scale, side // scale))
        difference = found - block_means(full, scale)
        assert np.abs(difference).mean() < 2
        assert abs(difference.mean()) < 0.3
