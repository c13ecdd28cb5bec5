"""Attributes that are misspelt, and tiles that are the wrong way round."""

import asyncio
import pickle

import numpy as np
import PIL.Image
import pytest
from large_image.exceptions import TileSourceError

import large_image_source_vips
from large_image_source_vips import VipsFileTileSource

MISSPELT = [
    ('crops', 'crop'), ('Crop', 'crop'), ('minwidth', 'minWidth'), ('min_width', 'minWidth'),
    ('minWidht', 'minWidth'), ('minHieght', 'minHeight'), ('minheight', 'minHeight'),
    ('mmx', 'mm_x'), ('mmX', 'mm_x'), ('mm_X', 'mm_x'), ('mmy', 'mm_y'), ('styles', 'style'),
]


class Described(VipsFileTileSource):
    """A source with properties and attributes of its own."""

    cacheName = 'tilesource'

    minWidths: list

    def __init__(self, path, **kwargs):
        self.croop = 'before the source is finished'
        super().__init__(path, **kwargs)

    @property
    def imageDescription(self):
        return self._description

    @imageDescription.setter
    def imageDescription(self, value):
        self._description = value


@pytest.fixture
def sink():
    return large_image_source_vips.new()


@pytest.fixture
def opened(tmp_path):
    PIL.Image.new('RGB', (30, 20)).save(tmp_path / 'a.tif')
    return large_image_source_vips.open(tmp_path / 'a.tif')


@pytest.mark.parametrize(('name', 'meant'), MISSPELT)
def test_misspelt_attributes_are_errors_that_name_the_right_one(sink, opened, name, meant):
    for source in (sink, opened):
        with pytest.raises(TileSourceError, match=f'{name!r}; did you mean {meant!r}') as caught:
            setattr(source, name, 5)
        assert isinstance(caught.value, AttributeError)
        assert not hasattr(source, name)


@pytest.mark.parametrize('name', [
    '_crops', '_minwidth', 'patient', 'notes', 'width', 'height', 'name', 'size', 'label', 'my',
    'tileWidth', 'tileHeight', 'levels_', 'logger', 'cache'])
def test_other_attributes_can_be_set(sink, opened, name):
    for source in (sink, opened):
        setattr(source, name, 'mine')
        assert getattr(source, name) == 'mine'


def test_attributes_that_exist_can_be_set(sink):
    # large_image's server of tiles for notebooks sets some of them.
    sink.edge, sink.encoding, sink.jpegQuality = '#00000000', 'PNG', 50
    sink.style = {'max': 128}
    sink.JUPYTER_PROXY, sink.JUPYTER_HOST = False, 'localhost'
    sink.crop, sink.minWidth, sink.minHeight, sink.mm_x, sink.mm_y = (0, 0, 5, 5), 9, 8, 0.1, 0.2
    assert (sink.edge, sink.JUPYTER_PROXY, sink.minWidth) == ('#00000000', False, 9)


def test_subclasses_have_attributes_of_their_own(tmp_path):
    PIL.Image.new('RGB', (30, 20)).save(tmp_path / 'a.tif')
    source = Described(tmp_path / 'a.tif', noCache=True)
    source.croop = source.minWidths = source.imageDescription = 'mine'
    assert (source.croop, source.minWidths, source.imageDescription) == ('mine', 'mine', 'mine')
    with pytest.raises(AttributeError, match="did you mean 'imageDescription'"):
        source.imageDescripton = 'x'
    assert pickle.loads(pickle.dumps(source)).croop == 'before the source is finished'


@pytest.mark.parametrize('name', [
    'origin', 'bandRanges', 'bandFormat', 'dtype', 'bandCount', 'metadata', 'frames', 'sizeX',
    'levels'])
def test_attributes_that_are_only_read_say_so(sink, opened, name):
    for source in (sink, opened):
        before = getattr(source, name)
        with pytest.raises(TileSourceError, match=r'(only be read|cannot be set)') as caught:
            setattr(source, name, 5)
        assert isinstance(caught.value, AttributeError)
        assert getattr(source, name) == before


@pytest.mark.parametrize('name', ['crop', 'minWidth', 'minHeight', 'mm_x', 'mm_y'])
def test_an_opened_file_cannot_be_changed(opened, name):
    with pytest.raises(TileSourceError, match='opened from a file'):
        setattr(opened, name, 5)


def test_a_sink_can_be_displayed(sink, capsys):
    pytest.importorskip('ipyleaflet', reason='ipyleaflet shows the viewer')
    pytest.importorskip('tornado', reason='tornado serves the tiles')
    sink.addTile(np.full((300, 400, 3), 99, np.uint8))

    async def show():
        # What IPython calls for display(sink).
        sink._ipython_display_()

    asyncio.run(show())
    assert sink.iplmap is not None
    assert 'Traceback' not in ''.join(capsys.readouterr())


# Tiles


@pytest.mark.parametrize('bands', [1, 2, 3, 4])
@pytest.mark.parametrize('size', [(32, 32), (256, 512)])
def test_tiles_with_their_bands_first_are_refused(sink, bands, size):
    tile = np.zeros((bands, *size), np.uint8)
    with pytest.raises(TileSourceError) as caught:
        sink.addTile(tile)
    for words in (str(tile.shape), "axes='cyx'", 'np.moveaxis(tile, 0, -1)',
                  "interpretation='multiband'"):
        assert words in str(caught.value)
    assert (sink.sizeX, sink.sizeY, sink.bandRanges) == (0, 0, None)


@pytest.mark.parametrize('shape', [
    (5, 32, 32), (3, 31, 32), (3, 32, 31), (3, 300, 4), (32, 32, 3), (256, 256, 40)])
def test_other_shapes_are_taken_as_they_are(sink, shape):
    sink.addTile(np.ones(shape, np.uint8))
    assert (sink.sizeY, sink.sizeX) == shape[:2]


def test_an_interpretation_says_that_the_bands_come_last(sink):
    tile = np.arange(3 * 40 * 50, dtype=np.uint16).reshape(3, 40, 50)
    sink.addTile(tile, interpretation='multiband')
    np.testing.assert_array_equal(sink.getRegion(format='numpy')[0], tile)


@pytest.mark.parametrize('dtype', [bool, np.uint8, float])
@pytest.mark.parametrize('bands', [1, 2, 3, 4, 7])
def test_a_mask_of_several_bands_pastes_where_any_is_true(sink, bands, dtype):
    generator = np.random.default_rng(bands)
    tile = generator.integers(1, 256, (40, 50, 3), np.uint8)
    mask = (generator.random((40, 50, bands)) < 0.3).astype(dtype)
    sink.addTile(tile, mask=mask)
    found = sink.getRegion(format='numpy')[0]
    expected = np.where(mask.any(axis=2)[..., np.newaxis], tile, 0)
    np.testing.assert_array_equal(found[..., :3], expected)
    np.testing.assert_array_equal(found[..., 3] > 0, mask.any(axis=2))
