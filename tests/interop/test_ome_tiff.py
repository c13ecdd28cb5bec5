"""
OME-TIFF files written by this package, in other readers.

Readers that are not installed are skipped; ``tox -e interop`` has all of them.
"""

import importlib.util
import json
import os
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile

import large_image_source_vips
from helpers.other_readers import READERS, LargeImage, large_image_source, missing_planes_allowed
from helpers.pixels import block_means, random_pixels, smooth_pixels

ROWS, COLS, SIDE, LEVELS = 301, 417, 128, 3
DTYPES = ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'float32', 'float64']


class Case(NamedTuple):
    """
    An image to write.

    :param axes: of the frames, slowest first.
    :param pixels: (length of each axis, rows, cols, bands).
    :param lossy: whether it is JPEG.
    """

    axes: str | tuple[str, ...]
    pixels: Any
    lossy: bool = False


def noise(*lengths, bands=1, dtype='uint16'):
    return random_pixels((*lengths, ROWS, COLS, bands), dtype)


def colours(*lengths):
    frames = [smooth_pixels(ROWS, COLS, seed=number) for number in range(int(np.prod(lengths)))]
    return np.reshape(frames, (*lengths, ROWS, COLS, 3))


def transparent():
    pixels = random_pixels((ROWS, COLS, 4))
    pixels[..., 3] = np.where(np.arange(COLS) < 200, 255, 0)
    return pixels


CASES = {
    'RGB': Case('', colours()),
    'RGB, JPEG': Case('', colours(), lossy=True),
    'RGBA': Case('', transparent()),
    'gray': Case('', noise(dtype='uint8')),
    '7 bands': Case('', noise(bands=7)),
    'stack of RGB': Case('z', colours(3)),
    'stack of RGB, JPEG': Case('z', colours(3), lossy=True),
    'times, planes, channels': Case('tzc', noise(2, 3, 4)),
    'channels, times, planes': Case('ctz', noise(4, 2, 3)),
    'positions': Case(('xy', 'c'), noise(2, 3)),
    'channels of positions': Case(('c', 'xy'), noise(3, 2)),
    'an axis of another name': Case(('wave', 'z'), noise(2, 3)),
    'channels of 6 bands': Case('c', noise(3, bands=6)),
    **{dtype: Case('c', noise(2, dtype=dtype)) for dtype in DTYPES}}

# What readers do not read, whoever wrote it.
REFUSED = {
    ('libvips', 'float64'): 'libvips reads no 64-bit floats from TIFF',
    ('large_image ometiff', 'positions'): 'it refuses several images',
    ('large_image ometiff', 'channels of positions'): 'it refuses several images',
    ('large_image ometiff', 'channels of 6 bands'): 'it refuses channels of several bands'}
# OpenSlide shows colours of 8 bits, and the first page.
EIGHT_BITS = ('RGB', 'RGB, JPEG', 'RGBA')


