"""The kinds of tiles that the sink takes, and those that it refuses."""

import fractions
import io

import numpy as np
import PIL.Image
import pytest
import pyvips
from large_image.exceptions import TileSourceError
from sink_helpers import make_sink, random_tile, read_all

import large_image_source_vips

RGB = random_tile('uint8', (40, 50, 3))
GRAY16 = random_tile('uint16', (40, 50), 1)


def pil(mode):
    image = PIL.Image.fromarray(RGB)
    if mode == 'I;16':
        return PIL.Image.fromarray(GRAY16)
    if mode == 'I':
        return PIL.Image.fromarray(GRAY16.astype(np.int32) - 70000)
    if mode == 'F':
        return PIL.Image.fromarray(GRAY16.astype(np.float32) / 7)
    return image.convert(mode)


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGB', 'RGBA', 'I;16', 'I', 'F'])
def test_pil_images_keep_their_samples(mode):
    image = pil(mode)
    array = np.asarray(image)
    array = array if array.ndim == 3 else array[:, :, None]
    sink = make_sink(image)
    assert sink.dtype == array.dtype
    assert np.array_equal(read_all(sink)[:, :, :array.shape[2]], array)


@pytest.mark.parametrize(('mode', 'shown'), [
    ('1', 'L'), ('P', 'RGB'), ('CMYK', 'RGB'), ('YCbCr', 'RGB'), ('HSV', 'RGB'), ('PA', 'RGBA'),
    ('RGBX', 'RGB'), ('RGBa', 'RGBA')])
def test_other_pil_images_are_taken_as_pillow_shows_them(mode, shown):
    image = pil('RGBA').convert(mode) if mode == 'RGBa' else (
        pil('P').convert('PA') if mode == 'PA' else pil(mode))
    expected = np.asarray(image.convert(shown)).reshape(40, 50, -1)
    assert np.array_equal(read_all(make_sink(image))[:, :, :expected.shape[2]], expected)


def test_a_transparent_palette_becomes_alpha():
    image = PIL.Image.new('P', (8, 8), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((3, 4), 1)
    image.info['transparency'] = 0
    result = read_all(make_sink(image))
    assert result[4, 3].tolist() == [40, 50, 60, 255]
    assert result[0, 0, 3] == 0


def test_cmyk_inks_are_kept_when_asked_for():
    image = pil('CMYK')
    sink = make_sink(image, interpretation='cmyk')
    assert np.array_equal(read_all(sink)[:, :, :4], np.asarray(image))


def encoded(array, kind):
    buffer = io.BytesIO()
    PIL.Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(('array', 'kind'), [
    (RGB, 'PNG'), (GRAY16, 'PNG'), (RGB[:, :, 0], 'PNG'), (RGB, 'TIFF'),
    (random_tile('uint8', (9, 9, 4)), 'PNG')])
@pytest.mark.parametrize('form', [bytes, bytearray, memoryview])
def test_encoded_images_keep_their_depth(array, kind, form):
    sink = make_sink(form(encoded(array, kind)))
    assert sink.dtype == array.dtype
    expected = array if array.ndim == 3 else array[:, :, None]
    assert np.array_equal(read_all(sink)[:, :, :expected.shape[2]], expected)


def test_encoded_jpeg_is_what_libvips_decodes():
    data = encoded(RGB, 'JPEG')
    expected = pyvips.Image.new_from_buffer(data, '').numpy()
    assert np.array_equal(read_all(make_sink(data))[:, :, :3], expected)


@pytest.mark.parametrize('dtype', ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32',
                                   'float32', 'float64'])
def test_vips_images_of_any_format(dtype):
    array = random_tile(dtype, (30, 40, 3))
    sink = make_sink(pyvips.Image.new_from_array(array))
    assert np.array_equal(read_all(sink)[:, :, :3], array.astype(sink.dtype))


def test_vips_codings_are_unpacked():
    image = pyvips.Image.new_from_array(RGB).copy(interpretation='srgb')
    labq = image.colourspace('labq')
    assert labq.coding == 'labq'
    sink = make_sink(labq)
    np.testing.assert_array_equal(read_all(sink)[:, :, :3], labq.LabQ2Lab().numpy())
    rad = image.colourspace('scrgb').float2rad()
    assert rad.coding == 'rad'
    np.testing.assert_array_equal(
        read_all(make_sink(rad))[:, :, :3], rad.rad2float().numpy())


def test_a_vips_image_that_cannot_be_computed_is_refused(tmp_path):
    pyvips.Image.new_from_array(RGB).write_to_file(tmp_path / 'a.png')
    data = (tmp_path / 'a.png').read_bytes()
    (tmp_path / 'a.png').write_bytes(data[:len(data) // 2])
    image = pyvips.Image.pngload(str(tmp_path / 'a.png'), fail_on='truncated')
    with pytest.raises(TileSourceError, match='cannot be computed'):
        make_sink(image)


JUNK = {
    'None': None, 'list': [[1, 2], [3, 4]], 'str': 'tile.png', 'int': 5,
    'no rows': np.zeros((0, 5, 3), np.uint8), 'no bands': np.zeros((5, 5, 0), np.uint8),
    '1-D': np.zeros(5, np.uint8), '4-D': np.zeros((2, 2, 2, 2), np.uint8),
    '0-D': np.array(3), 'no bytes': b'', 'text': b'this is no image at all, not even a little',
    'truncated': encoded(RGB, 'PNG')[:1500], 'complex': np.zeros((5, 5), complex),
    'objects': np.array([[None]]), 'strings': np.array([['a']]),
    'dates': np.zeros((3, 3), 'datetime64[s]'), 'records': np.zeros((3, 3), [('a', 'u1')]),
    'too wide': np.full((3, 3), 2 ** 40), 'too large a float': np.full((3, 3), 1e300),
}


@pytest.mark.parametrize('name', JUNK)
def test_junk_is_refused_and_the_sink_stays_usable(name):
    sink = make_sink(RGB)
    state = sink.getState()
    with pytest.raises(TileSourceError) as error:
        sink.addTile(JUNK[name], 3, 3)
    assert len(str(error.value)) > 20
    assert sink.getState() == state
    assert np.array_equal(read_all(sink)[:, :, :3], RGB)
    sink.addTile(RGB, 50, 0)
    assert sink.sizeX == 100
    empty = large_image_source_vips.new()
    with pytest.raises(TileSourceError):
        empty.addTile(JUNK[name])
    assert (empty.sizeX, empty.bandFormat, empty.bandRanges) == (0, None, None)


@pytest.mark.parametrize('x', [np.uint8(200), np.int16(200), 200, 200.0, np.float64(200)])
def test_positions_are_plain_ints(x):
    sink = make_sink(RGB, x, 0)
    sink.addTile(RGB, x, x)
    assert sink.sizeX == 250
    assert sink.sizeY == 240
    assert type(sink.sizeX) is int
    sink.addTile(RGB, -x, 0) if not isinstance(x, np.uint8) else None
    for value in sink.origin.values():
        assert type(value) is int


@pytest.mark.parametrize('x', [
    0.5, float('nan'), float('inf'), '3', None, fractions.Fraction(1, 2), 1j, np.array([1, 2]),
    10 ** 9], ids=repr)
def test_positions_that_are_no_whole_numbers_are_refused(x):
    sink = make_sink(RGB)
    for place in ({'x': x}, {'y': x}):
        with pytest.raises(TileSourceError):
            sink.addTile(RGB, **place)
    assert (sink.sizeX, sink.sizeY) == (50, 40)
