"""
File names that are left to other sources, and ``open``, which ignores the setting.
"""

import copy
import inspect
import json
import os
import pathlib
import pickle
import subprocess
import sys

import large_image
import numpy as np
import PIL.Image
import pytest
import tifffile
from large_image import config
from large_image.exceptions import TileSourceError, TileSourceFileNotFoundError
from large_image.tilesource import TileSource

import large_image_source_vips
from helpers.pixels import random_pixels, smooth_pixels
from helpers.processes import in_a_spawned_process, sum_of
from large_image_source_vips import VipsFileTileSource

SETTING = 'source_vips_ignored_names'
PIXELS = random_pixels((300, 401, 3))
STYLE = {'bands': [{'band': 1, 'palette': ['#000', '#f00']}]}


@pytest.fixture
def setting():
    old = config.ConfigValues[SETTING]
    yield lambda value: config.setConfig(SETTING, value)
    config.setConfig(SETTING, old)


@pytest.fixture(params=['x.png', 'X.PNG', 'no_suffix', 'x.svs', 'x.json'])
def ignored(request, tmp_path):
    """A file that this source can read, under a name that it leaves to others."""
    path = tmp_path / request.param
    if path.suffix.lower() == '.svs':
        tifffile.imwrite(path, PIXELS, photometric='rgb')
    else:
        PIL.Image.fromarray(PIXELS).save(path, format='PNG')
    return path


@pytest.fixture
def png(tmp_path):
    path = tmp_path / 'x.png'
    PIL.Image.fromarray(PIXELS).save(path)
    return path


def full(source, **kwargs):
    return source.getRegion(format='numpy', **kwargs)[0]


def is_left_to_others(path, **kwargs):
    for name in (path, str(path), os.fsencode(path)):
        with pytest.raises(TileSourceError, match=SETTING):
            VipsFileTileSource(name, **kwargs)
        assert VipsFileTileSource.canRead(name, **kwargs) is False
        assert large_image_source_vips.canRead(name, **kwargs) is False
    try:
        return not isinstance(large_image.open(path, **kwargs), VipsFileTileSource)
    except TileSourceError:
        return True


def run(code, *args, **environment):
    """What a fresh Python prints."""
    found = subprocess.run([sys.executable, '-c', code, *map(str, args)], check=True, text=True,
                           stdout=subprocess.PIPE, env={**os.environ, **environment})
    return found.stdout.split()


