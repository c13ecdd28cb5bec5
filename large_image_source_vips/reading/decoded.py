"""
Pictures of formats that cannot be read at random, decoded as far as is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.threads import side_by_side, submitted
from .planes import Plane
from .rows import Band, Decoder, Rows

Array = npt.NDArray[Any]


class _Part:
    """
    A band, and how far it is decoded.

    :param band: which.
    """

    def __init__(self, band: Band) -> None:
        self.band = band
        # The row behind the last one that is there.
        self.done = band.top
        self.lock = threading.Lock()
        # The decoder, where it waits to go on.
        self.pieces: Iterator[Rows] | None = None


class Decoded:
    """
    A picture that is decoded band by band, when rows of it are first asked for.

    A picture of one band is decoded from its top down to the last row that was
    asked for; the decoder waits there.

    :param plane: to decode it into.
    :param parts: what can be decoded on its own; together the whole picture.
    :param stops: whether the decoder of a picture of one band may wait.
    """

    def __init__(self, plane: Plane, parts: Sequence[Band], *, stops: bool) -> None:
        self._plane = plane
        self._parts = [_Part(band) for band in parts]
        self._tops = np.array([band.top for band in parts])
        self._stops = stops and len(parts) == 1
        self._unfinished = len(parts)
        self._count_lock = threading.Lock()
        self.complete = False

    @property
    def nbytes(self) -> int:
        """What all pixels take in bytes, decoded or not."""
        return self._plane.nbytes

    @property
    def on_disk(self) -> bool:
        """Whether they are in a temporary file."""
        return self._plane.on_disk

    def rows(self, top: int, bottom: int, decoder: Decoder) -> Array:
        """
        Some rows.

        :param top: the first row.
        :param bottom: the row behind the last.
        :param decoder: gives the rows.  It is not kept: with it the file would
            be held, which is let go of when its last reader is.
        :returns: a read-only view (bottom - top, cols, bands).
        :raises TileSourceError: if they cannot be decoded, or there is no room.
        """
        if not self.complete:
            self._fill(top, bottom, decoder)
        return self._plane.pixels[top:bottom]

    def _fill(self, top: int, bottom: int, decoder: Decoder) -> None:
        """Decode what is lacking, bands side by side."""
        first = int(np.searchsorted(self._tops, top, side='right')) - 1
        end = int(np.searchsorted(self._tops, bottom, side='left'))
        lacking = [part for part in self._parts[first:end]
                   if part.done < min(bottom, part.band.bottom)]
        side_by_side(lambda part: self._go_on(part, bottom, decoder), lacking)

    def _go_on(self, part: _Part, bottom: int, decoder: Decoder) -> None:
        """Decode a band down to a row at least."""
        bottom = min(bottom, part.band.bottom) if self._stops else part.band.bottom
        with part.lock:
            if part.done >= bottom:
                return
            if not self._is_poured(part, bottom, decoder):
                self._take_rows(part, bottom, decoder)
            if part.done < part.band.bottom:
                return
        with self._count_lock:
            self._unfinished -= 1
            if not self._unfinished:
                self._plane.finish()
                self.complete = True

    def _is_poured(self, part: _Part, bottom: int, decoder: Decoder) -> bool:
        """Have the whole picture written at once, if that is what is lacking."""
        if (part.done > part.band.top or bottom < part.band.bottom or len(self._parts) > 1 or
                not self._plane.pour(decoder.pour)):
            return False
        part.done = bottom
        return True

    def _take_rows(self, part: _Part, bottom: int, decoder: Decoder) -> None:
        """Take rows from the decoder down to one at least."""
        pieces = part.pieces or decoder.rows(part.band)
        # An error ends the decoder; the next who asks starts anew.
        part.pieces = None
        self._keep(part, pieces, bottom)
        if part.done < bottom:
            msg = f'it ends before row {part.done}'
            raise TileSourceError(msg)
        if part.done < part.band.bottom:
            part.pieces = pieces

    def _keep(self, part: _Part, pieces: Iterator[Rows], bottom: int) -> None:
        """Put what comes out of a decoder into the plane, down to a row at least."""
        if not (self._stops and self._plane.on_disk):
            for top, rows in pieces:
                self._plane.put(top, rows)
                part.done = max(part.done, top + rows.shape[0])
                if part.done >= bottom:
                    return
            return
        # Writing a file takes a good part of the time of decoding: beside it.
        with ThreadPoolExecutor(1) as writer:
            reached, written = part.done, None
            for top, rows in pieces:
                if written is not None:
                    written.result()
                    part.done = reached
                if top + rows.shape[0] > reached:
                    reached = top + rows.shape[0]
                    written = submitted(writer, self._plane.put, top, rows)
                if reached >= bottom:
                    break
            if written is not None:
                written.result()
                part.done = reached
