"""
The viewer that large_image shows in notebooks: its tiles are served for as long
as there is a map, also when the variable that held the source is gone.
"""

import asyncio
import gc
import io
import re
import sys
import urllib.error
import urllib.request
import weakref

import numpy as np
import PIL.Image
import pytest
import tifffile
from large_image import config
from reading_tools import smooth_pixels

import large_image_source_vips

KINDS = ['file', 'styled', 'open', 'sink']


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, smooth_pixels(700, 900), photometric='rgb', tile=(256, 256))
    return path


@pytest.fixture
def _in_a_notebook(monkeypatch):
    """As large_image sets it in notebooks, where styles are changed later."""
    monkeypatch.setitem(config.ConfigValues, 'cache_sources', False)
    config.getConfig.cache_clear()
    yield
    monkeypatch.undo()
    config.getConfig.cache_clear()


@pytest.fixture
def _viewer():
    pytest.importorskip('ipyleaflet', reason='ipyleaflet shows the viewer')
    pytest.importorskip('tornado', reason='tornado serves the tiles')


def make(kind, path):
    if kind == 'file':
        return large_image_source_vips.VipsFileTileSource(str(path))
    if kind == 'styled':
        return large_image_source_vips.VipsFileTileSource(
            str(path), style={'bands': [{'band': 1, 'palette': '#fff', 'min': 0, 'max': 255}]})
    if kind == 'open':
        return large_image_source_vips.open(str(path), noCache=True)
    sink = large_image_source_vips.new()
    sink.addTile(smooth_pixels(700, 900))
    return sink


def get(url):
    """The status and the picture at a URL, or what the server says of the error."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, np.asarray(PIL.Image.open(io.BytesIO(answer.read())))
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read()


def tile_url(layer, x, y, z):
    """The URL of a tile, without a proxy between."""
    port, rest = re.search(r'(\d+)/(tile.*?)&repr=', layer.url).groups()
    return f'http://127.0.0.1:{port}/{rest}'.format(x=x, y=y, z=z)


@pytest.mark.usefixtures('_in_a_notebook', '_viewer')
@pytest.mark.parametrize('how', ['layer', 'map'])
@pytest.mark.parametrize('kind', KINDS)
def test_tiles_are_served_when_the_variable_is_gone(path, kind, how, capsys):
    async def look():
        source = make(kind, path)
        expected = np.asarray(source.getTile(1, 1, 2, pilImageAllowed=True))
        if how == 'layer':
            layer = source.as_leaflet_layer()
        else:
            source._ipython_display_()
            layer = source.iplmap.layers[0]
        del source
        gc.collect()
        loop = asyncio.get_running_loop()
        status, found = await loop.run_in_executor(None, get, tile_url(layer, 1, 1, 2))
        assert (status, found.shape[:2]) == (200, (256, 256))
        # Outside of notebooks large_image encodes as JPEG.
        np.testing.assert_allclose(found.reshape(256, 256, -1)[..., 0],
                                   expected.reshape(256, 256, -1)[..., 0], atol=10)
        return (await loop.run_in_executor(None, get, tile_url(layer, 9, 0, 2)))[0]

    assert asyncio.run(look()) == 404
    capsys.readouterr()


@pytest.mark.usefixtures('_in_a_notebook', '_viewer')
def test_the_source_goes_with_its_layer(path):
    async def show():
        source = make('file', path)
        return weakref.ref(source), source.as_leaflet_layer()

    seen, layer = asyncio.run(show())
    gc.collect()
    assert seen() is not None
    layer.close()
    del layer
    gc.collect()
    assert seen() is None


@pytest.mark.usefixtures('_in_a_notebook')
@pytest.mark.parametrize('kind', KINDS)
def test_a_source_without_a_map_is_freed_at_once(path, kind):
    gc.disable()
    try:
        seen = weakref.ref(make(kind, path))
        assert seen() is None
    finally:
        gc.enable()


CELLS = ["""
import gc, re, asyncio, urllib.request
import large_image
from ipyleaflet import TileLayer

def show(path):
    source = large_image.open(path)
    display(source)
""", """
show(PATH)
gc.collect();
""", """
(layer,) = [found for found in gc.get_objects() if isinstance(found, TileLayer)]
port, rest = re.search(r'(\\d+)/(tile.*?)&repr=', layer.url).groups()
url = f'http://127.0.0.1:{port}/{rest}'.format(x=1, y=0, z=1)

def status():
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.status, answer.read()[:4]

print(await asyncio.get_running_loop().run_in_executor(None, status))
"""]


@pytest.mark.usefixtures('_viewer')
def test_a_notebook_shows_what_a_function_displayed(path):
    nbclient = pytest.importorskip('nbclient', reason='nbclient runs notebooks')
    nbformat = pytest.importorskip('nbformat', reason='nbformat makes notebooks')
    pytest.importorskip('ipykernel', reason='ipykernel runs their cells')
    cells = [f'import sys; sys.path[:0] = {sys.path!r}\nPATH = {str(path)!r}', *CELLS]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, kernel_name='python3', timeout=120).execute()
    shown, said = notebook.cells[2].outputs, notebook.cells[3].outputs
    assert any('application/vnd.jupyter.widget-view+json' in output.get('data', {})
               for output in shown)
    assert said[0]['text'] == "(200, b'\\x89PNG')\n"
