"""
Decode a picture without random access from top to bottom.

Rows are fetched in the calling thread from a sequential libvips image, so libvips caches
nothing, and decoding works in forked children, which have no thread pool.  A decoder holds
two arrays of about 1 MB (at least 8 rows), one decompressed strip or one run of empty
strips, and the memory of the libvips loader.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyvips

from ..base.errors import TileSourceError
from ..base.geometry import Rect, Size
from ..base.identity import Identity
from ..tiff import tile_table
from ..tiff.directories import TiffDirectories, TiffFormatError
from .decode_process import decode_in_process, has_thread_pool, needs_own_process
from .file import SourceFile
from .handles import Handle
from .known_formats import has_operation
from .layout import Opening, Stored
from .loader import Loader, why_not_decoded
from .unpack import Unpacker

# The number of the first row, and rows.  The array is overwritten by the next rows; from a
# libvips image, by the next but one.
Rows = tuple[int, npt.NDArray[Any]]

# The bound in bytes of one fetch of more than 8 rows.  The system allocates larger memory
# blocks anew each time; measured, that took longer than decoding.
_PIECE_BYTES = 120_000
# The approximate bytes of rows yielded at a time; they fit into the processor's cache.
_CHUNK_BYTES = 1 << 20
# Rows are yielded in multiples of this number, so that they can be reduced by 8.
_ROWS = 8
# The minimum size of a band of strips in bytes: opening a band takes some milliseconds.
_BAND_BYTES = 4 << 20


class Band(NamedTuple):
    """
    Rows that can be decoded on their own.

    :param top: the first row, a multiple of 8.
    :param bottom: the row after the last.
    :param strips: the first strip and the one after the last; None if the band is
        the whole picture.
    """

    top: int
    bottom: int
    strips: tuple[int, int] | None = None


def bands(stored: Stored) -> list[Band]:
    """
    Divide a picture into bands: groups of TIFF strips, or the whole picture.

    :param stored: a picture without random access.
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


def decode_error(stored: Stored, error: pyvips.Error) -> str:
    """The error text for a libvips error during decoding."""
    return why_not_decoded(stored.page.compression_name if stored.page else '', error)


def empty_tiles(file: SourceFile, stored: Stored) -> npt.NDArray[np.bool_] | None:
    """
    Find the tiles or strips of a TIFF page that are declared empty.

    :returns: one flag per tile in file order; None if no tile is empty.
    :raises TileSourceError: if the TIFF directory cannot be read.
    """
    if stored.page is None or (stored.page.planar == 2 and stored.page.samples > 1):
        return None
    with file.descriptor() as descriptor:
        try:
            return tile_table.empty_tiles(TiffDirectories(descriptor), stored.page)
        except TiffFormatError as exc:
            msg = f'Cannot read {file.path!r}: {exc}'
            raise TileSourceError(msg) from exc


def shape_of(file: SourceFile, stored: Stored) -> tuple[np.dtype[Any], int]:
    """The dtype and bands of the pixels of a picture."""
    tiles = file.tiles(stored)
    if tiles is not None:
        return tiles.samples.dtype, tiles.samples.bands
    unpack = unpacker_of(file, stored)
    return unpack.dtype, unpack.bands


def unpacker_of(file: SourceFile, stored: Stored) -> Unpacker:
    """The conversion of the samples of a picture."""
    return file.handle(stored).unpacker if stored.random else _handle(file, stored).unpacker


def decode(file: SourceFile, stored: Stored, band: Band | None = None) -> Iterator[Rows]:
    """
    Decode the image that contains a picture.

    :param band: one of ``bands(stored)``; None for all rows.
    :returns: yields the number of a first row and rows (rows, cols, bands), in
        multiples of 8 except for the last.  The array is reused.
    :raises TileSourceError: if the rows cannot be decoded.
    """
    if needs_own_process(file.loader.name):
        unpack, size = unpacker_of(file, stored), stored.opened_size
        return decode_in_process((file.path, file.identity, file.loader, stored),
                                 (size.width, unpack.bands), unpack.dtype, size.height)
    strips = band.strips if band else None
    tiles = file.tiles(stored)
    if tiles is not None and not tiles.is_tiled and not stored.opening.strips:
        return _in_multiples_of_8(tiles.strips(*(strips or (0, tiles.down))))
    empty = empty_tiles(file, stored)
    if empty is not None:
        first, end = strips or (0, empty.size)
        return _in_multiples_of_8(_with_blank_strips(file, stored, empty, first, end))
    if band is None or strips is None:
        # This iterator may pause for long; a reference to ``file`` would keep the file
        # open.
        return _rows(stored, _handle(file, stored))
    part = _strips(stored, *strips)
    return _rows(part, _handle(file, part), band.top)


