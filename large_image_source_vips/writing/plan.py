"""
Chooses how to write a picture: the saver, its options, TIFF fields.

Plans are made from the format of the picture and the suffix of the file, without
reading pixels or touching the disk.  To write another suffix, add it to
``FILE_FORMATS``.
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
from . import pyramid
from .atomic import Target

# The quality of all lossy formats, 0 to 100.
JPEG_QUALITY = 90

TIFF_SUFFIXES = frozenset({'.tif', '.tiff'})

_TIFF_LAYOUT = {'tile': True, 'tile_width': TILE_SIZE, 'tile_height': TILE_SIZE, 'pyramid': True}

# TIFF 6.0: PhotometricInterpretation, by the kind of a ``Meaning``; others are 1.
_PHOTOMETRIC = {'gray': 1, 'rgb': 2, 'cmyk': 5}


@dataclass(frozen=True)
class FileFormat:
    """
    What a format other than TIFF can store, and how to write it.

    :param dtypes: the sample types it stores exactly, as numpy kind and bytes.
    :param alpha: whether it stores an alpha band.
    :param lossy: the saver options if loss is allowed.
    :param lossless: the saver options if it is not; None if the format is
        always lossy.
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
    How to write a picture.

    :param saver: the libvips operation; '' for a pyramid of WebP tiles.
    :param options: the options of the operation.
    :param alpha: whether to write the alpha band.
    :param interpretation: the libvips interpretation to give the saver.
    :param fields: TIFF fields to set after saving.
    """

    saver: str
    options: Mapping[str, Any]
    alpha: bool
    interpretation: str
    fields: tuple[Field, ...] = ()


def make_plan(picture: Picture, target: Target, saver: str, lossy: bool, alpha: bool,
              vips_kwargs: Mapping[str, Any] | None) -> Plan:
    """
    Choose how to write a picture.

    :param picture: the picture; its pixels are not read.
    :param target: where to write it; the suffix decides the format.
    :param saver: the libvips operation for the suffix.
    :param lossy: whether lossy compression is allowed.
    :param alpha: whether to write alpha, if the picture is not opaque.
    :param vips_kwargs: options for the saver in place of ours, or None.
    :raises TileSourceError: if the format cannot store the picture.
    """
    with_alpha = alpha and picture.meaning.has_alpha and not picture.opaque
    natural = natural_interpretation(picture)
    if vips_kwargs is not None:
        return Plan(saver, dict(vips_kwargs), with_alpha, natural)
    if target.suffix in TIFF_SUFFIXES:
        return _tiff_plan(picture, saver, lossy, with_alpha, natural)
    form = FILE_FORMATS.get(target.suffix)
    code = f'{picture.dtype.kind}{picture.dtype.itemsize}'
    problem = None
    if form is None:
        problem = 'it is not known what this format can store'
    elif code not in form.dtypes:
        problem = f'it cannot store {picture.dtype} samples exactly'
    elif with_alpha and not form.alpha:
        problem = 'it cannot store alpha; alpha=False fills the transparent parts'
    elif not lossy and form.lossless is None:
        problem = 'it cannot be written without loss'
    if form is None or problem:
        msg = (f'{target.path} cannot be written as {target.suffix}: {problem}.  Write a .tif, '
               f"or pass vips_kwargs={{}} to leave the conversion to libvips' saver.")
        raise TileSourceError(msg)
    exact = not lossy or picture.meaning.labels
    options = form.lossy if form.lossless is None or not exact else form.lossless
    if picture.bare and (target.suffix in {'.v', '.vips'} or not any(picture.pixel_size)):
        # Otherwise libvips adds an EXIF block with a resolution: made up, or less
        # precise than that of the format itself.
        options = {**options, **no_metadata()}
    return Plan(saver, options, with_alpha, natural)


def no_metadata() -> dict[str, Any]:
    """The option of this libvips that writes no metadata."""
    return {'keep': 'none'} if pyvips.at_least_libvips(8, 15) else {'strip': True}


def _tiff_plan(picture: Picture, saver: str, lossy: bool, with_alpha: bool, natural: str) -> Plan:
    """
    The plan for a tiled pyramid.

    8-bit gray and RGB are JPEG if loss is allowed; RGB with alpha is WebP, since
    libvips writes no alpha in JPEG tiles.  Everything else is LZW, and its lower
    levels hold picked, not averaged samples.
    """
    meaning = picture.meaning
    if (lossy and picture.dtype == np.uint8 and not meaning.labels and
            meaning.kind in {'gray', 'rgb'}):
        if not with_alpha:
            raw = picture.size.width * picture.size.height * meaning.color_bands
            return Plan(saver, {
                **_TIFF_LAYOUT, 'compression': 'jpeg', 'Q': JPEG_QUALITY,
                'bigtiff': _needs_bigtiff(raw)}, with_alpha, natural)
        if meaning.kind == 'rgb' and pyramid.is_supported():
            return Plan('', {}, with_alpha, natural)
    bands = meaning.color_bands + with_alpha
    raw = picture.size.width * picture.size.height * bands * picture.dtype.itemsize
    photometric = _PHOTOMETRIC.get(meaning.kind, 1)
    colors = {1: 1, 2: 3, 5: 4}[photometric]
    extra = (2,) * with_alpha if meaning.kind in _PHOTOMETRIC else ()
    extra = (0,) * (bands - colors - len(extra)) + extra
    fields = [Field(tiff.PHOTOMETRIC, SHORT, (photometric,))]
    if extra:
        fields.append(Field(EXTRA_SAMPLES, SHORT, extra))
    return Plan(saver, {
        **_TIFF_LAYOUT, 'compression': 'lzw', 'region_shrink': 'nearest',
        'predictor': 'float' if picture.dtype.kind == 'f' else 'horizontal',
        'bigtiff': _needs_bigtiff(raw),
        # 'multiband', because libvips averages in spite of 'nearest' if it knows
        # of an alpha band, and converts some interpretations.  The fields then
        # state what the bands are.
    }, with_alpha, 'multiband', tuple(fields))


def _needs_bigtiff(raw_bytes: int) -> bool:
    """Whether a pyramid may need 64-bit offsets, if its tiles do not compress at all."""
    # Lower levels add a third; LZW makes noise larger by a half.
    return raw_bytes * 2 > (1 << 32) - (1 << 24)


def natural_interpretation(picture: Picture) -> str:
    """The libvips interpretation of a picture's bands."""
    kind, wide = picture.meaning.kind, picture.dtype == np.uint16
    if picture.meaning.interpretation is not None:
        return picture.meaning.interpretation
    return {'gray': 'grey16' if wide else 'b-w', 'rgb': 'rgb16' if wide else 'srgb'}.get(
        kind, kind)
