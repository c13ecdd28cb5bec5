"""What the tests of the sink share."""

import numpy as np
import tifffile

import large_image_source_vips


def make_sink(tile=None, x=0, y=0, **kwargs):
    sink = large_image_source_vips.new()
    if tile is not None:
        sink.addTile(tile, x, y, **kwargs)
    return sink


def read_all(source, **kwargs):
    """Every full-resolution pixel of a source, (rows, cols, bands), from its tiles."""
    rows, cols = source.sizeY, source.sizeX
    result = None
    for y in range(-(-rows // 256)):
        for x in range(-(-cols // 256)):
            tile = source.getTile(x, y, source.levels - 1, numpyAllowed='always', **kwargs)
            if result is None:
                result = np.zeros((rows, cols, tile.shape[2]), tile.dtype)
            part = result[y * 256:y * 256 + 256, x * 256:x * 256 + 256]
            part[...] = tile[:part.shape[0], :part.shape[1]]
    return result


def read_file(path):
    """The first page of a TIFF file as tifffile sees it, (rows, cols, bands)."""
    array = tifffile.imread(path, key=0)
    return array if array.ndim == 3 else array[:, :, None]


def random_tile(dtype, shape, seed=0):
    """Values from the whole range of a dtype."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == 'b':
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind == 'f':
        return (rng.normal(size=shape) * 1000).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
