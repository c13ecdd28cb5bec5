"""
Setting attributes that a source does not have.
"""

import pickle

import numpy as np
import pytest
import tifffile
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.pixels import random_pixels
from large_image_source_vips import VipsFileTileSource

MISSPELT = {
    'minwidth': 'minWidth', 'min_width': 'minWidth', 'MinWidth': 'minWidth',
    'minWdith': 'minWidth', 'minHieght': 'minHeight', 'minheight': 'minHeight',
    'mmx': 'mm_x', 'mm_X': 'mm_x', 'MM_Y': 'mm_y', 'mmY': 'mm_y',
    'Crop': 'crop', 'CROP': 'crop', 'corp': 'crop', 'cropp': 'crop', 'crop_': 'crop',
    'Style': 'style', 'jpegquality': 'jpegQuality', 'encodng': 'encoding'}
# The names of other sinks, exact and misspelt.
NOT_SUPPORTED = {
    'imageDescription': 'imageDescription', 'imageDescripton': 'imageDescription',
    'image_description': 'imageDescription',
    'channelNames': 'channelNames', 'channelnames': 'channelNames', 'channelName': 'channelNames',
    'channelColors': 'channelColors', 'channelColours': 'channelColors',
    'frameAxes': 'frameAxes', 'frameaxis': 'frameAxes', 'frameUnits': 'frameUnits',
    'frame_values': 'frameValues', 'additionalMetadata': 'additionalMetadata',
    'additionalMetaData': 'additionalMetadata', 'magnification': 'magnification',
    'magnificaton': 'magnification', 'projection': 'projection', 'gcps': 'gcps', 'GCPs': 'gcps'}
UNLIKE = [
    'note', 'label', 'owner', 'patient', 'width', 'maxWidth', 'scanner', 'x', 'myData', 'path',
    'title', 'height', 'my', 'project', 'mm_z', 'write_log', 'tiles', 'origin2D',
    'cropped_by_hand']
READ_ONLY = [
    'origin', 'bandRanges', 'bandFormat', 'dtype', 'bandCount', 'sizeX', 'sizeY', 'levels',
    'metadata', 'geospatial', 'frames']


@pytest.fixture(params=['sink', 'sink with a style', 'file', 'cached file', 'styled file'])
def source(request, tmp_path):
    if 'sink' in request.param:
        style = {'band': 1} if 'style' in request.param else None
        source = large_image_source_vips.new(style=style)
        source.addTile(random_pixels((40, 50, 3)))
        return source
    tifffile.imwrite(tmp_path / 'a.tif', random_pixels((40, 50, 3)), photometric='rgb')
    return large_image_source_vips.open(
        tmp_path / 'a.tif', noCache='cached' not in request.param,
        style={'band': 1} if 'styled' in request.param else None)


def refused(source, name, match):
    with pytest.raises(TileSourceError, match=match) as caught:
        setattr(source, name, 1)
    assert isinstance(caught.value, AttributeError)
    assert name not in vars(source)
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)


@pytest.mark.parametrize('name', MISSPELT)
def test_a_misspelt_name_is_an_error_that_gives_the_right_one(source, name):
    refused(source, name, f"no attribute '{name}'; did you mean '{MISSPELT[name]}'")


def is_settable(name):
    return getattr(getattr(VipsFileTileSource, name, None), 'fset', None) is not None


@pytest.mark.parametrize('name', [
    name for name in NOT_SUPPORTED if not is_settable(NOT_SUPPORTED[name])])
def test_what_only_other_sinks_have_is_an_error(source, name):
    meant = '' if name == NOT_SUPPORTED[name] else NOT_SUPPORTED[name]
    refused(source, name, f"'{name}' is not supported.*{meant}")


@pytest.mark.parametrize('name', READ_ONLY)
def test_what_follows_from_the_image_can_only_be_read(source, name):
    before = repr(getattr(source, name))
    refused(source, name, f"'{name}' is read-only")
    assert repr(getattr(source, name)) == before


@pytest.mark.parametrize('name', UNLIKE)
def test_other_names_are_the_users_own(source, name):
    setattr(source, name, 'mine')
    assert getattr(source, name) == 'mine'
    setattr(source, name, 'again')
    assert getattr(source, name) == 'again'


@pytest.mark.parametrize('name', ['_minwidth', '_crop', '__mmx', '_imageDescription'])
def test_names_with_an_underscore_in_front_are_free(source, name):
    setattr(source, name, 1)
    assert getattr(source, name) == 1


@pytest.mark.parametrize(('name', 'value'), [
    ('edge', '#00000000'), ('encoding', 'PNG'), ('jpegQuality', 50), ('tiffCompression', 'jpeg'),
    ('JUPYTER_PROXY', True), ('JUPYTER_HOST', 'example.org'), ('tileWidth', 256),
    ('newPriority', None), ('logger', None)])
def test_what_a_source_has_can_be_set(source, name, value):
    setattr(source, name, value)
    assert getattr(source, name) == value


def test_a_sink_is_set_up_as_ever():
    sink = large_image_source_vips.new()
    sink.minWidth, sink.minHeight, sink.crop = 100, 80, (1, 2, 30, 20)
    sink.mm_x = sink.mm_y = 0.25
    sink.style = {'band': 1}
    assert (sink.minWidth, sink.minHeight, sink.crop) == (100, 80, (1, 2, 30, 20))
    assert (sink.mm_x, sink.mm_y, sink.style) == (0.25, 0.25, {'band': 1})


@pytest.mark.parametrize('name', ['crop', 'minWidth', 'minHeight', 'mm_x', 'mm_y'])
def test_a_file_keeps_its_own_error(tmp_path, name):
    tifffile.imwrite(tmp_path / 'a.tif', np.zeros((40, 50), 'uint8'))
    with pytest.raises(TileSourceError, match='opened from a file'):
        setattr(large_image_source_vips.open(tmp_path / 'a.tif'), name, 1)


class Mine(VipsFileTileSource):
    """A subclass with attributes of its own."""

    cacheName = 'tilesource'
    Crop = None                 # a class attribute
    minwidth: int               # declared only

    def __init__(self, path, **kwargs):
        self.mmx = 1            # before and after the base class is set up
        super().__init__(path, **kwargs)
        self.projection = 'a slide'

    @property
    def channelNames(self):
        return self._names

    @channelNames.setter
    def channelNames(self, names):
        self._names = names


def test_a_subclass_has_what_it_says_it_has(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', np.zeros((40, 50), 'uint8'))
    source = Mine(tmp_path / 'a.tif', noCache=True)
    for name, value in (('mmx', 2), ('projection', 'other'), ('Crop', 3), ('minwidth', 4),
                        ('channelNames', ['DAPI'])):
        setattr(source, name, value)
        assert getattr(source, name) == value
    refused(source, 'channelnames', "did you mean 'channelNames'")
