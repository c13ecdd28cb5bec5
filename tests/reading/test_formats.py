"""Formats with pages, renderings or resolutions."""

import dataclasses

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import pyvips
from large_image import config
from large_image.exceptions import TileSourceError

from helpers.around import needs, real_file
from helpers.pixels import random_pixels, smooth_pixels
from helpers.reading import found_or_why, level, level_by_tiles
from large_image_source_vips.base.limits import LIMITS
from large_image_source_vips.reading import loader, survey
from large_image_source_vips.reading.reader import FileReader

SVG = ('<svg xmlns="http://www.w3.org/2000/svg" width="100" height="60">'
       '<rect x="50" width="50" height="60" fill="#ff0000"/></svg>')


@pytest.mark.parametrize('suffix', ['.gif', '.webp'])
def test_animations_are_frames(tmp_path, suffix):
    images = [PIL.Image.fromarray(smooth_pixels(150, 260, seed=seed)) for seed in range(6)]
    if suffix == '.gif':
        images = [image.quantize(200) for image in images]
        images[0].save(tmp_path / 'a.gif', save_all=True, append_images=images[1:])
    else:
        images[0].save(tmp_path / 'a.webp', save_all=True, append_images=images[1:], lossless=True)
    reader = FileReader(tmp_path / f'a{suffix}')
    assert reader.frame_count == 6
    assert reader.size == (260, 150)
    for frame, image in enumerate(images):
        expected = np.asarray(image.convert('RGB'))
        np.testing.assert_array_equal(level(reader, frame=frame)[..., :3], expected)
        np.testing.assert_array_equal(level_by_tiles(reader, 0, frame, 64)[..., :3], expected)


def test_the_real_animation():
    reader = FileReader(real_file('cogs.gif'))
    assert (reader.size, reader.frame_count, reader.bands) == ((85, 77), 5, 4)
    with PIL.Image.open(real_file('cogs.gif')) as image:
        for frame in range(5):
            image.seek(frame)
            expected = np.asarray(image.convert('RGBA'))
            found = level(reader, frame=frame)
            seen = expected[..., 3] > 0
            np.testing.assert_array_equal(found[seen], expected[seen])


def test_the_real_png():
    reader = FileReader(real_file('sample.png'))
    assert (reader.size, reader.dtype, reader.bands) == ((290, 442), np.dtype('uint16'), 3)
    expected = pyvips.Image.new_from_file(str(real_file('sample.png'))).numpy()
    np.testing.assert_array_equal(level(reader), expected)


@needs('heifsave')
@needs('heifload')
def test_avif(tmp_path):
    pixels = smooth_pixels(200, 300)
    image = pyvips.Image.new_from_array(pixels)
    try:
        image.heifsave(str(tmp_path / 'a.avif'), compression='av1', Q=95)
    except pyvips.Error:
        pytest.skip('this libvips has no encoder for AV1')
    reader = FileReader(tmp_path / 'a.avif')
    assert (reader.size, reader.bands) == ((300, 200), 3)
    assert np.abs(level(reader).astype(int) - pixels).mean() < 8


@needs('svgload')
def test_drawings_are_large_and_their_levels_sharp(tmp_path):
    (tmp_path / 'a.svg').write_text(SVG)
    reader = FileReader(tmp_path / 'a.svg')
    assert reader.size == (6400, 3840)
    for reduction in range(6):
        found = level(reader, reduction)
        half = found.shape[1] // 2
        assert found.shape[:2] == reader.size.reduced(reduction)[::-1]
        assert (found[:, half + 1:-1] == [255, 0, 0, 255]).all()
        assert not found[:, :half - 1].any()
    np.testing.assert_array_equal(level_by_tiles(reader, 3), level(reader, 3))


@needs('svgload')
def test_the_real_drawing():
    reader = FileReader(real_file('logo.svg'))
    assert max(reader.size) >= 4096
    assert level(reader, 4).any()


