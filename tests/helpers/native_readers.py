"""
Read files with GDAL, OpenSlide and large_image's OpenSlide source, in a separate process.

Their wheels bring versions of libraries that a libvips of the system has loaded, too, and
in one process they would use each other's.  This module imports neither libvips nor what does.
"""

import concurrent.futures
import functools
import multiprocessing
import warnings

import numpy as np


@functools.cache
def _process():
    return concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn'))


def elsewhere(function, *arguments):
    """What a function of this module returns when it runs in that process."""
    return _process().submit(function, *arguments).result()


def gdal_levels(path, frame=0):
    """The number of levels; ``frame`` None for the file as such, not one of its pages."""
    with _gdal(path, frame) as image:
        return 1 + len(image.overviews(1))


def gdal_read(path, frame, level):
    with _gdal(path, frame, level) as image:
        return np.moveaxis(image.read(), 0, -1)


def gdal_mask(path, shape):
    """(rows, cols), 0 where nothing is shown, of a smaller shape than the image or of its own."""
    with _gdal(path, None) as image:
        return image.read_masks(1, out_shape=shape)


def _gdal(path, frame, level=0):
    import rasterio
    name = path if frame is None else f'GTIFF_DIR:{frame + 1}:{path}'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(name, **({'overview_level': level - 1} if level else {}))


def openslide_levels(path):
    import openslide
    with openslide.OpenSlide(path) as image:
        return image.level_count


def openslide_read(path, level):
    """(rows, cols, 4) with alpha."""
    import openslide
    with openslide.OpenSlide(path) as image:
        return np.asarray(image.read_region((0, 0), level, image.level_dimensions[level]))


def large_image_openslide(path):
    """(rows, cols, bands) of each level, by large_image's source for OpenSlide."""
    import large_image_source_openslide
    source = large_image_source_openslide.open(path)
    return [source_level(source, level) for level in range(source.levels)]


def source_level(source, level, frame=0):
    """(rows, cols, bands) of a level of a large_image source, from its tiles; 0 is the largest."""
    rows, cols = (-(-size // (1 << level)) for size in (source.sizeY, source.sizeX))
    width, height = source.tileWidth, source.tileHeight
    result = np.concatenate([np.concatenate([
        source.getTile(left // width, top // height, source.levels - 1 - level, frame=frame,
                       numpyAllowed='always')
        for left in range(0, cols, width)], axis=1) for top in range(0, rows, height)])
    return result[:rows, :cols]
