"""
One measurement in a process of its own: a job on stdin, an outcome on stdout.

The job and the outcome are one JSON object each; ``runner`` is the other end.
A process of its own makes the peak of memory and the number of open files
those of this one job, and starts it without anything cached.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# The limit of open files that a process usually starts with.
OPEN_FILES = 1024


def forget_source_tree(contender: str) -> None:
    """
    Make sure that the peer is measured where the peer was asked for.

    ``python -m`` puts the working directory first on the path; there the peer
    would find this package under its own name.

    :param contender: who is measured.
    """
    if contender != 'ours':
        sys.path.pop(0)


def limit_open_files() -> None:
    """Let nobody get by with an unusually high limit of open files."""
    try:
        import resource
    except ImportError:
        # Windows has no such limit.
        return
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> None:
    """Do one job."""
    # What libraries print must not get between the outcome and its reader.
    report = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    job: dict[str, Any] = json.load(sys.stdin)
    forget_source_tree(job['contender'])
    limit_open_files()
    # Imported only now: by it comes what is measured.
    from . import tasks

    outcome = tasks.TASKS[job['task']](job['contender'], **job['params'])
    with report:
        json.dump(outcome.as_json(), report)


if __name__ == '__main__':
    main()
