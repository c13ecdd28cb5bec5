"""
Label images with colours and names: written, read back as labels, shown in their colours.
"""

import io

import large_image
import numpy as np
import PIL.Image
import pytest
import tifffile
from large_image.exceptions import TileSourceError

import large_image_source_vips

COLORS = ['#000000', '#ff0000', '#00ff00', '#0000ff', '#123456']
NAMES = ['background', 'tumour', 'stroma', 'fat', 'other']
SIZES = {'uint8': 5, 'uint16': 700, 'uint32': 90_000, 'int8': 5, 'int16': 6, 'int32': 70_000}


def labels(dtype, shape=(600, 700)):
    return np.random.default_rng(1).integers(0, SIZES[dtype], shape).astype(dtype)


def image(dtype='uint8', **options):
    sink = large_image_source_vips.new(**options)
    sink.palette, sink.classNames = COLORS, NAMES
    sink.addTile(labels(dtype))
    return sink


def band(source, **options):
    return source.getRegion(format='numpy', **options)[0][..., 0]


@pytest.mark.parametrize('name', ['a.tif', 'a.ome.tif'])
@pytest.mark.parametrize('dtype', SIZES)
class TestWritten:
    def test_labels_come_back(self, tmp_path, dtype, name):
        image(dtype).write(tmp_path / name)
        found = large_image.open(tmp_path / name)
        assert (found.dtype, found.bandCount) == (dtype, 1)
        np.testing.assert_array_equal(band(found), labels(dtype))
        assert (found.palette, found.classNames) == (COLORS, NAMES)

    def test_no_level_has_other_labels(self, tmp_path, dtype, name):
        image(dtype).write(tmp_path / name)
        found = large_image_source_vips.open(tmp_path / name, edge=True)
        for level in range(found.levels):
            tile = found.getTile(0, 0, level, numpyAllowed='always')[..., 0]
            step = 1 << found.levels - 1 - level
            rows, cols = tile.shape
            np.testing.assert_array_equal(tile, labels(dtype)[::step, ::step][:rows, :cols])

    def test_other_programs_see_colours_where_tiff_has_them(self, tmp_path, dtype, name):
        image(dtype).write(tmp_path / name)
        with tifffile.TiffFile(tmp_path / name) as tiff:
            page = tiff.pages[0]
            np.testing.assert_array_equal(page.asarray(), labels(dtype))
            if dtype not in {'uint8', 'uint16'}:
                assert page.photometric.name == 'MINISBLACK'
                return
            assert page.photometric.name == 'PALETTE'
            assert page.colormap.shape == (3, 1 << 8 * np.dtype(dtype).itemsize)
            for label, color in enumerate(COLORS):
                eight = [int(color[at:at + 2], 16) for at in (1, 3, 5)]
                assert (page.colormap[:, label] // 257).tolist() == eight
            levels = [*tiff.pages[1:], *(page.pages or ())]
            assert {level.photometric.name for level in levels} == {'PALETTE'}

    def test_loss_is_not_allowed(self, tmp_path, dtype, name):
        with pytest.raises(TileSourceError, match=r'samples are labels|cannot store'):
            image(dtype).write(tmp_path / name, compression='jpeg')
        image(dtype).write(tmp_path / name, lossy=True)
        np.testing.assert_array_equal(
            band(large_image_source_vips.open(tmp_path / name)), labels(dtype))


@pytest.mark.parametrize('name', ['a.tif', 'a.ome.tif'])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'uint32'])
def test_holes_stay_holes(tmp_path, dtype, name):
    sink = image(dtype)
    sink.addTile(labels(dtype)[:30, :40], x=900, y=700)
    sink.write(tmp_path / name)
    found = large_image_source_vips.open(tmp_path / name)
    assert found.palette == COLORS
    pixels = found.getRegion(format='numpy')[0]
    assert pixels.shape == (730, 940, 2)
    np.testing.assert_array_equal(pixels[:600, :700, 0], labels(dtype))
    opaque = pixels[..., 1] > 0
    assert opaque[:600, :700].all()
    assert opaque[700:, 900:].all()
    assert not opaque[:600, 700:].any()
    assert not pixels[~opaque].any()


