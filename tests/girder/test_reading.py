"""Reading an uploaded image over the REST API."""

import io
import json
import re

import numpy as np
import pytest

pytest.importorskip('girder_large_image', reason='needs Girder (the extra "girder")')

import PIL.Image
import tifffile

from helpers.girder_images import (
    decoded,
    numbered_pixels,
    ome_bytes,
    picked,
    png_bytes,
    pyramid_bytes,
    slide_bytes,
    tiff_bytes,
    tile_of,
)

ROWS, COLS = 1100, 1500
PIXELS = numbered_pixels(ROWS, COLS)
LABEL = numbered_pixels(120, 90, seed=5)


@pytest.fixture(scope='module')
def tiles(admin):
    """The path of the tiles of an uploaded pyramid."""
    file = admin.upload(admin.new_folder(), 'pyramid.tif', pyramid_bytes(PIXELS))
    return f'item/{file["itemId"]}/tiles'


@pytest.fixture(scope='module')
def ome(admin):
    """The path of the tiles of an uploaded OME-TIFF, and its frames."""
    frames = np.stack([[numbered_pixels(300, 400, 10 * c + z)[..., 0] for z in range(2)]
                       for c in range(3)])
    file = admin.upload(admin.new_folder(), 'stack.ome.tif', ome_bytes(frames))
    return f'item/{file["itemId"]}/tiles', frames


@pytest.fixture(scope='module')
def slide(admin):
    """The path of the tiles of an uploaded slide with a label."""
    file = admin.upload(admin.new_folder(), 'slide.tif', slide_bytes(PIXELS, LABEL))
    return f'item/{file["itemId"]}/tiles'


# Becoming a large image

@pytest.mark.parametrize('name', ['a.tif', 'B.TIFF', 'a.b.tif', 'a b.tif', 'é漢字.tif'])
def test_an_upload_is_a_large_image_of_this_source(admin, folder, name):
    file = admin.upload(folder, name, tiff_bytes(numbered_pixels(300, 400)))
    assert admin.item(file['itemId'])['largeImage'] == {
        'fileId': file['_id'], 'sourceName': 'vips'}
    assert admin.read(f'item/{file["itemId"]}/tiles/internal_metadata')['tilesource'] == 'vips'


def test_a_mime_type_alone_makes_an_upload_a_large_image(admin, folder):
    file = admin.upload(folder, 'scan.0001', tiff_bytes(numbered_pixels(300, 400)),
                        mimeType='image/tiff')
    assert admin.item(file['itemId'])['largeImage']['sourceName'] == 'vips'


@pytest.mark.parametrize('name', ['scan', 'a.png', 'a.PNG', 'a.json'])
def test_a_name_that_is_ignored_is_left_alone(admin, folder, name):
    file = admin.upload(folder, name, png_bytes(numbered_pixels(30, 40)), mimeType='image/png')
    assert 'largeImage' not in admin.item(file['itemId'])


@pytest.mark.parametrize('route', ['', '/region', '/zxy/0/0/0', '/thumbnail'])
def test_no_parameter_of_a_request_lets_an_ignored_name_pass(admin, folder, route):
    file = admin.upload(folder, 'a.tif', png_bytes(numbered_pixels(30, 40)))
    admin.put(f'file/{file["_id"]}', name='a.png')
    for value in ('True', '1', 'true'):
        answer = admin.get(f'item/{file["itemId"]}/tiles{route}', _anyName=value)
        assert answer.status_code in {400, 404}
        assert 'left to other tile sources' in answer.json()['message']


def test_what_is_no_image_is_left_alone(admin, folder):
    file = admin.upload(folder, 'a.tif', b'Not a TIFF file at all.')
    assert 'largeImage' not in admin.item(file['itemId'])
    answer = admin.get(f'item/{file["itemId"]}/tiles')
    assert answer.status_code == 400
    assert answer.json()['message'] == 'No large image file in this item.'


# Describing

def test_metadata(admin, tiles):
    metadata = admin.read(tiles)
    assert metadata['sizeX'], metadata['sizeY'] == (COLS, ROWS)
    assert metadata['levels'] == 4
    assert metadata['tileWidth'] == metadata['tileHeight'] == 256
    assert metadata['dtype'] == 'uint8'
    assert metadata['bandCount'] == 3


