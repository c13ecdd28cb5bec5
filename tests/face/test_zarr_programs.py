"""
A program for large_image's zarr sink, with this sink instead.

The steps are those of large_image's notebook about the zarr sink: a slide is filtered with
three settings, which become the frames of a new image; that gets a crop, a pixel size,
texts and an associated image, and is written as a TIFF and opened.
"""

import large_image
import numpy as np
import pytest
import tifffile

import large_image_source_vips
from helpers.pixels import smooth_pixels

SIZE = (900, 1200)
POWERS = [0.5, 1, 2]
# left, top, width, height
CROP = (150, 220, 700, 500)


@pytest.fixture
def slide(tmp_path):
    """A slide of 0.5 um without loss: its path and its pixels."""
    pixels = smooth_pixels(*SIZE)
    sink = large_image_source_vips.new()
    sink.addTile(pixels)
    sink.mm_x = sink.mm_y = 0.0005
    sink.write(tmp_path / 'slide.tif', lossy=False)
    return tmp_path / 'slide.tif', pixels


def gamma(tile, power):
    """A filter that gives 64-bit floats, as those of scikit-image do."""
    return (tile / 255) ** power * 255


def filtered(source):
    """A new image with a frame for each power."""
    sink = large_image_source_vips.new()
    for number, power in enumerate(POWERS):
        for tile in source.tileIterator(format='numpy'):
            sink.addTile(gamma(tile['tile'], power), x=tile['x'], y=tile['y'],
                         power=number, power_value=power)
    return sink


def region(source, frame):
    return source.getRegion(format='numpy', frame=frame)[0]


def test_filtered_tiles_become_frames(slide):
    path, pixels = slide
    sink = filtered(large_image.open(path))
    metadata = sink.getMetadata()
    assert (metadata['sizeY'], metadata['sizeX'], metadata['bandCount']) == (*SIZE, 3)
    assert metadata['dtype'] == 'float64'
    assert metadata['IndexRange'] == {'IndexPOWER': 3}
    assert [frame['ValuePOWER'] for frame in metadata['frames']] == POWERS
    for number, power in enumerate(POWERS):
        np.testing.assert_array_equal(region(sink, number), gamma(pixels, power))
    # A notebook shows the image before it is written.
    assert sink._repr_png_().startswith(b'\x89PNG')


@pytest.mark.parametrize('name', ['processed.tiff', 'processed.ome.tif'])
def test_the_written_file_has_all(slide, tmp_path, name):
    path, pixels = slide
    source = large_image.open(path)
    sink = filtered(source)
    metadata = source.getMetadata()
    sink.crop = CROP
    sink.mm_x, sink.mm_y = metadata['mm_x'], metadata['mm_y']
    sink.imageDescription = 'gamma'
    sink.additionalMetadata = {'filter': 'gamma', 'powers': POWERS}
    thumbnail = source.getThumbnail(format='numpy')[0]
    sink.addAssociatedImage(thumbnail, imageKey='original')
    sink.write(tmp_path / name)

    left, top, width, height = CROP
    found = large_image.open(tmp_path / name)
    metadata = found.getMetadata()
    assert (metadata['sizeX'], metadata['sizeY']) == (width, height)
    assert metadata['mm_x'] == metadata['mm_y'] == pytest.approx(0.0005)
    assert metadata['IndexRange'] == {'IndexPOWER': 3}
    assert [frame['ValuePOWER'] for frame in metadata['frames']] == POWERS
    assert found.imageDescription == 'gamma'
    assert found.additionalMetadata == {'filter': 'gamma', 'powers': POWERS}
    assert found.getAssociatedImagesList() == ['original']
    original = found.getAssociatedImage('original', format='numpy')[0]
    np.testing.assert_array_equal(original[..., :3], thumbnail[..., :3])
    for number, power in enumerate(POWERS):
        # The default stores 64-bit floats as 32-bit ones.
        expected = gamma(pixels, power)[top:top + height, left:left + width]
        np.testing.assert_array_equal(region(found, number), expected.astype('float32'))
    with tifffile.TiffFile(tmp_path / name) as tiff:
        np.testing.assert_array_equal(
            tiff.series[0].asarray().reshape(3, height, width, 3)[1],
            gamma(pixels, 1)[top:top + height, left:left + width].astype('float32'))
