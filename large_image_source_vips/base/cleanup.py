"""
A lock for what finalizers have to change.

The garbage collector may run a finalizer at any moment and in any thread, also in
one that holds the very lock it needs.  So a finalizer must not wait for a lock; but
what it asks for must not wait for the next who happens to come by, either.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

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
