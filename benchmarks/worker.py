"""
Runs one measurement: reads a job from stdin and writes the outcome to stdout.

Job and outcome are one JSON object each; ``runner`` starts this process.  In its own
process, a job has its own peak memory and open files, and starts with empty caches.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# The usual limit of open files of a process.
OPEN_FILES = 1024


def forget_source_tree(contender: str) -> None:
    """
    Make sure that the peer's environment imports the peer.

    ``python -m`` puts the working directory first on the path, where the peer would
    find this package under the same name.

    :param contender: the contender that is measured.
    """
    if contender != 'ours':
        sys.path.pop(0)


def limit_open_files() -> None:
    """Set the usual limit of open files, in case that of this system is higher."""
    try:
        import resource
    except ImportError:
        # Windows has no such limit.
        return
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> None:
    """Run one job."""
    # Text that libraries print must not mix with the outcome.
    report = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    job: dict[str, Any] = json.load(sys.stdin)
    forget_source_tree(job['contender'])
    limit_open_files()
    # This imports the package that is measured, so it follows the lines above.
    from . import tasks

    outcome = tasks.TASKS[job['task']](job['contender'], **job['params'])
    with report:
        json.dump(outcome.as_json(), report)


if __name__ == '__main__':
    main()
