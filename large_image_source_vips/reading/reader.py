"""
Read the pixels and metadata of an image file: the ``PixelStore`` for files.

Every error is a ``TileSourceError`` that names the file, and the frame, level and tile if
it has them.  A file that changed is opened again or refused; old and new pixels are never
mixed.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pyvips

from ..base.arrays import to_pil
from ..base.errors import TileSourceError
from ..base.formats import is_wide_integer, meaning_of
from ..base.frames import Annotations
from ..base.geometry import Rect, Size
from ..base.identity import absolute_path, file_identity
from ..base.limits import LIMITS
from ..base.transparency import ColorAndAlpha, Transparency, find_transparency, split_alpha
from ..store import Picture, Snapshot, checked_frame
from .annotations import with_positions
from .file import SourceFile
from .file_version import Version, failed
from .layout import Layout

_MAX_ASSOCIATED = LIMITS.reading_associated_side

# The height of the rectangles of ``Picture.filled``.
_FILLED_ROWS = 256


class _Held(threading.local):
    """The version of the file that a thread reads inside of ``held``."""

    opened: Version | None = None


class FileReader:
    """
    The pixels and metadata of one file.

    The path is made absolute, so the working directory may change later.  If the file has
    changed, the next read returns the new pixels if size, frames, bands and dtype are the
    same, and fails otherwise.

    :param path: a str, bytes or path object.
    :param loaders: the loaders that the value 'default' of the setting
        ``source_vips_loaders`` stands for.
    :raises TileSourceFileNotFoundError: if there is no such file.
    :raises TileSourceError: if it is not an image or the settings do not allow its loader.
    """

    def __init__(self, path: Any, loaders: str | Collection[str] = 'all') -> None:
        self._path = absolute_path(path)
        self._loaders = loaders
        self._opened = Version(self._path, loaders)
        self._generation = 0
        self._held = _Held()

    @property
    def generation(self) -> int:
        """0 for the version opened first, another number for each later one."""
        return self._generation

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
        return self._described_version().scale().pixel_size

    @property
    def magnification(self) -> float | None:
        """The magnification of the objective, None if unknown."""
        return self._described_version().scale().magnification

    @property
    def annotations(self) -> Annotations:
        """The axes, channels, values and texts of the file."""
        return self._described_version().annotations()

    def frame_axes(self) -> list[dict[str, Any]]:
        """
        The position of each frame on every axis.

        :returns: dictionaries such as ``{'IndexC': 0, 'IndexZ': 3}``, empty if the file
            describes no axes.
        """
        annotations = self.annotations
        if annotations.axes.lengths:
            return annotations.frames()
        axes = self._described_version().layout.axes or ({},) * self.frame_count
        return [dict(axis) for axis in axes]

    def channel_names(self) -> list[str] | None:
        """The names of the channels, None if unknown."""
        names = self.annotations.channel_names
        return None if names is None else list(names)

    def internal_metadata(self) -> dict[str, Any]:
        """The header fields of the file, for ``json.dumps``."""
        return self._described_version().internal_metadata()

    def icc_profiles(self) -> list[bytes | None]:
        """The ICC profile of each frame; an empty list if no frame has one."""
        try:
            # Check whether the file has changed.
            return self._current().icc_profiles()
        except (TileSourceError, pyvips.Error, OSError) as exc:
            what = 'the ICC profiles'
            raise failed(self._path, what, exc) from exc

    def _described_version(self) -> Version:
        """
        The current version of the file, for metadata.

        :raises TileSourceError: as ``_current``.
        """
        try:
            return self._current()
        except (TileSourceError, OSError) as exc:
            what = 'the metadata'
            raise failed(self._path, what, exc) from exc

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
            return self._current()
        except (TileSourceError, pyvips.Error, OSError) as exc:
            what = 'the pixels'
            raise failed(self._path, what, exc) from exc

    def latest(self) -> Version:
        """The version that the last check found, without checking again."""
        return self._held.opened or self._opened

    @contextmanager
    def held(self) -> Iterator[None]:
        """See ``PixelStore``."""
        held = self._held
        before = held.opened
        held.opened = self.current()
        try:
            yield
        finally:
            held.opened = before

    def read(self, frame: int, reduction: int, rect: Rect, *,
             keep: bool = False, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """The pixels of a rectangle at a reduction; see ``Pixels.read``."""
        return self.current().read(frame, reduction, rect, keep=keep, out=out)

    def _current(self) -> Version:
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
        changed = Version(self._path, self._loaders)
        if changed.layout.shape != opened.layout.shape:
            msg = 'it was replaced by a different image after it was opened'
            raise TileSourceError(msg)
        # Not a counter: processes that share a cache may have seen different versions.
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
            raise failed(self._path, what, exc) from exc
        return to_pil(pixels)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """See ``PixelStore``; pixels are read inside the context."""
        annotations, positions = with_positions(self.annotations, self._described_version().layout)
        with ExitStack() as kept:
            yield Snapshot(
                repr(self._path), self.frame_count,
                lambda frame: kept.enter_context(self.picture(frame)), annotations, positions,
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
            msg = f'{self._path!r} has 64-bit integers, which cannot be written.'
            raise TileSourceError(msg)
        meaning = meaning_of(self.interpretation, self.bands)
        opaque = self.bands == meaning.color_bands
        profiles = self.icc_profiles()
        profile = profiles[chosen] if profiles else None

        # All pixels come from one version of the file.
        pixels = self.current()

        def read(rect: Rect) -> ColorAndAlpha:
            return split_alpha(pixels.read(chosen, 0, rect, keep=True), meaning.color_bands)

        def filled() -> Iterator[Rect]:
            for top in range(0, self.size.height, _FILLED_ROWS):
                yield Rect(0, top, self.size.width, _FILLED_ROWS).clipped(Rect(0, 0, *self.size))

        def transparency() -> Transparency:
            return 'none' if opaque else find_transparency(self.size, read)

        stored = {reduction: pixels.encoded_level(chosen, reduction)
                  for reduction in pixels.layout.frames[chosen].levels}
        encoded = {reduction: level for reduction, level in stored.items() if level is not None}
        yield Picture(self.size, self.dtype, meaning, opaque, self.pixel_size, profile, read,
                      filled, transparency, encoded)

    def close(self) -> None:
        """Free the memory, files and disk space of the file; the reader cannot be used again."""
        self._file.forget()
