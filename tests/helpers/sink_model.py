"""
A NumPy model of the sink: the result of a sequence of tiles, pixel by pixel.

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


# All levels of a sink, whole arrays at a time

_INTEGERS = ('uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32')

# Interpretation: kind, colour bands, and whether there must be alpha (None: may be).
_INTERPRETATIONS = {
    'L': ('gray', 1, None), 'LA': ('gray', 1, None), 'b-w': ('gray', 1, None),
    'RGB': ('rgb', 3, None), 'RGBA': ('rgb', 3, None), 'srgb': ('rgb', 3, None),
    'hsv': ('hsv', 3, None), 'cmyk': ('cmyk', 4, None),
}


class Refused(Exception):
    """The rules say that the sink must refuse this, and stay as it is."""


def smallest_integer(low, high, names=_INTEGERS):
    for name in names:
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return np.dtype(name)
    msg = f'no integer format holds {low} to {high}'
    raise Refused(msg)


def rounded(values, dtype):
    """To the nearest, halves to even, where the dtype is one of integers."""
    return (values if np.dtype(dtype).kind == 'f' else np.rint(values)).astype(dtype)


def scaled_alpha(alpha, dtype):
    """An alpha band of another dtype, opaque where it was opaque."""
    old, new = opaque_value(alpha.dtype), opaque_value(dtype)
    return alpha.astype(dtype) if old == new else rounded(
        alpha.astype(np.float64) * new / old, dtype)


def halved(image, averaged, alpha):
    """
    The next lower level, sizes rounded up.

    :param image: (rows, cols, bands).
    :param averaged: the mean of the (up to) four pixels that exist; else the first.
    :param alpha: whether the last band is alpha, by which colours are weighted.
    """
    if not averaged:
        return image[::2, ::2]
    # At an odd edge each pixel that exists counts twice, which leaves the mean as it is.
    image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode='edge')
    corners = [image[dy::2, dx::2].astype(np.float64) for dy in (0, 1) for dx in (0, 1)]
    means = sum(corners) / 4
    if alpha:
        weights = [corner[:, :, -1:] for corner in corners]
        total = sum(weights)
        mixed = (total > 0) & ~np.logical_and.reduce([weights[0] == other for other in weights])
        weighted = sum(corner * weight for corner, weight in zip(corners, weights, strict=True))
        mixed = np.broadcast_to(mixed, means.shape).copy()
        mixed[:, :, -1] = False
        means = np.where(mixed, weighted / np.where(total > 0, total, 1), means)
    return rounded(means, image.dtype)


def blended(color, alpha, tile, tile_alpha):
    """Partly transparent pixels, (n, bands) and (n,), over others: Porter and Duff's "over"."""
    opaque = opaque_value(color.dtype)
    over = tile_alpha.astype(np.float64) / opaque
    under = np.minimum(alpha.astype(np.float64) / opaque, 1.0) * (1 - over)
    mixed = (tile * over[:, None] + color * under[:, None]) / (over + under)[:, None]
    return rounded(mixed, color.dtype), rounded((over + under) * opaque, color.dtype)


