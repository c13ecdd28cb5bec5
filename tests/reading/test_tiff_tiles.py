"""Tiles and strips of TIFF pages with all codecs and layouts, compared with tifffile."""

import random
import zlib

import numpy as np
import pytest
import pyvips
import tifffile
from large_image.exceptions import TileSourceError

from helpers.around import declare_empty, in_a_forked_child, in_threads, overwrite
from helpers.pixels import random_pixels, smooth_pixels
from helpers.reading import level, level_by_tiles
from helpers.tiff_by_hand import tags, write_tiff
from large_image_source_vips.base import libraries
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.codecs import lossless
from large_image_source_vips.reading import handles
from large_image_source_vips.reading.reader import FileReader

# Codecs of bytes, by tifffile's names, and what they need of pictures.
BYTES = [None, 'packbits', 'lzw', 'zlib', 'zstd', 'lzma']
SHAPES = {'tiles': {'tile': (48, 80)}, 'large tiles': {'tile': (512, 512)},
          'strips': {'rowsperstrip': 7}, 'one strip': {'rowsperstrip': 1000}}


def save(path, pixels, planar=False, **options):
    """Write an array (rows, cols, bands) and give what tifffile reads of it."""
    bands = pixels.shape[2]
    options = {'photometric': 'rgb' if bands in (3, 4) else 'minisblack', 'metadata': None,
               **options}
    if bands == 1:
        data = pixels[..., 0]
    else:
        data = np.moveaxis(pixels, 2, 0) if planar else pixels
        options['planarconfig'] = 'separate' if planar else 'contig'
    tifffile.imwrite(path, data, **options)
    found = tifffile.imread(path)
    if bands == 1:
        return found[..., np.newaxis]
    return np.moveaxis(found, 0, 2) if planar else found


def check(path, expected, seed=0):
    """Compare a file whole, by tiles, by any rectangle, and into an array of any strides."""
    reader = FileReader(path)
    found = level(reader)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(level_by_tiles(reader, side=64), expected)
    numbers = random.Random(seed)
    rows, cols, bands = expected.shape
    for _ in range(6):
        left, top = numbers.randrange(cols), numbers.randrange(rows)
        rect = Rect(left, top, numbers.randint(1, cols - left), numbers.randint(1, rows - top))
        part = expected[rect.top:rect.bottom, rect.left:rect.right]
        np.testing.assert_array_equal(reader.read(0, 0, rect), part)
        room = np.zeros((bands, rect.height * 2, rect.width + 3), expected.dtype)
        out = np.moveaxis(room, 0, 2)[::2, 1:-2]
        assert reader.read(0, 0, rect, out=out) is out
        np.testing.assert_array_equal(out, part)
        assert not room[:, 1::2].any()
        assert not room[:, :, [0, -2, -1]].any()
    reader.close()


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('compression', BYTES)
@pytest.mark.parametrize('dtype', ['uint8', 'int16', 'uint16', 'int32', 'float32', 'float64'])
def test_codecs_of_bytes_in_every_layout(tmp_path, compression, dtype, shape):
    number = 0
    for order in '<>':
        for bands, planar in ((1, False), (3, False), (3, True), (2, True)):
            pixels = random_pixels((115, 133, bands), dtype)
            path = tmp_path / f'{number}.tif'
            expected = save(path, pixels, planar, byteorder=order, compression=compression,
                            **SHAPES[shape])
            np.testing.assert_array_equal(expected, pixels)
            check(path, pixels, number)
            number += 1


@pytest.mark.parametrize('compression', ['lzw', 'zlib', 'zstd'])
@pytest.mark.parametrize('dtype', ['uint8', 'int8', 'uint16', 'uint32', 'float16', 'float32',
                                   'float64'])
def test_predictors(tmp_path, compression, dtype):
    number = 0
    for order in '<>':
        for shape in ('tiles', 'strips'):
            for bands, planar in ((1, False), (3, False), (3, True)):
                pixels = random_pixels((115, 133, bands), dtype)
                path = tmp_path / f'{number}.tif'
                save(path, pixels, planar, byteorder=order, compression=compression,
                     predictor=True, **SHAPES[shape])
                wide = pixels.astype('float32') if dtype == 'float16' else pixels
                check(path, wide, number)
                number += 1


