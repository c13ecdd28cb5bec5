"""Reducing pixels: exact means, and no effect of transparent colours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers.pixels import random_pixels
from helpers.reduce_model import modelled
from large_image_source_vips.base import reduce
from large_image_source_vips.base.reduce import reduce_pixels


@st.composite
def pictures(draw):
    dtype = np.dtype(draw(st.sampled_from(['uint8', 'uint16', 'float32', 'float64'])))
    bands = draw(st.sampled_from([2, 4, 5]))
    shape = draw(st.integers(1, 19)), draw(st.integers(1, 19)), bands
    opaque = 65535 if dtype == np.uint16 else 255
    elements = (st.integers(0, np.iinfo(dtype).max) if dtype.kind == 'u'
                else st.floats(-1000, 1000, width=16))
    pixels = draw(hnp.arrays(dtype, shape, elements=elements))
    alpha = draw(st.integers(-bands, -1))
    values = st.sampled_from([0, 0, 1, 3, opaque // 2, opaque - 1, opaque, opaque])
    pixels[..., alpha] = draw(hnp.arrays(dtype, shape[:2], elements=values))
    return pixels, alpha


@settings(max_examples=250, deadline=None)
@given(pictures(), st.sampled_from([2, 4, 8]))
def test_colours_count_as_much_as_they_are_opaque(case, factor):
    pixels, alpha = case
    found = reduce_pixels(pixels, factor, averaged=True, alpha=alpha)
    assert found.dtype == pixels.dtype
    expected = modelled(pixels, factor, alpha)
    if pixels.dtype.kind == 'u':
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-2)


@settings(max_examples=150, deadline=None)
@given(pictures())
def test_colour_and_alpha_apart_have_the_same_means(case):
    pixels, alpha = case
    color, reduced_alpha = reduce.halve(
        np.delete(pixels, alpha, axis=2), pixels[..., alpha], averaged=True)
    expected = reduce_pixels(pixels, 2, averaged=True, alpha=alpha)
    np.testing.assert_array_equal(reduced_alpha, expected[..., alpha])
    np.testing.assert_array_equal(color, np.delete(expected, alpha, axis=2))


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)))
def test_a_sink_rounds_halves_as_reading_does(pixels):
    color, alpha = reduce.halve(pixels, None, averaged=True)
    assert alpha is None
    np.testing.assert_array_equal(color, reduce_pixels(pixels, 2, averaged=True))


@pytest.mark.parametrize('dtype', ['int8', 'int16', 'uint32', 'int32'])
def test_labels_with_alpha_are_picked(dtype):
    pixels = random_pixels((9, 7, 2), dtype)
    np.testing.assert_array_equal(
        reduce_pixels(pixels, 2, averaged=False, alpha=-1), pixels[::2, ::2])
    with pytest.raises(ValueError, match=dtype):
        reduce_pixels(pixels, 2, averaged=True, alpha=-1)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('value', ['opaque', 'half', 'transparent'])
def test_an_even_alpha_changes_nothing(dtype, value):
    pixels = random_pixels((517, 301, 4), dtype)
    opaque = 65535 if dtype == 'uint16' else 255
    pixels[..., 3] = {'opaque': opaque, 'half': opaque // 2, 'transparent': 0}[value]
    for factor in (2, 4, 8):
        np.testing.assert_array_equal(reduce_pixels(pixels, factor, averaged=True, alpha=-1),
                                      reduce_pixels(pixels, factor, averaged=True))


def test_a_single_transparent_pixel_is_noticed_wherever_it_is():
    for row, col in ((0, 0), (1023, 1023), (511, 700), (1024, 5), (3, 1024)):
        pixels = np.full((1025, 1025, 4), 255, np.uint8)
        pixels[row, col] = (0, 0, 0, 254)
        found = reduce_pixels(pixels, 2, averaged=True, alpha=-1)
        expected = modelled(pixels[row & ~1:(row & ~1) + 2, col & ~1:(col & ~1) + 2], 2, -1)
        np.testing.assert_array_equal(found[row // 2, col // 2], expected[0, 0])
        found[row // 2, col // 2] = 255
        assert (found == 255).all()


@pytest.mark.parametrize('strange', [np.nan, -np.inf, -5.0])
def test_alpha_that_is_no_share_counts_as_none(strange):
    pixels = np.array([[[10, 1], [20, strange], [30, 2], [np.nan, 0]]], np.float32)
    np.testing.assert_array_equal(
        reduce_pixels(pixels, 2, averaged=True, alpha=-1)[0, :, 0], [10, 30])


def test_no_number_under_transparent_pixels_stays_there():
    pixels = np.full((4, 4, 2), (np.nan, 0), np.float32)
    pixels[::2, ::2] = (7.5, 255)
    pixels[0, 2] = (np.inf, 255)
    found = reduce_pixels(pixels, 2, averaged=True, alpha=-1)
    np.testing.assert_array_equal(found[..., 0], [[7.5, np.inf], [7.5, 7.5]])
    np.testing.assert_array_equal(found[..., 1], 63.75)


def test_infinite_alpha_counts_as_much_as_the_largest():
    pixels = np.array([[[10, np.inf], [20, 1]], [[10, np.inf], [30, 1]]], np.float64)
    assert reduce_pixels(pixels, 2, averaged=True, alpha=-1)[0, 0, 0] == 10