class SinkModel:
    """
    What a sink holds after any sequence of tiles, at all levels.

    Its arrays are replaced, never changed: ``copy.copy`` takes a snapshot.
    """

    def __init__(self):
        self.dtype = self.kind = None
        self.colors = 0
        self.labels = False
        self.color = self.alpha = None
        # The corner of the image in the coordinates of addTile.
        self.left = self.top = 0
        self.min_width = self.min_height = 0
        self.crop = None
        self.color_ranges = self.alpha_ranges = ()
        # Over all samples of integers as they were given.
        self.low = self.high = 0

    # Adding

    def add(self, tile, x=0, y=0, mask=None, interpretation=None):
        """As ``addTile``; raises ``Refused`` where that must fail."""
        given, labels = self._native(tile)
        if interpretation == 'pixelmap':
            if given.shape[2] != 1 or given.dtype.kind == 'f':
                raise Refused
            values = given.astype(object)
            color = np.dstack([values // step % 256 for step in (1, 256, 65536)]).astype(np.uint8)
            kind, colors, has_alpha, labels = 'rgb', 3, False, True
        else:
            color = given
            if given.dtype.itemsize == 8 and given.dtype.kind != 'f':
                color = given.astype(smallest_integer(int(given.min()), int(given.max())))
            kind, colors, has_alpha = self._meaning(given.shape[2], interpretation)
            labels = labels or interpretation == 'labels'
        if mask is not None:
            mask = np.asarray(mask).astype(bool)
            if mask.ndim == 3:
                mask = mask.any(axis=2)
            if mask.shape != color.shape[:2]:
                raise Refused
        joined = self._joined_kind(kind, colors)
        samples = color if interpretation == 'pixelmap' else given
        low, high = (0, 0) if samples.dtype.kind == 'f' else (
            int(samples.min()), int(samples.max()))
        low, high = min(low, self.low), max(high, self.high)
        dtype = self._joined_dtype(color.dtype, low, high)

        # Nothing fails from here on.
        alpha = self._tile_alpha(color, has_alpha, dtype)
        color = self._as(color[:, :, :colors], dtype, joined[1])
        self._convert(dtype, *joined)
        self._grow(x, y, *color.shape[:2])
        self._paste(color, alpha, x - self.left, y - self.top, mask)
        self.labels = self.labels or labels
        self.low, self.high = low, high
        known = min(colors, given.shape[2])
        self.color_ranges = self._widened(self.color_ranges, given[:, :, :known])
        self.alpha_ranges = self._widened(self.alpha_ranges, given[:, :, known:])

    @staticmethod
    def _native(tile):
        """The tile as (rows, cols, bands) of a known format, and whether it holds labels."""
        array = np.asarray(tile)
        array = array if array.ndim == 3 else array[:, :, None]
        if array.dtype.kind == 'c':
            raise Refused
        if array.dtype.kind == 'b':
            return array.astype(np.uint8), True
        if array.dtype.kind == 'f':
            return array.astype(np.float32 if array.dtype.itemsize < 8 else np.float64), False
        return array.astype(array.dtype.newbyteorder('=')), array.dtype.itemsize == 8

    def _meaning(self, bands, interpretation):
        """Kind, number of colour bands, and whether there is alpha."""
        if interpretation in (None, 'labels'):
            if self.kind not in (None, 'gray', 'rgb') and (
                    bands - self.colors in (0, int(self.has_alpha))):
                return self.kind, self.colors, bands > self.colors
            if bands > 4:
                return 'multiband', bands, False
            return ('gray', 1, bands == 2) if bands <= 2 else ('rgb', 3, bands == 4)
        if interpretation == 'multiband':
            return 'multiband', bands, False
        kind, colors, wanted = _INTERPRETATIONS[interpretation]
        if bands - colors not in (0, 1) or wanted not in (None, bands > colors):
            raise Refused
        return kind, colors, bands > colors

    def _joined_kind(self, kind, colors):
        if self.kind is None or (kind, colors) == (self.kind, self.colors):
            return kind, colors
        if {kind, self.kind} == {'gray', 'rgb'}:
            return 'rgb', 3
        raise Refused

    def _joined_dtype(self, dtype, low, high):
        if self.dtype is None:
            return dtype
        joined = np.result_type(self.dtype, dtype)
        if np.float64 in (self.dtype, dtype):
            return joined
        if joined.kind == 'f':
            wide = 4 in (self.dtype.itemsize * (self.dtype.kind != 'f'),
                         dtype.itemsize * (dtype.kind != 'f'))
            if wide and max(-low, high) > 1 << 24:
                raise Refused
            return np.dtype(np.float32)
        return joined if joined.itemsize <= 4 else smallest_integer(low, high, ('uint32', 'int32'))

    @staticmethod
    def _tile_alpha(array, has_alpha, dtype):
        if not has_alpha:
            return np.full(array.shape[:2], opaque_value(dtype), dtype)
        alpha = array[:, :, -1]
        if alpha.dtype.kind == 'f' and alpha.min() >= 0 and alpha.max() <= 1:
            alpha = alpha * np.float32(255)
        return scaled_alpha(alpha, dtype)

    @staticmethod
    def _as(color, dtype, colors):
        color = color.astype(dtype)
        return color if color.shape[2] == colors else np.repeat(color, colors, axis=2)

    def _convert(self, dtype, kind, colors):
        if self.dtype is None:
            self.color, self.alpha = np.zeros((0, 0, colors), dtype), np.zeros((0, 0), dtype)
        else:
            self.color = self._as(self.color, dtype, colors)
            self.alpha = scaled_alpha(self.alpha, dtype)
        self.dtype, self.kind, self.colors = dtype, kind, colors

    def _grow(self, x, y, rows, cols):
        """New arrays that hold the old pixels, the tile and the point 0, 0."""
        old_rows, old_cols = self.alpha.shape
        left, top = min(self.left, x), min(self.top, y)
        right, bottom = max(self.left + old_cols, x + cols), max(self.top + old_rows, y + rows)
        place = (slice(self.top - top, self.top - top + old_rows),
                 slice(self.left - left, self.left - left + old_cols))
        color = np.zeros((bottom - top, right - left, self.colors), self.dtype)
        alpha = np.zeros((bottom - top, right - left), self.dtype)
        color[place], alpha[place] = self.color, self.alpha
        self.color, self.alpha, self.left, self.top = color, alpha, left, top

    def _paste(self, tile, tile_alpha, col, row, mask):
        """Into the new arrays, at a column and a row of theirs."""
        place = slice(row, row + tile.shape[0]), slice(col, col + tile.shape[1])
        color, alpha = self.color[place], self.alpha[place]
        mask = np.ones(alpha.shape, bool) if mask is None else mask
        replaces = (tile_alpha >= opaque_value(self.dtype)) | (alpha == 0)
        mixes = mask & ~replaces & (tile_alpha > 0)
        replaces &= mask
        color[replaces], alpha[replaces] = tile[replaces], tile_alpha[replaces]
        if self.has_alpha and mixes.any():
            color[mixes], alpha[mixes] = blended(
                color[mixes], alpha[mixes], tile[mixes], tile_alpha[mixes])

    @staticmethod
    def _widened(ranges, bands):
        """The (smallest, largest) of each band, over earlier tiles and one more."""
        new = [(bands[:, :, k].min(), bands[:, :, k].max()) for k in range(bands.shape[2])]
        both = [(min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(ranges, new, strict=False)]
        return (*both, *ranges[len(both):], *new[len(both):])

    # What there is

    @property
    def has_alpha(self):
        return self.kind != 'multiband'

    @property
    def bands(self):
        return None if self.dtype is None else self.colors + self.has_alpha

    @property
    def size(self):
        """Columns and rows."""
        rows, cols = (0, 0) if self.alpha is None else self.alpha.shape
        return max(cols, self.min_width), max(rows, self.min_height)

    @property
    def level_count(self):
        if 0 in self.size:
            return 0
        return 1 + max(0, (max(self.size) - 1) // 256).bit_length()

    @property
    def averaged(self):
        return (self.dtype in (np.uint8, np.uint16, np.float32, np.float64)
                and not self.labels)

    @property
    def band_ranges(self):
        """Smallest and largest values, one list each, alpha last; None without tiles."""
        both = [*self.color_ranges, *self.alpha_ranges]
        return None if not both else tuple([value[k] for value in both] for k in (0, 1))

    def image(self):
        """The full resolution, (rows, cols, bands)."""
        cols, rows = self.size
        if self.dtype is None:
            return np.zeros((rows, cols, 4), np.uint8)
        result = np.zeros((rows, cols, self.bands), self.dtype)
        height, width = self.alpha.shape
        result[:height, :width, :self.colors] = self.color
        if self.has_alpha:
            result[:height, :width, -1] = self.alpha
        return result

    def levels(self):
        """All levels, the smallest first, as large_image counts them."""
        result = [self.image()] if self.level_count else []
        while len(result) < self.level_count:
            result.append(halved(result[-1], self.averaged, self.has_alpha))
        return result[::-1]

    def file(self, alpha=True):
        """What ``write`` writes without loss, (rows, cols, bands)."""
        if self.dtype is None:
            raise Refused
        image = self.image()
        if self.crop is not None:
            x, y, width, height = self.crop
            image = image[y:y + height, x:x + width]
        if image.size == 0:
            raise Refused
        if self.has_alpha and (not alpha or (image[:, :, -1] == opaque_value(self.dtype)).all()):
            image = image[:, :, :-1]
        return image
