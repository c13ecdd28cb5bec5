"""Deflate streams of tiles: valid for all decoders, small for noise and for repetitions."""

import zlib

import imagecodecs
import numpy as np
import pytest

from large_image_source_vips.codecs.encode import tile_encoder

SIDE = 256


def made(kind, side=SIDE):
    numbers = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side]
    smooth = (128 + 100 * np.sin(x / 60) * np.cos(y / 80))[:, :, None]
    tiles = {
        'noise': numbers.integers(0, 256, (side, side, 3)),
        'photograph': np.clip(smooth + numbers.normal(0, 6, (side, side, 3)), 0, 255),
        'periodic': np.tile(numbers.integers(0, 256, (64, 64, 3)), (side // 16, side // 16, 1))[
            :side, :side],
        'smooth': smooth.repeat(3, axis=2),
        'flat': np.full((side, side, 3), 7),
        'one noisy half': np.where(y[:, :, None] < side // 2, 9,
                                   numbers.integers(0, 256, (side, side, 3)))}
    return np.ascontiguousarray(tiles[kind].astype(np.uint8))


@pytest.mark.parametrize('kind', [
    'noise', 'photograph', 'periodic', 'smooth', 'flat', 'one noisy half'])
@pytest.mark.parametrize('predictor', [1, 2])
def test_every_decoder_gets_the_samples_back_and_none_is_larger_than_it_was(kind, predictor):
    tile = made(kind)
    data = tile_encoder('deflate', predictor=predictor)(tile)
    exact = tile
    if predictor == 2:
        exact = imagecodecs.delta_encode(tile, axis=1)
    assert zlib.decompress(data) == exact.tobytes()
    assert imagecodecs.deflate_decode(data) == exact.tobytes()
    usual = len(imagecodecs.deflate_encode(exact, 6))
    assert len(data) <= 1.01 * usual
    if kind == 'photograph' and predictor == 2:
        # Codes alone are smaller than codes and a search that finds nothing.
        assert len(data) < 0.995 * usual


@pytest.mark.parametrize('noise', [0, 1, 30, 500])
@pytest.mark.parametrize('dtype', ['uint16', 'int16'])
def test_noise_of_16_bits_comes_back_and_is_not_larger(noise, dtype):
    y, x = np.mgrid[:SIDE, :SIDE]
    samples = 9000 + 1000 * np.sin(x / 50) * np.cos(y / 40)
    tile = np.random.default_rng(4).normal(samples, noise)[:, :, None].astype(dtype)
    data = tile_encoder('deflate', predictor=2)(tile)
    exact = imagecodecs.delta_encode(tile, axis=1)
    assert zlib.decompress(data) == exact.tobytes()
    usual = len(imagecodecs.deflate_encode(exact, 6))
    assert len(data) <= 1.01 * usual
    if noise > 10:
        assert len(data) < usual


@pytest.mark.parametrize('side', [16, 32, 80])
@pytest.mark.parametrize('dtype', ['uint8', 'int8', 'uint16', 'float32'])
def test_small_tiles_and_other_samples_come_back(side, dtype):
    tile = made('photograph', side).astype(dtype)
    data = tile_encoder('deflate', predictor=1)(tile)
    assert zlib.decompress(data) == tile.tobytes()