def write(path, case, **kwargs):
    sink = large_image_source_vips.new()
    sink.addTile(case.pixels, axes=[*case.axes, 'y', 'x', 's'])
    sink.mm_x, sink.mm_y = 0.00025, 0.0005
    for name, value in kwargs.items():
        setattr(sink, name, value)
    sink.write(path, lossy=case.lossy, tileSize=SIDE, compression=None if case.lossy else 'deflate')
    return sink


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A function that returns the file of a case, which is written once."""
    folder, written = tmp_path_factory.mktemp('ome'), {}

    def file(name):
        if name not in written:
            written[name] = folder / f'{len(written)}.ome.tif'
            write(written[name], CASES[name])
        return written[name]

    return file


def place_of(case, position):
    """The place of a frame on the axes of OME; others are laid on T."""
    place = {'xy': 0, 't': 0, 'z': 0, 'c': 0}
    for axis, number in zip(case.axes, position, strict=True):
        place[axis if axis in place else 't'] = number
    return place


def assert_level(found, pixels, level, *, lossy):
    """Compare a level with the full resolution, of which it has every second pixel or means."""
    if lossy:
        expected = block_means(pixels, 1 << level)
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < 2
    else:
        expected = pixels[::1 << level, ::1 << level]
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('reader', READERS)
def test_readers_see_every_pixel_of_every_frame_and_level(files, reader, name):
    if (reader, name) in REFUSED:
        pytest.skip(REFUSED[reader, name])
    if reader == 'OpenSlide' and name not in EIGHT_BITS:
        pytest.skip('OpenSlide shows 8-bit colours of one frame')
    case = CASES[name]
    image = READERS[reader](files(name))
    assert image.levels == (1 if reader in ('OpenSlide', 'bioio') else LEVELS)
    for frame, position in enumerate(np.ndindex(case.pixels.shape[:-3])):
        pixels = case.pixels[position]
        for level in range(image.levels):
            found = image.read(frame, place_of(case, position), level)
            if getattr(image, 'rounds_down', False):
                rows, cols = ROWS >> level << level, COLS >> level << level
                found, pixels = found[:rows >> level, :cols >> level], pixels[:rows, :cols]
            if reader == 'OpenSlide':
                # Where nothing is seen it has no colours.
                assert (found[..., 3] == (pixels[..., 3] if pixels.shape[2] == 4 else 255)).all()
                seen = found[..., 3:] > 0
                found, pixels = found[..., :3] * seen, pixels[..., :3] * seen
            assert_level(found, pixels, level, lossy=case.lossy)


@pytest.mark.parametrize('name', CASES)
def test_tifffile_sees_axes_and_sizes(files, name):
    case = CASES[name]
    with tifffile.TiffFile(files(name)) as file:
        assert file.is_ome
        series = file.series
        count = dict(zip(case.axes, case.pixels.shape, strict=False)).get('xy', 1)
        assert len(series) == count
        axes = [axis if axis in 'tzc' else 't' for axis in case.axes if axis != 'xy']
        bands = case.pixels.shape[-1]
        assert series[0].axes.lower() == ''.join(axes) + 'yx' + 's' * (bands > 1)
        for level, found in enumerate(series[0].levels):
            scale = 1 << level
            plane = (-(-ROWS // scale), -(-COLS // scale))
            lengths = [length for axis, length in zip(case.axes, case.pixels.shape, strict=False)
                       if axis != 'xy']
            assert found.shape == (*lengths, *plane) + (bands,) * (bands > 1)


@pytest.mark.parametrize('name', CASES)
def test_texts_are_valid_by_the_schema_and_state_types_and_sizes(files, name):
    ome_types = pytest.importorskip('ome_types', reason='pip install ome-types')
    case = CASES[name]
    ome_types.validate_xml(tifffile.tiffcomment(files(name)))
    image = ome_types.from_tiff(files(name)).images[0].pixels
    lengths = dict(zip(case.axes, case.pixels.shape, strict=False))
    assert (image.size_x, image.size_y) == (COLS, ROWS)
    assert image.size_c == lengths.get('c', 1) * case.pixels.shape[-1]
    assert image.size_z == lengths.get('z', 1)
    assert image.size_t == lengths.get('t', lengths.get('wave', 1))
    assert image.type.value == {'float32': 'float', 'float64': 'double'}.get(
        case.pixels.dtype.name, case.pixels.dtype.name)
    assert [image.physical_size_x, image.physical_size_y] == pytest.approx([0.25, 0.5])
    assert len(image.channels) == lengths.get('c', 1)
    assert {channel.samples_per_pixel for channel in image.channels} == {case.pixels.shape[-1]}


def described(path):
    """A file with all that OME has a place for."""
    write(path, CASES['times, planes, channels'], channelNames=['DAPI', 'CD3', 'CD8', 'Ki67'],
          channelColors=['0000FF', '#00ff00', 'red', 'FFFFFF'], magnification=40,
          imageDescription='A tonsil', additionalMetadata={'slide': 'A1', 'stain': {'round': 2}},
          frameAxes=['t', 'z'], frameUnits={'t': 'min', 'z': 'um'},
          frameValues=[[[5 * t, 0.5 * z] for z in range(3)] for t in range(2)])
    return path


def test_texts_state_names_colours_steps_and_magnification(tmp_path):
    ome_types = pytest.importorskip('ome_types', reason='pip install ome-types')
    path = described(tmp_path / 'a.ome.tif')
    ome_types.validate_xml(tifffile.tiffcomment(path))
    ome = ome_types.from_tiff(path)
    image, pixels = ome.images[0], ome.images[0].pixels
    assert [channel.name for channel in pixels.channels] == ['DAPI', 'CD3', 'CD8', 'Ki67']
    assert [channel.color.as_rgb_tuple(alpha=False) for channel in pixels.channels] == [
        (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255)]
    assert ome.instruments[0].objectives[0].nominal_magnification == 40
    assert image.objective_settings.id == ome.instruments[0].objectives[0].id
    assert image.description == 'A tonsil'
    assert pixels.physical_size_z == 0.5
    assert pixels.time_increment == 300
    assert {(plane.the_t, plane.the_z): (plane.delta_t, plane.position_z)
            for plane in pixels.planes} == {
        (t, z): (300 * t, 0.5 * z) for t in range(2) for z in range(3)}
    pairs = {pair.k: pair.value for note in ome.structured_annotations
             for pair in getattr(note.value, 'ms', ())}
    assert pairs['slide'] == 'A1'
    assert json.loads(pairs['stain']) == {'round': 2}


def test_bioio_sees_names_and_pixel_sizes(tmp_path):
    bioio = pytest.importorskip('bioio', reason='pip install bioio bioio-ome-tiff')
    reader = pytest.importorskip('bioio_ome_tiff', reason='pip install bioio-ome-tiff')
    image = bioio.BioImage(described(tmp_path / 'a.ome.tif'), reader=reader.Reader)
    assert [str(name) for name in image.channel_names] == ['DAPI', 'CD3', 'CD8', 'Ki67']
    assert (image.dims.T, image.dims.C, image.dims.Z) == (2, 4, 3)
    sizes = list(image.physical_pixel_sizes)
    assert sizes == pytest.approx([0.5, 0.5, 0.25])


@pytest.mark.parametrize('name', ['tiff', 'ometiff', 'tifffile'])
def test_sources_of_large_image_see_axes_names_and_pixel_sizes(tmp_path, name):
    source = LargeImage(name, described(tmp_path / 'a.ome.tif')).source
    metadata = source.getMetadata()
    assert len(metadata['frames']) == 24
    assert (metadata['mm_x'], metadata['mm_y']) == pytest.approx((0.00025, 0.0005))
    if name != 'tiff':
        # This source knows no axes.
        assert metadata['IndexRange'] == {'IndexT': 2, 'IndexZ': 3, 'IndexC': 4}
        assert metadata['IndexStride'] == {'IndexT': 12, 'IndexZ': 4, 'IndexC': 1}
    if name == 'ometiff':
        assert metadata['channels'] == ['DAPI', 'CD3', 'CD8', 'Ki67']


ASSOCIATED = {
    'label': smooth_pixels(80, 70, seed=1), 'macro': smooth_pixels(90, 200, seed=2),
    'thumbnail': smooth_pixels(70, 80, seed=3)}


@pytest.fixture(params=['RGB', 'times, planes, channels'])
def with_associated(request, tmp_path):
    """A file with associated images; and its case."""
    case, path = CASES[request.param], tmp_path / 'a.ome.tif'
    sink = large_image_source_vips.new()
    sink.addTile(case.pixels, axes=[*case.axes, 'y', 'x', 's'])
    for key, pixels in ASSOCIATED.items():
        sink.addAssociatedImage(pixels, key)
    sink.write(path, lossy=False, tileSize=SIDE)
    return path, case


def test_associated_images_are_further_images_of_ome(with_associated):
    path, case = with_associated
    with tifffile.TiffFile(path) as file:
        main, *others = file.series
        assert len(main.levels) == LEVELS
        np.testing.assert_array_equal(main.asarray().reshape(case.pixels.shape), case.pixels)
        assert [series.name for series in others] == list(ASSOCIATED)
        for series, pixels in zip(others, ASSOCIATED.values(), strict=True):
            np.testing.assert_array_equal(series.asarray().reshape(pixels.shape), pixels)
            assert len(series.levels) == 1


def test_associated_images_are_images_of_the_schema_and_scenes(with_associated):
    ome_types = pytest.importorskip('ome_types', reason='pip install ome-types')
    path, _ = with_associated
    ome_types.validate_xml(tifffile.tiffcomment(path))
    images = ome_types.from_tiff(path).images
    assert [image.name for image in images[1:]] == list(ASSOCIATED)
    bioio = pytest.importorskip('bioio', reason='pip install bioio bioio-ome-tiff')
    reader = pytest.importorskip('bioio_ome_tiff', reason='pip install bioio-ome-tiff')
    image = bioio.BioImage(path, reader=reader.Reader)
    assert len(image.scenes) == 1 + len(ASSOCIATED)
    for number, pixels in enumerate(ASSOCIATED.values()):
        image.set_scene(1 + number)
        found = image.get_image_data('YXS' if pixels.shape[2] > 1 else 'YX')
        np.testing.assert_array_equal(found.reshape(pixels.shape), pixels)


@pytest.mark.parametrize('reader', ['GDAL', 'libvips'])
def test_associated_images_are_no_levels(with_associated, reader):
    path, case = with_associated
    image = READERS[reader](path)
    assert image.levels == LEVELS
    first = case.pixels.reshape(-1, *case.pixels.shape[-3:])[0]
    for level in range(LEVELS):
        assert_level(image.read(0, {}, level), first, level, lossy=False)


@pytest.mark.parametrize('name', ['tiff', 'ometiff', 'tifffile'])
def test_associated_images_are_such_in_sources_of_large_image(with_associated, name):
    path, case = with_associated
    source = LargeImage(name, path).source
    frames = int(np.prod(case.pixels.shape[:-3]))
    assert len(source.getMetadata().get('frames', [{}])) == frames
    if name == 'ometiff' and frames > 1:
        pytest.skip('it looks for associated images only beside images without channels')
    assert set(source.getAssociatedImagesList()) == set(ASSOCIATED)
    for key, pixels in ASSOCIATED.items():
        found = source.getAssociatedImage(key, format='numpy')[0]
        np.testing.assert_array_equal(found[..., :pixels.shape[2]], pixels)


def test_frames_that_do_not_fill_the_axes_keep_their_places(files, tmp_path):
    case = CASES['times, planes, channels']
    source = large_image_source_vips.open(files('times, planes, channels'))
    kept = {tuple(frame[f'Index{axis}'] for axis in 'TZC'): frame['Frame']
            for frame in source.getMetadata()['frames'] if frame['Frame'] % 5 in (0, 2)}
    source.write(tmp_path / 'a.ome.tif', lossy=False, frame=sorted(kept.values()))
    with missing_planes_allowed(), tifffile.TiffFile(tmp_path / 'a.ome.tif') as file:
        found, axes = file.asarray(), file.series[0].axes
    found = np.moveaxis(found, [axes.index(axis) for axis in 'TZC'], [0, 1, 2])
    assert found.shape[:3] == (2, 3, 4)
    for place in np.ndindex(2, 3, 4):
        expected = case.pixels[place][..., 0] if place in kept else 0
        assert (found[place] == expected).all()
    again = large_image_source_vips.open(tmp_path / 'a.ome.tif')
    for frame in again.getMetadata()['frames']:
        place = tuple(frame[f'Index{axis}'] for axis in 'TZC')
        pixels, _ = again.getRegion(frame=frame['Frame'], format='numpy')
        np.testing.assert_array_equal(pixels, case.pixels[place])
        del kept[place]
    assert not kept
    with missing_planes_allowed():
        reader = READERS['bioio'](tmp_path / 'a.ome.tif')
        for place in np.ndindex(2, 3, 4):
            np.testing.assert_array_equal(
                reader.read(0, {**dict(zip('tzc', place, strict=True)), 'xy': 0}, 0)[..., 0],
                found[place])


def test_all_readers_are_there():
    """Else the tests above would say nothing."""
    if 'LARGE_IMAGE_SOURCE_VIPS_INTEROP' not in os.environ:
        pytest.skip('LARGE_IMAGE_SOURCE_VIPS_INTEROP is not set, as tox -e interop does')
    for name in ('bioio', 'bioio_ome_tiff', 'ome_types', 'openslide', 'rasterio'):
        assert importlib.util.find_spec(name)
    for name in ('tiff', 'ometiff', 'tifffile', 'openslide'):
        large_image_source(name)
