"""
Sources in notebooks: large_image's viewer must not keep them alive.
"""

from __future__ import annotations

import weakref
from typing import Any

from large_image.tilesource import FileTileSource


class ShownInNotebooks(FileTileSource):
    """A source that is released with the last reference to it or to a layer of it."""

    def _make_viewer_weak(self) -> None:
        """Replace the reference of large_image's viewer to this source by a weak one."""
        self._map._ts = weakref.proxy(self)

    def as_leaflet_layer(self, **kwargs: Any) -> Any:
        """
        A layer of tiles for an ``ipyleaflet.Map``.

        The layer keeps the source open until it is closed and deleted;
        ipywidgets keeps every layer that is not closed.

        :raises TileSourceError: if the source is cached; open it with
            ``noCache=True``.
        """
        layer = super().as_leaflet_layer(**kwargs)
        layer._large_image_source = self
        self._map._ts = self
        return layer
