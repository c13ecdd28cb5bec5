"""
Makes the files that are read, once, and keeps them in a folder.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

import pyvips

from .outcome import Outcome
from .sink import photograph

TILED = {'tile': True, 'tile_width': 256, 'tile_height': 256, 'bigtiff': True}
# Quality with subsampled chroma: a pixel takes about 1 bit, as in the slides of
# scanners (Aperio's CMU-1: 0.93).
QUALITY = 85
JPEG = {'compression': 'jpeg', 'Q': QUALITY}
DEFLATE = {'compression': 'deflate', 'predictor': 'horizontal'}

# Kind of file -> its suffix and the options of the saver.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    'jpeg-pyramid': ('.tif', {**TILED, **JPEG, 'pyramid': True}),
    'deflate-pyramid': ('.tif', {**TILED, **DEFLATE, 'pyramid': True}),
    'flat-tiled': ('.tif', {**TILED, **JPEG}),
    'flat-strips': ('.tif', {**DEFLATE, 'bigtiff': True}),
    'photo': ('.jpg', {'Q': QUALITY}),
}

SLIDE_HEIGHT = 600

# Kinds made from a real slide that is repeated; chroma is subsampled below Q 90.
HISTOLOGY: dict[str, dict[str, Any]] = {
    'histology-q90': {**TILED, 'compression': 'jpeg', 'Q': 90},
    'histology-q75': {**TILED, 'compression': 'jpeg', 'Q': 75},
    'histology-240': {'tile': True, 'tile_width': 240, 'tile_height': 240, 'bigtiff': True,
                      'compression': 'jpeg', 'Q': 75},
    'histology-none': {**TILED, 'compression': 'none'},
}
# A slide of OpenSlide's test data, in the folder of real files that the tests use, too.
SLIDE = 'CMU-1-Small-Region.tiff'
IMAGES_VARIABLE = 'LARGE_IMAGE_SOURCE_VIPS_IMAGES'


def file_name(kind: str, size: int) -> str:
    """
    The name of a file in the folder of data.

    :param kind: one of ``KINDS`` or ``HISTOLOGY``; 'pages' for many pages of 512 x 512; or
        'slide-N' for the Nth of many wide slides.
    :param size: its width and height in pixels; for 'pages' the number of pages.
    """
    suffix = KINDS[kind][0] if kind in KINDS else '.tif'
    return f'{kind}-{size}{suffix}'


def make(_contender: str, folder: str, kind: str, size: int) -> Outcome:
    """
    Make one file, unless it exists.

    :param folder: the folder for it.
    :param kind: see ``file_name``.
    :param size: see ``file_name``.
    """
    outcome = Outcome()
    path = os.path.join(folder, file_name(kind, size))
    if os.path.exists(path):
        return outcome
    # An interrupted run must not leave part of a file under its name.
    unfinished = os.path.join(folder, 'unfinished' + os.path.splitext(path)[1])
    with outcome.timed():
        if kind in KINDS:
            original(folder, size).write_to_file(unfinished, **KINDS[kind][1])
        elif kind in HISTOLOGY:
            histology(size).tiffsave(unfinished, pyramid=True, **HISTOLOGY[kind])
        elif kind == 'pages':
            stack = photograph(512, 512 * size).copy()
            stack.set_type(pyvips.GValue.gint_type, 'page-height', 512)
            stack.tiffsave(unfinished, **DEFLATE)
        elif kind == 'slide-0':
            photograph(size, SLIDE_HEIGHT).tiffsave(unfinished, **KINDS['jpeg-pyramid'][1])
        else:
            shutil.copyfile(os.path.join(folder, file_name('slide-0', size)), unfinished)
        os.replace(unfinished, path)
    return outcome


def slide() -> str | None:
    """The path of the slide that histology is made from; None if it is not there."""
    path = os.path.join(os.environ.get(IMAGES_VARIABLE, ''), SLIDE)
    return path if os.path.exists(path) else None


def histology(size: int) -> pyvips.Image:
    """
    A square of real histology: one slide, repeated.

    :raises FileNotFoundError: if there is no slide.
    """
    path = slide()
    if path is None:
        msg = f'{SLIDE} is not in the folder that {IMAGES_VARIABLE} names.'
        raise FileNotFoundError(msg)
    piece = pyvips.Image.new_from_file(path)[:3].copy_memory()
    across, down = -(-size // piece.width), -(-size // piece.height)
    # 0.5 um a pixel; eagerIterator needs a scale.
    return piece.replicate(across, down).crop(0, 0, size, size).copy(xres=2000, yres=2000)


def original(folder: str, size: int) -> pyvips.Image:
    """A square photograph without compression, from which all kinds are made."""
    path = os.path.join(folder, f'original-{size}.v')
    if not os.path.exists(path):
        unfinished = os.path.join(folder, 'unfinished.v')
        photograph(size, size).vipssave(unfinished)
        os.replace(unfinished, path)
    return pyvips.Image.new_from_file(path)
