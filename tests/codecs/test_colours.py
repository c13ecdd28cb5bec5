"""Conversion of TIFF samples to colours."""

import itertools
import re

import numpy as np
import PIL.Image
import pytest
import pyvips

from large_image_source_vips.codecs import colours
from large_image_source_vips.codecs.colours import Colours, conversion, problem

ALL_BYTES = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)


def converted(samples, photometric, **kwargs):
    """What a page of these samples shows."""
    bits = kwargs.pop('bits', 8 * samples.itemsize)
    meaning = Colours(photometric, samples.dtype, samples.shape[2], bits, **kwargs)
    assert problem(meaning) is None
    before = samples.copy()
    found = conversion(meaning)
    result = samples if found.convert is None else found.convert(samples)
    np.testing.assert_array_equal(samples, before)
    assert (result.dtype, result.shape[2]) == (found.dtype, found.bands)
    assert result.shape[:2] == samples.shape[:2]
    return result


@pytest.mark.parametrize('bits', range(1, 17))
@pytest.mark.parametrize('photometric', [0, 1])
def test_gray_of_any_width(bits, photometric):
    most = 2 ** bits - 1
    gray = np.linspace(0, most, 40).astype(np.uint8 if bits <= 8 else np.uint16).reshape(5, 8, 1)
    expected = gray if photometric else most - gray
    if bits in {1, 2, 4}:
        expected = expected * (255 // most)
    np.testing.assert_array_equal(converted(gray, photometric, bits=bits), expected)


@pytest.mark.parametrize('dtype', ['int8', 'int16', 'int32', 'float32', 'float64'])
def test_signed_and_float_samples_are_not_inverted(dtype):
    gray = np.array([[[-3], [0], [100]]], dtype)
    np.testing.assert_array_equal(converted(gray, 0), gray)


def test_alpha_beside_gray_is_not_inverted():
    both = np.array([[[0, 0], [3, 3], [1, 2]]], np.uint8)
    expected = np.array([[[255, 0], [0, 255], [170, 170]]], np.uint8)
    np.testing.assert_array_equal(
        converted(both, 0, bits=2, extra=(2,)), expected)
    deep = np.array([[[0, 7], [4095, 9]]], np.uint16)
    np.testing.assert_array_equal(
        converted(deep, 0, bits=12, extra=(2,)), [[[4095, 7], [0, 9]]])


def test_rgb_of_5_6_and_5_bits_is_scaled():
    rgb = np.array([[[31, 63, 31], [0, 0, 0], [15, 31, 1]]], np.uint8)
    np.testing.assert_array_equal(
        converted(rgb, 2, bits=6, bits_each=(5, 6, 5)),
        [[[255, 255, 255], [0, 0, 0], [123, 125, 8]]])


def test_colours_multiplied_by_alpha_are_divided_as_pillow_does():
    pairs = np.array(list(itertools.product(range(256), repeat=2)), np.uint8)
    multiplied = np.stack([pairs[:, 0], pairs[:, 0] // 2, pairs[:, 0] // 3, pairs[:, 1]], 1)
    expected = np.asarray(PIL.Image.frombytes(
        'RGBa', (256, 256), multiplied.tobytes()).convert('RGBA'))
    found = converted(multiplied.reshape(256, 256, 4), 2, extra=(1,))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(('dtype', 'most'), [('uint16', 65535), ('uint32', 2 ** 32 - 1)])
def test_wide_colours_multiplied_by_alpha(dtype, most):
    multiplied = np.array([[[most // 3, 0, 100, most // 3], [5, 6, 7, 0]]], dtype)
    found = converted(multiplied, 2, extra=(1,))
    np.testing.assert_array_equal(
        found, [[[most, 0, 100 * most // (most // 3), most // 3], [5, 6, 7, 0]]])


def test_float_colours_multiplied_by_alpha():
    found = converted(np.array([[[.5, .25, .1, .5], [3, 2, 1, 0]]], np.float32), 2, extra=(1,))
    np.testing.assert_array_equal(
        found, np.array([[[1, .5, .2, .5], [3, 2, 1, 0]]], np.float32))


def test_several_alphas_are_data():
    samples = np.array([[[100, 100, 100, 50, 50]]], np.uint8)
    np.testing.assert_array_equal(converted(samples, 2, extra=(1, 2)), samples)


@pytest.mark.parametrize('bits', [1, 2, 4, 8, 16])
def test_palettes_become_colours(bits):
    rng = np.random.default_rng(bits)
    palette = rng.integers(0, 65536, (3, 2 ** bits)).astype(np.uint16)
    indices = rng.integers(0, 2 ** bits, (9, 7, 1)).astype(np.uint8 if bits <= 8 else np.uint16)
    expected = palette.T[indices[..., 0]]
    if bits <= 8:
        expected = expected // 256
    np.testing.assert_array_equal(
        converted(indices, 3, bits=bits, palette=palette), expected)


def test_palettes_of_8_bits_are_not_made_darker():
    palette = np.arange(768, dtype=np.uint16).reshape(3, 256) % 256
    found = converted(ALL_BYTES, 3, palette=palette)
    np.testing.assert_array_equal(found.reshape(256, 3), palette.T)


def test_alpha_beside_a_palette_is_kept_and_other_samples_are_dropped():
    palette = np.full((3, 256), 300 * 16, np.uint16)
    samples = np.dstack([ALL_BYTES, ALL_BYTES[::-1]])
    with_alpha = converted(samples, 3, palette=palette, extra=(2,))
    assert with_alpha.shape[2] == 4
    np.testing.assert_array_equal(with_alpha[..., 3:], ALL_BYTES[::-1])
    for extra in ((0,), ()):
        assert converted(samples, 3, palette=palette, extra=extra).shape[2] == 3


def test_cmyk_becomes_rgb_as_pillow_converts_it():
    rng = np.random.default_rng(1)
    inks = rng.integers(0, 256, (300, 400, 4)).astype(np.uint8)
    expected = np.asarray(
        PIL.Image.frombytes('CMYK', (400, 300), inks.tobytes()).convert('RGB'))
    np.testing.assert_array_equal(converted(inks, 5), expected)


@pytest.mark.parametrize('bits', [12, 16])
def test_cmyk_of_more_bits(bits):
    white = 2 ** bits - 1
    inks = np.array([[[0, 0, 0, 0], [white, 0, 0, 0], [0, 0, 0, white],
                      [white // 2, white, 0, white // 2]]], np.uint16)
    found = converted(inks, 5, bits=bits).astype(float)
    cyan, magenta, yellow, black = np.moveaxis(inks / white, 2, 0)
    expected = white * np.stack([(1 - ink) * (1 - black) for ink in (cyan, magenta, yellow)], 2)
    assert np.abs(found - expected).max() <= 1


def test_alpha_beside_cmyk_is_kept_and_other_inks_are_dropped():
    inks = np.array([[[10, 20, 30, 40, 50]]], np.uint8)
    assert converted(inks, 5, extra=(2,)).tolist()[0][0][3:] == [50]
    assert converted(inks, 5, extra=(0,)).shape[2] == 3


def test_ycbcr_becomes_rgb_as_pillow_converts_it():
    rgb = np.random.default_rng(1).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    stored = PIL.Image.fromarray(rgb).convert('YCbCr')
    found = converted(np.asarray(stored), 6)
    assert np.abs(found.astype(int) - np.asarray(stored.convert('RGB'))).max() <= 1
    assert np.abs(found.astype(int) - rgb).max() <= 3


@pytest.mark.parametrize('bits', [8, 10, 16])
@pytest.mark.parametrize('luma', [(.299, .587, .114), (.2126, .7152, .0722)])
@pytest.mark.parametrize('studio', [False, True], ids=['full range', 'studio range'])
def test_ycbcr_follows_its_tags(bits, luma, studio):
    most = 2 ** bits - 1
    rgb = np.random.default_rng(1).uniform(0, 1, (20, 30, 3))
    luminance = rgb @ luma
    blue, red = ((rgb[..., band] - luminance) / (2 - 2 * luma[band]) for band in (2, 0))
    step = (most + 1) / 256
    reference = tuple(step * code for code in (16, 235, 128, 240, 128, 240)) if studio else ()
    ranges = reference or (0, most, 128 * step, most, 128 * step, most)
    # Cb and Cr of -0.5 to 0.5 take twice the coding range of 127.
    codes = np.stack([ranges[0] + luminance * (ranges[1] - ranges[0])] + [
        ranges[2] + part * most * (ranges[3] - ranges[2]) / (most // 2)
        for part in (blue, red)], 2)
    stored = np.clip(np.rint(codes), 0, most).astype(np.uint8 if bits == 8 else np.uint16)
    found = converted(stored, 6, bits=bits, luma=luma, reference=reference)
    assert np.abs(found / most - rgb).max() <= 2.5 / most + 2 * bool(studio) / 255


def test_ycbcr_that_the_codec_has_converted_stays():
    samples = np.random.default_rng(1).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    np.testing.assert_array_equal(converted(samples, 6, decoded=True), samples)


@pytest.mark.parametrize(('across', 'down'), list(itertools.product((1, 2, 4), repeat=2)))
@pytest.mark.parametrize('size', [(8, 16), (7, 13), (1, 1)])
def test_data_units_of_subsampled_chroma(across, down, size):
    rows, cols = size
    high, wide = -(-rows // down), -(-cols // across)
    rng = np.random.default_rng(across)
    luma = rng.integers(0, 256, (high * down, wide * across))
    chroma = rng.integers(0, 256, (high, wide, 2))
    data = []
    for row in range(high):
        for col in range(wide):
            block = luma[row * down:(row + 1) * down, col * across:(col + 1) * across]
            data += [*block.ravel(), *chroma[row, col]]
    found = colours.from_data_units(np.array(data, np.uint8), rows, cols, across, down)
    np.testing.assert_array_equal(found[..., 0], luma[:rows, :cols])
    for row in range(rows):
        for col in range(cols):
            assert found[row, col, 1:].tolist() == chroma[row // down, col // across].tolist()
    with pytest.raises(ValueError, match='samples'):
        colours.from_data_units(np.array(data[:-1], np.uint8), rows, cols, across, down)


@pytest.mark.parametrize('photometric', [8, 9])
@pytest.mark.parametrize('bits', [8, 16])
def test_lab_becomes_the_colours_that_libvips_makes(photometric, bits):
    rng = np.random.default_rng(1)
    lab = np.dstack([rng.uniform(0, 100, (40, 50)), rng.uniform(-100, 100, (40, 50, 2))])
    lab[0, 0], lab[0, 1] = (100, 0, 0), (0, 0, 0)
    unit = 1 << bits - 8
    unsigned = np.dtype(f'u{bits // 8}')
    if photometric == 8:
        light = np.rint(lab[..., :1] / 100 * (2 ** bits - 1)).astype(unsigned)
        opponents = np.rint(lab[..., 1:] * unit).astype(f'i{bits // 8}').view(unsigned)
        exact = np.dstack([light / (2 ** bits - 1) * 100,
                           opponents.view(f'i{bits // 8}') / unit])
    else:
        light = np.rint(lab[..., :1] / 100 * 255 * unit).astype(unsigned)
        opponents = np.rint((lab[..., 1:] + 128) * unit).astype(unsigned)
        exact = np.dstack([light / (255 * unit) * 100, opponents / unit - 128.])
    found = converted(np.dstack([light, opponents]), photometric)
    expected = pyvips.Image.new_from_array(exact.astype(np.float32)).copy(
        interpretation='lab').colourspace('srgb' if bits == 8 else 'rgb16').numpy()
    assert found[0, 0].tolist() == [2 ** bits - 1] * 3
    assert found[0, 1].tolist() == [0] * 3
    assert np.abs(found.astype(float) - expected).max() <= 2 * unit


@pytest.mark.parametrize(('meaning', 'reason'), [
    (Colours(2, np.dtype('u1'), 2, 8), 'takes 3 samples'),
    (Colours(3, np.dtype('u1'), 1, 8), 'palette'),
    (Colours(3, np.dtype('f4'), 1, 32), 'indexed'),
    (Colours(6, np.dtype('f4'), 3, 32), 'YCbCr'),
    (Colours(6, np.dtype('u1'), 3, 8, luma=(0.5, 0, 0.5)), 'YCbCrCoefficients'),
    (Colours(6, np.dtype('u1'), 3, 8, reference=(0, 255, 128, 128, 128, 255)), 'Reference'),
    (Colours(8, np.dtype('f4'), 3, 32), 'L\\*a\\*b\\*'),
])
def test_what_cannot_be_converted_is_said(meaning, reason):
    assert re.search(reason, problem(meaning))


@pytest.mark.parametrize(('photometric', 'dtype', 'samples', 'expected'), [
    (1, 'u1', 1, 'b-w'), (0, 'u2', 1, 'grey16'), (1, 'f4', 1, 'b-w'), (2, 'u1', 3, 'srgb'),
    (2, 'u2', 4, 'rgb16'), (2, 'f4', 3, 'scrgb'), (6, 'u1', 3, 'srgb'), (5, 'u1', 4, 'srgb'),
    (5, 'u2', 4, 'rgb16'), (5, 'u1', 2, 'multiband'), (8, 'u2', 3, 'rgb16'),
    (32803, 'u2', 1, 'multiband'),
])
def test_interpretations_are_those_of_libvips(photometric, dtype, samples, expected):
    dtype = np.dtype(dtype)
    found = conversion(Colours(photometric, dtype, samples, 8 * dtype.itemsize))
    assert found.interpretation == expected
