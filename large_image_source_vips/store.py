"""
The interfaces between a tile source, its pixels and a file writer.

A source reads from a ``PixelStore``: a ``reading.reader.FileReader`` for a file, a
``sink.canvas.Canvas`` for a new image.  A writer gets only a ``Picture`` of either.

Coordinates are full-resolution pixels, or level pixels of a reduction ``r``,
which is ``2 ** r`` times smaller; both count from the top left corner of the
image.  Frames count from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .base.errors import TileSourceError
from .base.frames import Annotations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    import numpy.typing as npt
    import PIL.Image

    from .base.formats import Meaning
    from .base.geometry import Rect, Size
    from .base.transparency import ColorAndAlpha, Transparency


@dataclass(frozen=True)
class EncodedLevel:
    """
    The compressed tiles of a level in a file, to copy without decoding.

    :param size: width and height of the stored level in pixels; programs round the sizes of
        lower levels in different ways.
    :param tile: width and height of a stored tile in pixels; the grid starts at the
        top left corner of the level.
    :param samples: the number of bands of a stored tile; with alpha, unless alpha comes
        from a mask.
    :param compression: TIFF's number for the codec, such as 7 for JPEG.
    :param photometric: TIFF's PhotometricInterpretation of the encoded samples.
    :param predictor: TIFF's Predictor; 1 for none.
    :param subsampling: the horizontal and vertical chroma subsampling; (1, 1) for none.
    :param read: returns the compressed tile at a column and row, with checked header and
        end; None if it must be decoded and encoded.
    :param tables: TIFF's JPEGTables, which all tiles share; b'' if there are none.
    :param whole: makes a complete file of a tile from ``read``, with its tables.
    """

    size: Size
    tile: Size
    samples: int
    compression: int
    photometric: int
    predictor: int
    subsampling: tuple[int, int]
    read: Callable[[int, int], bytes | None]
    tables: bytes = b''
    whole: Callable[[bytes], bytes] = bytes


@dataclass(frozen=True)
class Picture:
    """
    An image to write: one frame of a file, or a snapshot of a canvas.

    It does not change when the store does, and is valid until its context ends.

    :param size: width and height in pixels.
    :param dtype: the dtype of the samples.
    :param meaning: the meaning of the bands.
    :param opaque: True if all pixels are known to be opaque.
    :param pixel_size: width and height of a pixel in mm, None where unknown.
    :param profile: the ICC profile, if any.
    :param read: returns the colour (rows, cols, color bands) and the alpha (rows, cols) of
        a rectangle; None for alpha if all of it is opaque, or if there is no alpha;
        None for both if all samples are 0.  Called from several threads.  The arrays may be
        read-only; do not change them.
    :param filled: yields rectangles; every sample outside of them is 0.
    :param transparency: returns how alpha is used; may read pixels.
    :param encoded: the levels whose tiles can be passed on, by reduction.
    """

    size: Size
    dtype: np.dtype[Any]
    meaning: Meaning
    opaque: bool
    pixel_size: tuple[float | None, float | None]
    profile: bytes | None
    read: Callable[[Rect], ColorAndAlpha | None]
    filled: Callable[[], Iterator[Rect]]
    transparency: Callable[[], Transparency]
    encoded: Mapping[int, EncodedLevel] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """
    All frames of an image to write, at one moment.

    It is valid until its context ends.

    :param name: of the image, for error texts.
    :param count: the number of frames.
    :param picture: returns a frame, by its number.
    :param annotations: the axes, channels, values and texts.  Frames without axes have one
        axis with the name ''.
    :param positions: the position of each frame; None if the frames fill the axes in order.
    :param associated: functions that read the associated images, by key; they return
        (rows, cols, bands) of uint8 or raise a TileSourceError.
    """

    name: str
    count: int
    picture: Callable[[int], Picture]
    annotations: Annotations = field(default_factory=Annotations)
    positions: Sequence[Mapping[str, int]] | None = None
    associated: Mapping[str, Callable[[], npt.NDArray[Any]]] = field(default_factory=dict)

    def position(self, frame: int) -> Mapping[str, int]:
        """The position of a frame on each axis."""
        if self.positions is None:
            return self.annotations.axes.position(frame)
        return self.positions[frame]


def checked_frame(frame: int | None, count: int, what: str) -> int:
    """
    Check the frame to write.

    :param frame: the 0-based frame; None if there is only one.
    :param count: the number of frames.
    :param what: the image, for the error text.
    :raises TileSourceError: if there is no such frame, or if it must be chosen.
    """
    if frame is None and count > 1:
        msg = f'{what} has {count} frames; choose one with frame=, counted from 0.'
        raise TileSourceError(msg)
    if not 0 <= (frame or 0) < count:
        msg = f'{what} has no frame {frame}; it has {count}, counted from 0.'
        raise TileSourceError(msg)
    return frame or 0


class Pixels(Protocol):
    """
    The pixels of an image, for several reads.

    For a file they are those of one version: pixels of a file that replaces it are not
    mixed in.
    """

    @property
    def key(self) -> str | None:
        """
        Identifies the pixels in caches of all processes; None if they can change.

        Two files, or two versions of a file, never have the same key.
        """

    def read(self, frame: int, reduction: int, rect: Rect, *,
             keep: bool = False, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """
        Read the pixels of a rectangle at a reduction.

        :param frame: the 0-based frame.
        :param reduction: 0 for full resolution, r for 2 ** r times smaller.
        :param rect: in level pixels of that reduction, inside
            ``size.reduced(reduction)``.
        :param keep: True if more of the image will probably be read soon, also
            at other reductions; a hint for caches.
        :param out: an array (rect.height, rect.width, bands) of ``dtype``, of any
            strides, to fill and return.
        :returns: an array (rect.height, rect.width, bands) of ``dtype``, alpha
            last.  Unless it is ``out``, it may be read-only; do not change it.
        :raises TileSourceError: if the pixels cannot be read; the message names
            the file, the frame and the place.
        """

    def tile_size(self, frame: int, reduction: int) -> Size | None:
        """
        The tiles in which a level is decoded.

        :returns: width and height of a tile in level pixels; None if the level is not
            decoded in tiles.
        """

    def is_uncompressed(self, frame: int, reduction: int) -> bool:
        """Whether a level is stored uncompressed; reading is then faster than caching."""

    def encoded_level(self, frame: int, reduction: int) -> EncodedLevel | None:
        """The compressed tiles of a level; None if they cannot be copied without decoding."""


class PixelStore(Protocol):
    """The pixels and the description of an image: a file, or a canvas."""

    # Pixels

    def current(self) -> Pixels:
        """
        The current pixels.

        :raises TileSourceError: if the file is gone or was replaced by a different image;
            for a canvas, if this process was forked after it was made.
        """

    def latest(self) -> Pixels:
        """The last result of ``current``, without checking the file again."""

    def held(self) -> AbstractContextManager[None]:
        """
        A context in which this thread uses one version of a file.

        It checks once, at the beginning, whether the file has changed.

        :raises TileSourceError: as ``current``.
        """

    @property
    def size(self) -> Size:
        """Width and height of every frame in full-resolution pixels."""

    @property
    def frame_count(self) -> int:
        """The number of frames, at least 1."""

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of the samples; None for a canvas without tiles."""

    @property
    def bands(self) -> int | None:
        """The number of bands, alpha included; None for a canvas without tiles."""

    @property
    def generation(self) -> int:
        """A number that changes whenever the image does; 0 for a file."""

    def picture(self, frame: int | None = None) -> AbstractContextManager[Picture]:
        """
        The current state of a frame, for a writer.

        :param frame: the 0-based frame; None if there is only one.
        :returns: a context; the picture is valid inside it.
        :raises TileSourceError: if there is no such frame, or it is empty.
        """

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """
        The current state of all frames, for a writer.

        :raises TileSourceError: if the image is empty.
        """

    def close(self) -> None:
        """Free memory, files and disk space; the store cannot be used afterwards."""

    # Description

    @property
    def pixel_size(self) -> tuple[float | None, float | None]:
        """Width and height of a full-resolution pixel in mm, None where unknown."""

    @property
    def magnification(self) -> float | None:
        """The magnification of the objective, if the file states it."""

    @property
    def annotations(self) -> Annotations:
        """The axes, channels, values and texts of the image."""

    def frame_axes(self) -> list[dict[str, Any]]:
        """
        The position of each frame on every axis.

        :returns: one dictionary per frame, such as ``{'IndexC': 0, 'IndexZ':
            3}``, as under 'frames' in large_image's ``getMetadata``; an empty
            list for a canvas.
        """

    def channel_names(self) -> list[str] | None:
        """The names along the axis C; None if unknown."""

    def internal_metadata(self) -> dict[str, Any]:
        """The header fields of the file; JSON-serializable."""

    def associated_names(self) -> list[str]:
        """The keys of the associated images (label, macro, ...)."""

    def associated_image(self, key: str) -> PIL.Image.Image | None:
        """
        An associated image; None if there is none with that key.

        :raises TileSourceError: if it cannot be decoded.
        """

    def icc_profiles(self) -> list[bytes | None]:
        """The ICC profile of each frame; empty if no frame has one."""
