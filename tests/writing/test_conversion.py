"""Tiles of real and synthetic TIFF files are copied byte for byte."""

import itertools

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import pyvips
import tifffile

import large_image_source_vips
from helpers.around import real_file

YCBCR, RGB, GRAY = 'YCBCR', 'RGB', 'MINISBLACK'


def photo(rows, cols, bands=3):
    y, x = np.mgrid[:rows, :cols]
    parts = [128 + 90 * np.sin(x / 50 + k) * np.cos(y / 70 - k) + (x * 7 + y * 3) % 23
             for k in range(bands)]
    return np.stack(parts, axis=2).astype(np.uint8)


def split_tables(stream):
    """A JPEG stream as its tables and the rest, as TIFF's technical note 2 has it."""
    tables, rest, at = [], [stream[:2]], 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2:at + 4], 'big')
        (tables if stream[at + 1] in {0xDB, 0xC4} else rest).append(stream[at:end])
        at = end
    return b'\xff\xd8' + b''.join(tables) + b'\xff\xd9', b''.join(rest) + stream[at:]


def make_jpeg(path, levels, side, photometric, subsampling, *, shared, big_endian=False):
    """A file of JPEG tiles; with ``shared`` its tables are in JPEGTables."""
    with tifffile.TiffWriter(path, byteorder='>' if big_endian else '<') as file:
        for number, pixels in enumerate(levels):
            rows, cols, bands = pixels.shape
            tiles, tables = [], None
            for top, left in itertools.product(range(0, rows, side), range(0, cols, side)):
                tile = pixels[top:top + side, left:left + side]
                tile = np.pad(tile, ((0, side - tile.shape[0]), (0, side - tile.shape[1]), (0, 0)))
                data = imagecodecs.jpeg8_encode(
                    tile[:, :, 0] if bands == 1 else tile, 60,
                    colorspace=None if bands == 1 else 'RGB',
                    outcolorspace=None if bands == 1 else photometric,
                    subsampling={(1, 1): '444', (2, 1): '422', (2, 2): '420'}[subsampling])
                if shared:
                    tables, data = split_tables(data)
                tiles.append(data)
            options = {'compressionargs': {'outcolorspace': 'rgb'}} if photometric == RGB else {}
            file.write(
                iter(tiles), shape=pixels.shape if bands > 1 else pixels.shape[:2],
                dtype=np.uint8, tile=(side, side), compression='jpeg', photometric=photometric,
                subsampling=subsampling, jpegtables=tables, metadata=None,
                subfiletype=int(number > 0), **options)


def stored(path, number=0, sub=None):
    """The bytes of the tiles of a page or of its sub-IFD, its pixels and its tables."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[number] if sub is None else file.pages[number].pages[sub]
        tiles = []
        for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.filehandle.seek(offset)
            tiles.append(file.filehandle.read(length))
        return tiles, page.asarray(), page.jpegtables


def pixels_of(path):
    source = large_image_source_vips.open(path)
    return source.getRegion(format='numpy')[0]


def assert_passed(old, new, levels=1):
    """The first levels of a file have the bytes, tables and pixels of another one's."""
    np.testing.assert_array_equal(pixels_of(new), pixels_of(old))
    for level in range(levels):
        is_ome = str(new).endswith('.ome.tif')
        before = stored(old, level)
        after = stored(new, 0, level - 1) if is_ome and level else stored(new, level)
        assert after[0] == before[0]
        np.testing.assert_array_equal(after[1], before[1])
        assert after[2] == before[2]


@pytest.mark.parametrize('name', ['x.tif', 'x.ome.tif'])
@pytest.mark.parametrize(('photometric', 'subsampling', 'bands'), [
    (RGB, (1, 1), 3), (YCBCR, (1, 1), 3), (YCBCR, (2, 1), 3), (YCBCR, (2, 2), 3),
    (GRAY, (1, 1), 1)])
@pytest.mark.parametrize('shared', [True, False])
def test_jpeg_tiles_are_passed_on(tmp_path, name, photometric, subsampling, bands, shared):
    full = photo(500, 700, bands)
    levels = [full, full[::2, ::2][::-1].copy()]
    make_jpeg(tmp_path / 'a.tif', levels, 240, photometric, subsampling, shared=shared)
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        assert bool(file.pages[0].jpegtables) == shared
    large_image_source_vips.open(tmp_path / 'a.tif').write(tmp_path / name, verify=True)
    assert_passed(tmp_path / 'a.tif', tmp_path / name, levels=2)
    with tifffile.TiffFile(tmp_path / name) as file:
        page = file.pages[0]
        assert page.photometric.name == photometric
        assert page.tile == (240, 240)
        lowest = page.pages[-1] if page.pages else file.pages[-1]
        assert lowest.shape[:2] == (125, 175)
        picked = full[::4, ::4].astype(int).reshape(lowest.shape)
        assert np.abs(lowest.asarray().astype(int) - picked).mean() < 20