def test_pillow_shows_the_colours(tmp_path):
    image().write(tmp_path / 'a.tif')
    with PIL.Image.open(tmp_path / 'a.tif') as shown:
        assert shown.mode == 'P'
        pixels = np.asarray(shown.convert('RGB'))
    table = np.array([[int(color[at:at + 2], 16) for at in (1, 3, 5)] for color in COLORS])
    np.testing.assert_array_equal(pixels, table[labels('uint8')])


def test_the_palette_of_others_stays_colours(tmp_path):
    picture = PIL.Image.fromarray(labels('uint8'), 'P')
    picture.putpalette([value for color in COLORS for value in bytes.fromhex(color[1:])])
    picture.save(tmp_path / 'a.tif')
    found = large_image_source_vips.open(tmp_path / 'a.tif')
    assert (found.bandCount, found.palette, found.classNames) == (3, None, None)
    np.testing.assert_array_equal(found.getRegion(format='numpy')[0], picture.convert('RGB'))


@pytest.mark.parametrize('tile', [(64, 64), None], ids=['tiles', 'strips'])
def test_colours_made_of_labels_by_others_are_colours(tmp_path, tile):
    """Though the text of the file with labels is still in place."""
    image().write(tmp_path / 'a.tif')
    with tifffile.TiffFile(tmp_path / 'a.tif') as tiff:
        text = tiff.pages[0].description
    pixels = np.random.default_rng(2).integers(0, 256, (300, 400, 3), 'uint8')
    tifffile.imwrite(tmp_path / 'b.tif', pixels, photometric='rgb', tile=tile, description=text,
                     metadata=None)
    found = large_image_source_vips.open(tmp_path / 'b.tif')
    assert found.palette is None
    np.testing.assert_array_equal(found.getRegion(format='numpy')[0], pixels)
    found.write(tmp_path / 'c.tif', lossy=False)
    np.testing.assert_array_equal(
        large_image_source_vips.open(tmp_path / 'c.tif').getRegion(format='numpy')[0], pixels)


@pytest.mark.parametrize('options', [
    {'tile': (64, 64)}, {}, {'compression': 'packbits'}, {'compression': 'lzw', 'tile': (64, 64)}])
def test_labels_stored_anew_by_others_are_labels(tmp_path, options):
    image().write(tmp_path / 'a.tif')
    with tifffile.TiffFile(tmp_path / 'a.tif') as tiff:
        page = tiff.pages[0]
        tifffile.imwrite(tmp_path / 'b.tif', page.asarray(), photometric='palette',
                         colormap=page.colormap, description=page.description, metadata=None,
                         **options)
    found = large_image_source_vips.open(tmp_path / 'b.tif', edge=True)
    assert (found.palette, found.classNames) == (COLORS, NAMES)
    np.testing.assert_array_equal(band(found), labels('uint8'))
    np.testing.assert_array_equal(
        found.getTile(0, 0, 0, numpyAllowed='always')[..., 0], labels('uint8')[::4, ::4])


def test_a_style_shows_the_colours(tmp_path):
    image().write(tmp_path / 'a.tif')
    colors = large_image_source_vips.open(tmp_path / 'a.tif').palette
    styled = large_image_source_vips.open(tmp_path / 'a.tif', style={'bands': [{
        'band': 1, 'palette': colors, 'scheme': 'discrete', 'min': 0, 'max': len(colors) - 1}]})
    shown = np.asarray(styled.getRegion(format='numpy')[0])[..., :3]
    table = np.array([list(bytes.fromhex(color[1:])) for color in COLORS])
    np.testing.assert_array_equal(shown.astype(int), table[labels('uint8')])


