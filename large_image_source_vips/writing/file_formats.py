"""
The formats other than TIFF: what they can store, and the options of libvips' savers.

To write another suffix, add it to ``FILE_FORMATS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..base.errors import TileSourceError
from ..store import Picture
from .atomic import Target
from .choices import JPEG_QUALITY, Choices, checked_quality, chosen_tile
from .plan import TIFF_SUFFIXES


@dataclass(frozen=True)
class FileFormat:
    """
    The samples that a format can store, and the options to write it.

    :param dtypes: the sample types that it stores exactly, as numpy kind and bytes.
    :param alpha: whether it can store an alpha band.
    :param lossy: the saver options for lossy compression.
    :param lossless: the saver options for lossless compression; None if there is none.
    """

    dtypes: frozenset[str]
    alpha: bool = True
    lossy: Mapping[str, Any] = field(default_factory=dict)
    lossless: Mapping[str, Any] | None = field(default_factory=dict)

    @property
    def choices(self) -> tuple[str, ...]:
        """The fields of ``Choices`` that apply, besides lossy and alpha."""
        if 'suffix' in self.lossy:
            return 'quality', 'tile'
        return ('quality',) if 'Q' in self.lossy else ()

    def options(self, choices: Choices, *, exact: bool) -> dict[str, Any]:
        """
        The options of the saver.

        :param choices: of the caller.
        :param exact: whether to write without loss, if the format can do so.
        :raises TileSourceError: if an argument is not possible.
        """
        given = self.lossy if self.lossless is None or not exact else self.lossless
        result = dict(given)
        if choices.quality is not None:
            quality = checked_quality(choices.quality)
            if given is not self.lossy:
                msg = (f'quality={quality} is not possible: '
                       f'{"the samples are labels" if choices.lossy else "lossy is False"}.')
                raise TileSourceError(msg)
            if 'Q' in result:
                result['Q'] = quality
            else:
                result['suffix'] = f'.jpg[Q={quality}]'
        if choices.tile is not None:
            result['tile_size'] = chosen_tile(choices.tile)
        return result


_ALL = frozenset({'u1', 'i1', 'u2', 'i2', 'u4', 'i4', 'f4', 'f8'})
_8, _16 = frozenset({'u1'}), frozenset({'u1', 'u2'})
_QUALITY = {'Q': JPEG_QUALITY}
_JPEG = FileFormat(_8, alpha=False, lossy=_QUALITY, lossless=None)
_LOSSLESS = {'lossless': True}
_DEEPZOOM = FileFormat(_8, alpha=False, lossy={'suffix': f'.jpg[Q={JPEG_QUALITY}]'},
                       lossless={'suffix': '.png'})

FILE_FORMATS: dict[str, FileFormat] = {
    **dict.fromkeys(('.jpg', '.jpeg', '.jpe', '.jfif'), _JPEG),
    '.png': FileFormat(_16),
    **dict.fromkeys(('.webp', '.heic', '.heif', '.avif'), FileFormat(
        _8, lossy=_QUALITY, lossless=_LOSSLESS)),
    **dict.fromkeys(('.jp2', '.j2k', '.jpt', '.j2c', '.jpc', '.jxl'), FileFormat(
        _16, lossy=_QUALITY, lossless=_LOSSLESS)),
    '.gif': FileFormat(_8, lossless=None),
    **dict.fromkeys(('.dz', '.dzi', '.szi'), _DEEPZOOM),
    **dict.fromkeys(('.ppm', '.pgm', '.pnm'), FileFormat(_16, alpha=False)),
    '.pfm': FileFormat(frozenset({'f4'}), alpha=False),
    **dict.fromkeys(('.v', '.vips', '.raw'), FileFormat(_ALL)),
    **dict.fromkeys(('.fits', '.fit', '.fts'), FileFormat(_ALL)),
    '.nii': FileFormat(_ALL, alpha=False),
}


@dataclass(frozen=True)
class SaverPlan:
    """
    How to write a picture with libvips.

    :param saver: the operation.
    :param options: its options.
    :param alpha: whether to write the alpha band.
    :param dtype: of the samples.
    :param interpretation: the interpretation to give the saver.
    :param bare: whether to write no metadata.
    """

    saver: str
    options: Mapping[str, Any]
    alpha: bool
    dtype: np.dtype[Any]
    interpretation: str
    bare: bool = False


def make_saver_plan(picture: Picture, target: Target, saver: str, choices: Choices) -> SaverPlan:
    """
    Choose how to write a picture in a format other than TIFF, or with the caller's options.

    :param picture: the picture; its pixels are not read.
    :param target: where to write it; the suffix decides the format.
    :param saver: the libvips operation for the suffix.
    :param choices: the arguments of ``write``.
    :raises TileSourceError: if the format cannot store the picture.
    """
    alpha = choices.alpha and picture.meaning.has_alpha and not picture.opaque
    form = FILE_FORMATS.get(target.suffix)
    dtype = picture.dtype
    if dtype == np.float64 and not (
            'f8' in form.dtypes if form else target.suffix in TIFF_SUFFIXES and not choices.lossy):
        dtype = np.dtype(np.float32)
    natural = natural_interpretation(picture)
    if choices.vips_kwargs is not None:
        return SaverPlan(saver, dict(choices.vips_kwargs), alpha, dtype, natural)
    code = f'{dtype.kind}{dtype.itemsize}'
    problem = None
    if form is None:
        problem = 'this package does not know what the format can store'
    elif code not in form.dtypes:
        problem = f'it cannot store {picture.dtype} samples exactly'
    elif alpha and not form.alpha:
        problem = 'it cannot store alpha; alpha=False fills the transparent parts'
    elif not choices.lossy and form.lossless is None:
        problem = 'the format is always lossy'
    if form is None or problem:
        msg = (f'{target.path} cannot be written as {target.suffix}: {problem}.  Write a .tif, '
               f"or pass vips_kwargs={{}} to leave the conversion to libvips' saver.")
        raise TileSourceError(msg)
    exact = not choices.lossy or picture.meaning.labels
    options = form.options(choices, exact=exact)
    # Otherwise libvips adds an EXIF block, with a less precise resolution than that of the
    # format.
    bare = target.suffix in {'.v', '.vips'}
    return SaverPlan(saver, options, alpha, dtype, natural, bare)


def natural_interpretation(picture: Picture) -> str:
    """The libvips interpretation of a picture's bands."""
    kind, wide = picture.meaning.kind, picture.dtype == np.uint16
    if picture.meaning.interpretation is not None:
        return picture.meaning.interpretation
    return {'gray': 'grey16' if wide else 'b-w', 'rgb': 'rgb16' if wide else 'srgb'}.get(
        kind, kind)
