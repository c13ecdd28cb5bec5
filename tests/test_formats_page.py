"""
docs/formats.rst matches this version of libvips and this code.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import pyvips

DOCS = Path(__file__).parents[1] / 'docs'
LIBVIPS = '.'.join(str(pyvips.version(part)) for part in range(3))
# These depend on what else is installed, and on real files that are not in the repository.
ELSEWHERE = ('no loader', 'no codec', 'not tried', 'by ')


@pytest.fixture
def make_formats():
    spec = importlib.util.spec_from_file_location('make_formats', DOCS / 'make_formats.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def runs():
    return json.loads((DOCS / 'formats.json').read_text())


def test_the_page_shows_the_runs_noted(make_formats, runs):
    assert (DOCS / 'formats.rst').read_text() == make_formats.table(runs)


def test_formats_are_read_as_the_page_says(make_formats, runs):
    noted = next((run['results'] for run in runs.values() if run['libvips'] == LIBVIPS), None)
    if noted is None:
        pytest.skip(f'the page has no column for libvips {LIBVIPS}')
    found = make_formats.run()
    assert found.keys() == noted.keys()
    common = [name for name in found
              if not found[name].startswith(ELSEWHERE) and not noted[name].startswith(ELSEWHERE)]
    assert len(common) > 15
    assert {name: found[name] for name in common} == {name: noted[name] for name in common}, (
        'run python docs/make_formats.py and commit docs/formats.json and docs/formats.rst')
