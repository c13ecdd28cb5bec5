"""
Files whose names are left to other sources, and who reads them anyway; and what
``open``, ``canRead`` and ``new`` take.
"""

import copy
import inspect
import multiprocessing
import os
import pickle
import subprocess
import sys

import large_image
import numpy as np
import PIL.Image
import pytest
from large_image import config
from large_image.exceptions import TileSourceError, TileSourceFileNotFoundError
from reading_tools import random_pixels

import large_image_source_vips
from large_image_source_vips import VipsFileTileSource

PIXELS = random_pixels((300, 400, 3))
STYLE = {'bands': [{'band': 2, 'palette': '#fff', 'min': 0, 'max': 255}]}


@pytest.fixture(params=['a.png', 'a.PNG', 'a'])
def path(request, tmp_path):
    PIL.Image.fromarray(PIXELS).save(tmp_path / request.param, format='PNG')
    return tmp_path / request.param


@pytest.fixture
def set_names():
    """Set the names that are left to others."""
    before = config.getConfig('source_vips_ignored_names')
    yield lambda value: config.setConfig('source_vips_ignored_names', value)
    config.setConfig('source_vips_ignored_names', before)


def pixels_of(source):
    return source.getRegion(format='numpy')[0]


def is_left_to_others(path):
    with pytest.raises(TileSourceError, match='source_vips_ignored_names'):
        VipsFileTileSource(path)
    assert VipsFileTileSource.canRead(path) is False
    assert large_image_source_vips.canRead(path) is False
    return not large_image.tilesource.getSourceNameFromDict({'vips': VipsFileTileSource}, path)


def through_large_image(path, **kwargs):
    return large_image.tilesource.getTileSourceFromDict(
        {'vips': VipsFileTileSource}, str(path), **kwargs)


def test_open_reads_what_is_left_to_others(path):
    np.testing.assert_array_equal(pixels_of(large_image_source_vips.open(path)), PIXELS)
    module = sys.modules[VipsFileTileSource.__module__]
    np.testing.assert_array_equal(pixels_of(module.open(str(path))), PIXELS)


@pytest.mark.parametrize('kwargs', [{}, {'style': STYLE}, {'noCache': True}, {'edge': True}],
                         ids=str)
def test_what_open_opened_is_for_nobody_else(path, kwargs):
    for _again in range(2):
        source = large_image_source_vips.open(path, **kwargs)
        for refuse in (VipsFileTileSource, through_large_image):
            with pytest.raises(TileSourceError):
                refuse(str(path), **kwargs)
        assert VipsFileTileSource.canRead(path, **kwargs) is False
        assert large_image_source_vips.canRead(path, **kwargs) is False
        assert source.getTile(0, 0, 0)


def test_open_finds_its_source_in_the_cache(path):
    assert large_image_source_vips.open(path) is large_image_source_vips.open(path)
    assert (large_image_source_vips.open(path, style=STYLE) is
            large_image_source_vips.open(path, style=STYLE))


@pytest.mark.parametrize('kwargs', [{}, {'style': STYLE}, {'noCache': True},
                                    {'style': STYLE, 'noCache': True}], ids=str)
def test_twins_and_copies_of_what_open_opened_open_again(path, kwargs):
    source = large_image_source_vips.open(path, **kwargs)
    expected = pixels_of(source)
    others = [pickle.loads(pickle.dumps(source)), copy.copy(source), copy.deepcopy(source)]
    for other in others:
        np.testing.assert_array_equal(pixels_of(other), expected)
    np.testing.assert_array_equal(pixels_of(source._unstyled), PIXELS)
    np.testing.assert_array_equal(
        pixels_of(pickle.loads(pickle.dumps(source._unstyled))), PIXELS)
    tile = next(iter(source.tileIterator(format='numpy')))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tile))['tile'], tile['tile'])


def test_a_style_can_be_set_on_what_open_opened(path):
    source = large_image_source_vips.open(path, noCache=True)
    source.style = STYLE
    assert not np.array_equal(pixels_of(source)[..., :3], PIXELS)
    np.testing.assert_array_equal(pixels_of(source._unstyled), PIXELS)
    np.testing.assert_array_equal(
        pixels_of(pickle.loads(pickle.dumps(source))), pixels_of(source))


def total(something):
    """The sum of the samples of a source, or of a tile and its source."""
    return int((something['tile'] if isinstance(something, dict) else
                pixels_of(something)).sum(dtype=np.int64))


@pytest.mark.parametrize('method', ['spawn', 'fork'])
def test_other_processes_open_what_open_opened(path, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f'this system has no {method}')
    source = large_image_source_vips.open(path)
    tile = source.getSingleTile(format='numpy', tile_size={'width': 400, 'height': 300})
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map_async(total, [source, tile]).get(120) == [int(PIXELS.sum())] * 2


