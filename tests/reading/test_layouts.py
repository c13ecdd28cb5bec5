"""Frames, levels, axes and associated images of TIFF files."""

import re

import numpy as np
import pytest
import pyvips
import tifffile

from helpers.around import real_file
from helpers.pixels import random_pixels, smooth_pixels
from helpers.reading import level, level_by_tiles
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.reading.reader import FileReader


def write_pages(path, *pages, **kwargs):
    """A TIFF of pages of any sizes."""
    with tifffile.TiffWriter(path) as tiff:
        for page in pages:
            tiff.write(page, photometric='rgb' if page.ndim == 3 else 'minisblack',
                       metadata=None, **kwargs)


@pytest.mark.parametrize('subifd', [False, True], ids=['pages', 'sub-IFDs'])
def test_levels_are_those_stored(tmp_path, subifd):
    # 4101 is halved to 2050 by libvips and to 2051 here.
    pixels = smooth_pixels(1303, 4101)
    path = str(tmp_path / 'a.tif')
    pyvips.Image.new_from_array(pixels).tiffsave(
        path, tile=True, pyramid=True, subifd=subifd, compression='deflate')
    with tifffile.TiffFile(path) as tiff:
        series = tiff.pages[0].pages if subifd else tiff.pages[1:]
        stored = [page.asarray() for page in series]

    reader = FileReader(path)

    assert reader.frame_count == 1
    assert reader.associated_names() == []
    np.testing.assert_array_equal(level(reader), pixels)
    for reduction, expected in enumerate(stored, 1):
        found = level_by_tiles(reader, reduction)
        rows, cols = expected.shape[:2]
        assert found.shape[:2] == reader.size.reduced(reduction)[::-1]
        np.testing.assert_array_equal(found[:rows, :cols], expected)
        # What the file lacks is like what is next to it, not black.
        np.testing.assert_array_equal(found[:rows, cols:], found[:rows, cols - 1:cols][
            :, [0] * (found.shape[1] - cols)])