PDF = b"""%%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj
2 0 obj <</Type/Pages/Count %d/Kids[%s]>> endobj
%s
trailer <</Root 1 0 R>>
"""


def write_pdf(path, sizes):
    """A PDF of pages, sizes in points, each with a black square of 36 points in its corner."""
    kids, objects = [], []
    for number, (width, height) in enumerate(sizes):
        page, content = 3 + 2 * number, 4 + 2 * number
        kids.append(b'%d 0 R' % page)
        drawing = b'0 0 %d 36 re f' % (36 * (number + 1))
        objects.append(
            b'%d 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Contents %d 0 R>> endobj\n'
            b'%d 0 obj <</Length %d>> stream\n%s\nendstream endobj' % (
                page, width, height, content, content, len(drawing), drawing))
    path.write_bytes(PDF % (len(sizes), b' '.join(kids), b'\n'.join(objects)))


@needs('pdfload')
def test_pages_of_documents_are_frames_at_one_resolution(tmp_path):
    write_pdf(tmp_path / 'a.pdf', [(144, 72), (144, 72), (72, 72)])
    reader = FileReader(tmp_path / 'a.pdf')
    assert reader.frame_count == 2
    assert reader.size == (600, 300)
    assert reader.pixel_size == pytest.approx((25.4 / 300, 25.4 / 300))
    assert reader.associated_names() == ['page_2']
    assert reader.associated_image('page_2').size == (300, 300)
    for frame in range(2):
        found = level(reader, frame=frame)
        # The square is at the bottom left: 36 points are 150 pixels.
        assert (found[155:, 5:150 * (frame + 1) - 5, :3] == 0).all()
        assert (found[:145, :, :3] == 255).all()
        assert level(reader, 2, frame).shape[:2] == (75, 150)


@needs('pdfload')
def test_the_resolution_of_documents_is_a_setting(tmp_path):
    write_pdf(tmp_path / 'a.pdf', [(144, 72)])
    before = config.getConfig('source_vips_dpi')
    try:
        config.setConfig('source_vips_dpi', 100)
        reader = FileReader(tmp_path / 'a.pdf')
    finally:
        config.setConfig('source_vips_dpi', before)
    assert reader.size == (200, 100)
    assert FileReader(tmp_path / 'a.pdf').size == (600, 300)


@needs('pdfload')
def test_the_real_document():
    reader = FileReader(real_file('blankpage.pdf'))
    assert reader.size.width == pytest.approx(2480, abs=2)
    assert (level(reader, 3)[..., :3] == 255).all()


@needs('jp2ksave')
@needs('jp2kload')
@pytest.mark.parametrize('size', [(1500, 1100), (2050, 700)])
def test_resolutions_of_jpeg_2000_are_levels(tmp_path, size):
    pixels = smooth_pixels(size[1], size[0])
    pyvips.Image.new_from_array(pixels).jp2ksave(
        str(tmp_path / 'a.jp2'), lossless=True, tile_width=256, tile_height=256)
    reader = FileReader(tmp_path / 'a.jp2')
    assert len(reader._layout.frames[0].levels) > 1
    np.testing.assert_array_equal(level_by_tiles(reader), pixels)
    for reduction in range(1, 4):
        found = level_by_tiles(reader, reduction)
        expected = pixels[::1 << reduction, ::1 << reduction].astype(int)
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < 8


@needs('openslideload')
def test_the_real_slide_through_openslide(only_openslide):
    reader = FileReader(real_file('CMU-1-Small-Region.tiff'))
    assert reader._file.loader.name == 'openslideload'
    found = level_by_tiles(reader)
    # Nothing is transparent, so nothing is black.
    assert found.shape == (2967, 2220, 3)
    assert found.min(axis=2).mean() > 100