@pytest.mark.parametrize('side', [16, 48, 128, 208, 512, 1024])
def test_any_size_of_square_tiles_is_kept(tmp_path, side):
    make_jpeg(tmp_path / 'a.tif', [photo(90 + side, 40 + side)], side, YCBCR, (2, 2), shared=True)
    large_image_source_vips.open(tmp_path / 'a.tif').write(tmp_path / 'x.tif')
    assert_passed(tmp_path / 'a.tif', tmp_path / 'x.tif')


@pytest.mark.parametrize(('form', 'name'), [
    ('JPEG', 'x.tif'), ('JPEG', 'x.ome.tif'), ('deflate', 'x.tif'), ('deflate', 'x.ome.tif'),
    ('holes', 'x.tif')])
@pytest.mark.parametrize('tile', [(128, 256), (256, 64), (16, 240)])
def test_tiles_that_are_not_square_are_passed_on(tmp_path, name, tile, form):
    pixels = photo(500, 700)
    with tifffile.TiffWriter(tmp_path / 'a.tif') as file:
        options = {'tile': tile, 'photometric': 'rgb'}
        if form == 'deflate':
            pixels = np.dstack([pixels, pixels[..., 0]])
            file.write(pixels, compression='deflate', extrasamples=['unassalpha'], **options)
        else:
            file.write(pixels, compression='jpeg', compressionargs={'outcolorspace': 'rgb'},
                       subifds=int(form == 'holes'), **options)
            if form == 'holes':
                mask = np.ones((500, 700), np.bool_)
                mask[40:300, 30:600] = False
                file.write(mask, compression='deflate', subfiletype=4, tile=tile)
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    source.write(tmp_path / name, verify=True, lossy=form != 'deflate')
    with tifffile.TiffFile(tmp_path / name) as file:
        assert file.pages[0].chunks[:2] == tile
    assert_passed(tmp_path / 'a.tif', tmp_path / name)
    written = large_image_source_vips.open(tmp_path / name)
    np.testing.assert_array_equal(written.getRegion(format='numpy')[0],
                                  source.getRegion(format='numpy')[0])


@pytest.mark.parametrize('chosen', [None, 'none', 'horizontal'])
def test_the_predictor_is_that_of_the_file_unless_chosen(tmp_path, chosen):
    pixels = photo(300, 400)
    with tifffile.TiffWriter(tmp_path / 'a.tif') as file:
        file.write(pixels, tile=(128, 128), compression='deflate', photometric='rgb')
    large_image_source_vips.open(tmp_path / 'a.tif').write(
        tmp_path / 'x.tif', lossy=False, predictor=chosen, tileSize=128)
    before, after = stored(tmp_path / 'a.tif'), stored(tmp_path / 'x.tif')
    assert (before[0] == after[0]) == (chosen != 'horizontal')
    with tifffile.TiffFile(tmp_path / 'x.tif') as file:
        assert {page.predictor for page in file.pages} == {2 if chosen == 'horizontal' else 1}
        for key in range(2):
            np.testing.assert_array_equal(
                file.pages[key].asarray(), pixels[::1 << key, ::1 << key])


def test_jpeg_tiles_of_a_big_endian_file_are_passed_on(tmp_path):
    make_jpeg(tmp_path / 'a.tif', [photo(300, 300)], 128, RGB, (1, 1), shared=True,
              big_endian=True)
    large_image_source_vips.open(tmp_path / 'a.tif').write(tmp_path / 'x.tif')
    assert_passed(tmp_path / 'a.tif', tmp_path / 'x.tif')


@pytest.mark.parametrize('quality', [75, 95])
@pytest.mark.parametrize('side', [128, 256])
def test_a_pyramid_of_libvips_is_passed_on_and_read_alike_by_others(tmp_path, quality, side):
    path = str(tmp_path / 'a.tif')
    pyvips.Image.new_from_array(photo(600, 900)).copy(interpretation='srgb').tiffsave(
        path, compression='jpeg', Q=quality, tile=True, tile_width=side, tile_height=side,
        pyramid=True)
    new = str(tmp_path / 'x.tif')
    large_image_source_vips.open(path).write(new)
    with tifffile.TiffFile(path) as file:
        levels = len(file.pages)
    assert_passed(path, new, levels)
    for level in range(levels):
        np.testing.assert_array_equal(
            pyvips.Image.new_from_file(new, page=level).numpy(),
            pyvips.Image.new_from_file(path, page=level).numpy())
        with PIL.Image.open(path) as before, PIL.Image.open(new) as after:
            before.seek(level)
            after.seek(level)
            np.testing.assert_array_equal(np.asarray(after), np.asarray(before))


