"""
Files that appear whole or not at all.

A file is made in a folder of its own beside its target, which nobody else may look into,
and moved when it is ready.  Where only the target itself can be written (its folder
cannot, or the target is a mount point), it is filled in place once the file is ready; only
there can an interruption leave a part.
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

from ..base.errors import TileSourceError
from .in_place import fill_in_place
from .rights import give_rights, give_rights_below, reason, rights_of

# What a killed write leaves behind is a folder whose name starts like this.
PARTIAL_PREFIX = '.large_image_vips_partial_'

# Windows would hand the access list that Python makes of 0o700 down to the file.
_PARTIAL_MODE = 0o777 if os.name == 'nt' else 0o700

# What systems say where a folder cannot be written to but a file in it perhaps can, and
# where a file cannot be replaced: it is a mount point, or another's in a folder
# such as /tmp.  Windows says EACCES of a file that something has open.
_CLOSED_FOLDER = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NOT_REPLACEABLE = frozenset({errno.EBUSY, errno.EXDEV, errno.EPERM})
_DEEPZOOM = frozenset({'.dz', '.dzi'})


@dataclass(frozen=True)
class Target:
    """
    Where an image is to be written.

    :param folder: the folder, which exists.
    :param name: the name of the file in it; of formats of several files, that of the
        one that is opened.
    :param outputs: the names that the image will occupy there, this one first.
    """

    folder: Path
    name: str
    outputs: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The whole path."""
        return self.folder / self.name

    @property
    def shown(self) -> str:
        """The whole path as text that can be encoded, whatever bytes it has."""
        return os.fsencode(self.path).decode('utf-8', 'backslashreplace')

    @property
    def suffix(self) -> str:
        """The suffix in lower case, with its dot; '' if there is none."""
        return os.path.splitext(self.name)[1].lower()


def resolve_target(path: Any, overwrite: bool) -> Target:
    """
    Check where an image is to be written.

    :param path: a path; a leading ~ is expanded, nothing else is special.  A
        symbolic link stays, what it points to is replaced.
    :param overwrite: whether what is there may be replaced.
    :raises TileSourceError: if it cannot be written there.
    """
    try:
        text = os.fsdecode(os.path.expanduser(path))
    except (TypeError, ValueError) as exc:
        msg = f'A path to write to is needed, not {path!r}.'
        raise TileSourceError(msg) from exc
    if '\0' in text:
        msg = f'A path to write to is needed, not {path!r}: it has a NUL character.'
        raise TileSourceError(msg)
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
        msg = f'{whole} is a folder; the name of a file is needed.'
        raise TileSourceError(msg)
    if not folder.is_dir():
        msg = f'{whole} cannot be written: there is no folder {folder}.'
        raise TileSourceError(msg)
    outputs = (whole.name, f'{whole.stem}_files') if is_deepzoom else (whole.name,)
    for name in dict.fromkeys((*outputs, given)) if is_deepzoom else outputs:
        if not overwrite and os.path.lexists(folder / name):
            msg = f'{folder / name} exists, and overwriting is not allowed.'
            raise TileSourceError(msg)
    _check_writable(folder / whole.name)
    return Target(folder, whole.name, outputs)


