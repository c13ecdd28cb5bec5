"""
Files that appear whole or not at all.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from large_image.exceptions import TileSourceError

# What a killed write leaves behind is a folder whose name starts like this.
PARTIAL_PREFIX = '.large_image_vips_partial_'


@dataclass(frozen=True)
class Target:
    """
    Where an image is to be written.

    :param folder: the folder, which exists.
    :param name: the name of the file in it.
    :param outputs: the names that the image will occupy there; more than one
        for formats of several files.
    """

    folder: Path
    name: str
    outputs: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The whole path."""
        return self.folder / self.name

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
        whole = Path(os.fsdecode(os.path.expanduser(path)))
    except (TypeError, ValueError) as exc:
        msg = f'A path to write to is needed, not {path!r}.'
        raise TileSourceError(msg) from exc
    if whole.is_symlink():
        whole = Path(os.path.realpath(whole))
    folder = Path(os.path.abspath(whole.parent))
    if not whole.name or whole.is_dir():
        msg = f'{whole} is a folder; the name of a file is needed.'
        raise TileSourceError(msg)
    if not folder.is_dir():
        msg = f'{whole} cannot be written: there is no folder {folder}.'
        raise TileSourceError(msg)
    stem, suffix = os.path.splitext(whole.name)
    outputs: tuple[str, ...] = (whole.name,)
    if suffix.lower() in {'.dz', '.dzi'}:
        outputs = (f'{stem}.dzi', f'{stem}_files')
    if not overwrite:
        for name in dict.fromkeys((*outputs, whole.name)):
            if os.path.lexists(folder / name):
                msg = f'{folder / name} exists, and overwriting is not allowed.'
                raise TileSourceError(msg)
    return Target(folder, whole.name, outputs)


@contextmanager
def atomic_output(target: Target, overwrite: bool) -> Iterator[str]:
    """
    A name to write an image to that moves to its target when all went well.

    :param target: where it is to go.
    :param overwrite: whether what is there by then may be replaced.
    :returns: a path in a new folder beside the target.  It is ASCII where the
        system allows it, and has the target's stem where that is plain.
    :raises TileSourceError: if the folder does not let us.
    """
    partial = target.folder / f'{PARTIAL_PREFIX}{uuid.uuid4().hex[:12]}'
    stem, suffix = os.path.splitext(target.name)
    plain = stem if re.fullmatch(r'[A-Za-z0-9_-][A-Za-z0-9_. -]*', stem) else 'image'
    try:
        partial.mkdir()
    except OSError as exc:
        msg = f'{target.path} cannot be written: {exc.strerror}.'
        raise TileSourceError(msg) from exc
    try:
        with _reachable(partial) as folder:
            yield f'{folder}/{plain}{suffix}'
        _move_all(partial, plain, stem, target, overwrite)
    except OSError as exc:
        msg = f'{target.path} cannot be written: {exc.strerror or exc}.'
        raise TileSourceError(msg) from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """A name for a folder that libvips can take: it wants UTF-8."""
    try:
        os.fsencode(folder).decode('utf-8')
    except UnicodeDecodeError:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            yield f'/proc/self/fd/{descriptor}'
        finally:
            os.close(descriptor)
    else:
        yield str(folder)


def _move_all(partial: Path, plain: str, stem: str, target: Target, overwrite: bool) -> None:
    """Move everything that was written to where it belongs, the named file last."""
    names = sorted(os.listdir(partial), key=lambda name: (name == target.name, name))
    if not names:
        msg = f'{target.path} cannot be written: libvips wrote nothing.'
        raise TileSourceError(msg)
    for name in names:
        final = target.folder / (stem + name[len(plain):] if name.startswith(plain) else name)
        if not overwrite and os.path.lexists(final):
            msg = f'{final} exists, and overwriting is not allowed.'
            raise TileSourceError(msg)
        if final.is_dir() and not final.is_symlink():
            # A folder cannot be replaced in one step; the old one goes when
            # the new one is ready.
            os.rename(final, partial / f'{uuid.uuid4().hex}.old')
        os.replace(partial / name, final)
