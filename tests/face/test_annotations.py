"""Names, colours, values and texts: the properties of large_image's zarr sink."""

import datetime
import io

import numpy as np
import PIL.Image
import pytest
import tifffile
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.sink import make_sink, random_tile

UNSET = {
    'channelNames': None, 'channelColors': [], 'frameAxes': None, 'frameUnits': None,
    'frameValues': None, 'imageDescription': None, 'additionalMetadata': None,
    'magnification': None}
SET = {
    'channelNames': ['DAPI', 'CD4'], 'channelColors': ['0000FF', '#00ff00', 'red'],
    'frameAxes': ['z', 'c'], 'imageDescription': {'text': ['a', 1, None]},
    'additionalMetadata': [{'nested': {'hello': 'world'}}, 2.5], 'magnification': 20.0}


@pytest.fixture
def file(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', np.zeros((40, 50), 'uint8'), metadata=None)
    return large_image_source_vips.open(tmp_path / 'a.tif')


@pytest.mark.parametrize('name', UNSET)
def test_every_source_has_them_and_a_new_image_can_set_them(file, name):
    sink = make_sink(np.zeros((40, 50), 'uint8'))
    assert getattr(sink, name) == getattr(file, name) == UNSET[name]
    with pytest.raises(TileSourceError, match='opened from a file'):
        setattr(file, name, SET.get(name))


@pytest.mark.parametrize('name', SET)
def test_what_is_set_is_read_back_as_a_copy(name):
    sink = large_image_source_vips.new()
    setattr(sink, name, SET[name])
    found = getattr(sink, name)
    assert found == SET[name]
    if isinstance(found, (list, dict)):
        found.clear()
        assert getattr(sink, name) == SET[name]
    setattr(sink, name, None)
    assert getattr(sink, name) == UNSET[name]


@pytest.mark.parametrize(('name', 'value', 'is_value_error'), [
    ('channelNames', 'DAPI', True), ('channelNames', [1], True), ('channelNames', {'a': 1}, True),
    ('channelColors', ['no colour'], True), ('channelColors', 'FF0000', True),
    ('frameAxes', 'zc', True), ('frameAxes', ['x'], True), ('frameAxes', ['z', 'z'], True),
    ('frameUnits', {'z': 'um'}, True), ('frameValues', np.zeros((3, 1)), True),
    ('imageDescription', datetime.datetime.now(tz=datetime.timezone.utc), True),
    ('imageDescription', {1, 2}, True), ('imageDescription', float('nan'), True),
    ('additionalMetadata', {'created': np.zeros(3)}, True),
    ('magnification', 0, True), ('magnification', -1, True), ('magnification', 'much', True),
    ('magnification', float('inf'), True)])
def test_what_they_cannot_hold_is_an_error(name, value, is_value_error):
    sink = large_image_source_vips.new()
    with pytest.raises(TileSourceError, match=name) as caught:
        setattr(sink, name, value)
    assert isinstance(caught.value, ValueError) is is_value_error
    assert getattr(sink, name) == UNSET[name]


def test_values_need_axes_and_their_number_of_dimensions():
    sink = large_image_source_vips.new()
    sink.frameAxes = ['z', 'c']
    for wrong in (np.zeros(2), np.zeros((2, 2)), np.zeros((2, 3, 4)), np.zeros((2, 2, 2, 2))):
        with pytest.raises(ValueError, match='3 dimensions'):
            sink.frameValues = wrong
    for wrong in ({'t': 's'}, ['um'], 'um'):
        with pytest.raises(ValueError, match='frameUnits must be'):
            sink.frameUnits = wrong
    values = np.array([[[0.5 * z, name] for name in 'ab'] for z in range(3)], object)
    sink.frameValues, sink.frameUnits = values, {'z': 'um'}
    assert sink.frameValues.tolist() == values.tolist()
    sink.addTile(np.zeros((3, 2, 30, 40), np.uint8), axes='zcyx')
    frames = sink.getMetadata()['frames']
    assert [(frame['ValueZ'], frame['ValueC']) for frame in frames] == [
        (0.5 * z, name) for z in range(3) for name in 'ab']
    # A value that a tile gives replaces one.
    sink.addTile(np.zeros((30, 40), np.uint8), z=1, c=1, z_value=9)
    assert sink.frameValues[1, 1].tolist() == [9, 'b']
    sink.frameAxes = ['z']
    assert sink.frameValues.tolist() == [[0], [0.5], [1]]
    assert sink.frameUnits == {'z': 'um'}


@pytest.mark.parametrize('name', ['projection', 'gcps'])
def test_georeferences_are_refused_with_who_has_them(name):
    sink = large_image_source_vips.new()
    with pytest.raises(TileSourceError, match="'gdal' and 'rasterio'"):
        setattr(sink, name, 'epsg:4326')
    with pytest.raises(AttributeError):
        getattr(sink, name)


def test_a_change_of_an_annotation_changes_the_state():
    sink = make_sink(np.zeros((2, 30, 40), np.uint8), axes='cyx')
    before = sink.getState()
    sink.channelNames = ['a', 'b']
    assert sink.getState() != before


def test_a_magnification_replaces_the_estimate():
    sink = make_sink(np.zeros((30, 40), np.uint8))
    sink.mm_x = 0.00025
    assert (sink.magnification, sink.getNativeMagnification()['magnification']) == (None, 40)
    sink.magnification = 20
    assert sink.getMetadata()['magnification'] == 20


@pytest.mark.parametrize('bands', [1, 2, 3, 4])
@pytest.mark.parametrize('form', ['array', 'PIL', 'bytes', 'gray array'])
def test_associated_images_of_every_kind(bands, form):
    array = random_tile('uint8', (30, 40, bands), bands)
    image = PIL.Image.fromarray(array[:, :, 0] if bands == 1 else array)
    given = array
    if form == 'gray array':
        given = array = array[:, :, 0]
    elif form == 'PIL':
        given = image
    elif form == 'bytes':
        stream = io.BytesIO()
        image.save(stream, 'PNG')
        given = stream.getvalue()
    sink = large_image_source_vips.new()
    sink.addAssociatedImage(given, 'label')
    assert sink.getAssociatedImagesList() == ['label']
    found, _mime = sink.getAssociatedImage('label', format='numpy')
    np.testing.assert_array_equal(found.reshape(array.shape), array)


@pytest.mark.parametrize('suffix', ['.tif', '.ome.tif'])
@pytest.mark.parametrize(('frames', 'size'), [
    # Larger than the image, as large, and as a level of it would be.
    (1, (600, 700)), (1, (96, 80)), (1, (48, 40)), (70, (600, 700)), (3, (96, 80))])
def test_an_associated_image_of_any_size_is_read_as_such(tmp_path, suffix, frames, size):
    pixels = random_tile('uint8', (frames, 96, 80, 3), frames)
    found = {'label': random_tile('uint8', (*size, 3), 7), 'the \u00e4 other': pixels[0, :48, :40]}
    sink = large_image_source_vips.new()
    sink.addTile(pixels, axes='tyxs')
    for key, image in found.items():
        sink.addAssociatedImage(image, key)
    path = str(tmp_path / f'a{suffix}')
    sink.write(path, lossy=False)
    source = large_image_source_vips.open(path)
    assert (source.sizeX, source.sizeY, source.frames) == (80, 96, frames)
    for frame in range(frames):
        read, _ = source.getRegion(format='numpy', frame=frame)
        np.testing.assert_array_equal(read, pixels[frame])
    assert source.getAssociatedImagesList() == list(found)
    for key, image in found.items():
        read, _ = source.getAssociatedImage(key, format='numpy')
        np.testing.assert_array_equal(read, image)
    assert len(source.getInternalMetadata()['storage']['levels']) == 1


def test_keys_of_associated_images():
    sink = large_image_source_vips.new()
    for key in (None, 'macro', None, 'image_5', None, 'macro'):
        sink.addAssociatedImage(np.zeros((3, 4, 3), np.uint8), key)
    assert sink.getAssociatedImagesList() == ['image_1', 'macro', 'image_3', 'image_5', 'image_6']
    assert sink.getAssociatedImage('no such') is None


@pytest.mark.parametrize(('image', 'key'), [
    ('no image', 'a'), (b'no image', 'a'), (np.zeros((3, 4, 5), np.uint8), 'a'), (None, 'a'),
    (np.zeros((3, 4, 3), np.uint8), ''), (np.zeros((3, 4, 3), np.uint8), 3)])
def test_what_is_no_associated_image_is_refused(image, key):
    sink = large_image_source_vips.new()
    with pytest.raises(TileSourceError):
        sink.addAssociatedImage(image, key)
    assert sink.getAssociatedImagesList() == []
