"""
The questions that a tile source asks of where its pixels are.

A ``VipsFileTileSource`` holds one ``PixelStore``: a ``reader.FileReader`` when
it was opened from a file, a ``canvas.Canvas`` when it is being put together.
Both answer these questions, so that ``getTile`` has one path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    import numpy as np
    import numpy.typing as npt
    import PIL.Image
    import pyvips

    from .base.formats import Meaning
    from .base.geometry import Rect, Size


@dataclass(frozen=True)
class Picture:
    """
    What is to be written: a frame of a file, or a canvas at one moment.

    It is good as long as the context lasts that gave it, and stays as it is,
    whatever happens to the store meanwhile.

    :param size: in pixels.
    :param dtype: of the samples.
    :param meaning: what the bands are.
    :param opaque: whether an alpha band would be opaque everywhere.
    :param bare: whether it has no metadata but its pixel size and profile.
    :param pixel_size: width and height of a pixel in mm, where known.
    :param profile: the ICC profile, if any.
    :param read: the pixels (rows, cols, bands), alpha included, of a rectangle.
    :param filled: the rectangles outside of which every sample is 0.
    :param image: gives all bands as a libvips image with some header fields
        set, for as long as the context lasts; None if there is no such image
        that ``read`` would not be needed for.
    :param color_image: the same without the alpha band.
    """

    size: Size
    dtype: np.dtype[Any]
    meaning: Meaning
    opaque: bool
    bare: bool
    pixel_size: tuple[float | None, float | None]
    profile: bytes | None
    read: Callable[[Rect], npt.NDArray[Any]]
    filled: Callable[[], Iterator[Rect]]
    image: Callable[[Mapping[str, Any]], AbstractContextManager[pyvips.Image]] | None
    color_image: Callable[[Mapping[str, Any]], AbstractContextManager[pyvips.Image]] | None


class PixelStore(Protocol):
    """Where the pixels of a source are: a file that is read or a canvas."""

    @property
    def size(self) -> Size:
        """The size of every frame in full-resolution pixels."""

    @property
    def frame_count(self) -> int:
        """How many frames there are, at least 1."""

    @property
    def generation(self) -> int:
        """Changes whenever the image does; 0 for a file."""

    @property
    def decodes(self) -> bool:
        """Whether reading is work that pays to be done ahead, in other threads."""

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The type of the samples, or None as long as that is not known."""

    @property
    def bands(self) -> int | None:
        """How many bands each pixel has, or None as long as that is not known."""

    @property
    def pixel_size(self) -> tuple[float | None, float | None]:
        """The width and height of a full-resolution pixel in mm, where known."""

    def check_process(self) -> None:
        """
        See to it that this process may read the pixels.

        :raises TileSourceError: if only another may.
        """

    def read(self, frame: int, reduction: int, rect: Rect, *,
             keep: bool = False) -> npt.NDArray[Any]:
        """
        The pixels of a rectangle at a reduction.

        :param frame: the 0-based frame.
        :param reduction: 0 for full resolution, r for 2 ** r times smaller.
        :param rect: a rectangle in level pixels of that reduction, inside
            ``size.reduced(reduction)``.
        :param keep: whether more of the image, also at other reductions, is
            likely to be wanted soon.
        :returns: an array (rect.height, rect.width, bands) of ``dtype``.  It
            may be read-only and must not be changed.
        :raises TileSourceError: if the pixels cannot be had; the message names
            the file, the frame and the place.
        """

    def picture(self, frame: int | None = None) -> AbstractContextManager[Picture]:
        """
        A frame as it is now, to be written.

        :param frame: the 0-based frame; None where there is only one.
        :raises TileSourceError: if there is no such frame, or nothing in it.
        """

    @property
    def magnification(self) -> float | None:
        """The magnification of the objective that the file states, if any."""

    def frame_axes(self) -> list[dict[str, Any]]:
        """
        One dictionary for each frame with its position on every axis.

        :returns: entries such as ``{'IndexC': 0, 'IndexZ': 3}``, in frame
            order, as large_image's ``getMetadata`` gives them under 'frames'.
        """

    def channel_names(self) -> list[str] | None:
        """The names along the axis C, where known."""

    def internal_metadata(self) -> dict[str, Any]:
        """What is known of the file, field by field; survives ``json.dumps``."""

    def associated_names(self) -> list[str]:
        """The keys of the images that come with this one (label, macro, ...)."""

    def associated_image(self, key: str) -> PIL.Image.Image | None:
        """An image that comes with this one, or None if there is none of that key."""

    def icc_profiles(self) -> list[bytes | None]:
        """The ICC profile of each frame; empty if there is none at all."""

    def close(self) -> None:
        """Give back memory, files and disk; the store is not used again."""
