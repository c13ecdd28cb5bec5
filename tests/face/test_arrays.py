"""Arrays of a source belong to the caller, who may change them in place."""

import copy
import multiprocessing
import pickle

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import tifffile

import large_image_source_vips
from helpers.around import in_threads
from helpers.pixels import random_pixels, smooth_pixels
from helpers.processes import place_and_sum

PIXELS = random_pixels((700, 900, 3))
SIZE = {'tile_size': {'width': 300, 'height': 300}, 'format': 'numpy'}
# What large_image's own functions do in place.
FUNCTIONS = 'large_image.tilesource.stylefuncs'
MEDIAN = {'name': f'{FUNCTIONS}.medianFilter', 'context': True, 'stage': 'pre',
          'parameters': {'kernel': 5, 'weight': 1.5}}
MASK = {'name': f'{FUNCTIONS}.maskPixelValues', 'context': True, 'stage': 'pre',
        'parameters': {'values': [[0, 0, 0]], 'negative': [7, 8, 9], 'positive': [1, 2, 3]}}
STYLES = {
    'median': {'bands': [], 'function': [MEDIAN]},
    'median of a band': {'bands': [
        {'band': 1, 'min': 0, 'max': 255, 'function': MEDIAN | {'stage': 'preband'}}]},
    'mask': {'bands': [], 'function': MASK},
    'median of bands': {'bands': [{'band': band, 'min': 0, 'max': 255, 'palette': color}
                                  for band, color in enumerate(['#f00', '#0f0', '#00f'], 1)],
                        'function': [MEDIAN]},
}


def write(path, **kwargs):
    options = {'photometric': 'rgb', 'tile': (256, 256), 'compression': 'deflate'} | kwargs
    tifffile.imwrite(path, PIXELS, **options)
    return str(path)


@pytest.fixture(params=['tiles', 'strips', 'jpeg', 'png', 'profile', 'noCache', 'sink'])
def source(request, tmp_path):
    """A source of its own kind, with all tiles of which a style was made before."""
    if request.param == 'sink':
        sink = large_image_source_vips.new()
        sink.addTile(PIXELS)
        return sink
    if request.param == 'png':
        PIL.Image.fromarray(PIXELS).save(tmp_path / 'a.png')
        return large_image_source_vips.open(tmp_path / 'a.png')
    if request.param == 'jpeg':
        path = write(tmp_path / 'a.tif', compression='jpeg')
    elif request.param == 'strips':
        path = write(tmp_path / 'a.tif', tile=None, rowsperstrip=16)
    elif request.param == 'profile':
        profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB')).tobytes()
        path = write(tmp_path / 'a.tif', iccprofile=profile)
    else:
        path = write(tmp_path / 'a.tif')
    return large_image_source_vips.open(path, noCache=request.param == 'noCache' or None)


def spoil(answer):
    """Change what a caller was given; gives back what it was."""
    if isinstance(answer, PIL.Image.Image):
        before = np.array(answer)
        answer.paste(0, (0, 0, *answer.size))
        return before
    assert isinstance(answer, np.ndarray)
    assert answer.flags.writeable
    before = answer.copy()
    answer[...] = 0
    return before


ASKING = {
    'getTile': lambda source: source.getTile(0, 0, 2, numpyAllowed='always'),
    'getTile at the edge': lambda source: source.getTile(3, 2, 2, numpyAllowed=True),
    'getTile of level 0': lambda source: source.getTile(0, 0, 0, numpyAllowed='always'),
    'PIL': lambda source: source.getTile(1, 1, 2, pilImageAllowed=True),
    'getRegion': lambda source: source.getRegion(format='numpy')[0],
    'getRegion of one tile': lambda source: source.getRegion(format='numpy', region={
        'left': 0, 'top': 0, 'width': 256, 'height': 256})[0],
    'getRegion scaled': lambda source: source.getRegion(
        format='numpy', output={'maxWidth': 333})[0],
    'getRegion as PIL': lambda source: source.getRegion(format='PIL')[0],
    'getThumbnail': lambda source: source.getThumbnail(format='numpy')[0],
    'getThumbnail as PIL': lambda source: source.getThumbnail(format='PIL')[0],
    'getSingleTile': lambda source: source.getSingleTile(format='numpy')['tile'],
    'getSingleTile, other size': lambda source: source.getSingleTile(**SIZE)['tile'],
    'getSingleTile, scaled': lambda source: source.getSingleTile(
        output={'maxWidth': 333}, **SIZE)['tile'],
    'getSingleTile as PIL': lambda source: source.getSingleTile(format='PIL')['tile'],
    'tileFrames': lambda source: source.tileFrames(
        format='numpy', output={'maxWidth': 200})[0],
    'histogram': lambda source: source.histogram()['histogram'][0]['hist'],
}


