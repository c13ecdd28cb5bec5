"""
Close sources, explicitly or with a ``with`` statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from large_image.cache_util import LruCacheMetaclass
from large_image.exceptions import TileSourceError

from .source import StoreTileSource

if TYPE_CHECKING:
    from typing_extensions import Self


class ClosedStore:
    """
    The store of a closed source.

    Every use raises ``TileSourceError``.
    """

    def __getattr__(self, name: str) -> Any:
        msg = 'This image has been closed; open it again, or make a new one.'
        raise TileSourceError(msg)


class ClosableTileSource(StoreTileSource):
    """A tile source with ``close``."""

    if TYPE_CHECKING:
        def _close_store(self, delete: bool) -> None: ...

    def close(self, delete: bool = False) -> None:
        """
        Free memory, disk space and open files; any later use is an error.

        Without this call they are freed when the source is no longer used.  A source in
        large_image's cache stays open, because other callers may use it (to close it, open
        it with ``noCache=True``), and so does an image that another source uses, such as
        one with a style.  Closing again does nothing.

        :param delete: whether to remove the folder of a shared spool (``spool=``) with all
            tiles, even if others use it.  If False the folder stays, and ``new`` can
            continue it.
        :raises TileSourceError: if the folder cannot be removed.
        """
        if self._is_closed or self._is_cached():
            return
        self._close_store(delete)
        self._set_store(ClosedStore())

    @property
    def _is_closed(self) -> bool:
        return isinstance(self._store, ClosedStore)

    def _check_open(self) -> None:
        """
        Check that the source is not closed.

        :raises TileSourceError: if it is.
        """
        if self._is_closed:
            self._store.current()

    def _is_cached(self) -> bool:
        """Whether this source is in large_image's cache, so other callers may use it."""
        if vars(self).get('_noCache'):
            return False
        cache, lock = LruCacheMetaclass.classCaches[type(self)]
        with lock:
            return any(source is self for source in cache.values())

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
