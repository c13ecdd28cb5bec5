"""Variants of TIFF written by instruments and programs, with their typical errors."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile
from large_image.exceptions import TileSourceError

from helpers import oracles
from helpers.pixels import random_pixels, smooth_pixels
from helpers.reading import level, level_by_tiles, read
from helpers.tiff_by_hand import TILES, tags, write_tiff
from large_image_source_vips.reading.reader import FileReader

COMPRESSIONS = {
    'none': (1, lambda data: data),
    'PackBits': (32773, imagecodecs.packbits_encode),
    'LZW': (5, imagecodecs.lzw_encode),
    'deflate': (8, zlib.compress),
    'zstd': (50000, imagecodecs.zstd_encode),
}
GRAY = random_pixels((48, 64))


def strips(pixels, rows):
    """The bytes of strips of so many rows."""
    return [pixels[top:top + rows].tobytes() for top in range(0, pixels.shape[0], rows)]


def tiles(pixels, side):
    """The bytes of complete tiles."""
    padded = np.pad(pixels, [(0, -pixels.shape[0] % side), (0, -pixels.shape[1] % side)] +
                    [(0, 0)] * (pixels.ndim - 2))
    return [padded[top:top + side, left:left + side].tobytes()
            for top in range(0, padded.shape[0], side)
            for left in range(0, padded.shape[1], side)]


# Remarks about a directory

SLIPS = {
    'a text without NUL': ({'t305': (2, b'Some microscope 5.4')}, {}),
    'an empty text': ({'t305': (2, b'')}, {}),
    'tags out of order': ({}, {'in_order': False}),
    'byte counts of zero': ({}, {'counts': 'zero'}),
    'no byte counts': ({}, {'counts': False}),
    'no photometric interpretation': ({'t262': None}, {}),
    'a private tag of no type': ({'t65000': (3, [])}, {}),
    'a chain that ends beyond the file': ({}, {'last': 1 << 30}),
    'a chain that leads back': ({}, {'last': ('page', 0)}),
    'one number of bits for all samples': ({'t258': (3, [8])}, {}),
    'a resolution without a denominator': ({'t282': (5, [72, 0]), 't283': (5, [72, 0])}, {}),
}


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('compression', COMPRESSIONS)
@pytest.mark.parametrize('samples', [1, 3, 4])
@pytest.mark.parametrize('slip', SLIPS)
def test_slips_in_a_directory_do_not_matter(tmp_path, slip, samples, compression, order):
    pixels = random_pixels((50, 64, samples))
    more, options = SLIPS[slip]
    if compression == 'zstd' and 'counts' in options:
        pytest.skip('a frame of zstd has to be given exactly')
    number, encode = COMPRESSIONS[compression]
    found = tags(pixels, t278=(4, [16]), t259=(3, [number]), **more)
    write_tiff(tmp_path / 'a.tif', (found, [bytes(encode(strip)) for strip in strips(pixels, 16)]),
               order=order, **options)
    np.testing.assert_array_equal(read(tmp_path / 'a.tif'), pixels)


@pytest.mark.parametrize('flaw', ['size', 'type', 'beyond the file'])
def test_a_flaw_in_another_page_does_not_matter(tmp_path, flaw):
    flawed = tags(GRAY, **{'size': {'t256': (4, [0])}, 'type': {'t258': (3, [])},
                           'beyond the file': {'t270': (2, b'text')}}[flaw])
    starts = write_tiff(tmp_path / 'a.tif', (tags(GRAY), [GRAY.tobytes()]),
                        (flawed, [GRAY.tobytes()]))
    if flaw == 'beyond the file':
        with open(tmp_path / 'a.tif', 'r+b') as file:
            file.truncate(starts[1] + 30)
    np.testing.assert_array_equal(read(tmp_path / 'a.tif')[..., 0], GRAY)


def test_pages_of_a_chain_that_leads_back_are_read_once(tmp_path, caplog):
    pages = [random_pixels((48, 64), seed=seed) for seed in range(3)]
    write_tiff(tmp_path / 'a.tif', *((tags(page), [page.tobytes()]) for page in pages),
               last=('page', 1))
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.frame_count == 3
    for frame, page in enumerate(pages):
        np.testing.assert_array_equal(level(reader, frame=frame)[..., 0], page)
    assert 'leads back' in caplog.text


@pytest.mark.parametrize('compression', COMPRESSIONS)
@pytest.mark.parametrize('damage', ['cut short', 'zeroed'])
def test_damaged_data_is_an_error(tmp_path, compression, damage):
    number, encode = COMPRESSIONS[compression]
    data = bytes(encode(smooth_pixels(64, 64)[..., 0].tobytes()))
    middle = len(data) // 2
    if damage == 'cut short':
        data = data[:middle]
    elif compression in {'none', 'PackBits'}:
        pytest.skip('no reader can see that')
    else:
        data = data[:middle] + bytes(middle // 2) + data[middle + middle // 2:]
    found = tags(np.zeros((64, 64), np.uint8), t259=(3, [number]), t278=None,
                 t322=(4, [64]), t323=(4, [64]))
    # A second tile, so that its byte count is believed.
    found[257] = (4, [128])
    write_tiff(tmp_path / 'a.tif', (found, [data, bytes(encode(bytes(64 * 64)))]), places=TILES)
    reader = FileReader(tmp_path / 'a.tif')
    with pytest.raises(TileSourceError):
        level(reader)


@pytest.mark.parametrize('compression', COMPRESSIONS)
def test_tiles_listed_as_strips(tmp_path, compression):
    number, encode = COMPRESSIONS[compression]
    pixels = random_pixels((90, 70, 3))
    found = tags(pixels, t259=(3, [number]), t278=None, t322=(4, [32]), t323=(4, [32]))
    write_tiff(tmp_path / 'a.tif', (found, [bytes(encode(tile)) for tile in tiles(pixels, 32)]))
    np.testing.assert_array_equal(read(tmp_path / 'a.tif'), pixels)


@pytest.mark.parametrize('size', [(0, 5), (5, 0)])
def test_pages_without_pixels_are_refused_with_the_reason(tmp_path, size):
    write_tiff(tmp_path / 'a.tif', (tags(np.zeros(size, np.uint8)), [b'12345']))
    with pytest.raises(TileSourceError, match='image size'):
        FileReader(tmp_path / 'a.tif')


# Tiles of any size

@pytest.mark.parametrize('compression', [None, 'deflate', 'jpeg', 'lzw'])
@pytest.mark.parametrize('size', [(383, 299), (17, 1000), (1, 1)])
def test_a_tile_larger_than_its_image(tmp_path, size, compression):
    pixels = smooth_pixels(*size)
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, pixels, photometric='rgb', tile=(1024, 1024),
                     compression=compression, metadata=None)
    found = read(path).astype(int)
    assert np.abs(found - tifffile.imread(path).reshape(found.shape)).max() <= (
        3 if compression == 'jpeg' else 0)


@pytest.mark.parametrize('side', [10, 33, 257])
def test_tiles_whose_sides_are_no_multiples_of_16(tmp_path, side):
    pixels = random_pixels((300, 280, 3))
    found = tags(pixels, t278=None, t322=(4, [side]), t323=(4, [side]))
    write_tiff(tmp_path / 'a.tif', (found, tiles(pixels, side)), places=TILES)
    np.testing.assert_array_equal(level_by_tiles(FileReader(tmp_path / 'a.tif')), pixels)


# Colours

def ycbcr(pixels):
    return np.asarray(PIL.Image.fromarray(pixels).convert('YCbCr'))


@pytest.mark.parametrize('compression', [None, 'lzw', 'deflate'])
@pytest.mark.parametrize('tile', [None, (64, 64)], ids=['strips', 'tiles'])
@pytest.mark.parametrize('planar', ['contig', 'separate'])
def test_ycbcr_that_is_not_jpeg_becomes_colours(tmp_path, planar, tile, compression):
    pixels = smooth_pixels(150, 170)
    stored = ycbcr(pixels)
    if planar == 'separate':
        stored = np.moveaxis(stored, 2, 0)
    tifffile.imwrite(tmp_path / 'a.tif', stored, photometric='ycbcr', planarconfig=planar,
                     subsampling=(1, 1), tile=tile, rowsperstrip=None if tile else 40,
                     compression=compression, metadata=None)
    found = read(tmp_path / 'a.tif').astype(int)
    assert np.abs(found - pixels).max() <= 3


def subsampled(stored, across, down):
    """Means of the chroma of units of pixels, and complete luma: (rows, cols), (h, w, 2)."""
    padded = np.pad(stored, [(0, -stored.shape[0] % down), (0, -stored.shape[1] % across),
                             (0, 0)], mode='edge')
    high, wide = padded.shape[0] // down, padded.shape[1] // across
    blocks = padded.reshape(high, down, wide, across, 3)
    return padded[..., 0], np.rint(blocks[..., 1:].mean(axis=(1, 3))).astype(np.uint8)


def expected_of(luma, chroma, across, down, size):
    """The colours of subsampled chroma, which holds for all pixels of a unit."""
    whole = np.repeat(np.repeat(chroma, down, 0), across, 1)
    stacked = np.dstack([luma, whole])[:size[0], :size[1]]
    return np.asarray(PIL.Image.frombytes(
        'YCbCr', size[::-1], stacked.tobytes()).convert('RGB')).astype(int)


@pytest.mark.parametrize('compression', ['none', 'deflate', 'LZW'])
@pytest.mark.parametrize('factors', [(2, 1), (2, 2), (1, 2), (4, 4), (4, 1)])
@pytest.mark.parametrize('rows', [16, 50], ids=['strips', 'one strip'])
def test_subsampled_ycbcr_that_is_not_jpeg(tmp_path, rows, factors, compression):
    across, down = factors
    pixels = smooth_pixels(50, 63)
    luma, chroma = subsampled(ycbcr(pixels), across, down)
    number, encode = COMPRESSIONS[compression]
    data = []
    for top in range(0, 50, rows):
        units = []
        for row in range(top // down, -(-min(top + rows, 50) // down)):
            for col in range(chroma.shape[1]):
                block = luma[row * down:(row + 1) * down, col * across:(col + 1) * across]
                units += [*block.ravel(), *chroma[row, col]]
        data.append(bytes(encode(bytes(units))))
    found = tags(pixels, 6, t259=(3, [number]), t278=(4, [rows]), t530=(3, [across, down]))
    write_tiff(tmp_path / 'a.tif', (found, data))
    expected = expected_of(luma, chroma, across, down, (50, 63))
    assert np.abs(read(tmp_path / 'a.tif').astype(int) - expected).max() <= 1


@pytest.mark.parametrize('factors', [(1, 1), (2, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize('rows', [16, 50], ids=['strips', 'one strip'])
def test_planes_of_subsampled_ycbcr(tmp_path, rows, factors):
    across, down = factors
    pixels = smooth_pixels(50, 63)
    luma, chroma = subsampled(ycbcr(pixels), across, down)
    data = strips(luma[:50, :63], rows)
    for band in (0, 1):
        data += strips(chroma[..., band], rows // down if rows < 50 else 50)
    found = tags(pixels, 6, t278=(4, [rows]), t284=(3, [2]), t530=(3, [across, down]))
    write_tiff(tmp_path / 'a.tif', (found, data))
    expected = expected_of(luma, chroma, across, down, (50, 63))
    assert np.abs(read(tmp_path / 'a.tif').astype(int) - expected).max() <= 1


@pytest.mark.parametrize('photometric', [8, 9], ids=['CIELAB', 'ICCLAB'])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
@pytest.mark.parametrize('tile', [None, (32, 32)], ids=['strips', 'tiles'])
def test_lab_becomes_colours(tmp_path, photometric, dtype, tile):
    stored = random_pixels((50, 60, 3), dtype)
    tifffile.imwrite(tmp_path / 'a.tif', stored, photometric=photometric, tile=tile,
                     compression='deflate', metadata=None)
    seen, = oracles.pages_by_tifffile(tmp_path / 'a.tif')
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.interpretation == ('srgb' if dtype == 'uint8' else 'rgb16')
    assert np.abs(level(reader).astype(float) - seen.pixels).max() <= seen.tolerance


@pytest.mark.parametrize('bits', [1, 2, 4, 8, 16])
@pytest.mark.parametrize('compression', ['none', 'deflate'])
def test_palettes_of_any_width(tmp_path, bits, compression):
    rng = np.random.default_rng(bits)
    palette = rng.integers(0, 65536, (3, 2 ** bits)).astype(np.uint16)
    indices = rng.integers(0, 2 ** bits, (40, 48)).astype(np.uint8 if bits <= 8 else np.uint16)
    samples = indices.astype('>u2').view(np.uint8).reshape(40, 48, -1)[..., -1 - bits // 9:]
    data = np.packbits(np.unpackbits(samples, axis=2)[..., -bits:]).tobytes()
    number, encode = COMPRESSIONS[compression]
    write_tiff(tmp_path / 'a.tif', (tags(indices, 3, t258=(3, [bits]), t259=(3, [number]), t320=(
        3, palette.ravel().tolist())), [bytes(encode(data))]), order='>')
    expected = palette.T[indices]
    np.testing.assert_array_equal(
        read(tmp_path / 'a.tif'), expected >> 8 if bits <= 8 else expected)


@pytest.mark.parametrize('bits', [1, 3, 7, 12, 20, 31, 32, 33, 40, 48, 63, 64])
def test_packed_integers_of_any_width(tmp_path, bits):
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 1 << 64, (20, 37, 2), np.uint64) >> np.uint64(64 - bits)
    ones = np.unpackbits(values.astype('>u8').view(np.uint8).reshape(20, 37 * 2, 8), axis=2)
    data = np.packbits(ones[..., -bits:].reshape(20, -1), axis=1).tobytes()
    if bits in {32, 64}:
        # Whole bytes have the byte order of the file.
        data = values.astype(f'<u{bits // 8}').tobytes()
    write_tiff(tmp_path / 'a.tif', (tags(values, 1, t258=(3, [bits, bits]), t338=(3, [0])), [data]))
    found = read(tmp_path / 'a.tif')
    scale = 255 if bits == 1 else 1
    np.testing.assert_array_equal(found, values * np.uint64(scale))


@pytest.mark.parametrize('alpha', [1, 2], ids=['associated', 'unassociated'])
def test_a_last_strip_of_jpeg_may_have_more_rows_than_the_page(tmp_path, alpha):
    pixels = np.dstack([smooth_pixels(64, 96), np.full((64, 96), 255, np.uint8)])
    streams = [imagecodecs.jpeg8_encode(
        np.ascontiguousarray(pixels[top:top + 32]), 95, colorspace='CMYK', outcolorspace='CMYK')
        for top in (0, 32)]
    expected = np.concatenate([imagecodecs.jpeg8_decode(stream) for stream in streams])[:40]
    write_tiff(tmp_path / 'a.tif', (tags(
        pixels[:40], 2, t259=(3, [7]), t338=(3, [alpha]), t278=(4, [32])), streams))
    found = read(tmp_path / 'a.tif')
    assert found.shape == (40, 96, 4)
    opaque = expected[..., 3] == 255
    np.testing.assert_array_equal(found[opaque], expected[opaque])


# Old-style JPEG

def jpeg_parts(stream):
    """The segments of a JPEG stream by marker, and its coded samples without the end."""
    segments, at = [], 2
    while True:
        end = at + 2 + int.from_bytes(stream[at + 2:at + 4], 'big')
        segments.append((stream[at + 1], stream[at:end]))
        if stream[at + 1] == 0xDA:
            return segments, stream[end:-2]
        at = end


def old_jpeg(path, form, mode='RGB'):
    """Write a file of compression 6; returns the picture that Pillow decodes."""
    image = PIL.Image.fromarray(smooth_pixels(64, 96)).convert(mode)
    target = io.BytesIO()
    image.save(target, 'JPEG', quality=90, subsampling=0,
               restart_marker_rows=2 if form == 'strips' else 0)
    stream = target.getvalue()
    segments, samples = jpeg_parts(stream)
    bands = 3 if mode == 'RGB' else 1
    pixels = np.zeros((64, 96, bands), np.uint8)
    found = tags(pixels, 6 if bands == 3 else 1, t259=(3, [6]), t530=(3, [1, 1]))
    chunks = [samples]
    if form == 'whole stream':
        chunks = [stream]
    elif form == 'strips':
        found[278] = (4, [16])
        pieces, start = [], 0
        for at in range(len(samples) - 1):
            if samples[at] == 0xFF and 0xD0 <= samples[at + 1] <= 0xD7:
                pieces.append(samples[start:at])
                start = at + 2
        chunks = [*pieces, samples[start:]]
        assert len(chunks) == 4
    if form == 'tables':
        # Offsets of tables that lie before the file's first strip: an extra strip holds them.
        tables = {0xDB: [], 0xC4: []}
        for marker, segment in segments:
            if marker in tables:
                tables[marker] += split_tables(marker, segment[4:])
        quantisation = [values for _, values in sorted(tables[0xDB])]
        coding = dict(tables[0xC4])
        per_band = [(0, 0x00, 0x10)] + [(1, 0x01, 0x11)] * (bands - 1)
        blob, offsets = b'', {519: [], 520: [], 521: []}
        for quantiser, direct, alternating in per_band:
            for tag, values in ((519, quantisation[quantiser]), (520, coding[direct]),
                                (521, coding[alternating])):
                offsets[tag].append(8 + len(blob))
                blob += values
        found.update({tag: (4, values) for tag, values in offsets.items()})
        first = (tags(GRAY, t258=(3, [8])), [blob])
        # The tables come first in the file, as data of a page that is taken out of the chain.
        starts = write_tiff(path, first, (found, chunks))
        with open(path, 'r+b') as file:
            file.seek(4)
            file.write(starts[1].to_bytes(4, 'little'))
    else:
        if form == 'strips' or form == 'interchange':
            head = stream[:2] + b''.join(
                segment for marker, segment in segments if marker in {0xDB, 0xC0, 0xC4})
            found[513], found[514] = (4, [8]), (4, [len(head)])
            starts = write_tiff(path, (tags(GRAY), [head]), (found, chunks))
            with open(path, 'r+b') as file:
                file.seek(4)
                file.write(starts[1].to_bytes(4, 'little'))
        else:
            write_tiff(path, (found, chunks))
    return np.asarray(PIL.Image.open(io.BytesIO(stream))).reshape(64, 96, bands)


def split_tables(marker, content):
    """The tables of a segment: pairs of the number and the bytes as TIFF stores them."""
    found, at = [], 0
    while at < len(content):
        size = 64 if marker == 0xDB else 16 + sum(content[at + 1:at + 17])
        found.append((content[at], content[at + 1:at + 1 + size]))
        at += 1 + size
    return found


@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize('form', ['whole stream', 'interchange', 'strips', 'tables'])
def test_old_style_jpeg(tmp_path, form, mode):
    expected = old_jpeg(tmp_path / 'a.tif', form, mode)
    found = read(tmp_path / 'a.tif').astype(int)
    assert np.abs(found - expected).max() <= 1


def declared_old_jpeg(path, stream, pixels, **others):
    """Write a stream as compression 6, as one strip, with some tags otherwise than usual."""
    write_tiff(path, (tags(pixels, 6, **{'t259': (3, [6]), **others}), [stream]))


def jpeg_stream(pixels, **options):
    target = io.BytesIO()
    PIL.Image.fromarray(pixels).save(target, 'JPEG', quality=90, **options)
    return target.getvalue()


@pytest.mark.parametrize('others', [
    {'t262': (3, [2])}, {'t262': None}, {'t277': None}, {'t258': None},
    {'t262': None, 't277': None, 't258': None}], ids=' '.join)
def test_old_style_jpeg_that_declares_rgb_or_nothing_is_ycbcr(tmp_path, others):
    pixels = smooth_pixels(64, 96)
    stream = jpeg_stream(pixels, subsampling=0)
    declared_old_jpeg(tmp_path / 'a.tif', stream, pixels, **others)
    expected = np.asarray(PIL.Image.open(io.BytesIO(stream))).astype(int)
    assert np.abs(read(tmp_path / 'a.tif') - expected).max() <= 1


def test_gray_old_style_jpeg_needs_no_photometric_interpretation(tmp_path):
    pixels = smooth_pixels(64, 96)[..., :1]
    stream = jpeg_stream(pixels[..., 0])
    declared_old_jpeg(tmp_path / 'a.tif', stream, pixels, t262=None)
    expected = np.asarray(PIL.Image.open(io.BytesIO(stream)))[..., np.newaxis]
    np.testing.assert_array_equal(read(tmp_path / 'a.tif'), expected)


def test_old_style_jpeg_that_is_rgb_is_refused_with_the_reason(tmp_path):
    pixels = smooth_pixels(64, 96)
    stream = jpeg_stream(pixels, keep_rgb=True)
    declared_old_jpeg(tmp_path / 'a.tif', stream, pixels, t262=(3, [2]))
    with pytest.raises(TileSourceError, match='old-style JPEG has RGB'):
        read(tmp_path / 'a.tif')


@pytest.mark.parametrize('shift', [-3, 0, 40])
def test_a_whole_stream_of_old_style_jpeg_is_read_despite_wrong_strips(tmp_path, shift):
    # HP's library writes an offset within the header, too small a count, and a scan of the
    # coefficients 0 to 0.
    pixels = smooth_pixels(64, 96)
    stream = jpeg_stream(pixels, subsampling=0)
    samples = jpeg_parts(stream)[1]
    start = len(stream) - len(samples) - 2
    flawed = stream[:start - 3] + b'\0\0\0' + stream[start:]
    found = tags(pixels, 6, t259=(3, [6]), t513=(4, [8]), t514=(4, [len(stream)]))
    path = tmp_path / 'a.tif'
    # The stream is in the file as data of a page that is taken out of the chain.
    _, second = write_tiff(path, (tags(GRAY), [flawed]), (found, [b'x']))
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack('<I', second)
    for tag, value in ((273, 8 + start + shift), (279, len(samples) // 2)):
        at = data.index(struct.pack('<HH', tag, 4), second)
        data[at + 8:at + 12] = struct.pack('<I', value)
    path.write_bytes(data)
    expected = np.asarray(PIL.Image.open(io.BytesIO(stream))).astype(int)
    assert np.abs(read(path) - expected).max() <= 1


def test_old_style_jpeg_without_its_data_is_an_error(tmp_path):
    found = tags(np.zeros((64, 96, 3), np.uint8), 6, t259=(3, [6]))
    write_tiff(tmp_path / 'a.tif', (found, [b'nothing of a JPEG stream']))
    with pytest.raises(TileSourceError, match='old-style JPEG'):
        read(tmp_path / 'a.tif')


# Stacks with one directory

@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('axes', ['ZYX', 'TZCYX', 'ZYXS'])
def test_an_imagej_stack_with_one_directory_has_all_its_images(tmp_path, axes, dtype):
    if axes.endswith('S') and dtype != 'uint8':
        pytest.skip('ImageJ has colours of 8 bits only')
    shape = {'ZYX': (12, 50, 60), 'TZCYX': (2, 3, 4, 50, 60), 'ZYXS': (5, 50, 60, 3)}[axes]
    stack = random_pixels((int(np.prod(shape)),), dtype).reshape(shape)
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, stack, imagej=True, truncate=True, metadata={'axes': axes})
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1
    images = stack.reshape(-1, 50, 60, shape[-1] if axes.endswith('S') else 1)
    reader = FileReader(path)
    assert reader.frame_count == len(images)
    for frame, image in enumerate(images):
        np.testing.assert_array_equal(level(reader, frame=frame), image)
        assert reader.read(frame, 1, (0, 0, 30, 25)).shape[:2] == (25, 30)
    if axes == 'TZCYX':
        assert reader.frame_axes()[-1] == {'IndexC': 3, 'IndexZ': 2, 'IndexT': 1}


@pytest.mark.parametrize('text', [
    None, '{"shape": [7, 50, 60], "truncated": true}', '{"truncated": true, "shape": [7, 50, 60]}'])
def test_a_stack_of_tifffile_with_one_directory_has_all_its_images(tmp_path, text):
    stack = random_pixels((7, 50, 60), 'uint16')
    tifffile.imwrite(tmp_path / 'a.tif', stack, photometric='minisblack', truncate=True)
    if text is not None:
        # Versions of tifffile write the entries in different orders.
        tifffile.tiffcomment(tmp_path / 'a.tif', text)
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.frame_count == 7
    np.testing.assert_array_equal(level(reader, frame=6)[..., 0], stack[6])


def test_images_that_are_not_in_the_file_are_not_listed(tmp_path):
    stack = random_pixels((7, 50, 60), 'uint16')
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, stack, imagej=True, truncate=True, metadata={'axes': 'ZYX'})
    with open(path, 'r+b') as file:
        file.truncate(path.stat().st_size - 100)
    reader = FileReader(path)
    assert reader.frame_count == 1
    np.testing.assert_array_equal(level(reader)[..., 0], stack[0])


# Transparency masks

def write_masked(path, pixels, mask, *, form, compression='deflate', levels=()):
    """
    A picture with a mask and reduced levels with masks.

    :param form: 'pages', as GDAL writes them, or 'sub-IFDs' of the first page.
    """
    options = {'tile': (64, 64), 'metadata': None}
    colour = {'photometric': 'rgb' if pixels.ndim == 3 else 'minisblack',
              'compression': compression, **options}
    masks = {'photometric': 'mask', 'compression': 'deflate', **options}
    with tifffile.TiffWriter(path) as tiff:
        if form == 'pages':
            tiff.write(pixels, **colour)
            tiff.write(mask, subfiletype=4, **masks)
            for each, _ in levels:
                tiff.write(each, subfiletype=1, **colour)
            for _, each in levels:
                tiff.write(each, subfiletype=5, **masks)
        else:
            tiff.write(pixels, subifds=1 + len(levels), **colour)
            tiff.write(mask, subfiletype=4, **masks)
            for _, each in levels:
                tiff.write(each, subfiletype=5, **masks)
            for each, _ in levels:
                tiff.write(each, subfiletype=1, **colour)


@pytest.mark.parametrize('form', ['pages', 'sub-IFDs'])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('colours', [1, 3])
def test_a_mask_is_the_alpha_of_its_picture(tmp_path, form, dtype, colours):
    pixels = random_pixels((200, 180, colours), dtype)
    mask = np.random.default_rng(3).random((200, 180)) > 0.4
    half = random_pixels((100, 90, colours), dtype, seed=1), \
        np.random.default_rng(4).random((100, 90)) > 0.4
    write_masked(tmp_path / 'a.tif', pixels.squeeze(), mask, form=form,
                 levels=[(half[0].squeeze(), half[1])])
    reader = FileReader(tmp_path / 'a.tif')
    assert (reader.frame_count, reader.bands) == (1, colours + 1)
    assert reader.associated_names() == []
    opaque = 65535 if dtype == 'uint16' else 255
    for reduction, (colour, known) in enumerate([(pixels, mask), half]):
        found = level_by_tiles(reader, reduction)
        np.testing.assert_array_equal(found[..., :-1], colour)
        np.testing.assert_array_equal(found[..., -1], known * opaque)


def test_a_mask_hides_colours_in_computed_levels(tmp_path):
    pixels = np.zeros((600, 512, 3), np.uint8)
    pixels[:, ::2], pixels[:, 1::2] = (250, 40, 60), (0, 0, 255)
    mask = np.zeros((600, 512), bool)
    mask[:, ::2] = True
    write_masked(tmp_path / 'a.tif', pixels, mask, form='pages', compression='jpeg')
    pixels = tifffile.imread(tmp_path / 'a.tif', key=0)
    reader = FileReader(tmp_path / 'a.tif')
    for reduction in range(5):
        found = level(reader, reduction)
        assert set(np.unique(found[..., 3])) <= {0, 255}
        visible = found[found[..., 3] > 0][:, :3].astype(float)
        assert len(visible)
        np.testing.assert_allclose(visible.mean(0), pixels[mask].mean(0), atol=2)


def test_a_level_without_a_mask_is_not_used_beside_those_that_have_one(tmp_path):
    pixels, mask = random_pixels((400, 400, 3)), np.zeros((400, 400), bool)
    mask[:, :200] = True
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        options = {'tile': (64, 64), 'metadata': None}
        tiff.write(pixels, photometric='rgb', **options)
        tiff.write(mask, photometric='mask', subfiletype=4, **options)
        tiff.write(np.zeros((200, 200, 3), np.uint8), photometric='rgb', subfiletype=1, **options)
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.associated_names() == []
    found = level(reader, 1)
    assert found[:, :100, 3].min() == 255
    assert found[:, 100:, 3].max() == 0
    assert found[:, :100, :3].mean() > 100


def test_frames_of_which_some_have_masks(tmp_path):
    pages, mask = random_pixels((3, 100, 90, 3)), np.zeros((100, 90), bool)
    mask[10:50] = True
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        for page in range(3):
            tiff.write(pages[page], photometric='rgb', metadata=None)
            if page == 1:
                tiff.write(mask, photometric='mask', subfiletype=4, metadata=None)
    reader = FileReader(tmp_path / 'a.tif')
    assert (reader.frame_count, reader.bands) == (3, 4)
    for frame in range(3):
        found = level(reader, frame=frame)
        np.testing.assert_array_equal(found[..., :3], pages[frame])
        np.testing.assert_array_equal(found[..., 3], mask * 255 if frame == 1 else 255)


# Levels that cannot be decoded

@pytest.mark.parametrize('subifds', [False, True], ids=['pages', 'sub-IFDs'])
def test_a_level_that_nobody_can_decode_is_computed(tmp_path, caplog, subifds):
    pixels = smooth_pixels(1024, 1024)
    path = tmp_path / 'a.tif'
    with tifffile.TiffWriter(path) as tiff:
        for by in (1, 2, 4):
            tiff.write(pixels[::by, ::by], photometric='rgb', tile=(128, 128), metadata=None,
                       subfiletype=int(by > 1), subifds=2 if subifds and by == 1 else None)
    with tifffile.TiffFile(path, mode='r+') as tiff:
        broken = tiff.pages[0].pages[0] if subifds else tiff.pages[1]
        broken.tags['Compression'].overwrite(40000)
    reader = FileReader(path)
    np.testing.assert_array_equal(level(reader), pixels)
    np.testing.assert_array_equal(level(reader, 2), pixels[::4, ::4])
    computed = level(reader, 1).astype(float)
    assert np.abs(computed - pixels.reshape(512, 2, 512, 2, 3).mean((1, 3))).max() <= 0.5
    left_out, = reader.internal_metadata()['left-out']
    assert '512 x 512' in left_out
    assert '40000' in left_out
    assert caplog.text.count('512 x 512') == 1
    FileReader(path)
    assert caplog.text.count('512 x 512') == 1


def test_a_damaged_tile_of_a_level_is_an_error(tmp_path):
    path = tmp_path / 'a.tif'
    with tifffile.TiffWriter(path) as tiff:
        for by in (1, 2):
            tiff.write(random_pixels((512 // by, 512 // by, 3)), photometric='rgb',
                       tile=(128, 128), compression='deflate', subfiletype=by - 1, metadata=None)
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[1].dataoffsets[0]
    with open(path, 'r+b') as file:
        file.seek(offset + 2000)
        file.write(bytes(100))
    reader = FileReader(path)
    level(reader)
    with pytest.raises(TileSourceError, match='deflate'):
        level(reader, 1)
