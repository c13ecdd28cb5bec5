"""
Functions of libvips' C interface that pyvips does not wrap.

They only free resources earlier, so where they cannot be found nothing is called.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import cffi
import pyvips


@functools.cache
def _source_minimise() -> Callable[[Any], int] | None:
    """The function ``vips_source_minimise``, or None where it cannot be found."""
    ffi = cffi.FFI()
    ffi.cdef('int vips_source_minimise(void *source);')
    # pyvips either is compiled with libvips, which its extension module then contains, or
    # opens the library by its name in the system.
    compiled = sys.modules.get('_libvips')
    name = getattr(compiled, '__file__', None) or {
        'darwin': 'libvips.42.dylib', 'win32': 'libvips-42.dll'}.get(
            sys.platform, 'libvips.so.42')
    try:
        function: Callable[[Any], int] = ffi.dlopen(name).vips_source_minimise
    except (OSError, AttributeError):
        return None
    return lambda pointer: function(ffi.cast('void *', int(pyvips.ffi.cast('uintptr_t', pointer))))


def close_descriptor(source: pyvips.Source) -> None:
    """
    Close the file of a source that is no longer read.

    libvips keeps images and their sources in its cache of operations long after the last
    Python object is freed.  If libvips does read the source again, it reopens the file.

    :param source: made by ``pyvips.Source.new_from_file``.
    """
    minimise = _source_minimise()
    if minimise is not None:
        minimise(source.pointer)
