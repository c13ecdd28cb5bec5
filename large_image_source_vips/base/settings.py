"""
Read and check the configuration settings of this source.

Only this module reads settings.  They are not cached, so a change takes effect with the
next file that is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Any

from large_image import config
from large_image.exceptions import TileSourceError

LOADERS = 'source_vips_loaders'
DPI = 'source_vips_dpi'
PASS_JPEG = 'source_vips_pass_jpeg'
IGNORED_NAMES = 'source_vips_ignored_names'
# large_image's name for the environment variable of the setting.
_VARIABLE = f'LARGE_IMAGE_{IGNORED_NAMES.upper()}'

config.ConfigValues.setdefault(LOADERS, 'default')
config.ConfigValues.setdefault(DPI, 300)
config.ConfigValues.setdefault(PASS_JPEG, 'default')
config.ConfigValues.setdefault(IGNORED_NAMES, r'(^[^.]*|\.(yml|yaml|json|png|svs|mrxs))$')


def allowed_loaders(default: str | Collection[str]) -> frozenset[str]:
    """
    The names of the loaders that may be used, from ``source_vips_loaders``:

    :'default': all loaders; in Girder, where users upload files, 'trusted' and OpenSlide.
    :'all': all loaders of this libvips.
    :'trusted': those that libvips does not mark as unfit for untrusted input.
    :a list of names: such as ``['tiffload', 'jpegload']``; it may include 'trusted'.

    :param default: the value that 'default' stands for.
    :returns: names without the suffixes ``_source`` and ``_buffer``; 'all' and 'trusted'
        can be among them.
    :raises TileSourceError: if the setting is none of these.
    """
    setting = config.getConfig(LOADERS, 'default')
    if setting == 'default':
        setting = default
    names = setting.split(',') if isinstance(setting, str) else setting
    if not isinstance(names, (list, tuple, set, frozenset)) or not all(
            isinstance(name, str) for name in names):
        msg = f"The setting {LOADERS} must be 'all', 'trusted' or a list of names, not {setting!r}."
        raise TileSourceError(msg)
    return frozenset(
        name.strip().removesuffix('_source').removesuffix('_buffer') for name in names)


def dpi_setting() -> Any:
    """The value of ``source_vips_dpi``, unchecked."""
    return config.getConfig(DPI, 300)


def dpi() -> float:
    """
    The resolution at which PDF pages are rendered, in pixels per inch.

    :raises TileSourceError: if ``source_vips_dpi`` is not a number of 1 to 10,000.
    """
    value = dpi_setting()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 10_000:
        msg = f'The setting {DPI} must be a number of 1 to 10,000, not {value!r}.'
        raise TileSourceError(msg)
    return float(value)


def pass_jpeg(default: bool) -> bool:
    """
    Whether ``getTile`` returns JPEG tiles as stored, where possible, without decoding them.

    :param default: what 'default' stands for.
    :raises TileSourceError: if ``source_vips_pass_jpeg`` is neither a bool nor 'default'.
    """
    value = config.getConfig(PASS_JPEG, 'default')
    if value == 'default':
        return default
    if not isinstance(value, bool):
        msg = f"The setting {PASS_JPEG} must be true, false or 'default', not {value!r}."
        raise TileSourceError(msg)
    return value


def ignored_names() -> Any:
    """The value of ``source_vips_ignored_names``: a regular expression, or false for none."""
    return config.getConfig(IGNORED_NAMES)


def is_ignored(path: str) -> bool:
    """
    Whether the setting excludes a file by its name.

    :param path: its path or name.
    :raises TileSourceError: if the setting is not a regular expression.
    """
    pattern = ignored_names()
    if not pattern:
        return False
    try:
        return bool(re.search(pattern, os.path.basename(path), flags=re.IGNORECASE))
    except (re.error, TypeError) as exc:
        msg = (f"The setting {IGNORED_NAMES} must be a regular expression, or '' for no names, not "
               f'{pattern!r}: {exc}')
        raise TileSourceError(msg) from exc


def refuse_ignored(path: str) -> None:
    """
    Refuse an existing file that the setting excludes.

    :param path: an absolute path.
    :raises TileSourceError: if its name matches the setting.
    """
    if os.path.isfile(path) and is_ignored(path):
        msg = (f'{path!r} is left to other tile sources, because its name matches the setting '
               f'{IGNORED_NAMES}.  To open this file, call large_image_source_vips.open(path).  To '
               f"read all such files, call large_image.config.setConfig('{IGNORED_NAMES}', '') or "
               f'start Python with an empty {_VARIABLE} in the environment.')
        raise TileSourceError(msg)
