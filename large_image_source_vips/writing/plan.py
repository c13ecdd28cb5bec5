"""
Decide how to write a picture as a TIFF pyramid: compression, predictor, alpha, lower
levels.

A plan depends on the format of the picture and the arguments of ``write``; nothing is
written.  Pixels are read only to find the transparency of an 8-bit picture, if the plan
depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.formats import Meaning
from ..base.geometry import TILE_SIZE, Size
from ..base.limits import LIMITS
from ..codecs.encode import COMPRESSIONS, NO_PREDICTOR, check_available
from ..store import EncodedLevel, Picture
from .choices import (
    SUBSAMPLING,
    Choices,
    Resampler,
    chosen_compression,
    chosen_dtype,
    chosen_fill,
    chosen_predictor,
    chosen_quality,
    chosen_resample,
    chosen_subsampling,
    chosen_tile,
    in_words,
)

Array = npt.NDArray[Any]

TIFF_SUFFIXES = frozenset({'.tif', '.tiff'})

_TILE = Size(TILE_SIZE, TILE_SIZE)

# TIFF 6.0: PhotometricInterpretation, by the kind of a ``Meaning``; others are 1.
_PHOTOMETRIC = {'gray': 1, 'rgb': 2, 'cmyk': 5}
_PALETTE, _YCBCR = 3, 6
# The names of chroma subsamplings by TIFF's YCbCrSubSampling.
_CHROMA = {numbers: name for name, numbers in SUBSAMPLING.items()}
# ExtraSamples.
_UNASSOCIATED_ALPHA, _DATA = 2, 0

# The colour of holes in viewers that ignore masks.
_WHITE = 255


@dataclass(frozen=True)
class TiffPlan:
    """
    How to write a picture as a pyramid of tiles.

    :param compression: a key of ``codecs.encode.COMPRESSIONS``.
    :param quality: as for ``codecs.encode.tile_encoder``; None for lossless.
    :param subsampling: as for ``codecs.encode.tile_encoder``.
    :param predictor: TIFF's number.
    :param dtype: of the written samples.
    :param color_bands: the number of bands without alpha.
    :param alpha: 'band', 'mask' or '' for none.
    :param kind: the kind of the picture's ``Meaning``.
    :param tile: width and height of a tile.
    :param resample: 'mean', 'nearest' or a ``Resampler``.
    :param fill: the colour of transparent pixels; None to keep their colours.
    :param resample_chosen: whether the caller chose ``resample``; stored lower levels are
        then not used.
    :param passing: whether stored tiles may be passed on undecoded.
    :param verify: whether to decode those tiles, to check them.
    :param palette: whether the samples are labels with colours.
    """

    compression: str
    quality: int | None
    subsampling: str | None
    predictor: int
    dtype: np.dtype[Any]
    color_bands: int
    alpha: str
    kind: str
    tile: Size = _TILE
    resample: str | Resampler = 'nearest'
    fill: tuple[float, ...] | None = None
    resample_chosen: bool = False
    passing: bool = False
    verify: bool = False
    palette: bool = False

    @property
    def has_color_map(self) -> bool:
        """Whether the colours are in a ColorMap; if not, they are in the JSON text."""
        return self.palette and self.bands == 1 and self.dtype.name in {'uint8', 'uint16'}

    @property
    def bands(self) -> int:
        """The number of bands of a tile."""
        return self.color_bands + (self.alpha == 'band')

    @property
    def blank(self) -> Array:
        """The samples of blank pixels, (bands,)."""
        result = np.zeros(self.bands, self.dtype)
        if self.fill is not None:
            result[:self.color_bands] = self.fill
        return result

    @property
    def photometric(self) -> int:
        """TIFF's PhotometricInterpretation of compressed tiles."""
        if self.subsampling is not None and self.color_bands == 3:
            return _YCBCR
        if self.has_color_map:
            return _PALETTE
        return _PHOTOMETRIC.get(self.kind, 1)

    @property
    def extra_samples(self) -> tuple[int, ...]:
        """TIFF's ExtraSamples."""
        alpha = self.alpha == 'band'
        is_known = self.kind in _PHOTOMETRIC
        colors = self.color_bands if is_known else 1
        return (_DATA,) * (self.bands - colors - (alpha and is_known)) + (
            _UNASSOCIATED_ALPHA,) * (alpha and is_known)

    @property
    def chroma(self) -> tuple[int, int]:
        """TIFF's YCbCrSubSampling."""
        return (1, 1) if self.subsampling is None else SUBSAMPLING[self.subsampling]

    def passes_on(self, stored: EncodedLevel, level: int) -> bool:
        """
        Whether the tiles of a stored level can be passed on undecoded.

        :param stored: the level.
        :param level: its reduction.
        """
        compression = COMPRESSIONS[self.compression]
        is_alike = compression.lossy or stored.predictor == self.predictor
        # Tiles between them that are compressed again must look the same.
        is_known = (stored.subsampling in _CHROMA if stored.photometric == _YCBCR else
                    stored.photometric == self.photometric)
        return (self.passing and is_alike and is_known and
                (level == 0 or not self.resample_chosen) and
                stored.tile == self.tile and stored.samples == self.bands and
                stored.compression == compression.tag)

    def chroma_like(self, stored: EncodedLevel | None) -> str | None:
        """The ``subsampling`` for JPEG tiles of a level of which others are passed on."""
        if stored is None:
            return self.subsampling
        return _CHROMA[stored.subsampling] if stored.photometric == _YCBCR else None


