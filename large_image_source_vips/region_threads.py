"""
Read a large region with several threads, if only one thread of the process reads.

In a worker process, or beside other reading threads, helper threads would only compete for
processors.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from .base.geometry import Rect
from .base.limits import LIMITS
from .base.threads import submitted


def share(work: Callable[[Rect], None], items: Sequence[Rect], helpers: int) -> None:
    """
    Call a function for each item, in this thread and in others.

    :raises BaseException: the first error of a call; no further call begins, and all calls
        have ended.
    """
    waiting = deque(items)

    def work_off() -> None:
        try:
            while (item := _next(waiting)) is not None:
                work(item)
        except BaseException:
            waiting.clear()
            raise

    pool = _helpers()
    futures = [submitted(pool, work_off) for _number in range(min(helpers, len(items) - 1))]
    try:
        work_off()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
    for future in futures:
        if not future.cancelled():
            future.result()


def _next(waiting: deque[Rect]) -> Rect | None:
    try:
        return waiting.popleft()
    except IndexError:
        # Another thread may have taken the last one.
        return None


class Readers:
    """Counts the threads that read regions, and stores which was the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._last = 0

    def enter(self) -> bool:
        """
        Begin to read.

        :returns: whether no other thread has read since this one last began.
        """
        this = threading.get_ident()
        with self._lock:
            alone = not self._count and self._last in (0, this)
            self._count += 1
            self._last = this
        return alone

    def leave(self) -> None:
        """End reading."""
        with self._lock:
            self._count -= 1


readers = Readers()
_forked = False
_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def helper_count() -> int:
    """The number of helper threads; 0 in a worker process."""
    if _forked or multiprocessing.parent_process() is not None:
        return 0
    return min(LIMITS.base_threads, _processors()) - 1


def _processors() -> int:
    """The number of processors that this process may use."""
    affinity = getattr(os, 'sched_getaffinity', None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _helpers() -> ThreadPoolExecutor:
    """The pool of helper threads, created on demand."""
    global _pool  # noqa: PLW0603  (one for the process)
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(LIMITS.base_threads, 'large_image_source_vips')
        return _pool


def _after_fork() -> None:
    """Reset a forked child: it counts as a worker, and has no helper threads."""
    global readers, _forked, _pool, _pool_lock
    readers, _forked, _pool, _pool_lock = Readers(), True, None, threading.Lock()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)
