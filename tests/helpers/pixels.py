"""Pixels for tests, and expected values for them."""

import numpy as np


def random_pixels(shape, dtype='uint8', seed=0):
    """Pixels over the whole range of a dtype."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == 'f':
        return rng.normal(0, 1000, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def smooth_pixels(rows, cols, bands=3, seed=0):
    """8-bit pixels as of a photograph, which lossy formats keep nearly."""
    y, x = np.mgrid[:rows, :cols]
    planes = [127 + 80 * np.sin((x * (band + 1) + seed * 7) / 61) + 40 * np.cos(y / (37 + band))
              for band in range(bands)]
    return np.clip(np.stack(planes, axis=-1), 0, 255).astype('uint8')


def block_means(pixels, factor):
    """The means of blocks, the partial ones at the edges of what there is; as float."""
    rows, cols = pixels.shape[:2]
    totals = np.add.reduceat(
        np.add.reduceat(pixels.astype('float64'), np.arange(0, rows, factor), axis=0),
        np.arange(0, cols, factor), axis=1)
    heights = np.diff([*range(0, rows, factor), rows])
    widths = np.diff([*range(0, cols, factor), cols])
    return totals / (heights[:, None] * widths)[..., None]
