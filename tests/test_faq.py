"""
The errors quoted in docs/faq.rst are raised.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
from pathlib import Path

import large_image
import numpy as np
import pytest
import tifffile

import large_image_source_vips
from helpers.pixels import random_pixels
from large_image_source_vips import new

PAGE = Path(__file__).parent.parent / 'docs' / 'faq.rst'
TILE = random_pixels((600, 700, 3))


def quoted() -> list[str]:
    """The texts that the page explains."""
    page = PAGE.read_text(encoding='utf-8').partition('Questions\n---')[0]
    return re.findall(r'^``(.+)``$', page, re.MULTILINE)


def damaged(path):
    """A file whose tile at the column 1 and row 1 of full resolution is damaged."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        where, count = page.dataoffsets[4], page.databytecounts[4]
    with open(path, 'r+b') as file:
        file.seek(where + 50)
        file.write(b'\xff' * (count - 50))


def open_damaged():
    sink().write('a.tif')
    damaged('a.tif')
    source = large_image_source_vips.open('a.tif')
    source.getTile(1, 1, source.levels - 1, numpyAllowed='always')


def sink(pixels=TILE, **options):
    image = new(**options)
    image.addTile(pixels)
    return image


def opened(name='a.tif', **options):
    sink().write('a.tif')
    os.replace('a.tif', name)
    return large_image_source_vips.open(name, **options)


def of_bytes(name, data):
    Path(name).write_bytes(data)
    large_image_source_vips.open(name)


def stack():
    image = new()
    for channel in range(5):
        image.addTile(TILE[..., 0], c=channel)
    image.write('stack.ome.tif')
    return large_image_source_vips.open('stack.ome.tif')


def pdf():
    if 'pdf' in large_image_source_vips.VipsFileTileSource.extensions:
        pytest.skip('this libvips reads PDF')
    of_bytes('a.pdf', b'%PDF-1.4\n' + bytes(1000))


def by_large_image():
    opened('slide.svs')
    large_image.tilesource.loadTileSources()
    if set(large_image.tilesource.AvailableTileSources) > {'vips'}:
        pytest.skip('other sources are installed')
    large_image.open('slide.svs')


def in_a_fork(image):
    if not hasattr(os, 'fork'):
        pytest.skip('no fork')
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        text = b''
        try:
            image.addTile(TILE)
        except large_image.exceptions.TileSourceError as exc:
            text = str(exc).encode()
        finally:
            os.write(writing, text)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(process, 0)
    raise large_image.exceptions.TileSourceError(text)


def in_a_foreign_folder():
    Path('folder').mkdir()
    Path('folder', 'thesis.tex').write_text('a')
    new(spool='folder')


def with_one_key():
    image = sink()
    image.addTile(TILE, key='a')
    image.addTile(TILE ^ 1, key='a')


def with_warnings_as_errors(write):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        write()


# A word of the quoted text -> what raises it.
RAISE = {
    'is left to other': lambda: opened('slide.svs') and large_image_source_vips.VipsFileTileSource(
        'slide.svs'),
    'No available': by_large_image,
    'does not recognise its format': lambda: of_bytes('a.tif', b'hello' * 100),
    'looks like PDF': pdf,
    'Cannot read frame': open_damaged,
    '(bands, rows, cols)': lambda: new().addTile(np.zeros((3, 256, 256), np.uint8)),
    'a whole number': lambda: new().addTile(TILE, 1.5),
    '7 multiband': lambda: sink().addTile(np.zeros((50, 50, 7), np.uint8)),
    'int64': lambda: new().addTile(np.array([[0, 2 ** 40]])),
    'takes no path': lambda: new('a.tif'),
    'opened from a file': lambda: opened().addTile(TILE),
    'minwidth': lambda: setattr(new(), 'minwidth', 5),
    'frame=': lambda: stack().write('a.png'),
    'writes no': lambda: sink().write('out.xyz'),
    'uint16 samples exactly': lambda: sink(TILE.astype(np.uint16) * 9).write('out.jpg'),
    'compression=': lambda: sink(TILE.astype(np.uint16)).write('a.tif', compression='jpeg'),
    'pickled': lambda: pickle.dumps(sink()),
    'another process': lambda: in_a_fork(sink()),
    'A key names': with_one_key,
    'order=': lambda: sink().addTile(TILE, order=1),
    "blend='mean'": lambda: new(blend='mean').addTile(TILE[..., 0], interpretation='labels'),
    'not a spool': in_a_foreign_folder,
    'closed': lambda: [image.close() or image.addTile(TILE) for image in [sink()]],
    'with a palette': lambda: [setattr(image, 'palette', ['red']) or image.write('a.tif')
                               for image in [sink()]],
    'at most 64': lambda: with_warnings_as_errors(lambda: sink(TILE[..., 0] % 8).write('a.tif')),
}


def matches(text: str, raised: str) -> bool:
    """
    Whether a text of the page is what was raised, or its beginning.

    Numbers and names of files differ, and ``...`` is any text.
    """
    text = re.sub(r"'?[\w.]*\.(tif|svs|pdf|jpg|xyz)'?", '...', text)
    pattern = re.sub(r'\d+(\\\.\d+)*', r'[\\d.]+', re.escape(text)).replace(r'\.\.\.', '.*')
    return re.search(pattern, raised, re.DOTALL) is not None


def test_each_text_has_something_that_raises_it():
    assert len(quoted()) == len(RAISE)
    for word in RAISE:
        assert sum(word in text for text in quoted()) == 1, word


@pytest.mark.parametrize('word', RAISE)
def test_text_is_raised(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = next(text for text in quoted() if word in text)
    with pytest.raises((large_image.exceptions.TileSourceError, pickle.PicklingError,
                        UserWarning)) as raised:
        RAISE[word]()
    assert matches(text, str(raised.value)), str(raised.value)


def test_texts_are_compared():
    assert matches("Cannot read frame 0 of 'a.tif': ...", "Cannot read frame 12 of '/b/c.tif': it")
    assert not matches("Cannot read frame 0 of 'a.tif': ...", "Cannot read level 1 of 'a.tif': it")
