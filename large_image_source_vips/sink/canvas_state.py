"""
The properties of a canvas: size, format, pixel size, crop, and the process that it belongs
to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base import files
from ..base.errors import TileSourceError
from ..base.formats import Meaning
from ..base.frames import Annotations
from ..base.geometry import Rect, Size
from ..base.limits import LIMITS
from .annotated_store import AnnotatedStore
from .band_ranges import BandRanges
from .layers import Layers
from .levels import LowerLevels

if TYPE_CHECKING:
    from typing_extensions import Self


_NO_SIZE = Size(0, 0)


class CanvasState(AnnotatedStore):
    """
    The properties of a canvas.

    Public members may wait for a lock; those with an underscore are for callers that hold
    one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pixel_size: tuple[float | None, float | None] = (None, None)
        self._closed = False
        # Whether addTile accepts order=.
        self.sorts = False
        # A hash of the tile, by key.
        self._keys: dict[Any, bytes] = {}
        self._process = files.process_id()
        self._crop: Rect | None = None
        self._ranges = BandRanges()
        self._layers: Layers | None = None
        self._extent: Rect | None = None
        self._min_size = Size(0, 0)
        # The lower levels of frames that have any, by frame number of their blocks.
        self._lower: dict[int, LowerLevels] = {}
        # Whether a tile had an alpha band.
        self._alpha_given = False
        # Whether there is a palette, so that lower levels are picked.
        self._has_palette = False

    def check_process(self) -> None:
        """
        Check that this is the process that made the canvas, and that it is open.

        :raises TileSourceError: in a forked process, and after ``close``.
        """
        if self._closed:
            msg = 'This image has been closed; make a new one.'
            raise TileSourceError(msg)
        if files.process_id() != self._process:
            msg = (f'This image belongs to another process ({self._process}) and cannot be '
                   f'changed or read in a process forked from it; send the tiles to that '
                   f'process, or write the image and open the file.')
            raise TileSourceError(msg)

    def current(self) -> Self:
        """The canvas itself; an error in a forked process."""
        self.check_process()
        return self

    def latest(self) -> Self:
        """The canvas itself."""
        return self

    def held(self) -> AbstractContextManager[None]:
        """See ``PixelStore``; there is no file that could change."""
        self.current()
        return nullcontext()

    def copy_settings(self, other: CanvasState) -> None:
        """Copy the properties set on another canvas, which has no tiles."""
        self._pixel_size, self._crop = other.pixel_size, other.crop
        self._min_size, self._generation = other.min_size, other.generation + 1
        self._frames.copy_settings(other._frames)
        self._has_palette = self._frames.has_palette
        self._associated = other._associated

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def _refresh(self) -> None:
        """Read properties set by other processes; a plain canvas has none."""

    def _remember(self, name: str, value: Any) -> None:
        """Store a property for other processes."""

    @property
    def pixel_size(self) -> tuple[float | None, float | None]:
        """Width and height of a full-resolution pixel in mm, None where unknown."""
        self._refresh()
        return self._pixel_size

    @property
    def _origin(self) -> tuple[int, int]:
        return origin_of(self._extent)

    @property
    def origin(self) -> tuple[int, int]:
        """The top left corner of the image in caller coordinates: (x, y), each <= 0."""
        return self._origin

    @property
    def _size(self) -> Size:
        return self.size_of(self._extent, self._min_size)

    @property
    def size(self) -> Size:
        """The size in full-resolution pixels, at least the minimum size."""
        return self._size

    @staticmethod
    def size_of(extent: Rect | None, min_size: Size = _NO_SIZE) -> Size:
        """The size of an image with an extent in caller coordinates."""
        if extent is None:
            return min_size
        left, top = origin_of(extent)
        return Size(max(extent.right - left, -left, min_size.width),
                    max(extent.bottom - top, -top, min_size.height))

    @property
    def min_size(self) -> Size:
        """The minimum size of the image; 0 for no minimum."""
        self._refresh()
        return self._min_size

    @min_size.setter
    def min_size(self, value: Size) -> None:
        self.check_process()
        check_size(self.size_of(self._extent, value), 'A minimum size')
        self._remember('min_size', value)
        with self._locks.area(None, write=True):
            self._apply_min_size(value)

    def _apply_min_size(self, value: Size) -> None:
        """Change the minimum size, while the whole canvas is locked."""
        self._min_size = value
        self._forget_lower_levels()
        self._count_change()

    def annotate(self, change: Callable[[Annotations], Mapping[str, Any]]) -> None:
        """Change annotations; see ``AnnotatedStore.annotate``."""
        super().annotate(change)
        self._apply_palette()

    def _apply_palette(self) -> None:
        """Drop the lower levels if the image now has a palette, or has none any longer."""
        if self._frames.has_palette != self._has_palette:
            with self._locks.area(None, write=True):
                self._has_palette = self._frames.has_palette
                self._forget_lower_levels()
                self._count_change()

    def _forget_lower_levels(self) -> None:
        """Drop the lower levels of all frames."""
        for lower in self._lower.values():
            lower.forget_all()
        self._lower = {}

    @property
    def crop(self) -> Rect | None:
        """The part of the image to write, in full-resolution pixels; None for all."""
        self._refresh()
        return self._crop

    @crop.setter
    def crop(self, value: Rect | None) -> None:
        self.check_process()
        self._remember('crop', value)
        self._crop = value

    def set_pixel_size(self, mm_x: float | None, mm_y: float | None) -> None:
        """Set the width and height of a full-resolution pixel in mm."""
        self.check_process()
        self._remember('pixel_size', (mm_x, mm_y))
        self._pixel_size = mm_x, mm_y
        self._count_change()

    @property
    def ranges(self) -> BandRanges:
        """The smallest and largest values of the tiles added."""
        self.check_process()
        return self._ranges

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of the samples; None without tiles."""
        return None if self._layers is None else self._layers.dtype

    @property
    def meaning(self) -> Meaning | None:
        """The meaning of the bands; None without tiles."""
        return None if self._layers is None else self._layers.meaning

    @property
    def known_meaning(self) -> Meaning | None:
        """The meaning of the bands, without looking for tiles of other processes."""
        return None if self._layers is None else self._layers.meaning

    @property
    def bands(self) -> int | None:
        """The number of bands that ``read`` returns; None without tiles."""
        if self._layers is None:
            return None
        meaning = self._layers.meaning
        return meaning.bands if self._shows_alpha else meaning.color_bands

    @property
    def _shows_alpha(self) -> bool:
        """
        Whether ``read`` returns the alpha band, if there is one.

        Images with several frames have one only if a tile had: microscope channels have no
        alpha.
        """
        return self._alpha_given or not self._frames.axes.lengths

    @property
    def known_axes(self) -> list[str]:
        """The axes of the frames, slowest first, to order new axes of a tile."""
        with self._locks.lock:
            return list(self._frames.axes.lengths)


def origin_of(extent: Rect | None) -> tuple[int, int]:
    """The corner of the image, which always contains the point 0, 0."""
    if extent is None:
        return 0, 0
    return min(0, extent.left), min(0, extent.top)


def check_size(size: Size, what: str) -> None:
    """
    Check the size of an image.

    :param what: the reason for the size, for the error text.
    :raises TileSourceError: if it is too large.
    """
    if max(size) > LIMITS.sink_side:
        msg = (f'{what} would make the image {size.width} x {size.height} pixels; the maximum '
               f'is {LIMITS.sink_side} in each direction.')
        raise TileSourceError(msg)
