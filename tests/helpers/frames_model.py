"""Frames in plain NumPy: what a sequence of tiles comes to, position by position."""

import numpy as np

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

    def add(self, tile, x, y, position, mask=None):
        for axis, place in position.items():
            self.lengths[axis] = max(self.lengths.get(axis, 1), place + 1)
        frame = self.frames.setdefault(
            position_key(position), np.zeros(self.shape, self.dtype))
        part = frame[y:y + tile.shape[0], x:x + tile.shape[1]]
        part[...] = tile if mask is None else np.where(mask[:, :, None], tile, part)

    def at(self, position):
        """The pixels at a position given as in ``getMetadata``: {'IndexC': 1, ...}."""
        key = position_key({axis.removeprefix('Index').lower(): place
                            for axis, place in position.items()
                            if axis.startswith('Index') and axis != 'Index'})
        return self.frames.get(key, np.zeros(self.shape, self.dtype))
