"""
Who may do what with a file: taken from one that is there, given to its successor.

What carries over:

=====================================  ====================================================
permission bits                        as they are; not the set-user and set-group bits of a
                                       file, which writing to it takes away, too
owner, group                           where the system lets the process give them
POSIX ACL (Linux)                      likewise
``user.`` extended attributes (Linux)  likewise
=====================================  ====================================================

Without the group, what was meant for it would be for another: then the group may do no
more than everybody.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_ACCESS_LISTS = frozenset({
    'system.posix_acl_access', 'system.posix_acl_default', 'system.nfs4_acl'})
_USER = 'user.'
_HAS_ATTRIBUTES = all(hasattr(os, name) for name in (
    'getxattr', 'listxattr', 'removexattr', 'setxattr'))


@dataclass(frozen=True)
class Rights:
    """
    Who may do what with a file or folder.

    :param mode: the permission bits; of folders also the set-group and sticky bits.
    :param owner: the numbers of the user and the group.
    :param attributes: extended attributes that carry over: access lists and those of
        the user.
    """

    mode: int
    owner: tuple[int, int]
    attributes: Mapping[str, bytes]


def rights_of(path: str | os.PathLike[str]) -> Rights | None:
    """
    Who may do what with what is at a path.

    :param path: of a file or folder; symbolic links are followed.
    :returns: None if nothing is there.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    kept = 0o3777 if stat.S_ISDIR(status.st_mode) else 0o777
    return Rights(status.st_mode & kept, (status.st_uid, status.st_gid), _attributes(path))


def _attributes(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """The extended attributes that carry over; none where the system has none."""
    found: dict[str, bytes] = {}
    if _HAS_ATTRIBUTES:
        # File systems without them say so; some attributes are for others to read.
        with suppress(OSError):
            for name in os.listxattr(path):
                if name in _ACCESS_LISTS or name.startswith(_USER):
                    with suppress(OSError):
                        found[name] = os.getxattr(path, name)
    return found


def give_rights(path: str | os.PathLike[str], rights: Rights) -> None:
    """
    Let the same be done with a file as with another.

    To be called before others can reach the file: until it returns, more may be allowed.

    :param path: of the file or folder.
    :param rights: of the other.
    :raises OSError: if more could be done with the file than with the other.
    """
    group_kept = _give_owner(path, rights.owner)
    lists_kept = _give_attributes(path, rights.attributes)
    mode = rights.mode
    if not (group_kept and lists_kept):
        mode &= ~0o070 | (mode & 0o007) << 3
    if _mode(path) == mode:
        return
    try:
        os.chmod(path, mode)
    except OSError as exc:
        if _mode(path) & ~mode & 0o777:
            text = f'it cannot be given the mode {mode:o} of what it replaces ({exc.strerror})'
            raise OSError(exc.errno, text) from exc


def _mode(path: str | os.PathLike[str]) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _give_owner(path: str | os.PathLike[str], owner: tuple[int, int]) -> bool:
    """Give a file an owner and a group; says whether it has that group."""
    status = os.stat(path)
    if (status.st_uid, status.st_gid) == owner or not hasattr(os, 'chown'):
        return True
    try:
        os.chown(path, *owner)
    except OSError:
        # Only an administrator may give a file away; the members of a group may
        # give theirs to the group.
        try:
            os.chown(path, -1, owner[1])
        except OSError:
            return os.stat(path).st_gid == owner[1]
    return True


def _give_attributes(path: str | os.PathLike[str], wanted: Mapping[str, bytes]) -> bool:
    """Give a file extended attributes; says whether it has those access lists."""
    has = _attributes(path)
    # The first are lists that the folder hands down.
    refused = {name for name in has.keys() - wanted.keys() if not _done(
        lambda name: os.removexattr(path, name), name)}
    refused |= {name for name, value in wanted.items() if has.get(name) != value and not _done(
        lambda name, value: os.setxattr(path, name, value), name, value)}
    return not refused & _ACCESS_LISTS


def _done(change: Callable[..., None], *arguments: Any) -> bool:
    """Whether the system lets a change be made."""
    try:
        change(*arguments)
    except OSError:
        return False
    return True


def give_rights_below(new: str | os.PathLike[str], old: str | os.PathLike[str]) -> None:
    """
    Let the same be done with all of a folder as with all of another.

    What is below the new folder gets the rights of the first file, and the first folder,
    below the old one.

    :param new: the one.
    :param old: the other.
    :raises OSError: as ``give_rights``.
    """
    rights = rights_of(old)
    models = _models(old)
    for folder, folders, files in os.walk(new):
        for names, model in ((folders, models[0]), (files, models[1])):
            if model is not None:
                for name in names:
                    give_rights(os.path.join(folder, name), model)
    if rights is not None:
        give_rights(new, rights)


def _models(old: str | os.PathLike[str]) -> tuple[Rights | None, Rights | None]:
    """The rights of the first folder and the first file below a folder."""
    folder_rights: Rights | None = None
    for folder, folders, files in os.walk(old):
        folders.sort()
        if folders and folder_rights is None:
            folder_rights = rights_of(os.path.join(folder, folders[0]))
        if files:
            return folder_rights, rights_of(os.path.join(folder, min(files)))
    return folder_rights, None


def reason(exc: OSError) -> str:
    """What the system said, and what would help."""
    said = exc.strerror or str(exc)
    if exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return f'{said}.  Make room, or write to another place.'
    return f'{said}.'
