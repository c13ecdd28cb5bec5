"""
Read-write locks on areas of blocks: any number of readers or one writer.

A claim waits for all earlier conflicting claims, so none starves.  No thread makes a
second claim while it holds one, so there are no deadlocks.
"""

from __future__ import annotations

import threading

from ..base.geometry import Rect


class _Claim:
    __slots__ = ('_owner', 'area', 'write')

    def __init__(self, owner: Claims, area: Rect | None, write: bool) -> None:
        self._owner = owner
        self.area = area
        self.write = write

    def __enter__(self) -> None:
        self._owner.enter(self)

    def __exit__(self, *_exc: object) -> None:
        self._owner.leave(self)

    def conflicts(self, other: _Claim) -> bool:
        if not (self.write or other.write):
            return False
        if self.area is None or other.area is None:
            return True
        return not self.area.clipped(other.area).empty


class Claims:
    """
    Claims on areas of blocks, granted in order of arrival.

    Work of a few microseconds needs no claim: while a thread holds ``lock``, no other
    thread starts to use a block that no claim covers (``covers``).
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)
        self._claims: list[_Claim] = []

    def on(self, area: Rect | None, write: bool = False) -> _Claim:
        """
        A context manager that holds a claim.

        :param area: block columns and rows; None for the whole canvas.
        :param write: whether the claim is exclusive.
        """
        return _Claim(self, area, write)

    def covers(self, column: int, row: int) -> bool:
        """
        Whether a claim is held or waited for on a block.

        For callers that hold ``lock``.

        :param column: the column of the block.
        :param row: the row of the block.
        """
        return any(
            claim.area is None or (claim.area.left <= column < claim.area.right and
                                   claim.area.top <= row < claim.area.bottom)
            for claim in self._claims)

    def enter(self, claim: _Claim) -> None:
        """Add a claim and wait until it is granted."""
        with self._changed:
            earlier = [other for other in self._claims if claim.conflicts(other)]
            self._claims.append(claim)
            try:
                while earlier:
                    self._changed.wait()
                    earlier = [other for other in earlier if other in self._claims]
            except BaseException:
                self._claims.remove(claim)
                self._changed.notify_all()
                raise

    def leave(self, claim: _Claim) -> None:
        """Release a claim."""
        with self._changed:
            self._claims.remove(claim)
            if self._claims:
                self._changed.notify_all()