def test_an_empty_setting_leaves_nothing_out(path, set_names):
    assert is_left_to_others(path)
    set_names('')
    np.testing.assert_array_equal(pixels_of(through_large_image(path)), PIXELS)
    assert large_image_source_vips.canRead(path) is True
    set_names(r'\.gif$')
    assert large_image_source_vips.canRead(path) is True


BEFORE = """
import large_image
{setting}
import large_image_source_vips
print(large_image_source_vips.canRead({path!r}))
"""


@pytest.mark.parametrize(('setting', 'environment', 'readable'), [
    ('', {}, False),
    ("large_image.config.setConfig('source_vips_ignored_names', '')", {}, True),
    ('', {'LARGE_IMAGE_SOURCE_VIPS_IGNORED_NAMES': '""'}, True),
    ('', {'LARGE_IMAGE_SOURCE_VIPS_IGNORED_NAMES': ''}, True),
], ids=['default', 'before the import', 'environment', 'empty'])
def test_the_setting_counts_before_the_import(path, setting, environment, readable):
    program = BEFORE.format(setting=setting, path=str(path))
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                          timeout=120, check=True, env=os.environ | environment |
                          {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))})
    assert done.stdout == f'{readable}\n'


def test_a_refusal_says_how_to_read_the_file_anyway(path):
    with pytest.raises(TileSourceError) as caught:
        VipsFileTileSource(path)
    for words in (str(path), 'large_image_source_vips.open', "''",
                  'LARGE_IMAGE_SOURCE_VIPS_IGNORED_NAMES'):
        assert words in str(caught.value)


def test_what_is_no_image_is_an_error_whatever_its_name(tmp_path):
    (tmp_path / 'a.json').write_text('{}')
    with pytest.raises(TileSourceError, match='no image format'):
        large_image_source_vips.open(tmp_path / 'a.json')
    with pytest.raises(TileSourceFileNotFoundError):
        large_image_source_vips.open(tmp_path / 'missing.png')


# What the functions take


OPTIONS = {'encoding', 'jpegQuality', 'jpegSubsampling', 'tiffCompression', 'edge', 'style',
           'noCache', 'kwargs'}


@pytest.mark.parametrize('name', ['open', 'canRead', 'new'])
def test_functions_show_what_they_take(name):
    parameters = inspect.signature(getattr(large_image_source_vips, name)).parameters
    assert set(parameters) == OPTIONS | ({'args'} if name == 'new' else {'path'})


@pytest.mark.parametrize(('method', 'words'), [
    ('getRegion', ['region', 'output', 'encoding', 'fill', 'tileIterator']),
    ('tileIterator', ['region', 'scale', 'tile_position', 'tile_size', 'tile_overlap', 'frame']),
    ('getThumbnail', ['width', 'height']),
    ('histogram', ['bins', 'density', 'onlyMinMax']),
    ('tileFrames', ['frameList', 'framesAcross']),
    ('getAssociatedImage', ['imageKey'])])
def test_help_shows_the_parameters_of_methods(method, words):
    documented = inspect.getdoc(getattr(VipsFileTileSource, method))
    for word in words:
        assert word in documented


def test_options_reach_the_source(path):
    source = large_image_source_vips.open(
        path, encoding='PNG', jpegQuality=50, jpegSubsampling=1, tiffCompression='lzw', edge='crop')
    assert (source.encoding, source.jpegQuality, source.jpegSubsampling, source.tiffCompression,
            source.edge) == ('PNG', 50, 1, 'lzw', 'crop')
    assert source.getTile(0, 0, 0)[:4] == b'\x89PNG'
    assert large_image_source_vips.new(encoding='PNG').encoding == 'PNG'


@pytest.mark.parametrize('call', [
    lambda: large_image_source_vips.new('x.tif'),
    lambda: large_image_source_vips.new(path='x.tif')])
def test_new_takes_no_path(call):
    with pytest.raises(TileSourceError, match=r"no path.*'x\.tif'.*write\(path\)"):
        call()


class Named(VipsFileTileSource):
    """A source with an option of its own."""

    cacheName = 'tilesource'

    def __init__(self, path, label='none', **kwargs):
        self.label = label
        super().__init__(path, **kwargs)

    @staticmethod
    def getLRUHash(*args, **kwargs):
        return VipsFileTileSource.getLRUHash(*args, **kwargs) + repr(kwargs.get('label'))


def test_subclasses_may_take_more(tmp_path):
    PIL.Image.fromarray(PIXELS).save(tmp_path / 'a.tif')
    source = Named(tmp_path / 'a.tif', label='mine', style=STYLE)
    assert (source.label, Named(tmp_path / 'a.tif').label) == ('mine', 'none')
    assert pickle.loads(pickle.dumps(source)).label == 'mine'
    np.testing.assert_array_equal(pixels_of(source._unstyled), PIXELS)
