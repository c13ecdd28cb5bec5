"""
Sources open their store: a file for a path, a canvas for a new image.

This is the only module that distinguishes the kinds of store.
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


# The canvases of this process by the path flag of their image.  large_image makes
# an unstyled twin of a styled source; both must use the same canvas.
_canvases: weakref.WeakValueDictionary[str, Canvas] = weakref.WeakValueDictionary()

# The open sources that use a canvas.
_users: weakref.WeakKeyDictionary[Canvas, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()


# The last shared images that this process was sent: one that is sent with each task stays
# the same one, with one log, though the tasks forget it.
_received: collections.deque[Canvas] = collections.deque(maxlen=LIMITS.sink_received)


class OpenedTileSource(ClosableTileSource, AnnotatedTileSource):
    """A tile source of a file, or of a canvas, which all sources of one new image share."""

    def _open_store(self, path: Any) -> PixelStore:
        """Return the canvas of a new image, or open a file."""
        if is_new(path):
            options = self._sink_options
            if options.get('spool') is None:
                # The base class then refuses to pickle the source.
                self._unpickleable = True
            canvas = _canvases.get(path)
            if canvas is not None and canvas.closed:
                # Unpickled after it was closed.
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
        # Not before: large_image imports all sources, and opens a file with one of them.
        from .reading.reader import FileReader

        return FileReader(path, self._default_loaders)

    def __reduce__(self) -> tuple[Any, ...]:
        """How the source is pickled: by its arguments."""
        make, arguments = super().__reduce__()
        return (functools.partial(_receive, make), arguments) if self._sink_options else (
            make, arguments)

    def _use(self, canvas: Canvas) -> None:
        """Count this source as a user of a canvas; the last one to be closed closes it."""
        _users.setdefault(canvas, weakref.WeakSet()).add(self)

    def _close_store(self, delete: bool) -> None:
        """
        Close a canvas that no other source uses, and forget what is kept of a file.

        :param delete: whether to remove the folder of a shared spool, used or not.
        """
        store = self._store
        if not isinstance(store, Canvas):
            store.close()
            return
        users = _users.get(store, weakref.WeakSet())
        users.discard(self)
        if delete or not set(users) - {vars(self).get('_unstyledInstance')}:
            store.close(delete)

    @property
    def _canvas_or_none(self) -> Canvas | None:
        """The canvas of a new image; an error if the source is closed."""
        self._check_open()
        return self._store if isinstance(self._store, Canvas) else None

    @property
    def _canvas(self) -> Canvas:
        self._check_open()
        if not isinstance(self._store, Canvas):
            msg = ('This image was opened from a file and cannot be changed; make a new image '
                   'with large_image_source_vips.new().')
            raise TileSourceError(msg)
        return self._store

    def _sorting_canvas(self, canvas: Canvas) -> Canvas:
        """
        A canvas that sorts tiles, in place of an empty one that does not.

        :raises TileSourceError: if it is not empty.
        """
        if canvas.dtype is not None:
            msg = ('order= must be given from the first tile on, or the image be made with '
                   'new(spool=...), because earlier tiles are not kept apart.')
            raise TileSourceError(msg)
        new = new_canvas('over', None, None, sorts=True)
        new.copy_settings(canvas)
        path = self._getLargeImagePath()
        _canvases[path] = new
        for source in set(_users.get(canvas, ())):
            source._set_store(new)
            source._use(new)
        return new


def _receive(make: Callable[..., OpenedTileSource], *arguments: Any) -> OpenedTileSource:
    """Unpickle an image with a shared spool."""
    source = make(*arguments)
    canvas = source._canvas
    if canvas not in _received:
        _received.append(canvas)
    return source
