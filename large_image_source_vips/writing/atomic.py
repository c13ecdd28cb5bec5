"""
Write files atomically: the target is the complete new file, or unchanged.

A file is written to a private temporary folder beside its target, and moved when it is
complete.  If the folder is not writable, or the target is a mount point, the complete file
is copied over the target; only then can an interruption leave a partial file.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from large_image import config

from ..base.errors import TileSourceError, shown
from .in_place import fill_in_place
from .permissions import permissions_of, reason, set_permissions, set_permissions_below

# The prefix of temporary folders; a killed process leaves one behind.
PARTIAL_PREFIX = '.large_image_vips_partial_'

# Windows: Python turns 0o700 into an access list, which files in the folder inherit.
_PARTIAL_MODE = 0o777 if os.name == 'nt' else 0o700

# Errors of a folder in which a file may still be writable, and errors of a file that may be
# writable but cannot be replaced: a mount point, or another user's file in a folder such as
# /tmp.  On Windows EACCES means that a program has the file open.
_CLOSED_FOLDER = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NOT_REPLACEABLE = frozenset({errno.EBUSY, errno.EXDEV, errno.EPERM})
_DEEPZOOM = frozenset({'.dz', '.dzi'})


@dataclass(frozen=True)
class Target:
    """
    The place of the file to write.

    :param folder: an existing folder.
    :param name: the name of the file; for formats with several files, of the one to open.
    :param outputs: the names of all files and folders of the image, ``name`` first.
    """

    folder: Path
    name: str
    outputs: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.folder / self.name

    @property
    def shown(self) -> str:
        """The path as printable text; undecodable bytes are escaped."""
        return os.fsencode(self.path).decode('utf-8', 'backslashreplace')

    @property
    def suffix(self) -> str:
        """The suffix in lower case, with the dot; '' if there is none."""
        return os.path.splitext(self.name)[1].lower()


def resolve_target(path: Any, overwrite: bool) -> Target:
    """
    Check that an image can be written to a path.

    :param path: a path; a leading ~ is expanded, nothing else is special.  If it is a
        symbolic link, the file that it points to is replaced.
    :param overwrite: whether existing files may be replaced.
    :raises TileSourceError: if the image cannot be written there.
    """
    try:
        text = os.fsdecode(os.path.expanduser(path))
    except (TypeError, ValueError) as exc:
        msg = f'The path to write to must be a str, bytes or path object, not {shown(path)}.'
        raise TileSourceError(msg) from exc
    if '\0' in text:
        msg = f'The path to write to must not have a NUL character: {path!r}.'
        raise TileSourceError(msg)
    try:
        os.lstat(text)
    except FileNotFoundError:
        pass  # A new file is what is usually written.
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc
        msg = f'{shown(text)} cannot be written: {why}.'
        raise TileSourceError(msg) from exc
    whole = Path(text)
    given = whole.name
    stem, suffix = os.path.splitext(given)
    is_deepzoom = suffix.lower() in _DEEPZOOM
    if is_deepzoom:
        whole = whole.with_name(f'{stem}.dzi')
    if whole.is_symlink():
        whole = Path(os.path.realpath(whole))
    folder = Path(os.path.abspath(whole.parent))
    if not whole.name or whole.is_dir():
        msg = f'{whole} is a folder; give the name of a file.'
        raise TileSourceError(msg)
    if not folder.is_dir():
        msg = f'{whole} cannot be written: the folder {folder} does not exist.'
        raise TileSourceError(msg)
    outputs = (whole.name, f'{whole.stem}_files') if is_deepzoom else (whole.name,)
    for name in dict.fromkeys((*outputs, given)) if is_deepzoom else outputs:
        if not overwrite and os.path.lexists(folder / name):
            msg = f'{folder / name} exists, and overwriteAllowed is False.'
            raise TileSourceError(msg)
    _check_writable(folder / whole.name)
    return Target(folder, whole.name, outputs)


def _check_writable(path: Path) -> None:
    """
    Check that an existing file is a regular file, and writable.

    :raises TileSourceError: if it is not.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            msg = (f'{path} cannot be written: it is a pipe or a device, not a file.  Write a '
                   'file and copy it there.')
            raise TileSourceError(msg)
        os.close(os.open(path, os.O_WRONLY | getattr(os, 'O_BINARY', 0)))
    except FileNotFoundError:
        return
    except OSError as exc:
        msg = (f'{path} cannot be written: {exc.strerror}.  Change its permissions (on Windows, '
               'close programs that have it open), or write to another name.')
        raise TileSourceError(msg) from exc


