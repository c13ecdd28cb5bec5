"""
Compress tiles for TIFF files.

=========  ======  ================================  ===========  ==================
name       tag     samples                           bands        loss
=========  ======  ================================  ===========  ==================
jpeg       7       uint8                             1, 3         always
webp       50001   uint8                             3, 4         if a quality is given
jpeg2000   34712   uint8, uint16                     1 to 4       if a quality is given
deflate    8       all                               any          never
zstd       50000   all                               any          never
lzw        5       all                               any          never
packbits   32773   all                               any          never
none       1       all                               any          never
=========  ======  ================================  ===========  ==================

imagecodecs encodes all but WebP.  Pillow encodes WebP, because it keeps the colours of
transparent pixels.  Both release the GIL.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.features
import PIL.Image

from ..base.errors import TileSourceError
from ..base.libraries import imagecodecs, missing_codec

Array = npt.NDArray[Any]
Encoder = Callable[[Array], bytes]

# TIFF 6.0 and its technical note 3 (2005): the values of Predictor.
NO_PREDICTOR, HORIZONTAL, FLOATING_POINT = 1, 2, 3

# Measured levels with the best ratio of size to time: libdeflate's default; zstd's fastest,
# which with a predictor also gives the smallest files up to level 9.
_DEFLATE_LEVEL = 6
_ZSTD_LEVEL = 1

# One row in 16 of a tile is compressed to see whether deflate's search for repetitions
# helps, if the entropy is above this many bits per byte; below, the search is fast and
# usually helps.
_SAMPLE_SHARE = 16
_NOISY_BITS = 4.0

_ALL = frozenset({'u1', 'i1', 'u2', 'i2', 'u4', 'i4', 'f4', 'f8', 'c8', 'c16'})


@dataclass(frozen=True)
class Compression:
    """
    A compression, and the samples that it can store.

    :param tag: TIFF's number for it.
    :param codec: the name of the codec in imagecodecs; '' if none is needed.
    :param dtypes: the sample types, as numpy kind and bytes.
    :param bands: the numbers of bands; empty for any.
    :param lossy: whether it can lose values.
    :param lossless: whether it can keep them.
    :param predicts: whether a predictor can be applied before it.
    """

    tag: int
    codec: str
    dtypes: frozenset[str] = _ALL
    bands: frozenset[int] = frozenset()
    lossy: bool = False
    lossless: bool = True
    predicts: bool = False

    def holds(self, dtype: np.dtype[Any], bands: int) -> bool:
        """Whether it can store tiles of a dtype and number of bands."""
        return f'{dtype.kind}{dtype.itemsize}' in self.dtypes and (
            not self.bands or bands in self.bands)


COMPRESSIONS: dict[str, Compression] = {
    'jpeg': Compression(
        7, 'JPEG8', frozenset({'u1'}), frozenset({1, 3}), lossy=True, lossless=False),
    'webp': Compression(50001, '', frozenset({'u1'}), frozenset({3, 4}), lossy=True),
    'jpeg2000': Compression(
        34712, 'JPEG2K', frozenset({'u1', 'u2'}), frozenset({1, 2, 3, 4}), lossy=True),
    'deflate': Compression(8, 'DEFLATE', predicts=True),
    'zstd': Compression(50000, 'ZSTD', predicts=True),
    'lzw': Compression(5, 'LZW', predicts=True),
    'packbits': Compression(32773, 'PACKBITS'),
    'none': Compression(1, ''),
}


def check_available(name: str) -> None:
    """
    Check that the library for a compression is available.

    :param name: a key of ``COMPRESSIONS``.
    :raises TileSourceError: if the library was built without the codec.
    """
    codec = COMPRESSIONS[name].codec
    missing: str | None = None
    if name == 'webp':
        if not PIL.features.check('webp'):
            missing = ('Pillow (package pillow) is installed without it; install a build that '
                       'has it')
    elif codec:
        missing = missing_codec('imagecodecs', codec, name)
    if missing:
        msg = f'The compression {name} is not available: {missing}.'
        raise TileSourceError(msg)


def tile_encoder(name: str, *, quality: int | None = None, subsampling: str | None = None,
                 predictor: int = NO_PREDICTOR) -> Encoder:
    """
    Make a function that compresses tiles.

    :param name: a key of ``COMPRESSIONS``.
    :param quality: for JPEG and WebP 1 to 100, for JPEG 2000 the signal-to-noise ratio in
        dB; None for lossless.
    :param subsampling: for JPEG: None to store RGB, or '4:4:4', '4:2:2' or '4:2:0' to store
        YCbCr with that chroma subsampling.
    :param predictor: 1 for none, 2 for differences, 3 for differences of the bytes of floats.
    :returns: a function for C-contiguous arrays (rows, cols, bands); to be called from any
        thread.  JPEG leaves out the fourth of 4 bands, which costs nothing.
    """
    if name == 'jpeg':
        colours = 'RGB' if subsampling is None else 'YCBCR'
        chroma = (subsampling or '4:4:4').replace(':', '')

        def jpeg(tile: Array) -> bytes:
            if tile.shape[2] == 1:
                return bytes(imagecodecs().jpeg8_encode(tile[:, :, 0], quality))
            given = 'RGB' if tile.shape[2] == 3 else imagecodecs().JPEG8.CS.EXT_RGBX
            return bytes(imagecodecs().jpeg8_encode(
                tile, quality, colorspace=given, outcolorspace=colours, subsampling=chroma))

        return jpeg
    if name == 'webp':
        return lambda tile: _webp(tile, quality)
    if name == 'jpeg2000':
        def jpeg2000(tile: Array) -> bytes:
            return bytes(imagecodecs().jpeg2k_encode(
                tile[:, :, 0] if tile.shape[2] == 1 else tile, 0 if quality is None else quality,
                codecformat='j2k', reversible=quality is None))

        return jpeg2000
    pack = _deflate_differences if (name, predictor) == ('deflate', HORIZONTAL) else _PACKERS[name]
    predict = _PREDICTORS[predictor]
    return lambda tile: pack(predict(tile))


def _webp(tile: Array, quality: int | None) -> bytes:
    """Compress as WebP; alpha and the colours under it are kept."""
    buffer = io.BytesIO()
    # method=0 is the fastest; others take three times as long for files 3 % smaller.
    PIL.Image.fromarray(tile).save(
        buffer, 'WEBP', quality=80 if quality is None else quality, lossless=quality is None,
        method=0, exact=True)
    return buffer.getvalue()


def _differences(tile: Array) -> Array:
    """Differences from the left neighbour, modulo the range of the samples (TIFF 6.0, 14)."""
    rows, bands = tile.shape[0], tile.shape[2]
    # Rows of samples: numpy's inner loops over a few bands are slow.
    flat = tile.reshape(rows, -1)
    result = np.empty_like(flat)
    result[:, :bands] = flat[:, :bands]
    np.subtract(flat[:, bands:], flat[:, :-bands], out=result[:, bands:])
    return result


def _float_differences(tile: Array) -> Array:
    """Differences of the bytes of a row of floats (TIFF technical note 3)."""
    result: Array = imagecodecs().floatpred_encode(tile, axis=1)
    return result


_PREDICTORS: dict[int, Callable[[Array], Array]] = {
    NO_PREDICTOR: lambda tile: tile, HORIZONTAL: _differences, FLOATING_POINT: _float_differences}

def _deflate(tile: Array, level: int = _DEFLATE_LEVEL) -> bytes:
    """Compress with deflate."""
    return bytes(imagecodecs().deflate_encode(tile, level))


def _deflate_differences(tile: Array) -> bytes:
    """
    Compress differences (rows, samples) with deflate; noise without a long search.

    The search for repetitions takes half of the time and finds none in the noise of a
    camera: 8-bit samples then get Huffman codes only.  Noise of 16 bits is smaller at level
    1, which is up to five times as fast.  To decide, some rows are compressed both ways.
    """
    quick = _QUICK.get(tile.itemsize)
    if quick is not None and len(tile) >= _SAMPLE_SHARE:
        rows = max(1, len(tile) // _SAMPLE_SHARE)
        top = (len(tile) - rows) // 2
        sample = tile[top:top + rows].reshape(-1)
        is_noisy = tile.itemsize > 1 or _entropy(sample) > _NOISY_BITS
        if is_noisy and len(quick(sample)) <= len(_deflate(sample)):
            return quick(tile)
    return _deflate(tile)


def _entropy(samples: Array) -> float:
    """The Shannon entropy of the bytes of an array, in bits per byte."""
    counts = np.bincount(samples.view(np.uint8), minlength=256)
    counts = counts[counts > 0]
    return float(np.log2(samples.size) - (counts * np.log2(counts)).sum() / samples.size)


def _huffman_coded(tile: Array) -> bytes:
    """A deflate stream of codes for single bytes, without repetitions."""
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1,
                              zlib.Z_HUFFMAN_ONLY)
    return packer.compress(tile.data) + packer.flush()


# By the bytes of a sample: how noise is compressed.
_QUICK: dict[int, Encoder] = {1: _huffman_coded, 2: lambda tile: _deflate(tile, 1)}

_PACKERS: dict[str, Encoder] = {
    'deflate': _deflate,
    'zstd': lambda tile: bytes(imagecodecs().zstd_encode(tile, _ZSTD_LEVEL)),
    'lzw': lambda tile: bytes(imagecodecs().lzw_encode(tile)),
    'packbits': lambda tile: bytes(imagecodecs().packbits_encode(
        tile.reshape(tile.shape[0], -1).view(np.uint8), axis=-1)),
    'none': lambda tile: tile.tobytes(),
}


# TIFF's number of the compression of masks.
MASK_COMPRESSION = 8


def encode_mask(hidden: npt.NDArray[np.bool_]) -> bytes:
    """
    Compress a tile of a 1-bit transparency mask with deflate.

    :param hidden: True for transparent pixels, (rows, cols); the columns are a multiple of
        8.
    """
    # Measured: zlib at level 1 takes 9 us, libdeflate at any level 18 us or more.
    return zlib.compress(np.invert(np.packbits(hidden, axis=1)).data, 1)


def check_tile(name: str, data: bytes) -> None:
    """
    Decode a compressed tile to verify it.

    :param name: a key of ``COMPRESSIONS``.
    :param data: the tile.
    :raises ValueError: if it is damaged.
    :raises RuntimeError: if it is damaged.
    """
    if name == 'jpeg':
        # Truncated JPEG data are an error here; imagecodecs reports nothing.
        import simplejpeg

        simplejpeg.decode_jpeg(data)
    elif name == 'webp':
        imagecodecs().webp_decode(data)
    elif name == 'jpeg2000':
        imagecodecs().jpeg2k_decode(data)
    elif name in _UNPACKERS:
        _UNPACKERS[name](data)


_UNPACKERS: dict[str, Callable[[bytes], Any]] = {
    'deflate': lambda data: imagecodecs().deflate_decode(data),
    'zstd': lambda data: imagecodecs().zstd_decode(data),
    'lzw': lambda data: imagecodecs().lzw_decode(data),
    'packbits': lambda data: imagecodecs().packbits_decode(data)}