def make_tiff_plan(picture: Picture, choices: Choices, *, masks: bool = True,
                   palette: bool = False) -> TiffPlan:
    """
    Decide how to write a picture as a tiled pyramid.

    By default, 8-bit gray and RGB are compressed with JPEG if loss is allowed, with a mask
    for holes; everything else with deflate.

    :param picture: the picture.
    :param choices: those of the caller.
    :param masks: whether the file can have masks.
    :param palette: whether the samples are labels with colours.
    :raises TileSourceError: if a choice is wrong, or the picture cannot have it.
    """
    side = None if choices.tile is None else chosen_tile(choices.tile)
    tile = _TILE if side is None else Size(side, side)
    plan = _plan_with_tile(picture, choices, tile, masks, palette)
    stored = picture.encoded.get(0)
    if stored is None:
        return plan
    # Arguments that are None are as in the file, if its tiles can then be passed on.
    alike = plan
    if choices.tile is None and _is_possible(stored.tile):
        alike = replace(alike, tile=stored.tile)
    if choices.predictor is None and stored.predictor == NO_PREDICTOR:
        alike = replace(alike, predictor=NO_PREDICTOR)
    return alike if alike.passes_on(stored, 0) else plan


def _is_possible(tile: Size) -> bool:
    """Whether a file can have tiles of a size."""
    return all(side % 16 == 0 and 16 <= side <= LIMITS.writing_tile for side in tile)


def _plan_with_tile(picture: Picture, choices: Choices, tile: Size, masks: bool,
                    palette: bool) -> TiffPlan:
    """The plan for tiles of a size; see ``make_tiff_plan``."""
    meaning = picture.meaning
    dtype = chosen_dtype(picture.dtype, choices)
    name = chosen_compression(choices.compression)
    alpha = 'band' if choices.alpha and meaning.has_alpha and not picture.opaque else ''
    is_photo = dtype == np.uint8 and not meaning.labels and meaning.kind in {'gray', 'rgb'}
    if alpha and (palette or (is_photo and choices.lossy and name in {None, 'jpeg'})):
        alpha = {'none': '', 'holes': 'mask' if masks else 'band', 'partial': 'band'}[
            picture.transparency()]
    if name is None:
        name = 'jpeg' if is_photo and choices.lossy and alpha != 'band' else 'deflate'
    _check_compression(name, meaning, dtype, alpha, choices.lossy, masks)
    check_available(name)
    quality = chosen_quality(name, choices, meaning)
    lossy = quality is not None
    resample = chosen_resample(choices.resample, dtype, meaning, lossy, bool(alpha))
    fill = chosen_fill(choices.fill, dtype, meaning)
    return TiffPlan(
        name, quality, chosen_subsampling(name, choices, quality, meaning),
        chosen_predictor(name, choices.predictor, dtype), dtype, meaning.color_bands, alpha,
        meaning.kind, tile, resample,
        (_WHITE,) * meaning.color_bands if fill is None and alpha == 'mask' and not palette
        else fill,
        resample_chosen=choices.resample is not None,
        passing=dtype == picture.dtype and choices.quality is None and
        choices.subsampling is None and (fill is None or picture.opaque),
        verify=choices.verify, palette=palette)


def _check_compression(name: str, meaning: Meaning, dtype: np.dtype[Any], alpha: str,
                       lossy: bool, masks: bool) -> None:
    """
    Check that a picture can have a compression.

    :raises TileSourceError: if it cannot; the text lists the possible ones.
    """
    problem = _problem(name, meaning, dtype, alpha, lossy, masks)
    if problem is None:
        return
    possible = [other for other in COMPRESSIONS
                if _problem(other, meaning, dtype, alpha, lossy, masks) is None]
    msg = (f'compression={name!r} is not possible: {problem}.  This image can have '
           f'{in_words(possible)}.')
    raise TileSourceError(msg)


def _problem(name: str, meaning: Meaning, dtype: np.dtype[Any], alpha: str,
             lossy: bool, masks: bool) -> str | None:
    """The reason why a picture cannot have a compression; None if it can."""
    compression = COMPRESSIONS[name]
    bands = meaning.color_bands + (alpha == 'band')
    shown = f'{bands} band{"s" if bands != 1 else ""} of {dtype}'
    if not compression.lossless and not lossy:
        return 'it is lossy, and lossy is False'
    if not compression.lossless and meaning.labels:
        return 'it is lossy, and the samples are labels'
    if alpha == 'band' and name == 'jpeg' and compression.holds(dtype, meaning.color_bands):
        why = ('it stores only opaque and fully transparent pixels, and some are partly transparent'
               if masks else 'in an OME-TIFF file it stores only opaque pixels')
        return f'{why}; alpha=False drops the transparency'
    if not compression.holds(dtype, bands):
        return f'it cannot store {shown}'
    if compression.bands and meaning.kind not in {'gray', 'rgb'} and name != 'jpeg2000':
        return f'it stores gray and RGB, not {meaning.kind}'
    return None