@contextmanager
def atomic_output(target: Target, overwrite: bool) -> Iterator[str]:
    """
    A context with a temporary path; at the end the file is moved to its target.

    After an exception nothing is moved.

    :param target: the place of the complete file.
    :param overwrite: whether files that exist at the end may be replaced.
    :returns: a path that libvips can use, in a new folder beside the target, or in the
        system's temporary folder if only the target is writable.  Its stem is that of the
        target if that is ASCII.
    :raises TileSourceError: if the file cannot be created or moved.
    """
    partial = _partial_folder(target)
    stem, suffix = os.path.splitext(target.name)
    plain = stem if re.fullmatch(r'[A-Za-z0-9_-][A-Za-z0-9_. -]*', stem) else 'image'
    moves = _Moves(partial, target, overwrite)
    try:
        with _utf8_path(partial) as folder:
            yield f'{folder}/{plain}{suffix}'
        moves.carry_out(plain, stem)
    except OSError as exc:
        msg = f'{target.path} cannot be written: {reason(exc)}{_folder_hint(partial, target)}'
        raise TileSourceError(msg) from exc
    except TileSourceError as exc:
        hint = _folder_hint(partial, target)
        if not hint:
            raise
        msg = f'{exc}{hint}'
        raise TileSourceError(msg) from exc
    finally:
        if not moves.stranded:
            _remove_tree(partial)


def _partial_folder(target: Target) -> Path:
    """
    Make a private temporary folder, beside the target if possible.

    :raises TileSourceError: if it cannot be created.
    """
    partial = target.folder / f'{PARTIAL_PREFIX}{uuid.uuid4().hex[:12]}'
    try:
        partial.mkdir(_PARTIAL_MODE)
    except OSError as exc:
        if len(target.outputs) > 1 or exc.errno not in _CLOSED_FOLDER or not (
                target.path.is_file()):
            msg = (f'{target.path} cannot be written: no file can be created in {target.folder}: '
                   f'{reason(exc)}')
            raise TileSourceError(msg) from exc
    else:
        return partial
    try:
        return Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX.lstrip('.')))
    except OSError as exc:
        msg = (f'{target.path} cannot be written: no file can be created in {target.folder} or '
               f'{tempfile.gettempdir()}: {reason(exc)}')
        raise TileSourceError(msg) from exc


def _folder_hint(partial: Path, target: Target) -> str:
    """A sentence for an error text if the temporary folder is not beside the target."""
    if partial.parent == target.folder:
        return ''
    return (f'  (The file is first written to {partial.parent}, because no file can be created in '
            f'{target.folder}.  If the disk is full, set TMPDIR to a folder with enough space.)')


@contextmanager
def _utf8_path(folder: Path) -> Iterator[str]:
    """
    A path of a folder in UTF-8, as libvips requires; if necessary through /proc.

    :raises TileSourceError: if there is none.
    """
    try:
        os.fsencode(folder).decode('utf-8')
    except UnicodeDecodeError:
        if not os.path.isdir('/proc/self/fd'):
            msg = (f'{folder.parent} cannot be written to: its name is not UTF-8, which libvips '
                   'needs.  Write to another folder and move the file.')
            raise TileSourceError(msg) from None
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            yield f'/proc/self/fd/{descriptor}'
        finally:
            os.close(descriptor)
    else:
        yield str(folder)


