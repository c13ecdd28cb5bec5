"""
OME-TIFF files read by other programs.

A reader is opened for a path; ``levels`` is how many levels it shows, and ``read`` gives the
pixels of one as (rows, cols, bands).  Readers of pages go by the number of a frame, readers of
OME-XML by its place on xy, t, z and c.
"""

import contextlib
import functools
import importlib.util
import logging

import numpy as np
import pytest
import pyvips
import tifffile

from helpers.native_readers import (
    elsewhere,
    gdal_levels,
    gdal_read,
    openslide_levels,
    openslide_read,
    source_level,
)


def _with_bands(pixels):
    pixels = np.asarray(pixels)
    return pixels if pixels.ndim == 3 else pixels[..., None]


class Tifffile:
    def __init__(self, path):
        self._series = []
        with tifffile.TiffFile(path) as file:
            for series in file.series:
                axes = [axis.lower() for axis in series.axes if axis not in 'YXS']
                self._series.append((axes, [level.asarray() for level in series.levels]))
        self.levels = len(self._series[0][1])

    def read(self, frame, place, level):
        axes, levels = self._series[place['xy']]
        return _with_bands(levels[level][tuple(place[axis] for axis in axes)])


class Libvips:
    def __init__(self, path):
        self._path = str(path)
        first = pyvips.Image.new_from_file(self._path)
        self.levels = 1 + first.get('n-subifds')

    def read(self, frame, place, level):
        return _with_bands(pyvips.Image.new_from_file(
            self._path, page=frame, subifd=level - 1).numpy())


class Gdal:
    def __init__(self, path):
        needs('rasterio', 'rasterio')
        self._path = str(path)
        self.levels = elsewhere(gdal_levels, self._path)

    def read(self, frame, place, level):
        return elsewhere(gdal_read, self._path, frame, level)


class OpenSlide:
    """Sees pages only, so no levels in sub-IFDs; 8 bits of RGB."""

    def __init__(self, path):
        needs('openslide', 'openslide-python openslide-bin')
        self._path = str(path)
        self.levels = elsewhere(openslide_levels, self._path)

    def read(self, frame, place, level):
        return elsewhere(openslide_read, self._path, level)


def needs(module, packages):
    """Skip the test unless a module is installed; it is not imported here."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f'pip install {packages}')


class Bioio:
    """Shows full resolution only."""

    def __init__(self, path):
        bioio = pytest.importorskip('bioio', reason='pip install bioio bioio-ome-tiff')
        reader = pytest.importorskip('bioio_ome_tiff', reason='pip install bioio-ome-tiff')
        self._image = bioio.BioImage(path, reader=reader.Reader)
        self.levels = len(self._image.resolution_levels)

    def read(self, frame, place, level):
        self._image.set_scene(place['xy'])
        order = 'YXS' if 'S' in self._image.dims.order else 'YX'
        return _with_bands(self._image.get_image_data(
            order, T=place['t'], C=place['c'], Z=place['z']))


class LargeImage:
    """A source of large_image."""

    def __init__(self, name, path):
        self.source = large_image_source(name).open(path)
        self.levels = self.source.levels
        # The last pixels of a level of an odd size are not read by this source.
        self.rounds_down = name == 'tifffile'
        self._frames = self.source.getMetadata().get('frames', [{}])

    def read(self, frame, place, level):
        source = self.source
        if any(f'Index{axis}' in self._frames[0] for axis in ('C', 'T', 'Z', 'XY')):
            frame = next(number for number, found in enumerate(self._frames) if all(
                found.get(f'Index{axis.upper()}', 0) == at for axis, at in place.items()))
        return source_level(source, level, frame)


def large_image_source(name):
    """The module of a source, if it is installed and works with the packages it is beside."""
    module = pytest.importorskip(
        f'large_image_source_{name}', reason=f'pip install large-image-source-{name}')
    if name == 'tifffile' and not _tifffile_source_opens_pyramids():
        pytest.skip('this version of large_image-source-tifffile opens no pyramid of any program '
                    "with this version of zarr; pip install 'zarr<3'")
    return module


@functools.cache
def _tifffile_source_opens_pyramids():
    zarr = importlib.import_module('zarr')
    return int(zarr.__version__.split('.')[0]) < 3


@contextlib.contextmanager
def missing_planes_allowed():
    """
    Let tifffile read files that lack planes, which it says in its log.

    large_image's source 'tifffile' makes errors of what is there.
    """
    log = logging.getLogger('tifffile')
    handlers, log.handlers = log.handlers, []
    try:
        yield
    finally:
        log.handlers = handlers


READERS = {
    'tifffile': Tifffile, 'libvips': Libvips, 'GDAL': Gdal, 'OpenSlide': OpenSlide,
    'bioio': Bioio,
    **{f'large_image {name}': functools.partial(LargeImage, name)
       for name in ('tiff', 'ometiff', 'tifffile')}}