def test_levels_that_skip_powers_are_used(tmp_path):
    # As in Aperio files: a quarter and a sixteenth.
    full, quarter, sixteenth = (random_pixels((1600 // by, 2400 // by, 3), seed=by)
                                for by in (1, 4, 16))
    write_pages(tmp_path / 'a.tif', full, quarter, sixteenth, tile=(64, 64))
    reader = FileReader(tmp_path / 'a.tif')
    np.testing.assert_array_equal(level(reader, 2), quarter)
    np.testing.assert_array_equal(level(reader, 4), sixteenth)
    assert np.abs(level(reader, 3).astype(int) - quarter.reshape(
        200, 2, 300, 2, 3).mean(axis=(1, 3))).max() <= 0.5
    assert reader.associated_names() == []


@pytest.mark.parametrize('tile', [None, (64, 64)], ids=['strips', 'tiles'])
def test_equal_pages_are_frames(tmp_path, tile):
    pixels = random_pixels((40, 150, 211), 'uint16')
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='minisblack', tile=tile,
                     compression='deflate', metadata=None)
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.frame_count == 40
    assert reader.frame_axes() == [{}] * 40
    for frame in (0, 1, 7, 8, 20, 39):
        np.testing.assert_array_equal(level(reader, frame=frame)[..., 0], pixels[frame])
        np.testing.assert_array_equal(
            reader.read(frame, 0, Rect(5, 140, 30, 10))[..., 0], pixels[frame, 140:, 5:35])


@pytest.mark.parametrize('subifd', [False, True], ids=['pages', 'sub-IFDs'])
def test_every_frame_has_its_levels(tmp_path, subifd):
    full = random_pixels((12, 400, 600, 3))
    half = random_pixels((12, 200, 300, 3), seed=1)
    path = tmp_path / 'a.tif'
    with tifffile.TiffWriter(path) as tiff:
        for frame in range(12):
            tiff.write(full[frame], photometric='rgb', tile=(64, 64), metadata=None,
                       subifds=1 if subifd else 0)
            tiff.write(half[frame], photometric='rgb', tile=(64, 64), metadata=None,
                       subfiletype=1)
    reader = FileReader(path)
    assert reader.frame_count == 12
    for frame in (0, 3, 11):
        np.testing.assert_array_equal(level(reader, 0, frame), full[frame])
        np.testing.assert_array_equal(level(reader, 1, frame), half[frame])


def test_pages_of_other_samples_are_no_frames(tmp_path):
    colour, gray = random_pixels((150, 211, 3)), random_pixels((150, 211))
    deep = random_pixels((150, 211, 3), 'uint16')
    write_pages(tmp_path / 'a.tif', colour, gray, colour[::-1].copy(), deep)
    reader = FileReader(tmp_path / 'a.tif')
    assert (reader.frame_count, reader.dtype, reader.bands) == (2, np.dtype('uint8'), 3)
    np.testing.assert_array_equal(level(reader, frame=1), colour[::-1])
    assert reader.associated_names() == ['page_1', 'page_3']
    np.testing.assert_array_equal(np.asarray(reader.associated_image('page_1')), gray)


def test_a_page_of_another_size_is_an_associated_image(tmp_path):
    full, other = random_pixels((400, 600, 3)), random_pixels((300, 200, 3))
    write_pages(tmp_path / 'a.tif', full, other)
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.frame_count == 1
    assert reader.associated_names() == ['page_1']
    np.testing.assert_array_equal(np.asarray(reader.associated_image('page_1')), other)
    assert reader.associated_image('label') is None


def test_a_small_first_page_was_a_thumbnail(tmp_path):
    thumbnail, full = random_pixels((133, 200, 3)), random_pixels((1333, 2100, 3))
    write_pages(tmp_path / 'a.tif', thumbnail, full, tile=(64, 64))
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.size == (2100, 1333)
    assert reader.associated_names() == ['thumbnail']
    np.testing.assert_array_equal(level(reader), full)


def test_a_first_page_a_quarter_the_area_is_still_the_first(tmp_path):
    first, second = random_pixels((200, 300, 3)), random_pixels((400, 600, 3))
    write_pages(tmp_path / 'a.tif', first, second)
    assert FileReader(tmp_path / 'a.tif').size == (300, 200)


@pytest.mark.usefixtures('tiffload_only')
def test_an_aperio_slide_without_openslide(tmp_path):
    # The order of pages and the texts are Aperio's.
    pages = {
        'base': (random_pixels((1600, 2400, 3)), (240, 240), 'Aperio Image|AppMag = 40|MPP = 0.25'),
        'thumbnail': (random_pixels((400, 600, 3), seed=1), None, 'Aperio Image thumbnail'),
        'quarter': (random_pixels((400, 600, 3), seed=2), (240, 240), 'Aperio Image level'),
        'label': (random_pixels((300, 250, 3), seed=3), None, 'Aperio Image\nlabel 250x300'),
        'macro': (random_pixels((200, 500, 3), seed=4), None, 'Aperio Image\nmacro 500x200'),
    }
    path = tmp_path / 'a.tif'
    with tifffile.TiffWriter(path) as tiff:
        for pixels, tile, text in pages.values():
            tiff.write(pixels, photometric='rgb', tile=tile and (tile[0], tile[1]),
                       description=text, metadata=None)
    reader = FileReader(path)
    assert reader.associated_names() == ['label', 'macro', 'thumbnail']
    np.testing.assert_array_equal(level(reader, 2), pages['quarter'][0])
    np.testing.assert_array_equal(
        np.asarray(reader.associated_image('thumbnail')), pages['thumbnail'][0])
    assert reader.pixel_size == (0.00025, 0.00025)
    assert reader.magnification == 40


@pytest.mark.parametrize('loaders', ['all', ['tiffload']])
def test_the_real_slide(loaders, request):
    if loaders != 'all':
        request.getfixturevalue('tiffload_only')
    reader = FileReader(real_file('CMU-1-Small-Region.tiff'))
    assert reader.size == (2220, 2967)
    assert reader.pixel_size == pytest.approx((0.000499, 0.000499))
    assert reader.magnification == 20
    sizes = {key: reader.associated_image(key).size for key in reader.associated_names()}
    assert sizes == {'label': (387, 463), 'macro': (1280, 431), 'thumbnail': (574, 768)}
    with tifffile.TiffFile(real_file('CMU-1-Small-Region.tiff')) as tiff:
        expected = tiff.pages[0].asarray()
    # Decoders of JPEG round differently.
    assert np.abs(level(reader).astype(int) - expected).max() <= 4


@pytest.mark.parametrize('tile', [None, (64, 64)], ids=['strips', 'tiles'])
def test_ome_axes_and_channels(tmp_path, tile):
    pixels = random_pixels((2, 5, 3, 70, 101), 'uint16')  # T, Z, C
    path = tmp_path / 'a.ome.tif'
    tifffile.imwrite(path, pixels, photometric='minisblack', tile=tile, metadata={
        'axes': 'TZCYX', 'PhysicalSizeX': 0.25, 'PhysicalSizeXUnit': 'µm',
        'PhysicalSizeY': 0.5, 'PhysicalSizeYUnit': 'µm',
        'Channel': {'Name': ['DAPI', 'GFP', 'RFP'], 'Color': [65535, 16711935, -16776961]}})
    reader = FileReader(path)
    assert reader.frame_count == 30
    assert reader.channel_names() == ['DAPI', 'GFP', 'RFP']
    assert reader.pixel_size == (0.00025, 0.0005)
    assert reader.internal_metadata()['ome']['images'][0]['channels'][0] == {
        'name': 'DAPI', 'color': '#0000ff'}
    for frame, axes in enumerate(reader.frame_axes()):
        np.testing.assert_array_equal(
            level(reader, frame=frame)[..., 0],
            pixels[axes['IndexT'], axes['IndexZ'], axes['IndexC']])
    # The order of the dimensions: channel fastest.
    assert reader.frame_axes()[:4] == [
        {'IndexC': 0, 'IndexZ': 0, 'IndexT': 0}, {'IndexC': 1, 'IndexZ': 0, 'IndexT': 0},
        {'IndexC': 2, 'IndexZ': 0, 'IndexT': 0}, {'IndexC': 0, 'IndexZ': 1, 'IndexT': 0}]


_OME = ('<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '{images}</OME>')
_OME_IMAGE = ('<Image ID="Image:{number}" Name="{name}"><Pixels ID="Pixels:{number}" '
              'DimensionOrder="{order}" Type="uint8" SizeX="{x}" SizeY="{y}" SizeC="{c}" '
              'SizeZ="{z}" SizeT="1">{inside}</Pixels></Image>')


def write_ome(path, pages, *images):
    """Pages with a text about them; each image a dictionary for the template."""
    text = _OME.format(images=''.join(_OME_IMAGE.format(number=number, **{
        'name': '', 'order': 'XYZCT', 'x': pages[0].shape[1], 'y': pages[0].shape[0], 'c': 1,
        'z': 1, 'inside': '', **image}) for number, image in enumerate(images)))
    with tifffile.TiffWriter(path) as tiff:
        for number, page in enumerate(pages):
            tiff.write(page, photometric='rgb' if page.ndim == 3 else 'minisblack',
                       metadata=None, description=text if not number else None)


def test_shuffled_planes_come_in_order(tmp_path):
    pages = random_pixels((6, 50, 61))
    places = [(c, z) for c in range(3) for z in range(2)]
    shuffled = [4, 2, 0, 5, 1, 3]
    write_ome(tmp_path / 'a.tif', pages, {'c': 3, 'z': 2, 'inside': ''.join(
        f'<TiffData IFD="{page}" FirstC="{c}" FirstZ="{z}" PlaneCount="1"/>'
        for (c, z), page in zip(places, shuffled, strict=True))})
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.frame_axes() == [{'IndexC': c, 'IndexZ': z} for c, z in places]
    for frame, page in enumerate(shuffled):
        np.testing.assert_array_equal(level(reader, frame=frame)[..., 0], pages[page])


def test_several_ome_images_of_one_size_are_positions(tmp_path):
    pages = random_pixels((4, 50, 61))
    images = [{'c': 2, 'inside': ''.join(
        f'<TiffData IFD="{2 * image + c}" FirstC="{c}" PlaneCount="1"/>' for c in range(2))}
        for image in range(2)]
    write_ome(tmp_path / 'a.tif', pages, *images)
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.frame_axes() == [{'IndexC': c, 'IndexXY': xy} for xy in range(2)
                                   for c in range(2)]


def test_an_ome_image_of_another_size_is_associated_under_its_name(tmp_path):
    pages = [random_pixels((400, 610)), random_pixels((90, 61))]
    write_ome(tmp_path / 'a.tif', pages,
              {'inside': '<TiffData IFD="0"/>'},
              {'name': 'macro image', 'x': 61, 'y': 90, 'inside': '<TiffData IFD="1"/>'})
    assert FileReader(tmp_path / 'a.tif').associated_names() == ['macro']


def test_samples_are_no_channels(tmp_path):
    # SizeC counts the samples of an RGB image.
    pages = random_pixels((3, 50, 61, 3))
    write_ome(tmp_path / 'a.tif', list(pages), {
        'c': 3, 'z': 3,
        'inside': '<Channel ID="Channel:0" SamplesPerPixel="3"/>'
                  '<TiffData IFD="0" PlaneCount="3"/>'})
    reader = FileReader(tmp_path / 'a.tif')
    assert (reader.frame_count, reader.bands) == (3, 3)
    assert reader.frame_axes() == [{'IndexZ': z} for z in range(3)]


def test_planes_in_other_files_are_left_out(tmp_path):
    pages = random_pixels((2, 50, 61))
    write_ome(tmp_path / 'here.tif', pages, {'c': 2, 'z': 2, 'inside': ''.join(
        f'<TiffData IFD="{c}" FirstC="{c}" FirstZ="{z}" PlaneCount="1">'
        f'<UUID FileName="{name}.tif">urn:uuid:{name}</UUID></TiffData>'
        for z, name in enumerate(('here', 'there')) for c in range(2))})
    reader = FileReader(tmp_path / 'here.tif')
    assert reader.frame_axes() == [{'IndexC': 0, 'IndexZ': 0}, {'IndexC': 1, 'IndexZ': 0}]


@pytest.mark.parametrize('text', [
    '<OME', '<OME><Image/></OME>', '<!DOCTYPE a [<!ENTITY b "c">]><OME><Image>&b;</Image></OME>',
    '<OME><Image><Pixels SizeC="-1" SizeZ="x" SizeT="99999999999"/></Image></OME>'])
def test_damaged_ome_texts_leave_plain_frames(tmp_path, text):
    pixels = random_pixels((2, 50, 61))
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='minisblack', description=text,
                     metadata=None)
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.frame_axes() == [{}, {}]
    np.testing.assert_array_equal(level(reader, frame=1)[..., 0], pixels[1])


def test_the_real_ome_file():
    path = real_file('multi-channel-z-series.ome.tif')
    reader = FileReader(path)
    assert reader.size == (439, 167)
    assert (reader.frame_count, reader.dtype) == (15, np.dtype('int8'))
    assert reader.frame_axes() == [{'IndexC': c, 'IndexZ': z} for c in range(3)
                                   for z in range(5)] or reader.frame_axes() == [
        {'IndexC': c, 'IndexZ': z} for z in range(5) for c in range(3)]
    expected = tifffile.imread(path)
    for frame, axes in enumerate(reader.frame_axes()):
        np.testing.assert_array_equal(
            level(reader, frame=frame)[..., 0], expected[axes['IndexC'], axes['IndexZ']])


def test_imagej_hyperstacks(tmp_path):
    pixels = random_pixels((2, 4, 3, 70, 101), 'uint16')
    tifffile.imwrite(tmp_path / 'a.tif', pixels, imagej=True, resolution=(4.0, 2.0),
                     metadata={'axes': 'TZCYX', 'unit': 'um'})
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.frame_count == 24
    assert reader.pixel_size == pytest.approx((0.00025, 0.0005))
    for frame, axes in enumerate(reader.frame_axes()):
        np.testing.assert_array_equal(
            level(reader, frame=frame)[..., 0],
            pixels[axes['IndexT'], axes['IndexZ'], axes['IndexC']])


def test_unknown_axes_are_plain_frames(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', random_pixels((6, 50, 61)), photometric='minisblack',
                     metadata={'axes': 'QYX'})
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.frame_axes() == [{}] * 6


def test_a_thousand_pages_are_not_opened_one_by_one(tmp_path, monkeypatch):
    pixels = random_pixels((1000, 32, 48))
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='minisblack', metadata=None)
    opened = []
    original = pyvips.Operation.call

    def counting(name, *args, **kwargs):
        opened.append(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(pyvips.Operation, 'call', counting)
    reader = FileReader(tmp_path / 'a.tif')
    found = level(reader, frame=999)
    assert reader.frame_count == 1000
    np.testing.assert_array_equal(found[..., 0], pixels[999])
    assert opened.count('tiffload_source') <= 3


@pytest.mark.parametrize('interleaved', [False, True], ids=['after all', 'after each'])
def test_levels_in_the_main_chain_belong_to_pages_not_to_frames(tmp_path, interleaved):
    # The planes of the text are in another order than the pages.
    order = (2, 0, 1)
    xml = ('<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
           '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="160" SizeY="128" '
           'SizeZ="3" SizeC="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>' +
           ''.join(f'<TiffData IFD="{page * (2 if interleaved else 1)}" FirstZ="{plane}"/>'
                   for plane, page in enumerate(order)) + '</Pixels></Image></OME>')
    full = random_pixels((3, 128, 160))
    half = random_pixels((3, 64, 80), seed=1)
    path = tmp_path / 'a.ome.tif'
    with tifffile.TiffWriter(path) as tiff:
        def write(pixels, reduced, text=None):
            tiff.write(pixels, photometric='minisblack', metadata=None, description=text,
                       subfiletype=int(reduced), tile=(64, 64))
        for page in range(3):
            write(full[page], reduced=False, text=None if page else xml)
            if interleaved:
                write(half[page], reduced=True)
        for page in range(0 if interleaved else 3):
            write(half[page], reduced=True)
    reader = FileReader(path)
    assert reader.frame_axes() == [{'IndexZ': plane} for plane in range(3)]
    assert reader.associated_names() == []
    for frame, page in enumerate(order):
        np.testing.assert_array_equal(level(reader, 0, frame)[..., 0], full[page])
        np.testing.assert_array_equal(level(reader, 1, frame)[..., 0], half[page])


def test_masks_and_unreadable_pages_are_not_listed(tmp_path, caplog):
    pixels = random_pixels((130, 150, 3))
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        tiff.write(pixels, photometric='rgb', metadata=None)
        tiff.write(np.ones((130, 150), bool), photometric='mask', subfiletype=4, metadata=None)
        tiff.write(np.ones((30, 50), 'complex64'), photometric='minisblack', metadata=None)
        tiff.write(pixels[:50], photometric='rgb', metadata=None)
    # Complex integers, which nobody reads.
    with tifffile.TiffFile(tmp_path / 'a.tif', mode='r+') as tiff:
        tiff.pages[2].tags['SampleFormat'].overwrite(5)
    reader = FileReader(tmp_path / 'a.tif')
    assert (reader.frame_count, reader.associated_names()) == (1, ['page_3'])
    left_out, = reader.internal_metadata()['left-out']
    assert left_out.startswith('page 2: ')
    assert left_out in caplog.text


@pytest.mark.parametrize('tile', [None, (64, 64)])
def test_associated_images_whose_data_is_not_in_the_file_are_not_listed(tmp_path, tile, caplog):
    pixels = random_pixels((300, 400, 3))
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        tiff.write(pixels, photometric='rgb', metadata=None, compression='deflate')
        tiff.write(pixels[:90], photometric='rgb', metadata=None, compression='deflate')
        tiff.write(pixels[:130], photometric='rgb', metadata=None, tile=tile,
                   rowsperstrip=None if tile else 50, compression='deflate')
    with tifffile.TiffFile(tmp_path / 'a.tif', mode='r+') as tiff:
        place = 'TileOffsets' if tile else 'StripOffsets'
        tag = tiff.pages[2].tags[place]
        tag.overwrite((*tag.value[:-1], 1 << 30))
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.associated_names() == ['page_1']
    np.testing.assert_array_equal(np.asarray(reader.associated_image('page_1')), pixels[:90])
    left_out, = reader.internal_metadata()['left-out']
    assert re.search(r'page 2: 1 of its \d+ (tiles|strips) are not in the file', left_out)
    assert left_out in caplog.text


@pytest.mark.parametrize('masks', [[0], [0, 1], [0, 1, 2]])
def test_a_file_that_begins_with_masks(tmp_path, masks):
    pages = random_pixels((3, 40, 50, 3))
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        for pixels in pages:
            tiff.write(pixels, photometric='rgb', metadata=None, subfiletype=2)
    with tifffile.TiffFile(tmp_path / 'a.tif', mode='r+') as tiff:
        for number in masks:
            tiff.pages[number].tags['NewSubfileType'].overwrite(4)
    reader = FileReader(tmp_path / 'a.tif')
    shown = [number for number in range(3) if number not in masks] or masks
    assert reader.frame_count == len(shown)
    for frame, number in enumerate(shown):
        np.testing.assert_array_equal(level(reader, frame=frame)[..., :3], pages[number])
