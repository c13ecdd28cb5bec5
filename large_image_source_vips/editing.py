"""
The methods of a source that put an image together and write it.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from large_image.exceptions import TileSourceError

from .base.geometry import Rect, Size
from .reading.reader import FileReader
from .sink.canvas import Canvas, as_position
from .sink.patch import as_mask, make_patch
from .source import StoreTileSource, is_new
from .writing.savers import Progress
from .writing.write import write_image

if TYPE_CHECKING:
    from .store import PixelStore


# The canvases of this process, by the path flag of the image they belong to:
# a styled source and the unstyled twin that large_image makes of it are two
# views of one canvas.
_canvases: weakref.WeakValueDictionary[str, Canvas] = weakref.WeakValueDictionary()


class EditableTileSource(StoreTileSource):
    """
    What a source made by ``new()`` adds to reading.

    On a source that was opened from a file, everything here that changes the
    image raises ``TileSourceError``; ``write`` converts the file.
    """

    def _open_store(self, path: Any) -> PixelStore:
        """The canvas or the file that this source is about."""
        if is_new(path):
            # Read by the base class, which then refuses to pickle.
            self._unpickleable = True
            return _canvases.setdefault(path, Canvas())
        self._refuse_ignored_name(path)
        return FileReader(path, self._default_loaders)

    @property
    def _canvas(self) -> Canvas:
        if not isinstance(self._store, Canvas):
            msg = ('This image was opened from a file and cannot be changed; make a new one '
                   'with large_image_source_vips.new().')
            raise TileSourceError(msg)
        return self._store

    def _changed(self) -> None:
        """Forget what the base class has derived from earlier pixels."""
        twin = vars(self).get('_unstyledInstance')
        for source in (self,) if twin is None else (self, twin):
            state = source.__dict__
            for name in ('_bandInfo', '_bandInfoNoStats'):
                state.pop(name, None)
            # The base class' own attribute: the ranges of styles with 'auto'.
            state['_bandRanges'] = {}

    def addTile(self, tile: Any, x: float = 0, y: float = 0, mask: Any = None,
                interpretation: str | None = None) -> None:
        """
        Paste a tile into the image, which grows to hold it.

        :param tile: a numpy array (rows, cols) or (rows, cols, bands), a PIL
            image, a ``pyvips.Image``, or the bytes of an encoded image.  It is
            neither changed nor kept.  An array that looks like (bands, rows,
            cols) is refused: one without an interpretation, with a first
            dimension of 1 to 4 and both others of 32 and more, unless the
            image has as many bands already as the last dimension.
        :param x: the column at which the left edge of the tile goes, a whole
            number; it may be negative.
        :param y: the row at which the top edge goes, likewise.
        :param mask: None, or anything that numpy can make an array of booleans
            of: (rows, cols), or (rows, cols, bands) with any number of bands,
            which is true where any band is.  Where it is false nothing
            changes.  It is not changed.  Not with bands that are all data.
        :param interpretation: None to go by the number of bands (1 gray, 2
            gray and alpha, 3 RGB, 4 RGB and alpha, 5 and more data); a
            ``pyvips.enums.Interpretation`` to label the values with, which are
            stored unchanged; 'L', 'LA', 'RGB', 'RGBA'; 'labels' for integers
            that are never averaged or compressed with loss; or 'pixelmap' for
            1 band of integers v that become r = v % 256, g = v // 256 % 256,
            b = v // 65536 % 256, and are labels, too.
        :raises TileSourceError: if the tile cannot be added; the image is then
            as it was.
        """
        canvas = self._canvas
        if mask is None and interpretation is None and type(tile) is np.ndarray and (
                type(x) is int and type(y) is int) and canvas.add_plain(tile, x, y):
            self._changed()
            return
        left, top = as_position(x, 'x'), as_position(y, 'y')
        with canvas.turn_for(tile):
            patch = make_patch(tile, interpretation, canvas.meaning)
            canvas.add(patch, left, top, as_mask(mask, patch.color.shape[:2]))
            self._changed()

    def write(self, path: str | os.PathLike[str], lossy: bool = True, alpha: bool = True,
              overwriteAllowed: bool = True, vips_kwargs: Mapping[str, Any] | None = None,
              progress: Progress | bool | None = None, frame: int | None = None) -> None:
        """
        Write the image to a file.

        A ``.tif`` or ``.tiff`` is a pyramid of 256 x 256 tiles: with loss
        allowed and 8-bit gray or RGB, JPEG of quality 90 (WebP where part of
        an RGB image is transparent); else LZW without loss, its lower levels
        made of picked samples.  Other suffixes go to libvips' savers.

        :param path: where to.  The file appears when it is whole; if anything
            goes wrong, one that was there before stays.
        :param lossy: whether the samples may change a little.  Nothing is ever
            clipped: data that JPEG cannot hold are written without loss.
        :param alpha: whether to write an alpha band, if anything is not opaque.
        :param overwriteAllowed: if False and the file exists, an error.
        :param vips_kwargs: the options for libvips' saver; nothing is chosen
            automatically then.
        :param progress: a function that is called with the fraction done, 0 to
            1, or True for a progress bar (tqdm).  What it raises cancels.
        :param frame: which frame of an opened file of several to write.
        :raises TileSourceError: if the file cannot be written.
        """
        chosen = None if frame is None else as_position(frame, 'frame')
        write_image(lambda: self._store.picture(chosen), path, lossy=lossy, alpha=alpha,
                    overwrite=overwriteAllowed, vips_kwargs=vips_kwargs, progress=progress)

    @property
    def crop(self) -> tuple[int, int, int, int] | None:
        """
        What part of the image ``write`` writes, or None for all of it.

        A tuple (x, y, width, height) in full-resolution pixels, 0, 0 being the
        corner of the image.  It may reach beyond the image, which bounds it;
        if nothing of the image is inside, ``write`` raises ``TileSourceError``.
        """
        crop = self._store.crop if isinstance(self._store, Canvas) else None
        return None if crop is None else (crop.left, crop.top, crop.width, crop.height)

    @crop.setter
    def crop(self, value: Any) -> None:
        canvas = self._canvas
        if value is None:
            canvas.crop = None
            return
        try:
            x, y, width, height = value
        except (TypeError, ValueError) as exc:
            msg = f'crop must be None or (x, y, width, height), not {value!r}.'
            raise TileSourceError(msg) from exc
        rect = Rect(*(as_position(part, 'Each part of crop') for part in (x, y, width, height)))
        if rect.left < 0 or rect.top < 0 or rect.empty:
            msg = (f'crop must have x and y of at least 0 and a positive width and height, '
                   f'not {value!r}.')
            raise TileSourceError(msg)
        canvas.crop = rect

    @property
    def minWidth(self) -> int | None:
        """The width in pixels that the image has at least, or None."""
        return self._min_size.width or None

    @minWidth.setter
    def minWidth(self, value: int | None) -> None:
        self._canvas.min_size = Size(_minimum(value, 'minWidth'), self._min_size.height)
        self._changed()

    @property
    def minHeight(self) -> int | None:
        """The height in pixels that the image has at least, or None."""
        return self._min_size.height or None

    @minHeight.setter
    def minHeight(self, value: int | None) -> None:
        self._canvas.min_size = Size(self._min_size.width, _minimum(value, 'minHeight'))
        self._changed()

    @property
    def _min_size(self) -> Size:
        return self._store.min_size if isinstance(self._store, Canvas) else Size(0, 0)

    @property
    def mm_x(self) -> float | None:
        """The width of a full-resolution pixel in mm, or None where unknown."""
        return self._store.pixel_size[0]

    @mm_x.setter
    def mm_x(self, value: float | None) -> None:
        self._canvas.set_pixel_size(_positive(value, 'mm_x'), self._canvas.pixel_size[1])

    @property
    def mm_y(self) -> float | None:
        """The height of a full-resolution pixel in mm, or None where unknown."""
        return self._store.pixel_size[1]

    @mm_y.setter
    def mm_y(self, value: float | None) -> None:
        self._canvas.set_pixel_size(self._canvas.pixel_size[0], _positive(value, 'mm_y'))

    @property
    def bandRanges(self) -> dict[str, npt.NDArray[Any]] | None:
        """
        The smallest and largest values of the tiles added, as they were given.

        :returns: {'min': (bands,), 'max': (bands,)}, each band over the tiles
            that have it, NaN left out; None for an opened file or without tiles.
        """
        return self._store.ranges.as_dict() if isinstance(self._store, Canvas) else None

    @property
    def origin(self) -> dict[str, int]:
        """Where the corner of the image lies in the coordinates of ``addTile``: each <= 0."""
        x, y = self._store.origin if isinstance(self._store, Canvas) else (0, 0)
        return {'x': x, 'y': y}


def _minimum(value: Any, name: str) -> int:
    """A minimum size as a plain int, 0 for None."""
    if value is None:
        return 0
    result = as_position(value, name)
    if result <= 0:
        msg = f'{name} must be None or positive, not {value!r}.'
        raise TileSourceError(msg)
    return result


def _positive(value: Any, name: str) -> float | None:
    """A size in mm as a float."""
    if value is None:
        return None
    try:
        result = float(value)
    except (TypeError, ValueError) as exc:
        msg = f'{name} must be None or a positive number of mm, not {value!r}.'
        raise TileSourceError(msg) from exc
    if not (result > 0 and math.isfinite(result)):
        msg = f'{name} must be None or a positive number of mm, not {value!r}.'
        raise TileSourceError(msg)
    return result
