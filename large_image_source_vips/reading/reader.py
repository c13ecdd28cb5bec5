"""
A file that is read: the questions of ``pixels.PixelStore``, answered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image
import pyvips
from large_image.tilesource.utilities import _imageToPIL

from ..base.errors import SAVERS_CAN_FAIL, TileSourceError, TileSourceFileNotFoundError, vips_errors
from ..base.formats import format_of, meaning_of
from ..base.geometry import TILE_SIZE, Rect, Size
from ..base.identity import absolute_path, file_identity
from ..base.limits import LIMITS
from ..store import Picture
from . import metadata
from .file import SourceFile, source_file
from .layout import Layout
from .levels import Levels
from .survey import survey
from .unpack import unpacker

# An associated image larger than this is given at a lower resolution.
_MAX_ASSOCIATED = LIMITS.reading_associated_side

# How many rows of a picture are looked at together.
_FILLED_ROWS = 256


class _Opened(NamedTuple):
    """A file as it was at one moment; replaced as a whole when it changed."""

    file: SourceFile
    layout: Layout
    levels: Levels


class FileReader:
    """
    The pixels and the description of one file.

    The path is made absolute now, so a later change of the working directory
    does not matter.  A file that changes is noticed at the next read: if it
    still holds an image of the same kind, that is read from then on, else the
    read fails.

    :param path: a str, bytes or path object.
    :param loaders: the loaders that may be used where the setting
        source_vips_loaders says nothing.
    :raises TileSourceFileNotFoundError: if there is no such file.
    :raises TileSourceError: if it cannot be read as an image, or the settings
        do not allow to.
    """

    # See ``PixelStore``.
    generation = 0
    decodes = True

    def __init__(self, path: Any, loaders: str | Collection[str] = 'all') -> None:
        self._path = absolute_path(path)
        self._loaders = loaders
        self._opened = self._open()

    def _open(self) -> _Opened:
        file = source_file(self._path, self._loaders)
        layout = survey(file)
        return _Opened(file, layout, Levels(file, layout))

    @property
    def _file(self) -> SourceFile:
        return self._opened.file

    @property
    def _layout(self) -> Layout:
        return self._opened.layout

    # What the image is like

    @property
    def size(self) -> Size:
        """The size of every frame in full-resolution pixels."""
        return self._layout.size

    @property
    def frame_count(self) -> int:
        """How many frames there are, at least 1."""
        return len(self._layout.frames)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the samples."""
        return self._layout.dtype

    @property
    def bands(self) -> int:
        """How many bands each pixel has, alpha included."""
        return self._layout.bands

    @property
    def interpretation(self) -> str:
        """What the bands mean in libvips' words, such as 'srgb'."""
        return self._layout.interpretation

    @property
    def pixel_size(self) -> tuple[float | None, float | None]:
        """The width and height of a full-resolution pixel in mm, where known."""
        return self._describe().pixel_size

    @property
    def magnification(self) -> float | None:
        """The magnification of the objective that the file states, if any."""
        return self._describe().magnification

    def frame_axes(self) -> list[dict[str, Any]]:
        """
        One dictionary for each frame with its position on every axis.

        :returns: entries such as ``{'IndexC': 0, 'IndexZ': 3}``; empty ones
            where the file tells of no axes.
        """
        axes = self._layout.axes or ({},) * self.frame_count
        return [dict(axis) for axis in axes]

    def channel_names(self) -> list[str] | None:
        """The names along the axis C, where known."""
        return list(self._layout.channels) or None

    def internal_metadata(self) -> dict[str, Any]:
        """What is known of the file, field by field; survives ``json.dumps``."""
        description = self._describe()
        with vips_errors(f'Cannot read {self._path!r}'):
            return metadata.internal_metadata(
                self._file, self._layout, self._first_image(), description)

    def icc_profiles(self) -> list[bytes | None]:
        """The ICC profile of each frame; empty if there is none at all."""
        try:
            # They are asked for long after the file was opened, perhaps.
            file = self._current().file
            if file.icc_profiles is None:
                file.icc_profiles = metadata.icc_profiles(file, self._layout, self._first_image())
        except (TileSourceError, pyvips.Error, OSError) as exc:
            what = 'the ICC profiles'
            raise self._failed(what, exc) from exc
        return list(file.icc_profiles)

    def _describe(self) -> metadata.Description:
        file = self._file
        if file.description is None:
            # Two threads may both do this; they find the same.
            with vips_errors(f'Cannot read {self._path!r}'):
                file.description = metadata.describe(file, self._layout, self._first_image())
        return file.description

    def _first_image(self) -> pyvips.Image:
        """The first frame, open, for its header."""
        first = self._layout.frames[0].levels[0]
        return self._file.handle(first).image if first.random else self._file.open(first.opening)

    # Pixels

    def check_process(self) -> None:
        """A file may be read in any process."""

    def read(self, frame: int, reduction: int, rect: Rect, *,
             keep: bool = False) -> npt.NDArray[Any]:
        """
        The pixels of a rectangle at a reduction.

        :param frame: the 0-based frame.
        :param reduction: 0 for full resolution, r for 2 ** r times smaller.
        :param rect: in level pixels of that reduction, inside
            ``size.reduced(reduction)``.
        :param keep: whether more of the image, also at other reductions, is
            likely to be wanted soon.
        :returns: an array (rect.height, rect.width, bands) of ``dtype``.  It
            may be read-only and must not be changed.
        :raises TileSourceError: if the pixels cannot be had; the message names
            the file, the frame and the place.
        """
        try:
            opened = self._current()
            pixels = opened.levels.read(
                opened.layout.frames[frame], reduction, rect, keep=keep)
            if pixels.dtype != self.dtype or pixels.shape[2] != self.bands:
                msg = f'its pixels are {pixels.shape[2]} x {pixels.dtype}'
                raise TileSourceError(msg)
            return pixels
        except (TileSourceError, pyvips.Error, OSError, MemoryError) as exc:
            what = f'frame {frame}, {self._place(reduction, rect)}'
            raise self._failed(what, exc) from exc

    def _place(self, reduction: int, rect: Rect) -> str:
        """A rectangle in the words of large_image: its level and tile."""
        levels = 1 + max(0, (max(self.size) - 1) // TILE_SIZE).bit_length()
        return (f'level {levels - 1 - reduction}, tile {rect.left // TILE_SIZE}, '
                f'{rect.top // TILE_SIZE} ({rect.width} x {rect.height} pixels at '
                f'{rect.left}, {rect.top})')

    def _failed(self, what: str, exc: Exception) -> TileSourceError:
        """An error that names the file and what was to be read."""
        msg = f'Cannot read {what} of {self._path!r}: {exc}'
        if isinstance(exc, TileSourceFileNotFoundError):
            return TileSourceFileNotFoundError(msg)
        return TileSourceError(msg)

    def _current(self) -> _Opened:
        """
        What is open, after a look at whether the file is still that.

        :raises TileSourceError: if it is gone, no image any more, or another.
        """
        opened = self._opened
        if file_identity(self._path) == opened.file.identity:
            return opened
        changed = self._open()
        if changed.layout.shape != opened.layout.shape:
            msg = 'it was replaced by a different image after it was opened'
            raise TileSourceError(msg)
        self._opened = changed
        return changed

    # Further images

    def associated_names(self) -> list[str]:
        """The keys of the images that come with this one (label, macro, ...)."""
        return sorted(self._layout.associated)

    def associated_image(self, key: str) -> PIL.Image.Image | None:
        """
        An image that comes with this one, or None if there is none of that key.

        :raises TileSourceError: if it cannot be decoded.
        """
        if key not in self._layout.associated:
            return None
        try:
            opened = self._current()
            pixels = opened.levels.read_whole(opened.layout.associated[key], _MAX_ASSOCIATED)
        except (TileSourceError, pyvips.Error) as exc:
            what = f'the image {key!r}'
            raise self._failed(what, exc) from exc
        image: PIL.Image.Image = _imageToPIL(pixels)
        return image

    @contextmanager
    def picture(self, frame: int | None = None) -> Iterator[Picture]:
        """
        A frame, to be written elsewhere.

        :param frame: the 0-based frame; None where there is only one.
        :raises TileSourceError: if there is no such frame.
        """
        if frame is None and self.frame_count > 1:
            msg = (f'{self._path!r} has {self.frame_count} frames; say which to write with '
                   f'frame=, from 0.')
            raise TileSourceError(msg)
        chosen = frame or 0
        if not 0 <= chosen < self.frame_count:
            msg = f'There is no frame {chosen} in {self._path!r}; it has {self.frame_count}.'
            raise TileSourceError(msg)
        meaning = meaning_of(self.interpretation, self.bands)
        # libvips writes 64-bit float TIFF files, but cannot read them.
        dtype = np.dtype(np.float32) if self.dtype == np.float64 else self.dtype
        profiles = self.icc_profiles()
        profile = profiles[chosen] if profiles else None

        def read(rect: Rect) -> npt.NDArray[Any]:
            return self.read(chosen, 0, rect)

        def filled() -> Iterator[Rect]:
            for top in range(0, self.size.height, _FILLED_ROWS):
                yield Rect(0, top, self.size.width, _FILLED_ROWS).clipped(Rect(0, 0, *self.size))

        @contextmanager
        def image(labels: Mapping[str, Any]) -> Iterator[pyvips.Image]:
            yield self.image(chosen).copy(**labels)

        direct = image if dtype == self.dtype and SAVERS_CAN_FAIL else None
        yield Picture(
            self.size, dtype, meaning, self.bands == meaning.color_bands, False, self.pixel_size,
            profile, read, filled, direct,
            direct if self.bands == meaning.color_bands else None)

    def image(self, frame: int = 0) -> pyvips.Image:
        """
        A frame at full resolution as a libvips image, for writing it elsewhere.

        Where libvips' own pixels are those that ``read`` gives, it reads them
        from the file; else they are unpacked to memory or a temporary file
        first, and the image is on those.

        :param frame: the 0-based frame.
        :raises TileSourceError: if it cannot be had.
        """
        try:
            opened = self._current()
            picture = opened.layout.frames[frame]
            stored = picture.levels[0]
            if stored.random and picture.orientation == 1 and stored.opened_size == stored.size:
                image = opened.file.open(stored.opening)
                if unpacker(image).is_plain:
                    return image
            pixels = opened.levels.full(picture)
        except (TileSourceError, pyvips.Error) as exc:
            what = f'frame {frame}'
            raise self._failed(what, exc) from exc
        image = pyvips.Image.new_from_memory(
            np.ascontiguousarray(pixels).reshape(-1), *self.size, self.bands, format_of(self.dtype))
        image = image.copy(interpretation=self.interpretation)
        profiles = self.icc_profiles()
        if profiles and profiles[frame]:
            image.set_type(pyvips.GValue.blob_type, 'icc-profile-data', profiles[frame])
        return image

    def close(self) -> None:
        """Give back memory, files and disk; the reader is not used again."""
        self._file.forget()