class TestOpenedOnPurpose:
    @pytest.mark.parametrize('kwargs', [{}, {'noCache': True}, {'style': STYLE}], ids=str)
    def test_whatever_its_name(self, ignored, kwargs):
        assert is_left_to_others(ignored, **kwargs)
        source = large_image_source_vips.open(ignored, **kwargs)
        assert source.getMetadata()['sizeX'] == 401
        if 'style' not in kwargs:
            np.testing.assert_array_equal(full(source), PIXELS)
        # What is open now is not what the others get.
        assert is_left_to_others(ignored, **kwargs)
        assert large_image_source_vips.open(ignored, **kwargs).sizeX == 401

    def test_is_served_from_the_cache_to_the_next_who_does(self, png):
        source = large_image_source_vips.open(png)
        assert large_image_source_vips.open(png) is source
        assert large_image_source_vips.open(png, encoding='PNG') is not source

    def test_encodings_given_by_position_are_told_apart(self, png, setting):
        setting('')
        for encoding in ('PNG', 'JPEG', 'TIFF'):
            assert large_image_source_vips.open(png, encoding).encoding == encoding
            assert VipsFileTileSource(png, encoding).encoding == encoding

    @pytest.mark.parametrize('kwargs', [
        {}, {'noCache': True}, {'style': STYLE}, {'style': STYLE, 'noCache': True}], ids=str)
    @pytest.mark.parametrize('remake', [
        lambda source: pickle.loads(pickle.dumps(source)), copy.copy, copy.deepcopy],
        ids=['pickle', 'copy', 'deepcopy'])
    def test_copies_open_again(self, png, kwargs, remake):
        source = large_image_source_vips.open(png, **kwargs)
        again = remake(source)
        np.testing.assert_array_equal(full(again), full(source))
        np.testing.assert_array_equal(full(again._unstyled), PIXELS)
        twice = remake(again._unstyled)
        np.testing.assert_array_equal(full(twice), PIXELS)

    def test_pickles_open_where_nothing_is_cached(self, png):
        styled = large_image_source_vips.open(png, style=STYLE)
        expected = full(styled)
        found = in_a_spawned_process(sum_of, [styled, styled._unstyled])
        assert found == [int(expected.astype('int64').sum()), int(PIXELS.astype('int64').sum())]

    @pytest.mark.parametrize('kwargs', [{}, {'noCache': True}, {'style': STYLE}], ids=str)
    def test_tiles_open_where_nothing_is_cached(self, png, kwargs):
        tiles = list(large_image_source_vips.open(png, **kwargs).tileIterator(format='numpy'))
        found = in_a_spawned_process(sum_of, tiles)
        assert found == [int(tile['tile'].astype('int64').sum()) for tile in tiles]

    def test_pickles_do_not_need_the_settings_of_their_maker(self, png, setting):
        setting('')
        source = large_image_source_vips.open(png)
        data = pickle.dumps(source)
        setting(r'\.png$')
        assert is_left_to_others(png)
        np.testing.assert_array_equal(full(pickle.loads(data)), PIXELS)

    def test_a_style_that_is_set_later_has_an_unstyled_twin(self, png):
        source = large_image_source_vips.open(png, noCache=True)
        source.style = STYLE
        assert source._unstyled is not source
        np.testing.assert_array_equal(full(source._unstyled), PIXELS)
        np.testing.assert_array_equal(full(source)[..., 0], PIXELS[..., 0])

    def test_a_subclass_goes_by_the_names(self, png):
        class Mine(VipsFileTileSource):
            cacheName = 'tilesource'

            def __init__(self, path, *, note=''):
                super().__init__(path)
                self.note = note

        with pytest.raises(TileSourceError, match=SETTING):
            Mine(png, note='a')
        assert Mine.canRead(png) is False

    def test_what_is_no_image_is_not_opened(self, tmp_path):
        (tmp_path / 'x.json').write_text('{}')
        with pytest.raises(TileSourceError, match=r'x\.json'):
            large_image_source_vips.open(tmp_path / 'x.json')
        with pytest.raises(TileSourceFileNotFoundError):
            large_image_source_vips.open(tmp_path / 'missing.png')

    def test_a_missing_file_is_missing_rather_than_ignored(self, tmp_path):
        with pytest.raises(TileSourceFileNotFoundError):
            VipsFileTileSource(tmp_path / 'missing.png')


class TestSetting:
    def test_the_error_says_what_to_do(self, png):
        with pytest.raises(TileSourceError) as caught:
            VipsFileTileSource(png)
        for words in (repr(str(png)), 'large_image_source_vips.open(path)',
                      f"setConfig('{SETTING}', '')", f'LARGE_IMAGE_{SETTING.upper()}'):
            assert words in str(caught.value)

    def test_holds_from_the_moment_it_is_changed(self, png, setting):
        assert is_left_to_others(png)
        setting('')
        np.testing.assert_array_equal(full(VipsFileTileSource(png)), PIXELS)
        assert large_image_source_vips.canRead(png)
        setting(r'\.png$')
        assert is_left_to_others(png)

    @pytest.mark.parametrize('value', ['(', 5, ['png']])
    def test_what_is_no_expression_is_named(self, png, setting, value):
        setting(value)
        with pytest.raises(TileSourceError, match=f'{SETTING} must be a regular expression'):
            VipsFileTileSource(png)
        assert large_image_source_vips.canRead(png) is False

    _BEFORE = (f"import sys, large_image; large_image.config.setConfig('{SETTING}', ''); "
               'import large_image_source_vips as v; print(v.canRead(sys.argv[1]), '
               'type(large_image.open(sys.argv[1])).__name__)')
    _PLAIN = ('import sys, large_image, large_image_source_vips as v; '
              'print(v.canRead(sys.argv[1]), v.open(sys.argv[1]).sizeX)')

    def test_empty_before_the_import_ignores_nothing(self, png):
        assert run(self._BEFORE, png)[0] == 'True'

    @pytest.mark.parametrize(('value', 'readable'), [
        ('', 'True'), ('""', 'True'), (r'\.tif$', 'True'), (r'\.png$', 'False')])
    def test_environment(self, png, value, readable):
        found = run(self._PLAIN, png, **{f'LARGE_IMAGE_{SETTING.upper()}': value})
        assert found == [readable, '401']

    def test_the_documents_give_a_recipe_that_works(self):
        root = pathlib.Path(__file__).parents[2]
        for name in ('docs/configuration.rst', 'docs/girder.rst'):
            text = (root / name).read_text()
            assert f"'{SETTING}', None" not in text
            assert f'LARGE_IMAGE_{SETTING.upper()}' in text


