"""
Copy the permissions of a file to the file that replaces it.

These are copied:

=====================================  ====================================================
permission bits                        except set-user and set-group bits of a file, which
                                       writing to it also clears
owner, group                           if the process is allowed to set them
POSIX ACL (Linux)                      likewise
``user.`` extended attributes (Linux)  likewise
=====================================  ====================================================

If the group or an access list cannot be copied, the group of the new file gets no more
permissions than other users, because the old ones were for another group.
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
class Permissions:
    """
    The permissions of a file or folder.

    :param mode: the permission bits; for folders also the set-group and sticky bits.
    :param owner: user and group ID.
    :param attributes: the extended attributes to copy: access lists and ``user.`` ones.
    """

    mode: int
    owner: tuple[int, int]
    attributes: Mapping[str, bytes]


def permissions_of(path: str | os.PathLike[str]) -> Permissions | None:
    """
    Read the permissions of a file or folder.

    :param path: its path; symbolic links are followed.
    :returns: the permissions, or None if there is no such file.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    kept = 0o3777 if stat.S_ISDIR(status.st_mode) else 0o777
    return Permissions(status.st_mode & kept, (status.st_uid, status.st_gid), _attributes(path))


def _attributes(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """The extended attributes to copy; empty if the system has none."""
    found: dict[str, bytes] = {}
    if _HAS_ATTRIBUTES:
        # Some file systems have no attributes, and not all users can read all attributes.
        with suppress(OSError):
            for name in os.listxattr(path):
                if name in _ACCESS_LISTS or name.startswith(_USER):
                    with suppress(OSError):
                        found[name] = os.getxattr(path, name)
    return found


def set_permissions(path: str | os.PathLike[str], rights: Permissions) -> None:
    """
    Set the permissions of a file or folder.

    Call it before other users can open the file, because before it returns more may be
    allowed.

    :param path: of the file or folder.
    :param rights: the permissions to set.
    :raises OSError: if the file would have more permissions than these.
    """
    group_kept = _set_owner(path, rights.owner)
    lists_kept = _set_attributes(path, rights.attributes)
    mode = rights.mode
    if not (group_kept and lists_kept):
        mode &= ~0o070 | (mode & 0o007) << 3
    if _mode(path) == mode:
        return
    try:
        os.chmod(path, mode)
    except OSError as exc:
        if _mode(path) & ~mode & 0o777:
            text = f'it cannot be given the mode {mode:o} of the old file ({exc.strerror})'
            raise OSError(exc.errno, text) from exc


def _mode(path: str | os.PathLike[str]) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _set_owner(path: str | os.PathLike[str], owner: tuple[int, int]) -> bool:
    """Set owner and group; return whether the group is set."""
    status = os.stat(path)
    if (status.st_uid, status.st_gid) == owner or not hasattr(os, 'chown'):
        return True
    try:
        os.chown(path, *owner)
    except OSError:
        # Only administrators may change the owner; members of a group may set it.
        try:
            os.chown(path, -1, owner[1])
        except OSError:
            return os.stat(path).st_gid == owner[1]
    return True


def _set_attributes(path: str | os.PathLike[str], wanted: Mapping[str, bytes]) -> bool:
    """Set the extended attributes; return whether the access lists are set."""
    has = _attributes(path)
    # Remove access lists inherited from the folder, then set the wanted ones.
    refused = {name for name in has.keys() - wanted.keys() if not _succeeds(
        lambda name: os.removexattr(path, name), name)}
    refused |= {name for name, value in wanted.items() if has.get(name) != value and not _succeeds(
        lambda name, value: os.setxattr(path, name, value), name, value)}
    return not refused & _ACCESS_LISTS


def _succeeds(change: Callable[..., None], *arguments: Any) -> bool:
    """Make a change; return whether the system allowed it."""
    try:
        change(*arguments)
    except OSError:
        return False
    return True


def set_permissions_below(new: str | os.PathLike[str], old: str | os.PathLike[str]) -> None:
    """
    Copy the permissions of a folder and its contents to another folder.

    All files below the new folder get the permissions of the first file below the old one,
    and all folders those of the first folder.

    :param new: the folder to change.
    :param old: the folder to copy from.
    :raises OSError: as ``set_permissions``.
    """
    rights = permissions_of(old)
    models = _models(old)
    for folder, folders, files in os.walk(new):
        for names, model in ((folders, models[0]), (files, models[1])):
            if model is not None:
                for name in names:
                    set_permissions(os.path.join(folder, name), model)
    if rights is not None:
        set_permissions(new, rights)


def _models(old: str | os.PathLike[str]) -> tuple[Permissions | None, Permissions | None]:
    """The permissions of the first folder and the first file below a folder."""
    folder_rights: Permissions | None = None
    for folder, folders, files in os.walk(old):
        folders.sort()
        if folders and folder_rights is None:
            folder_rights = permissions_of(os.path.join(folder, folders[0]))
        if files:
            return folder_rights, permissions_of(os.path.join(folder, min(files)))
    return folder_rights, None


def reason(exc: OSError) -> str:
    """The error text of the system, and what to do."""
    said = exc.strerror or str(exc)
    if exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return f'{said}.  Free disk space, or write to another disk.'
    return f'{said}.'
