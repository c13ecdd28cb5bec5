"""
Decode pictures without random access on demand, from the top down to the last row needed.

All threads share the decoded rows.  Each row is decoded once, unless decoding fails further
down.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.threads import in_parallel, submitted
from .level_cache import CachedLevel
from .rows import Band, Decoder, Rows

Array = npt.NDArray[Any]


class _Part:
    """The state of one band."""

    def __init__(self, band: Band) -> None:
        self.band = band
        # The row after the last decoded one.
        self.done = band.top
        self.lock = threading.Lock()
        # The paused decoder, if there is one.
        self.pieces: Iterator[Rows] | None = None


class LazyLevel:
    """
    A cached level whose bands are decoded when their rows are first read.

    If the picture is one band, the decoder stops at the last row needed and continues
    later.

    :param level: receives the pixels.
    :param parts: the bands that make up the picture; each is decoded on its own.
    :param stops: whether the decoder of a single band may stop and continue later.
    """

    def __init__(self, level: CachedLevel, parts: Sequence[Band], *, stops: bool) -> None:
        self._level = level
        self._parts = [_Part(band) for band in parts]
        self._tops = np.array([band.top for band in parts])
        self._stops = stops and len(parts) == 1
        self._unfinished = len(parts)
        self._count_lock = threading.Lock()
        self.complete = False

    @property
    def nbytes(self) -> int:
        """The bytes of all pixels, decoded or not."""
        return self._level.nbytes

    @property
    def on_disk(self) -> bool:
        """Whether the pixels are in a temporary file."""
        return self._level.on_disk

    def rows(self, top: int, bottom: int, decoder: Decoder) -> Array:
        """
        Return some rows; decode those that are missing.

        :param top: the first row.
        :param bottom: the row after the last.
        :param decoder: decodes rows.  It is not kept, because it would keep the file open
            after the last source is closed.
        :returns: a read-only view (bottom - top, cols, bands).
        :raises TileSourceError: if the rows cannot be decoded, or the disk is full.
        """
        if not self.complete:
            self._fill(top, bottom, decoder)
        return self._level.pixels[top:bottom]

    def _fill(self, top: int, bottom: int, decoder: Decoder) -> None:
        """Decode missing bands in parallel."""
        first = int(np.searchsorted(self._tops, top, side='right')) - 1
        end = int(np.searchsorted(self._tops, bottom, side='left'))
        missing = [part for part in self._parts[first:end]
                   if part.done < min(bottom, part.band.bottom)]
        in_parallel(lambda part: self._decode(part, bottom, decoder), missing)

    def _decode(self, part: _Part, bottom: int, decoder: Decoder) -> None:
        """Decode a band at least down to a row."""
        wanted = min(bottom, part.band.bottom)
        bottom = wanted if self._stops else part.band.bottom
        with part.lock:
            if part.done >= bottom:
                return
            if not self._write_whole(part, bottom, decoder):
                try:
                    self._decode_rows(part, bottom, decoder)
                except TileSourceError:
                    # The damage may be below the rows needed.
                    if part.done < wanted:
                        raise
            if part.done < part.band.bottom:
                return
        with self._count_lock:
            self._unfinished -= 1
            if not self._unfinished:
                self._level.finish()
                self.complete = True

    def _write_whole(self, part: _Part, bottom: int, decoder: Decoder) -> bool:
        """Let libvips write the whole picture, if nothing is decoded yet and all is needed."""
        if (part.done > part.band.top or bottom < part.band.bottom or len(self._parts) > 1 or
                not self._level.fill_file(decoder.write_all)):
            return False
        part.done = bottom
        return True

    def _decode_rows(self, part: _Part, bottom: int, decoder: Decoder) -> None:
        """Decode rows with a new decoder, or the paused one."""
        pieces = part.pieces or decoder.rows(part.band)
        # An error ends the decoder, so the next read starts a new one.
        part.pieces = None
        self._store(part, pieces, bottom)
        if part.done < bottom:
            msg = f'its pixel data ends early, at row {part.done} of {self._level.shape[0]}'
            raise TileSourceError(msg)
        if part.done < part.band.bottom:
            part.pieces = pieces

    def _store(self, part: _Part, pieces: Iterator[Rows], bottom: int) -> None:
        """Copy decoded rows to the level, at least down to a row."""
        if not (self._stops and self._level.on_disk):
            for top, rows in pieces:
                self._level.put(top, rows)
                part.done = max(part.done, top + rows.shape[0])
                if part.done >= bottom:
                    return
            return
        # Writing the file takes much of the time of decoding, so a thread writes.
        with ThreadPoolExecutor(1) as writer:
            reached, written = part.done, None
            for top, rows in pieces:
                if written is not None:
                    written.result()
                    part.done = reached
                if top + rows.shape[0] > reached:
                    reached = top + rows.shape[0]
                    written = submitted(writer, self._level.put, top, rows)
                if reached >= bottom:
                    break
            if written is not None:
                written.result()
                part.done = reached
