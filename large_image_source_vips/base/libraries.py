"""
Import the libraries of codecs on demand, and describe what is missing.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from typing import Any


class _Codecs:
    """
    The functions of imagecodecs, with C libraries separate from those of libvips.

    Debian's libvips makes the symbols of its libjxl, libopenjp2 and libheif global.
    Without this class imagecodecs would call those instead of its own libraries.

    :param module: imagecodecs.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        # imagecodecs loads a library when one of its functions is first used.
        get, change = (getattr(sys, f'{verb}dlopenflags', None) for verb in ('get', 'set'))
        if get is None or change is None:
            value = getattr(self._module, name)
        else:
            flags = get()
            change(flags | getattr(os, 'RTLD_DEEPBIND', 0))
            try:
                value = getattr(self._module, name)
            finally:
                change(flags)
        setattr(self, name, value)
        return value


@functools.cache
def imagecodecs() -> Any:
    """
    The functions of imagecodecs; importing it takes a tenth of a second.

    :returns: None if it is not installed, or was built for another numpy.
    """
    try:
        return _Codecs(importlib.import_module('imagecodecs'))
    except (ImportError, AttributeError, ValueError):
        return None


def has_module(name: str) -> bool:
    """Whether a module can be imported."""
    if name == 'imagecodecs':
        return imagecodecs() is not None
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def missing_codec(library: str, function: str, what: str) -> str | None:
    """
    Describe what is missing to decode or encode something, and how to install it.

    :param library: the module that is needed.
    :param function: a codec of imagecodecs that is needed, or its decoding function; '' for
        none.
    :param what: the format that needs it.
    :returns: a clause for an error message; None if nothing is missing.
    """
    if not has_module(library):
        remedy = ('use a Python that was built with it' if library == 'lzma'
                  else f'install it with "pip install {library}"')
        return f'{what} needs {library}, which cannot be imported; {remedy}'
    if function:
        # Each codec of imagecodecs has a description of this kind.
        codec = getattr(imagecodecs(), function.removesuffix('_decode').upper(), None)
        if codec is None or not codec.available:
            return (f'this build of imagecodecs has no codec for {what}; install a complete '
                    'one with "pip install --upgrade imagecodecs"')
    return None