@pytest.mark.parametrize('written', [False, True], ids=['growing', 'written'])
@pytest.mark.parametrize('dtype', ['uint8', 'uint32'])
def test_a_notebook_shows_the_colours(tmp_path, written, dtype):
    source = large_image_source_vips.new()
    source.palette, source.classNames = COLORS, {1: 'tumour'}
    source.addTile(np.full((200, 200), 4, dtype))
    if written:
        source.write(tmp_path / 'a.tif')
        source = large_image_source_vips.open(tmp_path / 'a.tif')
    shown = np.asarray(PIL.Image.open(io.BytesIO(source._repr_png_())))
    assert (shown[..., :3] == [0x12, 0x34, 0x56]).all()
    assert '1 tumour' in source._repr_html_()


@pytest.mark.parametrize('shape', [(600, 700), (2049, 300), (1, 900), (40, 30)])
@pytest.mark.parametrize('written', [False, True], ids=['growing', 'written'])
def test_a_thumbnail_has_no_label_that_is_not_there(tmp_path, written, shape):
    pixels = np.where(np.random.default_rng(3).random(shape) < 0.5, 1, 3).astype('uint8')
    source = large_image_source_vips.new()
    source.palette = COLORS
    source.addTile(pixels)
    if written:
        source.write(tmp_path / 'a.tif')
        source = large_image_source_vips.open(tmp_path / 'a.tif')
    shown = np.asarray(PIL.Image.open(io.BytesIO(source._repr_png_())))[..., :3]
    assert max(shown.shape[:2]) == min(256, max(shape))
    assert {tuple(color) for color in shown.reshape(-1, 3).tolist()} <= {
        (255, 0, 0), (0, 0, 255)}


def test_converting_keeps_all(tmp_path):
    image('uint16').write(tmp_path / 'a.tif')
    large_image_source_vips.open(tmp_path / 'a.tif').write(
        tmp_path / 'b.tif', crop=(10, 20, 300, 200))
    found = large_image_source_vips.open(tmp_path / 'b.tif')
    np.testing.assert_array_equal(band(found), labels('uint16')[20:220, 10:310])
    assert (found.palette, found.classNames) == (COLORS, NAMES)


def test_without_metadata_colours_stay_and_names_go(tmp_path):
    image().write(tmp_path / 'a.tif')
    large_image_source_vips.open(tmp_path / 'a.tif').write(tmp_path / 'b.tif', metadata=False)
    found = large_image_source_vips.open(tmp_path / 'b.tif')
    np.testing.assert_array_equal(band(found), labels('uint8'))
    assert (found.palette, found.classNames) == (COLORS, None)


def test_frames_share_a_palette(tmp_path):
    sink = large_image_source_vips.new()
    sink.palette = COLORS
    for t in range(3):
        sink.addTile(labels('uint8') ^ np.uint8(t % 2), t=t)
    sink.write(tmp_path / 'a.tif')
    found = large_image_source_vips.open(tmp_path / 'a.tif')
    assert found.palette == COLORS
    for t in range(3):
        np.testing.assert_array_equal(
            band(found, frame=t), labels('uint8') ^ np.uint8(t % 2))


@pytest.mark.parametrize('late', [False, True])
@pytest.mark.parametrize('spool', [False, True])
def test_lower_levels_of_a_growing_image_are_picked(tmp_path, spool, late):
    def lowest(source):
        return source.getTile(0, 0, 0, numpyAllowed='always')[:150, :175, 0]

    picked = labels('uint8')[::4, ::4]
    sink = large_image_source_vips.new(**{'spool': tmp_path / 'spool'} if spool else {})
    if late:
        sink.addTile(labels('uint8'))
        assert (lowest(sink) != picked).any()
    sink.palette = COLORS
    if not late:
        sink.addTile(labels('uint8'))
    np.testing.assert_array_equal(lowest(sink), picked)
    sink.palette = None
    assert (lowest(sink) != picked).any()


def test_a_tile_may_be_added_again_under_its_key(tmp_path):
    with large_image_source_vips.new(spool=tmp_path / 'spool') as sink:
        sink.palette = COLORS
        for _ in range(2):
            for place in range(3):
                sink.addTile(labels('uint8'), place * 700, key=place)
        sink.write(tmp_path / 'a.tif')
    assert large_image_source_vips.open(tmp_path / 'a.tif').sizeX == 2100


