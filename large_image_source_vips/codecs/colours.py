"""
Convert the decoded samples of a TIFF page to the samples that sources return.

=========================  ===============================================================
PhotometricInterpretation  becomes
=========================  ===============================================================
0, white is zero           unsigned integers count from black: ``2 ** bits - 1 - sample``
0, 1, 4 of 1, 2, 4 bits    8 bits, scaled to 0..255
2, RGB                     itself; of 1 bit, and of 5, 6 and 5 bits, scaled to 0..255
3, palette                 RGB of 8 bits; of 16 if the indices have more than 8
5, CMYK                    RGB, as Pillow converts it
6, YCbCr                   RGB, if the codec has not converted it
8, 9, L*a*b*               sRGB of 8 or 16 bits, white becoming white
any other                  itself
=========================  ===============================================================

Premultiplied colours (ExtraSamples 1) are divided by alpha.  Extra samples are kept, except
unspecified ones with a palette or inks, which viewers would take for alpha.

Section numbers refer to TIFF 6.0 (Adobe, 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Convert = Callable[[Array], Array]

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR = range(7)
CIELAB, ICCLAB = 8, 9
# ExtraSamples (section 18).
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2
# Section 21: CCIR Recommendation 601-1.
LUMA = 0.299, 0.587, 0.114
# The number of colour samples; other interpretations are data.
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, MASK: 1, CMYK: 4, YCBCR: 3,
           CIELAB: 3, ICCLAB: 3}
_GRAYS = frozenset({WHITE_IS_ZERO, BLACK_IS_ZERO, MASK})
_SCALED_BITS = frozenset({1, 2, 4})
# D65, the white of sRGB, and the matrix from XYZ to linear sRGB (IEC 61966-2-1), as in libvips.
_WHITE = np.array([95.047, 100.0, 108.8827], np.float32) / 100
_XYZ_TO_RGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415],
                        [0.0557, -0.2040, 1.0570]], np.float32)
# Normalised, because with its few digits white would be slightly yellow.
_XYZ_TO_RGB /= (_XYZ_TO_RGB @ _WHITE)[:, np.newaxis]


@dataclass(frozen=True)
class Colours:
    """
    The meaning of the decoded samples of a page.

    :param photometric: PhotometricInterpretation.
    :param dtype: of the decoded samples.
    :param samples: the samples per pixel, of all planes.
    :param bits: of the widest sample.
    :param bits_each: the bits of each sample if they differ; else empty.
    :param extra: ExtraSamples; empty if the page does not have the tag.
    :param palette: ColorMap as an array (3, 2 ** bits) of uint16.
    :param luma: YCbCrCoefficients.
    :param reference: ReferenceBlackWhite, six numbers; empty if samples use their full
        range.
    :param decoded: whether the codec has converted YCbCr to RGB, as JPEG does.
    """

    photometric: int
    dtype: np.dtype[Any]
    samples: int
    bits: int
    bits_each: tuple[int, ...] = ()
    extra: tuple[int, ...] = ()
    palette: npt.NDArray[np.uint16] | None = field(default=None, compare=False, repr=False)
    luma: tuple[float, ...] = LUMA
    reference: tuple[float, ...] = ()
    decoded: bool = False

    @property
    def most(self) -> int:
        """The largest value of an unsigned sample."""
        return (1 << self.bits) - 1


class Conversion(NamedTuple):
    """
    The conversion of decoded samples to those that sources return.

    :param dtype: of the result.
    :param bands: of the result.
    :param interpretation: libvips' name for the meaning of the result.
    :param convert: converts an array (rows, cols, samples) to (rows, cols, bands), without
        changing it; None if the samples stay as they are.
    """

    dtype: np.dtype[Any]
    bands: int
    interpretation: str
    convert: Convert | None


def problem(colours: Colours) -> str | None:
    """The reason why samples cannot be converted, a clause for an error; None if they can."""
    kind, needed = colours.photometric, COLOURS.get(colours.photometric, 1)
    if colours.samples < needed and not (kind == CMYK and colours.samples > 0):
        return (f'its photometric interpretation {kind} takes {needed} samples per pixel, '
                f'but it has {colours.samples}')
    if kind == PALETTE:
        if colours.dtype.kind != 'u' or colours.bits > 16:
            return f'a palette cannot be indexed by samples of type {colours.dtype}'
        if colours.palette is None or colours.palette.shape != (3, colours.most + 1):
            return f'its palette does not have {colours.most + 1} colours'
    if kind == YCBCR and not colours.decoded:
        if colours.dtype.kind != 'u' or not 2 <= colours.bits <= 16:
            return f'YCbCr of {colours.bits} bits cannot be converted to colours'
        if len(colours.luma) != 3 or min(colours.luma) <= 0:
            return 'its YCbCrCoefficients are not three positive numbers'
        if len(colours.reference) not in {0, 6} or not all(np.diff(colours.reference)[::2]):
            return 'its ReferenceBlackWhite is not three ranges'
    if kind in {CIELAB, ICCLAB} and colours.bits not in {8, 16}:
        return f'L*a*b* of {colours.bits} bits cannot be converted to colours'
    return None


def conversion(colours: Colours) -> Conversion:
    """
    The conversion of the samples of a page that has no ``problem``.

    The interpretations are those of libvips' TIFF loader.
    """
    kind, dtype = colours.photometric, colours.dtype
    steps: list[Convert] = []
    bands = colours.samples
    if (colours.extra[:1] == (UNSPECIFIED,) or not colours.extra) and (
            kind == PALETTE or _is_cmyk(colours)) and bands > COLOURS[kind]:
        bands = COLOURS[kind]
        steps.append(lambda samples, kept=bands: samples[..., :kept])  # type: ignore[misc]
    alphas = [place for place, meaning in enumerate(colours.extra) if meaning != UNSPECIFIED]
    if len(alphas) == 1 and colours.extra[alphas[0]] == ASSOCIATED and kind in COLOURS \
            and kind != PALETTE and dtype.kind in 'uf':
        alpha = alphas[0] - len(colours.extra)
        steps.append(lambda samples: divided_by_alpha(samples, alpha, colours.most))
    convert = _colour_step(colours)
    if convert is not None:
        steps.append(convert)
    if kind == PALETTE:
        bands += 2
        dtype = np.dtype(np.uint8 if colours.bits <= 8 else np.uint16)
    elif _is_cmyk(colours):
        bands -= 1
    elif len(steps) and kind in {CIELAB, ICCLAB}:
        dtype = np.dtype(f'u{dtype.itemsize}')
    return Conversion(dtype, bands, _interpretation(colours, dtype), _chained(steps))


def _chained(steps: list[Convert]) -> Convert | None:
    """Apply steps one after another."""
    if len(steps) < 2:
        return steps[0] if steps else None

    def convert(samples: Array) -> Array:
        for step in steps:
            samples = step(samples)
        return samples

    return convert


def _colour_step(colours: Colours) -> Convert | None:
    """The conversion of the colour samples; None if they stay as they are."""
    kind, dtype = colours.photometric, colours.dtype
    if kind in _GRAYS:
        return _gray_step(colours)
    if kind == RGB and colours.bits_each and dtype == np.uint8 and min(colours.bits_each) >= 4:
        return lambda samples: scaled_to_bytes(samples, colours.bits_each)
    if kind == RGB and colours.bits == 1:
        return lambda samples: samples * np.uint8(255)
    if kind == PALETTE:
        assert colours.palette is not None  # else it has a problem
        table = palette_table(colours.palette, colours.bits)
        return lambda samples: np.concatenate(
            [table[samples[..., 0]], samples[..., 1:].astype(table.dtype)], axis=2)
    if _is_cmyk(colours):
        return lambda samples: cmyk_to_rgb(samples, colours.most)
    if kind == YCBCR and not colours.decoded:
        return lambda samples: ycbcr_to_rgb(
            samples, colours.luma, colours.reference, colours.most)
    if kind in {CIELAB, ICCLAB}:
        return lambda samples: lab_to_rgb(samples, icc=kind == ICCLAB)
    return None


def _gray_step(colours: Colours) -> Convert | None:
    """Scaling and inversion of gray, by a table where there are at most 8 bits."""
    inverted = colours.photometric == WHITE_IS_ZERO
    most = colours.most
    if colours.dtype.kind != 'u':
        return None
    if colours.bits in _SCALED_BITS:
        rising = (np.arange(256) * (255 // most)).astype(np.uint8)
        falling = np.uint8(255) - rising
        if not inverted:
            return lambda samples: rising[samples]
        return lambda samples: np.concatenate(
            [falling[samples[..., :1]], rising[samples[..., 1:]]], axis=2)
    return (lambda samples: inverted_gray(samples, most)) if inverted else None


def _is_cmyk(colours: Colours) -> bool:
    """Whether the samples are four inks of a supported type."""
    return (colours.photometric == CMYK and colours.samples >= 4 and
            colours.dtype in {np.dtype(np.uint8), np.dtype(np.uint16)})


def _interpretation(colours: Colours, dtype: np.dtype[Any]) -> str:
    """The interpretation of the converted samples, in libvips' terms."""
    kind = colours.photometric
    two_bytes = dtype.itemsize == 2
    if kind in _GRAYS:
        return 'grey16' if two_bytes else 'b-w'
    if kind in {RGB, PALETTE, YCBCR, CIELAB, ICCLAB} or _is_cmyk(colours):
        return ('scrgb' if dtype.kind == 'f' else
                'rgb16' if two_bytes and dtype.kind == 'u' else 'srgb')
    return 'multiband'


