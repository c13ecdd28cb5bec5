"""
Methods and properties to build an image: ``addTile``, ``crop``, ``minWidth``, ``mm_x``, ...

They check their arguments and call the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .annotations import checked_key
from .arguments import as_crop, as_minimum, as_order
from .base.errors import TileSourceValueError
from .base.frames import positive_number
from .base.geometry import Size
from .saving import SavableTileSource
from .sink.axes import as_position, looks_like_axes, make_placement, split
from .sink.masks import as_mask, as_weight
from .sink.patch import is_interpretation, make_associated, make_patch
from .sink.tile_index import tile_key


class EditableTileSource(SavableTileSource):
    """
    A tile source that can be built with ``addTile`` and saved with ``write``.

    Only images made by ``new()`` can be changed; on a source opened from a file,
    changes raise ``TileSourceError``.  ``write`` works for both.
    """

    def _changed(self) -> None:
        """Clear values that the base class computed from earlier pixels."""
        twin = vars(self).get('_unstyledInstance')
        for source in (self,) if twin is None else (self, twin):
            state = source.__dict__
            for name in ('_bandInfo', '_bandInfoNoStats'):
                state.pop(name, None)
            # The base class stores the ranges of styles with 'auto' here.
            state['_bandRanges'] = {}
        self._refresh_soon()

    def addTile(self, tile: Any, x: float = 0, y: float = 0, mask: Any = None,
                interpretation: str | None = None, axes: str | Sequence[str] | None = None, *,
                weight: Any = None, key: Any = None, order: float | None = None,
                **position: Any) -> None:
        """
        Add a tile to a frame of the image, which grows to contain it.

        Overlapping tiles are combined by the ``blend`` policy of ``new``; by default the
        last tile is on top.

        :param tile: a numpy array (rows, cols) or (rows, cols, bands), a PIL
            image, a ``pyvips.Image``, or the bytes of an encoded image.  It is
            neither changed nor kept.  An array that looks like (bands, rows,
            cols) is an error: its first dimension is 1 to 4, both others are at
            least 32, no interpretation is given, and the last dimension is not
            the number of bands of the image.
        :param x: the column of the left edge of the tile, a whole number; it
            may be negative.
        :param y: the row of the top edge of the tile, a whole number; it may be negative.
        :param mask: None, or an array (rows, cols) or (rows, cols, bands) that
            numpy can convert to bool.  Pixels are pasted where it is true; with
            several bands, where any of them is.  It is not changed.
        :param interpretation: the meaning of the bands:

            - None: by their number: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and
              alpha, 5 and more multiband data;
            - a ``pyvips.enums.Interpretation``: the image gets this label, the
              values are stored unchanged;
            - 'L', 'LA', 'RGB' or 'RGBA';
            - 'labels': integers that are never averaged or compressed with loss;
            - 'pixelmap': labels of 1 band; each integer v becomes r = v % 256,
              g = v // 256 % 256, b = v // 65536 % 256.
        :param axes: the names of the dimensions of an array with several frames, such as
            'zyxs' or ``['z', 'y', 'x']``.  'x' and 'y' are required, 's' is the bands.
        :param weight: None, or an array (rows, cols) of numbers, at least 0: the weight of
            each pixel for the policies 'mean', 'sum' and 'feather' (there instead of the
            distance).
        :param key: None, or an identifier of this tile: an integer, a text, or a tuple of
            these.  A tile with a key is added only once, however often any process adds it.
            Without a key, a tile that is added twice counts twice in a mean or a sum.
        :param order: None, or a number: a tile is on top of tiles with lower numbers, and
            of tiles without one.  By default, later tiles are on top; in a shared spool,
            tiles are sorted by key, then by y and x.
        :param position: the 0-based position of the frame on an axis, such as ``c=1``,
            ``z=0``; 0 where an axis is not given.  New axes and positions add frames.
            ``c_value='DAPI'`` or ``z_value=2.5`` is the value of a position; a list has the
            values of all positions of an array.
        :raises TileSourceError: if the tile cannot be added, or its key was used for
            another tile; the image is then unchanged.
        """
        canvas = self._canvas
        plain = mask is None and interpretation is None and axes is None and weight is None
        if plain and key is None and order is None and type(tile) is np.ndarray and (
                type(x) is int and type(y) is int) and canvas.add_plain(tile, x, y, position):
            self._changed()
            return
        if looks_like_axes(interpretation) and not is_interpretation(interpretation):
            msg = (f'interpretation={interpretation!r} can only be the axes of the tile; pass '
                   f'them as axes={interpretation!r}.')
            raise TileSourceValueError(msg)
        left, top = as_position(x, 'x'), as_position(y, 'y')
        key, order = tile_key(key), as_order(order)
        canvas.check_process()
        if order is not None and not canvas.sorts:
            canvas = self._sorting_canvas(canvas)
        placement = make_placement(axes, position, canvas.known_axes)
        if weight is not None:
            weight = split(placement, tile, weight)[2]
        target, tile, mask = split(placement, tile, mask)
        patch = make_patch(tile, interpretation, canvas.known_meaning, named=axes is not None)
        shape = patch.color.shape[:2]
        canvas.add(patch, left, top, as_mask(mask, shape), target,
                   weight=as_weight(weight, shape), key=key, order=order)
        self._changed()

    def flush(self) -> None:
        """
        Write all tiles of this process to disk, so that they survive a crash of the system.

        This applies to images with a shared spool (``spool=``).  Other images end with
        their process, so for them it does nothing.

        :raises TileSourceError: if the disk fails, or the file system does not support it.
        """
        self._canvas.flush()

    def added(self, key: Any) -> bool:
        """
        Whether a tile with a key was added, in a shared spool by any process.

        :param key: as for ``addTile``.
        :raises TileSourceError: if it is not a valid key.
        """
        return self._canvas.added(tile_key(key))

    def addAssociatedImage(self, image: Any, imageKey: str | None = None) -> None:
        """
        Add an associated image, or replace one.

        :param image: an array (rows, cols) or (rows, cols, bands) of 1 to 4 bands, a PIL
            image, a ``pyvips.Image`` or the bytes of an encoded image.
        :param imageKey: such as 'label', 'macro' or 'thumbnail'; None for image_1, image_2
            and so on.
        :raises TileSourceError: if it is not such an image.
        """
        canvas, key = self._canvas, checked_key(imageKey)
        canvas.add_associated(key, make_associated(image))
        self._changed()

    @property
    def crop(self) -> tuple[int, int, int, int] | None:
        """
        The rectangle of the image to write, or None for all.

        A tuple (x, y, width, height) in full-resolution pixels from the top left
        corner of the image.  It is clipped to the image; if nothing is left,
        ``write`` raises ``TileSourceError``.
        """
        canvas = self._canvas_or_none
        crop = None if canvas is None else canvas.crop
        return None if crop is None else (crop.left, crop.top, crop.width, crop.height)

    @crop.setter
    def crop(self, value: Any) -> None:
        canvas = self._canvas
        if value is None:
            canvas.crop = None
            return
        canvas.crop = as_crop(value)

    @property
    def minWidth(self) -> int | None:
        """The minimum width of the image in pixels, or None."""
        return self._min_size.width or None

    @minWidth.setter
    def minWidth(self, value: int | None) -> None:
        self._canvas.min_size = Size(as_minimum(value, 'minWidth'), self._min_size.height)
        self._changed()

    @property
    def minHeight(self) -> int | None:
        """The minimum height of the image in pixels, or None."""
        return self._min_size.height or None

    @minHeight.setter
    def minHeight(self, value: int | None) -> None:
        self._canvas.min_size = Size(self._min_size.width, as_minimum(value, 'minHeight'))
        self._changed()

    @property
    def _min_size(self) -> Size:
        canvas = self._canvas_or_none
        return Size(0, 0) if canvas is None else canvas.min_size

    @property
    def mm_x(self) -> float | None:
        """The width of a full-resolution pixel in mm; None if unknown."""
        return self._store.pixel_size[0]

    @mm_x.setter
    def mm_x(self, value: float | None) -> None:
        self._canvas.set_pixel_size(positive_number(value, 'mm_x'), self._canvas.pixel_size[1])

    @property
    def mm_y(self) -> float | None:
        """The height of a full-resolution pixel in mm; None if unknown."""
        return self._store.pixel_size[1]

    @mm_y.setter
    def mm_y(self, value: float | None) -> None:
        self._canvas.set_pixel_size(self._canvas.pixel_size[0], positive_number(value, 'mm_y'))

    @property
    def bandRanges(self) -> dict[str, npt.NDArray[Any]] | None:
        """
        The minimum and maximum of each band over all tiles, before conversions.

        :returns: ``{'min': array (bands,), 'max': array (bands,)}``, without
            NaN; None for an opened file or an image without tiles.
        """
        canvas = self._canvas_or_none
        return None if canvas is None else canvas.ranges.as_dict()

    @property
    def origin(self) -> dict[str, int]:
        """The top left corner of the image in the coordinates of ``addTile``; x, y <= 0."""
        canvas = self._canvas_or_none
        x, y = (0, 0) if canvas is None else canvas.origin
        return {'x': x, 'y': y}
