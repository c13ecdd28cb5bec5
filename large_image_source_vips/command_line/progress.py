"""
A progress bar with rate and remaining time, shown only in a terminal.

tqdm draws it if installed; otherwise it is a plain line.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

# The shortest time between two updates of the plain line.
_REDRAW_SECONDS = 0.2


class _Line(Protocol):
    """The used part of tqdm's interface."""

    def update(self, amount: float) -> Any: ...

    def close(self) -> None: ...


class ProgressBar:
    """
    Shows the progress of some work.  Threads may share it.

    :param line: draws it; None for nothing.
    """

    def __init__(self, line: _Line | None) -> None:
        self._lock = threading.Lock()
        self._line = line

    def advance(self, amount: float) -> None:
        """Add to the amount done."""
        if self._line is not None:
            with self._lock:
                self._line.update(amount)

    def share(self, amount: float) -> Callable[[float], None]:
        """
        A function for ``write(progress=...)``.

        :param amount: the amount of the write in the total.
        """
        done = 0.0

        def report(fraction: float) -> None:
            nonlocal done
            now = max(done, fraction * amount)
            self.advance(now - done)
            done = now

        return report


@contextlib.contextmanager
def progress_bar(label: str, total: float, unit: str) -> Iterator[ProgressBar]:
    """
    A context with a progress bar.

    :param label: describes the work.
    :param total: the amount of all the work.
    :param unit: the unit of that amount, such as 'px'.
    """
    line = _line(label, total, unit)
    try:
        yield ProgressBar(line)
    finally:
        if line is not None:
            line.close()


def _line(label: str, total: float, unit: str) -> _Line | None:
    """The bar; None if the output is not a terminal."""
    if not sys.stderr.isatty():
        return None
    with contextlib.suppress(ImportError):
        from tqdm import tqdm

        line: _Line = tqdm(total=total, desc=label, unit=unit, unit_scale=True, file=sys.stderr,
                           dynamic_ncols=True)
        return line
    return _PlainLine(label, total, unit)


class _PlainLine:
    """A line of text that is overwritten."""

    def __init__(self, label: str, total: float, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = 0.0
        self._start = self._drawn = time.monotonic()
        self._width = 0

    def update(self, amount: float) -> None:
        """Add to the amount done, and redraw the line from time to time."""
        self._done += amount
        now = time.monotonic()
        if now - self._drawn >= _REDRAW_SECONDS:
            self._draw(now)

    def close(self) -> None:
        """Draw the line for the last time."""
        self._draw(time.monotonic())
        print(file=sys.stderr)

    def _draw(self, now: float) -> None:
        self._drawn = now
        rate = self._done / max(now - self._start, 1e-9)
        text = f'{self._label}: {100 * self._done / max(self._total, 1e-9):3.0f} %'
        if rate:
            left = max(0, round((self._total - self._done) / rate))
            text += f', {scaled(rate)}{self._unit}/s, {left // 60}:{left % 60:02d} left'
        print(f'\r{text:<{self._width}}', end='', file=sys.stderr, flush=True)
        self._width = len(text)


def scaled(amount: float) -> str:
    """A number with a decimal prefix: '12.3 M'."""
    for prefix in ('', 'k', 'M'):
        if amount < 1000:
            return f'{amount:.3g} {prefix}'
        amount /= 1000
    return f'{amount:.3g} G'
