"""OME-XML and ImageJ texts, including malicious ones."""

import dataclasses
import tracemalloc

import pytest

from large_image_source_vips.base.limits import LIMITS
from large_image_source_vips.tiff import ome


def document(*images, uuid=''):
    return f'<?xml version="1.0"?><OME{uuid and f" UUID={chr(34)}{uuid}{chr(34)}"}>' + ''.join(
        f'<Image>{pixels}</Image>' for pixels in images) + '</OME>'


def pixels(content='', **sizes):
    values = {'DimensionOrder': 'XYCZT', 'SizeX': 9, 'SizeY': 9, **sizes}
    fields = ' '.join(f'{key}="{value}"' for key, value in values.items())
    return f'<Pixels {fields}>{content}</Pixels>'


def read(*images, file_name='a.ome.tif', pages=100, uuid=''):
    return ome.ome_series(document(*images, uuid=uuid), file_name, 1, pages)


@pytest.fixture
def limited(monkeypatch):
    """Replaces limits."""
    def replace(**limits):
        monkeypatch.setattr(ome, 'LIMITS', dataclasses.replace(LIMITS, **limits))
    return replace


@pytest.mark.parametrize(('unit', 'mm'), [
    ('µm', 1e-3), ('μm', 1e-3), ('\\u00B5m', 1e-3), ('\\u00b5m', 1e-3), ('\\u03BCm', 1e-3),
    ('um', 1e-3), ('UM', None), ('micron', 1e-3), ('Microns', 1e-3), ('micrometer', 1e-3),
    ('micrometres', 1e-3), ('Âµm', 1e-3), ('㎛', 1e-3), (' um ', 1e-3), ('nm', 1e-6),
    ('pm', 1e-9), ('Å', 1e-7), ('mm', 1), ('Mm', None), ('cm', 10), ('m', 1e3), ('meters', 1e3),
    ('inch', 25.4), ('inches', 25.4), ('in', 25.4), ('ft', 304.8), ('pixel', None),
    ('pixels', None), ('', None), ('sec', None), ('x' * 1_000_000, None)])
def test_units(unit, mm):
    assert ome.unit_in_mm(unit) == mm


@pytest.mark.parametrize(('text', 'expected'), [
    ('unit=um', (1e-3, 1e-3)), ('unit=\\u00B5m\nyunit=mm', (1e-3, 1)), ('yunit=cm', (None, 10)),
    ('unit=pixel', (None, None)), ('', (None, None))])
def test_imagej_units(text, expected):
    assert ome.imagej_units(ome.imagej_fields(f'ImageJ=1.54f\n{text}')) == expected


def test_an_encoding_that_a_text_states_does_not_matter():
    text = document(pixels(PhysicalSizeX=2, PhysicalSizeXUnit='µm')).replace(
        '?>', ' encoding="ISO-8859-1"?>')
    assert ome.ome_series(text, '', 1, 1)[0].pixel_size == (0.002, None)


def test_namespaces_do_not_matter():
    text = ('<o:OME xmlns:o="http://www.openmicroscopy.org/Schemas/OME/2016-06"><o:Image>'
            '<o:Pixels SizeT="2"/></o:Image></o:OME>')
    assert [plane.page for plane in ome.ome_series(text, '', 1, 5)[0].planes] == [0, 1]


def test_planes_are_those_that_the_file_has():
    series = read(pixels(SizeZ=1_000_000), pages=3)
    assert [plane.page for plane in series[0].planes] == [0, 1, 2]
    assert [dict(plane.axes) for plane in series[0].planes] == [{'IndexZ': z} for z in range(3)]


def test_the_last_page_counts():
    content = '<TiffData IFD="98" FirstZ="0" PlaneCount="5"/>'
    assert [plane.page for plane in read(pixels(content, SizeZ=9))[0].planes] == [98, 99]
    assert not read(pixels('<TiffData IFD="100"/>', SizeZ=9))[0].planes