@pytest.mark.parametrize('ask', ASKING.values(), ids=ASKING)
def test_what_a_caller_changes_nobody_else_sees(source, ask):
    first = spoil(ask(source))
    assert first.any()
    for _again in range(2):
        np.testing.assert_array_equal(spoil(ask(source)), first)


def test_tiles_of_an_iteration_can_be_changed(source):
    def seen():
        return [spoil(tile['tile']) for tile in source.tileIterator(format='numpy')]

    first = seen()
    assert len(first) == 12
    for before, after in zip(first, seen(), strict=True):
        np.testing.assert_array_equal(after, before)


def test_encoded_answers_are_those_of_the_cache(tmp_path):
    source = large_image_source_vips.open(write(tmp_path / 'a.tif'))
    assert source.getTile(0, 0, 0) is source.getTile(0, 0, 0)


@pytest.mark.parametrize('edge', [True, 'crop', '#00ff00'])
def test_edge_tiles_can_be_changed(tmp_path, edge):
    source = large_image_source_vips.open(write(tmp_path / 'a.tif'), edge=edge)
    first = spoil(source.getTile(3, 2, 2, numpyAllowed='always'))
    np.testing.assert_array_equal(first[:188, :132], PIXELS[512:, 768:])
    np.testing.assert_array_equal(source.getTile(3, 2, 2, numpyAllowed='always'), first)


@pytest.mark.parametrize('style', STYLES.values(), ids=STYLES)
@pytest.mark.parametrize('cached', [True, False])
def test_styles_that_write_into_a_tile_change_that_tile_only(tmp_path, style, cached, caplog):
    path = write(tmp_path / 'a.tif')
    plain = large_image_source_vips.open(path)
    plain.getTile(0, 0, 2, numpyAllowed='always')
    styled = large_image_source_vips.open(path, style=style, noCache=None if cached else True)
    first = styled.getTile(0, 0, 2, numpyAllowed='always')
    assert not np.array_equal(first[..., :3], PIXELS[:256, :256])
    for source in (styled._unstyledInstance, plain, large_image_source_vips.open(path)):
        np.testing.assert_array_equal(
            source.getTile(0, 0, 2, numpyAllowed='always'), PIXELS[:256, :256])
    before = spoil(first)
    np.testing.assert_array_equal(styled.getTile(0, 0, 2, numpyAllowed='always'), before)
    # large_image logs what a function raises, and goes on without it.
    assert not caplog.records


def test_styles_write_into_tiles_with_a_colour_profile(tmp_path, caplog):
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile('sRGB')).tobytes()
    path = write(tmp_path / 'a.tif', iccprofile=profile)
    plain = large_image_source_vips.open(path).getTile(0, 0, 2, numpyAllowed='always')
    found = large_image_source_vips.open(path, style={
        'icc': True, 'function': MEDIAN | {'stage': 'pre'},
        'bands': [{'band': 1, 'min': 0, 'max': 255}],
    }).getTile(0, 0, 2, numpyAllowed='always')
    assert not caplog.records
    assert found.shape[:2] == plain.shape[:2]


