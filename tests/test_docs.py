"""
Every Python block of the documentation and the README runs.

The blocks of a page run one after the other, with the same names, in a folder that holds
the files that pages speak of.  A comment ``.. needs: torch`` above a block names a package
without which that block is left out; no other block may need what it defines.
"""

from __future__ import annotations

import importlib.util
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import large_image
import PIL.Image
import pytest
import tifffile

import large_image_source_vips
from helpers.pixels import random_pixels

HERE = Path(__file__).parent.parent
PAGES = [HERE / 'README.rst', *sorted((HERE / 'docs').glob('*.rst'))]

_BLOCK = re.compile(
    r'^(?P<indent> *)\.\. code-block:: python\n(?: *:.*\n)*\n'
    r'(?P<code>(?:(?P=indent) {3,}.*\n|\s*\n)+)', re.MULTILINE)
_NEEDS = re.compile(r'\.\. needs: ([\w.]+)\s*\Z')


class Block(NamedTuple):
    """A piece of Python in a page."""

    line: int
    code: str
    needs: str | None


def blocks(text: str) -> list[Block]:
    """The Python blocks of a page."""
    found = []
    for match in _BLOCK.finditer(text):
        needs = _NEEDS.search(text[:match.start()])
        found.append(Block(text.count('\n', 0, match.start('code')) + 1,
                           textwrap.dedent(match['code']), needs and needs[1]))
    return found


def prepare(folder: Path) -> None:
    """The files that pages speak of."""
    pixels = random_pixels((1500, 2000, 3)) // 8 + 100
    sink = large_image_source_vips.new()
    sink.addTile(pixels)
    sink.mm_x = sink.mm_y = 0.00025
    sink.write(folder / 'slide.tif')
    PIL.Image.fromarray(pixels).save(folder / 'photo.png')
    tifffile.imwrite(folder / 'stack.ome.tif', random_pixels((3, 5, 300, 400), 'uint16'), ome=True,
                     photometric='minisblack',
                     metadata={'axes': 'ZCYX', 'Channel': {'Name': list('ABCDE')}})


def names() -> dict[str, object]:
    """What pages take for given: patches with their places, as a model yields them."""
    places = [(x, y) for y in range(0, 600, 200) for x in range(0, 800, 200)]
    patches = [(x, y, random_pixels((256, 256, 3), seed=x + y)) for x, y in places]
    return {'patches': patches, 'predictions': patches}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    found = blocks(page.read_text(encoding='utf-8'))
    if not found:
        pytest.skip('no Python on this page')
    monkeypatch.chdir(tmp_path)
    # Pages show how to change settings.
    monkeypatch.setattr(large_image.config, 'ConfigValues', dict(large_image.config.ConfigValues))
    prepare(tmp_path)
    scope = {'__name__': page.stem, **names()}
    for block in found:
        if block.needs and not importlib.util.find_spec(block.needs):
            continue
        # The newlines make the lines of a traceback those of the page.
        source = '\n' * (block.line - 1) + block.code
        exec(compile(source, str(page), 'exec', dont_inherit=True), scope)  # noqa: S102


def test_blocks_are_found():
    text = 'A\n\n.. needs: torch\n\n.. code-block:: python\n\n    a = 1\n\n    b = 2\n\nB\n'
    assert blocks(text) == [Block(7, 'a = 1\n\nb = 2\n\n', 'torch')]
    assert blocks('.. code-block:: sh\n\n    a = 1\n') == []
    assert sum(len(blocks(page.read_text(encoding='utf-8'))) for page in PAGES) > 15


def test_pages_are_in_the_table_of_contents():
    index = (HERE / 'docs' / 'index.rst').read_text(encoding='utf-8')
    listed = set(re.findall(r'^   (\w+)$', index, re.MULTILINE))
    assert listed == {page.stem for page in PAGES} - {'README', 'index'}


def test_readme_leads_to_pages_that_exist():
    readme = (HERE / 'README.rst').read_text(encoding='utf-8')
    targets = re.findall(r'<((?:docs/)?[\w.]+)>`_', readme)
    assert len(targets) > 10
    for target in targets:
        assert (HERE / target).is_file(), target


def test_reference_has_all_that_is_added_to_large_image():
    page = (HERE / 'docs' / 'api.rst').read_text(encoding='utf-8')
    listed = set(re.findall(r'\w+', page))
    source = large_image_source_vips.VipsFileTileSource
    inherited = set(dir(large_image.tilesource.FileTileSource))
    added = {
        name for base in source.__mro__ if base.__module__.startswith('large_image_source_vips')
        for name in vars(base) if name[0] != '_'} - inherited
    # Constants, and what is called at import.
    assert added - listed == {'cacheName', 'addKnownExtensions', 'sizeX', 'sizeY', 'levels'}


def test_configuration_has_all_settings():
    page = (HERE / 'docs' / 'configuration.rst').read_text(encoding='utf-8')
    settings = [name for name in large_image.config.ConfigValues if 'source_vips' in name]
    assert len(settings) > 3
    for name in settings:
        assert page.count(f'``{name}``') >= 2, name
        assert f'``LARGE_IMAGE_{name.upper()}' in page, name
