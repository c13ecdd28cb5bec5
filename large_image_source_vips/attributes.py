"""
Attributes of a source that its pixel store knows, and errors for attributes that
are misspelt or cannot be set.

Python accepts ``sink.minwidth = 500`` without a word, and the image is written
without a minimum width.  Such an assignment is an error here, if the name looks
like that of an attribute that can be set.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from large_image.exceptions import TileSourceError

if TYPE_CHECKING:
    from .pixels import PixelStore

# How alike two names must be, as difflib counts; 1 is the same.
_ALIKE = 0.82


class SourceAttributeError(TileSourceError, AttributeError):
    """An attribute of a source cannot be set, or there is none of that name."""


class StoreSize:
    """
    An attribute of a source that is read off its pixel store.

    The base class assigns 0 before there is a store; that is ignored.
    """

    def __init__(self, get: Callable[[PixelStore], int]) -> None:
        self._get = get

    def __get__(self, source: Any, owner: Any = None) -> Any:
        if source is None:
            return self
        store = source.__dict__.get('_store')
        return 0 if store is None else self._get(store)

    def __set__(self, source: Any, value: int) -> None:
        if source.__dict__.get('_store') is not None:
            msg = 'The size of an image follows from its pixels and cannot be set.'
            raise SourceAttributeError(msg)


class Profiles:
    """
    The ICC profiles of the frames, read when first asked for.

    The base class corrects colours if it finds this attribute; there is none if
    no frame has a profile.
    """

    def __get__(self, source: Any, owner: Any = None) -> Any:
        if source is None:
            return self
        attributes = source.__dict__
        if '_known_profiles' not in attributes and '_store' in attributes:
            attributes['_known_profiles'] = source._store.icc_profiles()
        profiles = attributes.get('_known_profiles')
        if not profiles:
            msg = 'No frame has an ICC profile.'
            raise AttributeError(msg)
        return profiles


class CheckedAttributes:
    """
    Checks the names of public attributes that are set on a finished object.

    Names with a leading underscore, names that the object, its class or an
    annotation of its class has, and names unlike those that can be set pass.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """
        Set an attribute.

        :raises SourceAttributeError: if the attribute can only be read, or if
            there is none of that name, but one whose name is much alike.
        """
        if name[:1] != '_':
            _check(self, name)
        super().__setattr__(name, value)


def _check(source: Any, name: str) -> None:
    cls: Any = type(source)
    known = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    if isinstance(known, property) and known.fset is None:
        msg = (f'{name} of a {cls.__name__} can only be read; these can be set: '
               f'{", ".join(_settable(cls))}.')
        raise SourceAttributeError(msg)
    # large_image sets this behind __init__: until then, names are chosen by the
    # authors of classes.
    if known is not None or name in vars(source) or '_initValues' not in vars(source):
        return
    meant = _meant(cls, name)
    if meant:
        msg = (f'A {cls.__name__} has no attribute {name!r}; did you mean {meant!r}?  '
               f'These can be set: {", ".join(_settable(cls))}.')
        raise SourceAttributeError(msg)


@lru_cache(maxsize=256)
def _settable(cls: Any) -> tuple[str, ...]:
    """The names of the public properties of a class that have a setter."""
    found: dict[str, bool] = {}
    for base in cls.__mro__:
        for name, value in vars(base).items():
            if isinstance(value, property) and name[:1] != '_':
                # The first class in the order counts.
                found.setdefault(name, value.fset is not None)
    return tuple(sorted(name for name, is_settable in found.items() if is_settable))


@lru_cache(maxsize=1024)
def _meant(cls: Any, name: str) -> str | None:
    """The settable attribute of a class whose name is much like another, if any."""
    if any(name in vars(base).get('__annotations__', ()) for base in cls.__mro__):
        return None
    plain = {_plain(settable): settable for settable in _settable(cls)}
    close = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=_ALIKE)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    """A name without what is most easily confused: capitals and underscores."""
    return name.lower().replace('_', '')
