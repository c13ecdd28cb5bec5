"""
Determine how the samples of a TIFF page are coded, and how to convert them to pixels.

Only the directory is read; nothing here decodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..codecs import colours, table
from ..codecs.table import Coding
from ..tiff.directories import TiffDirectories
from ..tiff.old_jpeg import YCBCR_SUBSAMPLING
from ..tiff.page import EXTRA_SAMPLES, ICC_PROFILE, JPEG_TABLES, Page
from . import fax
from .unpack import cmyk_through_profile

Array = npt.NDArray[Any]

COLOR_MAP, _YCBCR_COEFFICIENTS, _REFERENCE_BLACK_WHITE, _LERC_PARAMETERS = 320, 529, 532, 50674
_T4_OPTIONS, _T6_OPTIONS, _T6 = 292, 293, 4
# Codecs that convert YCbCr to RGB themselves.
_DECODE_TO_RGB = frozenset({7, 33003, 50001, 50002, 52546})


class Samples(NamedTuple):
    """
    The pixels of a page.

    :param coding: how its tiles are coded.
    :param dtype: of the pixels.
    :param bands: of the pixels.
    :param interpretation: libvips' name for the meaning of the bands.
    :param convert: makes pixels (rows, cols, bands) of decoded samples (rows, cols, samples)
        without changing them; None if they are the same.
    """

    coding: Coding
    dtype: np.dtype[Any]
    bands: int
    interpretation: str
    convert: Callable[[Array], Array] | None


def coding_of(tiff: TiffDirectories, page: Page) -> Coding:
    """How the tiles of a page are coded."""
    subsampling = tuple(tiff.integers(page.entries.get(YCBCR_SUBSAMPLING))[:2]) or (2, 2)
    return Coding(
        compression=page.compression, samples=page.samples // page.planes, bits=page.bits,
        sample_format=page.sample_format, photometric=page.photometric,
        predictor=page.predictor, order=tiff.order, fill_order=page.fill_order,
        bits_each=page.bits_each,
        subsampling=subsampling if page.photometric == colours.YCBCR else (1, 1),
        jpeg_tables=tiff.data(page.entries.get(JPEG_TABLES)),
        fax_options=sum(tiff.integers(page.entries.get(
            _T6_OPTIONS if page.compression == _T6 else _T4_OPTIONS), limit=1)) & 0xFFFF,
        lerc=tuple(tiff.integers(page.entries.get(_LERC_PARAMETERS), limit=8)))


def colours_of(tiff: TiffDirectories, page: Page, dtype: np.dtype[Any]) -> colours.Colours:
    """The meaning of the decoded samples of a page."""
    entries = page.entries
    palette = tiff.array(entries.get(COLOR_MAP)) if page.photometric == colours.PALETTE else None
    meaning = colours.Colours(
        page.photometric, dtype, page.samples, page.bits, page.bits_each,
        extra=tuple(tiff.integers(entries.get(EXTRA_SAMPLES))),
        palette=palette.astype(np.uint16).reshape(3, -1)
        if palette is not None and palette.dtype.kind == 'u' and palette.size % 3 == 0 else None,
        decoded=page.planes == 1 and page.compression in _DECODE_TO_RGB)
    if page.photometric != colours.YCBCR or meaning.decoded:
        return meaning
    luma, reference = (_rationals(tiff, page, tag)
                       for tag in (_YCBCR_COEFFICIENTS, _REFERENCE_BLACK_WHITE))
    return dataclasses.replace(meaning, luma=luma or colours.LUMA, reference=reference)


def problem(tiff: TiffDirectories, page: Page) -> str | None:
    """
    The reason why this package cannot decode a page, a clause for an error message.

    :returns: None if it can; if not, libvips may be able to.
    """
    coding = coding_of(tiff, page)
    reason = (fax.problem(coding) if coding.compression in fax.COMPRESSIONS
              else table.problem(coding))
    if reason:
        return reason
    if coding.dtype is None:
        return (f'samples of {coding.bits} bits in TIFF sample format {coding.sample_format} '
                'cannot be decoded')
    if page.photometric == colours.YCBCR and page.planes > 1 and (
            len(coding.subsampling) != 2 or not {1, 2, 4}.issuperset(coding.subsampling)):
        return f'chroma subsampled by {coding.subsampling} cannot be arranged'
    return colours.problem(colours_of(tiff, page, coding.dtype))


def samples_of(tiff: TiffDirectories, page: Page) -> Samples:
    """The pixel format of a page without a ``problem``."""
    coding = coding_of(tiff, page)
    assert coding.dtype is not None  # else there is a problem
    meaning = colours_of(tiff, page, coding.dtype)
    dtype, bands, interpretation, convert = colours.conversion(meaning)
    if page.planes > 1 and interpretation in {'b-w', 'grey16'} and not any(meaning.extra):
        # Gray bands in separate planes are channels.
        interpretation = 'multiband'
    profile = tiff.data(page.entries.get(ICC_PROFILE))
    if page.photometric == colours.CMYK and dtype == np.uint8 and profile and convert is not None:
        convert = cmyk_through_profile(profile, bands + 1) or convert
    if dtype.kind == 'c':
        dtype, bands, convert = np.dtype(f'f{dtype.itemsize // 2}'), 2 * bands, _real_and_imaginary
    elif dtype == np.float16:
        dtype, convert = np.dtype(np.float32), _widened(convert)
    return Samples(coding, dtype, bands, interpretation, convert)


def _rationals(tiff: TiffDirectories, page: Page, tag: int) -> tuple[float, ...]:
    """The numbers of a tag of rationals, or of other numbers; empty if there are none."""
    values = tiff.array(page.entries.get(tag))
    if values is None:
        return ()
    if values.ndim == 1:
        return tuple(float(value) for value in values.tolist())
    if not all(values[:, 1].tolist()):
        return ()
    return tuple(float(above) / float(below) for above, below in values.tolist())


def _real_and_imaginary(values: Array) -> Array:
    """Complex numbers as two bands, real and imaginary."""
    return np.ascontiguousarray(values).view(f'f{values.dtype.itemsize // 2}')


def _widened(convert: Callable[[Array], Array] | None) -> Callable[[Array], Array]:
    """A conversion with 32-bit floats as result."""
    if convert is None:
        return lambda values: values.astype(np.float32)
    return lambda values: convert(values).astype(np.float32)
