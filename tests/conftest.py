"""
Fixtures and settings for all tests.

With LARGE_IMAGE_SOURCE_VIPS_PORTABLE set, all processes of the tests do without what
``os`` lacks on Windows (``tox -e portable``).  A test that itself needs such a name, in
its own code or for a fork, is skipped; one where the package needs it fails.
"""

import importlib.util
import os
import pathlib
import runpy
import traceback

import pytest

from helpers import oracles
from large_image_source_vips.base import libraries

_PACKAGE = pathlib.Path(importlib.util.find_spec('large_image_source_vips').origin).parent
_MISSING = frozenset()
if os.environ.get('LARGE_IMAGE_SOURCE_VIPS_PORTABLE'):
    _folder = pathlib.Path(__file__).parent / 'portable'
    _MISSING = frozenset(runpy.run_path(str(_folder / 'sitecustomize.py'))['MISSING'])
    _paths = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    if str(_folder) not in _paths:
        os.environ['PYTHONPATH'] = os.pathsep.join([str(_folder), *filter(None, _paths)])


# tifffile as an oracle needs a library that works beside a libvips of the system.
if (_codecs := libraries.imagecodecs()) is not None:
    assert _codecs.jpegxl_decode


def pytest_report_header():
    return f'oracles: {oracles.VERSIONS}'


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    try:
        return (yield)
    except AttributeError as exc:
        where = traceback.extract_tb(exc.__traceback__)[-1].filename
        if (exc.obj is os and exc.name in _MISSING and
                not pathlib.Path(where).is_relative_to(_PACKAGE)):
            pytest.skip(f'needs os.{exc.name}')
        raise
