"""
The errors of the package: every failure is a ``TileSourceError``.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyvips
from large_image.exceptions import TileSourceError, TileSourceFileNotFoundError

# Other modules import large_image's errors from here.
__all__ = [
    'TileSourceError', 'TileSourceFileNotFoundError', 'TileSourceValueError', 'shown',
    'vips_errors', 'vips_reason']

# libvips 8.14 crashes when the saver of a TIFF pyramid fails midway, so its
# input must not raise and it must not be cancelled.
SAVERS_CAN_FAIL = pyvips.at_least_libvips(8, 15)


class TileSourceValueError(TileSourceError, ValueError):
    """An argument or a property has a value that is not allowed."""


_short = reprlib.Repr()
_short.maxother = _short.maxstring = 80


def shown(value: object) -> str:
    """A value for an error message, in one line and not too long: an array may have millions."""
    return ' '.join(_short.repr(value).split())


def vips_reason(exc: pyvips.Error) -> str:
    """
    The message of a libvips error on one line.

    libvips collects messages in one buffer of the process, so it may contain
    messages of other threads; callers put their own context in front.

    :param exc: the error.
    """
    lines = [line.strip() for line in str(exc.detail or exc).splitlines()]
    return '; '.join(dict.fromkeys(line for line in lines if line)) or 'no reason given'


@contextmanager
def vips_errors(context: str, kind: type[TileSourceError] = TileSourceError) -> Iterator[None]:
    """
    Turn a ``pyvips.Error`` raised inside into a ``TileSourceError``.

    :param context: what failed, on what and where; libvips' reason is appended.
    :param kind: the class to raise.
    """
    try:
        yield
    except pyvips.Error as exc:
        msg = f'{context}: {vips_reason(exc)}'
        raise kind(msg) from exc
