"""A NumPy model of frames: the result of a sequence of tiles, position by position."""

import numpy as np

from helpers.pixels import block_means
from large_image_source_vips.base.frames import position_key


class FramesModel:
    """
    The frames of a sink, each an array of the size of the image.

    :param rows: of the image.
    :param cols: of the image.
    :param bands: of the image, without alpha.
    :param dtype: of the samples.
    """

    def __init__(self, rows, cols, bands, dtype):
        self.shape, self.dtype = (rows, cols, bands), np.dtype(dtype)
        self.lengths = {}
        self.frames = {}
        self._covered = {}

    def add(self, tile, x, y, position, mask=None):
        for axis, place in position.items():
            self.lengths[axis] = max(self.lengths.get(axis, 1), place + 1)
        frame = self.frames.setdefault(
            position_key(position), np.zeros(self.shape, self.dtype))
        part = frame[y:y + tile.shape[0], x:x + tile.shape[1]]
        part[...] = tile if mask is None else np.where(mask[:, :, None], tile, part)
        covered = self._covered.setdefault(position_key(position), np.zeros(self.shape[:2], bool))
        covered[y:y + tile.shape[0], x:x + tile.shape[1]] |= True if mask is None else mask

    def at(self, position):
        """The pixels at a position given as in ``getMetadata``: {'IndexC': 1, ...}."""
        return self.frames.get(_key(position), np.zeros(self.shape, self.dtype))

    def means_at(self, position, level):
        """
        The level ``2 ** level`` times smaller as float: each halves the one before.

        Means are of what was added; data of more than 4 bands have no holes.
        """
        means = self.at(position).astype(float)
        share = self._covered.get(_key(position), np.zeros(self.shape[:2], bool))[..., None]
        share = np.ones_like(share, float) if self.shape[2] > 4 else share.astype(float)
        for _ in range(level):
            sums, share = block_means(means * share, 2), block_means(share, 2)
            means = np.where(share > 0, sums / np.where(share > 0, share, 1), 0)
        return means


def _key(position):
    return position_key({axis.removeprefix('Index').lower(): place
                         for axis, place in position.items()
                         if axis.startswith('Index') and axis != 'Index'})
