"""
The pixels and metadata of one version of an image file.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from ..base.errors import TileSourceError, TileSourceFileNotFoundError, vips_errors
from ..base.formats import format_of, is_wide_integer
from ..base.frames import Annotations
from ..base.geometry import TILE_SIZE, Rect, Size
from ..store import EncodedLevel
from ..tiff.page import UNCOMPRESSED
from . import metadata
from .annotations import annotations_of
from .encoded_level import encoded_level
from .file import source_file
from .levels import Levels
from .maker_tags import Scale
from .pixel_size import scale_of
from .survey import survey


class Version:
    """
    The current version of the file at a path; see ``Pixels``.

    :param path: an absolute path.
    :param loaders: as for ``FileReader``.
    :raises TileSourceFileNotFoundError: if there is no such file.
    :raises TileSourceError: if it is not an image or the settings do not allow its loader.
    """

    def __init__(self, path: str, loaders: str | Collection[str]) -> None:
        self.file = source_file(path, loaders)
        self.layout = survey(self.file)
        self.levels = Levels(self.file, self.layout)
        self.key = self.file.key

    def read(self, frame: int, reduction: int, rect: Rect, *,
             keep: bool = False, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """See ``Pixels``."""
        try:
            pixels = self.levels.read(
                self.layout.frames[frame], reduction, rect, keep=keep, out=out)
            if pixels is out:
                return pixels
            if pixels.dtype != self.layout.dtype or pixels.shape[2] != self.layout.bands:
                msg = f'its pixels are {pixels.shape[2]} x {pixels.dtype}'
                raise TileSourceError(msg)
            if out is None:
                return pixels
            out[:] = pixels
            return out
        except (TileSourceError, pyvips.Error, OSError, MemoryError) as exc:
            what = f'frame {frame}, {_place(self.layout.size, reduction, rect)}'
            raise failed(self.file.path, what, exc) from exc

    def tile_size(self, frame: int, reduction: int) -> Size | None:
        """The stored tiles of a level; see ``Pixels``."""
        stored = self.layout.frames[frame].levels.get(reduction)
        return stored.page.tile if stored is not None and stored.page is not None else None

    def is_uncompressed(self, frame: int, reduction: int) -> bool:
        """See ``Pixels``."""
        stored = self.layout.frames[frame].levels.get(reduction)
        page = None if stored is None else stored.page
        return page is not None and page.compression == UNCOMPRESSED and page.planes == 1

    def encoded_level(self, frame: int, reduction: int) -> EncodedLevel | None:
        """See ``Pixels``."""
        return encoded_level(self.file, self.layout.frames[frame], reduction)

    # Description; two threads may compute it at the same time, with the same result

    def scale(self) -> Scale:
        """The pixel size, magnification and further values of the maker."""
        file = self.file
        if file.scale is None:
            with vips_errors(f'Cannot read {file.path!r}'):
                file.scale = scale_of(file, self.layout, _first_image(self))
        return file.scale

    def annotations(self) -> Annotations:
        """The axes, channels, values and texts of the file."""
        file = self.file
        if file.annotations is None:
            file.annotations = annotations_of(
                file, self.layout, self.scale().magnification)
        return file.annotations

    def internal_metadata(self) -> dict[str, Any]:
        """The header fields of the file, fit for ``json.dumps``."""
        scale = self.scale()
        with vips_errors(f'Cannot read {self.file.path!r}'):
            return metadata.internal_metadata(
                self.file, self.layout, _first_image(self), scale)

    def icc_profiles(self) -> list[bytes | None]:
        """The ICC profile of each frame; an empty list if no frame has one."""
        file = self.file
        if file.icc_profiles is None:
            file.icc_profiles = metadata.icc_profiles(file, self.layout, _first_image(self))
        return list(file.icc_profiles)


def _first_image(version: Version) -> pyvips.Image:
    """An open image of the first frame, for its header."""
    first, file = version.layout.frames[0].levels[0], version.file
    try:
        return file.handle(first).image if first.random else file.open(first.opening)
    except (TileSourceError, pyvips.Error):
        tiles = file.tiles(first)
        if tiles is None:
            raise
    # A TIFF file that libvips cannot open.
    samples = tiles.samples
    dtype = np.dtype('f8') if is_wide_integer(samples.dtype) else samples.dtype
    return pyvips.Image.black(*first.size, bands=samples.bands).cast(
        format_of(dtype)).copy(interpretation=samples.interpretation)


def _place(size: Size, reduction: int, rect: Rect) -> str:
    """The level and tile numbers of large_image for a rectangle, for errors."""
    levels = 1 + max(0, (max(size) - 1) // TILE_SIZE).bit_length()
    return (f'level {levels - 1 - reduction}, tile {rect.left // TILE_SIZE}, '
            f'{rect.top // TILE_SIZE} ({rect.width} x {rect.height} pixels at '
            f'{rect.left}, {rect.top})')


def failed(path: str, what: str, exc: Exception) -> TileSourceError:
    """An error with the name of the file and what could not be read."""
    msg = f'Cannot read {what} of {path!r}: {exc}'
    if isinstance(exc, TileSourceFileNotFoundError):
        return TileSourceFileNotFoundError(msg)
    return TileSourceError(msg)
