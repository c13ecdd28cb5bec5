"""
Cache decoded TIFF tiles of which only a part was needed.

Without it, each tile of a file whose tiles are not 256 x 256, such as 240 x 240, would be
decoded up to four times.  One cache for the process, at most ``MAX_BYTES``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import numpy.typing as npt

from ..base.files import after_fork_in_child
from ..base.limits import LIMITS
from ..base.threads import CleanupLock

Array = npt.NDArray[Any]

MAX_BYTES = LIMITS.reading_tiles


class TileCache:
    """
    A least-recently-used cache of arrays; safe for use by several threads.

    :param max_bytes: the bound for all arrays together; the newest is kept whatever its size.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._tiles: OrderedDict[tuple[Hashable, Hashable, int], Array] = OrderedDict()
        self._bytes = 0
        self.renew_lock()

    def renew_lock(self) -> None:
        """Replace a lock that another thread may have held at a fork."""
        # The requests are owners that were closed.
        self._lock: CleanupLock[Hashable] = CleanupLock(self._collect)

    def get(self, owner: Hashable, page: Hashable, number: int) -> Array | None:
        """A tile of a page of a file, or None."""
        with self._lock:
            found = self._tiles.get((owner, page, number))
            if found is not None:
                self._tiles.move_to_end((owner, page, number))
            return found

    def put(self, owner: Hashable, page: Hashable, number: int, pixels: Array) -> None:
        """Keep a tile; do not change it afterwards."""
        dropped = []
        with self._lock:
            key = owner, page, number
            if key in self._tiles:
                return
            self._tiles[key] = pixels
            self._bytes += pixels.nbytes
            while self._bytes > self.max_bytes and len(self._tiles) > 1:
                oldest = self._tiles.popitem(last=False)[1]
                self._bytes -= oldest.nbytes
                dropped.append(oldest)

    def forget(self, owner: Hashable) -> None:
        """Drop all tiles of a file; can be called by a finalizer."""
        self._lock.request(owner)

    def _collect(self) -> list[Array]:
        dropped = []
        while self._lock.requests:
            owner = self._lock.requests.popleft()
            for key in [key for key in self._tiles if key[0] == owner]:
                dropped.append(self._tiles.pop(key))
                self._bytes -= dropped[-1].nbytes
        return dropped


tiles = TileCache()
after_fork_in_child(tiles.renew_lock)
