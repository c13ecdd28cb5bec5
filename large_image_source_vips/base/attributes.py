"""
Attributes of a source: refuse misspelt ones, and compute some from the pixel store.

Setting a misspelt, unsupported or read-only attribute is an error.  Otherwise
``sink.minwidth = 500`` would create an attribute without effect.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from .errors import TileSourceError

# Attributes of large_image's zarr sink for georeferenced images.
_NOT_SUPPORTED = frozenset(('gcps', 'projection'))
# Parameters of a source that large_image documents and keeps as attributes.
_PARAMETERS = frozenset((
    'edge', 'encoding', 'jpegQuality', 'jpegSubsampling', 'style', 'tiffCompression'))
# difflib's similarity above which a name counts as misspelt: one letter in four may be
# missing or extra.  `width` does not count as minWidth.
_SIMILARITY = 0.83


class SourceAttributeError(TileSourceError, AttributeError):
    """An attribute of a source cannot be set."""


class CheckedAttributes:
    """
    Refuses attributes that would have no effect.

    After a source is made, setting a new public attribute whose name is similar
    to a settable or unsupported one is an error; so is setting a read-only property.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """
        Set an attribute.

        :raises SourceAttributeError: if its name looks misspelt, or it can only
            be read.
        """
        # large_image sets _initValues last when it makes a source; until then
        # classes set their own attributes.
        if name[:1] != '_' and name not in vars(self) and '_initValues' in vars(self):
            _check(type(self), name)
        super().__setattr__(name, value)


def _check(cls: type, name: str) -> None:
    """
    Check the name of a new attribute.

    :raises SourceAttributeError: if it is misspelt, unsupported or read-only.
    """
    owner = next((base for base in cls.__mro__ if name in vars(base)), None)
    if owner is not None:
        found = vars(owner)[name]
        if not isinstance(found, property) or found.fset is not None:
            return
        if name not in _NOT_SUPPORTED:
            msg = f'{name!r} is read-only: it is derived from the image.'
            raise SourceAttributeError(msg)
    settable = _settable(cls)
    close = closest(name, settable | _NOT_SUPPORTED)
    if close is None or _is_declared(cls, name):
        return
    if close in settable:
        msg = f'A source has no attribute {name!r}; did you mean {close!r}?'
    else:
        meant = '.' if close == name else (
            f'; did you mean {close!r}, which is not supported either?')
        msg = (f'{name!r} is not supported by this source{meant}  Georeferenced images are '
               f"made by GDAL and rasterio, and read by large_image's sources 'gdal' and "
               f"'rasterio'.")
    raise SourceAttributeError(msg)


def _settable(cls: type) -> frozenset[str]:
    """The public attributes that have an effect when set."""
    return _PARAMETERS.union(
        name for base in cls.__mro__ for name, found in vars(base).items()
        if isinstance(found, property) and found.fset is not None and name[:1] != '_')


@lru_cache(maxsize=1024)
def closest(name: str, names: frozenset[str]) -> str | None:
    """
    The most similar of some names, if it is similar enough.

    Ignores case and underscores; also finds names with letters in another order.
    """
    plain = {_plain(other): other for other in sorted(names)}
    wanted = _plain(name)
    for found in difflib.get_close_matches(wanted, plain, n=1, cutoff=_SIMILARITY):
        return plain[found]
    if len(wanted) > 3:
        for found in plain:
            if sorted(found) == sorted(wanted):
                return plain[found]
    return None


def _plain(name: str) -> str:
    return name.replace('_', '').lower()


def _is_declared(cls: type, name: str) -> bool:
    """Whether a class annotates an attribute, as ``name: int``."""
    for base in cls.__mro__:
        # Python 3.14 evaluates annotations here; a name may be missing.
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


class Profiles:
    """
    The attribute with the ICC profiles of all frames, read at first use.

    The base class corrects colours if this attribute exists; there is none if no
    frame has a profile.
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