@needs('openslideload')
def test_a_slide_is_the_same_with_and_without_openslide(request):
    path = real_file('CMU-1-Small-Region.tiff')
    reader = FileReader(path)
    assert reader._file.loader.name == 'tiffload'
    request.getfixturevalue('only_openslide')
    other = FileReader(path)
    assert (reader.size, reader.pixel_size, reader.magnification, reader.associated_names()) == (
        other.size, pytest.approx(other.pixel_size), other.magnification,
        other.associated_names())
    assert other._file.loader.name == 'openslideload'
    np.testing.assert_array_equal(level_by_tiles(reader), level_by_tiles(other))


@pytest.mark.parametrize('saver', ['ppmsave', 'radsave', 'fitssave', 'jxlsave', 'matrixsave'])
def test_other_savers_of_libvips(tmp_path, saver):
    loader = {'ppmsave': 'ppmload', 'radsave': 'radload', 'fitssave': 'fitsload',
              'jxlsave': 'jxlload', 'matrixsave': None}[saver]
    if loader is None or not all(pyvips.type_find('VipsOperation', name)
                                 for name in (saver, loader)):
        pytest.skip(f'not an image, or this libvips has no {saver} or {loader}')
    pixels = random_pixels((100, 141, 3))
    path = str(tmp_path / 'a')
    image = pyvips.Image.new_from_array(pixels)
    if saver == 'radsave':
        image = image.cast('float').copy(interpretation='scrgb')
    getattr(image, saver)(path, **({'lossless': True} if saver == 'jxlsave' else {}))
    reader = FileReader(path)
    assert reader.size == (141, 100)
    # Radiance has 8 bits of mantissa for all three bands.
    tolerance = 2 if saver == 'radsave' else 0
    np.testing.assert_allclose(level_by_tiles(reader, side=50), pixels, atol=tolerance)
    assert level(reader, 2).shape == (25, 36, 3)


@needs('analyzeload')
def test_slices_of_analyze_are_frames(tmp_path):
    pixels = random_pixels((5, 30, 41))
    header = bytearray(348)
    header[0:4] = (348).to_bytes(4, 'big')
    # Analyze 7.5 as libvips reads it: big-endian, dimensions at 40, type at 70.
    header[38:39] = b'r'
    for place, value in enumerate((4, 41, 30, 5, 1, 1, 1, 1)):
        header[40 + 2 * place:42 + 2 * place] = value.to_bytes(2, 'big')
    header[70:72] = (2).to_bytes(2, 'big')
    header[72:74] = (8).to_bytes(2, 'big')
    (tmp_path / 'a.hdr').write_bytes(header)
    (tmp_path / 'a.img').write_bytes(pixels.tobytes())
    reader = FileReader(tmp_path / 'a.hdr')
    assert reader.size == (41, 30)
    assert reader.frame_count == 5
    for frame in range(5):
        np.testing.assert_array_equal(level(reader, frame=frame)[..., 0], pixels[frame])


def pdf(width, height):
    """A page of a size in points, half of it black."""
    parts = [b'<< /Type /Catalog /Pages 2 0 R >>', b'<< /Type /Pages /Kids [3 0 R] /Count 1 >>',
             b'<< /Type /Page /Parent 2 0 R /Contents 4 0 R /MediaBox [0 0 %f %f] >>' % (
                 width, height)]
    content = b'0 0 %f %f re f' % (width / 2, height)
    parts.append(b'<< /Length %d >>\nstream\n%s\nendstream' % (len(content), content))
    data, places = b'%PDF-1.4\n', []
    for number, part in enumerate(parts, 1):
        places.append(len(data))
        data += b'%d 0 obj\n%s\nendobj\n' % (number, part)
    table = b''.join(b'%010d 00000 n \n' % place for place in places)
    return data + (b'xref\n0 5\n0000000000 65535 f \n%strailer\n<< /Size 5 /Root 1 0 R >>\n'
                   b'startxref\n%d\n%%%%EOF' % (table, len(data)))


