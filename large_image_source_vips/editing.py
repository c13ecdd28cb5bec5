"""
Methods and properties of a source that build an image and write it.

They check their arguments and pass them to the canvas or the writer.  This is
the only module that distinguishes the kinds of store.
"""

from __future__ import annotations

import collections
import functools
import os
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from large_image.exceptions import TileSourceError

from .annotations import AnnotatedTileSource, checked_key
from .arguments import as_crop, as_frames, as_minimum, as_order, as_resampler
from .base.errors import TileSourceValueError
from .base.frames import positive_number
from .base.geometry import Rect, Size
from .base.limits import LIMITS
from .closing import ClosableTileSource
from .reading.reader import FileReader
from .sink.axes import as_position, looks_like_axes, make_placement, split
from .sink.canvas import Canvas
from .sink.patch import as_mask, as_weight, is_interpretation, make_associated, make_patch
from .sink.spooled import new_canvas
from .sink.tile_index import tile_key
from .source_cache import is_new
from .writing.choices import Choices
from .writing.parts import (
    anonymous_snapshot,
    at_reduction,
    changed,
    cropped,
    some_frames,
    with_associated,
    with_smaller_scale,
)
from .writing.pyramid import Progress
from .writing.write import write_image

if TYPE_CHECKING:
    from large_image.tilesource.resample import ResampleMethod

    from .store import Picture, PixelStore, Snapshot


# The canvases of this process by the path flag of their image.  large_image makes
# an unstyled twin of a styled source; both must use the same canvas.
_canvases: weakref.WeakValueDictionary[str, Canvas] = weakref.WeakValueDictionary()

