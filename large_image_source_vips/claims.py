"""
Who works on which blocks: any number of readers, or one writer; and who of many
that have little to do each time.
"""

from __future__ import annotations

import os
import threading
import time

from .geometry import Rect


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
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._claims: list[_Claim] = []

    def on(self, area: Rect | None, write: bool = False) -> _Claim:
        """
        Hold a claim, as a context.

        :param area: block columns and rows; None for all there are and will be.
        :param write: whether blocks are changed; then nobody else uses them.
        """
        return _Claim(self, area, write)

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


class Turns:
    """
    A lock for work that takes less time than to hand a lock to another thread.

    The thread that has its turn keeps it for some milliseconds, if it comes back
    soon enough each time.  As a context; not reentrant.
    """

    # In seconds: how long a turn lasts while others wait, after which pause it is
    # over, and how often somebody looks whether it is: each look costs the owner
    # of the turn the handing over of Python's interpreter lock, there and back.
    _TURN, _PAUSE, _LOOK = 0.05, 0.002, 0.02

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._changed = threading.Condition()
        self._owner: int | None = None
        self._busy: int | None = None
        self._began = self._left = 0.0
        self._waiting = 0
        # Whether one of those who wait looks for the pause.
        self._watched = False
        self._process = os.getpid()

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._process != os.getpid():
            # Threads of the parent that wait or work do not exist here; a canvas
            # refuses to be changed in a child anyway.
            self._start()
        try:
            with self._changed:
                if not self._begins(me):
                    self._wait(me)
        except BaseException:
            # Ctrl-C, for one, between the grant and its use.
            if self._busy == me:
                self._busy = None
            raise

    def _wait(self, me: int) -> None:
        """Wait for a turn; one looks again and again, the others until it has got its own."""
        watches = False
        self._waiting += 1
        try:
            while not self._begins(me):
                if not self._watched:
                    self._watched = watches = True
                self._changed.wait(self._LOOK if watches else None)
        finally:
            self._waiting -= 1
            if watches:
                self._watched = False
            if not self._watched:
                # Somebody has to watch.
                self._changed.notify()

    def _begins(self, me: int) -> bool:
        """Whether a thread may begin now; then it has."""
        # A thread never waits for itself: it was interrupted then.
        if self._busy not in {None, me}:
            return False
        now = time.monotonic()
        over, away = now - self._began > self._TURN, now - self._left > self._PAUSE
        if self._owner == me:
            if over and self._waiting and not away:
                self._changed.notify()
                return False
        elif self._owner is not None and not over and not away:
            return False
        if over or self._owner != me:
            self._owner, self._began = me, now
        self._busy = me
        return True

    def __exit__(self, *_exc: object) -> None:
        self._left = time.monotonic()
        self._busy = None
