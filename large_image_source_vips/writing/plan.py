"""
How a picture becomes a file: the saver, its options, TIFF fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyvips

from ..base.errors import TileSourceError
from ..base.geometry import TILE_SIZE
from ..store import Picture
from ..tiff import directories as tiff
from ..tiff.write import EXTRA_SAMPLES, SHORT, Field
from . import pyramid as webp_tiff
from .atomic import Target

JPEG_QUALITY = 90

TIFF_SUFFIXES = frozenset({'.tif', '.tiff'})

_TIFF_LAYOUT = {'tile': True, 'tile_width': TILE_SIZE, 'tile_height': TILE_SIZE, 'pyramid': True}

_PHOTOMETRIC = {'gray': 1, 'rgb': 2, 'cmyk': 5}


@dataclass(frozen=True)
class FileFormat:
    """
    What a format other than TIFF keeps, and the options to write it with.

    :param dtypes: kind and size of the samples that it holds exactly.
    :param alpha: whether it holds an alpha band.
    :param lossy: the options where loss is allowed.
    :param lossless: the options where it is not; None if there are none.
    """

    dtypes: frozenset[str]
    alpha: bool = True
    lossy: Mapping[str, Any] = field(default_factory=dict)
    lossless: Mapping[str, Any] | None = field(default_factory=dict)

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
class Plan:
    """
    How a picture becomes a file.

    :param saver: the libvips operation; '' for the writer of WebP pyramids.
    :param options: its options.
    :param alpha: whether the alpha band is written.
    :param interpretation: what the image is labelled for the saver.
    :param fields: TIFF fields to put in afterwards.
    """

    saver: str
    options: Mapping[str, Any]
    alpha: bool
    interpretation: str
    fields: tuple[Field, ...] = ()


def make_plan(what: Picture, target: Target, saver: str, lossy: bool, alpha: bool,
              vips_kwargs: Mapping[str, Any] | None) -> Plan:
    """
    Choose how to write a picture.

    :raises TileSourceError: if the format cannot hold it.
    """
    with_alpha = alpha and what.meaning.has_alpha and not what.opaque
    natural = natural_interpretation(what)
    if vips_kwargs is not None:
        return Plan(saver, dict(vips_kwargs), with_alpha, natural)
    if target.suffix in TIFF_SUFFIXES:
        return _tiff_plan(what, saver, lossy, with_alpha, natural)
    form = FILE_FORMATS.get(target.suffix)
    code = f'{what.dtype.kind}{what.dtype.itemsize}'
    problem = None
    if form is None:
        problem = 'what that format keeps is not known here'
    elif code not in form.dtypes:
        problem = f'it does not hold {what.dtype} samples as they are'
    elif with_alpha and not form.alpha:
        problem = 'it has no alpha band for the transparent parts; alpha=False fills them'
    elif not lossy and form.lossless is None:
        problem = 'it cannot be written without loss'
    if form is None or problem:
        msg = (f'{target.path} cannot be written as {target.suffix}: {problem}.  Write a .tif, '
               f"or pass vips_kwargs={{}} to leave the conversion to libvips' saver.")
        raise TileSourceError(msg)
    exact = not lossy or what.meaning.labels
    options = form.lossy if form.lossless is None or not exact else form.lossless
    if what.bare and (target.suffix in {'.v', '.vips'} or not any(what.pixel_size)):
        # Else libvips makes up an EXIF block with a resolution in it, which
        # nobody knows, or which is less precise than the format's own.
        options = {**options, **no_metadata()}
    return Plan(saver, options, with_alpha, natural)


def no_metadata() -> dict[str, Any]:
    """The option that keeps metadata out of a file, as this libvips knows it."""
    return {'keep': 'none'} if pyvips.at_least_libvips(8, 15) else {'strip': True}


def _tiff_plan(what: Picture, saver: str, lossy: bool, with_alpha: bool, natural: str) -> Plan:
    """
    The options of a tiled pyramid.

    Colours of 8 bits are JPEG, or with an alpha WebP, which libvips' JPEG has
    no room for; everything else is LZW without loss, and its lower levels are
    picked samples.
    """
    meaning = what.meaning
    if lossy and what.dtype == np.uint8 and not meaning.labels and meaning.kind in {'gray', 'rgb'}:
        if not with_alpha:
            raw = what.size.width * what.size.height * meaning.color_bands
            return Plan(saver, {
                **_TIFF_LAYOUT, 'compression': 'jpeg', 'Q': JPEG_QUALITY,
                'bigtiff': _needs_bigtiff(raw)}, with_alpha, natural)
        if meaning.kind == 'rgb' and webp_tiff.is_supported():
            return Plan('', {}, with_alpha, natural)
    bands = meaning.color_bands + with_alpha
    raw = what.size.width * what.size.height * bands * what.dtype.itemsize
    photometric = _PHOTOMETRIC.get(meaning.kind, 1)
    colors = {1: 1, 2: 3, 5: 4}[photometric]
    extra = (2,) * with_alpha if meaning.kind in _PHOTOMETRIC else ()
    extra = (0,) * (bands - colors - len(extra)) + extra
    fields = [Field(tiff.PHOTOMETRIC, SHORT, (photometric,))]
    if extra:
        fields.append(Field(EXTRA_SAMPLES, SHORT, extra))
    return Plan(saver, {
        **_TIFF_LAYOUT, 'compression': 'lzw', 'region_shrink': 'nearest',
        'predictor': 'float' if what.dtype.kind == 'f' else 'horizontal',
        'bigtiff': _needs_bigtiff(raw),
        # With a known alpha libvips would average in spite of 'nearest', and
        # other labels make it convert; the fields say afterwards what is what.
    }, with_alpha, 'multiband', tuple(fields))


def _needs_bigtiff(raw_bytes: int) -> bool:
    """Whether a pyramid may outgrow 32-bit offsets, if its tiles do not compress at all."""
    # A third for the lower levels, and half for LZW of noise.
    return raw_bytes * 2 > (1 << 32) - (1 << 24)


def natural_interpretation(what: Picture) -> str:
    """The libvips interpretation of a picture's bands."""
    kind, wide = what.meaning.kind, what.dtype == np.uint16
    if what.meaning.interpretation is not None:
        return what.meaning.interpretation
    return {'gray': 'grey16' if wide else 'b-w', 'rgb': 'rgb16' if wide else 'srgb'}.get(
        kind, kind)
