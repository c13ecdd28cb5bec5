"""
Pictures that are decoded whole, from top to bottom.

The rows are fetched in the calling thread through a sequential image: nothing
of it stays in libvips, and it works in a forked child, where libvips' pool of
threads does not.  Where that is there, it may write all rows to a file instead.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyvips

from ..base.errors import TileSourceError
from ..base.geometry import Rect, Size
from ..base.identity import Identity
from ..codecs.lossless import suits
from ..tiff.directories import TiffDirectories, TiffFormatError
from ..tiff.stored_tiles import Damaged
from .decode_process import decode_elsewhere, has_threads, must_decode_elsewhere
from .file import SourceFile
from .handles import Handle
from .known_formats import has_operation
from .layout import Opening, Stored
from .loader import Loader, why_not_decoded
from .unpack import Unpacker

# The first row, and rows: valid until the next ones are asked for; those of an open
# image until the next but one.
Rows = tuple[int, npt.NDArray[Any]]

# The bytes that one fetch takes, at most, if it is of more than 8 rows: larger
# pieces of memory come fresh from the system each time, which takes longer than
# decoding what goes into them.
_PIECE_BYTES = 120_000
# The bytes of rows that are handed out together, about: they stay in the cache of
# a processor until they have been used.
_CHUNK_BYTES = 1 << 20
# Rows come in multiples of this many, for those who make them smaller.
_ROWS = 8
# The bytes of pixels in the strips that are decoded together, at least; it takes
# some milliseconds to open them.
_BAND_BYTES = 4 << 20


class Band(NamedTuple):
    """
    Rows that are decoded on their own.

    :param top: the first row, a multiple of 8.
    :param bottom: the row behind the last.
    :param strips: the first strip and the one behind the last; None where the
        rows are all there are.
    """

    top: int
    bottom: int
    strips: tuple[int, int] | None = None


def bands(stored: Stored) -> list[Band]:
    """
    The parts of an image that can be decoded one without the other.

    The strips of a TIFF page can, in groups; everything else is one part.

    :param stored: a picture that is not read at random.
    """
    page, height = stored.page, stored.opened_size.height
    if page is None or stored.opened is not None or stored.opening.attached \
            or stored.opening.strips or not page.has_whole_strips:
        return [Band(0, height)]
    rows = page.rows_per_strip
    row_bytes = max(1, stored.size.width * page.samples * page.bits // 8)
    unit = _ROWS // math.gcd(_ROWS, rows)
    each = unit * -(-_BAND_BYTES // (unit * rows * row_bytes))
    total = -(-height // rows)
    if each >= total:
        return [Band(0, height)]
    return [Band(first * rows, min((first + each) * rows, height),
                 (first, min(first + each, total))) for first in range(0, total, each)]


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


def unpacker_of(file: SourceFile, stored: Stored) -> Unpacker:
    """What becomes of the samples of a picture."""
    return file.handle(stored).unpacker if stored.random else _handle(file, stored).unpacker


def decode(file: SourceFile, stored: Stored, band: Band | None = None) -> Iterator[Rows]:
    """
    The pixels of the image that a picture is in.

    :param band: one of ``bands(stored)``; None for all rows.
    :returns: the first row and the rows, in multiples of 8 but for the last.
        An array is filled anew when the next one is asked for.
    :raises TileSourceError: if they cannot be decoded.
    """
    if must_decode_elsewhere(file.loader.name):
        unpack, size = unpacker_of(file, stored), stored.opened_size
        return decode_elsewhere((file.path, file.identity, file.loader, stored),
                                (size.width, unpack.bands), unpack.dtype, size.height)
    empty = empty_tiles(file, stored)
    strips = band.strips if band else None
    if empty is not None:
        first, end = strips or (0, empty.size)
        return _aligned(_around_empty_strips(file, stored, empty, first, end))
    page = stored.page
    if page is not None and suits(page) and page.has_whole_strips and not stored.opening.strips:
        first, end = strips or (0, -(-page.size.height // page.rows_per_strip))
        return _aligned(_deflated(file, stored, first, end))
    if band is None or strips is None:
        # Such an iterator may wait for long; it does not hold the file, which
        # could not be let go of then.
        return _rows(stored, _handle(file, stored))
    part = _strips(stored, *strips)
    return _rows(part, _handle(file, part), band.top)


class Decoder:
    """
    What gives the pixels of a picture to one who keeps them.

    :param file: where it is.
    :param stored: the picture.
    """

    def __init__(self, file: SourceFile, stored: Stored) -> None:
        self._file = file
        self._stored = stored

    def rows(self, band: Band) -> Iterator[Rows]:
        """The rows of a part; see ``decode``."""
        return decode(self._file, self._stored, band)

    def pour(self, descriptor: int) -> bool:
        """
        Have libvips write all rows to a descriptor.

        It decodes in one thread and writes in another, which takes less time
        than passing the rows through Python.

        :returns: False if it cannot; nothing has been written then.
        :raises TileSourceError: if the picture cannot be decoded.
        """
        if not has_threads() or self._stored.page is not None:
            return False
        handle = _handle(self._file, self._stored)
        if not handle.unpacker.is_plain:
            return False
        try:
            if has_operation('rawsave_target'):
                target = pyvips.Target.new_to_descriptor(descriptor)
                handle.image.rawsave_target(target)
            else:
                # The same until 8.15.
                handle.image.rawsave_fd(descriptor)
        except pyvips.Error as exc:
            raise TileSourceError(why(self._stored, exc)) from exc
        return True


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


def _rows(stored: Stored, handle: Handle, first: int = 0) -> Iterator[Rows]:
    """
    All pixels of an open image, in two arrays that are filled in turn.

    :param first: the number of its first row.
    """
    size, unpack = stored.opened_size, handle.unpacker
    row_bytes = max(1, size.width * unpack.raw_pixel_bytes)
    step = max(_ROWS, _PIECE_BYTES // row_bytes // _ROWS * _ROWS)
    columns = max(1, min(size.width, _PIECE_BYTES // (_ROWS * unpack.raw_pixel_bytes)))
    together = step * max(1, _CHUNK_BYTES // (step * row_bytes))
    shape = min(together, size.height), size.width, unpack.bands
    buffers = [np.empty(shape, unpack.dtype) for _ in range(min(2, -(-size.height // together)))]
    for start, buffer in zip(range(0, size.height, together), itertools.cycle(buffers),
                             strict=False):
        end = min(start + together, size.height)
        for top in range(start, end, step):
            for left in range(0, size.width, columns):
                rect = Rect(left, top, min(columns, size.width - left), min(step, end - top))
                try:
                    piece = handle.fetch(rect)
                except pyvips.Error as exc:
                    raise TileSourceError(why(stored, exc)) from exc
                buffer[top - start:top - start + rect.height, left:rect.right] = piece
        yield first + start, buffer[:end - start]
        # Whoever wants the next rows may be another thread.
        handle = handle.here()


def _deflated(file: SourceFile, stored: Stored, first: int, end: int) -> Iterator[Rows]:
    """The pixels of some deflated strips; from one that is damaged on, libvips decodes them."""
    page = stored.page
    assert page is not None  # else there are no strips
    row = first * page.rows_per_strip
    with suppress(Damaged):
        for top, rows in file.open_deflated(stored).strips(first, end):
            yield top, rows
            row = top + rows.shape[0]
    # A strip is inflated as a whole before its rows come.
    number = row // page.rows_per_strip
    if number < end and row < page.size.height:
        part = _strips(stored, number, end)
        yield from _rows(part, _handle(file, part), row)


def _aligned(pieces: Iterator[Rows]) -> Iterator[Rows]:
    """The same rows in multiples of 8 but for the last."""
    kept_top, kept = 0, None
    for top, rows in pieces:
        if kept is not None:
            top, rows = kept_top, np.concatenate([kept, rows])
        whole = rows.shape[0] // _ROWS * _ROWS
        if whole:
            yield top, rows[:whole]
        kept_top, kept = top + whole, rows[whole:].copy() if whole < rows.shape[0] else None
    if kept is not None:
        yield kept_top, kept


def _strips(stored: Stored, first: int, end: int) -> Stored:
    """Some strips of a picture as a picture of its own."""
    page = stored.page
    assert page is not None  # else there are no strips
    rows = min(end * page.rows_per_strip, stored.size.height) - first * page.rows_per_strip
    return dataclasses.replace(
        stored, size=stored.size._replace(height=rows),
        opening=Opening(directory=page.offset, strips=(first, end)))


def _around_empty_strips(file: SourceFile, stored: Stored, empty: npt.NDArray[np.bool_],
                         begin: int, stop: int) -> Iterator[Rows]:
    """The pixels of some strips, those that are declared empty blank."""
    page, unpack = stored.page, _handle(file, stored).unpacker
    assert page is not None  # else no strip is known to be empty
    height, rows_each = stored.size.height, page.rows_per_strip
    edges = begin + 1 + np.flatnonzero(np.diff(empty[begin:stop]))
    for first, end in itertools.pairwise([begin, *edges.tolist(), stop]):
        top, bottom = first * rows_each, min(end * rows_each, height)
        if top >= bottom:
            return
        if empty[first]:
            yield top, np.zeros((bottom - top, stored.size.width, unpack.bands), unpack.dtype)
            continue
        part = _strips(stored, first, end)
        yield from _rows(part, _handle(file, part), top)