class _Moves:
    """
    Moves all written files to their places, the main file last; or none.

    :param partial: the folder with the written files.
    :param target: their final place.
    :param overwrite: whether existing files may be replaced.
    """

    def __init__(self, partial: Path, target: Target, overwrite: bool) -> None:
        self._partial = partial
        self._target = target
        self._overwrite = overwrite
        # Old files that could not be restored; their folder must not be removed.
        self.stranded: list[str] = []

    def carry_out(self, plain: str, stem: str) -> None:
        """
        Set the permissions of the replaced files, then move all files.

        :param plain: the stem of the written names.
        :param stem: the stem of the final names.
        :raises OSError: if a file cannot be moved; the old files are then restored.
        :raises TileSourceError: if a file cannot be moved; the text says if old files could
            not be restored.
        """
        named = self._target.name
        moves = [
            (self._partial / name, self._target.folder / (
                stem + name[len(plain):] if name.startswith(plain) else name))
            for name in os.listdir(self._partial)]
        moves.sort(key=lambda move: (move[1].name == named, move[0].is_file(), move[1].name))
        if not moves:
            msg = f'{self._target.path} cannot be written: libvips wrote nothing.'
            raise TileSourceError(msg)
        for _, final in moves:
            if not self._overwrite and os.path.lexists(final):
                msg = f'{final} exists, and overwriteAllowed is False.'
                raise TileSourceError(msg)
        # Replace the files that links point to, not the links.
        moves = [(new, Path(os.path.realpath(final)) if final.is_symlink() else final)
                 for new, final in moves]
        for written, replaced in moves:
            _copy_permissions(written, replaced)
        if len(moves) == 1 and not moves[0][1].is_dir():
            self._replace_file(*moves[0])
        else:
            self._replace_several(moves)

    def _replace_file(self, new: Path, final: Path) -> None:
        """Replace one file, in one step if possible."""
        if self._partial.parent == self._target.folder:
            try:
                os.replace(new, final)
            except OSError as exc:
                if exc.errno not in _NOT_REPLACEABLE or not final.is_file():
                    raise _explained(exc, final) from exc
            else:
                return
        fill_in_place(new, final)

    def _replace_several(self, moves: list[tuple[Path, Path]]) -> None:
        """
        Replace several files and folders.

        If the last one is a file, it is replaced in one step.  Files that the others
        replace are moved away, and restored after an error.
        """
        undo: list[tuple[Path, Path]] = []
        last, last_final = moves[-1]
        try:
            for new, final in moves:
                if os.path.lexists(final) and (new is not last or final.is_dir()):
                    aside = self._partial / f'{uuid.uuid4().hex}.old'
                    # Recorded before the rename, because an interruption may follow it.
                    undo.append((aside, final))
                    os.rename(final, aside)
                if new is not last:
                    undo.append((final, new))
                os.replace(new, final)
        except BaseException as exc:
            if os.path.lexists(last):
                self._restore(undo)
            if isinstance(exc, OSError):
                raise _explained(exc, last_final if new is last else final) from exc
            raise

    def _restore(self, undo: list[tuple[Path, Path]]) -> None:
        """
        Undo moves, the last one first.

        :raises TileSourceError: if one cannot be undone.
        """
        for source, back in reversed(undo):
            if os.path.lexists(source) and not os.path.lexists(back):
                try:
                    os.rename(source, back)
                except OSError as exc:
                    self.stranded.append(f'{source} to {back} ({exc.strerror})')
        if self.stranded:
            msg = (f'{self._target.path} cannot be written, and the old files cannot be restored. '
                   f'Move {", ".join(self.stranded)}.')
            raise TileSourceError(msg)


def _copy_permissions(new: Path, final: Path) -> None:
    """Set the permissions of a written file or folder to those of the one that it replaces."""
    if new.is_dir() and final.is_dir():
        set_permissions_below(new, final)
    elif (rights := permissions_of(final)) is not None and new.is_dir() == final.is_dir():
        set_permissions(new, rights)


def _explained(exc: OSError, path: Path) -> TileSourceError:
    """The error for a path that could not be replaced."""
    hint = ''
    if isinstance(exc, PermissionError):
        hint = ('  If a program has it open (perhaps this one, as a source), close it and write '
                'again; else change the permissions of the folder.')
    return TileSourceError(f'{path} cannot be replaced: {reason(exc)}{hint}')


def _remove_tree(folder: Path) -> None:
    """Remove a folder, even if files in it are read-only; log if that fails."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    for inside, folders, files in os.walk(folder):
        for name in ('', *folders, *files):
            with suppress(OSError):
                os.chmod(os.path.join(inside, name), 0o700)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        config.getLogger().warning('The temporary folder %s cannot be removed; delete it.', folder)
