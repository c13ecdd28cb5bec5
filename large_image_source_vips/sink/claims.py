"""
Who works on which blocks: any number of readers, or one writer.
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
    Claims on areas of blocks, granted in the order in which they came.

    A claim waits for those that came before it and are in conflict with it, so
    nothing starves and, as nobody asks for a second claim while holding one,
    nothing blocks for ever.

    What takes a few microseconds needs no claim: as long as a thread holds
    ``lock`` and there are none (``idle``), nobody works on any block.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)
        self._claims: list[_Claim] = []

    def on(self, area: Rect | None, write: bool = False) -> _Claim:
        """
        Hold a claim, as a context.

        :param area: block columns and rows; None for all there are and will be.
        :param write: whether blocks are changed; then nobody else uses them.
        """
        return _Claim(self, area, write)

    @property
    def idle(self) -> bool:
        """Whether nobody has or waits for a claim."""
        return not self._claims

    def enter(self, claim: _Claim) -> None:
        """Take a claim up, and wait until it is granted."""
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
        """Give a claim up."""
        with self._changed:
            self._claims.remove(claim)
            if self._claims:
                self._changed.notify_all()
