"""
Which files are left to other tile sources, by their names.

large_image asks one source after another for a file.  Files that others read
better are refused here by their names, as the setting
``source_vips_ignored_names`` says.
"""

from __future__ import annotations

import os
import re
from typing import Any

from large_image import config
from large_image.exceptions import TileSourceError

SETTING = 'source_vips_ignored_names'
# As large_image names the environment variable of a setting.
VARIABLE = f'LARGE_IMAGE_{SETTING.upper()}'

config.ConfigValues.setdefault(SETTING, r'(^[^.]*|\.(yml|yaml|json|png|svs|mrxs))$')


def ignored_names() -> Any:
    """The setting, as it is now: a regular expression, or something false for none."""
    return config.getConfig(SETTING)


def is_ignored(path: str) -> bool:
    """
    Whether a file is left to other sources.

    :param path: its path, or its name alone.
    :raises TileSourceError: if the setting is not a regular expression.
    """
    pattern = ignored_names()
    if not pattern:
        return False
    try:
        return bool(re.search(pattern, os.path.basename(path), flags=re.IGNORECASE))
    except (re.error, TypeError) as exc:
        msg = (f"The setting {SETTING} must be a regular expression, or '' for no names, not "
               f'{pattern!r}: {exc}')
        raise TileSourceError(msg) from exc


def refuse_ignored(path: str) -> None:
    """
    Leave an existing file to other sources if its name tells so.

    :param path: an absolute path.
    :raises TileSourceError: if its name matches the setting.
    """
    if os.path.isfile(path) and is_ignored(path):
        msg = (f'{path!r} is left to other tile sources, because its name matches the setting '
               f'{SETTING}.  large_image_source_vips.open(path) opens it on purpose.  To have all '
               f"such files read, call large_image.config.setConfig('{SETTING}', '') or start "
               f'Python with an empty {VARIABLE} in the environment.')
        raise TileSourceError(msg)