def peak(call):
    """The most memory that Python objects took during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('content', [
    '', '<TiffData/>' * 2000, '<TiffData PlaneCount="1000000"/>' * 2000,
    '<TiffData FirstZ="999999999"/>' * 2000, '<TiffData IFD="999999999"/>' * 2000,
    '<TiffData FirstZ="{}" PlaneCount="1000000"/>' * 2000])
@pytest.mark.parametrize('images', [1, 200])
def test_claims_cost_nothing(content, images):
    images = [pixels(content if not number else '', SizeZ=1_000_000, SizeT=1_000_000,
                     SizeC=999_999_999) for number in range(images)]
    assert peak(lambda: read(*images)) < 20 << 20


@pytest.mark.parametrize(('repeats', 'fits'), [(10, True), (11, False)])
def test_planes_placed_again_and_again_are_counted(limited, repeats, fits):
    limited(tiff_ome_planes=1000)
    series = read(pixels('<TiffData IFD="0" PlaneCount="100"/>' * repeats, SizeZ=100))
    assert [len(one.planes) for one in series] == ([100] if fits else [])
    series = read(*[pixels('<TiffData IFD="0" PlaneCount="100"/>', SizeZ=100)] * repeats)
    assert len(series) == (repeats if fits else 0)


def test_planes_of_other_files_are_left_out():
    content = ''.join(
        f'<TiffData IFD="{number % 5}" FirstT="{number}" PlaneCount="1">'
        f'<UUID FileName="f{number // 5}.ome.tif">urn:uuid:{number // 5}</UUID></TiffData>'
        for number in range(20))
    for name, uuid in (('f1.ome.tif', ''), ('renamed.tif', 'urn:uuid:1')):
        series = read(pixels(content, SizeT=20), file_name=name, uuid=uuid)
        assert [dict(plane.axes)['IndexT'] for plane in series[0].planes] == [5, 6, 7, 8, 9]


def test_each_reference_to_another_file_is_looked_at_once():
    """The number of steps is counted, not the time: it must grow as the text does."""
    visits = []

    def steps(count):
        root = ome.xml_root(document(pixels(''.join(
            f'<TiffData FirstZ="{number}" IFD="0"><UUID FileName="z{number}.ome.tif">urn:uuid:'
            f'{number}</UUID></TiffData>' for number in range(count)), SizeZ=count)))
        entries = root.findall('.//TiffData')
        visits.clear()
        walked = root.iter

        class Root:
            get = root.get

            def iter(self, tag):
                for element in walked(tag):
                    visits.append(element)
                    yield element

        is_here = ome._file_test(Root(), 'z7.ome.tif')
        assert [is_here(entry) for entry in entries].count(True) == 1
        return len(visits)

    assert steps(100) == 100
    assert steps(1000) == 1000


def test_a_data_set_of_one_file_may_be_renamed():
    content = '<TiffData IFD="3"><UUID FileName="old.ome.tif">urn:uuid:1</UUID></TiffData>'
    series = read(pixels(content), file_name='new.ome.tif')
    assert [plane.page for plane in series[0].planes] == [3]


@pytest.mark.parametrize(('most', 'fits'), [(19, True), (18, False)])
def test_tags_and_attributes_are_counted_before_parsing(limited, most, fits):
    limited(tiff_xml_marks=most)
    # 1 declaration, 3 elements, 3 ends of elements, 12 attributes.
    text = document(pixels(SizeZ=3, SizeC=1, SizeT=1, A=1, B=2, C=3, D=4, E=5))
    assert text.count('<') + text.count('=') == 19
    assert bool(ome.ome_series(text, '', 1, 5)) == fits


@pytest.mark.parametrize('text', [
    '<OME', '<OME></OME', '<OME/><OME/>', '<!DOCTYPE OME [<!ENTITY a "b">]><OME>&a;</OME>',
    '<OME>' * 100_000, '<OME>' + '<Image/>' * 3 + '</OME>',
    '<OME><Image><Pixels SizeX="-1"/></Image></OME>', 'OME', '', '<other/>'])
def test_malformed_texts_have_no_planes(text):
    series = ome.ome_series(text, '', 1, 1)
    assert not any(one.size != (0, 0) for one in series)


def test_deep_texts_do_not_exhaust_the_stack():
    depth = 200_000
    text = '<OME>' + '<a>' * depth + '</a>' * depth + '</OME>'
    assert ome.ome_series(text, '', 1, 1) == []


@pytest.mark.parametrize('value', ['9' * 1_000_000, '1e999', 'nan', '-1', '0', '', '1' + '0' * 400])
def test_numbers_that_are_none(value):
    assert ome.positive(value) is None or ome.positive(value) > 1e90


def test_fields_are_read_from_the_beginning_of_a_text(limited):
    text = 'ImageJ=1\nimages=2\nslices=2\n'
    limited(tiff_field_text=len(text))
    assert ome.imagej_fields(text) == {'ImageJ': '1', 'images': '2', 'slices': '2'}
    limited(tiff_field_text=len(text) - 4)
    assert ome.imagej_fields(text) == {'ImageJ': '1', 'images': '2'}
