"""
Open the store of a source: a ``FileReader`` for a path, a ``Canvas`` for a new image.

Only this module distinguishes the two kinds of store.
"""

from __future__ import annotations

import collections
import functools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from large_image.exceptions import TileSourceError

from .annotations import AnnotatedTileSource
from .base.limits import LIMITS
from .closing import ClosableTileSource
from .sink.canvas import Canvas
from .sink.spooled_canvas import new_canvas
from .source_cache import is_new

if TYPE_CHECKING:
    from .store import PixelStore


# The canvases of this process by the path flag of their image.  large_image creates an
# unstyled copy of a styled source; both must use the same canvas.
_canvases: weakref.WeakValueDictionary[str, Canvas] = weakref.WeakValueDictionary()

# The open sources that use a canvas.
_users: weakref.WeakKeyDictionary[Canvas, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()


# The shared images that this process unpickled last: an image that is sent with each task
# is opened once and keeps one log.
_received: collections.deque[Canvas] = collections.deque(maxlen=LIMITS.sink_received)


class OpenedTileSource(ClosableTileSource, AnnotatedTileSource):
    """A tile source of a file, or of a canvas shared by all sources of one new image."""

    def _open_store(self, path: Any) -> PixelStore:
        """Return the canvas of a new image, or open a file."""
        if is_new(path):
            options = self._sink_options
            if options.get('spool') is None:
                # The base class refuses to pickle such a source.
                self._unpickleable = True
            canvas = _canvases.get(path)
            if canvas is not None and canvas.closed:
                # It was closed before it was unpickled.
                del _canvases[path]
                canvas = None
            if canvas is None:
                canvas = _canvases.setdefault(path, new_canvas(
                    options.get('blend'), options.get('accumulator'), options.get('spool')))
            self._use(canvas)
            return canvas
        self._refuse_ignored_name(path)
        if self._sink_options:
            msg = f'{sorted(self._sink_options)[0]}= is an argument of new(), not of open().'
            raise TileSourceError(msg)
        # Imported on demand: large_image imports all sources, but opens a file with one of
        # them.
        from .reading.reader import FileReader

        return FileReader(path, self._default_loaders)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the source as its arguments."""
        make, arguments = super().__reduce__()
        return (functools.partial(_receive, make), arguments) if self._sink_options else (
            make, arguments)

    def _use(self, canvas: Canvas) -> None:
        """Register this source as a user of a canvas; closing the last one closes the canvas."""
        _users.setdefault(canvas, weakref.WeakSet()).add(self)

    def _close_store(self, delete: bool) -> None:
        """
        Close a canvas that no other source uses, and free cached data of a file.

        :param delete: whether to remove the folder of a shared spool, even if it is in use.
        """
        canvas = _canvas_of(self._store)
        if canvas is None:
            self._store.close()
            return
        users = _users.get(canvas, weakref.WeakSet())
        users.discard(self)
        if delete or not set(users) - {vars(self).get('_unstyledInstance')}:
            canvas.close(delete)

    @property
    def _canvas_or_none(self) -> Canvas | None:
        """The canvas of a new image; an error if the source is closed."""
        self._check_open()
        return _canvas_of(self._store)

    @property
    def _canvas(self) -> Canvas:
        canvas = self._canvas_or_none
        if canvas is None:
            msg = ('This image was opened from a file and cannot be changed; make a new image '
                   'with large_image_source_vips.new().')
            raise TileSourceError(msg)
        return canvas

    def _sorting_canvas(self, canvas: Canvas) -> Canvas:
        """
        Replace an empty canvas by one that sorts tiles.

        :raises TileSourceError: if it is not empty.
        """
        if canvas.dtype is not None:
            msg = ('order= must be given from the first tile on, or the image made with '
                   'new(spool=...), because earlier tiles cannot be sorted any longer.')
            raise TileSourceError(msg)
        new = new_canvas('over', None, None, sorts=True)
        new.copy_settings(canvas)
        path = self._getLargeImagePath()
        _canvases[path] = new
        for source in set(_users.get(canvas, ())):
            source._set_store(new)
            source._use(new)
        return new


def _canvas_of(store: PixelStore) -> Canvas | None:
    """The store if it is a canvas; nothing else in the package asks for the kind of a store."""
    return store if isinstance(store, Canvas) else None


def _receive(make: Callable[..., OpenedTileSource], *arguments: Any) -> OpenedTileSource:
    """Unpickle an image with a shared spool."""
    source = make(*arguments)
    canvas = source._canvas
    if canvas not in _received:
        _received.append(canvas)
    return source
