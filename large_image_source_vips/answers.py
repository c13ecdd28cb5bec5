"""
Methods of large_image whose answers become the caller's own.

large_image keeps some of them in its cache, and makes others of PIL images, which
gives read-only arrays.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from large_image.tilesource import FileTileSource

from .base.arrays import owned, writable


class AnswersMixin(FileTileSource):
    """What large_image's methods answer, for callers to keep and to change."""

    @wraps(FileTileSource.getThumbnail)
    def getThumbnail(self, width: int | None = None, height: int | None = None,
                     **kwargs: Any) -> Any:
        # The base class keeps it in its cache.
        return owned(super().getThumbnail(width, height, **kwargs))

    @wraps(FileTileSource.histogram)
    def histogram(self, *args: Any, **kwargs: Any) -> Any:
        # The base class keeps it in its cache.
        return owned(super().histogram(*args, **kwargs))

    @wraps(FileTileSource.tileFrames)
    def tileFrames(self, *args: Any, **kwargs: Any) -> Any:
        return writable(super().tileFrames(*args, **kwargs))

    @wraps(FileTileSource.getAssociatedImage)
    def getAssociatedImage(self, imageKey: str, *args: Any, **kwargs: Any) -> Any:
        return writable(super().getAssociatedImage(imageKey, *args, **kwargs))

    def _applyICCProfile(self, sc: Any, frame: int) -> Any:
        # Functions of a style write into it, too, and what PIL made is read-only.
        sc.iccimage = writable(super()._applyICCProfile(sc, frame))
        return sc.iccimage