def test_a_tile_that_is_damaged_or_another_kind_is_made_anew(tmp_path):
    """Its neighbours are passed on; the tables of the page do not spoil the new one."""
    full = photo(256, 384)
    make_jpeg(tmp_path / 'a.tif', [full], 128, YCBCR, (2, 2), shared=True)
    tiles, before, tables = stored(tmp_path / 'a.tif')
    other = imagecodecs.jpeg8_encode(
        np.ascontiguousarray(full[:128, 128:256]), 95, colorspace='RGB', outcolorspace='YCBCR',
        subsampling='444')
    with tifffile.TiffWriter(tmp_path / 'b.tif') as file:
        file.write(iter([tiles[0], other, *tiles[2:]]), shape=full.shape, dtype=np.uint8,
                   tile=(128, 128), compression='jpeg', photometric='ycbcr', subsampling=(2, 2),
                   jpegtables=tables, metadata=None)
    large_image_source_vips.open(tmp_path / 'b.tif').write(tmp_path / 'x.tif')
    found, pixels, _ = stored(tmp_path / 'x.tif')
    assert [new == old for new, old in zip(found, tiles, strict=True)] == [
        True, False, True, True, True, True]
    assert np.abs(pixels[:128, 128:256].astype(int) - full[:128, 128:256]).mean() < 8
    np.testing.assert_array_equal(pixels[128:], before[128:])


@pytest.mark.parametrize('compression', ['deflate', 'zlib', 'zstd', 'lzw', 'packbits', None])
@pytest.mark.parametrize('kind', ['>', '<'])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_lossless_tiles_are_passed_on_if_nothing_changes(tmp_path, compression, kind, dtype):
    pixels = photo(300, 400)[:, :, 0].astype(dtype)
    predictor = compression in {'deflate', 'zlib', 'zstd', 'lzw'}
    with tifffile.TiffWriter(tmp_path / 'a.tif', byteorder=kind) as file:
        file.write(pixels, tile=(128, 128), compression=compression, predictor=predictor)
    large_image_source_vips.open(tmp_path / 'a.tif').write(
        tmp_path / 'x.tif', lossy=False,
        compression={'zlib': 'deflate', None: 'none'}.get(compression, compression))
    before, after = stored(tmp_path / 'a.tif'), stored(tmp_path / 'x.tif')
    np.testing.assert_array_equal(after[1], pixels)
    # Samples of several bytes have to be turned round.
    assert (before[0] == after[0]) == (kind == '<' or dtype == 'uint8')


@pytest.mark.parametrize('form', ['planes', 'inverted', 'palette', 'turned'])
def test_what_is_converted_to_be_shown_is_not_passed_on(tmp_path, form):
    pixels = photo(300, 400)
    with tifffile.TiffWriter(tmp_path / 'a.tif') as file:
        options = {'tile': (128, 128), 'compression': 'deflate', 'predictor': True}
        if form == 'planes':
            file.write(pixels.transpose(2, 0, 1), photometric='rgb', planarconfig='separate',
                       **options)
        elif form == 'inverted':
            file.write(pixels[:, :, 0], photometric='miniswhite', **options)
        elif form == 'palette':
            colours = np.arange(768, dtype=np.uint16).reshape(3, 256) * 257
            file.write(pixels[:, :, 0], photometric='palette', colormap=colours, **options)
        else:
            file.write(pixels, photometric='rgb', extratags=[(274, 3, 1, 6, True)], **options)
    large_image_source_vips.open(tmp_path / 'a.tif').write(tmp_path / 'x.tif', lossy=False)
    np.testing.assert_array_equal(pixels_of(tmp_path / 'x.tif'), pixels_of(tmp_path / 'a.tif'))
    before, after = stored(tmp_path / 'a.tif'), stored(tmp_path / 'x.tif')
    assert not set(before[0]) & set(after[0])


@pytest.mark.parametrize('name', ['x.tif', 'x.ome.tif'])
def test_the_tiles_of_a_real_aperio_slide_are_passed_on(tmp_path, name):
    path = real_file('CMU-1-Small-Region.tiff')
    new = tmp_path / name
    large_image_source_vips.open(path).write(new, verify=True)
    assert_passed(path, new)
    np.testing.assert_array_equal(
        pyvips.Image.new_from_file(str(new)).numpy(),
        pyvips.Image.tiffload(str(path)).numpy())
    with PIL.Image.open(path) as before, PIL.Image.open(new) as after:
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before))
    source = large_image_source_vips.open(new)
    assert sorted(source.getAssociatedImagesList()) == ['label', 'macro', 'thumbnail']
    assert source.getMetadata()['magnification'] == pytest.approx(20)


@pytest.mark.parametrize('kind', ['real', 'made'])
def test_openslide_sees_the_same_pixels_in_a_converted_slide(tmp_path, kind):
    openslide = pytest.importorskip('openslide', reason='needs openslide-python')
    if kind == 'real':
        path = real_file('CMU-1-Small-Region.tiff')
    else:
        path = tmp_path / 'a.tif'
        make_jpeg(path, [photo(700, 900)], 240, RGB, (1, 1), shared=True)
    large_image_source_vips.open(path).write(tmp_path / 'x.tif')
    with openslide.OpenSlide(path) as before, openslide.OpenSlide(tmp_path / 'x.tif') as after:
        assert after.level_count > before.level_count
        size = before.dimensions
        np.testing.assert_array_equal(np.asarray(after.read_region((0, 0), 0, size)),
                                      np.asarray(before.read_region((0, 0), 0, size)))
