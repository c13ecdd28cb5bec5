"""
The method ``write`` of a source.

It checks its arguments and calls the writer, which is imported on demand, because most
programs only read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt
from large_image.exceptions import TileSourceError

from .arguments import as_crop, as_frames, as_keys, as_options, as_resampler
from .base.geometry import Rect
from .opening import OpenedTileSource
from .sink.axes import as_position

if TYPE_CHECKING:
    from large_image.tilesource.resample import ResampleMethod

    from .store import Picture, Snapshot
    from .writing.pyramid import Progress


class _Part(NamedTuple):
    """
    The part of an image to write.

    :param crop: in full-resolution pixels; None for all.
    :param reduction: 0 for full resolution, r for the level 2 ** r times smaller.
    :param metadata: whether to write metadata of the file.
    :param associated: the keys of the associated images to write; None for all.
    """

    crop: Rect | None
    reduction: int
    metadata: bool
    associated: frozenset[str] | None


class SavableTileSource(OpenedTileSource):
    """A tile source with ``write``, which works for files and new images."""

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

        A ``.tif`` or ``.tiff`` file is a pyramid of tiles.  If loss is allowed, 8-bit gray
        and RGB are compressed with JPEG of quality 90, and holes are stored as 1-bit
        transparency masks.  Everything else is compressed with deflate, and its lower
        levels are not averaged.  Tiles of a TIFF file that would not change are copied
        without decoding.

        Several frames, and names that end in ``.ome.tif`` or ``.ome.tiff``, make an
        OME-TIFF file: OME-XML, lower levels as sub-IFDs, holes as an alpha band. Both store
        axes, names and colours of channels, values, texts, pixel size, magnification,
        colour profile, and associated images (lossless).

        Other suffixes are written by libvips' savers, with the pixels of one frame.

        :param path: the file.  It appears when it is complete; after an error an
            existing file is unchanged.
        :param lossy: whether lossy compression is allowed.  Values are never clipped: data
            that JPEG cannot store are lossless, except that 64-bit floats become 32-bit
            floats.
        :param alpha: whether to write transparency, if any pixel is not opaque.
        :param overwriteAllowed: whether an existing file may be replaced.
        :param vips_kwargs: options for libvips' saver, instead of automatic ones; they
            cannot be combined with the arguments below.
        :param progress: a function that is called with the fraction done, 0 to 1, or True
            for a progress bar (tqdm).  An exception in the function cancels the write and
            is raised unchanged.
        :param frame: the 0-based frame to write, or a list of frames; None for all.  Only
            TIFF files can have several.
        :param crop: (x, y, width, height) in full-resolution pixels: the part of an opened
            file to write; for a new image, set ``crop`` instead.
        :param level: the level of an opened file to write as full resolution; 0 is the
            smallest.  With a crop, all level pixels that it touches are written.
        :param metadata: False to write only pixels, pixel size, axes, and the colour
            profile without texts, date and device.
        :param associatedImages: the keys of the associated images to write; None for
            all.
        :param compression: of a TIFF file: 'jpeg', 'deflate', 'zstd', 'lzw',
            'webp', 'jpeg2000', 'packbits' or 'none'.
        :param quality: for JPEG and WebP 1 to 100, also in other formats than TIFF; for
            JPEG 2000 in TIFF the signal-to-noise ratio in dB.
        :param subsampling: for JPEG: '4:4:4', '4:2:2' or '4:2:0' to store YCbCr with that
            chroma subsampling; None for RGB from quality 90 on, 4:2:0 below.
        :param predictor: for deflate, zstd and LZW: 'none', 'horizontal' (integers) or
            'float'; None or 'yes' to choose by dtype.
        :param tileSize: the width and height of a tile, a multiple of 16; None for 256, or
            that of the file if its tiles are copied.  Also for DeepZoom.
        :param resample: how lower levels are computed: a member or name of large_image's
            ``ResampleMethod``, such as 'mean', 'nearest' or 'mode'; None for 'mean' with
            lossy compression, else 'nearest'.
        :param fill: the colour of fully transparent pixels, a number for each band or one
            for all.  None: white if the file has masks, else unchanged.
        :param dtype: the dtype to write; it must be able to hold all values, or be
            'float32' for 64-bit floats.
        :param verify: whether to decode all tiles that are copied, to check them.
        :raises TileSourceError: if the file cannot be written, or an argument is not
            possible for the data; the error lists the possible ones.
        """
        from .writing.choices import Choices
        from .writing.write import write_image

        chosen = None if frame is None else as_frames(frame)
        part = _Part(
            None if crop is None else as_crop(crop), self._reduction(level), bool(metadata),
            None if associatedImages is None else as_keys(associatedImages))
        choices = Choices(
            bool(lossy), bool(alpha), compression, quality, subsampling, predictor, tileSize,
            as_resampler(resample), fill, dtype, bool(verify), as_options(vips_kwargs))
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
        A context with the frames to write, or parts of them.

        :param frames: their numbers, ascending; None for all.
        :raises TileSourceError: if there is no such frame, part or associated image.
        """
        if (part.crop or part.reduction) and self._canvas_or_none is not None:
            msg = ('crop= and level= are for files that were opened; set the crop of a new image '
                   'with image.crop = (x, y, width, height).')
            raise TileSourceError(msg)
        from .writing import derived_images

        pixels = self._store.current()

        def changed_frame(number: int, picture: Picture) -> Picture:
            number = number if frames is None else frames[number]
            if part.reduction:
                picture = derived_images.at_reduction(
                    picture, part.reduction,
                    lambda rect: pixels.read(number, part.reduction, rect, keep=True))
            if part.crop:
                picture = derived_images.cropped(picture, part.crop.reduced(part.reduction))
            return picture

        with self._store.snapshot() as snapshot:
            if frames is not None:
                snapshot = derived_images.some_frames(snapshot, frames)
            snapshot = derived_images.with_changed_frames(
                derived_images.with_associated(snapshot, part.associated), changed_frame)
            if part.reduction:
                snapshot = derived_images.with_smaller_scale(snapshot, part.reduction)
            yield snapshot if part.metadata else derived_images.anonymous_snapshot(snapshot)
