"""Unchanged tiles of a file are copied without decoding."""


import imagecodecs
import numpy as np
import pytest
import pyvips
import tifffile
from large_image.exceptions import TileSourceError

from helpers.pictures import one_frame
from large_image_source_vips.base.formats import GRAY, RGB
from large_image_source_vips.base.geometry import Rect, Size
from large_image_source_vips.store import EncodedLevel, Picture
from large_image_source_vips.writing.choices import Choices
from large_image_source_vips.writing.write import write_image

SIZE = Size(700, 500)
YCBCR, DEFLATE, JPEG = 6, 8, 7


def photo(size=SIZE):
    y, x = np.mgrid[:size.height, :size.width]
    parts = [128 + 100 * np.sin(x / 60 + k) * np.cos(y / 80 - k) for k in range(3)]
    return np.stack(parts, axis=2).astype(np.uint8)


def whole_tile(pixels, column, row, side=256):
    part = pixels[row * side:row * side + side, column * side:column * side + side]
    return np.pad(part, ((0, side - part.shape[0]), (0, side - part.shape[1]), (0, 0)))


class Slide:
    """A picture in YCbCr JPEG tiles of quality 60, as a file has it; counts what is read."""

    def __init__(self, levels=(0,), floor=False, missing_codec=(), damage=None):
        self.pixels = photo()
        self.decoded = 0
        self.tiles, self._lacking, self._damage = {}, missing_codec, damage
        self.picture = Picture(
            SIZE, np.dtype(np.uint8), RGB, True, (None, None), None, self._read, self._filled,
            lambda: 'none', {level: self._level(level, floor) for level in levels})

    def _read(self, rect):
        self.decoded += 1
        return self.pixels[rect.top:rect.bottom, rect.left:rect.right], None

    def _filled(self):
        yield Rect(0, 0, *SIZE)

    def _level(self, level, floor):
        size = SIZE.reduced(level)
        if floor and level:
            size = Size(SIZE.width >> level, SIZE.height >> level)
        # Not what reducing would give, to tell which of the two was written.
        pixels = photo(size)[::-1]

        def read(column, row):
            if (level, column, row) in self._lacking:
                return None
            data = imagecodecs.jpeg8_encode(
                whole_tile(pixels if level else self.pixels, column, row), 60,
                colorspace='RGB', outcolorspace='YCBCR', subsampling='420')
            if (level, column, row) == self._damage:
                data = data[:len(data) // 2]
            self.tiles[level, column, row] = data
            return data

        return EncodedLevel(size, Size(256, 256), 3, JPEG, YCBCR, 1, (2, 2), read)

    def write(self, path, **kwargs):
        write_image(one_frame(self.picture), path, Choices(**kwargs))


def stored(path, level):
    """The bytes of the tiles of a level, row by row."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[level]
        result = []
        for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.filehandle.seek(offset)
            result.append(file.filehandle.read(length))
        return result, page.asarray(), page


def test_stored_tiles_are_in_the_new_file_as_they_were(tmp_path):
    slide = Slide()
    slide.write(tmp_path / 'a.tif')
    tiles, pixels, page = stored(tmp_path / 'a.tif', 0)
    assert tiles == [slide.tiles[0, column, row] for row in range(2) for column in range(3)]
    assert (page.photometric.name, page.subsampling) == ('YCBCR', (2, 2))
    assert np.abs(pixels.astype(int) - slide.pixels).mean() < 4
    _, lower, page = stored(tmp_path / 'a.tif', 1)
    assert page.photometric.name == 'RGB'
    assert np.abs(lower.astype(int) - slide.pixels[::2, ::2]).mean() < 4


@pytest.mark.parametrize('floor', [False, True])
@pytest.mark.parametrize('levels', [(0, 1), (0, 1, 2), (0, 2)])
def test_stored_levels_are_kept_and_the_others_made(tmp_path, levels, floor):
    slide = Slide(levels, floor)
    slide.write(tmp_path / 'a.tif')
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        sizes = [page.shape[1::-1] for page in file.pages]
    assert len(sizes) == 3
    for level, size in enumerate(sizes):
        tiles, _, page = stored(tmp_path / 'a.tif', level)
        if level in levels:
            assert size == slide.picture.encoded[level].size
            across = -(-size[0] // 256)
            assert tiles == [slide.tiles[level, number % across, number // across]
                             for number in range(len(tiles))]
            assert page.photometric.name == 'YCBCR'
        else:
            assert size == SIZE.reduced(level)
    # Nothing is decoded that is not needed.
    assert slide.decoded == (0 if levels == (0, 1, 2) else 6)


@pytest.mark.parametrize('missing_codec', [(0, 0, 0), (0, 2, 1), (1, 1, 0), (2, 0, 0)])
def test_a_tile_that_cannot_be_passed_on_is_compressed(tmp_path, missing_codec):
    slide = Slide((0, 1, 2), missing_codec=[missing_codec])
    slide.write(tmp_path / 'a.tif')
    level, column, row = missing_codec
    exact = whole_tile(slide.pixels[::1 << level, ::1 << level], column, row)
    # libtiff takes all tiles of a page for the same: the new one must be YCbCr like the others.
    pixels = pyvips.Image.new_from_file(
        str(tmp_path / 'a.tif'), page=level, fail_on='warning').numpy()
    assert np.abs(whole_tile(pixels, column, row).astype(int) - exact).mean() < 6
    _, decoded, _ = stored(tmp_path / 'a.tif', level)
    assert np.abs(decoded.astype(int) - pixels).max() <= 3


@pytest.mark.parametrize('choice', [
    {'quality': 90}, {'subsampling': '4:4:4'}, {'tile': 128}, {'compression': 'deflate'},
    {'lossy': False}, {'dtype': 'uint16'}])
def test_what_is_chosen_otherwise_is_compressed_anew(tmp_path, choice):
    slide = Slide((0, 1, 2))
    slide.write(tmp_path / 'a.tif', **choice)
    assert slide.tiles == {}
    assert slide.decoded > 0


def test_a_chosen_way_to_reduce_makes_the_lower_levels_anew(tmp_path):
    slide = Slide((0, 1, 2))
    slide.write(tmp_path / 'a.tif', resample='mean')
    assert {level for level, _, _ in slide.tiles} == {0}
    _, lower, _ = stored(tmp_path / 'a.tif', 1)
    assert np.abs(lower.astype(int) - slide.pixels[::2, ::2]).mean() < 4


def test_verify_decodes_what_is_passed_on(tmp_path):
    for level in (0, 1):
        slide = Slide((0, 1, 2), damage=(level, 1, 0))
        slide.write(tmp_path / 'a.tif')
        with pytest.raises(TileSourceError, match=rf'column 1, row 0 .* reduced by {1 << level} '):
            slide.write(tmp_path / 'b.tif', verify=True)
    assert [path.name for path in tmp_path.iterdir()] == ['a.tif']
    Slide((0, 1, 2)).write(tmp_path / 'b.tif', verify=True)


def test_lossless_tiles_of_bytes_are_passed_on_with_their_predictor(tmp_path):
    pixels = photo()[:, :, :1]
    packed = {}

    def read(column, row):
        tile = np.ascontiguousarray(whole_tile(pixels, column, row))
        packed[column, row] = imagecodecs.deflate_encode(imagecodecs.delta_encode(tile, axis=1), 1)
        return packed[column, row]

    def picture(predictor):
        level = EncodedLevel(SIZE, Size(256, 256), 1, DEFLATE, 1, predictor, (1, 1), read)
        return Picture(
            SIZE, np.dtype(np.uint8), GRAY, True, (None, None), None,
            lambda rect: (pixels[rect.top:rect.bottom, rect.left:rect.right], None),
            lambda: iter([Rect(0, 0, *SIZE)]), lambda: 'none', {0: level})

    for predictor in (2, 1):
        packed.clear()
        write_image(one_frame(picture(predictor)), tmp_path / 'a.tif',
                    Choices(lossy=False, predictor='horizontal'))
        tiles, found, _ = stored(tmp_path / 'a.tif', 0)
        np.testing.assert_array_equal(found, pixels[:, :, 0])
        if predictor == 2:
            assert tiles == [packed[column, row] for row in range(2) for column in range(3)]
        else:
            assert packed == {}
