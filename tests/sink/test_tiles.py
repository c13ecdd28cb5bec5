"""Tiles that the sink accepts, and those that it refuses."""

import fractions
import io

import numpy as np
import PIL.Image
import pytest
import pyvips
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.sink import make_sink, random_tile, read_all

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
    'too wide': np.full((3, 3), 2 ** 40),
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


@pytest.mark.parametrize('shape', [
    (1, 32, 32), (1, 64, 64), (2, 300, 40), (3, 32, 500), (3, 64, 64), (4, 32, 32)], ids=str)
@pytest.mark.parametrize('dtype', ['uint8', 'bool', 'float64', 'int64'])
def test_an_array_with_its_bands_first_is_refused(shape, dtype):
    tile = random_tile(dtype, shape)
    sink = make_sink(RGB)
    state = sink.getState()
    for refusing in (sink, large_image_source_vips.new()):
        with pytest.raises(TileSourceError) as error:
            refusing.addTile(tile, -3, 3)
        for hint in (str(shape), "axes='cyx'", "interpretation='multiband'", 'np.moveaxis('):
            assert hint in str(error.value)
    assert (refusing.sizeX, refusing.bandFormat, refusing.bandRanges) == (0, None, None)
    assert sink.getState() == state
    assert np.array_equal(read_all(sink)[:, :, :3], RGB)


def test_the_error_about_bands_first_says_what_works():
    tile = random_tile('uint8', (3, 40, 50))
    sink = make_sink(np.moveaxis(tile, 0, -1))
    assert np.array_equal(read_all(sink)[:, :, :3], tile.transpose(1, 2, 0))
    sink = make_sink(tile, interpretation='multiband')
    assert np.array_equal(read_all(sink), tile)


@pytest.mark.parametrize('shape', [
    (5, 64, 64), (3, 31, 64), (3, 64, 31), (4, 31, 32), (1, 1, 100), (32, 32, 32)], ids=str)
def test_other_arrays_of_many_bands_are_taken(shape):
    tile = random_tile('uint16', shape)
    assert np.array_equal(read_all(make_sink(tile)), tile)


@pytest.mark.parametrize('interpretation', ['multiband', 'labels', 'histogram'])
def test_an_interpretation_says_that_the_bands_are_last(interpretation):
    tile = random_tile('uint8', (2, 33, 32))
    sink = make_sink(tile, interpretation=interpretation)
    assert np.array_equal(read_all(sink), tile)


def test_an_image_of_many_bands_takes_a_tile_of_as_many():
    image = random_tile('uint8', (50, 60, 40))
    sink = make_sink(image)
    # The first lies inside the image, the second makes it larger, the third
    # does not have the bands of the image.
    sink.addTile(image[10:13], 0, 20)
    sink.addTile(image[:4], 0, 50)
    with pytest.raises(TileSourceError, match='bands, rows, cols'):
        sink.addTile(random_tile('uint8', (4, 60, 41)))
    image[20:23] = image[10:13]
    assert np.array_equal(read_all(sink), np.concatenate([image, image[:4]]))


def test_a_vips_image_knows_which_are_its_bands():
    tile = random_tile('uint8', (3, 40, 36))
    image = pyvips.Image.new_from_memory(tile.tobytes(), 40, 3, 36, 'uchar')
    assert np.array_equal(read_all(make_sink(image)), tile)


