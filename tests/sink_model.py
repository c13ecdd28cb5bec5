"""
The sink in plain NumPy: what a sequence of tiles comes to, pixel by pixel.

Slow, whole images in memory, no blocks and no libvips: an oracle for the tests.
"""

import numpy as np


def opaque_value(dtype):
    dtype = np.dtype(dtype)
    if dtype == np.uint16:
        return 65535
    return 255 if dtype.kind == 'f' else min(255, np.iinfo(dtype).max)


class Model:
    """An image of one dtype and a fixed number of colour bands, with alpha."""

    def __init__(self, dtype, colors):
        self.dtype = np.dtype(dtype)
        self.colors = colors
        self.pixels = {}

    def add(self, tile, x, y, mask=None):
        tile = np.asarray(tile)
        tile = tile if tile.ndim == 3 else tile[:, :, None]
        opaque = opaque_value(self.dtype)
        for row in range(tile.shape[0]):
            for col in range(tile.shape[1]):
                if mask is not None and not mask[row, col]:
                    continue
                color = tile[row, col, :self.colors]
                alpha = tile[row, col, self.colors] if tile.shape[2] > self.colors else opaque
                self._put((y + row, x + col), color, alpha, opaque)

    def _put(self, place, color, alpha, opaque):
        below = self.pixels.get(place)
        if alpha >= opaque or below is None or below[1] == 0:
            self.pixels[place] = (np.array(color), alpha)
            return
        if alpha <= 0:
            return
        over = float(alpha) / opaque
        under = min(float(below[1]) / opaque, 1.0) * (1 - over)
        mixed = (color.astype(float) * over + below[0].astype(float) * under) / (over + under)
        if self.dtype.kind != 'f':
            mixed = np.rint(mixed)
        value = (over + under) * opaque
        self.pixels[place] = (
            mixed.astype(self.dtype),
            self.dtype.type(np.rint(value) if self.dtype.kind != 'f' else value))

    def add_extent(self, extents):
        """The image (rows, cols, colors + 1) of the tiles that had these rectangles."""
        left = min(0, *(x for x, _, _, _ in extents))
        top = min(0, *(y for _, y, _, _ in extents))
        # The point 0, 0 is always in the image.
        right = max(0, *(x + w for x, _, w, _ in extents))
        bottom = max(0, *(y + h for _, y, _, h in extents))
        result = np.zeros((bottom - top, right - left, self.colors + 1), self.dtype)
        for (row, col), (color, alpha) in self.pixels.items():
            result[row - top, col - left, :self.colors] = color
            result[row - top, col - left, self.colors] = alpha
        return result
