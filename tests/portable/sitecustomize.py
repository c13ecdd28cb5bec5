"""
Remove functions that Windows lacks from ``os``, before any other import.

Python runs this at its start where this folder is in PYTHONPATH; ``tests/conftest.py``
sees to that.  What Python itself or pytest cannot do without on this system stays: getuid,
statvfs, waitpid and those that belong to it.
"""

import os

MISSING = (
    'O_CLOEXEC', 'O_DIRECTORY', 'O_DSYNC', 'O_NOCTTY', 'O_NOFOLLOW', 'O_NONBLOCK', 'O_SYNC',
    'O_TMPFILE', 'chown', 'copy_file_range', 'fchmod', 'fchown', 'fork', 'forkpty',
    'getegid', 'geteuid', 'getgid', 'getgroups', 'getxattr', 'lchown', 'listxattr', 'lockf',
    'memfd_create', 'mkfifo', 'mknod', 'posix_fadvise', 'posix_fallocate', 'posix_spawn',
    'posix_spawnp', 'pread', 'preadv', 'pwrite', 'pwritev', 'readv', 'register_at_fork',
    'removexattr', 'sched_getaffinity', 'sendfile', 'setegid', 'seteuid', 'setgid', 'setgroups',
    'setuid', 'setxattr', 'writev')

for _name in MISSING:
    if hasattr(os, _name):
        delattr(os, _name)
for _names in (os.supports_dir_fd, os.supports_fd, os.supports_effective_ids):
    # Of Windows, too, but for os.stat and the like, which nobody here asks for.
    _names.clear()
