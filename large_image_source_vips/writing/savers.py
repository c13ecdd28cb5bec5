"""
libvips' savers: run in a thread, and put right in what they wrote.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyvips

from ..base import files
from ..base.errors import SAVERS_CAN_FAIL, TileSourceError, vips_errors
from ..base.geometry import Rect
from ..store import Picture
from ..tiff import directories as tiff
from ..tiff.write import EXTRA_SAMPLES, edit_directories, resolution_fields
from .atomic import Target
from .blocks_image import plane_image, recomposed
from .plan import TIFF_SUFFIXES, Plan, no_metadata
from .saver_output import patient_target

Progress = Callable[[float], None]

# What libvips takes for pixels per mm, and still writes with some precision.
_DENSITIES = 1e-3, 1e6

# How often progress is told, and a cancelled write noticed.
_REPORT_SECONDS = 0.1

# Options of libvips' savers that state the size of a pixel.
_RESOLUTION = frozenset({'xres', 'yres', 'resunit'})

# Options of libvips' savers that say which metadata a file has.
_METADATA = frozenset({'keep', 'strip', 'profile'})


def saver_for(target: Target) -> str:
    """
    The libvips operation that writes files of a suffix.

    :raises TileSourceError: if this libvips has none.
    """
    suffix = target.suffix
    if suffix == '.dzi':
        suffix = '.dz'
    name: str | None = None
    # libvips would take [...] behind a suffix for options.
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


def save(what: Picture, plan: Plan, temporary: str, target: Target, report: Progress) -> None:
    """Let libvips write a file, then put right what it says of the picture."""
    mm_x = what.pixel_size[0] or what.pixel_size[1]
    mm_y = what.pixel_size[1] or what.pixel_size[0]
    is_tiff = target.suffix in TIFF_SUFFIXES
    # Then libvips writes it, and takes what is not given from the image.
    is_stated = not _RESOLUTION.isdisjoint(plan.options)
    fields = [*plan.fields, *resolution_fields(what.pixel_size)] if (
        is_tiff and not is_stated) else []
    labels: dict[str, Any] = {'interpretation': plan.interpretation, 'xres': 1.0, 'yres': 1.0}
    if mm_x and mm_y and is_stated:
        labels.update((name, 1 / mm) for name, mm in (('xres', mm_x), ('yres', mm_y))
                      if name not in plan.options)
    elif mm_x and mm_y and not is_tiff:
        labels.update(xres=_density(mm_x, target), yres=_density(mm_y, target))
    options = dict(plan.options)
    if what.bare and not (mm_x or is_tiff or is_stated or _METADATA & options.keys()):
        # The only metadata would be a resolution that nobody knows.
        options.update(no_metadata())
    if target.suffix in {'.dz', '.dzi'}:
        temporary = os.path.splitext(temporary)[0]
    context = f'{target.path} cannot be written'
    with vips_errors(context), _image(what, plan.alpha, labels) as image:
        if SAVERS_CAN_FAIL or not is_tiff:
            _run(lambda: pyvips.Operation.call(plan.saver, image, temporary, **options),
                 image, report)
        else:
            with patient_target(temporary) as output:
                _run(lambda: pyvips.Operation.call('tiffsave_target', image, output, **options),
                     image, report)
    if is_stated:
        return
    if is_tiff:
        # Unless they are put in again, these are libvips' guesses.
        remove = {tiff.X_RESOLUTION, tiff.Y_RESOLUTION, tiff.RESOLUTION_UNIT}
        if plan.fields:
            remove.add(EXTRA_SAMPLES)
        edit_directories(temporary, frozenset(remove), fields)
    elif not mm_x:
        forget_density(temporary)


@contextmanager
def _image(what: Picture, alpha: bool, labels: Mapping[str, Any]) -> Iterator[pyvips.Image]:
    """
    A picture as libvips takes it, for as long as the context lasts.

    :param alpha: whether to include the alpha band, if there is one.
    :param labels: header fields to set, as ``pyvips.Image.copy`` takes them.
    :raises TileSourceError: if it has to be copied first and there is no room.
    """
    direct = what.image if alpha and what.meaning.has_alpha else what.color_image
    if direct is not None:
        with direct(labels) as image:
            yield image
        return
    bands = what.meaning.color_bands + (alpha and what.meaning.has_alpha)
    with recomposed(what.size, what.dtype, bands,
                    lambda rect: what.read(rect)[:, :, :bands]) as plane, \
            plane_image(plane, Rect(0, 0, *what.size), labels) as image:
        if what.profile:
            image.set_type(pyvips.GValue.blob_type, 'icc-profile-data', what.profile)
        yield image


def _run(save: Callable[[], Any], image: pyvips.Image, report: Progress) -> None:
    """
    Run a saver in a thread of its own, and report how far it is in this one.

    A progress function that raises, and Ctrl-C, thus reach us as they are; an
    exception in a callback from libvips would be printed and lost.

    :param save: what to run.
    :param image: the image that is computed on the way.  Where libvips cannot
        be stopped safely, what the caller raised is passed on at the end.
    :param report: called with the fraction that is done.
    """
    _start_threads_of_libvips()
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
            # An option that pyvips cannot convert for libvips.
            failures.append(pyvips.Error('an option is of the wrong kind', str(exc)))
        except pyvips.Error as exc:
            # Its frames would keep the file open that is to be removed.
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


# The process in which libvips has started threads for a saver, if it has.
_threads_of: int | None = None


def _start_threads_of_libvips() -> None:
    """
    Refuse to wait for threads that do not exist.

    libvips keeps its threads for the next image.  A process that was forked does
    not have them, but its libvips believes so, and would wait for ever.

    :raises TileSourceError: if this process was forked from one that has written.
    """
    global _threads_of  # noqa: PLW0603  (what libvips keeps is the process' as well)
    here = files.process_id()
    if _threads_of not in {None, here}:
        msg = ('libvips cannot write in a process that was forked from one in which it has '
               "written already; start the process with the method 'spawn' or 'forkserver', or "
               'write in the first process.')
        raise TileSourceError(msg)
    _threads_of = here


def _density(mm: float, target: Target) -> float:
    """A pixel size as libvips has it, in pixels per mm."""
    density = 1 / mm
    # PNG has whole pixels per metre.
    rounded = round(density * 1000) / 1000 if target.suffix == '.png' else density
    if not (_DENSITIES[0] <= density <= _DENSITIES[1] and abs(rounded / density - 1) < 1e-4):
        msg = f'A pixel size of {mm} mm cannot be stored in {target.path}; write a .tif.'
        raise TileSourceError(msg)
    return density


def forget_density(path: str) -> None:
    """
    Take the pixel density out of a PNG or JPEG file, in place.

    libvips writes one pixel per mm where none is known.  The unit becomes
    "unknown" (PNG: chunk pHYs; JPEG: JFIF segment, ITU-T T.871), which leaves
    only that pixels are square.
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
