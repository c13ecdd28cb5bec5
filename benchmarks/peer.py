"""
Makes an environment with the released packages, to compare with.
"""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

# The figures of docs/performance.rst are for these releases.
REQUIREMENTS = [
    'large-image-source-vips==1.35.6',
    'large-image-source-tiff==1.35.6',
    'large-image==1.35.6',
    'pyvips[binary]',
]


def make(folder: Path) -> Path:
    """
    Make the environment, unless it exists.

    :param folder: the folder to make it in.
    :returns: the path of its Python.
    :raises subprocess.CalledProcessError: if pip fails.
    """
    environment = folder / 'peer'
    python = next((environment / place for place in ('bin/python', 'Scripts/python.exe')
                   if (environment / place).exists()), None)
    complete = environment / 'complete'
    if python and complete.exists():
        return python
    print('making an environment with the released packages ...', flush=True)
    venv.create(environment, with_pip=True, clear=True)
    python = next(environment / place for place in ('bin/python', 'Scripts/python.exe')
                  if (environment / place).exists())
    subprocess.run([python, '-m', 'pip', 'install', '--quiet', *REQUIREMENTS], check=True)
    complete.touch()
    return python