def inverted_gray(samples: Array, most: int) -> Array:
    """Invert the first band, so that 0 is black."""
    result: Array = samples.copy()
    np.subtract(samples.dtype.type(most), samples[..., 0], out=result[..., 0])
    return result


def divided_by_alpha(samples: Array, alpha: int, most: int) -> Array:
    """
    Undo the multiplication of colours by alpha; integers are rounded down, as by Pillow.

    Colours with zero alpha are unchanged.

    :param samples: (rows, cols, samples) of unsigned integers, or of floats whose alpha is
        0 to 1.
    :param alpha: the alpha band, counted from the end.
    :param most: the largest value of an integer sample.
    """
    opacity = samples[..., alpha, np.newaxis]
    colours = samples[..., :alpha]
    result: Array = samples.copy()
    if samples.dtype.kind == 'f':
        np.divide(colours, opacity, out=result[..., :alpha], where=opacity > 0)
        return result
    wide = np.dtype(np.uint32 if samples.itemsize <= 2 else np.uint64)
    divided = colours.astype(wide) * wide.type(most) // np.maximum(opacity, 1)
    result[..., :alpha] = np.where(opacity == 0, colours, np.minimum(divided, most))
    return result


def palette_table(palette: npt.NDArray[np.uint16], bits: int) -> Array:
    """
    The colours of a palette (section 5), an array (entries, 3).

    With indices of up to 8 bits the colours have 8 bits: the upper ones, or the lower ones
    if no entry exceeds 255, because some programs store those.
    """
    if bits > 8:
        return np.ascontiguousarray(palette.T)
    eight = palette if palette.max() < 256 else palette >> 8
    return np.ascontiguousarray(eight.T.astype(np.uint8))