@needs('pdfload')
@pytest.mark.parametrize(('width', 'height'), [
    (283.46, 170.08), (283.5, 170.04), (240.01, 239.99), (612, 792), (300.3, 71.7), (500, 1)])
def test_every_level_of_a_page_has_its_size(tmp_path, width, height):
    (tmp_path / 'a.pdf').write_bytes(pdf(width, height))
    reader = FileReader(tmp_path / 'a.pdf')
    assert max(reader.size) > 900
    for reduction in range(5):
        size = reader.size.reduced(reduction)
        found = level(reader, reduction)
        assert found.shape[:2] == (size.height, size.width)
        middle = size.width // 2
        # The last row and column may lie half outside of the page.
        assert (found[1:-1, 2:middle - 2, :3] < 10).all()
        assert (found[1:-1, middle + 2:-2, :3] > 245).all()


@needs('svgload')
@pytest.mark.parametrize(('width', 'height'), [
    (4097, 1001), (4099, 3333), (5001.5, 2999.4), (8191, 4095)])
def test_every_level_of_a_drawing_has_its_size(tmp_path, width, height):
    (tmp_path / 'a.svg').write_text(SVG.replace('width="100" height="60"', (
        f'width="{width}" height="{height}" viewBox="0 0 100 60" preserveAspectRatio="none"')))
    reader = FileReader(tmp_path / 'a.svg')
    for reduction in range(5):
        size = reader.size.reduced(reduction)
        found = level(reader, reduction)
        assert found.shape[:2] == (size.height, size.width)
        assert (found[2:-2, 2:size.width // 2 - 2, 3] == 0).all()
        assert (found[2:-2, size.width // 2 + 2:-2, 0] == 255).all()


@pytest.fixture
def ultra_hdr(tmp_path):
    """An Ultra HDR file with a density of 254 per inch."""
    if not pyvips.type_find('VipsOperation', 'uhdrsave'):
        pytest.skip('this libvips does not write Ultra HDR')
    pixels = smooth_pixels(256, 320).astype('float32') / 255 * 3
    path = tmp_path / 'a.jpg'
    pyvips.Image.new_from_array(pixels, interpretation='scrgb').uhdrsave(str(path))
    data = path.read_bytes()
    at = data.index(b'JFIF\0') + 7
    path.write_bytes(data[:at] + bytes([1, 0, 254, 0, 254]) + data[at + 5:])
    return path


def test_an_ultra_hdr_file_is_a_jpeg_file(ultra_hdr):
    reader = FileReader(ultra_hdr)
    assert reader.internal_metadata()['vips-loader'] == 'jpegload'
    assert reader.pixel_size == pytest.approx((0.1, 0.1))
    with PIL.Image.open(ultra_hdr) as image:
        # libjpeg decides for itself how it makes chroma larger.
        np.testing.assert_allclose(level(reader), np.asarray(image), atol=3)


def test_an_ultra_hdr_file_is_allowed_where_jpeg_is(ultra_hdr):
    before = config.getConfig('source_vips_loaders')
    config.setConfig('source_vips_loaders', ['jpegload'])
    try:
        assert FileReader(ultra_hdr).bands == 3
    finally:
        config.setConfig('source_vips_loaders', before)


@pytest.mark.parametrize('shape', [(300, 401, 3), (301, 400, 3), (60, 50, 1), (40, 40, 4)])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_jpeg_2000_without_the_help_of_libvips(tmp_path, monkeypatch, shape, dtype):
    imagecodecs = pytest.importorskip('imagecodecs')
    pixels = random_pixels(shape, dtype)
    (tmp_path / 'a.jp2').write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat='jp2'))
    monkeypatch.setattr(loader, '_LIBVIPS_READS_JPEG_2000', False)
    reader = FileReader(tmp_path / 'a.jp2')
    np.testing.assert_array_equal(level_by_tiles(reader, side=64), pixels)
    np.testing.assert_array_equal(level(reader, 1).shape[:2], reader.size.reduced(1)[::-1])
    assert reader.interpretation.startswith(('srgb', 'rgb') if shape[2] > 2 else ('b-w', 'grey'))


@needs('jp2ksave')
@pytest.mark.parametrize('size', [(401, 300), (400, 301), (399, 299), (400, 300), (256, 256)])
def test_subsampled_jpeg_2000(tmp_path, size):
    pixels = smooth_pixels(size[1], size[0])
    pyvips.Image.new_from_array(pixels).jp2ksave(
        str(tmp_path / 'a.jp2'), subsample_mode='on', Q=95, tile_width=128, tile_height=128)
    reader = FileReader(tmp_path / 'a.jp2')
    assert np.abs(level_by_tiles(reader).astype(int) - pixels).mean() < 4
    for reduction in range(1, 4):
        found = level(reader, reduction)
        assert found.shape == pixels[::1 << reduction, ::1 << reduction].shape


def test_a_damaged_jpeg_2000_file_is_an_error(tmp_path):
    imagecodecs = pytest.importorskip('imagecodecs')
    data = imagecodecs.jpeg2k_encode(random_pixels((90, 70, 3)), level=0, codecformat='jp2')
    for size in (40, 150, len(data) // 2):
        (tmp_path / 'a.jp2').write_bytes(data[:size])
        with pytest.raises(TileSourceError, match=r'a\.jp2'):
            level(FileReader(tmp_path / 'a.jp2'))


@needs('pdfload')
def test_the_sizes_of_many_pages_are_not_looked_at(tmp_path, monkeypatch):
    with PIL.Image.new('L', (40, 30)) as same, PIL.Image.new('L', (40, 50)) as other:
        same.save(tmp_path / 'a.pdf', save_all=True, append_images=[same, other], resolution=72)
    assert FileReader(tmp_path / 'a.pdf').frame_count == 2
    monkeypatch.setattr(survey, 'LIMITS', dataclasses.replace(LIMITS, reading_pdf_sizes=2))
    (tmp_path / 'a.pdf').rename(tmp_path / 'b.pdf')
    reader = FileReader(tmp_path / 'b.pdf')
    assert reader.frame_count == 3
    assert level(reader, frame=1).shape == level(reader, frame=0).shape
    with pytest.raises(TileSourceError, match='its size is'):
        level(reader, frame=2)


def test_pages_are_counted(tmp_path, monkeypatch):
    frames = [PIL.Image.fromarray(smooth_pixels(20, 30, seed=seed)) for seed in range(4)]
    frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
    monkeypatch.setattr(survey, 'LIMITS', dataclasses.replace(LIMITS, reading_pages=3))
    with pytest.raises(TileSourceError, match='it has 4 pages, more than 3'):
        FileReader(tmp_path / 'a.gif')
    monkeypatch.setattr(survey, 'LIMITS', dataclasses.replace(LIMITS, reading_pages=4))
    assert FileReader(tmp_path / 'a.gif').frame_count == 4


def test_a_jpeg_2000_file_with_flat_tiles_does_not_end_the_process(tmp_path):
    # libvips 8.14 divides by the height of a reduced tile.
    data = bytearray(imagecodecs.jpeg2k_encode(random_pixels((70, 90)), codecformat='jp2'))
    at = data.index(b'\xff\x4f\xff\x51')
    data[at + 28:at + 32] = (1).to_bytes(4, 'big')
    (tmp_path / 'a.jp2').write_bytes(data)

    def shapes():
        reader = FileReader(tmp_path / 'a.jp2')
        return [level(reader, reduction).shape for reduction in range(4)]

    # The versions of libvips differ in whether they read it.
    found, why = found_or_why(shapes)
    assert found == [(70, 90, 1), (35, 45, 1), (18, 23, 1), (9, 12, 1)] or 'a.jp2' in why
