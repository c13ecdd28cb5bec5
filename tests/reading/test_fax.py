"""
CCITT fax tiles are decoded correctly, and damage is an error.
"""

import numpy as np
import PIL.Image
import pytest
import tifffile
from large_image.exceptions import TileSourceError

from helpers.reading import level
from large_image_source_vips.reading.reader import FileReader

COMPRESSIONS = ['tiff_ccitt', 'group3', 'group4']
CODES = {'tiff_ccitt': 2, 'group3': 3, 'group4': 4}


def drawing(height=300, width=400):
    """Discs and lines, black on white."""
    y, x = np.mgrid[:height, :width]
    return ((x // 7 + y // 5) % 9 < 5) ^ ((x - 200) ** 2 + (y - 150) ** 2 < 90 ** 2)


def write(path, pixels, compression):
    PIL.Image.fromarray(pixels).save(path, compression=compression)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert page.compression == CODES[compression]
        return page.dataoffsets[0], page.databytecounts[0]


@pytest.mark.parametrize('compression', COMPRESSIONS)
def test_pixels(tmp_path, compression):
    pixels = drawing()
    write(tmp_path / 'a.tif', pixels, compression)
    found = level(FileReader(tmp_path / 'a.tif'))
    np.testing.assert_array_equal(found[..., 0] > 0, pixels)


def zeros(data):
    """Zero bits, of which no code consists."""
    middle = len(data) // 2
    return data[:middle] + bytes(64) + data[middle + 64:]


def left_out(data):
    """The rest moved up by some bytes."""
    middle = len(data) // 2
    return data[:middle] + data[middle + 37:] + bytes(37)


def end_lost(data):
    """Nothing but zeros from the middle on."""
    return data[:len(data) // 2] + bytes(len(data) - len(data) // 2)


@pytest.mark.parametrize('damage', [zeros, left_out, end_lost])
@pytest.mark.parametrize('compression', COMPRESSIONS)
def test_damage_is_an_error(tmp_path, compression, damage):
    path = tmp_path / 'a.tif'
    offset, count = write(path, drawing(), compression)
    data = bytearray(path.read_bytes())
    data[offset:offset + count] = damage(bytes(data[offset:offset + count]))
    path.write_bytes(data)
    with pytest.raises(TileSourceError, match='CCITT'):
        level(FileReader(path))