def scaled_to_bytes(samples: Array, bits_each: tuple[int, ...]) -> Array:
    """Scale samples of different widths, 4 to 8 bits, to 8 bits by repeating their bits."""
    widths = np.array(bits_each, np.uint8)
    return samples << (8 - widths) | samples >> (2 * widths - 8)


def cmyk_to_rgb(inks: Array, most: int | None = None) -> Array:
    """
    Convert CMYK without a profile, as Pillow does.

    ``rgb = white - k - ink * (white - k) / white``, rounded.

    :param inks: (rows, cols, 4 or more) of uint8 or uint16; further bands are kept.
    :param most: the value of a full ink; None for the largest of the dtype.
    """
    white = int(np.iinfo(inks.dtype).max) if most is None else most
    paper = white - inks[..., 3:4].astype(np.int64)
    darkened = inks[..., :3].astype(np.int64) * paper
    rgb = paper - (darkened + white // 2) // white
    result: Array = np.concatenate(
        [np.clip(rgb, 0, white).astype(inks.dtype), inks[..., 4:]], axis=2)
    return result


def ycbcr_to_rgb(samples: Array, luma: tuple[float, ...] = LUMA,
                 reference: tuple[float, ...] = (), most: int = 255) -> Array:
    """
    Convert YCbCr to RGB (sections 20 and 21).

    ``full = (code - black) * range / (white - black)``, where the range of Y is ``most``
    and that of Cb and Cr is half of it; then ``R = Y + Cr * (2 - 2 * LumaRed)``,
    ``B = Y + Cb * (2 - 2 * LumaBlue)``, ``G = (Y - LumaRed * R - LumaBlue * B) / LumaGreen``.

    :param samples: (rows, cols, 3 or more) of unsigned integers; further bands are kept.
    :param luma: YCbCrCoefficients: the weights of red, green and blue in Y.
    :param reference: ReferenceBlackWhite; empty if samples use their full range.
    :param most: the largest value of a sample.
    """
    half = (most + 1) // 2
    ranges = reference or (0, most, half, most, half, most)
    red_share, green_share, blue_share = luma
    full = [(samples[..., band].astype(np.float32) - ranges[2 * band]) *
            (extent / (ranges[2 * band + 1] - ranges[2 * band]))
            for band, extent in enumerate((most, most // 2, most // 2))]
    red = full[0] + full[2] * (2 - 2 * red_share)
    blue = full[0] + full[1] * (2 - 2 * blue_share)
    green = (full[0] - red_share * red - blue_share * blue) / green_share
    rgb = np.stack([red, green, blue], axis=-1)
    return np.concatenate([np.clip(np.rint(rgb), 0, most).astype(samples.dtype),
                           samples[..., 3:]], axis=2)


def from_data_units(data: npt.NDArray[np.generic], rows: int, cols: int,
                    across: int, down: int) -> Array:
    """
    Arrange the YCbCr samples of a tile or strip with subsampled chroma (section 21).

    The samples form data units: ``across * down`` of Y, row by row, then one of Cb and one
    of Cr for all pixels of the unit.  Units at the edges are complete.

    :param data: the samples, in one dimension.
    :returns: an array (rows, cols, 3).
    :raises ValueError: if there are too few samples.
    """
    high, wide = -(-rows // down), -(-cols // across)
    unit = across * down + 2
    if data.size < high * wide * unit:
        msg = f'it has {data.size} of {high * wide * unit} samples'
        raise ValueError(msg)
    units = data[:high * wide * unit].reshape(high, wide, unit)
    result = np.empty((high, down, wide, across, 3), data.dtype)
    result[..., 0] = units[..., :-2].reshape(high, wide, down, across).swapaxes(1, 2)
    result[..., 1:] = units[:, np.newaxis, :, np.newaxis, -2:]
    return result.reshape(high * down, wide * across, 3)[:rows, :cols]


def lab_to_rgb(samples: Array, *, icc: bool = False) -> Array:
    """
    Convert L*a*b* to sRGB with the same number of bits, as libvips does; white stays white.

    CIELAB (section 23): L* of 0 to 100 is the whole range of the unsigned sample; a* and b*
    are signed, in units of 1 or, in 16 bits, of 1/256.  ICCLAB (Adobe's TIFF Technical Notes
    for Photoshop, 2002): a* and b* are unsigned with an offset of 128, and in 16 bits L* of
    100 is 0xff00.

    :param samples: (rows, cols, 3 or more) of 8 or 16 bits; further bands are kept.
    :param icc: whether it is ICCLAB.
    """
    unsigned = np.dtype(f'u{samples.itemsize}')
    stored = samples[..., :3].view(unsigned) if samples.dtype.kind == 'i' else samples[..., :3]
    most, unit = int(np.iinfo(unsigned).max), 1 << 8 * unsigned.itemsize - 8
    light = stored[..., 0] * np.float32(100 / (255 * unit if icc else most))
    opponents = (stored[..., 1:].astype(np.float32) - 128 * unit if icc else
                 stored[..., 1:].astype(unsigned).view(f'i{unsigned.itemsize}').astype(
                     np.float32)) / unit
    linear = np.clip(_xyz_of_lab(light, opponents) @ _XYZ_TO_RGB.T, 0, 1)
    # The transfer function of sRGB (IEC 61966-2-1).
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.concatenate([np.rint(rgb * most).astype(unsigned),
                           samples[..., 3:].astype(unsigned)], axis=2)


def _xyz_of_lab(light: Array, opponents: Array) -> Array:
    """Convert L* of 0 to 100 and (a*, b*) to XYZ, with Y = 1 for white (CIE 15, 8.2.1)."""
    middle = (light + 16) / 116
    roots = np.stack([middle + opponents[..., 0] / 500, middle,
                      middle - opponents[..., 1] / 200], axis=-1)
    xyz: Array = np.where(roots > 6 / 29, roots ** 3, (roots - 4 / 29) * 3 * (6 / 29) ** 2)
    return (xyz * _WHITE).astype(np.float32)
