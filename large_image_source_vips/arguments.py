"""
Check the arguments of the methods that edit and write an image.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from large_image.exceptions import TileSourceError
from large_image.tilesource.resample import ResampleMethod, downsampleTileHalfRes

from .base.errors import shown
from .base.geometry import Rect
from .sink.axes import as_position

if TYPE_CHECKING:
    from .writing.choices import Resampler


def as_crop(value: Any) -> Rect:
    """
    Check a crop (x, y, width, height).

    :raises TileSourceError: if it is not valid.
    """
    try:
        x, y, width, height = value
    except (TypeError, ValueError) as exc:
        msg = f'crop must be None or (x, y, width, height), not {shown(value)}.'
        raise TileSourceError(msg) from exc
    rect = Rect(*(as_position(part, 'Each part of crop') for part in (x, y, width, height)))
    if rect.left < 0 or rect.top < 0 or rect.empty:
        msg = (f'crop must have x and y of at least 0 and a positive width and height, '
               f'not {shown(value)}.')
        raise TileSourceError(msg)
    return rect


# Methods whose result has only pixels that occur in the image.
_PICKING = frozenset({'PIL_NEAREST', 'NP_MODE', 'NP_MAX_COLOR', 'NP_MIN_COLOR'})


def as_resampler(value: Any) -> str | Resampler | None:
    """
    Convert the argument ``resample``.

    :param value: None, a ``ResampleMethod``, or the name of one, with or without its
        prefix; 'nearest' is that of numpy.
    :returns: 'mean' or 'nearest' for the methods of this package, else a ``Resampler``.
    :raises TileSourceError: for any other value.
    """
    if value is None:
        return None
    # The writer is imported on demand.
    from .writing.choices import Resampler

    methods = {name: method for name, method in ResampleMethod.__members__.items()
               if not name.endswith('_ENUM')}
    if isinstance(value, ResampleMethod):
        name = str(value.name)
    else:
        name = str(value).upper()
        for prefix in ('', 'NP_', 'PIL_'):
            if prefix + name in methods:
                name = prefix + name
                break
    if name not in methods:
        # Two methods have the same name without prefix.
        known = ', '.join(dict.fromkeys(name.split('_', 1)[1].lower() for name in methods))
        msg = (f'resample must be a ResampleMethod of large_image or one of {known}; '
               f'not {shown(value)}.')
        raise TileSourceError(msg)
    if name in {'NP_MEAN', 'NP_NEAREST'}:
        return 'mean' if name == 'NP_MEAN' else 'nearest'

    def halve(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # Pillow has no 3-D arrays with one band.
        flat = pixels.shape[2] == 1 and name.startswith('PIL_')
        result: npt.NDArray[Any] = downsampleTileHalfRes(
            np.ascontiguousarray(pixels[:, :, 0] if flat else pixels), methods[name])
        return result.reshape(*result.shape[:2], pixels.shape[2])

    short = name.split('_', 1)[1]
    # That of Pillow picks other pixels than 'nearest'.
    usual = name if name == 'PIL_NEAREST' else short.lower()
    return Resampler(usual, halve, name in _PICKING)


def as_frames(value: Any) -> list[int]:
    """
    Check the number of a frame, or a list of them.

    :returns: ascending frame numbers without duplicates.
    :raises TileSourceError: if it is something else.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    several = not isinstance(value, (str, bytes)) and isinstance(value, Iterable)
    found = sorted({as_position(each, 'frame') for each in (value if several else (value,))})
    if not found:
        msg = 'frame must be the number of a frame or a list of them; the list is empty.'
        raise TileSourceError(msg)
    return found


def as_keys(value: Any) -> frozenset[str]:
    """
    Check the keys of associated images: one or several.

    :raises TileSourceError: if it is something else.
    """
    keys = [value] if isinstance(value, str) else list(value) if isinstance(
        value, (list, tuple, set, frozenset, dict)) else [None]
    if not all(isinstance(key, str) for key in keys):
        msg = f'associatedImages must be None or a list of keys, not {shown(value)}.'
        raise TileSourceError(msg)
    return frozenset(keys)


def as_options(value: Any) -> dict[str, Any] | None:
    """
    Check the options of a saver.

    :raises TileSourceError: if they are not a dictionary by name.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        msg = f'vips_kwargs must be None or a dictionary of options, not {shown(value)}.'
        raise TileSourceError(msg)
    return dict(value)


def as_minimum(value: Any, name: str) -> int:
    """Check a minimum size; 0 for None."""
    if value is None:
        return 0
    result = as_position(value, name)
    if result <= 0:
        # The words of the released package and of the zarr sink, which programs may compare.
        msg = f'{name} must be positive or None'
        raise TileSourceError(msg)
    return result


def as_order(value: Any) -> float | None:
    """Check the order of a tile: None, or a finite number."""
    if value is None:
        return None
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, (float, np.floating)) and math.isfinite(value):
            return float(value)
    msg = f'order must be None or a number, not {shown(value)}.'
    raise TileSourceError(msg)
