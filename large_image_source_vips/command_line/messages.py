"""
Convert errors of the package to error texts for the command line.
"""

from __future__ import annotations

# Parts of error texts for programs, and the same for the command line.
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
    """The reason for an error, without error number and file name."""
    return exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
