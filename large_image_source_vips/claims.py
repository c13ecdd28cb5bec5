"""
Who works on which blocks: any number of readers, or one writer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .geometry import Rect


@dataclass(eq=False)
class _Claim:
    area: Rect | None
    write: bool

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

    @contextmanager
    def on(self, area: Rect | None, write: bool = False) -> Iterator[None]:
        """
        Hold a claim.

        :param area: block columns and rows; None for all there are and will be.
        :param write: whether blocks are changed; then nobody else uses them.
        """
        claim = _Claim(area, write)
        with self._changed:
            earlier = [other for other in self._claims if claim.conflicts(other)]
            self._claims.append(claim)
        try:
            if earlier:
                self._wait_for(earlier)
            yield
        finally:
            with self._changed:
                self._claims.remove(claim)
                self._changed.notify_all()

    def _wait_for(self, earlier: list[_Claim]) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: not any(claim in self._claims for claim in earlier))
