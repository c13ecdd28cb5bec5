"""Arrays and pictures that are handed out are the caller's own."""

import copy
import gc
import inspect
import multiprocessing
import pickle
import threading

import large_image
import numpy as np
import PIL.Image
import pytest
import tifffile
from sink_helpers import make_sink, random_tile

import large_image_source_vips

PIXELS = random_tile('uint8', (700, 900, 3))
STYLES = [
    None, {'band': 1}, {'bands': [{'band': 1, 'palette': '#ff0000'}, {'band': 2}]},
    {'icc': True}, {'bands': [{'band': 3, 'min': 10, 'max': 200}], 'dtype': 'uint8'},
]


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp('own') / 'slide.tif'
    with tifffile.TiffWriter(path) as file:
        file.write(PIXELS, tile=(256, 256), compression='deflate', photometric='rgb')
        file.write(PIXELS[:100, :120], photometric='rgb', subfiletype=1, description='label')
    return str(path)


@pytest.fixture(params=['file', 'jpeg', 'sink', 'uncached'])
def opened(request, path, tmp_path):
    """What makes a source with a style, of several kinds of store."""
    def make(style=None):
        if request.param == 'sink':
            assert style is None
            return make_sink(PIXELS)
        if request.param == 'jpeg':
            PIL.Image.fromarray(PIXELS).save(tmp_path / 'a.jpg')
            return large_image_source_vips.open(str(tmp_path / 'a.jpg'), style=style)
        return large_image_source_vips.open(
            path, style=style, noCache=request.param == 'uncached')
    make.kind = request.param
    return make


def spoil(array):
    """Write into an array in place, as stain normalisation would."""
    assert array.flags.writeable
    np.subtract(array.dtype.type(255), array, out=array)


def everything(source):
    """What a source hands out as arrays, by name."""
    numpy = {'format': 'numpy'}
    region = {'left': 256, 'top': 256, 'width': 256, 'height': 256}
    found = {
        'getTile': source.getTile(1, 1, source.levels - 1, numpyAllowed='always'),
        'getTile low': source.getTile(0, 0, 0, numpyAllowed='always'),
        'getRegion': source.getRegion(region=region, **numpy)[0],
        'getRegion scaled': source.getRegion(output={'maxWidth': 100}, **numpy)[0],
        'getThumbnail': source.getThumbnail(width=64, height=64, **numpy)[0],
        'getSingleTile': source.getSingleTile(tile_position=4, **numpy)['tile'],
        'getSingleTile scaled': source.getSingleTile(
            tile_position=0, output={'maxWidth': 333}, resample=True, **numpy)['tile'],
        'histogram': source.histogram()['histogram'][0]['hist'],
    }
    for number, tile in enumerate(source.tileIterator(**numpy)):
        found[f'tile {number}'] = tile['tile']
    for number, tile in enumerate(source.tileIterator(
            tile_size={'width': 256, 'height': 256}, **numpy)):
        found[f'own tile {number}'] = tile['tile']
    return found


@pytest.mark.parametrize('style', STYLES, ids=str)
def test_what_a_caller_changes_is_not_what_the_next_one_reads(opened, style):
    if opened.kind == 'sink' and style:
        pytest.skip('a sink has no style')
    source = opened(style)
    first = everything(source)
    want = {name: array.copy() for name, array in first.items()}
    for _ in range(2):
        for array in everything(source).values():
            spoil(array)
    again = everything(source)
    for name, array in want.items():
        assert np.array_equal(again[name], array), name
        assert not np.shares_memory(again[name], first[name])


def test_the_unstyled_twin_is_not_spoilt_by_a_style_or_a_caller(path):
    styled = large_image_source_vips.open(path, style={'bands': [{'band': 1}, {'band': 2}]})
    styled.getTile(0, 0, 0, numpyAllowed='always')
    twin = styled._unstyledInstance
    before = twin.getTile(0, 0, 0, numpyAllowed='always')
    want, shown = before.copy(), styled.getTile(0, 0, 0, numpyAllowed='always')
    spoil(before)
    spoil(shown)
    assert np.array_equal(twin.getTile(0, 0, 0, numpyAllowed='always'), want)


@pytest.mark.parametrize('function', [
    'large_image.tilesource.stylefuncs.maskPixelValues',
    'large_image.tilesource.stylefuncs.medianFilter'])
@pytest.mark.parametrize('context', ['preband', 'postband', True])
def test_styles_that_write_in_place_do_not_change_the_unstyled_image(path, function, context):
    parameters = ({'values': [[1, 2, 3]], 'positive': [255, 0, 0], 'negative': [0, 0, 0]}
                  if 'mask' in function else {'kernel': 3, 'weight': 1.0})
    plain = large_image_source_vips.open(path)
    want = plain.getTile(1, 1, plain.levels - 1, numpyAllowed='always')
    styled = large_image_source_vips.open(path, style={
        'function': {'name': function, 'context': context, 'parameters': parameters},
        'bands': [{'band': band} for band in (1, 2, 3)]})
    for _ in range(2):
        styled.getTile(1, 1, styled.levels - 1, numpyAllowed='always')
    again = large_image_source_vips.open(path)
    assert np.array_equal(
        again.getTile(1, 1, again.levels - 1, numpyAllowed='always'), want)
    assert np.array_equal(want[..., :3], PIXELS[256:512, 256:512])


