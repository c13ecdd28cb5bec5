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


def read_level(source, level):
    """
    Every pixel of a level, (rows, cols, bands), from its tiles.

    Each tile is overwritten after it was copied: it belongs to who asked for it.
    """
    scale = 1 << (source.levels - 1 - level)
    rows, cols = -(-source.sizeY // scale), -(-source.sizeX // scale)
    result = None
    for y in range(-(-rows // 256)):
        for x in range(-(-cols // 256)):
            tile = source.getTile(x, y, level, numpyAllowed='always')
            if result is None:
                result = np.empty((rows, cols, tile.shape[2]), tile.dtype)
            part = result[y * 256:y * 256 + 256, x * 256:x * 256 + 256]
            part[...] = tile[:part.shape[0], :part.shape[1]]
            assert tile.flags.writeable
            tile[...] = 77
    return result


def assert_same(actual, expected, near=False):
    """
    Two images have the same shape, dtype and samples.

    :param near: whether floats may differ by what 32-bit arithmetic loses.
    """
    found, wanted = (actual.shape, actual.dtype), (expected.shape, expected.dtype)
    assert found == wanted, f'{found}, not {wanted}'
    if near and expected.dtype.kind == 'f':
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-2)
    else:
        # Shows the first differing places, which np.array_equal does not.
        wrong = np.argwhere(actual != expected)
        assert not len(wrong), (
            f'{len(wrong)} samples differ; at (row, col, band) {wrong[0]} there is '
            f'{actual[tuple(wrong[0])]}, not {expected[tuple(wrong[0])]}; at {wrong[-1]} '
            f'{actual[tuple(wrong[-1])]}, not {expected[tuple(wrong[-1])]}')


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
