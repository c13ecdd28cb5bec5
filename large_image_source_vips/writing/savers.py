"""
Write a picture with one of libvips' savers, from a temporary TIFF file.

The saver runs in its own thread, so that Ctrl-C and exceptions of the progress function
reach the caller.
"""

from __future__ import annotations

import os
import shutil
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pyvips
from large_image import config

from ..base import files
from ..base.errors import SAVERS_CAN_FAIL, TileSourceError, vips_errors
from ..base.libvips import close_descriptor
from ..store import Picture
from ..tiff.write import remove_tags, resolution_of
from .atomic import Target
from .file_formats import SaverPlan
from .flat_tiff import flat_bytes, write_flat
from .plan import TIFF_SUFFIXES
from .pyramid import Progress
from .saver_output import unfailing_target

# The fraction of the work done when the temporary file is complete.
_FLAT = 0.3

# The range of pixels per mm that libvips accepts and writes precisely enough.
_DENSITIES = 1e-3, 1e6

# The time between two calls of the progress function, which can cancel the write.
_REPORT_SECONDS = 0.1

# Saver options for the pixel size.
_RESOLUTION = frozenset({'xres', 'yres', 'resunit'})

# Saver options for metadata.
_METADATA = frozenset({'keep', 'strip', 'profile'})


def saver_for(target: Target) -> str:
    """
    The libvips operation for a suffix.

    :raises TileSourceError: if this libvips cannot write such files.
    """
    suffix = target.suffix
    if suffix == '.dzi':
        suffix = '.dz'
    name: str | None = None
    # libvips parses [...] after a suffix as options.
    if suffix and suffix[1:].isalnum():
        found = pyvips.vips_lib.vips_foreign_find_save(f'x{suffix}'.encode())
        if found != pyvips.ffi.NULL:
            name = pyvips.ffi.string(found).decode()
    if name is None:
        known = ', '.join(sorted(pyvips.base.get_suffixes()))
        msg = (f'{target.path} cannot be written: this libvips '
               f'({".".join(str(pyvips.version(part)) for part in range(3))}) writes no '
               f'{suffix or "file without a suffix"}; it writes {known}.')
        raise TileSourceError(msg)
    return name


def save(picture: Picture, plan: SaverPlan, temporary: str, target: Target,
         report: Progress) -> None:
    """
    Write a picture with libvips.

    libvips gets the pixels as an uncompressed TIFF file beside the target.

    :param picture: the picture.
    :param plan: how to write it.
    :param temporary: the path to write to.
    :param target: the final path, for the suffix and error texts.
    :param report: called with the fraction done, 0 to 1.
    :raises TileSourceError: if libvips fails, the format cannot store the pixel size, or
        there is no disk space for the temporary file.
    """
    mm_x = picture.pixel_size[0] or picture.pixel_size[1]
    mm_y = picture.pixel_size[1] or picture.pixel_size[0]
    is_tiff = target.suffix in TIFF_SUFFIXES
    # The options have a resolution; libvips writes it, and takes the rest from the image.
    is_stated = not _RESOLUTION.isdisjoint(plan.options)
    labels: dict[str, Any] = {'interpretation': plan.interpretation, 'xres': 1.0, 'yres': 1.0}
    if mm_x and mm_y:
        exact = is_tiff or is_stated
        labels.update((name, 1 / mm if exact else _density(mm, target))
                      for name, mm in (('xres', mm_x), ('yres', mm_y)) if name not in plan.options)
    options = dict(plan.options)
    if plan.bare or not (mm_x or is_tiff or is_stated or _METADATA & options.keys()):
        # libvips would write a default resolution.
        options.update(_no_metadata(picture))
    if is_tiff:
        # Raises an error if TIFF cannot store it.
        resolution_of(picture.pixel_size)
    flat = f'{temporary}.flat'
    if target.suffix in {'.dz', '.dzi'}:
        temporary = os.path.splitext(temporary)[0]
    _check_room(picture, plan, flat, target)
    try:
        write_flat(picture, plan.alpha, plan.dtype, flat,
                   lambda fraction: report(_FLAT * fraction))
        with vips_errors(f'{target.path} cannot be written'):
            source = pyvips.Source.new_from_file(flat)
            try:
                image = _labelled(pyvips.Image.tiffload_source(source), picture, plan, labels)
                _call(plan.saver, image, temporary, options, is_tiff=is_tiff,
                      report=lambda fraction: report(_FLAT + (1 - _FLAT) * fraction))
            finally:
                close_descriptor(source)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(flat)
    if is_stated or mm_x:
        return
    if is_tiff:
        # libvips writes a default one.
        remove_tags(temporary)
    else:
        forget_density(temporary)


def _no_metadata(picture: Picture) -> dict[str, Any]:
    """The saver option to write no metadata but the picture's profile."""
    if pyvips.at_least_libvips(8, 15):
        return {'keep': 'icc' if picture.profile else 'none'}
    return {} if picture.profile else {'strip': True}


