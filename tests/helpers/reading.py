"""Whole levels of a reader, or the reason why there are none."""

import numpy as np
from large_image.exceptions import TileSourceError

from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.reading.reader import FileReader


def found_or_why(read):
    """What a function returns, and None; or None, and the text of its TileSourceError."""
    try:
        return read(), None
    except TileSourceError as exc:
        return None, str(exc)


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