@pytest.mark.parametrize('bits', [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 17, 20, 31])
@pytest.mark.parametrize('compression', [None, 'zlib'])
def test_packed_integers_of_any_width(tmp_path, bits, compression):
    most = (1 << bits) - 1
    dtype = 'uint8' if bits <= 8 else 'uint16' if bits <= 16 else 'uint32'
    pixels = np.random.default_rng(bits).integers(0, most, (61, 67, 1), dtype, endpoint=True)
    rows = [np.unpackbits(np.array(row[:, 0], '>u4').view('u1').reshape(-1, 4), axis=1)
            [:, 32 - bits:].reshape(-1) for row in pixels]
    packed = b''.join(np.packbits(row).tobytes() for row in rows)
    path = tmp_path / 'a.tif'
    save(path, random_pixels((61, -(-67 * bits // 8), 1)), compression=compression,
         rowsperstrip=61)
    stored = packed if compression is None else zlib.compress(packed)
    patch_bits(path, bits, 67, stored)
    scaled = pixels * (255 // most) if bits in (1, 2, 4) else pixels
    check(path, scaled.astype(dtype))


def patch_bits(path, bits, width, stored):
    """Make a file of one strip one of other bits and width."""
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags
        places = {code: (tags[code].valueoffset, tags[code].valuebytecount)
                  for code in (256, 258, 273, 279)}
        end = tiff.filehandle.size
    with path.open('ab') as file:
        file.write(stored)
    for code, value in ((256, width), (258, bits), (273, end), (279, len(stored))):
        at, size = places[code]
        overwrite(path, at, value.to_bytes(size, 'little'))


@pytest.mark.parametrize('order', '<>')
def test_bits_of_bytes_in_reverse_order(tmp_path, order):
    pixels = random_pixels((50, 60, 1), 'uint16')
    strips = []
    for top in range(0, 50, 20):
        stored = pixels[top:top + 20].astype(f'{order}u2').tobytes()
        data = np.frombuffer(zlib.compress(stored), np.uint8)
        strips.append(np.packbits(
            np.unpackbits(data[:, np.newaxis], axis=1)[:, ::-1], axis=1).tobytes())
    write_tiff(tmp_path / 'a.tif', (tags(
        pixels, t259=(3, [8]), t266=(3, [2]), t278=(4, [20])), strips), order=order)
    check(tmp_path / 'a.tif', pixels)


PICTURES = {
    'jpeg2000': ({'compression': 'jpeg2000', 'compressionargs': {'level': 0}},
                 ['uint8', 'uint16'], (1, 3, 4)),
    'webp': ({'compression': 'webp', 'compressionargs': {'lossless': True}}, ['uint8'], (3, 4)),
    'jpegxl': ({'compression': 'jpegxl', 'compressionargs': {'lossless': True}},
               ['uint8', 'uint16', 'float32'], (1, 3)),
    'jpegxl of DNG': ({'compression': 'jpegxl_dng', 'compressionargs': {'lossless': True}},
                      ['uint8'], (3,)),
    'lerc': ({'compression': 'lerc'}, ['uint8', 'int16', 'uint32', 'float32', 'float64'], (1, 3)),
    'lerc and deflate': ({'compression': 'lerc', 'compressionargs': {'compression': 'deflate'}},
                         ['uint8', 'float32'], (1,)),
    'lerc and zstd': ({'compression': 'lerc', 'compressionargs': {'compression': 'zstd'}},
                      ['uint16'], (3,)),
}


@pytest.mark.parametrize('shape', [{'tile': (64, 80)}, {'rowsperstrip': 32}], ids=str)
@pytest.mark.parametrize('kind', PICTURES)
def test_codecs_of_pictures(tmp_path, kind, shape):
    options, dtypes, band_counts = PICTURES[kind]
    for dtype in dtypes:
        for bands in band_counts:
            for planar in (False, True) if bands == 3 and kind not in {'webp'} else (False,):
                pixels = smooth_pixels(115, 133, bands).astype(dtype)
                path = tmp_path / f'{dtype}{bands}{planar}.tif'
                extra = {'extrasamples': ['unassalpha']} if bands == 4 else {}
                expected = save(path, pixels, planar, **options, **shape, **extra)
                np.testing.assert_array_equal(expected, pixels)
                check(path, pixels)


@pytest.mark.parametrize('planar', [False, True])
@pytest.mark.parametrize('bands', [1, 3])
@pytest.mark.parametrize('shape', [{'tile': (64, 80)}, {'rowsperstrip': 32}], ids=str)
def test_jpeg_has_the_pixels_that_tifffile_reads(tmp_path, bands, planar, shape):
    pixels = smooth_pixels(115, 133, bands)
    expected = save(tmp_path / 'a.tif', pixels, planar and bands > 1, compression='jpeg', **shape)
    check(tmp_path / 'a.tif', expected)


# Damage

ALL = [*BYTES[1:], 'jpeg', 'jpeg2000', 'webp', 'jpegxl', 'lerc']


def damaged(path, kind, end):
    """Damage the data of the last tile of a file, which has so many bytes at its end."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[-1], page.databytecounts[-1]
        tag = page.tags[325 if page.is_tiled else 279]
        width = tag.valuebytecount // tag.count
        at = tag.valueoffset + (tag.count - 1) * width
    kept = {'cut': count // 2, 'no end': count - end}.get(kind)
    if kept is not None:
        overwrite(path, at, kept.to_bytes(width, 'little'))
    elif kind == 'zeros':
        overwrite(path, offset + count // 4, bytes(count // 2))
    else:
        overwrite(path, offset, bytes(64))


@pytest.mark.parametrize('shape', [{'tile': (64, 64)}, {'rowsperstrip': 64}], ids=str)
@pytest.mark.parametrize('kind', ['cut', 'no end', 'zeros', 'no header'])
@pytest.mark.parametrize('compression', ALL)
def test_damage_is_an_error_that_names_its_tile(tmp_path, compression, kind, shape):
    if kind == 'zeros' and compression in {'jpeg2000', 'webp', 'zstd'}:
        pytest.skip('this codec has neither a checksum nor codes that cannot occur')
    pixels = random_pixels((128, 128, 3)) & 0x0F
    path = tmp_path / 'a.tif'
    expected = save(path, pixels, compression=compression, **shape)
    damaged(path, kind, 8 if compression == 'lzw' else 2)
    reader = FileReader(path)
    np.testing.assert_array_equal(reader.read(0, 0, Rect(0, 0, 128, 64)), expected[:64])
    what = 'stored tile 1, 1' if 'tile' in shape else 'strip 1'
    for _ in range(2):
        with pytest.raises(TileSourceError, match=rf'frame 0, level 0.*a\.tif.*{what}: its '):
            reader.read(0, 0, Rect(64, 64, 64, 64))
    np.testing.assert_array_equal(reader.read(0, 0, Rect(0, 0, 64, 64)), expected[:64, :64])


@pytest.mark.parametrize('compression', ['zlib', 'lzma', 'lerc'])
def test_every_flipped_byte_is_noticed_where_there_is_a_checksum(tmp_path, compression):
    path = tmp_path / 'a.tif'
    expected = save(path, random_pixels((32, 32, 1)), compression=compression, tile=(32, 32))
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    data = path.read_bytes()
    for place in range(0, count, 29):
        overwrite(path, offset + place, bytes((data[offset + place] ^ 0x55,)))
        reader = FileReader(path)
        try:
            found = level(reader)
        except TileSourceError:
            pass
        else:
            # Such as the year in a header.
            np.testing.assert_array_equal(found, expected)
        reader.close()
        overwrite(path, offset, data[offset:offset + count])


def test_a_jpeg_that_is_smaller_than_its_tile_is_an_error(tmp_path):
    path = tmp_path / 'a.tif'
    expected = save(path, smooth_pixels(128, 128), compression='jpeg', tile=(64, 64))
    save(tmp_path / 'small.tif', smooth_pixels(48, 48), compression='jpeg', tile=(48, 48))
    with tifffile.TiffFile(tmp_path / 'small.tif') as tiff:
        page = tiff.pages[0]
        tiff.filehandle.seek(page.dataoffsets[0])
        small = tiff.filehandle.read(page.databytecounts[0])
    with tifffile.TiffFile(path) as tiff:
        stored, end = tiff.pages[0].tags, tiff.filehandle.size
        places = [(stored[code].valueoffset, stored[code].valuebytecount // 4)
                  for code in (324, 325)]
    with path.open('ab') as file:
        file.write(small)
    for (at, width), value in zip(places, (end, len(small)), strict=True):
        overwrite(path, at, value.to_bytes(width, 'little'))
    reader = FileReader(path)
    with pytest.raises(TileSourceError, match='48 x 48 pixels, not 64 x 64'):
        level(reader)
    np.testing.assert_array_equal(reader.read(0, 0, Rect(64, 0, 64, 128)), expected[:, 64:])


@pytest.mark.parametrize('compression', [None, 'zlib', 'zstd', 'lzma', 'jpeg', 'jpeg2000', 'webp'])
@pytest.mark.parametrize('planar', [False, True])
def test_empty_tiles_are_blank(tmp_path, compression, planar):
    if planar and compression == 'webp':
        pytest.skip('WebP has three bands')
    for name, shape in {'tiles': {'tile': (64, 64)}, 'strips': {'rowsperstrip': 64}}.items():
        path = tmp_path / f'{name}.tif'
        expected = save(path, random_pixels((192, 128, 3)), planar, compression=compression,
                        **shape).copy()
        declare_empty(path, 1)
        blank = expected[:64, 64:] if name == 'tiles' else expected[64:128]
        blank[..., :1 if planar else 3] = 0
        check(path, expected)


# Libraries

@pytest.mark.parametrize('compression', [None, 'zlib', 'lzw', 'packbits', 'zstd'])
def test_without_imagecodecs_libvips_reads_or_the_error_names_it(tmp_path, monkeypatch,
                                                                compression):
    pixels = random_pixels((200, 300, 3))
    save(tmp_path / 'a.tif', pixels, compression=compression, tile=(64, 64))
    for module in (libraries, lossless):
        monkeypatch.setattr(module, 'imagecodecs', lambda: None)
    if compression == 'zstd' and not decodes_zstd():
        with pytest.raises(TileSourceError, match='pip install imagecodecs'):
            FileReader(tmp_path / 'a.tif')
        return
    np.testing.assert_array_equal(level(FileReader(tmp_path / 'a.tif')), pixels)


def decodes_zstd():
    """Whether this libvips has ZSTD for TIFF."""
    try:
        pyvips.Image.black(16, 16).tiffsave_buffer(compression='zstd')
    except pyvips.Error:
        return False
    return True


# Threads, processes, other versions of a file

@pytest.mark.parametrize('compression', [None, 'zlib', 'jpeg'])
def test_threads_share_nothing_that_changes(tmp_path, compression):
    expected = save(tmp_path / 'a.tif', random_pixels((1024, 1024, 3)), compression=compression,
                    tile=(112, 128))
    reader = FileReader(tmp_path / 'a.tif')
    wrong = []

    def look(seed):
        numbers = random.Random(seed)
        for _ in range(60):
            left, top = numbers.randrange(900), numbers.randrange(900)
            found = reader.read(0, 0, Rect(left, top, 120, 100))
            if not np.array_equal(found, expected[top:top + 100, left:left + 120]):
                wrong.append((left, top))

    in_threads(look, range(4))
    assert not wrong


@pytest.mark.parametrize('compression', [None, 'zlib', 'jpeg'])
def test_a_forked_child_reads_the_same(tmp_path, compression):
    expected = save(tmp_path / 'a.tif', random_pixels((500, 500, 3)), compression=compression,
                    tile=(112, 128))
    reader = FileReader(tmp_path / 'a.tif')
    reader.read(0, 0, Rect(0, 0, 200, 200))
    child = in_a_forked_child(lambda: level_by_tiles(reader, side=100))
    np.testing.assert_array_equal(child, expected)


def test_a_file_that_changed_is_not_mistaken(tmp_path):
    path = tmp_path / 'a.tif'
    first, second = random_pixels((300, 300, 1), seed=1), random_pixels((300, 300, 1), seed=2)
    reader = None
    for pixels in (first, second, first):
        save(path, pixels, compression='zlib', tile=(112, 128))
        reader = reader or FileReader(path)
        np.testing.assert_array_equal(level_by_tiles(reader, side=50), pixels)


def test_what_is_open_is_counted_and_closed(tmp_path):
    save(tmp_path / 'a.tif', random_pixels((512, 512, 1)), compression='zlib', tile=(64, 64))
    reader = FileReader(tmp_path / 'a.tif')
    level(reader)
    serial = reader._file.serial
    assert any(key[0] == serial for key in handles.pool._handles)
    reader.close()
    assert not any(key[0] == serial for key in handles.pool._handles)
