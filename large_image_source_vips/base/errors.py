"""
One family of errors: everything that goes wrong is a ``TileSourceError``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyvips
from large_image.exceptions import TileSourceError, TileSourceFileNotFoundError

# The rest of the package knows large_image's errors from here.
__all__ = [
    'TileSourceError', 'TileSourceFileNotFoundError', 'vips_errors', 'vips_reason']


def vips_reason(exc: pyvips.Error) -> str:
    """
    What libvips said, on one line.

    libvips keeps the text of its errors in one buffer for the whole process,
    so words of another thread can be in it; callers put their own context in
    front.

    :param exc: the error.
    """
    lines = [line.strip() for line in str(exc.detail or exc).splitlines()]
    return '; '.join(dict.fromkeys(line for line in lines if line)) or 'no reason given'


@contextmanager
def vips_errors(context: str, kind: type[TileSourceError] = TileSourceError) -> Iterator[None]:
    """
    Turn any ``pyvips.Error`` raised inside into a ``TileSourceError``.

    :param context: what was being done, to what and where; the reason that
        libvips gives is added behind it.
    :param kind: the class to raise.
    """
    try:
        yield
    except pyvips.Error as exc:
        msg = f'{context}: {vips_reason(exc)}'
        raise kind(msg) from exc

# libvips 8.14 crashes when the saver of a TIFF pyramid fails midway: pixels for
# it must not fail, and it must not be stopped.
SAVERS_CAN_FAIL = pyvips.at_least_libvips(8, 15)
