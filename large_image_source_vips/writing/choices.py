"""
Check the arguments of ``write`` against what the image can have.

Every error lists the possible values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError, shown
from ..base.formats import Meaning, is_averaged
from ..base.limits import LIMITS
from ..codecs.encode import COMPRESSIONS, FLOATING_POINT, HORIZONTAL, NO_PREDICTOR

Array = npt.NDArray[Any]

# libvips' defaults: the quality of JPEG and WebP, 0 to 100, and that of JPEG 2000 in dB.
JPEG_QUALITY = 90
JPEG2000_QUALITY = 48

# Other names of compressions: those of large_image_converter.
_ALIASES = {'jp2k': 'jpeg2000', 'zip': 'deflate', 'uncompressed': 'none'}

_PREDICTORS = {'none': NO_PREDICTOR, 'horizontal': HORIZONTAL, 'float': FLOATING_POINT}

# From this quality on JPEG stores RGB; below, YCbCr with 4:2:0 subsampling, as in libvips.
_FULL_CHROMA = 90

# The names of chroma subsamplings, and TIFF's YCbCrSubSampling.
SUBSAMPLING = {'4:4:4': (1, 1), '4:2:2': (2, 1), '4:2:0': (2, 2)}


class Resampler(NamedTuple):
    """
    A way to halve pixels, other than means and picked pixels.

    :param name: for error texts.
    :param halve: halves an array (rows, cols, bands), sizes rounded up.
    :param keeps_values: whether the result has only values that occur in the array.
    """

    name: str
    halve: Callable[[Array], Array]
    keeps_values: bool


@dataclass(frozen=True)
class Choices:
    """
    The arguments of ``write``; None for those that the plan decides.

    :param lossy: whether lossy compression is allowed.
    :param alpha: whether alpha is allowed.
    :param compression: a key of ``codecs.encode.COMPRESSIONS``.
    :param quality: 1 to 100; of JPEG 2000 in dB.
    :param subsampling: for JPEG: '4:4:4', '4:2:2' or '4:2:0'.
    :param predictor: 'none', 'horizontal', 'float' or 'yes'.
    :param tile: width and height of a tile; None for that of tiles passed on, else 256.
    :param resample: 'mean', 'nearest' or a ``Resampler``.
    :param fill: the colour of transparent pixels, one number for each colour band.
    :param dtype: of the written samples.
    :param verify: whether to decode tiles that are passed on, to check them.
    :param vips_kwargs: options of libvips' saver, used instead of all of these.
    """

    lossy: bool = True
    alpha: bool = True
    compression: str | None = None
    quality: int | None = None
    subsampling: str | None = None
    predictor: str | None = None
    tile: int | None = None
    resample: str | Resampler | None = None
    fill: Any = None
    dtype: Any = None
    verify: bool = False
    vips_kwargs: Mapping[str, Any] | None = None

    @property
    def may_be_labels(self) -> bool:
        """Whether no argument shows if the samples are labels or a photograph."""
        return (self.compression is None and self.quality is None and self.subsampling is None and
                self.resample is None)


# Arguments that apply to TIFF files written by this package, and in part to other files.
_TIFF_ARGUMENTS = ('compression', 'quality', 'subsampling', 'predictor', 'tile', 'resample',
                   'fill', 'dtype', 'verify')


def check_choices(choices: Choices, suffix: str, possible: Collection[str]) -> None:
    """
    Check that no argument is without effect in a file written by libvips' saver.

    :param choices: the choices.
    :param suffix: of the file.
    :param possible: the names of those that apply.
    :raises TileSourceError: if another one is set.
    """
    if choices.vips_kwargs is not None:
        possible = ()
    useless = [name for name in _TIFF_ARGUMENTS
               if getattr(choices, name) != getattr(Choices, name) and name not in possible]
    if not useless:
        return
    if choices.vips_kwargs is not None:
        why = 'vips_kwargs replace it; they are the options of libvips'
    else:
        names = ' and '.join(map(_argument_name, possible))
        why = (f'a {suffix} file is written by libvips{f", with {names}" if names else ""}; '
               f'vips_kwargs are its options')
    msg = f'{_argument_name(useless[0])} is not possible: {why}.'
    raise TileSourceError(msg)


def _argument_name(name: str) -> str:
    """The argument of ``write`` for a field of ``Choices``."""
    return 'tileSize' if name == 'tile' else name


def chosen_dtype(dtype: np.dtype[Any], choices: Choices) -> np.dtype[Any]:
    """The dtype to write."""
    if choices.dtype is None:
        is_double = dtype == np.float64 and choices.lossy and choices.compression is None
        return np.dtype(np.float32) if is_double else dtype
    try:
        # The file determines the byte order.
        chosen: np.dtype[Any] = np.dtype(choices.dtype).newbyteorder('=')
    except (TypeError, ValueError) as exc:
        msg = f'dtype must be a dtype of numpy, not {shown(choices.dtype)}.'
        raise TileSourceError(msg) from exc
    known = [np.dtype(code) for code in sorted(COMPRESSIONS['none'].dtypes)]
    possible = [other for other in known if (dtype.kind == 'c') == (other.kind == 'c') and (
        np.can_cast(dtype, other, 'safe') or dtype.kind == other.kind == 'f')]
    if chosen not in possible:
        msg = (f'dtype={chosen} would change the values of {dtype} samples; these can be written '
               f'as {in_words([str(other) for other in possible])}.')
        raise TileSourceError(msg)
    return chosen


def chosen_tile(value: Any) -> int:
    try:
        tile = operator.index(value)
    except TypeError:
        tile = 0
    if not 16 <= tile <= LIMITS.writing_tile or tile % 16:
        msg = (f'tileSize must be a multiple of 16 from 16 to {LIMITS.writing_tile}, which is '
               f'both the width and the height of a tile; not {shown(value)}.')
        raise TileSourceError(msg)
    return tile


def chosen_compression(value: Any) -> str | None:
    if value is None:
        return None
    name = str(value).lower()
    name = _ALIASES.get(name, name)
    if name not in COMPRESSIONS:
        msg = f'compression must be {in_words(list(COMPRESSIONS))}, not {shown(value)}.'
        raise TileSourceError(msg)
    return name


def chosen_quality(name: str, choices: Choices, meaning: Meaning) -> int | None:
    """The quality of a compression; None if it is lossless."""
    loses = COMPRESSIONS[name].lossy and choices.lossy and not meaning.labels
    if choices.quality is None:
        default = JPEG2000_QUALITY if name == 'jpeg2000' else JPEG_QUALITY
        return default if loses else None
    if not loses:
        is_lossless = not COMPRESSIONS[name].lossy
        why = ('it is lossless' if is_lossless and (choices.lossy or choices.compression) else
               'lossy is False' if not choices.lossy else 'the samples are labels')
        msg = (f'quality={choices.quality!r} is not possible with compression={name!r}: {why}.  '
               f'Compressions with a quality are '
               f'{in_words([other for other, form in COMPRESSIONS.items() if form.lossy])}.')
        raise TileSourceError(msg)
    return checked_quality(choices.quality)


def checked_quality(value: Any) -> int:
    """
    Check a quality.

    :raises TileSourceError: if it is not a whole number from 1 to 100.
    """
    try:
        quality = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        quality = 0
    if not 1 <= quality <= 100:
        msg = f'quality must be a whole number from 1 to 100, not {shown(value)}.'
        raise TileSourceError(msg)
    return quality


def chosen_subsampling(name: str, choices: Choices, quality: int | None,
                        meaning: Meaning) -> str | None:
    """The chroma subsampling; None if RGB is stored."""
    chosen = choices.subsampling
    if chosen is None:
        below = name == 'jpeg' and quality is not None and quality < _FULL_CHROMA
        return '4:2:0' if below and meaning.color_bands == 3 else None
    if name != 'jpeg' or meaning.color_bands != 3:
        msg = (f"subsampling={shown(chosen)} is possible only with compression='jpeg' and RGB, not "
               f'with {name} and {meaning.color_bands} band'
               f'{"s" if meaning.color_bands != 1 else ""}.')
        raise TileSourceError(msg)
    if str(chosen) not in SUBSAMPLING:
        msg = f'subsampling must be {in_words(list(SUBSAMPLING))}, not {shown(chosen)}.'
        raise TileSourceError(msg)
    return str(chosen)


def chosen_predictor(name: str, chosen: Any, dtype: np.dtype[Any]) -> int:
    """TIFF's number of the predictor."""
    predicts = COMPRESSIONS[name].predicts
    natural = {'f': FLOATING_POINT, 'u': HORIZONTAL, 'i': HORIZONTAL}.get(dtype.kind, NO_PREDICTOR)
    if chosen is None:
        return natural if predicts else NO_PREDICTOR
    if isinstance(chosen, str) and chosen == 'yes' and predicts:
        return natural
    possible = ['none', *([key for key, number in _PREDICTORS.items() if number == natural > 1]
                          if predicts else [])]
    if not isinstance(chosen, str) or chosen not in possible:
        msg = (f'predictor={shown(chosen)} is not possible with compression={name!r} and {dtype}; '
               f'this image can have {in_words(possible)}.')
        raise TileSourceError(msg)
    return _PREDICTORS[chosen]