class Decoder:
    """
    Decodes the rows of one picture.

    :param file: the file of the picture.
    :param stored: the picture.
    """

    def __init__(self, file: SourceFile, stored: Stored) -> None:
        self._file = file
        self._stored = stored

    def rows(self, band: Band) -> Iterator[Rows]:
        """Decode the rows of a band; see ``decode``."""
        return decode(self._file, self._stored, band)

    def write_all(self, descriptor: int) -> bool:
        """
        Have libvips write all rows to a descriptor.

        libvips decodes and writes in two threads, faster than by way of Python.

        :returns: False if libvips cannot, and nothing was written.
        :raises TileSourceError: if the picture cannot be decoded.
        """
        if not has_thread_pool() or self._stored.page is not None:
            return False
        handle = _handle(self._file, self._stored)
        if not handle.unpacker.is_plain or _size(handle.image) != self._stored.opened_size:
            return False
        try:
            if has_operation('rawsave_target'):
                target = pyvips.Target.new_to_descriptor(descriptor)
                handle.image.rawsave_target(target)
            else:
                # The name of the option up to libvips 8.15.
                handle.image.rawsave_fd(descriptor)
        except pyvips.Error as exc:
            raise TileSourceError(decode_error(self._stored, exc)) from exc
        return True


def decode_file(path: str, identity: Identity, loader: Loader, stored: Stored) -> Iterator[Rows]:
    """Do the same as ``decode`` in a process that has not opened the file yet."""
    return decode(SourceFile(path, identity, loader), stored)


def _handle(file: SourceFile, stored: Stored) -> Handle:
    """Open an image for reading once, from top to bottom."""
    image = file.open(stored.opening, sequential=True)
    wants = stored.opened_size
    if _size(image) != wants and any(name == 'scale' for name, _ in stored.opening.options):
        image = _rendering(file, stored, image)
    elif _size(image) != wants:
        msg = (f'its size is {image.width} x {image.height} pixels, but '
               f'{wants.width} x {wants.height} when the file was opened')
        raise TileSourceError(msg)
    return Handle(image)


def _rendering(file: SourceFile, stored: Stored, image: pyvips.Image) -> pyvips.Image:
    """
    Render a vector graphic at least as large as a picture, starting with ``image``.

    Loaders round sizes in different ways.  A rendering that is a pixel too small is
    enlarged by fractions of a pixel; of a rendering that is too large, the edge is not
    read.

    :raises TileSourceError: if the graphic has a different size.
    """
    wants, has = stored.opened_size, _size(image)
    if any(abs(side - wanted) > 2 for side, wanted in zip(has, wants, strict=True)):
        msg = (f'its size is {has.width} x {has.height} pixels, not '
               f'{wants.width} x {wants.height}')
        raise TileSourceError(msg)
    least = min([wanted for side, wanted in zip(has, wants, strict=True) if side < wanted],
                default=0)
    for quarters in (1, 2, 3, 4, 8):
        if _size(image).width >= wants.width and _size(image).height >= wants.height:
            break
        factor = 1 + quarters / 4 / least
        options = tuple((name, value * factor if name == 'scale' else value)
                        for name, value in stored.opening.options)
        image = file.open(dataclasses.replace(stored.opening, options=options), sequential=True)
    return image


def _size(image: pyvips.Image) -> Size:
    return Size(image.width, image.height)


def _rows(stored: Stored, handle: Handle, first: int = 0) -> Iterator[Rows]:
    """
    Decode all rows of an open image into two arrays in turn.

    :param first: the number of the first row.
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
                    raise TileSourceError(decode_error(stored, exc)) from exc
                buffer[top - start:top - start + rect.height, left:rect.right] = piece
        yield first + start, buffer[:end - start]
        # Another thread may have continued this generator.
        handle = handle.for_this_thread()


def _in_multiples_of_8(pieces: Iterator[Rows]) -> Iterator[Rows]:
    """Regroup rows into multiples of 8, except for the last."""
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
    """A range of strips as a picture."""
    page = stored.page
    assert page is not None  # else there are no strips
    rows = min(end * page.rows_per_strip, stored.size.height) - first * page.rows_per_strip
    return dataclasses.replace(
        stored, size=stored.size._replace(height=rows),
        opening=Opening(directory=page.offset, strips=(first, end)))


def _with_blank_strips(file: SourceFile, stored: Stored, empty: npt.NDArray[np.bool_],
                         begin: int, stop: int) -> Iterator[Rows]:
    """Decode strips; those that are declared empty are blank."""
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
