"""
Threads: work side by side, memory of a thread, locks that finalizers may need.

The garbage collector may run a finalizer at any moment and in any thread, also in
one that holds the very lock it needs.  So a finalizer must not wait for a lock, and
what it asks for must not wait for the next who happens to come by
(``CleanupLock``).

Fresh memory is handed out by the system page by page, each of them cleared, which
takes longer than most of what is done with it; ``scratch`` uses it again.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

WORKERS = min(4, os.cpu_count() or 1)


def submitted(pool: ThreadPoolExecutor, work: Callable[..., Any], *args: Any) -> Future[Any]:
    """
    Work that a pool does, or that has just been done here.

    As soon as the main thread has ended, pools take nothing any more, though other
    threads may still be at work.
    """
    try:
        return pool.submit(work, *args)
    except RuntimeError:
        future: Future[Any] = Future()
        future.set_result(work(*args))
        return future


def side_by_side(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    """
    Do something with each item.

    :raises BaseException: what the work raised; what has not begun then is left.
    """
    if WORKERS < 2 or len(items) < 2:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(min(WORKERS, len(items))) as pool:
        futures: list[Future[Any]] = []
        try:
            for item in items:
                futures.append(submitted(pool, work, item))  # noqa: PERF401 (some may be there)
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()

# What a thread keeps under one name, at most.
_MAX_KEPT = 16 << 20

_kept = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """
    An array with anything in it, for the calling thread.

    :param name: of the purpose; the array is good until the thread asks for the
        next one of that name.
    :param shape: of the array.
    :param dtype: of the array.
    """
    count = int(np.prod(shape))
    size = count * dtype.itemsize
    buffer = vars(_kept).get(name)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, np.uint8)
        if size <= _MAX_KEPT:
            setattr(_kept, name, buffer)
    return np.frombuffer(buffer, dtype, count).reshape(shape)


T = TypeVar('T')


class CleanupLock(Generic[T]):
    """
    A lock; whoever lets go of it does what finalizers asked for meanwhile.

    To be used as a ``threading.Lock``, which it is besides.

    :param clean: called with the lock, when there are requests: takes all of them out
        of ``requests``, and returns what it took out of the cache.  That goes when
        the lock is free again, as other finalizers may then run.
    """

    def __init__(self, clean: Callable[[], object]) -> None:
        self._clean = clean
        self._lock = threading.Lock()
        self.requests: deque[T] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, as that of ``threading.Lock`` does."""
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Let go of the lock, and do what was asked for while it was held."""
        self._lock.release()
        if self.requests:
            self._work()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def request(self, what: T) -> None:
        """
        Ask for something to be cleaned up, now or when the lock is free; never waits.

        :param what: for ``clean``.
        """
        self.requests.append(what)
        self._work()

    def _work(self) -> None:
        """
        Do what is asked for, unless another has the lock.

        A request comes before the attempt to get the lock, and whoever has it looks
        for requests once more after letting go: so none is left over.
        """
        while self.requests and self._lock.acquire(blocking=False):
            try:
                dropped = self._clean()
            finally:
                self._lock.release()
            del dropped
