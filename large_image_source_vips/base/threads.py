"""
Work for as many threads as there are processors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

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
