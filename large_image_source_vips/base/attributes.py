"""
The attributes of a source: those that can be set, and those that only look so.

Python makes a new attribute of any name that is set.  ``sink.minwidth = 500``
would then change nothing, without a word.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from .errors import TileSourceError

# What other sinks of large_image let set and this one does not know.
_NOT_SUPPORTED = frozenset((
    'additionalMetadata', 'channelColors', 'channelNames', 'frameAxes', 'frameUnits',
    'frameValues', 'gcps', 'imageDescription', 'magnification', 'projection'))
# The attributes of every source that large_image documents, as parameters.
_PARAMETERS = frozenset((
    'edge', 'encoding', 'jpegQuality', 'jpegSubsampling', 'style', 'tiffCompression'))
# How alike two names must be, as difflib counts, to be taken for the same one: one letter
# of four too many or too few is enough.  `width` is not taken for minWidth.
_CLOSE = 0.83


class SourceAttributeError(TileSourceError, AttributeError):
    """An attribute of a source cannot be set."""


class CheckedAttributes:
    """
    Refuse to set what nobody would read.

    Once a source is made, a new public attribute whose name is close to that of
    one that can be set is an error; so is a property that can only be read.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """
        Set an attribute.

        :raises SourceAttributeError: if its name looks misspelt, or it can only
            be read.
        """
        # large_image sets _initValues when it has made a source; until then the
        # classes set up what is theirs.
        if name[:1] != '_' and name not in vars(self) and '_initValues' in vars(self):
            _check(type(self), name)
        super().__setattr__(name, value)


def _check(cls: type, name: str) -> None:
    """
    Whether instances may be given an attribute that they do not have yet.

    :raises SourceAttributeError: if not.
    """
    owner = next((base for base in cls.__mro__ if name in vars(base)), None)
    if owner is not None:
        found = vars(owner)[name]
        if not isinstance(found, property) or found.fset is not None:
            return
        if name not in _NOT_SUPPORTED:
            msg = f'{name!r} is read-only: it follows from the image and cannot be set.'
            raise SourceAttributeError(msg)
    settable = _settable(cls)
    close = _closest(name, settable | _NOT_SUPPORTED)
    if close is None or _is_declared(cls, name):
        return
    if close in settable:
        msg = f'A source has no attribute {name!r}; did you mean {close!r}?'
    else:
        meant = '.' if close == name else (
            f'; did you mean {close!r}, which is not supported either?')
        msg = (f'{name!r} is not supported by this source{meant}  What can be set: '
               f'{", ".join(sorted(settable))}.')
    raise SourceAttributeError(msg)


def _settable(cls: type) -> frozenset[str]:
    """The names that setting has an effect of."""
    return _PARAMETERS.union(
        name for base in cls.__mro__ for name, found in vars(base).items()
        if isinstance(found, property) and found.fset is not None and name[:1] != '_')


@lru_cache(maxsize=1024)
def _closest(name: str, names: frozenset[str]) -> str | None:
    """
    The one of some names that a name was perhaps meant to be.

    Case and underscores do not count; letters in another order do not either.
    """
    plain = {_plain(other): other for other in sorted(names)}
    wanted = _plain(name)
    for found in difflib.get_close_matches(wanted, plain, n=1, cutoff=_CLOSE):
        return plain[found]
    if len(wanted) > 3:
        for found in plain:
            if sorted(found) == sorted(wanted):
                return plain[found]
    return None


def _plain(name: str) -> str:
    return name.replace('_', '').lower()


def _is_declared(cls: type, name: str) -> bool:
    """Whether a class says that its instances have an attribute: ``name: int``."""
    for base in cls.__mro__:
        # Newer Pythons look up only now what the annotations name.
        with suppress(NameError):
            if name in getattr(base, '__annotations__', {}):
                return True
    return False


class StoreSize:
    """
    A read-only attribute of a source that is computed from its pixel store.

    It ignores the 0 that the base class assigns before there is a store.
    """

    def __init__(self, get: Callable[[Any], int]) -> None:
        self._get = get

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, source: Any, owner: Any = None) -> Any:
        if source is None:
            return self
        store = source.__dict__.get('_store')
        return 0 if store is None else self._get(store)

    def __set__(self, source: Any, value: int) -> None:
        if source.__dict__.get('_store') is not None:
            msg = f'{self._name!r} is read-only: it is derived from the image.'
            raise SourceAttributeError(msg)