def test_internal_metadata_tells_the_name_and_not_the_place(admin, tiles):
    fields = admin.read(f'{tiles}/internal_metadata')
    assert fields['filename'] == 'pyramid.tif'
    assert fields['vips-loader'] == 'tiffload'
    assert 'assetstore' not in json.dumps(fields)


def test_the_pixel_size_of_a_slide(admin, slide):
    metadata = admin.read(slide)
    assert metadata['mm_x'] == pytest.approx(0.00025)
    assert metadata['magnification'] == 40


# Tiles

@pytest.mark.parametrize('z', range(4))
def test_every_tile_in_png_is_exact(admin, tiles, z):
    level = picked(PIXELS, 3 - z)
    rows, cols = (-(-length // 256) for length in level.shape[:2])
    for y in range(rows):
        for x in range(cols):
            expected = tile_of(level, x, y)
            tile = decoded(admin.read(f'{tiles}/zxy/{z}/{x}/{y}', encoding='PNG'))
            np.testing.assert_array_equal(tile[:expected.shape[0], :expected.shape[1]], expected)


def test_a_tile_in_jpeg(admin, tiles):
    answer = admin.get(f'{tiles}/zxy/3/1/2', jpegQuality=95)
    assert answer.headers['Content-Type'] == 'image/jpeg'
    difference = decoded(answer.content).astype(int) - tile_of(PIXELS, 1, 2)
    assert np.abs(difference).mean() < 8


def test_a_tile_that_is_stored_as_jpeg_is_served_as_stored(admin, folder):
    """The setting source_vips_pass_jpeg, which is on in Girder."""
    data = io.BytesIO()
    tifffile.imwrite(data, PIXELS, photometric='ycbcr', compression='jpeg', tile=(256, 256),
                     compressionargs={'level': 60})
    file = admin.upload(folder, 'a.tif', data.getvalue())
    tile = admin.read(f'item/{file["itemId"]}/tiles/zxy/3/1/2')
    data.seek(0)
    with tifffile.TiffFile(data) as tiff:
        place = 2 * 6 + 1
        page = tiff.pages[0]
        stored = data.getbuffer()[page.dataoffsets[place]:][:page.databytecounts[place]]
        # The coefficients are those of the file, whatever headers were added.
        assert bytes(stored[-2000:]) in tile
    assert len(tile) < len(stored) + 1000
    # What is asked for in another way is encoded as asked for.
    for parameters in ({'jpegQuality': 20}, {'encoding': 'PNG'}, {'style': {'band': 1}}):
        other = admin.read(f'item/{file["itemId"]}/tiles/zxy/3/1/2', **parameters)
        assert bytes(stored[-2000:]) not in other


def test_a_tile_that_is_not_there(admin, tiles):
    for place in ('9/0/0', '0/1/0', '3/0/99'):
        answer = admin.get(f'{tiles}/zxy/{place}')
        assert answer.status_code == 404
        assert answer.json()['message'] in {'z layer does not exist', 'x is outside layer',
                                            'y is outside layer'}


def test_a_tile_that_is_cropped_at_the_edge(admin, tiles):
    expected = tile_of(PIXELS, 5, 4)
    tile = decoded(admin.read(f'{tiles}/zxy/3/5/4', encoding='PNG', edge='crop'))
    np.testing.assert_array_equal(tile, expected)


def test_a_style(admin, tiles):
    style = {'bands': [{'band': 2, 'palette': ['#000', '#0f0'], 'min': 0, 'max': 255}]}
    tile = decoded(admin.read(f'{tiles}/zxy/3/1/1', encoding='PNG', style=style))
    np.testing.assert_array_equal(tile[..., 1], tile_of(PIXELS, 1, 1)[..., 1])
    assert not tile[..., 0].any()
    plain = decoded(admin.read(f'{tiles}/zxy/3/1/1', encoding='PNG'))
    np.testing.assert_array_equal(plain, tile_of(PIXELS, 1, 1))


def test_an_unchanged_tile_is_not_sent_again(admin, tiles):
    first = admin.get(f'{tiles}/zxy/3/1/1')
    again = admin.get(f'{tiles}/zxy/3/1/1', headers={'If-None-Match': first.headers['ETag']})
    assert (again.status_code, again.content) == (304, b'')
    other = admin.get(f'{tiles}/zxy/3/1/2', headers={'If-None-Match': first.headers['ETag']})
    assert other.status_code == 200


# Regions and derived images

def test_a_region_is_exact(admin, tiles):
    region = decoded(admin.read(f'{tiles}/region', left=200, top=300, regionWidth=410,
                                regionHeight=333, encoding='PNG'))
    np.testing.assert_array_equal(region, PIXELS[300:633, 200:610])


def test_a_region_as_a_tiled_tiff_is_exact(admin, tiles):
    data = admin.read(f'{tiles}/region', left=200, top=300, right=900, bottom=1000,
                      encoding='TILED', tiffCompression='lzw')
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert tiff.pages[0].is_tiled
        np.testing.assert_array_equal(tiff.pages[0].asarray()[..., :3], PIXELS[300:1000, 200:900])


def test_a_thumbnail(admin, tiles):
    answer = admin.get(f'{tiles}/thumbnail', width=150, height=150, encoding='PNG')
    assert PIL.Image.open(io.BytesIO(answer.content)).size == (150, 110)
    means = decoded(answer.content)[..., :3].mean(axis=(0, 1))
    np.testing.assert_allclose(means, PIXELS.mean(axis=(0, 1)), atol=5)


def test_a_pixel(admin, tiles):
    pixel = admin.read(f'{tiles}/pixel', left=777, top=555)
    assert [pixel[band] for band in 'rgb'] == PIXELS[555, 777].tolist()


def test_a_histogram_counts_every_pixel(admin, tiles):
    bands = admin.read(f'{tiles}/histogram', width=COLS, height=ROWS, bins=256, rangeMin=0,
                       rangeMax=256)
    assert [band['samples'] for band in bands] == [ROWS * COLS] * 3
    for band, values in zip(bands, PIXELS.reshape(-1, 3).T, strict=True):
        assert band['hist'] == np.bincount(values, minlength=256).tolist()


def test_the_bands(admin, tiles):
    bands = admin.read(f'{tiles}/bands')
    assert [bands[str(number)]['interpretation'] for number in (1, 2, 3)] == [
        'red', 'green', 'blue']
    assert [float(bands[number]['mean']) for number in '123'] == pytest.approx(
        PIXELS.mean(axis=(0, 1)), abs=5)


def test_deep_zoom(admin, tiles):
    description = admin.read(f'{tiles}/dzi.dzi', encoding='PNG').decode()
    assert re.search(f'Width="{COLS}" Height="{ROWS}"', description)
    tile = decoded(admin.read(f'{tiles}/dzi_files/11/2_1.png', encoding='PNG'))
    np.testing.assert_array_equal(tile, tile_of(PIXELS, 2, 1))


# Frames

def test_the_frames_of_an_ome_tiff(admin, ome):
    path, frames = ome
    metadata = admin.read(path)
    assert metadata['IndexRange'] == {'IndexC': 3, 'IndexZ': 2}
    assert metadata['channels'] == ['stain 0', 'stain 1', 'stain 2']
    for number, frame in enumerate(metadata['frames']):
        expected = frames[frame['IndexC'], frame['IndexZ']]
        tile = decoded(admin.read(f'{path}/fzxy/{number}/1/1/0', encoding='PNG'))
        np.testing.assert_array_equal(tile[:256, :144, 0], expected[:256, 256:])
        tile = decoded(admin.read(f'{path}/zxy/1/1/0', frame=number, encoding='PNG'))
        np.testing.assert_array_equal(tile[:256, :144, 0], expected[:256, 256:])


def test_a_region_of_a_frame(admin, ome):
    path, frames = ome
    region = decoded(admin.read(f'{path}/region', frame=3, left=10, top=20, regionWidth=300,
                                regionHeight=200, encoding='PNG'))
    index = admin.read(path)['frames'][3]
    np.testing.assert_array_equal(
        region[..., 0], frames[index['IndexC'], index['IndexZ']][20:220, 10:310])


def test_frames_side_by_side(admin, ome):
    path, _ = ome
    mosaic = decoded(admin.read(f'{path}/tile_frames', frameList='0,1,2', framesAcross=3, width=100,
                                height=75, encoding='PNG'))
    assert mosaic.shape[:2] == (75, 300)
    assert admin.read(f'{path}/tile_frames/quad_info', maxTextureSize=512)['src']


# Associated images

def test_the_label_of_a_slide(admin, slide):
    assert 'label' in admin.read(f'{slide}/images')
    label = decoded(admin.read(f'{slide}/images/label', encoding='PNG'))
    # OpenSlide, where libvips has it, gives an alpha band to everything.
    np.testing.assert_array_equal(label[..., :3], LABEL)
    size = admin.read(f'{slide}/images/label/metadata')
    assert (size['sizeX'], size['sizeY']) == LABEL.shape[1::-1]


def test_an_image_that_the_slide_lacks(admin, slide):
    assert admin.get(f'{slide}/images/macro').content == b''
    assert admin.read(f'{slide}/images/macro/metadata') == {}


# Items that change

def test_two_files_of_the_same_name_are_not_mixed_up(admin):
    pixels = [numbered_pixels(300, 400, seed) for seed in (1, 2)]
    files = [admin.upload(admin.new_folder(), 'a.tif', tiff_bytes(each)) for each in pixels]
    for _ in range(2):
        for file, each in zip(files, pixels, strict=True):
            tile = admin.read(f'item/{file["itemId"]}/tiles/zxy/1/0/0', encoding='PNG')
            np.testing.assert_array_equal(decoded(tile), tile_of(each, 0, 0))


def test_new_contents_of_a_file_show_at_once(admin, folder):
    before, after = (numbered_pixels(300, 400, seed) for seed in (1, 2))
    # The old contents stay on disk, under the same name, for the second item.
    admin.upload(folder, 'b.tif', tiff_bytes(before))
    file = admin.upload(folder, 'a.tif', tiff_bytes(before))
    tiles = f'item/{file["itemId"]}/tiles'
    assert (decoded(admin.read(f'{tiles}/zxy/1/0/0', encoding='PNG')) == before[:256, :256]).all()
    admin.replace(file['_id'], tiff_bytes(after))
    tile = decoded(admin.read(f'{tiles}/zxy/1/0/0', encoding='PNG'))
    np.testing.assert_array_equal(tile, after[:256, :256])
    pixel = admin.read(f'{tiles}/pixel', left=3, top=5)
    assert [pixel[band] for band in 'rgb'] == after[5, 3].tolist()


def test_new_contents_of_another_size(admin, folder):
    file = admin.upload(folder, 'a.tif', tiff_bytes(numbered_pixels(300, 400)))
    tiles = f'item/{file["itemId"]}/tiles'
    assert admin.read(tiles)['sizeX'] == 400
    admin.replace(file['_id'], tiff_bytes(numbered_pixels(600, 700)))
    assert admin.read(tiles)['sizeX'] == 700


def test_a_copy_of_an_item(admin, folder):
    pixels = numbered_pixels(300, 400)
    file = admin.upload(folder, 'a.tif', tiff_bytes(pixels))
    copy = admin.post(f'item/{file["itemId"]}/copy')
    admin.delete(f'item/{file["itemId"]}')
    tile = admin.read(f'item/{copy["_id"]}/tiles/zxy/1/0/0', encoding='PNG')
    np.testing.assert_array_equal(decoded(tile), tile_of(pixels, 0, 0))


def test_a_large_image_that_is_removed_and_made_again(admin, folder):
    file = admin.upload(folder, 'a.tif', tiff_bytes(numbered_pixels(300, 400)))
    tiles = f'item/{file["itemId"]}/tiles'
    assert admin.read(tiles)['sizeX'] == 400
    assert admin.delete(tiles) == {'deleted': True}
    assert admin.get(tiles).status_code == 400
    assert admin.get(f'{tiles}/zxy/0/0/0').status_code == 404
    admin.post(tiles)
    assert admin.read(f'{tiles}/internal_metadata')['tilesource'] == 'vips'


def test_an_item_that_is_deleted(admin, folder):
    file = admin.upload(folder, 'a.tif', tiff_bytes(numbered_pixels(300, 400)))
    tiles = f'item/{file["itemId"]}/tiles'
    assert admin.get(f'{tiles}/zxy/0/0/0').ok
    admin.delete(f'item/{file["itemId"]}')
    assert admin.get(tiles).status_code == 400
    # Girder has no sentence for this one, which does not get as far as a source.
    assert not admin.get(f'{tiles}/zxy/0/0/0').ok