# The open sources that use a canvas.
_users: weakref.WeakKeyDictionary[Canvas, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()


# The last shared images that this process was sent: one that is sent with each task stays
# the same one, with one log, though the tasks forget it.
_received: collections.deque[Canvas] = collections.deque(maxlen=LIMITS.sink_received)


class _Part(NamedTuple):
    """
    What of an image to write.

    :param crop: in full-resolution pixels; None for all.
    :param reduction: 0 for full resolution, r for the level 2 ** r times smaller.
    :param metadata: whether to write what the file says besides its pixels.
    :param associated: the keys of the associated images to write; None for all.
    """

    crop: Rect | None
    reduction: int
    metadata: bool
    associated: frozenset[str] | None


class EditableTileSource(ClosableTileSource, AnnotatedTileSource):
    """
    A tile source that can be built with ``addTile`` and saved with ``write``.

    Only images made by ``new()`` can be changed; on a source opened from a file,
    changes raise ``TileSourceError``.  ``write`` works for both.
    """

    def _open_store(self, path: Any) -> PixelStore:
        """Return the canvas of a new image, or open a file."""
        if is_new(path):
            options = self._sink_options
            if options.get('spool') is None:
                # The base class then refuses to pickle the source.
                self._unpickleable = True
            canvas = _canvases.get(path)
            if canvas is not None and canvas.closed:
                # Unpickled after it was closed.
                del _canvases[path]
                canvas = None
            if canvas is None:
                canvas = _canvases.setdefault(path, new_canvas(
                    options.get('blend'), options.get('accumulator'), options.get('spool')))
            self._use(canvas)
            return canvas
        self._refuse_ignored_name(path)
        if self._sink_options:
            msg = f'{sorted(self._sink_options)[0]}= is an argument of new(), not of open().'
            raise TileSourceError(msg)
        return FileReader(path, self._default_loaders)

    def __reduce__(self) -> tuple[Any, ...]:
        """How the source is pickled: by its arguments."""
        make, arguments = super().__reduce__()
        return (functools.partial(_receive, make), arguments) if self._sink_options else (
            make, arguments)

    def _use(self, canvas: Canvas) -> None:
        """Count this source as a user of a canvas; the last one to be closed closes it."""
        _users.setdefault(canvas, weakref.WeakSet()).add(self)

    def _close_store(self, delete: bool) -> None:
        """
        Close a canvas that no other source uses, and forget what is kept of a file.

        :param delete: whether to remove the folder of a shared spool, used or not.
        """
        store = self._store
        if not isinstance(store, Canvas):
            store.close()
            return
        users = _users.get(store, weakref.WeakSet())
        users.discard(self)
        if delete or not set(users) - {vars(self).get('_unstyledInstance')}:
            store.close(delete)

    @property
    def _canvas_or_none(self) -> Canvas | None:
        """The canvas of a new image; an error if the source is closed."""
        self._check_open()
        return self._store if isinstance(self._store, Canvas) else None

    @property
    def _canvas(self) -> Canvas:
        self._check_open()
        if not isinstance(self._store, Canvas):
            msg = ('This image was opened from a file and cannot be changed; make a new image '
                   'with large_image_source_vips.new().')
            raise TileSourceError(msg)
        return self._store

    def _changed(self) -> None:
        """Clear what the base class has computed from earlier pixels."""
        twin = vars(self).get('_unstyledInstance')
        for source in (self,) if twin is None else (self, twin):
            state = source.__dict__
            for name in ('_bandInfo', '_bandInfoNoStats'):
                state.pop(name, None)
            # An attribute of the base class: the ranges of styles with 'auto'.
            state['_bandRanges'] = {}
        self._refresh_soon()

    def addTile(self, tile: Any, x: float = 0, y: float = 0, mask: Any = None,
                interpretation: str | None = None, axes: str | Sequence[str] | None = None, *,
                weight: Any = None, key: Any = None, order: float | None = None,
                **position: Any) -> None:
        """
        Add a tile to a frame of the image, which grows to hold it.

        Where tiles overlap, the ``blend`` policy of ``new`` says what is seen; without
        one, the tile that was added last.

        :param tile: a numpy array (rows, cols) or (rows, cols, bands), a PIL
            image, a ``pyvips.Image``, or the bytes of an encoded image.  It is
            neither changed nor kept.  An array that looks like (bands, rows,
            cols) is an error: its first dimension is 1 to 4, both others are at
            least 32, no interpretation is given, and the last dimension is not
            the number of bands of the image.
        :param x: the column of the left edge of the tile, a whole number; it
            may be negative.
        :param y: the row of the top edge of the tile, likewise.
        :param mask: None, or an array (rows, cols) or (rows, cols, bands) that
            numpy can convert to bool.  Pixels are pasted where it is true; with
            several bands, where any of them is.  It is not changed.
        :param interpretation: what the bands are:

            - None: by their number: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and
              alpha, 5 and more multiband data;
            - a ``pyvips.enums.Interpretation``: the image gets this label, the
              values are stored unchanged;
            - 'L', 'LA', 'RGB' or 'RGBA';
            - 'labels': integers that are never averaged or compressed with loss;
            - 'pixelmap': labels of 1 band; each integer v becomes r = v % 256,
              g = v // 256 % 256, b = v // 65536 % 256.
        :param axes: the names of the dimensions of an array with more than rows,
            columns and bands, such as 'zyxs' or ``['z', 'y', 'x']``: it is added as
            several frames.  'x' and 'y' are required, 's' are the bands.
        :param weight: None, or an array (rows, cols) of numbers from 0 on: how much each
            pixel counts with the policies 'mean', 'feather' (which then does not weight by
            distance) and 'sum'.
        :param key: None, or a name of this tile: an integer, a text, or a tuple of these.
            A tile counts once, however often it is added under its key, by any process.
            Without a key a tile that is added twice counts twice, in a mean or a sum.
        :param order: None, or a number: a tile lies over those of lower numbers.  Tiles
            without one lie below.  By default, tiles of one process lie in the order in
            which they were added, and those of a shared spool in that of their keys, then
            of y and x.
        :param position: the 0-based position of the frame on an axis, such as ``c=1``,
            ``z=0``; 0 where an axis is not given.  New axes and positions add frames.
            ``c_value='DAPI'`` or ``z_value=2.5`` says what a position stands for; a
            list does so for all positions of an array.
        :raises TileSourceError: if the tile cannot be added, or its key was given to
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
                   f'them by name: axes={interpretation!r}.')
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

    def _sorting_canvas(self, canvas: Canvas) -> Canvas:
        """
        A canvas that sorts tiles, in place of an empty one that does not.

        :raises TileSourceError: if it is not empty.
        """
        if canvas.dtype is not None:
            msg = ('order= must be given from the first tile on, or the image be made with '
                   'new(spool=...), because earlier tiles are not kept apart.')
            raise TileSourceError(msg)
        new = new_canvas('over', None, None, sorts=True)
        new.take_over(canvas)
        path = self._getLargeImagePath()
        _canvases[path] = new
        for source in set(_users.get(canvas, ())):
            source._set_store(new)
            source._use(new)
        return new

    def flush(self) -> None:
        """
        Make sure that all tiles that this process added survive a crash of the system.

        For an image with a shared spool (``spool=``).  Any other image ends with its
        process, and there is nothing to do.

        :raises TileSourceError: if the disk fails, or its file system cannot do this.
        """
        self._canvas.flush()

    def added(self, key: Any) -> bool:
        """
        Whether a tile was added under a key, in a shared spool by any process.

        :param key: as for ``addTile``.
        :raises TileSourceError: if it is not a key.
        """
        return self._canvas.added(tile_key(key))

    def addAssociatedImage(self, image: Any, imageKey: str | None = None) -> None:
        """
        Add an associated image, or replace one.

        :param image: an array (rows, cols) or (rows, cols, bands) of 1 to 4 bands, a PIL
            image, a ``pyvips.Image`` or the bytes of an encoded image.
        :param imageKey: such as 'label', 'macro' or 'thumbnail'; None for image_1, image_2
            and so on.
        :raises TileSourceError: if it is no such image.
        """
        canvas, key = self._canvas, checked_key(imageKey)
        canvas.add_associated(key, make_associated(image))
        self._changed()

    def write(self, path: str | os.PathLike[str], lossy: bool = True, alpha: bool = True,
              overwriteAllowed: bool = True, vips_kwargs: Mapping[str, Any] | None = None,
              progress: Progress | bool | None = None,
              frame: int | Sequence[int] | None = None, *,
              crop: tuple[int, int, int, int] | None = None, level: int | None = None,
              metadata: bool = True, associatedImages: Collection[str] | None = None,
              compression: str | None = None, quality: int | None = None,
              subsampling: str | None = None, predictor: str | None = None,
              tileSize: int | None = None, resample: str | ResampleMethod | None = None,
              fill: Sequence[float] | float | None = None, dtype: npt.DTypeLike | None = None,
              verify: bool = False) -> None:
        """
        Write the image to a file.

        A ``.tif`` or ``.tiff`` file is a pyramid of tiles.  8-bit gray and RGB
        are JPEG of quality 90 if loss is allowed; holes are stored as 1-bit
        transparency masks.  Everything else is deflate, and its lower levels are
        not averaged.  Tiles of a TIFF file are passed on undecoded where they
        would not change.

        Several frames, and names that end in ``.ome.tif`` or ``.ome.tiff``, make an
        OME-TIFF file: OME-XML, lower levels as sub-IFDs, holes as an alpha band.
        Both kinds keep all that is known: axes, names and colours of channels,
        values, texts, pixel size, magnification, colour profile and associated
        images, which are stored without loss.

        Other suffixes are written by libvips' savers, with the pixels of one frame.

        :param path: the file.  It appears when it is complete; after an error an
            existing file is unchanged.
        :param lossy: whether lossy compression is allowed.  Values are never
            clipped: data that JPEG cannot hold are written without loss, but
            64-bit floats become 32-bit floats.
        :param alpha: whether to write transparency, if any pixel is not opaque.
        :param overwriteAllowed: whether an existing file may be replaced.
        :param vips_kwargs: options for libvips' saver, which replace those
            chosen automatically; not with any of the arguments below.
        :param progress: a function that is called with the fraction done, 0 to
            1, or True for a progress bar (tqdm).  An exception in the function
            cancels the write and is passed on.
        :param frame: the 0-based frame to write, or a list of frames; None for all.
            Only TIFF files hold several.
        :param crop: (x, y, width, height) in full-resolution pixels, to write a part
            of an opened file; for a new image, set ``crop`` instead.
        :param level: the level of an opened file to write as full resolution; 0 is
            the smallest.  With a crop, all pixels of the level that it touches.
        :param metadata: False to write only pixels, their size, their axes, and their
            colour profile without texts, date and device.
        :param associatedImages: the keys of the associated images to write; None for
            all.
        :param compression: of a TIFF file: 'jpeg', 'deflate', 'zstd', 'lzw',
            'webp', 'jpeg2000', 'packbits' or 'none'.
        :param quality: 1 to 100, of JPEG and WebP; of JPEG 2000 the ratio of
            signal to noise in dB.
        :param subsampling: of JPEG: '4:4:4', '4:2:2' or '4:2:0' to store RGB as
            YCbCr; None for RGB from quality 90 on, 4:2:0 below.
        :param predictor: of deflate, zstd and LZW: 'none', 'horizontal' (integers)
            or 'float'; None or 'yes' for the one that fits.
        :param tileSize: the width and height of a tile, a multiple of 16; None for
            256, or that of the file's tiles if these are passed on.
        :param resample: how lower levels are made: a member or name of
            large_image's ``ResampleMethod``, such as 'mean', 'nearest' or 'mode';
            None for 'mean' if compression loses values, else 'nearest'.
        :param fill: the colour of fully transparent pixels, a number for each
            band or one for all; None for white if they are masked in the file,
            else for what is stored there.
        :param dtype: the dtype to write, if it holds all values; 'float32' for
            64-bit floats.
        :param verify: whether to decode all tiles that are passed on, for a test.
        :raises TileSourceError: if the file cannot be written, or the data cannot
            have what was chosen; the error lists what they can have.
        """
        chosen = None if frame is None else as_frames(frame)
        part = _Part(
            None if crop is None else as_crop(crop), self._reduction(level), bool(metadata),
            None if associatedImages is None else frozenset(associatedImages))
        choices = Choices(
            bool(lossy), bool(alpha), compression, quality, subsampling, predictor, tileSize,
            as_resampler(resample), fill, dtype, bool(verify), vips_kwargs)
        write_image(lambda: self._part(chosen, part), path, choices,
                    overwrite=overwriteAllowed, progress=progress)

    def _reduction(self, level: int | None) -> int:
        """
        The reduction of a level to write.

        :raises TileSourceError: if there is no such level.
        """
        if level is None:
            return 0
        z = as_position(level, 'level')
        if not 0 <= z < self.levels:
            msg = (f'There is no level {z}; the image has levels 0 (the smallest) to '
                   f'{self.levels - 1} (full resolution).')
            raise TileSourceError(msg)
        return int(self.levels - 1 - z)

    @contextmanager
    def _part(self, frames: Sequence[int] | None, part: _Part) -> Iterator[Snapshot]:
        """
        All frames or some, or a part of them, to write.

        :param frames: their numbers, ascending; None for all.
        :raises TileSourceError: if there is no such frame, part or associated image.
        """
        if (part.crop or part.reduction) and isinstance(self._store, Canvas):
            msg = ('crop= and level= are for files that were opened; set the crop of a new image '
                   'with image.crop = (x, y, width, height).')
            raise TileSourceError(msg)
        pixels = self._store.current()

        def changed_frame(number: int, picture: Picture) -> Picture:
            number = number if frames is None else frames[number]
            if part.reduction:
                picture = at_reduction(
                    picture, part.reduction,
                    lambda rect: pixels.read(number, part.reduction, rect, keep=True))
            if part.crop:
                picture = cropped(picture, part.crop.reduced(part.reduction))
            return picture

        with self._store.snapshot() as snapshot:
            if frames is not None:
                snapshot = some_frames(snapshot, frames)
            snapshot = changed(with_associated(snapshot, part.associated), changed_frame)
            if part.reduction:
                snapshot = with_smaller_scale(snapshot, part.reduction)
            yield snapshot if part.metadata else anonymous_snapshot(snapshot)

    @property
    def crop(self) -> tuple[int, int, int, int] | None:
        """
        The part of the image to write, or None for all of it.

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
        The minimum and maximum of each band over all tiles, as they were given.

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


def _receive(make: Callable[..., EditableTileSource], *arguments: Any) -> EditableTileSource:
    """Unpickle an image with a shared spool."""
    source = make(*arguments)
    canvas = source._canvas
    if canvas not in _received:
        _received.append(canvas)
    return source
