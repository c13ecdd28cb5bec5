"""
Read-only properties of a source: dtype, bands, metadata, pixel size, associated images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base.formats import format_of, is_wide_integer

if TYPE_CHECKING:
    from .store import PixelStore


class ImageProperties:
    """The properties of a ``StoreTileSource`` that describe its ``PixelStore``."""

    _store: PixelStore

    @property
    def dtype(self) -> Any:
        """The numpy dtype of the samples; None for an image without tiles."""
        return self._store.dtype

    @property
    def bandCount(self) -> int | None:
        """The number of bands, alpha included; None for an image without tiles."""
        return self._store.bands

    @property
    def bandFormat(self) -> str | None:
        """
        The ``pyvips.enums.BandFormat`` value of the samples.

        For an editable image, the format that will be written; None for an image without
        tiles.  'double' for 64-bit integers, which libvips lacks.
        """
        dtype = self._store.dtype
        if dtype is not None and is_wide_integer(dtype):
            return 'double'
        return None if dtype is None else format_of(dtype)

    def getInternalMetadata(self, **kwargs: Any) -> dict[str, Any]:
        """
        The header fields that libvips reads from the file.

        :returns: the fields of the first frame by name; under 'frames' a list
            with those fields of the other frames that differ; under 'storage' where
            each level and associated image is stored, in which tiles and compression.
        """
        return self._store.internal_metadata()

    def getNativeMagnification(self) -> dict[str, float | None]:
        """
        The magnification and the size of a full-resolution pixel.

        :returns: 'magnification', 'mm_x' and 'mm_y' (mm per pixel), None where
            unknown.  If the file states no magnification, it is estimated as
            0.01 / mm_x: 40 for pixels of 0.25 um.
        """
        mm_x, mm_y = self._store.pixel_size
        mm_x, mm_y = mm_x or mm_y, mm_y or mm_x
        magnification = self._store.magnification
        if magnification is None and mm_x:
            magnification = 0.01 / mm_x
        return {'magnification': magnification, 'mm_x': mm_x, 'mm_y': mm_y}

    def getAssociatedImagesList(self) -> list[str]:
        """The keys of the associated images: label, macro, ..."""
        return self._store.associated_names()
