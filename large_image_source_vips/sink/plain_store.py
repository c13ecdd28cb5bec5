"""
The parts of ``PixelStore`` that are the same for every new image, which has no file.
"""

from __future__ import annotations

from typing import Any

import PIL.Image

from ..store import EncodedLevel


class PlainStore:
    """One frame, nothing encoded, and no metadata but what a subclass adds."""

    frame_count = 1
    # See ``Pixels``: those of a canvas change.
    key = None
    magnification: float | None = None

    def tile_size(self, frame: int, reduction: int) -> None:
        """See ``PixelStore``; blocks are not decoded."""

    def encoded_level(self, frame: int, reduction: int) -> EncodedLevel | None:
        """See ``PixelStore``."""
        return None

    def frame_axes(self) -> list[dict[str, Any]]:
        """See ``PixelStore``."""
        return []

    def channel_names(self) -> list[str] | None:
        """See ``PixelStore``."""
        return None

    def internal_metadata(self) -> dict[str, Any]:
        """See ``PixelStore``; there is no file."""
        return {}

    def associated_names(self) -> list[str]:
        """See ``PixelStore``."""
        return []

    def associated_image(self, key: str) -> PIL.Image.Image | None:
        """See ``PixelStore``."""
        return None

    def icc_profiles(self) -> list[bytes | None]:
        """See ``PixelStore``."""
        return []
