"""
Settings for tests of reading.
"""

import pytest
from large_image import config


def _only(loader):
    before = config.getConfig('source_vips_loaders')
    config.setConfig('source_vips_loaders', [loader])
    yield
    config.setConfig('source_vips_loaders', before)


@pytest.fixture
def tiffload_only():
    """As on a libvips without OpenSlide."""
    yield from _only('tiffload')


@pytest.fixture
def only_openslide():
    """No other loader, so that OpenSlide reads what this package reads itself otherwise."""
    yield from _only('openslideload')
