"""
Find the offsets and byte counts of the tiles or strips of a TIFF page.

Missing byte counts, and counts of 0 with an offset, are estimated, as in libtiff.  A tile
may extend beyond the end of the file; reading it then raises the error.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .directories import TiffDirectories
from .page import OLD_JPEG, OLD_JPEG_STREAM, UNCOMPRESSED, Entry, Page

Table = npt.NDArray[np.int64]

_LARGEST = int(np.iinfo(np.int64).max)
# A page with more tiles is not searched for missing ones when the file is opened.
_MOST_CHECKED = 1024


def tile_table(tiff: TiffDirectories, page: Page) -> tuple[Table, Table] | None:
    """
    The offsets and byte counts of the tiles (or strips) of a page, in file order.

    :returns: two arrays of the same length; None if the page lacks a list of offsets.
    """
    offset_entry, count_entry = page.table
    offsets = _integers(tiff, offset_entry)
    if offsets is None:
        return None
    counts = np.zeros(offsets.size, np.int64)
    listed = _integers(tiff, count_entry)
    if listed is not None:
        common = min(offsets.size, listed.size)
        counts[:common] = listed[:common]
    unknown = (counts == 0) & (offsets != 0)
    if page.compression == UNCOMPRESSED and offsets.size == 1 and page.bits:
        # Some programs write the byte count of one sample, or of one row.
        unknown |= counts < _raw_bytes(page, np.zeros(1, np.int64))
    if unknown.any():
        counts[unknown] = _estimated(tiff, page, offsets, np.flatnonzero(unknown))
    return offsets + page.shift, counts


def empty_tiles(tiff: TiffDirectories, page: Page) -> npt.NDArray[np.bool_] | None:
    """
    Find the tiles (or strips) that a page declares empty: offset 0, byte count 0.

    :returns: one flag per tile in file order; None if no tile is empty.
    """
    table = tile_table(tiff, page)
    if table is None:
        return None
    empty = (table[0] == 0) & (table[1] == 0)
    return empty if empty.any() else None


def data_missing(tiff: TiffDirectories, page: Page) -> str | None:
    """
    The reason if tiles (or strips) of a page are not in the file.

    :returns: None if all are, or if the page has too many to look.
    """
    if page.tile_count > _MOST_CHECKED:
        return None
    table = tile_table(tiff, page)
    if table is None:
        return 'it does not list its tiles or strips'
    offsets, counts = table
    start, length = (tiff.integers(page.entries.get(tag), limit=1) for tag in OLD_JPEG_STREAM)
    if page.compression == OLD_JPEG and start and length and (
            start[0] <= offsets[0] < start[0] + length[0] <= tiff.file_size):
        # The whole stream is there; some writers give wrong strips then.
        return None
    missing = np.count_nonzero((offsets > tiff.file_size) | (counts > tiff.file_size - offsets))
    what = 'tiles' if page.tile else 'strips'
    return f'{missing} of its {offsets.size} {what} are not in the file' if missing else None


def _integers(tiff: TiffDirectories, entry: Entry | None) -> Table | None:
    """The values of an entry; None if it does not hold integers."""
    values = tiff.array(entry)
    if values is None or values.ndim != 1 or values.dtype.kind not in 'iu':
        return None
    if values.dtype.kind == 'u' and values.itemsize == 8:
        # Larger numbers lie beyond the end of any file.
        values = np.minimum(values, np.uint64(_LARGEST))
    return values.astype(np.int64)


def _estimated(tiff: TiffDirectories, page: Page, offsets: Table, numbers: Table) -> Table:
    """Estimate the byte counts of tiles from their geometry, or from the next offset."""
    starts = offsets[numbers]
    to_the_end = np.maximum(tiff.file_size - starts, 0)
    if page.compression == UNCOMPRESSED and page.bits:
        return np.minimum(_raw_bytes(page, numbers), to_the_end)
    ordered = np.unique(offsets)
    following = np.append(ordered, _LARGEST)[np.searchsorted(ordered, starts, side='right')]
    return np.minimum(following - starts, to_the_end)


def _raw_bytes(page: Page, numbers: Table) -> Table:
    """The bytes of uncompressed tiles or strips; the last strip of a plane has fewer rows."""
    bits = sum(page.bits_each) if page.bits_each else page.bits * page.samples
    if page.planes > 1:
        bits = page.bits
    # What is larger overflows, and lies beyond the end of any file.
    row_bytes = min(-(-page.piece.width * bits // 8), _LARGEST // max(1, page.piece.height))
    rows = np.full(numbers.shape, page.piece.height, np.int64)
    if page.tile is None:
        each = max(1, page.piece.height)
        down = -(-page.size.height // each)
        rows[numbers % down == down - 1] = page.size.height - (down - 1) * each
    return rows * row_bytes
