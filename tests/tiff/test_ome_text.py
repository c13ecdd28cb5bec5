"""The OME-XML of written files: valid against the schema, and read back unchanged."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from large_image_source_vips.base.frames import Annotations, Axes, values_of_array
from large_image_source_vips.base.geometry import Size
from large_image_source_vips.tiff.json_text import axes_of_json, read_json_text
from large_image_source_vips.tiff.ome import ome_root, ome_series
from large_image_source_vips.tiff.ome_text import OmeImage, ome_text

TEXTS = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1 << 53, 1 << 53) | TEXTS |
    st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6)


@st.composite
def images(draw):
    names = draw(st.permutations(['c', 'z', 't', 'xy', 'q']))[:draw(st.integers(0, 4))]
    axes = Axes({name: draw(st.integers(1, 3)) for name in names})
    value_axes = tuple(name for name in names if draw(st.booleans())) or None
    values = None
    if value_axes:
        shape = (*(axes.lengths[name] for name in value_axes), len(value_axes))
        array = np.empty(shape, object)
        for place in np.ndindex(shape):
            array[place] = draw(st.floats(-1e6, 1e6) | st.integers(-9, 9) | TEXTS)
        values = values_of_array(array, value_axes)
    channels = axes.lengths.get('c', 1)
    notes = Annotations(
        axes, tuple(draw(TEXTS) for _ in range(channels)) if draw(st.booleans()) else None,
        tuple(draw(st.sampled_from(['FF0000', '#00ff7f', 'blue'])) for _ in range(channels)),
        value_axes, {'z': draw(st.sampled_from(['um', 'mm', 'furlong']))} if value_axes else None,
        values, draw(JSON), draw(JSON), draw(st.none() | st.floats(1, 100)))
    associated = {key: (Size(4, 3), draw(st.integers(1, 4)))
                  for key in draw(st.lists(st.sampled_from(['label', 'macro', 'one <"&']),
                                           unique=True))}
    return OmeImage(Size(20, 30), np.dtype(draw(st.sampled_from(['uint8', 'float32', 'int16']))),
                    draw(st.integers(1, 5)), draw(st.sampled_from([(None, None), (0.00025, 0.5)])),
                    notes, associated)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(images())
def test_texts_are_valid_and_say_where_every_plane_is(image):
    text = ome_text(image)
    assert text.isascii()
    notes = image.annotations
    pages = notes.axes.count + len(image.associated)
    series = ome_series(text, 'a.ome.tif', image.samples, pages)
    xy = notes.axes.lengths.get('xy', 1)
    assert len(series) == xy + len(image.associated)
    assert {plane.page for one in series for plane in one.planes} == set(range(pages))
    for number, position in enumerate(notes.axes.positions()):
        one = series[position.get('xy', 0)]
        plane = next(plane for plane in one.planes if plane.page == number)
        for axis in 'cz':
            assert plane.axes.get(f'Index{axis.upper()}', 0) == position.get(axis, 0)
    if notes.channel_names is not None and 'c' in notes.axes.lengths:
        # XML has no control characters.
        wanted = [''.join(char if char.isprintable() else '?' for char in name)
                  for name in notes.channel_names]
        found = [''.join(char if char.isprintable() else '?' for char in channel.name)
                 for channel in series[0].channels]
        assert [len(name) for name in found] == [len(name) for name in wanted]
    if image.pixel_size[0]:
        assert series[0].pixel_size == pytest.approx(image.pixel_size)
    assert series[0].magnification == pytest.approx(notes.magnification)
    own = read_json_text(text)
    assert own.get('additionalMetadata') == notes.metadata
    axes = axes_of_json(own)
    if axes is not None:
        assert list(axes.lengths.items()) == list(notes.axes.lengths.items())
    for order in itertools.islice(ome_root(text).iter('Pixels'), xy):
        assert sorted(order.get('DimensionOrder')) == sorted('XYCZT')


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(images())
def test_texts_are_valid_by_the_schema(image):
    ome_types = pytest.importorskip('ome_types', reason='pip install ome-types')
    ome_types.validate_xml(ome_text(image))
    found = ome_types.from_xml(ome_text(image))
    assert found.images[0].pixels.size_x == 20


def described(values, axes, units=None, lengths=None):
    array = np.asarray(values, object)
    lengths = lengths or dict(zip(axes, array.shape, strict=False))
    notes = Annotations(Axes(lengths), value_axes=tuple(axes), units=units,
                        values=values_of_array(array, tuple(axes)))
    return ome_root(ome_text(OmeImage(Size(9, 9), np.dtype('uint8'), 1, annotations=notes)))


@pytest.mark.parametrize(('values', 'unit', 'expected'), [
    ([0, 0.1, 0.2, 0.3], None, '0.1'), ([0, 0.1, 0.2], 'um', '0.1'), ([5, 6, 7], 'nm', '0.001'),
    ([1, 2], 'millimeters', '1000'), ([0, 0.1, 0.3], 'um', None), ([2, 1, 0], 'um', None),
    ([1, 1], 'um', None), ([0, 1], 'furlong', None), ([0, 'deep'], 'um', None), ([3], 'um', None)])
def test_even_depths_are_the_size_of_a_voxel(values, unit, expected):
    root = described([[value] for value in values], 'z', unit and {'z': unit})
    assert root.find('Image/Pixels').get('PhysicalSizeZ') == expected


def test_times_and_depths_are_those_of_each_plane():
    root = described([[[z / 2, 100 * t + z] for t in range(2)] for z in range(2)], 'zt',
                     {'t': 'ms', 'z': 'mm'})
    pixels = root.find('Image/Pixels')
    assert pixels.get('TimeIncrement') is None
    planes = {(plane.get('TheZ'), plane.get('TheT')): (
        float(plane.get('PositionZ')), float(plane.get('DeltaT')))
        for plane in pixels.findall('Plane')}
    assert planes == {('0', '0'): (0, 0), ('1', '0'): (500, 0.001), ('0', '1'): (0, 0.1),
                      ('1', '1'): (500, 0.101)}
    even = described([[0], [1.5], [3]], 't').find('Image/Pixels')
    assert even.get('TimeIncrement') == '1.5'


def test_wavelengths_and_names_are_those_of_channels():
    channels = described([[450.5], [520]], 'c', {'c': 'nm'}).iter('Channel')
    assert [channel.get('EmissionWavelength') for channel in channels] == ['450.5', '520']
    channels = described([['DAPI'], ['CD4']], 'c').iter('Channel')
    assert [channel.get('Name') for channel in channels] == ['DAPI', 'CD4']


@pytest.mark.parametrize('own', [
    '{"axes": {"q": 0}}', '{"axes": {"q": 2000000}}', '{"axes": {"q": 1000000, "r": 1000000}}',
    '{"axes": [1]}', '[]', 'no JSON', '{"axes": {"q": "1"}}', '', '{"axes": {"q": 1.5}}'])
def test_a_malformed_annotation_is_ignored(own):
    text = ome_text(OmeImage(Size(9, 9), np.dtype('uint8'), 1, annotations=Annotations(
        metadata='marker')))
    text = text.replace('{"additionalMetadata": "marker"}', own.replace('"', '&quot;'))
    assert axes_of_json(read_json_text(text)) is None
