"""
Run work in parallel threads, reuse arrays, and lock safely in finalizers.

At most ``LIMITS.base_threads`` threads work in parallel, and a thread keeps at most
``LIMITS.base_scratch`` bytes for each array name.

The garbage collector may run a finalizer in any thread, even one that already holds the
lock that the finalizer needs.  A finalizer therefore must not wait for a lock; it leaves a
request, which the holder of the lock handles (``CleanupLock``).
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from .limits import LIMITS

WORKERS = min(LIMITS.base_threads, os.cpu_count() or 1)

T = TypeVar('T')

_buffers = threading.local()


def submitted(pool: ThreadPoolExecutor, work: Callable[..., Any], *args: Any) -> Future[Any]:
    """
    Submit work to a pool, or do it here if the pool accepts none.

    Pools refuse work after the main thread has ended, while other threads may continue.
    """
    try:
        return pool.submit(work, *args)
    except RuntimeError:
        future: Future[Any] = Future()
        future.set_result(work(*args))
        return future


def in_parallel(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    """
    Call a function for each item, in parallel threads.

    Each thread takes the next item when it is free, so hundreds of thousands of items need
    no queue.

    :raises BaseException: the first error of a call; no further call begins.
    """
    if WORKERS < 2 or len(items) < 2:
        for item in items:
            work(item)
        return
    remaining, lock, stopped = iter(items), threading.Lock(), threading.Event()

    def work_on() -> None:
        while not stopped.is_set():
            with lock:
                try:
                    item = next(remaining)
                except StopIteration:
                    return
            try:
                work(item)
            except BaseException:
                stopped.set()
                raise

    count = min(WORKERS, len(items))
    with ThreadPoolExecutor(count) as pool:
        try:
            for future in [submitted(pool, work_on) for _ in range(count)]:
                future.result()
        finally:
            stopped.set()


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """
    An uninitialised array of the calling thread; its memory is reused.

    The system clears new memory page by page, which takes longer than most arithmetic.

    :param name: the purpose; the array is valid until the same thread requests an array of
        this name again.
    :param shape: of the array.
    :param dtype: of the array.
    """
    count = math.prod(shape)
    size = count * dtype.itemsize
    buffer = vars(_buffers).get(name)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, np.uint8)
        if size <= LIMITS.base_scratch:
            setattr(_buffers, name, buffer)
    return np.frombuffer(buffer, dtype, count).reshape(shape)


class CleanupLock(Generic[T]):
    """
    A lock whose release also handles the requests of finalizers.

    Used like a ``threading.Lock``.

    :param clean: called with the lock held when there are requests: removes all
        ``requests`` and returns the objects that it dropped from the cache.  These
        are freed after the lock is released, because that may run more finalizers.
    """

    def __init__(self, clean: Callable[[], object]) -> None:
        self._clean = clean
        self._lock = threading.Lock()
        self.requests: deque[T] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire the lock, as ``threading.Lock.acquire`` does."""
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Release the lock and handle the requests made while it was held."""
        self._lock.release()
        if self.requests:
            self._handle()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def request(self, what: T) -> None:
        """
        Request a cleanup, which happens now or when the lock is released; never waits.

        :param what: the request for ``clean``.
        """
        self.requests.append(what)
        self._handle()

    def _handle(self) -> None:
        """
        Handle all requests, unless another thread holds the lock.

        No request is lost: it is queued before the attempt to get the lock, and the holder
        checks again after the release.
        """
        while self.requests and self._lock.acquire(blocking=False):
            try:
                dropped = self._clean()
            finally:
                self._lock.release()
            del dropped