def test_the_unstyled_twin_gives_arrays_away_as_well(tmp_path):
    frames = random_pixels((3, 300, 300), 'uint16')
    tifffile.imwrite(tmp_path / 'a.ome.tif', frames, photometric='minisblack', ome=True,
                     metadata={'axes': 'CYX'}, tile=(128, 128))
    source = large_image_source_vips.open(tmp_path / 'a.ome.tif', style={'bands': [
        {'frame': number, 'palette': color, 'min': 0, 'max': 65535}
        for number, color in enumerate(['#f00', '#0f0', '#00f'])]})
    for frame in range(3):
        for _again in range(2):
            tile = source._unstyled.getTile(0, 0, 1, numpyAllowed=True, frame=frame)
            np.testing.assert_array_equal(spoil(tile)[..., 0], frames[frame, :256, :256])
    found = source.getTile(0, 0, 1, numpyAllowed='always')[..., :3]
    assert np.abs(found - frames[:, :256, :256].transpose(1, 2, 0) / 257.0).max() <= 1


def test_threads_that_change_their_tiles_do_not_meet(tmp_path):
    source = large_image_source_vips.open(write(tmp_path / 'a.tif'))
    wrong = []

    def take(_number):
        for _again in range(40):
            found = spoil(source.getTile(1, 1, 2, numpyAllowed='always'))
            if not np.array_equal(found, PIXELS[256:512, 256:512]):
                wrong.append(found)

    in_threads(take, range(4))
    assert not wrong


# Tiles that travel


def expected_sums(pixels=PIXELS):
    return [(x, y, int(pixels[y:y + 300, x:x + 300].sum(dtype=np.int64)), True)
            for y in range(0, 700, 300) for x in range(0, 900, 300)]


@pytest.mark.parametrize('method', ['spawn', 'fork'])
@pytest.mark.parametrize('started', [False, True])
def test_tiles_are_read_in_other_processes(tmp_path, method, started):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f'this system has no {method}')
    source = large_image_source_vips.open(write(tmp_path / 'a.tif'))
    tiles = list(source.tileIterator(**SIZE))
    if started:
        # Now other threads are decoding ahead.
        assert [tile['tile'].shape[0] for tile in tiles[:4]] == [300] * 4
        for tile in tiles[:2]:
            tile.release()
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(place_and_sum, tiles).get(120) == expected_sums()


@pytest.mark.parametrize('through', [
    lambda tile: pickle.loads(pickle.dumps(tile)), copy.deepcopy, copy.copy],
    ids=['pickle', 'deepcopy', 'copy'])
@pytest.mark.parametrize('style', [None, {'band': 1, 'palette': '#fff', 'min': 0, 'max': 255}])
@pytest.mark.parametrize('read_before', [False, True])
def test_copies_of_tiles_are_tiles(tmp_path, through, style, read_before):
    source = large_image_source_vips.open(write(tmp_path / 'a.tif'), style=style)
    for tile in source.tileIterator(**SIZE):
        if read_before:
            assert tile['tile'].any()
        other = through(tile)
        np.testing.assert_array_equal(other['tile'], tile['tile'])
        assert dict(other).keys() == dict(tile).keys()
        assert other['format'] == 'numpy'
        other.release()
        np.testing.assert_array_equal(other['tile'], tile['tile'])


@pytest.mark.parametrize('protocol', range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_single_tile_can_be_pickled(tmp_path, protocol):
    source = large_image_source_vips.open(write(tmp_path / 'a.tif'))
    tile = source.getSingleTile(tile_position=5, **SIZE)
    other = pickle.loads(pickle.dumps(tile, protocol))
    assert (other['x'], other['y']) == (600, 300)
    np.testing.assert_array_equal(other['tile'], PIXELS[300:600, 600:900])


def test_tiles_of_a_sink_cannot_be_pickled():
    sink = large_image_source_vips.new()
    sink.addTile(smooth_pixels(300, 400))
    tile = sink.getSingleTile(**SIZE)
    for take in (pickle.dumps, copy.deepcopy):
        with pytest.raises(pickle.PicklingError, match='cannot be pickled'):
            take(tile)
    assert tile['tile'].shape[:2] == (300, 300)
