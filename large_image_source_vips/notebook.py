"""
Show sources in notebooks: a thumbnail with a table, or large_image's interactive map.

The map does not keep a source alive that is no longer shown, and it follows an image that
grows.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import PIL.Image
from large_image.constants import TILE_FORMAT_NUMPY
from large_image.tilesource import FileTileSource
from large_image.tilesource.jupyter import ipyleafletPresent

if TYPE_CHECKING:
    from .store import PixelStore

Pixels = npt.NDArray[Any]

# The longest side of a thumbnail in pixels.
_THUMBNAIL = 256
_EMPTY = 'An image without tiles; add some with addTile.'
_BANDS = {1: 'gray', 2: 'gray and alpha', 3: 'RGB', 4: 'RGB and alpha'}


def as_picture(pixels: Pixels) -> tuple[PIL.Image.Image, list[str]]:
    """
    Convert pixels to an 8-bit image for display.

    :param pixels: an array (rows, cols, bands) of any dtype and number of bands.
    :returns: the image, of mode L, LA, RGB or RGBA, and notes: at most three bands of
        multiband data are shown, and samples of other than 8 bits are scaled by their
        minimum and maximum.
    """
    notes = []
    if pixels.shape[2] > 4:
        notes.append(f'bands 1 to 3 of {pixels.shape[2]}')
        pixels = pixels[:, :, :3]
    if pixels.dtype != np.uint8:
        pixels, note = _scaled(pixels)
        notes.append(note)
    image = PIL.Image.fromarray(np.ascontiguousarray(
        pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    return image, notes


def _scaled(pixels: Pixels) -> tuple[Pixels, str]:
    """Samples scaled from their range to 0 to 255, and a note about it."""
    finite = pixels[np.isfinite(pixels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    spread = (pixels.astype(np.float64) - low) * (255 / (high - low or 1))
    eight = np.nan_to_num(spread, nan=0, posinf=255, neginf=0).round().clip(0, 255)
    return eight.astype(np.uint8), f'values {low:g} to {high:g} as 0 to 255'


def small_labels(source: Any, side: int, frame: int = 0) -> Pixels:
    """
    The labels of a whole image, reduced by picking, so that only existing labels appear.

    :param side: the longest side of the result in pixels, at most that of the image.
    :param frame: the 0-based frame.
    :returns: an array (rows, cols, bands).
    """
    level = next(level for level in reversed(range(source.levels))
                 if max(source.asArray(level).shape[:2]) >= side)
    labels = np.asarray(source.asArray(level, frame=frame))
    longest = max(labels.shape[:2])
    rows, cols = (np.arange(max(1, extent * side // longest)) * longest // side
                  for extent in labels.shape[:2])
    return np.asarray(labels[rows][:, cols])


def in_colors(labels: Pixels, palette: Mapping[int, str]) -> Pixels:
    """
    Convert labels to the colours of a palette; labels without a colour become black.

    :param labels: an array (rows, cols, bands) of labels, or of labels and alpha; anything
        else is returned unchanged.
    :param palette: '#rrggbb' by label.
    :returns: an array (rows, cols, 3 or 4) of uint8.
    """
    if labels.dtype.kind not in 'iu' or labels.shape[2] > 2:
        return labels
    found, places = np.unique(labels[..., 0], return_inverse=True)
    colors = np.array([list(bytes.fromhex(palette.get(int(label), '#000000')[1:]))
                       for label in found], np.uint8)
    shown = colors[places.reshape(labels.shape[:2])]
    if labels.shape[2] == 1:
        return shown
    return np.concatenate([shown, 255 * (labels[..., 1:] > 0).astype(np.uint8)], axis=2)


class ShownInNotebooks(FileTileSource):
    """
    A source that notebooks can show, as a map if ``ipyleaflet`` is installed.

    It is freed with the last reference to it or to one of its layers.
    """

    if TYPE_CHECKING:
        _store: PixelStore

    # The event loop that serves the tiles of the map; None if there is no map.
    _loop: asyncio.AbstractEventLoop | None = None
    _refresh_pending = False
    _shown_size: tuple[int, int] | None = None
    # A weak reference to the widget with the map.
    _box: Any = None

    def _make_viewer_weak(self) -> None:
        """Make the reference of large_image's viewer to this source a weak one."""
        self._map._ts = weakref.proxy(self)

    def _repr_png_(self) -> bytes | None:
        """A thumbnail; None for an image without tiles."""
        if self.dtype is None:
            return None
        # At most the size of the image.
        side = min(_THUMBNAIL, max(self.sizeX, self.sizeY))
        output = {'maxWidth': side, 'maxHeight': side}
        if getattr(self, '_style', None):
            # A style determines the colours.
            return bytes(self.getRegion(output=output, encoding='PNG')[0])
        palette = self._store.annotations.palette
        if palette is None:
            pixels, _ = self.getRegion(output=output, format=TILE_FORMAT_NUMPY)
        else:
            pixels = in_colors(small_labels(self, side), palette)
        encoded = io.BytesIO()
        as_picture(np.asarray(pixels))[0].save(encoded, 'PNG')
        return encoded.getvalue()

    def _repr_html_(self) -> str:
        """A thumbnail and a small table; a sentence for an image without tiles."""
        # Imported on demand, because it takes a while.
        import html

        png = self._repr_png_()
        if png is None:
            return f'<p>{_EMPTY}</p>'
        picture = base64.b64encode(png).decode()
        rows = ''.join(f'<tr><th style="text-align:left">{name}</th>'
                       f'<td style="text-align:left">{html.escape(text)}</td></tr>'
                       for name, text in self._summary().items())
        return (f'<div style="display:flex;gap:1em;align-items:flex-start">'
                f'<img alt="thumbnail" src="data:image/png;base64,{picture}">'
                f'<table>{rows}</table></div>')

    def _summary(self) -> dict[str, str]:
        """The rows of the table."""
        metadata = self.getMetadata()
        bands = metadata['bandCount']
        rows = {'size': f'{metadata["sizeX"]:,} x {metadata["sizeY"]:,} pixels, '
                        f'{metadata["levels"]} levels',
                'samples': f'{metadata["dtype"]}, {_BANDS.get(bands, f"{bands} bands")}'}
        if metadata['mm_x']:
            rows['pixel size'] = f'{metadata["mm_x"] * 1000:.4g} um'
        if metadata['magnification']:
            rows['magnification'] = f'{metadata["magnification"]:.4g}'
        axes = metadata.get('IndexRange', {})
        if metadata.get('frames'):
            rows['frames'] = f'{len(metadata["frames"]):,}' + ''.join(
                f', {axis.removeprefix("Index")} {count}' for axis, count in sorted(axes.items()))
        if metadata.get('channels'):
            rows['channels'] = ', '.join(map(str, metadata['channels']))
        names = self._store.annotations.class_names
        if names:
            rows['classes'] = ', '.join(f'{label} {name}' for label, name in names.items())
        if self.getAssociatedImagesList():
            rows['associated'] = ', '.join(self.getAssociatedImagesList())
        path = self._getLargeImagePath()
        return {'file': os.path.basename(path), **rows} if os.path.exists(path) else rows

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
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            # Layers are refreshed only in a notebook.
            self._loop = None
        self._shown_size = self.sizeX, self.sizeY
        return layer

    if ipyleafletPresent:
        def _ipython_display_(self) -> Any:
            from IPython.display import display

            box = self._make_box()
            self._box = weakref.ref(box)
            return display(box)

    def _make_box(self) -> Any:
        """The widget with the map."""
        layer = self.as_leaflet_layer()
        # A new viewer, because it keeps the metadata of the first layer.
        self._map._metadata = metadata = self.getMetadata()
        return self._map.make_map(metadata, layer, self.getCenter(srs='EPSG:4326'))

    def _refresh_soon(self) -> None:
        """
        Schedule a refresh of the map for when the notebook is idle.

        Can be called from any thread, and often; many changes cause one refresh.
        """
        loop = self._loop
        if loop is None or self._refresh_pending:
            return
        self._refresh_pending = True
        refresh = weakref.WeakMethod(self._refresh)

        def run() -> None:
            method = refresh()
            if method is not None:
                method()

        try:
            loop.call_soon_threadsafe(run)
        except RuntimeError:
            # The loop was closed with its notebook.
            self._loop = None

    def _refresh(self) -> None:
        """Create the map again if the image grew, else reload its tiles."""
        # Reset before reading, so that a later change causes another refresh.
        self._refresh_pending = False
        layer = self._map.layer
        box = self._box() if self._box is not None else None
        if layer is None:
            return
        if box is not None and self._shown_size != (self.sizeX, self.sizeY):
            box.children = self._make_box().children
            layer.close()
        else:
            # A new URL, so that the browser does not use its cache.
            address = layer.url.split('&state=')[0]
            layer.url = f'{address}&state={quote(self.getState())}'
