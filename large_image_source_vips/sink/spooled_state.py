"""
The properties of a spooled canvas, combined from the tiles and settings of all processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image

from ..base.formats import GRAY, Meaning
from ..base.frames import Annotations
from ..base.geometry import Rect, Size
from . import spool_properties
from .band_ranges import BandRanges
from .blend import check_policy
from .canvas import Canvas
from .patch import Array
from .shared_spool import SharedSpool
from .tile_index import TileIndex
from .tile_log import TileLog


class SpooledState(Canvas):
    """
    The properties of a canvas whose tiles are in a log.

    :param policy: a blend policy; None for that of the spool, or 'over'.
    :param accumulator: the dtype of means and sums, or None.
    :param folder: of a shared spool; None for a temporary file of this process.
    :raises TileSourceError: if the folder cannot be used.
    """

    def __init__(self, policy: str | None, accumulator: str | None, folder: str | None) -> None:
        super().__init__()
        self._shared: SharedSpool | None = None
        self.sorts = True
        self.policy = policy or 'over'
        if folder is None:
            self._log = TileLog()
        else:
            self._log = self._shared = SharedSpool(folder, policy, accumulator)
            self.policy, accumulator = self._shared.blend, self._shared.accumulator
        self._index = TileIndex(
            self.policy, accumulator, self._frames, folder is not None, self._log.read_bytes,
            self._log.part_name)
        self._looking = threading.RLock()
        # How many tiles ``band_ranges`` has counted.
        self._counted = 0
        # Whether ``_frames`` has the annotations of other processes.
        self._annotated = False
        # The meaning of the last tile of this process.
        self._meaning: Meaning | None = None

    # Properties from all tiles, and those that any process has set

    @property
    def generation(self) -> int:
        """The number of changes; part of large_image's cache keys."""
        if not self._closed:
            self.current()
        return self._generation

    @property
    def origin(self) -> tuple[int, int]:
        """The top left corner of the image in caller coordinates: (x, y), each <= 0."""
        return self.current()._origin

    @property
    def size(self) -> Size:
        """The size in full-resolution pixels, at least the minimum size."""
        return self.current()._size

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of the samples; None without tiles."""
        self.current()
        return super().dtype

    @property
    def meaning(self) -> Meaning | None:
        """The meaning of the bands; None without tiles."""
        self.current()
        return super().meaning

    @property
    def bands(self) -> int | None:
        """The number of bands that ``read`` returns; None without tiles."""
        self.current()
        return super().bands

    @property
    def ranges(self) -> BandRanges:
        """The smallest and largest values of the tiles added; reads those not counted yet."""
        self.current()
        with self._looking:
            while self._counted < len(self._index.entries):
                entry = self._index.entries[self._counted]
                known = (entry.details or {}).get('ranges')
                if known is None:
                    low, high = BandRanges.of(self._log.read(entry).color)
                else:
                    low, high = (np.array(values, known[2]) for values in known[:2])
                self._ranges.count(low, high, entry.kind.meaning.color_bands)
                self._counted += 1
            return self._ranges

    @property
    def known_meaning(self) -> Meaning | None:
        """The meaning of the bands of the last tile of this process, or of the image."""
        return self._meaning or super().known_meaning

    @property
    def known_axes(self) -> list[str]:
        """The axes of the frames; empty if other processes may be adding some."""
        if self._shared is not None:
            return []
        self.current()
        return super().known_axes

    @property
    def frame_count(self) -> int:
        """The number of frames, written or not; at least 1."""
        self.current()
        return super().frame_count

    @property
    def annotations(self) -> Annotations:
        """The axes, channels, values and texts."""
        self.current()
        return super().annotations

    def annotate(self, change: Callable[[Annotations], Mapping[str, Any]]) -> None:
        """Change annotations; see ``AnnotatedStore.annotate``."""
        def checked(known: Annotations) -> Mapping[str, Any]:
            fields = change(known)
            if fields.get('palette') is not None:
                check_policy(self.policy, replace(GRAY, labels=True))
            return fields

        if self._shared is None:
            super().annotate(checked)
            return
        for name, value in checked(self.annotations).items():
            self._shared.set_property(name, spool_properties.encoded(name, value))
        self._refresh()

    def associated_names(self) -> list[str]:
        """See ``PixelStore``."""
        self.current()
        return super().associated_names()

    def associated_image(self, key: str) -> PIL.Image.Image | None:
        """See ``PixelStore``."""
        self.current()
        return super().associated_image(key)

    def add_associated(self, key: str | None, pixels: Array) -> None:
        """Add an associated image, or replace one; see ``AnnotatedStore.add_associated``."""
        self.current()
        super().add_associated(key, pixels)
        if self._shared is not None:
            name = key if key is not None else list(self._associated)[-1]
            self._shared.set_property(spool_properties.associated_name(name), [
                name, spool_properties.encoded_image(pixels)])

    def _remember(self, name: str, value: Any) -> None:
        if self._shared is not None:
            self._shared.set_property(name, value)

    def _refresh(self) -> None:
        if self._shared is None or self._closed:
            return
        changed = self._shared.refresh_properties()
        if self._annotated and not changed:
            return
        found = self._shared.properties
        self._pixel_size = tuple(found.get('pixel_size', (None, None)))
        crop = found.get('crop')
        self._crop = None if crop is None else Rect(*crop)
        fields = spool_properties.decoded(found)
        with self._locks.lock:
            self._frames.annotate(lambda _: fields)
            self._associated.update(spool_properties.associated(found))
        self._annotated = True
        self._apply_palette()
        if changed:
            with self._locks.area(None, write=True):
                self._apply_min_size(Size(*found.get('min_size', (0, 0))))