class Tensor:
    """What numpy can make an array of, as tensors of other libraries are."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype)


class OnTheGraphicsCard:
    def __array__(self, dtype=None, copy=None):
        msg = 'copy the tensor to host memory first'
        raise TypeError(msg)


CHECKS = np.indices((40, 50)).sum(axis=0) % 3 == 0


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


MASKS = {
    'PIL 1': PIL.Image.fromarray(CHECKS), 'PIL L': PIL.Image.fromarray(CHECKS.astype('u1') * 9),
    'PIL RGB': PIL.Image.fromarray(CHECKS[:, :, None] * np.array([0, 255, 0], 'u1')),
    'lists': CHECKS.tolist(), 'tuples': tuple(map(tuple, CHECKS.astype(int).tolist())),
    'tensor': Tensor(CHECKS), 'tensor of bands': Tensor(np.dstack([CHECKS, CHECKS])),
    'vips': pyvips.Image.new_from_array(CHECKS.astype('u1')),
    'read-only': read_only(CHECKS), 'read-only bands': read_only(np.dstack([CHECKS] * 3)),
    'columns': np.asfortranarray(CHECKS),
    'mirrored': np.ascontiguousarray(CHECKS[:, ::-1])[:, ::-1],
    'objects': np.where(CHECKS, 'yes', None).astype(object),
}


@pytest.mark.parametrize('name', MASKS)
@pytest.mark.parametrize('tile', [
    RGB, RGB[:, :, 0], random_tile('uint8', (40, 50, 4)), GRAY16], ids=lambda tile: str(tile.shape))
def test_a_mask_is_anything_that_numpy_can_make_booleans_of(name, tile):
    below = np.full_like(tile, 7)
    opaque = np.iinfo(tile.dtype).max
    bands = tile.shape[2] if tile.ndim == 3 else 1
    colors = 3 if bands >= 3 else 1
    if bands == 4:
        tile = tile.copy()
        below[:, :, 3] = tile[:, :, 3] = opaque
    tile = read_only(tile)
    sink = make_sink(below)
    sink.addTile(tile, mask=MASKS[name])
    expected = np.where(CHECKS.reshape(40, 50, 1), tile.reshape(40, 50, -1),
                        below.reshape(40, 50, -1))
    result = read_all(sink)
    assert np.array_equal(result[:, :, :colors], expected[:, :, :colors])
    assert (result[:, :, colors] == opaque).all()


@pytest.mark.parametrize('bands', [1, 2, 3, 4, 5, 40])
@pytest.mark.parametrize('dtype', ['bool', 'uint8', 'float32'])
def test_a_mask_of_bands_pastes_where_any_band_is_true(bands, dtype):
    mask = np.random.default_rng(bands).random((40, 50, bands)) < 0.7 / bands
    mask[0, 0], mask[0, 1], mask[0, 2, :-1], mask[0, 2, -1] = False, True, False, True
    given = mask.astype(dtype) * np.dtype(dtype).type(1)
    before = given.copy()
    result = read_all(make_sink(RGB, mask=given))
    pasted = mask.any(axis=2)
    assert np.array_equal(result[:, :, 3], pasted * np.uint8(255))
    assert np.array_equal(result[:, :, :3], RGB * pasted[:, :, None])
    assert np.array_equal(given, before)


@pytest.mark.parametrize('bands', [3, 4])
def test_neither_the_tile_nor_the_mask_is_written_to(bands):
    """Across blocks, over what is there, and in a type that has to be converted."""
    for dtype in ('uint8', 'uint16', 'float32'):
        tile, mask = random_tile(dtype, (300, 300, bands)), random_tile('bool', (300, 300, 2))
        kept = tile.copy(), mask.copy()
        sink = make_sink(random_tile('uint16', (400, 400, 4)))
        for x in (0, 100, 300):
            sink.addTile(tile, x, -x, mask=mask)
            read_all(sink)[...] = 1
        assert np.array_equal(tile, kept[0])
        assert np.array_equal(mask, kept[1])


@pytest.mark.parametrize('shape', [
    (50, 40), (50,), (1, 50), (50, 40, 3), (3, 40, 50), (40, 49), (40, 50, 1, 1), (40,), ()],
    ids=str)
def test_a_mask_of_another_shape_is_an_error_with_both_shapes(shape):
    sink = make_sink(RGB)
    state = sink.getState()
    with pytest.raises(TileSourceError) as error:
        sink.addTile(255 - RGB, -5, 5, mask=np.ones(shape))
    assert str(shape) in str(error.value)
    assert '(40, 50)' in str(error.value)
    assert sink.getState() == state
    assert np.array_equal(read_all(sink)[:, :, :3], RGB)


def test_a_mask_that_cannot_be_computed_is_an_error(tmp_path):
    buffer = io.BytesIO(encoded(RGB, 'PNG')[:1500])
    for mask in (OnTheGraphicsCard(), PIL.Image.open(buffer), [[1], [2, 3]]):
        with pytest.raises(TileSourceError, match='mask'):
            make_sink(RGB, mask=mask)
    (tmp_path / 'a.png').write_bytes(encoded(RGB, 'PNG')[:1500])
    mask = pyvips.Image.new_from_file(str(tmp_path / 'a.png'), fail_on='truncated')
    with pytest.raises(TileSourceError, match='mask'):
        make_sink(RGB, mask=mask)


@pytest.mark.parametrize('mask', [CHECKS, CHECKS.tolist(), np.dstack([CHECKS] * 3)],
                         ids=['array', 'lists', 'bands'])
def test_a_mask_with_bands_of_data_keeps_what_was_there(mask):
    first, second = (random_tile('uint8', (*CHECKS.shape, 6), seed) for seed in (1, 2))
    sink = make_sink(first, mask=mask)
    np.testing.assert_array_equal(read_all(sink), np.where(CHECKS[:, :, None], first, 0))
    sink = make_sink(first)
    sink.addTile(second, mask=mask)
    np.testing.assert_array_equal(read_all(sink), np.where(CHECKS[:, :, None], second, first))
