"""
Errors as the user of a terminal reads them.
"""

from __future__ import annotations

# What errors of the package say to a program, and what they say here.
_OPTIONS = {
    'tileSize ': '--tile-size ', 'tileSize;': '--tile-size;', 'compression is': '--compression is',
    'quality is': '--quality is', '; vips_kwargs are its options': '',
    ", or pass vips_kwargs={} to leave the conversion to libvips' saver": '',
    'alpha=False': '--no-alpha', 'lossy is False': '--lossless keeps every bit',
    'compression=': '--compression='}


def one_line(exc: BaseException) -> str:
    """An exception as one line of text."""
    if isinstance(exc, MemoryError):
        return 'there is not enough memory'
    text = reason(exc)
    if isinstance(exc, OSError) and exc.strerror and exc.filename is not None:
        text = f'{exc.filename}: {exc.strerror}'
    for argument, option in _OPTIONS.items():
        text = text.replace(argument, option)
    text = ' '.join(text.split())
    return text or type(exc).__name__


def reason(exc: BaseException) -> str:
    """What went wrong, without the number of the error and the name of the file."""
    return exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
