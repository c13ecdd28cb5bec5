"""
Convert libvips pixels to the samples that sources return.

=============  ==========================  ====================================
libvips        returned                    conversion
=============  ==========================  ====================================
coding labq    float32 L, a, b             as libvips' LabQ2Lab
coding rad     float32 R, G, B             as libvips' rad2float
complex        float32 real, imaginary     a view
dpcomplex      float64 real, imaginary     a view
cmyk, 8 bit    uint8 R, G, B               embedded profile, else as in Pillow
cmyk, 16 bit   uint16 R, G, B              as Pillow converts 8 bit
anything else  unchanged                   a view
=============  ==========================  ====================================

The conversions use numpy, because libvips would cache the operations and keep the file
open.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageCms
import pyvips

from ..base.formats import DTYPE_OF_FORMAT

Convert = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


class Unpacker:
    """
    The conversion for one libvips image.

    :param raw_dtype: of the samples in libvips.
    :param raw_bands: the number of samples per pixel in libvips.
    :param dtype: of the converted samples.
    :param bands: the number of converted samples per pixel.
    :param interpretation: the libvips interpretation of the converted samples.
    :param convert: converts an array (rows, cols, raw_bands) to (rows, cols, bands);
        None if the samples stay as they are.
    """

    def __init__(self, raw_dtype: np.dtype[Any], raw_bands: int, dtype: np.dtype[Any], bands: int,
                 interpretation: str, convert: Convert | None = None) -> None:
        self.raw_dtype = raw_dtype
        self.raw_bands = raw_bands
        self.dtype = dtype
        self.bands = bands
        self.interpretation = interpretation
        self._convert = convert
        self.converts_colour = interpretation in {'srgb', 'rgb16'} and convert is not None

    @property
    def is_plain(self) -> bool:
        """Whether the samples are not converted."""
        return self._convert is None

    @property
    def raw_pixel_bytes(self) -> int:
        """The bytes of one pixel in libvips."""
        return self.raw_dtype.itemsize * self.raw_bands

    def __call__(self, data: Any, width: int, height: int) -> npt.NDArray[Any]:
        """
        Convert a buffer of height * width * raw_bands samples.

        :returns: an array (height, width, bands).
        """
        raw = np.frombuffer(data, self.raw_dtype).reshape(height, width, self.raw_bands)
        return raw if self._convert is None else self._convert(raw)


def unpacker(image: pyvips.Image) -> Unpacker:
    """Choose the conversion for an open libvips image."""
    raw, bands, meaning = DTYPE_OF_FORMAT[image.format], image.bands, str(image.interpretation)
    if image.coding == 'labq':
        return Unpacker(raw, 4, np.dtype('float32'), 3, 'lab', _labq_to_lab)
    if image.coding == 'rad':
        return Unpacker(raw, 4, np.dtype('float32'), 3, 'scrgb', _rad_to_float)
    if raw.kind == 'c':
        parts = np.dtype(f'float{raw.itemsize * 4}')
        return Unpacker(raw, bands, parts, 2 * bands, 'multiband', lambda part: part.view(parts))
    if meaning == 'cmyk' and bands >= 4 and raw in _CMYK_DTYPES:
        return Unpacker(raw, bands, raw, bands - 1, 'srgb' if raw.itemsize == 1 else 'rgb16',
                        _cmyk_converter(image, raw))
    return Unpacker(raw, bands, raw, bands, meaning)


def _labq_to_lab(packed: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """
    Convert LABQ: 10 bits of L, 11 each of a and b, the low bits in the fourth byte.

    As libvips' LabQ2Lab scales them: L of 1023 is 100; a and b are signed eighths.
    """
    low = packed[..., 3].astype(np.int32)
    light = (packed[..., 0].astype(np.int32) << 2) | (low >> 6)
    green_red = (packed[..., 1].view(np.int8).astype(np.int32) << 3) | ((low >> 3) & 7)
    blue_yellow = (packed[..., 2].view(np.int8).astype(np.int32) << 3) | (low & 7)
    lab = np.stack([light * (100.0 / 1023.0), green_red * 0.125, blue_yellow * 0.125], axis=-1)
    return lab.astype(np.float32)


def _rad_to_float(packed: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """
    Convert Radiance RGBE: three mantissas and one exponent, biased by 128.

    As in libvips' rad2float: (mantissa + 0.5) * 2 ** (exponent - 136), and 0
    where the exponent is 0.
    """
    exponent = packed[..., 3:].astype(np.int32)
    values: npt.NDArray[np.float32] = np.ldexp(
        packed[..., :3].astype(np.float32) + np.float32(0.5), exponent - 136)
    values[np.broadcast_to(exponent == 0, values.shape)] = 0
    return values.astype(np.float32, copy=False)


_CMYK_DTYPES = frozenset({np.dtype('uint8'), np.dtype('uint16')})


def cmyk_through_profile(profile: bytes, inks: int) -> Convert | None:
    """
    A conversion from 8-bit CMYK to RGB by a profile.

    :param profile: an ICC profile.
    :param inks: how many of the bands are kept.
    :returns: None if the profile is damaged or not CMYK.
    """
    transform = _profile_transform(profile)
    return None if transform is None else (
        lambda samples: _through_profile(samples[..., :inks], transform))


def _cmyk_converter(image: pyvips.Image, dtype: np.dtype[Any]) -> Convert:
    """CMYK to RGB by the embedded profile, or by Pillow's formula if it is missing or unusable."""
    if dtype == np.uint8 and image.get_typeof('icc-profile-data'):
        transform = _profile_transform(bytes(image.get('icc-profile-data')))
        if transform is not None:
            return lambda inks: _through_profile(inks, transform)
    return _cmyk_to_rgb


def _profile_transform(profile: bytes) -> PIL.ImageCms.ImageCmsTransform | None:
    """A transform from a CMYK profile to sRGB; None if the profile is damaged or not CMYK."""
    try:
        return PIL.ImageCms.buildTransform(
            PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            PIL.ImageCms.createProfile('sRGB'), 'CMYK', 'RGB')
    except (PIL.ImageCms.PyCMSError, OSError):
        return None


def _through_profile(inks: npt.NDArray[Any],
                     transform: PIL.ImageCms.ImageCmsTransform) -> npt.NDArray[Any]:
    """Convert 8-bit CMYK to RGB; further bands are kept."""
    rows, cols = inks.shape[:2]
    source = PIL.Image.frombytes('CMYK', (cols, rows), inks[..., :4].tobytes())
    target = PIL.ImageCms.applyTransform(source, transform)
    assert target is not None  # None is for inPlace only
    return np.concatenate([np.asarray(target), inks[..., 4:]], axis=2)


def _cmyk_to_rgb(inks: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """
    Convert CMYK without a profile, as Pillow does.

    ``rgb = white - k - ink * (white - k) / white``, rounded.
    """
    white = int(np.iinfo(inks.dtype).max)
    paper = white - inks[..., 3:4].astype(np.int64)
    darkened = inks[..., :3].astype(np.int64) * paper
    rgb = paper - (darkened + white // 2 + 1) // white
    return np.concatenate([np.clip(rgb, 0, white).astype(inks.dtype), inks[..., 4:]], axis=2)
