"""
The sink's store: patches that become blocks in one spool file.

A canvas is a grid of square blocks, addressed in the plane of the caller's
coordinates, so growing it in any direction moves no pixels.  Adding a tile
copies its pixels into the blocks under it, once.

Memory is bounded, whatever the size of the image: ``blocks.POOL_BYTES``
(64 MiB) of blocks, the tiles that are being added, and some 300 bytes of
addresses for each block of 65,536 pixels.  A canvas has one open file.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pyvips
from large_image.exceptions import TileSourceError

from .blocks import BLOCK_SIZE
from .claims import Claims, Turns
from .compose import with_alpha
from .formats import is_averaged
from .geometry import Rect, Size
from .layers import Layers, block_area
from .lower_levels import LowerLevels
from .ranges import BandRanges
from .recompose import plane_image, recomposed
from .samples import Array, Meaning, Patch, converted, converted_alpha, joined_dtype
from .writer import Picture

# libvips 8.14 has no wider or higher images (VIPS_MAX_COORD).
MAX_SIDE = 10_000_000

# Tiles of fewer bytes are added by one thread at a time.
PARALLEL_BYTES = 1 << 20


def as_position(value: Any, name: str) -> int:
    """
    A coordinate as a plain int.

    :param value: an int of any kind, or a float that is a whole number.
    :param name: what to call it in an error.
    :raises TileSourceError: for anything else.
    """
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, (float, np.floating)) and float(value).is_integer():
            return int(value)
    msg = f'{name} must be a whole number, not {value!r}.'
    raise TileSourceError(msg)


class Canvas:
    """
    An image that collects patches.

    All methods may be called from any thread.
    """

    frame_count = 1
    magnification: float | None = None

    def __init__(self) -> None:
        self.pixel_size: tuple[float | None, float | None] = (None, None)
        self.crop: Rect | None = None
        # Counts changes; a part of large_image's cache keys.
        self.generation = 0
        self.ranges = BandRanges()
        self._claims = Claims()
        self._turns = Turns()
        self._layers: Layers | None = None
        self._extent: Rect | None = None
        self._min_size = Size(0, 0)
        # The smallest and largest colour sample, to choose a wider format by.
        self._extremes = (0, 0)
        self._lower: LowerLevels | None = None

    # What there is

    @property
    def origin(self) -> tuple[int, int]:
        """The corner of the image in the caller plane: (x, y), each <= 0."""
        if self._extent is None:
            return 0, 0
        return min(0, self._extent.left), min(0, self._extent.top)

    @property
    def size(self) -> Size:
        """The size in full-resolution pixels, at least the minimum size."""
        return self._size_of(self._extent)

    def _size_of(self, extent: Rect | None) -> Size:
        if extent is None:
            return self._min_size
        return Size(max(extent.right - min(0, extent.left), self._min_size.width),
                    max(extent.bottom - min(0, extent.top), self._min_size.height))

    @property
    def min_size(self) -> Size:
        """The size that the image has at least; 0 for no minimum."""
        return self._min_size

    @min_size.setter
    def min_size(self, value: Size) -> None:
        with self._claims.on(None, write=True):
            self._min_size = value
            if self._lower is not None:
                self._lower.forget_all()
            self.generation += 1

    def set_pixel_size(self, mm_x: float | None, mm_y: float | None) -> None:
        """Set the width and height of a full-resolution pixel in mm."""
        self.pixel_size = mm_x, mm_y
        self.generation += 1

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of the samples; None as long as there are none."""
        return None if self._layers is None else self._layers.dtype

    @property
    def meaning(self) -> Meaning | None:
        """What the bands are; None as long as there are none."""
        return None if self._layers is None else self._layers.meaning

    @property
    def bands(self) -> int | None:
        """The bands of what ``read`` gives; None as long as there are no tiles."""
        return None if self._layers is None else self._layers.meaning.bands

    @property
    def averaged(self) -> bool:
        """Whether lower levels are averaged; labels are not."""
        layers = self._layers
        return layers is None or (is_averaged(layers.dtype) and not layers.meaning.labels)

    # Adding

    def turn_for(self, tile: Any) -> AbstractContextManager[Any]:
        """
        What to hold while a tile is converted and added.

        Threads that add small tiles take turns, as they would do for Python's
        interpreter lock anyway, but without handing it around in each tile;
        large ones are copied in parallel.
        """
        small = isinstance(tile, np.ndarray) and tile.nbytes < PARALLEL_BYTES
        return self._turns if small else nullcontext()

    def add(self, patch: Patch, x: int, y: int, mask: npt.NDArray[np.bool_] | None) -> None:
        """
        Put a patch over what is there.

        :param patch: the patch.
        :param x: the column of its left edge in the caller plane.
        :param y: the row of its top edge in the caller plane.
        :param mask: (rows, cols) of the patch, False where nothing changes.
        :raises TileSourceError: if it does not fit what is there, or there is
            no room on the disk; nothing has changed then.
        """
        if mask is not None and not patch.meaning.has_alpha:
            msg = (f'A mask cannot be used with {patch.meaning.color_bands} bands of data: they '
                   f'have no alpha that could stay transparent.')
            raise TileSourceError(msg)
        rows, cols = patch.color.shape[:2]
        rect = Rect(x, y, cols, rows)
        while True:
            seen = self._layers, self._extent
            # What changes the format or the size concerns every reader.
            everything = self._changes_all(patch, rect)
            with self._claims.on(None if everything else block_area(rect), write=True):
                unchanged = seen[0] is self._layers and seen[1] is self._extent
                if everything or unchanged or not self._changes_all(patch, rect):
                    self._add_claimed(patch, rect, mask)
                    return

    def _changes_all(self, patch: Patch, rect: Rect) -> bool:
        """Whether a patch makes the image larger or changes its format."""
        layers = self._layers
        return (layers is None or self._extent is None or not self._extent.contains(rect) or
                self._format_for(layers, patch) != (layers.dtype, layers.meaning))

    def _format_for(self, layers: Layers, patch: Patch) -> tuple[np.dtype[Any], Meaning]:
        """The dtype and the meaning of bands that take in a patch."""
        dtype = layers.dtype
        if patch.color.dtype != dtype:
            dtype = joined_dtype(dtype, patch.color.dtype, self._extremes, patch.extremes)
        return dtype, layers.meaning.joined(patch.meaning)

    def _add_claimed(self, patch: Patch, rect: Rect, mask: npt.NDArray[np.bool_] | None) -> None:
        """Add a patch while nobody else uses what it changes."""
        extent = _united(self._extent, rect)
        if extent is not self._extent:
            size = self._size_of(extent)
            if max(size) > MAX_SIDE:
                msg = (f'The tile at {rect.left}, {rect.top} would make the image {size.width} x '
                       f'{size.height} pixels; the most are {MAX_SIDE} each way.')
                raise TileSourceError(msg)
        layers = self._layers_for(patch)
        color = converted(patch.color, layers.dtype, layers.meaning.color_bands)
        alpha = None if patch.alpha is None else converted_alpha(patch.alpha, layers.dtype)
        layers.paste(rect, color, alpha, mask)
        self._commit(layers, patch, extent, rect)

    def _layers_for(self, patch: Patch) -> Layers:
        """The blocks in a format that holds a patch: those there are, or new ones."""
        layers = self._layers
        if layers is None:
            return Layers.make(patch.color.dtype, patch.meaning)
        dtype, meaning = self._format_for(layers, patch)
        if dtype == layers.dtype and meaning == layers.meaning:
            return layers
        return layers.converted(dtype, meaning)

    def _commit(self, layers: Layers, patch: Patch, extent: Rect, rect: Rect) -> None:
        """Make a pasted patch visible."""
        low, high = patch.extremes
        if self._layers is None:
            self._extremes = low, high
        elif low < self._extremes[0] or high > self._extremes[1]:
            self._extremes = min(low, self._extremes[0]), max(high, self._extremes[1])
        if self._lower is None or self._layers is None or self._layers.color is not layers.color:
            self._lower = LowerLevels(layers)
        if extent is self._extent:
            self._layers = layers
            self._lower.forget(rect, self.origin)
        else:
            old_size, old_origin = self.size, self.origin
            self._layers, self._extent = layers, extent
            if self.origin != old_origin:
                self._lower.forget_all()
            else:
                self._lower.forget(rect, old_origin)
                self._lower.forget_edges(old_size)
        self.ranges.add(patch)
        self.generation += 1

    # Reading

    def read(self, frame: int, reduction: int, rect: Rect, *, keep: bool = False) -> Array:
        """
        The pixels of a rectangle, alpha included; see ``PixelStore.read``.

        Blank places read as 0.  Everything is kept anyway.
        """
        while True:
            origin = self.origin
            full = Rect(*(value << reduction for value in rect)).moved(*origin)
            with self._claims.on(block_area(full)):
                # The corner may have moved while the claim was waited for.
                if origin == self.origin:
                    return self._read_claimed(reduction, rect, origin)

    def _read_claimed(self, reduction: int, rect: Rect, origin: tuple[int, int]) -> Array:
        """Read while nothing under the rectangle changes."""
        layers, lower = self._layers, self._lower
        if layers is None or lower is None:
            return np.zeros((rect.height, rect.width, 4), np.uint8)
        found = (layers.gather(0, rect.moved(*origin)) if reduction == 0 else
                 lower.gather(reduction, rect, self.size, origin, self.averaged))
        if found is None:
            return np.zeros((rect.height, rect.width, layers.meaning.bands), layers.dtype)
        color, alpha = found
        return with_alpha(color, alpha) if layers.meaning.has_alpha else color.copy()

    def output_rect(self) -> Rect:
        """
        What ``write`` writes, in full-resolution pixels: all, or the crop.

        :raises TileSourceError: if there is nothing, or the crop is outside.
        """
        whole = Rect(0, 0, *self.size)
        if self._layers is None:
            msg = 'An image without any tile cannot be written; add one first.'
            raise TileSourceError(msg)
        if self.crop is None:
            return whole
        if not whole.contains(self.crop):
            msg = (f'The crop {tuple(self.crop)} reaches beyond the image, which has '
                   f'{whole.width} x {whole.height} pixels.')
            raise TileSourceError(msg)
        return self.crop

    def picture(self) -> Picture:
        """
        What ``write`` writes.

        :raises TileSourceError: if there is nothing to write.
        """
        rect = self.output_rect()
        place = rect.moved(*self.origin)
        with self._claims.on(block_area(place)):
            layers = self._layers
            assert layers is not None
            opaque = layers.is_opaque(place)
        return Picture(
            Size(rect.width, rect.height), layers.dtype, layers.meaning, opaque, True,
            self.pixel_size,
            lambda part: self._read_as(layers, part.moved(rect.left, rect.top)), self.image)

    def _read_as(self, layers: Layers, rect: Rect) -> Array:
        """Pixels for a file whose format is settled."""
        pixels = self.read(0, 0, rect)
        if pixels.dtype != layers.dtype or pixels.shape[2] != layers.meaning.bands:
            msg = 'A tile of another format was added while the image was being written.'
            raise TileSourceError(msg)
        return pixels

    @contextmanager
    def image(self, alpha: bool, labels: Mapping[str, Any]) -> Iterator[pyvips.Image]:
        """
        What ``write`` writes as a libvips image that reads the spool.

        :param alpha: whether to include the alpha band, if there is one.
        :param labels: header fields to set, as ``pyvips.Image.copy`` takes them.
        :raises TileSourceError: if there is nothing to write, or no room.
        """
        rect = self.output_rect()
        with self._claims.on(None):
            layers = self._layers
            assert layers is not None
            plane, place = layers.color, rect.moved(*self.origin)
            alpha = alpha and layers.meaning.has_alpha
            if alpha or place.left % BLOCK_SIZE or place.top % BLOCK_SIZE:
                plane = recomposed(
                    Size(rect.width, rect.height), layers.dtype,
                    layers.meaning.color_bands + alpha,
                    lambda part: _pixels(layers, part.moved(place.left, place.top), alpha))
                place = Rect(0, 0, *place[2:])
            image = plane_image(plane, place, labels)
        # The plane keeps its spool; tiles may be added while libvips reads.
        yield image
        del plane

    # What a canvas has not

    def frame_axes(self) -> list[dict[str, Any]]:
        """See ``PixelStore``."""
        return []

    def channel_names(self) -> list[str] | None:
        """See ``PixelStore``."""
        return None

    def internal_metadata(self) -> dict[str, Any]:
        """See ``PixelStore``; there is no file whose header could be told."""
        return {}

    def associated_names(self) -> list[str]:
        """See ``PixelStore``."""
        return []

    def associated_image(self, key: str) -> PIL.Image.Image | None:
        """See ``PixelStore``."""
        return None

    def icc_profiles(self) -> list[bytes | None]:
        """See ``PixelStore``."""
        return []

    def close(self) -> None:
        """Give back memory and disk at once."""
        with self._claims.on(None, write=True):
            self._layers = self._lower = self._extent = None
            self.generation += 1


def _united(first: Rect | None, second: Rect) -> Rect:
    """The smallest rectangle around both."""
    if first is None or second.contains(first):
        return second
    if first.contains(second):
        return first
    left, top = min(first.left, second.left), min(first.top, second.top)
    return Rect(left, top, max(first.right, second.right) - left,
                max(first.bottom, second.bottom) - top)


def _pixels(layers: Layers, rect: Rect, alpha: bool) -> Array | None:
    """The samples of a rectangle in the caller plane, None if it is blank."""
    found = layers.gather(0, rect)
    if found is None or not alpha:
        return found and found[0]
    return with_alpha(*found)
