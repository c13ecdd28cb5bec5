"""
Store tiles in append-only files (logs).

``TileLog`` is the log of one process in a temporary file; ``shared_spool`` extends it to
the logs of many processes in a folder.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base import durable, files
from ..base.errors import TileSourceError
from ..base.geometry import Rect
from ..base.limits import LIMITS
from . import records
from .records import Entry, Kind, Samples


class Part:
    """
    One log.

    :param path: of the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # The end of the last known record.
        self.end = records.LOG_BYTES
        # The size of the file when it had no further record.
        self.seen = 0

    @property
    def name(self) -> str:
        """The name of the file."""
        return os.path.basename(self.path)


def _close_descriptors(by_part: OrderedDict[int, int], owned: list[int]) -> None:
    """Close the files of a log that nobody uses any longer."""
    found = [*by_part.values(), *owned]
    by_part.clear()
    owned.clear()
    for descriptor in found:
        os.close(descriptor)


class TileLog:
    """
    The tiles of one or several logs; methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._lock = threading.RLock()
        # Open files to read, by number of the part.
        self._open: OrderedDict[int, int] = OrderedDict()
        # The descriptor of the log of this process, unless it is a scratch file.
        self._owned: list[int] = []
        weakref.finalize(self, _close_descriptors, self._open, self._owned).atexit = False
        # Samples of the tiles read last.
        self._recent: OrderedDict[Entry, bytes] = OrderedDict()
        self._recent_bytes = 0
        # The log of this process, its end, and a lock for both.
        self._own: int | None = None
        self._own_end = 0
        self._writing = threading.Lock()
        self._scratch: files.ScratchFile | None = None

    # Adding

    def add(self, kind: Kind, rect: Rect, details: bytes, buffers: list[Any]) -> None:
        """
        Append a tile.

        :param kind: the format of the samples.
        :param rect: the place of the tile in caller coordinates.
        :param details: JSON, or nothing.
        :param buffers: the samples, C-contiguous and little-endian.
        :raises TileSourceError: if it cannot be written; nothing is added then.
        """
        nbytes = 0
        for buffer in buffers:
            nbytes += buffer.nbytes
        head = records.tile_head(kind, rect, details, buffers, nbytes)
        with self._writing:
            if self._own is None:
                self._create()
            self._append([head, *buffers], len(head) + nbytes)

    def _append(self, buffers: list[Any], nbytes: int) -> None:
        """Append bytes to the log of this process, all or none."""
        own = self._own
        assert own is not None
        try:
            durable.append_at(own, buffers, self._own_end)
        except OSError as exc:
            self._cut_failed_record(own)
            raise self._failed(exc, 'written') from exc
        self._own_end += nbytes

    def _cut_failed_record(self, own: int) -> None:
        """Cut off a record that was written in part."""
        try:
            os.ftruncate(own, self._own_end)
        except OSError:
            # The next record overwrites it.
            return

    def _create(self) -> None:
        """Create the log of this process."""
        try:
            self._scratch = files.scratch_file('large_image_vips_tiles_', '.log')
            self._own = self._scratch.descriptor
            files.write_at(self._own, records.log_header(), 0)
        except OSError as exc:
            raise self._failed(exc, 'created') from exc
        self._own_end = records.LOG_BYTES
        self._parts.append(Part(self._scratch.path))

    def _where(self) -> str:
        """The place of the logs, for errors."""
        import tempfile

        return f'The temporary file of the tiles in {tempfile.gettempdir()}'

    def _failed(self, exc: OSError, what: str) -> TileSourceError:
        return TileSourceError(
            f'{self._where()} cannot be {what}: {exc.strerror or exc}.  Set TMPDIR to a writable '
            f'folder with more free space before creating the image.')

    def flush(self) -> None:
        """
        Write the tiles to disk.

        :raises TileSourceError: if writing fails.
        """

    # Reading

    def _find_parts(self) -> None:
        """Find the logs of other processes."""

    def new_entries(self) -> list[Entry]:
        """
        The tiles that were added since the last call, by this process or another.

        :raises TileSourceError: if a log cannot be read.
        """
        with self._lock:
            self._find_parts()
            found: list[Entry] = []
            for number in range(len(self._parts)):
                found += self._new_of(number)
            return found

    def _new_of(self, number: int) -> list[Entry]:
        """The new tiles of one log."""
        part = self._parts[number]
        size = self._size_of(number)
        if size == part.seen:
            return []
        found = []
        descriptor = self._descriptor(number)
        while part.end < size:
            try:
                entry, part.end = self._record_at(descriptor, number, part.end, size)
            except records.TornRecord:
                break
            if entry is not None:
                found.append(entry)
        part.seen = size
        return found

    def _size_of(self, number: int) -> int:
        if number == 0 and self._scratch is not None:
            return self._own_end
        try:
            return os.stat(self._parts[number].path).st_size
        except OSError as exc:
            msg = (f'The log {self._parts[number].path} of a shared spool cannot be read: '
                   f'{exc.strerror}.  Its tiles are lost unless the file is restored.')
            raise TileSourceError(msg) from exc

    def _record_at(self, descriptor: int, number: int, start: int,
                   size: int) -> tuple[Entry | None, int]:
        """
        The record at a position, and the start of the next one.

        :raises TornRecord: if it is not complete.
        :raises TileSourceError: if the file cannot be read.
        """
        head = self._read(descriptor, number, min(512, size - start), start)
        length = records.record_bytes(head)
        if start + length > size:
            raise records.TornRecord
        if length > len(head):
            head = self._read(descriptor, number, length, start)
        entry = records.parse(head[:length], number, start)
        end = start + length + (entry.nbytes if entry is not None else 0)
        if end > size:
            raise records.TornRecord
        return entry, end

    def _read(self, descriptor: int, number: int, nbytes: int, offset: int) -> bytes:
        try:
            return files.read_at(descriptor, nbytes, offset)
        except OSError as exc:
            raise self._unreadable(number, exc) from exc

    def _unreadable(self, number: int, exc: OSError) -> TileSourceError:
        return TileSourceError(f'{self._parts[number].path} cannot be read: {exc.strerror}.')

    def _descriptor(self, number: int) -> int:
        """An open descriptor of a log; at most ``LIMITS.sink_open_logs`` are kept."""
        if number == 0 and self._scratch is not None:
            return self._scratch.descriptor
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        while len(self._open) >= LIMITS.sink_open_logs:
            os.close(self._open.popitem(last=False)[1])
        path = self._parts[number].path
        try:
            self._open[number] = os.open(path, files.READ_FLAGS)
        except OSError as exc:
            msg = f'The log {path} cannot be opened: {exc.strerror}.'
            raise TileSourceError(msg) from exc
        return self._open[number]

    def read(self, entry: Entry) -> Samples:
        """
        The samples of a tile.

        :raises TileSourceError: if they cannot be read or are damaged.
        """
        return records.samples_of(entry, self.read_bytes(entry))

    def read_bytes(self, entry: Entry) -> bytes:
        """
        The bytes of the samples of a tile; those of recent tiles come from memory.

        :raises TileSourceError: if they cannot be read or are damaged.
        """
        with self._lock:
            data = self._recent.get(entry)
            if data is not None:
                self._recent.move_to_end(entry)
                return data
            data = self._read(self._descriptor(entry.part), entry.part, entry.nbytes, entry.offset)
            self._check_intact(entry, data)
            self._recent[entry] = data
            self._recent_bytes += len(data)
            while self._recent_bytes > LIMITS.sink_recent_tiles and len(self._recent) > 1:
                self._recent_bytes -= len(self._recent.popitem(last=False)[1])
            return data

    def read_color(self, entry: Entry, out: npt.NDArray[Any]) -> None:
        """
        Read the samples of a tile that has only colour, past the cache of recent tiles.

        :param out: a C-contiguous array to fill, of the same dtype.
        :raises TileSourceError: if they cannot be read or are damaged.
        """
        # With the lock held, because another thread may close the descriptor.
        with self._lock:
            try:
                count = files.read_into(self._descriptor(entry.part), out, entry.offset)
            except OSError as exc:
                raise self._unreadable(entry.part, exc) from exc
        self._check_intact(entry, out.reshape(-1).view(np.uint8).data[:count])

    def _check_intact(self, entry: Entry, data: bytes | memoryview) -> None:
        """
        Check samples.

        :raises TileSourceError: if they are damaged.
        """
        if not records.is_intact(entry, data):
            msg = (f'{self._parts[entry.part].path}: the samples of {entry.text()} are '
                   f'damaged (byte {entry.offset}).')
            raise TileSourceError(msg)

    def part_name(self, entry: Entry) -> str:
        """The name of the log that has a tile."""
        return self._parts[entry.part].name

    def remove(self) -> None:
        """Remove the files of a shared spool; those that are open can still be read."""

    def close_inherited(self) -> None:
        """Close the descriptors in a forked process, which cannot use the log."""
        _close_descriptors(self._open, self._owned)

    def close(self, delete: bool = False) -> None:
        """
        Close all files.

        :param delete: whether to remove them; a temporary file is removed in any case.
        """
        del delete
        with self._lock, self._writing:
            self._close_files()

    def _close_files(self) -> None:
        """Close all files and drop cached samples; call with both locks held."""
        _close_descriptors(self._open, self._owned)
        self._recent.clear()
        self._recent_bytes = 0
        self._parts.clear()
        if self._scratch is not None:
            self._scratch.close()
        self._own = self._scratch = None