@pytest.mark.parametrize('spool', [False, True])
@pytest.mark.parametrize('blend', ['mean', 'feather', 'sum'])
def test_labels_have_no_mean(tmp_path, blend, spool):
    sink = large_image_source_vips.new(
        blend=blend, **{'spool': tmp_path / 'spool'} if spool else {})
    with pytest.raises(TileSourceError, match=f"blend='{blend}'"):
        sink.palette = COLORS
    assert sink.palette is None
    sink.close()


def test_a_shared_spool_keeps_the_palette(tmp_path):
    with image(spool=tmp_path / 'spool') as first:
        first.palette, first.classNames = COLORS, {3: 'fat'}
        second = large_image_source_vips.new(spool=tmp_path / 'spool')
        assert (second.palette, second.classNames) == (COLORS, {3: 'fat'})
        first.flush()
    with large_image_source_vips.new(spool=tmp_path / 'spool') as resumed:
        assert (resumed.palette, resumed.classNames) == (COLORS, {3: 'fat'})
        resumed.write(tmp_path / 'a.tif')
    found = large_image_source_vips.open(tmp_path / 'a.tif')
    assert (found.palette, found.classNames) == (COLORS, {3: 'fat'})
    np.testing.assert_array_equal(band(found), labels('uint8'))


@pytest.mark.parametrize(('given', 'found'), [
    (['red', (0, 128, 255), '00ff00'], ['#ff0000', '#0080ff', '#00ff00']),
    ({7: '#ABCDEF', 2: 'black'}, {2: '#000000', 7: '#abcdef'}),
    (np.array([[1, 2, 3], [4, 5, 6]], 'uint8'), ['#010203', '#040506']),
    ({np.int64(0): 'white'}, ['#ffffff']), ([], []), (None, None)])
def test_forms_of_a_palette(given, found):
    sink = large_image_source_vips.new()
    sink.palette = given
    assert sink.palette == found


@pytest.mark.parametrize(('name', 'value'), [
    ('palette', 'red'), ('palette', 5), ('palette', ['nocolour']), ('palette', [(1, 2)]),
    ('palette', [(1, 2, 256)]), ('palette', {'a': 'red'}), ('palette', {True: 'red'}),
    ('palette', {1.5: 'red'}), ('palette', ['red'] * 70_000), ('classNames', [1]),
    ('classNames', 'abc'), ('classNames', {None: 'a'})])
def test_what_is_refused(name, value):
    sink = large_image_source_vips.new()
    with pytest.raises(TileSourceError, match=name):
        setattr(sink, name, value)
    assert getattr(sink, name) is None


@pytest.mark.parametrize('array', [
    np.zeros((50, 60, 3), 'uint8'), np.zeros((50, 60), 'float32')], ids=['RGB', 'float'])
def test_a_palette_is_for_labels(tmp_path, array):
    sink = large_image_source_vips.new()
    sink.addTile(array)
    sink.palette = COLORS
    with pytest.raises(TileSourceError, match='one band of integers'):
        sink.write(tmp_path / 'a.tif')
    assert not (tmp_path / 'a.tif').exists()
    sink.palette = None
    sink.write(tmp_path / 'a.tif', lossy=False)


@pytest.mark.parametrize('text', [
    '{"large_image_source_vips": {"palette": 5}}',
    '{"large_image_source_vips": {"palette": {"a": "red"}}}',
    '{"large_image_source_vips": {"palette": {"1": "nocolour"}}}',
    '{"large_image_source_vips": {"palette": {"1": [1]}, "classNames": [2]}}'])
def test_malformed_texts_of_a_file_are_ignored(tmp_path, text):
    color_map = np.zeros((3, 256), 'uint16')
    color_map[:, 1] = 65535, 0, 257
    tifffile.imwrite(tmp_path / 'a.tif', np.ones((64, 64), 'uint8'), photometric='palette',
                     colormap=color_map, description=text, metadata=None)
    found = large_image_source_vips.open(tmp_path / 'a.tif')
    assert (found.palette, found.classNames) == (None, None)
    assert found.getRegion(format='numpy')[0][3, 4].tolist() == [255, 0, 1]
