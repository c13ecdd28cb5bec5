"""HEIF and AVIF: the primary image, and files that libheif cannot decode."""

import dataclasses

import numpy as np
import PIL.Image
import pytest
import pyvips
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.around import needs
from helpers.heif import heif
from helpers.pixels import smooth_pixels
from helpers.reading import level
from large_image_source_vips.base.limits import LIMITS
from large_image_source_vips.reading import survey
from large_image_source_vips.reading.reader import FileReader

PIL.Image.init()
pytestmark = [needs('heifload'), pytest.mark.skipif(
    'AVIF' not in PIL.Image.SAVE, reason='Pillow writes no AVIF')]

SMALL, FIRST, SECOND = (smooth_pixels(rows, cols, seed=seed) for rows, cols, seed in (
    (48, 64, 1), (80, 96, 2), (80, 96, 3)))


@pytest.fixture
def opened(tmp_path):
    """Opens the bytes of a file."""
    def open_bytes(data):
        (tmp_path / 'a.avif').write_bytes(data)
        return FileReader(tmp_path / 'a.avif')
    return open_bytes


def assert_shows(pixels, expected):
    """That pixels are a picture, after lossy compression."""
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 5


@pytest.mark.parametrize(('primary', 'shown', 'others'), [
    (0, [SMALL], {'page_1': FIRST, 'page_2': SECOND}),
    (1, [FIRST, SECOND], {'page_0': SMALL}),
    (2, [SECOND, FIRST], {'page_0': SMALL})])
def test_the_primary_image_is_the_first_frame(opened, primary, shown, others):
    reader = opened(heif([SMALL, FIRST, SECOND], primary, quality=95))
    assert reader.frame_count == len(shown)
    for frame, expected in enumerate(shown):
        assert_shows(level(reader, frame=frame), expected)
    assert set(reader.associated_names()) == set(others)
    for key, expected in others.items():
        assert_shows(np.asarray(reader.associated_image(key)), expected)


def test_the_levels_of_a_primary_image_that_is_not_the_first(opened):
    reader = opened(heif([SMALL, smooth_pixels(600, 700)], 1, quality=95))
    assert tuple(reader.size) == (700, 600)
    assert_shows(level(reader, 1), level(reader)[::2, ::2])


def test_images_of_a_file_are_counted(opened, monkeypatch):
    monkeypatch.setattr(survey, 'LIMITS', dataclasses.replace(LIMITS, reading_heif_images=2))
    assert opened(heif([FIRST, SECOND], quality=95)).frame_count == 2
    assert opened(heif([FIRST, SECOND, FIRST], quality=95)).frame_count == 2


def lacks_hevc(path):
    """Whether this libheif lacks a decoder of HEVC."""
    try:
        pyvips.Region.new(pyvips.Image.new_from_file(str(path))).fetch(0, 0, 1, 1)
    except pyvips.Error as exc:
        return 'not been built in' in str(exc) or 'Unsupported codec' in str(exc)
    return False


def test_a_codec_that_is_missing_is_named_when_the_file_is_opened(tmp_path):
    path = tmp_path / 'photo.heic'
    path.write_bytes(heif([SMALL], kind=b'hvc1', brand=b'heic'))
    if not lacks_hevc(path):
        pytest.skip('this libheif decodes HEVC')
    assert not large_image_source_vips.canRead(path)
    with pytest.raises(TileSourceError) as error:
        large_image_source_vips.open(path)
    for words in ('photo.heic', 'HEVC', 'lacks that codec', 'libvips42',
                  'large-image-source-pil with pillow-heif'):
        assert words in str(error.value)


def test_a_codec_that_is_missing_does_not_stop_the_others(tmp_path):
    for name, kind, brand in (('a.heic', b'hvc1', b'heic'), ('a.avif', b'av01', b'avif')):
        (tmp_path / name).write_bytes(heif([SMALL], kind=kind, brand=brand))
    for _ in range(2):
        # Data that are no HEVC fail in either way.
        with pytest.raises(TileSourceError):
            level(FileReader(tmp_path / 'a.heic'))
        assert_shows(level(FileReader(tmp_path / 'a.avif')), SMALL)


def test_damaged_data_fail_when_they_are_read(opened, monkeypatch):
    monkeypatch.setattr(survey, '_decoded_codecs', set())
    data = heif([SMALL], damage=lambda data: b'\xff' * len(data))
    with pytest.raises(TileSourceError, match=r'a\.avif'):
        level(opened(data))


def test_a_codec_is_tried_once(opened, monkeypatch):
    tried = set()
    monkeypatch.setattr(survey, '_decoded_codecs', tried)
    opened(heif([SMALL]))
    assert tried == {frozenset({'AV1'})}
    monkeypatch.setattr(survey, 'pyvips', None)
    opened(heif([FIRST]))