def _labelled(image: pyvips.Image, picture: Picture, plan: SaverPlan,
              labels: dict[str, Any]) -> pyvips.Image:
    """The image of the temporary file with the header fields of the picture."""
    if plan.dtype == np.float64:
        # ``write_flat`` stores 64-bit floats as pairs of integers.
        labels.update(format='double', bands=image.bands // 2)
    # A copy made later would not report progress.
    image = image.copy(**labels)
    if _RESOLUTION.isdisjoint(plan.options):
        image.set_type(pyvips.GValue.gstr_type, 'resolution-unit', 'cm')
    if picture.profile:
        image.set_type(pyvips.GValue.blob_type, 'icc-profile-data', picture.profile)
    return image


def _check_room(picture: Picture, plan: SaverPlan, flat: str, target: Target) -> None:
    """
    Check that there is disk space for the temporary file.

    :raises TileSourceError: if there is not.
    """
    needed = flat_bytes(picture, plan.alpha, plan.dtype)
    folder = os.path.dirname(flat)
    free = shutil.disk_usage(folder).free
    config.getLogger().info(
        'Writing %s needs %d bytes for a temporary file in %s.', target.shown, needed, folder)
    if free < needed:
        msg = (f'{target.path} cannot be written: libvips gets the pixels in a temporary file of '
               f'{needed:,} bytes beside it, and the disk has {free:,} bytes free.  Free '
               f'{needed - free:,} bytes, or write a .tif, which needs no such file.')
        raise TileSourceError(msg)


def _call(saver: str, image: pyvips.Image, path: str, options: dict[str, Any], *, is_tiff: bool,
          report: Progress) -> None:
    """Call a saver."""
    if SAVERS_CAN_FAIL or not is_tiff:
        _run(lambda: pyvips.Operation.call(saver, image, path, **options), image, report)
        return
    with unfailing_target(path) as output:
        _run(lambda: pyvips.Operation.call('tiffsave_target', image, output, **options), image,
             report)


def _run(save: Callable[[], Any], image: pyvips.Image, report: Progress) -> None:
    """
    Run a saver in another thread, and report progress in this one.

    libvips would print and lose an exception in a callback.  libvips before 8.15 cannot be
    stopped safely, so there an exception of ``report`` is raised after the saver has
    finished.

    :param save: calls the saver.
    :param image: the image that is saved, for progress.
    :param report: called with the fraction done, 0 to 1.
    """
    _check_vips_threads()
    fraction = 0.0
    finished = threading.Event()
    failures: list[BaseException] = []

    def on_eval(_image: Any, state: Any) -> None:
        nonlocal fraction
        fraction = state.percent / 100

    def work() -> None:
        try:
            save()
        except (TypeError, ValueError, OverflowError) as exc:
            # pyvips cannot convert an option.
            failures.append(pyvips.Error('an option has the wrong type', str(exc)))
        except pyvips.Error as exc:
            # The traceback would keep the temporary file open.
            failures.append(exc.with_traceback(None))
        except BaseException as exc:  # noqa: BLE001 - raised again in the caller's thread
            failures.append(exc)
        finally:
            finished.set()

    image.set_progress(True)
    image.signal_connect('eval', on_eval)
    thread = threading.Thread(target=work, name='large_image_vips_write')
    thread.start()
    try:
        while not finished.wait(_REPORT_SECONDS):
            report(fraction)
    except BaseException:
        if SAVERS_CAN_FAIL:
            image.set_kill(True)
        raise
    finally:
        thread.join()
    if failures:
        raise failures.pop()


# The process in which libvips has started its threads, if any.
_vips_process: int | None = None


def _check_vips_threads() -> None:
    """
    Check that libvips' threads exist in this process.

    libvips keeps its threads for the next image.  They do not exist in a forked process,
    and libvips would wait for them forever.

    :raises TileSourceError: if the process was forked from one that has written.
    """
    global _vips_process  # noqa: PLW0603  (libvips has one set of threads per process)
    here = files.process_id()
    if _vips_process not in {None, here}:
        msg = ('libvips cannot write in a process forked from one that has already written a file; '
               "start the process with the method 'spawn' or 'forkserver', or write in the parent "
               'process.')
        raise TileSourceError(msg)
    _vips_process = here


def _density(mm: float, target: Target) -> float:
    """
    Convert a pixel size to pixels per mm.

    :raises TileSourceError: if the format cannot store it precisely enough.
    """
    density = 1 / mm
    # PNG stores whole pixels per metre.
    rounded = round(density * 1000) / 1000 if target.suffix == '.png' else density
    if not (_DENSITIES[0] <= density <= _DENSITIES[1] and abs(rounded / density - 1) < 1e-4):
        msg = f'A pixel size of {mm} mm cannot be stored in {target.path}; write a .tif.'
        raise TileSourceError(msg)
    return density


def forget_density(path: str) -> None:
    """
    Set the pixel density of a PNG or JPEG file to unknown, in place.

    libvips writes 1 pixel per mm if it is unknown.  This sets the unit to
    "unknown" and the aspect ratio to 1 (PNG: chunk pHYs; JPEG: JFIF segment,
    ITU-T T.871).

    :param path: the file; folders and other formats are left unchanged.
    """
    if not os.path.isfile(path):
        return
    with open(path, 'r+b') as file:
        start = file.read(1 << 16)
        at = start.find(b'pHYs')
        if start.startswith(b'\x89PNG') and at >= 0:
            chunk = b'pHYs' + struct.pack('>IIB', 1, 1, 0)
            file.seek(at)
            file.write(chunk + struct.pack('>I', zlib.crc32(chunk)))
        elif start.startswith(b'\xff\xd8\xff\xe0') and start[6:11] == b'JFIF\0':
            file.seek(13)
            file.write(struct.pack('>BHH', 0, 1, 1))
