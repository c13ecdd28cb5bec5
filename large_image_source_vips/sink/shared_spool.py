"""
A folder with the logs of many processes that add tiles to one image.

Each process appends to its own log, so processes never wait for each other; the image has
the tiles of all logs.  If a process is killed, only the last record of its log may be
incomplete.

::

    folder/
      spool.json                   version, blend policy, accumulator; made once
      <name>.property              pixel size and so on, as JSON; replaced as a whole
      <host>-<process>-<id>.part   logs, see ``records``

A process locks its log as long as it runs.  If a log is not locked, its process has ended,
and an incomplete last record is cut off.  If the file system has no locks, incomplete
records are ignored instead.  Other processes must see appended bytes: on NFS that takes a
few seconds.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import uuid
import warnings
from contextlib import suppress
from typing import Any

from ..base import durable, files
from ..base.errors import TileSourceError, shown
from . import records
from .records import Entry
from .tile_log import Part, TileLog

VERSION = 1
_WHAT = 'shared spool of large-image-source-vips'
_MARKER, _SUFFIX, _PROPERTY = 'spool.json', '.part', '.property'


class SharedSpool(TileLog):
    """
    The logs in a folder.

    :param folder: the folder, created if there is none.
    :param blend: the blend policy; None for that of an existing folder, or 'over'.
    :param accumulator: the dtype of sums and means; None for that of an existing folder, or
        the default.
    :raises TileSourceError: if the folder cannot be used, has another policy or a newer
        version, or is not a spool.
    """

    def __init__(self, folder: str, blend: str | None, accumulator: str | None) -> None:
        super().__init__()
        self.folder = folder
        self._names: set[str] = set()
        # The latest properties of all processes, and the identity of the file of each.
        self.properties: dict[str, Any] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        found = self._marker() or self._created(blend or 'over', accumulator)
        self.blend, self.accumulator = found
        for name, given, has in (('blend', blend, self.blend),
                                 ('accumulator', accumulator, self.accumulator)):
            if given is not None and given != has:
                msg = (f'The image in {folder} has {name}={has!r}, not {shown(given)}; leave '
                       f'{name} out, or use another folder.')
                raise TileSourceError(msg)
        self._find_parts()
        for number in range(len(self._parts)):
            self._cut_if_dead(number)

    def _marker(self) -> tuple[str, str | None] | None:
        """The policy and accumulator of an existing folder; None if it is new or empty."""
        path = os.path.join(self.folder, _MARKER)
        try:
            with open(path, 'rb') as file:
                fields = json.loads(file.read(1 << 16))
            if fields['what'] != _WHAT:
                raise KeyError
            version = int(fields['version'])
        except FileNotFoundError:
            self._refuse_foreign()
            return None
        except NotADirectoryError:
            msg = f'The spool must be a folder, but {self.folder} is a file.'
            raise TileSourceError(msg) from None
        except OSError as exc:
            msg = f'The spool {path} cannot be read: {exc.strerror}.'
            raise TileSourceError(msg) from exc
        except (ValueError, KeyError, TypeError) as exc:
            msg = (f'{path} is damaged or belongs to another program; use another folder, or '
                   f'restore the file.')
            raise TileSourceError(msg) from exc
        if version > VERSION:
            msg = (f'The spool {self.folder} has the version {version}, this package reads up to '
                   f'{VERSION}; use a newer version of large-image-source-vips.')
            raise TileSourceError(msg)
        return str(fields['blend']), fields['accumulator']

    def _refuse_foreign(self) -> None:
        """
        Refuse a folder that has files but no marker.

        :raises TileSourceError: if there are any, or the folder cannot be read.
        """
        try:
            names = [name for name in os.listdir(self.folder) if not name.endswith('.tmp')]
        except FileNotFoundError:
            return
        except OSError as exc:
            raise self._failed(exc, 'read') from exc
        if any(name.endswith(_SUFFIX) for name in names) and _MARKER not in names:
            msg = (f'The spool {self.folder} has lost its {_MARKER}; put it back, or use another '
                   f'folder.')
            raise TileSourceError(msg)
        if names and _MARKER not in names:
            msg = (f'The folder {self.folder} is not a spool: it has other files, such as '
                   f'{sorted(names)[0]}.  Use a new or empty folder.')
            raise TileSourceError(msg)

    def _created(self, blend: str, accumulator: str | None) -> tuple[str, str | None]:
        """Create the folder and its marker, unless another process does so at the same time."""
        text = json.dumps({'what': _WHAT, 'version': VERSION, 'blend': blend,
                           'accumulator': accumulator}, indent=1)
        try:
            os.makedirs(self.folder, exist_ok=True)
            durable.create_file(os.path.join(self.folder, _MARKER), text.encode())
        except FileExistsError:
            msg = f'The spool must be a folder, but {self.folder} is a file.'
            raise TileSourceError(msg) from None
        except OSError as exc:
            raise self._failed(exc, 'created') from exc
        found = self._marker()
        if found is None:
            msg = f'The spool {self.folder} was removed while it was being created.'
            raise TileSourceError(msg)
        return found

    # Adding

    def _create(self) -> None:
        """Create and lock the log of this process, then give it its name."""
        host = re.sub(r'[^A-Za-z0-9]+', '', socket.gethostname())[:32] or 'host'
        name = f'{host}-{files.process_id()}-{uuid.uuid4().hex[:12]}{_SUFFIX}'
        path = os.path.join(self.folder, name)
        # Windows cannot rename an open file.
        unlocked = path if os.name == 'nt' else path + '.tmp'
        try:
            own = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(
                os, 'O_BINARY', 0), 0o666)
        except OSError as exc:
            raise self._failed(exc, 'written to') from exc
        try:
            files.write_at(own, records.log_header(), 0)
            durable.try_lock(own)
            os.replace(unlocked, path)
        except OSError as exc:
            os.close(own)
            with suppress(OSError):
                os.unlink(unlocked)
            raise self._failed(exc, 'written to') from exc
        self._own, self._own_end = own, records.LOG_BYTES
        self._owned.append(own)

    def _where(self) -> str:
        return f'The spool {self.folder}'

    def _failed(self, exc: OSError, what: str) -> TileSourceError:
        remedy = {
            errno.ENOSPC: 'Free some space; what was added before is safe.',
            errno.EDQUOT: 'Free some space; what was added before is safe.',
            errno.EROFS: 'It can be read and written to a file, but no tiles can be added.',
            errno.EACCES: 'Check its permissions.',
        }.get(exc.errno or 0, '')
        return TileSourceError(
            f'{self._where()} cannot be {what}: {exc.strerror or exc}.  {remedy}'.rstrip())

    def flush(self) -> None:
        """
        Write the tiles of this process to disk.

        :raises TileSourceError: if that fails, or if the file system does not support it.
        """
        with self._writing:
            if self._own is None:
                return
            try:
                durable.sync(self._own)
                durable.sync_folder(self.folder)
            except OSError as exc:
                raise self._failed(exc, 'flushed') from exc
            record = records.sync_record()
            self._append([record], len(record))

    # Reading

    def _find_parts(self) -> None:
        try:
            names = {name for name in os.listdir(self.folder) if name.endswith(_SUFFIX)}
        except OSError as exc:
            raise self._failed(exc, 'read') from exc
        for name in sorted(names - self._names):
            self._parts.append(Part(os.path.join(self.folder, name)))
        self._names |= names

    def _new_of(self, number: int) -> list[Entry]:
        part = self._parts[number]
        if part.seen == 0:
            # A new log.
            head = self._read(self._descriptor(number), number, records.LOG_BYTES, 0)
            try:
                records.check_log_header(head, part.path)
            except records.TornRecord:
                return []
        return super()._new_of(number)

    def _cut_if_dead(self, number: int) -> None:
        """
        Cut a torn record off a log whose process has ended.

        Samples after the last flush are checked, because they may be missing after a power
        failure.
        """
        part = self._parts[number]
        try:
            descriptor = os.open(part.path, os.O_RDWR | getattr(os, 'O_BINARY', 0))
        except OSError:
            # Read-only, or removed in the meantime; incomplete records are ignored.
            return
        try:
            if durable.try_lock(descriptor):
                self._cut(descriptor, number)
        finally:
            os.close(descriptor)

    def _cut(self, descriptor: int, number: int) -> None:
        """Cut everything after the last complete record of a locked log."""
        part, size = self._parts[number], os.fstat(descriptor).st_size
        end = records.LOG_BYTES
        unchecked: list[tuple[int, Entry]] = []
        try:
            while end < size:
                entry, following = self._record_at(descriptor, number, end, size)
                if entry is None:
                    unchecked.clear()
                else:
                    unchecked.append((end, entry))
                end = following
        except records.TornRecord:
            # The last complete record ends here.
            pass
        for start, entry in unchecked:
            data = self._read(descriptor, number, entry.nbytes, entry.offset)
            if not records.is_intact(entry, data):
                end = start
                break
        if end < size:
            try:
                os.ftruncate(descriptor, end)
            except OSError as exc:
                raise self._failed(exc, 'repaired') from exc
            warnings.warn(
                f'{part.path}: the last tile was not complete, because the process that added it '
                f'ended; its {size - end} bytes were removed.', stacklevel=7)
        if unchecked or end < size:
            record = records.sync_record()
            with suppress(OSError):
                durable.sync(descriptor)
                files.write_at(descriptor, record, end)

    # Properties

    def refresh_properties(self) -> bool:
        """
        Read properties set by other processes; returns whether any has changed.

        :raises TileSourceError: if a file cannot be read.
        """
        changed = False
        try:
            for file in os.scandir(self.folder):
                if not file.name.endswith(_PROPERTY):
                    continue
                # The identity of the open file: Windows updates the entry in the folder late.
                found = os.stat(file.path)
                stamp = found.st_mtime_ns, found.st_ino
                if self._stamps.get(file.name) != stamp:
                    with open(file.path, 'rb') as data:
                        self.properties[file.name.removesuffix(_PROPERTY)] = json.loads(
                            data.read())
                    self._stamps[file.name] = stamp
                    changed = True
        except OSError as exc:
            raise self._failed(exc, 'read') from exc
        except ValueError as exc:
            msg = f'{file.path} is damaged: {exc}'
            raise TileSourceError(msg) from exc
        return changed

    def set_property(self, name: str, value: Any) -> None:
        """
        Set a property for all processes.

        :raises TileSourceError: if it cannot be written.
        """
        path = os.path.join(self.folder, name + _PROPERTY)
        try:
            durable.replace_file(path, json.dumps(value).encode())
        except OSError as exc:
            raise self._failed(exc, 'written to') from exc

    def close(self, delete: bool = False) -> None:
        """Close all files, and remove the folder if ``delete`` is true."""
        with self._lock, self._writing:
            self._close_files()
            self._names.clear()
            if delete:
                self.remove()

    def remove(self) -> None:
        """Remove the files of the spool, the marker last, and the folder if it is empty."""
        try:
            for name in os.listdir(self.folder):
                if name.endswith((_SUFFIX, _PROPERTY, '.tmp')):
                    os.unlink(os.path.join(self.folder, name))
            os.unlink(os.path.join(self.folder, _MARKER))
            os.rmdir(self.folder)
        except FileNotFoundError:
            # Another process removed it.
            return
        except OSError as exc:
            raise self._failed(exc, 'removed') from exc
