"""Whole JPEG 2000 files: sizes in their headers, bounds, damage."""

import dataclasses

import numpy as np
import pytest

from helpers.pixels import random_pixels
from large_image_source_vips.base.limits import LIMITS
from large_image_source_vips.codecs import jpeg_2000

imagecodecs = pytest.importorskip('imagecodecs')


def encoded(shape, dtype='uint8', codecformat='jp2'):
    pixels = random_pixels(shape, dtype)
    return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat=codecformat), pixels


@pytest.mark.parametrize('shape', [(30, 41, 3), (30, 41, 1), (1, 1, 4)])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16'])
@pytest.mark.parametrize('codecformat', ['jp2', 'j2k'])
def test_files_and_streams(shape, dtype, codecformat):
    data, pixels = encoded(shape, dtype, codecformat)
    assert jpeg_2000.decoded_bytes(data) == pixels.nbytes
    np.testing.assert_array_equal(jpeg_2000.decode(data), pixels)


@pytest.mark.parametrize(('most', 'fits'), [(3690, True), (3689, False)])
def test_the_pixels_have_a_bound(monkeypatch, most, fits):
    monkeypatch.setattr(jpeg_2000, 'LIMITS', dataclasses.replace(LIMITS, codecs_picture=most))
    data, pixels = encoded((30, 41, 3))
    if fits:
        np.testing.assert_array_equal(jpeg_2000.decode(data), pixels)
    else:
        with pytest.raises(jpeg_2000.Jpeg2000Error, match='3690 bytes of pixels'):
            jpeg_2000.decode(data)


def test_a_header_that_claims_much_is_not_believed():
    data = bytearray(encoded((30, 41, 3))[0])
    at = data.index(b'\xff\x4f\xff\x51') + 8
    data[at:at + 8] = b'\x7f\xff\xff\xff' * 2
    with pytest.raises(jpeg_2000.Jpeg2000Error, match='to decode in one piece'):
        jpeg_2000.decode(bytes(data))


@pytest.mark.parametrize('size', [0, 10, 100, 130])
def test_damaged_files(size):
    with pytest.raises(jpeg_2000.Jpeg2000Error):
        jpeg_2000.decode(encoded((30, 41, 3))[0][:size])