class TestSignatures:
    BASE = ('encoding', 'jpegQuality', 'jpegSubsampling', 'tiffCompression', 'edge', 'style',
            'noCache')

    @pytest.mark.parametrize(('function', 'first', 'more'), [
        (large_image_source_vips.open, ['path'], []),
        (large_image_source_vips.canRead, ['path'], []),
        (large_image_source_vips.new, [], ['blend', 'accumulator', 'spool']),
        (VipsFileTileSource, ['path'], [])],
        ids=['open', 'canRead', 'new', 'class'])
    def test_are_those_of_large_image(self, function, first, more):
        parameters = inspect.signature(function).parameters
        base = inspect.signature(TileSource.__init__).parameters
        assert list(parameters) == [*first, *self.BASE, *more, 'kwargs']
        for name in self.BASE:
            assert parameters[name].default == base[name].default
            assert parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD

    def test_of_a_subclass_is_its_own(self):
        class Mine(VipsFileTileSource):
            cacheName = 'tilesource'

            def __init__(self, path, note):
                super().__init__(path)

        assert list(inspect.signature(Mine).parameters) == ['path', 'note']

    def test_options_reach_the_source(self, tmp_path):
        tifffile.imwrite(tmp_path / 'a.tif', smooth_pixels(300, 301), photometric='rgb')
        options = {'encoding': 'TIFF', 'jpegQuality': 70, 'jpegSubsampling': 2,
                   'tiffCompression': 'tiff_lzw', 'edge': 'crop'}
        assert large_image_source_vips.canRead(tmp_path / 'a.tif', *options.values(),
                                               json.dumps(STYLE), True)
        for source in (large_image_source_vips.open(tmp_path / 'a.tif', **options, style=STYLE),
                       large_image_source_vips.open(tmp_path / 'a.tif', *options.values(), STYLE),
                       large_image_source_vips.new(**options, style=STYLE),
                       large_image_source_vips.new(*options.values(), STYLE)):
            assert {name: getattr(source, name) for name in options} == options
            assert source.style == STYLE
        assert large_image_source_vips.open(tmp_path / 'a.tif', noCache=True)._noCache

    def test_only_what_was_chosen_is_kept(self, tmp_path):
        tifffile.imwrite(tmp_path / 'a.tif', smooth_pixels(300, 301), photometric='rgb')
        assert 'jpegQuality' not in repr(large_image_source_vips.open(tmp_path / 'a.tif'))

    @pytest.mark.parametrize('given', [
        'x.tif', pathlib.Path('folder/x.tif'), b'x.tif', 'slide', 'JPG', 5, ['PNG']], ids=repr)
    def test_new_takes_no_path(self, given):
        with pytest.raises(TileSourceError, match=r'new\(\) takes no path.*write\(path\)'):
            large_image_source_vips.new(given)

    def test_new_takes_no_path_by_keyword(self):
        with pytest.raises(TileSourceError, match=r"takes no path, and 'x\.tif'"):
            large_image_source_vips.new(path='x.tif')

    @pytest.mark.parametrize('encoding', ['JPEG', 'PNG', 'TIFF', 'TILED'])
    def test_new_takes_an_encoding(self, encoding):
        assert large_image_source_vips.new(encoding).encoding == encoding
