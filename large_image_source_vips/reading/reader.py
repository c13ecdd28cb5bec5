"""
Read pixels and metadata of one image file: the ``PixelStore`` of a file.

Every error is a ``TileSourceError`` that names the file, and the frame, level and tile
where there is one.  A file that changed is read anew or refused; its old and new pixels
are never mixed.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image
import pyvips

from ..base.arrays import to_pil
from ..base.errors import TileSourceError, TileSourceFileNotFoundError, vips_errors
from ..base.formats import format_of, is_wide_integer, meaning_of
from ..base.frames import Annotations
from ..base.geometry import TILE_SIZE, Rect, Size
from ..base.identity import absolute_path, file_identity
from ..base.limits import LIMITS
from ..base.transparency import ColorAndAlpha, Transparency, look_for_transparency, split_alpha
from ..store import EncodedLevel, Picture, Snapshot, checked_frame
from . import metadata
from .annotations import annotations_of, with_positions
from .file import SourceFile, source_file
from .layout import Layout
from .levels import Levels
from .pixel_size import Description, describe
from .survey import survey

_MAX_ASSOCIATED = LIMITS.reading_associated_side

# The height of the areas that a picture lists as filled.
_FILLED_ROWS = 256


class _Opened(NamedTuple):
    """One version of the file; replaced as a whole when the file has changed."""

    file: SourceFile
    layout: Layout
    levels: Levels


class _Held(threading.local):
    """The version of the file that a thread has to read, if there is one."""

    opened: _Opened | None = None


class Version:
    """
    The pixels of one version of a file; see ``Pixels``.

    :param reader: the reader of the file.
    :param opened: the version.
    """

    def __init__(self, reader: FileReader, opened: _Opened) -> None:
        self._reader = reader
        self.opened = opened
        self.key = opened.file.key
        self.tile_size = reader.tile_size
        self.encoded_level = reader.encoded_level

    def read(self, frame: int, reduction: int, rect: Rect, *,
             keep: bool = False, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """See ``Pixels``."""
        return self._reader.read_version(self.opened, frame, reduction, rect, keep=keep, out=out)


class FileReader:
    """
    The pixels and metadata of one file.

    The path is made absolute at once, so a later change of the working directory does not
    matter.  If the file has changed at the next read, the new image is read if its size,
    frames, bands and dtype are the same; else the read fails.

    :param path: a str, bytes or path object.
    :param loaders: the loaders that the value 'default' of the setting
        ``source_vips_loaders`` stands for.
    :raises TileSourceFileNotFoundError: if there is no such file.
    :raises TileSourceError: if it is not an image or the settings do not allow its loader.
    """

    def __init__(self, path: Any, loaders: str | Collection[str] = 'all') -> None:
        self._path = absolute_path(path)
        self._loaders = loaders
        self._opened = self._open()
        self._generation = 0
        self._held = _Held()

    @property
    def generation(self) -> int:
        """0 for the version that was opened first, another number for each later one."""
        return self._generation

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

    # Properties of the image

    @property
    def size(self) -> Size:
        """The size of every frame in full-resolution pixels."""
        return self._layout.size

    @property
    def frame_count(self) -> int:
        """The number of frames, at least 1."""
        return len(self._layout.frames)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the samples."""
        return self._layout.dtype

    @property
    def bands(self) -> int:
        """The number of bands, including alpha."""
        return self._layout.bands

    @property
    def interpretation(self) -> str:
        """The interpretation of the bands in libvips' terms, such as 'srgb'."""
        return self._layout.interpretation

    @property
    def pixel_size(self) -> tuple[float | None, float | None]:
        """The width and height of a full-resolution pixel in mm; None where unknown."""
        return self._describe(self._looked_at()).pixel_size

    @property
    def magnification(self) -> float | None:
        """The magnification of the objective, None if unknown."""
        return self._describe(self._looked_at()).magnification

    @property
    def annotations(self) -> Annotations:
        """The axes, channels, values and texts of the file."""
        opened = self._looked_at()
        file = opened.file
        if file.annotations is None:
            # Two threads may do this at once, with the same result.
            file.annotations = annotations_of(
                file, opened.layout, self._describe(opened).magnification)
        return file.annotations

    def frame_axes(self) -> list[dict[str, Any]]:
        """
        The position of each frame on every axis.

        :returns: dictionaries such as ``{'IndexC': 0, 'IndexZ': 3}``, empty if the file
            describes no axes.
        """
        notes = self.annotations
        if notes.axes.lengths:
            return notes.frames()
        axes = self._looked_at().layout.axes or ({},) * self.frame_count
        return [dict(axis) for axis in axes]

    def channel_names(self) -> list[str] | None:
        """The names of the channels, None if unknown."""
        names = self.annotations.channel_names
        return None if names is None else list(names)

    def internal_metadata(self) -> dict[str, Any]:
        """The header fields of the file, fit for ``json.dumps``."""
        opened = self._looked_at()
        description = self._describe(opened)
        with vips_errors(f'Cannot read {self._path!r}'):
            return metadata.internal_metadata(
                opened.file, opened.layout, self._first_image(opened), description)

    def icc_profiles(self) -> list[bytes | None]:
        """The ICC profile of each frame; an empty list if no frame has one."""
        try:
            # The file may have changed since it was opened.
            opened = self._current()
            file = opened.file
            if file.icc_profiles is None:
                file.icc_profiles = metadata.icc_profiles(
                    file, opened.layout, self._first_image(opened))
        except (TileSourceError, pyvips.Error, OSError) as exc:
            what = 'the ICC profiles'
            raise self._failed(what, exc) from exc
        return list(file.icc_profiles)

    def _looked_at(self) -> _Opened:
        """
        The current version of the file, for its description.

        :raises TileSourceError: as ``_current``.
        """
        try:
            return self._current()
        except (TileSourceError, OSError) as exc:
            what = 'the metadata'
            raise self._failed(what, exc) from exc

    def _describe(self, opened: _Opened) -> Description:
        file = opened.file
        if file.description is None:
            # Two threads may do this at once, with the same result.
            with vips_errors(f'Cannot read {self._path!r}'):
                file.description = describe(file, opened.layout, self._first_image(opened))
        return file.description

    @staticmethod
    def _first_image(opened: _Opened) -> pyvips.Image:
        """An open image of the first frame, for its header."""
        first, file = opened.layout.frames[0].levels[0], opened.file
        try:
            return file.handle(first).image if first.random else file.open(first.opening)
        except (TileSourceError, pyvips.Error):
            tiles = file.tiles(first)
            if tiles is None:
                raise
        # A TIFF file that libvips does not open.
        samples = tiles.samples
        dtype = np.dtype('f8') if is_wide_integer(samples.dtype) else samples.dtype
        return pyvips.Image.black(*first.size, bands=samples.bands).cast(
            format_of(dtype)).copy(interpretation=samples.interpretation)

    # Pixels

    def check_process(self) -> None:
        """A file may be read in any process."""

    def current(self) -> Version:
        """
        The current version of the file.

        :raises TileSourceError: if the file is gone, cannot be read or holds a different
            image.
        """
        try:
            return Version(self, self._current())
        except (TileSourceError, pyvips.Error, OSError) as exc:
            what = 'the pixels'
            raise self._failed(what, exc) from exc

    def latest(self) -> Version:
        """The version that was current at the last look."""
        return Version(self, self._held.opened or self._opened)

    @contextmanager
    def held(self) -> Iterator[None]:
        """See ``PixelStore``."""
        held = self._held
        before = held.opened
        held.opened = self.current().opened
        try:
            yield
        finally:
            held.opened = before

    def read(self, frame: int, reduction: int, rect: Rect, *,
             keep: bool = False, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """
        The pixels of a rectangle at a reduction.

        :param frame: the frame, counted from 0.
        :param reduction: 0 for full resolution, r for 2 ** r times smaller.
        :param rect: in level pixels of that reduction, inside
            ``size.reduced(reduction)``.
        :param keep: whether more of the image, at this or other reductions, is likely to
            be read soon.
        :param out: an array to fill, as for ``PixelStore.read``.
        :returns: an array (rect.height, rect.width, bands) of ``dtype``.  Unless it is
            ``out``, it may be read-only and must not be changed.
        :raises TileSourceError: if the pixels cannot be read; the message names the file,
            the frame, the level and the tile.
        """
        return self.current().read(frame, reduction, rect, keep=keep, out=out)

    def read_version(self, opened: _Opened, frame: int, reduction: int, rect: Rect, *,
                     keep: bool = False,
                     out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Read a rectangle of one version of the file, as ``read`` does."""
        try:
            pixels = opened.levels.read(
                opened.layout.frames[frame], reduction, rect, keep=keep, out=out)
            if pixels is out:
                return pixels
            if pixels.dtype != self.dtype or pixels.shape[2] != self.bands:
                msg = f'its pixels are {pixels.shape[2]} x {pixels.dtype}'
                raise TileSourceError(msg)
            if out is None:
                return pixels
            out[:] = pixels
            return out
        except (TileSourceError, pyvips.Error, OSError, MemoryError) as exc:
            what = f'frame {frame}, {self._place(reduction, rect)}'
            raise self._failed(what, exc) from exc

    def tile_size(self, frame: int, reduction: int) -> Size | None:
        """The stored tiles of a level; see ``PixelStore``."""
        stored = self._layout.frames[frame].levels.get(reduction)
        return stored.page.tile if stored is not None and stored.page is not None else None

    def encoded_level(self, frame: int, reduction: int) -> EncodedLevel | None:
        """See ``PixelStore``."""
        return None

    def _place(self, reduction: int, rect: Rect) -> str:
        """The level and tile of large_image at a rectangle, for errors."""
        levels = 1 + max(0, (max(self.size) - 1) // TILE_SIZE).bit_length()
        return (f'level {levels - 1 - reduction}, tile {rect.left // TILE_SIZE}, '
                f'{rect.top // TILE_SIZE} ({rect.width} x {rect.height} pixels at '
                f'{rect.left}, {rect.top})')

    def _failed(self, what: str, exc: Exception) -> TileSourceError:
        """An error that names the file and what could not be read."""
        msg = f'Cannot read {what} of {self._path!r}: {exc}'
        if isinstance(exc, TileSourceFileNotFoundError):
            return TileSourceFileNotFoundError(msg)
        return TileSourceError(msg)

    def _current(self) -> _Opened:
        """
        The current version of the file, opened again if the file has changed.

        :raises TileSourceError: if the file is gone, cannot be read or holds a different
            image.
        """
        if self._held.opened is not None:
            return self._held.opened
        opened = self._opened
        if file_identity(self._path) == opened.file.identity:
            return opened
        changed = self._open()
        if changed.layout.shape != opened.layout.shape:
            msg = 'it was replaced by a different image after it was opened'
            raise TileSourceError(msg)
        # Not a count: other processes share caches, and may have missed a version.
        self._opened, self._generation = changed, zlib.crc32(changed.file.key.encode()) or 1
        return changed

    # Associated images and pictures to write

    def associated_names(self) -> list[str]:
        """The keys of the associated images (label, macro, ...), sorted."""
        return sorted(self._layout.associated)

    def associated_image(self, key: str) -> PIL.Image.Image | None:
        """
        An associated image with at most 8192 pixels on a side.

        :param key: one of ``associated_names``.
        :returns: an 8-bit image; None if there is none of that key.
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
        return to_pil(pixels)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """See ``PixelStore``; a file is read while the context lasts."""
        notes, positions = with_positions(self.annotations, self._looked_at().layout)
        with ExitStack() as kept:
            yield Snapshot(
                repr(self._path), self.frame_count,
                lambda frame: kept.enter_context(self.picture(frame)), notes, positions,
                {key: partial(self._associated_pixels, key) for key in self.associated_names()})

    def _associated_pixels(self, key: str) -> npt.NDArray[Any]:
        """An associated image, (rows, cols, bands) of uint8."""
        return np.atleast_3d(np.asarray(self.associated_image(key)))

    @contextmanager
    def picture(self, frame: int | None = None) -> Iterator[Picture]:
        """
        A frame as a picture that can be written to another file.

        :param frame: the frame, counted from 0; None if there is only one.
        :raises TileSourceError: if there is no such frame.
        """
        chosen = checked_frame(frame, self.frame_count, repr(self._path))
        if is_wide_integer(self.dtype):
            msg = f'{self._path!r} has integers of 64 bits, which are read but not written.'
            raise TileSourceError(msg)
        meaning = meaning_of(self.interpretation, self.bands)
        opaque = self.bands == meaning.color_bands
        profiles = self.icc_profiles()
        profile = profiles[chosen] if profiles else None

        # One version of the file, whatever becomes of it meanwhile.
        pixels = self.current()

        def read(rect: Rect) -> ColorAndAlpha:
            return split_alpha(pixels.read(chosen, 0, rect, keep=True), meaning.color_bands)

        def filled() -> Iterator[Rect]:
            for top in range(0, self.size.height, _FILLED_ROWS):
                yield Rect(0, top, self.size.width, _FILLED_ROWS).clipped(Rect(0, 0, *self.size))

        def transparency() -> Transparency:
            return 'none' if opaque else look_for_transparency(self.size, read)

        stored = {reduction: pixels.encoded_level(chosen, reduction)
                  for reduction in self._layout.frames[chosen].levels}
        encoded = {reduction: level for reduction, level in stored.items() if level is not None}
        yield Picture(self.size, self.dtype, meaning, opaque, self.pixel_size, profile, read,
                      filled, transparency, encoded)

    def close(self) -> None:
        """Free the memory, files and disk space of the file; the reader cannot be used again."""
        self._file.forget()