def chosen_resample(chosen: str | Resampler | None, dtype: np.dtype[Any], meaning: Meaning,
                     lossy: bool, alpha: bool) -> str | Resampler:
    """The method to compute lower levels."""
    if chosen is None:
        return 'mean' if lossy else 'nearest'
    name = chosen if isinstance(chosen, str) else chosen.name
    changes = chosen == 'mean' if isinstance(chosen, str) else not chosen.keeps_values
    if changes and (meaning.labels or not is_averaged(dtype)):
        what = 'labels' if meaning.labels else f'samples of {dtype}, which may be labels'
        msg = (f'resample={name!r} is not possible: it would mix {what}.  This image can have '
               f'nearest, mode, max_color or min_color.')
        raise TileSourceError(msg)
    if isinstance(chosen, Resampler):
        sample = np.zeros((2, 2, meaning.color_bands + alpha), dtype)
        try:
            result = chosen.halve(sample)
        except (TypeError, ValueError, KeyError, OSError) as exc:
            msg = (f'resample={name!r} is not possible with {sample.shape[2]} bands of {dtype} '
                   f'({exc}); this image can have mean, median, mode, max, min or nearest.')
            raise TileSourceError(msg) from exc
        if result.shape != (1, 1, sample.shape[2]) or result.dtype != dtype:
            msg = (f'resample={name!r} is not possible with {sample.shape[2]} bands of {dtype}; '
                   f'this image can have mean, median, mode, max, min or nearest.')
            raise TileSourceError(msg)
    return chosen


def chosen_fill(chosen: Any, dtype: np.dtype[Any], meaning: Meaning) -> tuple[float, ...] | None:
    """The colour of transparent pixels; None to keep their colours."""
    if chosen is None:
        return None
    if not meaning.has_alpha:
        msg = (f'fill={shown(chosen)} is not possible: data of {meaning.color_bands} bands have no '
               'alpha.')
        raise TileSourceError(msg)
    try:
        values = np.atleast_1d(np.asarray(chosen))
        with np.errstate(invalid='ignore'):
            exact = values.real.astype(dtype)
        same = values.ndim == 1 and values.dtype.kind != 'b' and bool((exact == values).all())
    except (TypeError, ValueError, OverflowError):
        same = False
    if same and values.size == 1:
        exact = np.repeat(exact, meaning.color_bands)
    if not same or exact.size != meaning.color_bands:
        msg = (f'fill must be {meaning.color_bands} numbers that {dtype} holds, one for each band '
               f'without alpha, or one for all; not {shown(chosen)}.')
        raise TileSourceError(msg)
    return tuple(exact.tolist())


def in_words(names: list[str]) -> str:
    """Join names with commas and 'or'."""
    return names[0] if len(names) == 1 else f'{", ".join(names[:-1])} or {names[-1]}'
