"""
Pictures that are decoded whole, from top to bottom.

The rows are fetched in the calling thread through a sequential image: nothing
of it stays in libvips, and it works in a forked child, where libvips' pool of
threads does not.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips
from large_image.exceptions import TileSourceError

from .elsewhere import decode_elsewhere, must_decode_elsewhere
from .geometry import Rect, Size
from .handles import Handle
from .layout import Opening, Stored
from .loader import Identity, Loader, why_not_decoded
from .source_file import SourceFile
from .tiff import TiffDirectories, TiffFormatError

Rows = tuple[int, npt.NDArray[Any]]

# The bytes that one fetch takes, about.
_CHUNK_BYTES = 8 << 20
# Rows come in multiples of this many, for those who make them smaller.
_ROWS = 8


def why(stored: Stored, error: pyvips.Error) -> str:
    """Why a picture could not be decoded."""
    return why_not_decoded(stored.page.compression_name if stored.page else '', error)


def empty_tiles(file: SourceFile, stored: Stored) -> npt.NDArray[np.bool_] | None:
    """
    Which tiles or strips of a TIFF page are declared empty.

    :returns: a flag for each, in file order; None if none is.
    """
    if stored.page is None or (stored.page.planar == 2 and stored.page.samples > 1):
        return None
    with file.descriptor() as descriptor:
        try:
            return TiffDirectories(descriptor).empty_tiles(stored.page)
        except TiffFormatError as exc:
            msg = f'Cannot read {file.path!r}: {exc}'
            raise TileSourceError(msg) from exc


def decode(file: SourceFile, stored: Stored) -> Iterator[Rows]:
    """
    All pixels of the image that a picture is in.

    :returns: the first row and the rows, in multiples of 8 but for the last.
    :raises TileSourceError: if they cannot be decoded.
    """
    handle = _handle(file, stored)
    if must_decode_elsewhere(file.loader.name):
        unpack = handle.unpacker
        del handle
        size = stored.opened_size
        yield from decode_elsewhere((file.path, file.identity, file.loader, stored),
                                    (size.width, unpack.bands), unpack.dtype, size.height)
        return
    empty = empty_tiles(file, stored)
    yield from (_rows(stored, handle) if empty is None
                else _aligned(_around_empty_strips(file, stored, handle, empty)))


def decode_anew(path: str, identity: Identity, loader: Loader, stored: Stored) -> Iterator[Rows]:
    """What ``decode`` does, in a process that does not have the file open."""
    return decode(SourceFile(path, identity, loader), stored)


def _handle(file: SourceFile, stored: Stored) -> Handle:
    """An open image whose pixels are wanted once, from top to bottom."""
    image = file.open(stored.opening, sequential=True)
    has, wants = Size(image.width, image.height), stored.opened_size
    if has != wants:
        msg = f'it is {has.width} x {has.height} pixels, not {wants.width} x {wants.height}'
        raise TileSourceError(msg)
    return Handle(image)


def _rows(stored: Stored, handle: Handle) -> Iterator[Rows]:
    """All pixels of an open image."""
    size = stored.opened_size
    row_bytes = max(1, size.width * handle.unpacker.raw_pixel_bytes)
    step = max(_ROWS, _CHUNK_BYTES // row_bytes // _ROWS * _ROWS)
    for top in range(0, size.height, step):
        rect = Rect(0, top, size.width, min(step, size.height - top))
        try:
            yield top, handle.fetch(rect)
        except pyvips.Error as exc:
            raise TileSourceError(why(stored, exc)) from exc


def _aligned(pieces: Iterator[Rows]) -> Iterator[Rows]:
    """The same rows in multiples of 8 but for the last."""
    kept_top, kept = 0, None
    for top, rows in pieces:
        if kept is not None:
            top, rows = kept_top, np.concatenate([kept, rows])
        whole = rows.shape[0] // _ROWS * _ROWS
        if whole:
            yield top, rows[:whole]
        kept_top, kept = top + whole, rows[whole:] if whole < rows.shape[0] else None
    if kept is not None:
        yield kept_top, kept


def _around_empty_strips(file: SourceFile, stored: Stored, handle: Handle,
                         empty: npt.NDArray[np.bool_]) -> Iterator[Rows]:
    """All pixels of a picture some strips of which are declared empty: those are blank."""
    page, unpack = stored.page, handle.unpacker
    assert page is not None  # else no strip is known to be empty
    height, rows_each = stored.size.height, page.rows_per_strip
    edges = np.flatnonzero(np.diff(empty)) + 1
    for first, end in itertools.pairwise([0, *edges.tolist(), empty.size]):
        top, bottom = first * rows_each, min(end * rows_each, height)
        if top >= bottom:
            return
        if empty[first]:
            yield top, np.zeros((bottom - top, stored.size.width, unpack.bands), unpack.dtype)
            continue
        part = dataclasses.replace(
            stored, size=stored.size._replace(height=bottom - top),
            opening=Opening(directory=page.offset, strips=(first, end)))
        for row, rows in _rows(part, _handle(file, part)):
            yield top + row, rows