def _check_writable(path: Path) -> None:
    """
    Refuse what a plain program could not open to write to, and what is no file.

    :raises TileSourceError: if that is so.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            msg = (f'{path} cannot be written: it is a pipe or a device, not a file.  Write a '
                   'file, and copy it there.')
            raise TileSourceError(msg)
        os.close(os.open(path, os.O_WRONLY | getattr(os, 'O_BINARY', 0)))
    except FileNotFoundError:
        return
    except OSError as exc:
        msg = (f'{path} cannot be written: {exc.strerror}.  Change who may write to it (on '
               'Windows, close what has it open), or write to another name.')
        raise TileSourceError(msg) from exc


@contextmanager
def atomic_output(target: Target, overwrite: bool) -> Iterator[str]:
    """
    A name to write an image to that moves to its target when all went well.

    :param target: where it is to go.
    :param overwrite: whether what is there by then may be replaced.
    :returns: a path in a new folder beside the target; elsewhere, if only the
        target itself can be written.  It is ASCII where the system allows it, and
        has the target's stem where that is plain.
    :raises TileSourceError: if the system does not let us.
    """
    partial = _partial_folder(target)
    stem, suffix = os.path.splitext(target.name)
    plain = stem if re.fullmatch(r'[A-Za-z0-9_-][A-Za-z0-9_. -]*', stem) else 'image'
    moves = _Moves(partial, target, overwrite)
    try:
        with _reachable(partial) as folder:
            yield f'{folder}/{plain}{suffix}'
        moves.carry_out(plain, stem)
    except OSError as exc:
        msg = f'{target.path} cannot be written: {reason(exc)}{_elsewhere(partial, target)}'
        raise TileSourceError(msg) from exc
    except TileSourceError as exc:
        hint = _elsewhere(partial, target)
        if not hint:
            raise
        msg = f'{exc}{hint}'
        raise TileSourceError(msg) from exc
    finally:
        if not moves.stranded:
            _remove_tree(partial)


def _partial_folder(target: Target) -> Path:
    """
    A new folder that only we may look into, beside the target if that can be.

    :raises TileSourceError: if there can be none.
    """
    partial = target.folder / f'{PARTIAL_PREFIX}{uuid.uuid4().hex[:12]}'
    try:
        partial.mkdir(_PARTIAL_MODE)
    except OSError as exc:
        if len(target.outputs) > 1 or exc.errno not in _CLOSED_FOLDER or not (
                target.path.is_file()):
            msg = (f'{target.path} cannot be written: no file can be made in {target.folder}: '
                   f'{reason(exc)}')
            raise TileSourceError(msg) from exc
    else:
        return partial
    try:
        return Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX.lstrip('.')))
    except OSError as exc:
        msg = (f'{target.path} cannot be written: neither in {target.folder} nor in '
               f'{tempfile.gettempdir()} can a file be made: {reason(exc)}')
        raise TileSourceError(msg) from exc


def _elsewhere(partial: Path, target: Target) -> str:
    """What to say of an error where a file is made in the temporary folder."""
    if partial.parent == target.folder:
        return ''
    return (f'  (The file is first made in {partial.parent}, as no file can be made in '
            f'{target.folder}.  If there is no room for it, set TMPDIR to a folder that has.)')


@contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """
    A name for a folder that libvips can take: it wants UTF-8.

    :raises TileSourceError: if there is none.
    """
    try:
        os.fsencode(folder).decode('utf-8')
    except UnicodeDecodeError:
        if not os.path.isdir('/proc/self/fd'):
            msg = (f'{folder.parent} cannot be written to: its name is not text that libvips can '
                   'take.  Write to another folder, and move the file.')
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
    Everything that was written goes where it belongs, the named file last; or back.

    :param partial: the folder where it was written.
    :param target: where it goes.
    :param overwrite: whether what is there may be replaced.
    """

    def __init__(self, partial: Path, target: Target, overwrite: bool) -> None:
        self._partial = partial
        self._target = target
        self._overwrite = overwrite
        # What could not be put back, which then must not be removed.
        self.stranded: list[str] = []

    def carry_out(self, plain: str, stem: str) -> None:
        """
        Move all, each after what it replaces has given it its rights.

        :param plain: the stem of what was written.
        :param stem: what it has to be.
        :raises OSError: if the system does not let us; the old files are there then.
        :raises TileSourceError: likewise.
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
                msg = f'{final} exists, and overwriting is not allowed.'
                raise TileSourceError(msg)
        # Links stay, and what they point to is replaced.
        moves = [(new, Path(os.path.realpath(final)) if final.is_symlink() else final)
                 for new, final in moves]
        for written, replaced in moves:
            _take_rights(written, replaced)
        if len(moves) == 1 and not moves[0][1].is_dir():
            self._replace_file(*moves[0])
        else:
            self._replace_several(moves)

    def _replace_file(self, new: Path, final: Path) -> None:
        """Put one file in the place of another, in one step where that can be."""
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
        Put files and folders in the place of others.

        The last, if it is a file, goes there in one step.  The others do not; what they
        replace is set aside until all is done, and put back if it is not.
        """
        undo: list[tuple[Path, Path]] = []
        last, last_final = moves[-1]
        try:
            for new, final in moves:
                if os.path.lexists(final) and (new is not last or final.is_dir()):
                    aside = self._partial / f'{uuid.uuid4().hex}.old'
                    # Noted before it is done: an interruption may come right behind it.
                    undo.append((aside, final))
                    os.rename(final, aside)
                if new is not last:
                    undo.append((final, new))
                os.replace(new, final)
        except BaseException as exc:
            if os.path.lexists(last):
                self._put_back(undo)
            if isinstance(exc, OSError):
                raise _explained(exc, last_final if new is last else final) from exc
            raise

    def _put_back(self, undo: list[tuple[Path, Path]]) -> None:
        """
        Take moves back, the last one first.

        :raises TileSourceError: if one cannot be.
        """
        for source, back in reversed(undo):
            if os.path.lexists(source) and not os.path.lexists(back):
                try:
                    os.rename(source, back)
                except OSError as exc:
                    self.stranded.append(f'{source} to {back} ({exc.strerror})')
        if self.stranded:
            msg = (f'{self._target.path} cannot be written, and what was there cannot be put back. '
                   f'Move {", ".join(self.stranded)}.')
            raise TileSourceError(msg)


def _take_rights(new: Path, final: Path) -> None:
    """Let the same be done with what was written as with what it is to replace."""
    if new.is_dir() and final.is_dir():
        give_rights_below(new, final)
    elif (rights := rights_of(final)) is not None and new.is_dir() == final.is_dir():
        give_rights(new, rights)


def _explained(exc: OSError, path: Path) -> TileSourceError:
    """Why something at a path could not be replaced."""
    hint = ''
    if isinstance(exc, PermissionError):
        hint = ('  If a program has it open (perhaps this one, as a source), close that and '
                'write again; else change who may write there.')
    return TileSourceError(f'{path} cannot be replaced: {reason(exc)}{hint}')


def _remove_tree(folder: Path) -> None:
    """Remove a folder, also if what is in it is read-only; say so if that cannot be."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    for inside, folders, files in os.walk(folder):
        for name in ('', *folders, *files):
            with suppress(OSError):
                os.chmod(os.path.join(inside, name), 0o700)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        config.getLogger().warning('%s cannot be removed; delete it.', folder)
