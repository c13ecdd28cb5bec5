"""
A source in a notebook: large_image's map, drawn by ipyleaflet.

The tiles of the map come from a server in the same process.  large_image lets
that server know the source only as long as someone else holds it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from large_image.tilesource.jupyter import Map


class NotebookMixin:
    """
    Let a source live as long as the layer of a map that shows it, and no longer.

    Before there is a layer, nothing of the source refers back to it, so what a
    discarded source holds is given back at once, without the garbage collector.
    """

    _map: Map

    def _let_go(self) -> None:
        """Have large_image's viewer not hold the source that it belongs to."""
        self._map._ts = weakref.proxy(self)

    def as_leaflet_layer(self, **kwargs: Any) -> Any:
        """
        A layer of tiles for an ``ipyleaflet.Map``.

        It holds the source until it is closed and dropped; ipywidgets holds
        every layer that was not closed.

        :raises TileSourceError: if the source is cached; open it with
            ``noCache=True``.
        """
        layer = super().as_leaflet_layer(**kwargs)  # type: ignore[misc]  # of large_image's class
        layer._large_image_source = self
        self._map._ts = self
        return layer