def test_pictures_are_the_callers(opened):
    source = opened()
    first = source.getTile(0, 0, 0, pilImageAllowed=True)
    want = np.asarray(first).copy()
    first.putpixel((3, 3), (1, 2, 3))
    first.paste(0, (0, 0, 50, 50))
    assert np.array_equal(np.asarray(source.getTile(0, 0, 0, pilImageAllowed=True)), want)
    thumbnail = source.getThumbnail(width=50, height=50, format='PIL')[0]
    want = np.asarray(thumbnail).copy()
    thumbnail.paste(0, (0, 0, 50, 50))
    again = source.getThumbnail(width=50, height=50, format='PIL')[0]
    assert np.array_equal(np.asarray(again), want)


@pytest.mark.parametrize('edge', [False, 'crop', '#00ff00'])
def test_tiles_at_the_edge_are_the_callers(path, edge):
    source = large_image_source_vips.open(path, edge=edge)
    z = source.levels - 1
    want = source.getTile(3, 2, z, numpyAllowed='always').copy()
    spoil(source.getTile(3, 2, z, numpyAllowed='always'))
    assert np.array_equal(source.getTile(3, 2, z, numpyAllowed='always'), want)


def test_encoded_tiles_are_not_copied(path):
    source = large_image_source_vips.open(path)
    assert source.getTile(0, 0, 0) is source.getTile(0, 0, 0)


def test_threads_that_write_into_their_tiles_do_not_meet(path):
    source = large_image_source_vips.open(path)
    want = source.getTile(1, 1, source.levels - 1, numpyAllowed='always').copy()
    wrong = []

    def work():
        for _ in range(100):
            tile = source.getTile(1, 1, source.levels - 1, numpyAllowed='always')
            if not np.array_equal(tile, want):
                wrong.append(tile)
            tile[...] = 0

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Tiles that travel


def total(tile):
    """What a worker makes of a tile."""
    return int(tile['tile'].sum()), tile['x'], tile['y'], tile['tile'].flags.writeable


OPTIONS = {'tile_size': {'width': 300, 'height': 300}, 'format': 'numpy'}


def expected_totals():
    return [(int(PIXELS[y:y + 300, x:x + 300].sum()), x, y, True)
            for y in range(0, 700, 300) for x in range(0, 900, 300)]


@pytest.mark.parametrize('method', ['spawn', 'fork'])
def test_tiles_are_read_in_worker_processes(path, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f'this system has no {method}')
    source = large_image_source_vips.open(path)
    tiles = list(source.tileIterator(**OPTIONS))
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(total, tiles).get(120) == expected_totals()


@pytest.mark.parametrize('again', [
    copy.copy, copy.deepcopy, lambda tile: pickle.loads(pickle.dumps(tile))],
    ids=['copy', 'deepcopy', 'pickle'])
@pytest.mark.parametrize('style', [None, {'band': 2}])
@pytest.mark.parametrize('loaded', [True, False])
def test_tiles_are_copied_and_pickled(path, again, style, loaded):
    source = large_image_source_vips.open(path, style=style)
    for tile in source.tileIterator(**OPTIONS):
        if loaded:
            tile['tile']
        other = again(tile)
        assert np.array_equal(other['tile'], tile['tile'])
        assert {key: other[key] for key in ('x', 'y', 'width', 'height')} == {
            key: tile[key] for key in ('x', 'y', 'width', 'height')}
        spoil(other['tile'])
    single = again(source.getSingleTile(tile_position=5, **OPTIONS))
    assert (single['x'], single['y']) == (600, 300)


def test_tiles_of_a_sink_say_that_they_cannot_travel():
    tile = next(iter(make_sink(PIXELS).tileIterator(**OPTIONS)))
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(tile)


def test_an_iteration_leaves_nothing_that_keeps_the_source(path):
    source = large_image_source_vips.open(path, noCache=True)
    for _tile in source.tileIterator(**OPTIONS):
        pass
    del _tile
    gc.collect()
    assert not any(isinstance(found, type(source)) and found is not source
                   for found in gc.get_referrers(source))


# What help() shows


@pytest.mark.parametrize('name', [
    'getRegion', 'tileIterator', 'getThumbnail', 'histogram', 'getAssociatedImage'])
def test_help_shows_what_the_base_class_takes(name):
    ours = getattr(large_image_source_vips.VipsFileTileSource, name)
    base = getattr(large_image.tilesource.FileTileSource, name)
    assert inspect.getdoc(ours) == inspect.getdoc(base)
    assert inspect.signature(ours) == inspect.signature(base)
