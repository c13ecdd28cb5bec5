"""What the tests of reading share: opening, whole levels, files to read."""

import multiprocessing
import os
import pathlib
import threading

import numpy as np
import pytest
import pyvips
import tifffile

from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.reading.reader import FileReader

_IMAGES = pathlib.Path(os.environ.get(
    'LARGE_IMAGE_SOURCE_VIPS_IMAGES',
    pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'images'))


def needs(operation):
    """Mark a test that needs a loader or saver which not every libvips has."""
    return pytest.mark.skipif(
        not pyvips.type_find('VipsOperation', operation),
        reason=f'this libvips has no {operation}')


def real_file(name):
    """One of the real files, or a skipped test where they are not."""
    path = _IMAGES / name
    if not path.exists():
        pytest.skip(f'{name} is not in {_IMAGES} (set LARGE_IMAGE_SOURCE_VIPS_IMAGES)')
    return path


def level(reader, reduction=0, frame=0):
    """All pixels of a level, read at once."""
    return reader.read(frame, reduction, Rect(0, 0, *reader.size.reduced(reduction)))


def level_by_tiles(reader, reduction=0, frame=0, side=256):
    """All pixels of a level, read tile by tile."""
    size = reader.size.reduced(reduction)
    whole = Rect(0, 0, *size)
    result = np.zeros((size.height, size.width, reader.bands), reader.dtype)
    for top in range(0, size.height, side):
        for left in range(0, size.width, side):
            rect = Rect(left, top, side, side).clipped(whole)
            result[top:top + side, left:left + side] = reader.read(frame, reduction, rect)
    return result


def read(path, frame=0):
    """All pixels of a frame of a file."""
    return level(FileReader(path), frame=frame)


def random_pixels(shape, dtype='uint8', seed=0):
    """Pixels over the whole range of a dtype."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == 'f':
        return rng.normal(0, 1000, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def smooth_pixels(rows, cols, bands=3, seed=0):
    """8-bit pixels as of a photograph, which lossy formats keep nearly."""
    y, x = np.mgrid[:rows, :cols]
    planes = [127 + 80 * np.sin((x * (band + 1) + seed * 7) / 61) + 40 * np.cos(y / (37 + band))
              for band in range(bands)]
    return np.clip(np.stack(planes, axis=-1), 0, 255).astype('uint8')


def block_means(pixels, factor):
    """The means of blocks, the partial ones at the edges of what there is; as float."""
    rows, cols = pixels.shape[:2]
    totals = np.add.reduceat(
        np.add.reduceat(pixels.astype('float64'), np.arange(0, rows, factor), axis=0),
        np.arange(0, cols, factor), axis=1)
    heights = np.diff([*range(0, rows, factor), rows])
    widths = np.diff([*range(0, cols, factor), cols])
    return totals / (heights[:, None] * widths)[..., None]


def declare_empty(path, number):
    """Write 0 for the offset and the byte count of a tile or strip."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        places = []
        for code in (324, 325) if page.is_tiled else (273, 279):
            tag = page.tags[code]
            width = tag.valuebytecount // tag.count
            places.append((tag.valueoffset + number * width, bytes(width)))
    for offset, data in places:
        overwrite(path, offset, data)


def in_threads(work, shares):
    """Do something with each share, each in a thread of its own."""
    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_a_forked_child(work, *args):
    """What a function gives in a child process that is forked off this one."""
    context = multiprocessing.get_context('fork')
    here, there = context.Pipe()
    child = context.Process(target=lambda: there.send(work(*args)))
    child.start()
    assert here.poll(60)
    found = here.recv()
    child.join()
    return found


def overwrite(path, offset, data):
    with open(path, 'r+b') as file:
        file.seek(offset)
        file.write(data)
