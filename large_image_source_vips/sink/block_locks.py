"""
Read-write locks on areas of blocks: any number of readers or one writer.

A lock waits for all earlier conflicting ones, so none starves.  No thread acquires a
second lock while it holds one, so there are no deadlocks.
"""

from __future__ import annotations

import threading

from ..base.geometry import Rect


class _AreaLock:
    __slots__ = ('_owner', 'area', 'write')

    def __init__(self, owner: BlockLocks, area: Rect | None, write: bool) -> None:
        self._owner = owner
        self.area = area
        self.write = write

    def __enter__(self) -> None:
        self._owner.acquire(self)

    def __exit__(self, *_exc: object) -> None:
        self._owner.release(self)

    def conflicts(self, other: _AreaLock) -> bool:
        if not (self.write or other.write):
            return False
        if self.area is None or other.area is None:
            return True
        return not self.area.clipped(other.area).empty


class BlockLocks:
    """
    Locks on areas of blocks, granted in order of arrival.

    Work of a few microseconds needs no area lock: while a thread holds ``lock``, no other
    thread begins to use a block outside of all area locks (see ``covers``).
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)
        self._area_locks: list[_AreaLock] = []

    def area(self, area: Rect | None, write: bool = False) -> _AreaLock:
        """
        A context manager that locks an area.

        :param area: block columns and rows; None for the whole canvas.
        :param write: whether the lock is exclusive.
        """
        return _AreaLock(self, area, write)

    def covers(self, column: int, row: int) -> bool:
        """
        Whether any thread holds or waits for a lock on a block.

        Call it with ``lock`` held.

        :param column: the column of the block.
        :param row: the row of the block.
        """
        return any(
            area_lock.area is None or (area_lock.area.left <= column < area_lock.area.right and
                                       area_lock.area.top <= row < area_lock.area.bottom)
            for area_lock in self._area_locks)

    def acquire(self, area_lock: _AreaLock) -> None:
        """Add a lock and wait until it is granted."""
        with self._changed:
            earlier = [other for other in self._area_locks if area_lock.conflicts(other)]
            self._area_locks.append(area_lock)
            try:
                while earlier:
                    self._changed.wait()
                    earlier = [other for other in earlier if other in self._area_locks]
            except BaseException:
                self._area_locks.remove(area_lock)
                self._changed.notify_all()
                raise

    def release(self, area_lock: _AreaLock) -> None:
        """Release a lock."""
        with self._changed:
            self._area_locks.remove(area_lock)
            if self._area_locks:
                self._changed.notify_all()
