"""
Sources in a notebook: they live as long as a map shows them.
"""

import asyncio
import base64
import gc
import importlib.util
import io
import json
import re
import urllib.error
import urllib.request
import weakref

import large_image
import numpy as np
import PIL.Image
import pytest
import tifffile
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.pixels import random_pixels

_LACKING = [
    name for name in ('ipyleaflet', 'IPython', 'tornado') if not importlib.util.find_spec(name)]
needs_maps = pytest.mark.skipif(
    bool(_LACKING), reason=f'not installed: {", ".join(_LACKING)} (see `tox -e notebook`)')
_LACKING_KERNEL = _LACKING + [
    name for name in ('nbclient', 'nbformat', 'ipykernel') if not importlib.util.find_spec(name)]
needs_a_kernel = pytest.mark.skipif(
    bool(_LACKING_KERNEL),
    reason=f'not installed: {", ".join(_LACKING_KERNEL)} (see `tox -e notebook`)')

PIXELS = random_pixels((600, 700, 3))
STYLE = {'bands': [{'band': 1, 'palette': ['#000', '#f00']}]}


@pytest.fixture
def slide(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', tile=(256, 256))
    return tmp_path / 'a.tif'


@pytest.fixture
def by_port(monkeypatch):
    """Have the tiles served under a plain address, whatever proxies are installed."""
    monkeypatch.setattr(large_image_source_vips.VipsFileTileSource, 'JUPYTER_PROXY', False)


@pytest.fixture
def no_collector():
    """Nothing is freed but by the count of its references."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def new_sink(**kwargs):
    sink = large_image_source_vips.new(encoding='PNG', **kwargs)
    sink.addTile(PIXELS)
    return sink


KINDS = {
    'file': lambda path: large_image.open(path, noCache=True, encoding='PNG'),
    'opened on purpose': lambda path: large_image_source_vips.open(
        path, noCache=True, encoding='PNG'),
    'styled file': lambda path: large_image.open(
        path, noCache=True, encoding='PNG', style=STYLE),
    'style set later': lambda path: _restyled(large_image.open(
        path, noCache=True, encoding='PNG')),
    'sink': lambda path: new_sink(),
    'styled sink': lambda path: new_sink(style=STYLE),
    "large_image's sink": lambda path: _filled(large_image.new(encoding='PNG')),
}


@pytest.fixture(params=KINDS)
def make(request):
    return KINDS[request.param]


def _restyled(source):
    source.style = STYLE
    return source


def _filled(sink):
    sink.addTile(PIXELS)
    return sink


def get(url, **place):
    """The status and the body of an answer over HTTP."""
    for name, value in place.items():
        url = url.replace(f'{{{name}}}', str(value))
    try:
        with urllib.request.urlopen(urllib.request.Request(url.replace(' ', '%20'))) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


async def first_tile(url):
    """The pixels of the first tile of full resolution that a layer shows, without alpha."""
    status, body = await asyncio.to_thread(get, url, x=0, y=0, z=2)
    assert status == 200, body
    return np.asarray(PIL.Image.open(io.BytesIO(body)).convert('RGB'))


def drop_all_widgets():
    import ipywidgets

    ipywidgets.Widget.close_all()


class TestOverHTTP:
    @needs_maps
    def test_tiles_are_served_when_the_variable_is_gone(self, by_port, make, slide):
        def show(path):
            source = make(path)
            source._ipython_display_()
            return source._map.layer.url, weakref.ref(source)

        async def look():
            url, shown = show(slide)
            gc.collect()
            found = await first_tile(url)
            missing, _ = await asyncio.to_thread(get, url, x=99, y=0, z=2)
            drop_all_widgets()
            gc.collect()
            return found, missing, shown()

        found, missing, left = asyncio.run(look())
        assert found.shape == (256, 256, 3)
        np.testing.assert_array_equal(found[..., 0], PIXELS[:256, :256, 0])
        assert missing == 404
        assert left is None

    @needs_maps
    def test_a_layer_alone_is_enough(self, by_port, make, slide):
        async def look():
            layer = make(slide).as_leaflet_layer()
            gc.collect()
            return await first_tile(layer.url)

        found = asyncio.run(look())
        np.testing.assert_array_equal(found[..., 0], PIXELS[:256, :256, 0])
        drop_all_widgets()

    @needs_maps
    def test_a_layer_that_is_closed_lets_the_source_go(self, by_port, make, slide):
        async def look():
            source = make(slide)
            shown = weakref.ref(source)
            first, second = source.as_leaflet_layer(), source.as_leaflet_layer()
            del source
            first.close()
            del first
            gc.collect()
            assert shown() is not None
            np.testing.assert_array_equal(
                (await first_tile(second.url))[..., 0], PIXELS[:256, :256, 0])
            second.close()
            del second
            gc.collect()
            return shown()

        assert asyncio.run(look()) is None

    @needs_maps
    def test_each_layer_shows_its_own_source(self, by_port, slide, tmp_path):
        others = random_pixels((600, 700, 3), seed=1)
        tifffile.imwrite(tmp_path / 'b.tif', others, photometric='rgb', tile=(256, 256))

        async def look():
            urls = [large_image.open(path, noCache=True, encoding='PNG').as_leaflet_layer().url
                    for path in (slide, tmp_path / 'b.tif')]
            gc.collect()
            return [await first_tile(url) for url in urls]

        found = asyncio.run(look())
        np.testing.assert_array_equal(found[0], PIXELS[:256, :256])
        np.testing.assert_array_equal(found[1], others[:256, :256])
        drop_all_widgets()

    @needs_maps
    def test_metadata_and_styles_of_the_address(self, by_port, slide):
        async def look():
            source = large_image.open(slide, noCache=True, encoding='PNG')
            url = source.as_leaflet_layer().url
            del source
            gc.collect()
            root = url.split('/tile?')[0]
            status, body = await asyncio.to_thread(get, f'{root}/metadata')
            style = urllib.request.quote(json.dumps(
                {'bands': [{'band': 2, 'palette': ['#000', '#f00']}]}))
            return status, json.loads(body), await first_tile(f'{url}&style={style}')

        status, metadata, styled = asyncio.run(look())
        assert (status, metadata['sizeX'], metadata['levels']) == (200, 700, 3)
        np.testing.assert_array_equal(styled[..., 0], PIXELS[:256, :256, 1])
        assert not styled[..., 1:].any()
        drop_all_widgets()

    @needs_maps
    def test_the_map_has_the_size_of_the_image(self, by_port, make, slide):
        async def look():
            source = make(slide)
            source._ipython_display_()
            return source.iplmap.crs, source.to_map((10, 20)), source.from_map((580, 10))

        crs, there, back = asyncio.run(look())
        assert crs['bounds'] == [[0, 0], [700, 600]]
        assert (there, back) == ((580, 10), (10, 20))
        drop_all_widgets()

    @needs_maps
    def test_an_empty_sink_can_be_shown_and_filled_later(self, by_port):
        async def look():
            sink = large_image_source_vips.new(encoding='PNG')
            sink._ipython_display_()
            url = sink._map.layer.url
            empty, _ = await asyncio.to_thread(get, url, x=0, y=0, z=2)
            sink.addTile(PIXELS)
            return empty, await first_tile(url)

        empty, found = asyncio.run(look())
        assert empty == 404
        np.testing.assert_array_equal(found, PIXELS[:256, :256])
        drop_all_widgets()

    @needs_maps
    @pytest.mark.parametrize('proxy', [True, 'true', '/user/me/proxy/'])
    def test_a_proxy_is_set_on_the_source_itself(self, slide, proxy):
        async def look():
            source = large_image.open(slide, noCache=True)
            source.JUPYTER_PROXY = proxy
            return source.as_leaflet_layer().url, source._jupyter_server_manager.port

        url, port = asyncio.run(look())
        prefix = '/user/me/proxy' if proxy == '/user/me/proxy/' else '/proxy'
        assert url.startswith(f'{prefix}/{port}/tile?')
        drop_all_widgets()

    @needs_maps
    def test_a_cached_source_is_not_shown_and_not_kept(self, slide):
        async def look():
            with pytest.raises(TileSourceError, match='cached'):
                large_image_source_vips.open(slide).as_leaflet_layer()

        asyncio.run(look())


class TestGrowingImage:
    """A map of an image that is being stitched shows what is added."""

    @staticmethod
    async def idle():
        """Wait until the notebook has no more to do."""
        for _ in range(5):
            await asyncio.sleep(0)

    @needs_maps
    def test_tiles_are_loaded_again_after_a_change(self, by_port):
        async def look():
            sink = new_sink()
            sink._ipython_display_()
            layer, before = sink._map.layer, sink._map.layer.url
            sink.addTile(255 - PIXELS)
            sink.addTile(255 - PIXELS)
            await self.idle()
            assert sink._map.layer is layer
            return before, layer.url, await first_tile(layer.url)

        before, after, found = asyncio.run(look())
        assert after != before
        assert after.split('&state=')[0] == before
        np.testing.assert_array_equal(found, 255 - PIXELS[:256, :256])
        drop_all_widgets()

    @needs_maps
    @pytest.mark.parametrize('empty', [False, True], ids=['grown', 'first tile'])
    def test_the_map_grows_with_the_image(self, by_port, empty):
        async def look():
            sink = large_image_source_vips.new(encoding='PNG') if empty else new_sink()
            sink._ipython_display_()
            box = sink._box()
            sink.addTile(np.tile(PIXELS, (2, 2, 1)))
            await self.idle()
            assert sink._box() is box
            assert sink.iplmap in box.children
            status, body = await asyncio.to_thread(get, sink._map.layer.url, x=2, y=1, z=3)
            assert status == 200
            tile = np.asarray(PIL.Image.open(io.BytesIO(body)).convert('RGB'))
            return sink.iplmap.crs['bounds'], sink.to_map((0, 0)), tile

        bounds, corner, tile = asyncio.run(look())
        assert bounds == [[0, 0], [1400, 1200]]
        assert corner == (1200, 0)
        np.testing.assert_array_equal(
            tile, np.tile(PIXELS, (2, 2, 1))[256:512, 512:768])
        drop_all_widgets()

    @needs_maps
    def test_threads_may_add(self, by_port):
        async def look():
            sink = new_sink()
            sink._ipython_display_()
            before = sink._map.layer.url
            await asyncio.to_thread(lambda: [sink.addTile(PIXELS) for _ in range(20)])
            await self.idle()
            return before, sink._map.layer.url

        before, after = asyncio.run(look())
        assert after != before
        drop_all_widgets()

    @needs_maps
    def test_adding_goes_on_when_the_notebook_is_gone(self, by_port):
        async def look():
            sink = new_sink()
            sink._ipython_display_()
            return sink

        sink = asyncio.run(look())
        sink.addTile(255 - PIXELS)
        sink.addTile(PIXELS, x=700)
        assert sink.sizeX == 1400
        drop_all_widgets()

    @needs_maps
    def test_a_pending_refresh_keeps_no_image(self, by_port):
        async def look():
            sink = new_sink()
            sink._ipython_display_()
            sink.addTile(PIXELS)
            shown = weakref.ref(sink)
            del sink
            drop_all_widgets()
            await self.idle()
            gc.collect()
            return shown()

        assert asyncio.run(look()) is None


class TestStillPicture:
    """What a notebook shows without a map: a thumbnail and a table."""

    @staticmethod
    def thumbnail(source):
        return np.asarray(PIL.Image.open(io.BytesIO(source._repr_png_())))

    def test_thumbnail_is_the_image(self, slide):
        found = self.thumbnail(large_image_source_vips.open(slide))
        assert found.shape == (219, 256, 3)
        assert abs(found.mean() - PIXELS.mean()) < 1

    def test_table_names_the_file_and_its_size(self, slide):
        shown = large_image_source_vips.open(slide)._repr_html_()
        assert 'a.tif' in shown
        assert '700 x 600 pixels, 3 levels' in shown
        assert 'uint8, RGB' in shown
        picture = base64.b64decode(re.search('base64,([^"]+)"', shown)[1])
        assert PIL.Image.open(io.BytesIO(picture)).size == (256, 219)

    def test_names_are_text_not_markup(self, tmp_path):
        path = tmp_path / '<b>&amp.tif'
        tifffile.imwrite(path, PIXELS, photometric='rgb')
        shown = large_image_source_vips.open(path)._repr_html_()
        assert '&lt;b&gt;&amp;amp.tif' in shown
        assert '<b>' not in shown

    def test_an_empty_image_is_a_sentence(self):
        sink = large_image_source_vips.new()
        assert sink._repr_png_() is None
        assert sink._repr_html_() == '<p>An image without tiles; add some with addTile.</p>'

    def test_an_image_that_grows(self):
        sink = new_sink()
        assert '700 x 600 pixels' in sink._repr_html_()
        assert 'file' not in sink._repr_html_()
        sink.addTile(PIXELS, x=-700)
        assert '1,400 x 600 pixels' in sink._repr_html_()

    @pytest.mark.parametrize('array', [
        np.linspace(0, 1, 60000, dtype='float32').reshape(200, 300),
        np.linspace(0, 60000, 60000).astype('uint16').reshape(200, 300),
        np.linspace(-5, 5, 60000, dtype='float64').reshape(200, 300)],
        ids=['probabilities', '16 bit', 'signed'])
    def test_values_of_other_ranges_can_be_seen(self, array):
        sink = large_image_source_vips.new()
        sink.addTile(array)
        found = self.thumbnail(sink)
        assert (found.min(), found.max()) == (0, 255)
        assert (np.diff(found.mean(axis=1)) >= 0).all()

    @pytest.mark.parametrize(('bands', 'shape'), [
        (1, (200, 250, 2)), (2, (200, 250, 2)), (4, (200, 250, 4)), (7, (200, 250, 3))])
    def test_any_number_of_bands(self, bands, shape):
        sink = large_image_source_vips.new()
        sink.addTile(random_pixels((200, 250, bands)))
        assert self.thumbnail(sink).shape == shape
        # An image that grows has alpha, for its holes.
        words = {1: 'gray and alpha', 2: 'gray and alpha', 4: 'RGB and alpha', 7: '7 bands'}
        assert words[bands] in sink._repr_html_()

    def test_a_style_is_seen(self, slide):
        source = large_image_source_vips.open(slide, style={'bands': [
            {'band': 1, 'palette': ['#000', '#0f0'], 'min': 0, 'max': 255}]})
        found = self.thumbnail(source)
        assert not found[..., [0, 2]].any()
        assert abs(found[..., 1].mean() - PIXELS[..., 0].mean()) < 1

    def test_samples_that_are_no_numbers(self):
        array = np.full((64, 64), np.nan, 'float32')
        sink = large_image_source_vips.new()
        sink.addTile(array)
        assert not self.thumbnail(sink).any()
        sink.addTile(np.array([[np.inf, 1], [2, 3]], 'float32'))
        assert self.thumbnail(sink).max() > 0


class TestWithoutAMap:
    def test_a_source_is_freed_by_counting_alone(self, no_collector, make, slide):
        source = make(slide)
        source.getTile(0, 0, 0)
        source.getRegion(output={'maxWidth': 100})
        source.getMetadata()
        freed = [weakref.ref(source), weakref.ref(source._unstyled)]
        del source
        assert [ref() for ref in freed] == [None, None]

    @needs_maps
    def test_asking_for_places_on_the_map_makes_none(self, no_collector, make, slide):
        source = make(slide)
        source.to_map((1, 2))
        source.from_map((1, 2))
        assert source.iplmap is None
        freed = weakref.ref(source)
        del source
        assert freed() is None

    @needs_maps
    def test_a_source_that_is_refused_a_layer_is_freed(self, no_collector, slide, monkeypatch):
        source = large_image_source_vips.open(slide, noCache=True)
        monkeypatch.setattr(source, '_noCache', False)
        with pytest.raises(TileSourceError):
            source.as_leaflet_layer()
        monkeypatch.undo()
        freed = weakref.ref(source)
        del source
        assert freed() is None


PREPARE = """
import asyncio, gc, io, urllib.request
import large_image, large_image_source_vips, numpy, PIL.Image
from IPython.display import display
large_image.tilesource.jupyter.IPyLeafletMixin.JUPYTER_PROXY = False
expected = numpy.load({pixels!r})
slide, png = {slide!r}, {png!r}
STYLE = {style!r}

def show(source):
    display(source)
    return source._map.layer.url

async def check(url):
    gc.collect()
    def fetch():
        place = url
        for name, value in (('{{x}}', '0'), ('{{y}}', '0'), ('{{z}}', '2'), (' ', '%20')):
            place = place.replace(name, value)
        with urllib.request.urlopen(place) as answer:
            return answer.status, answer.read()
    status, body = await asyncio.to_thread(fetch)
    assert status == 200
    tile = numpy.asarray(PIL.Image.open(io.BytesIO(body)).convert('RGB'))
    assert (tile[..., 0] == expected[:256, :256, 0]).all()
    print('served')
"""
CELLS = {
    'file': 'url = show(large_image.open(slide))',
    'opened on purpose': 'url = show(large_image_source_vips.open(png))',
    'style': 'url = show(large_image.open(slide, style=STYLE))',
    'not cached': 'url = show(large_image.open(slide, noCache=True))',
    'layer on a map': (
        'import ipyleaflet\n'
        'chart = ipyleaflet.Map()\n'
        'chart.add(large_image.open(slide))\n'
        'display(chart)\n'
        'url = chart.layers[-1].url'),
    'sink': (
        'def stitch():\n'
        '    sink = large_image_source_vips.new()\n'
        '    sink.addTile(expected)\n'
        '    return show(sink)\n'
        'url = stitch()'),
    "large_image's sink with a style": (
        'def stitch():\n'
        '    sink = large_image.new(style=STYLE)\n'
        '    sink.addTile(expected)\n'
        '    return show(sink)\n'
        'url = stitch()'),
}


@needs_a_kernel
def test_a_real_notebook_shows_sources_whose_variables_are_gone(slide, tmp_path, monkeypatch):
    import nbclient
    import nbformat.v4

    np.save(tmp_path / 'pixels.npy', PIXELS)
    PIL.Image.fromarray(PIXELS).save(tmp_path / 'a.png')
    monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
    monkeypatch.setenv('JUPYTER_RUNTIME_DIR', str(tmp_path / 'runtime'))
    sources = [PREPARE.format(pixels=str(tmp_path / 'pixels.npy'), slide=str(slide),
                              png=str(tmp_path / 'a.png'), style=STYLE)]
    for code in CELLS.values():
        sources += [code, 'await check(url)']
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in sources])
    # A cell that fails is an error here, with what it printed.
    nbclient.NotebookClient(notebook, timeout=300, kernel_name='python3').execute()
    for name, shown, checked in zip(CELLS, notebook.cells[1::2], notebook.cells[2::2], strict=True):
        kinds = [kind for output in shown.outputs for kind in output.get('data', {})]
        assert 'application/vnd.jupyter.widget-view+json' in kinds, name
        assert [output.text for output in checked.outputs] == ['served\n'], name
