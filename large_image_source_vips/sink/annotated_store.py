"""
The frames, annotations and associated images of a new image: ``PixelStore`` without pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import PIL.Image

from ..base.arrays import to_pil
from ..base.frames import Annotations
from ..store import EncodedLevel
from .blend import Array
from .block_locks import BlockLocks
from .frames import Frames


class AnnotatedStore:
    """
    The frames, annotations and associated images of a new image, which has no file.

    Subclasses define ``check_process``.
    """

    # See ``Pixels``: the pixels of a canvas change, so they have no key.
    key = None

    def __init__(self) -> None:
        # The number of changes; part of large_image's cache keys.
        self._generation = 0
        self._locks = BlockLocks()
        self._frames = Frames()
        self._associated: dict[str, Array] = {}

    def check_process(self) -> None:
        """See ``PixelStore``."""
        raise NotImplementedError

    def _count_change(self) -> None:
        """Invalidate large_image's cache."""
        with self._locks.lock:
            self._generation += 1

    @property
    def generation(self) -> int:
        """The number of changes; part of large_image's cache keys."""
        return self._generation

    @property
    def frame_count(self) -> int:
        """The number of frames, written or not; at least 1."""
        return self._frames.axes.count

    @property
    def annotations(self) -> Annotations:
        """The axes, channels, values and texts."""
        self.check_process()
        with self._locks.lock:
            return self._frames.annotations()

    @property
    def magnification(self) -> float | None:
        """The magnification of the objective, None if not set."""
        return self.annotations.magnification

    def annotate(self, change: Callable[[Annotations], Mapping[str, Any]]) -> None:
        """
        Change annotations.

        :param change: a function of the current annotations that returns the fields to
            replace.
        """
        self.check_process()
        with self._locks.lock:
            self._frames.annotate(change)
            self._generation += 1

    def frame_axes(self) -> list[dict[str, Any]]:
        """See ``PixelStore``."""
        return self.annotations.frames()

    def channel_names(self) -> list[str] | None:
        """See ``PixelStore``."""
        names = self.annotations.channel_names
        return None if names is None else list(names)

    def associated_names(self) -> list[str]:
        """See ``PixelStore``."""
        return list(self._associated)

    def associated_image(self, key: str) -> PIL.Image.Image | None:
        """See ``PixelStore``."""
        return to_pil(self._associated[key]) if key in self._associated else None

    def add_associated(self, key: str | None, pixels: Array) -> None:
        """
        Add an associated image, or replace one.

        :param key: None for image_1, image_2 and so on.
        :param pixels: (rows, cols, bands), 1 to 4 bands.
        """
        self.check_process()
        with self._locks.lock:
            if key is None:
                numbers = itertools.count(len(self._associated) + 1)
                key = next(name for name in map('image_{}'.format, numbers)
                           if name not in self._associated)
            self._associated[key] = pixels
            self._generation += 1

    # What a new image does not have

    def tile_size(self, frame: int, reduction: int) -> None:
        """See ``PixelStore``; blocks are not decoded."""

    def is_uncompressed(self, frame: int, reduction: int) -> bool:
        """See ``Pixels``; blocks are not decoded."""
        return False

    def encoded_level(self, frame: int, reduction: int) -> EncodedLevel | None:
        """See ``PixelStore``."""
        return None

    def internal_metadata(self) -> dict[str, Any]:
        """See ``PixelStore``; there is no file."""
        return {}

    def icc_profiles(self) -> list[bytes | None]:
        """See ``PixelStore``."""
        return []
