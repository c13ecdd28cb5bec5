"""
An image -> a file: which options, under which name, whole or not at all.
"""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyvips

from ..base import files
from ..base.errors import SAVERS_CAN_FAIL, TileSourceError, vips_errors
from ..base.geometry import TILE_SIZE, Rect
from ..store import Picture
from ..tiff import directories as tiff
from ..tiff.write import EXTRA_SAMPLES, SHORT, Field, edit_directories, resolution_fields
from . import pyramid as webp_tiff
from .atomic import Target, atomic_output, resolve_target
from .saver_output import patient_target
from .blocks_image import plane_image, recomposed

JPEG_QUALITY = 90

# A single band of 8 bits with at most so many different values is written as labels.
FEW_VALUES = 64

# From a warning to who called ``write``.
_CALLER = 4

# What libvips takes for pixels per mm, and still writes with some precision.
_DENSITIES = 1e-3, 1e6

# How often progress is told, and a cancelled write noticed.
_REPORT_SECONDS = 0.1

Progress = Callable[[float], None]

_TIFF = frozenset({'.tif', '.tiff'})

_TIFF_LAYOUT = {'tile': True, 'tile_width': TILE_SIZE, 'tile_height': TILE_SIZE, 'pyramid': True}

# Options of libvips' savers that state the size of a pixel.
_RESOLUTION = frozenset({'xres', 'yres', 'resunit'})

# Options of libvips' savers that say which metadata a file has.
_METADATA = frozenset({'keep', 'strip', 'profile'})

_PHOTOMETRIC = {'gray': 1, 'rgb': 2, 'cmyk': 5}


@dataclass(frozen=True)
class FileFormat:
    """
    What a format other than TIFF keeps, and the options to write it with.

    :param dtypes: kind and size of the samples that it holds exactly.
    :param alpha: whether it holds an alpha band.
    :param lossy: the options where loss is allowed.
    :param lossless: the options where it is not; None if there are none.
    """

    dtypes: frozenset[str]
    alpha: bool = True
    lossy: Mapping[str, Any] = field(default_factory=dict)
    lossless: Mapping[str, Any] | None = field(default_factory=dict)


_ALL = frozenset({'u1', 'i1', 'u2', 'i2', 'u4', 'i4', 'f4', 'f8'})
_8, _16 = frozenset({'u1'}), frozenset({'u1', 'u2'})
_QUALITY = {'Q': JPEG_QUALITY}
_JPEG = FileFormat(_8, alpha=False, lossy=_QUALITY, lossless=None)
_LOSSLESS = {'lossless': True}
_DEEPZOOM = FileFormat(_8, alpha=False, lossy={'suffix': f'.jpg[Q={JPEG_QUALITY}]'},
                       lossless={'suffix': '.png'})

FILE_FORMATS: dict[str, FileFormat] = {
    **dict.fromkeys(('.jpg', '.jpeg', '.jpe', '.jfif'), _JPEG),
    '.png': FileFormat(_16),
    **dict.fromkeys(('.webp', '.heic', '.heif', '.avif'), FileFormat(
        _8, lossy=_QUALITY, lossless=_LOSSLESS)),
    **dict.fromkeys(('.jp2', '.j2k', '.jpt', '.j2c', '.jpc', '.jxl'), FileFormat(
        _16, lossy=_QUALITY, lossless=_LOSSLESS)),
    '.gif': FileFormat(_8, lossless=None),
    **dict.fromkeys(('.dz', '.dzi', '.szi'), _DEEPZOOM),
    **dict.fromkeys(('.ppm', '.pgm', '.pnm'), FileFormat(_16, alpha=False)),
    '.pfm': FileFormat(frozenset({'f4'}), alpha=False),
    **dict.fromkeys(('.v', '.vips', '.raw'), FileFormat(_ALL)),
    **dict.fromkeys(('.fits', '.fit', '.fts'), FileFormat(_ALL)),
    '.nii': FileFormat(_ALL, alpha=False),
}


@dataclass(frozen=True)
class Plan:
    """
    How a picture becomes a file.

    :param saver: the libvips operation; '' for the writer of WebP pyramids.
    :param options: its options.
    :param alpha: whether the alpha band is written.
    :param interpretation: what the image is labelled for the saver.
    :param fields: TIFF fields to put in afterwards.
    """

    saver: str
    options: Mapping[str, Any]
    alpha: bool
    interpretation: str
    fields: tuple[Field, ...] = ()


def write_image(picture: Callable[[], AbstractContextManager[Picture]], path: Any, *,
                lossy: bool = True, alpha: bool = True, overwrite: bool = True,
                vips_kwargs: Mapping[str, Any] | None = None,
                progress: Progress | bool | None = None) -> None:
    """
    Write a file.

    The file appears under its name when it is whole; until then, and if
    anything goes wrong, what was there stays.

    :param picture: gives what is to be written; asked once the path is checked.
    :param path: where to.
    :param lossy: whether the samples may change a little.
    :param alpha: whether to write an alpha band, if anything is not opaque.
    :param overwrite: whether an existing file may be replaced.
    :param vips_kwargs: options for libvips' saver, in place of our choice.
    :param progress: called with the fraction that is done, from 0 to 1; True
        for a progress bar.  What it raises ends the writing.
    :raises TileSourceError: if the file cannot be written.
    """
    target = resolve_target(path, overwrite)
    saver = saver_for(target)
    with picture() as what:
        plan = make_plan(what, target, saver, lossy, alpha, vips_kwargs)
        if not what.meaning.labels:
            labels = replace(what, meaning=replace(what.meaning, labels=True))
            other = make_plan(labels, target, saver, lossy, alpha, vips_kwargs)
            if other != plan and has_few_values(what):
                _warn_of_few_values(target)
                what, plan = labels, other
        elif vips_kwargs is None and _loses_labels(target):
            warnings.warn(
                f'{target.shown}: {target.suffix} always compresses with loss, and so changes '
                f'labels; write a .tif or .png to keep them.', stacklevel=_CALLER)
        with _reporter(progress, target.name) as report:
            _write_plan(what, plan, target, overwrite, report)


def _write_plan(what: Picture, plan: Plan, target: Target, overwrite: bool,
                report: Progress) -> None:
    """Carry a plan out; what ``report`` raises comes back as it is, even an ``OSError``."""
    raised: list[BaseException] = []

    def tell(fraction: float) -> None:
        try:
            report(fraction)
        except BaseException as exc:
            raised.append(exc)
            raise

    try:
        with atomic_output(target, overwrite) as temporary:
            tell(0.0)
            if plan.saver:
                _save(what, plan, temporary, target, tell)
            else:
                with open(temporary, 'xb') as file:
                    webp_tiff.WebpTiffWriter(
                        file, what.size, what.read, JPEG_QUALITY, what.pixel_size,
                        what.profile).write(tell)
            tell(1.0)
    except BaseException:
        if raised:
            raise raised[0] from None
        raise


def has_few_values(what: Picture) -> bool:
    """
    Whether a picture is a band of 8 bits with at most ``FEW_VALUES`` different values.

    Such a picture is more likely a map of classes than a photograph.
    """
    if what.dtype != np.uint8 or what.meaning.color_bands != 1:
        return False
    seen = np.zeros(256, np.bool_)
    for rect in what.filled():
        seen |= np.bincount(what.read(rect)[:, :, 0].reshape(-1), minlength=256) > 0
        if np.count_nonzero(seen) > FEW_VALUES:
            return False
    return True


def _warn_of_few_values(target: Target) -> None:
    warnings.warn(
        f'{target.shown}: the image is one band of 8 bits with at most {FEW_VALUES} different '
        f'values, so it is taken to be labels: compressed without loss, its lower levels made '
        f"of picked pixels.  Add the tiles with interpretation='labels' to say so yourself, or "
        f'pass vips_kwargs to choose the compression.', stacklevel=_CALLER)


def _loses_labels(target: Target) -> bool:
    """Whether a format has no way to keep labels."""
    form = FILE_FORMATS.get(target.suffix)
    return form is not None and form.lossless is None


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


def make_plan(what: Picture, target: Target, saver: str, lossy: bool, alpha: bool,
              vips_kwargs: Mapping[str, Any] | None) -> Plan:
    """
    Choose how to write a picture.

    :raises TileSourceError: if the format cannot hold it.
    """
    with_alpha = alpha and what.meaning.has_alpha and not what.opaque
    natural = natural_interpretation(what)
    if vips_kwargs is not None:
        return Plan(saver, dict(vips_kwargs), with_alpha, natural)
    if target.suffix in _TIFF:
        return _tiff_plan(what, saver, lossy, with_alpha, natural)
    form = FILE_FORMATS.get(target.suffix)
    code = f'{what.dtype.kind}{what.dtype.itemsize}'
    problem = None
    if form is None:
        problem = 'what that format keeps is not known here'
    elif code not in form.dtypes:
        problem = f'it does not hold {what.dtype} samples as they are'
    elif with_alpha and not form.alpha:
        problem = 'it has no alpha band for the transparent parts; alpha=False fills them'
    elif not lossy and form.lossless is None:
        problem = 'it cannot be written without loss'
    if form is None or problem:
        msg = (f'{target.path} cannot be written as {target.suffix}: {problem}.  Write a .tif, '
               f"or pass vips_kwargs={{}} to leave the conversion to libvips' saver.")
        raise TileSourceError(msg)
    exact = not lossy or what.meaning.labels
    options = form.lossy if form.lossless is None or not exact else form.lossless
    if what.bare and (target.suffix in {'.v', '.vips'} or not any(what.pixel_size)):
        # Else libvips makes up an EXIF block with a resolution in it, which
        # nobody knows, or which is less precise than the format's own.
        options = {**options, **_no_metadata()}
    return Plan(saver, options, with_alpha, natural)


def _no_metadata() -> dict[str, Any]:
    """The option that keeps metadata out of a file, as this libvips knows it."""
    return {'keep': 'none'} if pyvips.at_least_libvips(8, 15) else {'strip': True}


def _tiff_plan(what: Picture, saver: str, lossy: bool, with_alpha: bool, natural: str) -> Plan:
    """
    The options of a tiled pyramid.

    Colours of 8 bits are JPEG, or with an alpha WebP, which libvips' JPEG has
    no room for; everything else is LZW without loss, and its lower levels are
    picked samples.
    """
    meaning = what.meaning
    if lossy and what.dtype == np.uint8 and not meaning.labels and meaning.kind in {'gray', 'rgb'}:
        if not with_alpha:
            raw = what.size.width * what.size.height * meaning.color_bands
            return Plan(saver, {
                **_TIFF_LAYOUT, 'compression': 'jpeg', 'Q': JPEG_QUALITY,
                'bigtiff': _needs_bigtiff(raw)}, with_alpha, natural)
        if meaning.kind == 'rgb' and webp_tiff.is_supported():
            return Plan('', {}, with_alpha, natural)
    bands = meaning.color_bands + with_alpha
    raw = what.size.width * what.size.height * bands * what.dtype.itemsize
    photometric = _PHOTOMETRIC.get(meaning.kind, 1)
    colors = {1: 1, 2: 3, 5: 4}[photometric]
    extra = (2,) * with_alpha if meaning.kind in _PHOTOMETRIC else ()
    extra = (0,) * (bands - colors - len(extra)) + extra
    fields = [Field(tiff.PHOTOMETRIC, SHORT, (photometric,))]
    if extra:
        fields.append(Field(EXTRA_SAMPLES, SHORT, extra))
    return Plan(saver, {
        **_TIFF_LAYOUT, 'compression': 'lzw', 'region_shrink': 'nearest',
        'predictor': 'float' if what.dtype.kind == 'f' else 'horizontal',
        'bigtiff': _needs_bigtiff(raw),
        # With a known alpha libvips would average in spite of 'nearest', and
        # other labels make it convert; the fields say afterwards what is what.
    }, with_alpha, 'multiband', tuple(fields))


def _needs_bigtiff(raw_bytes: int) -> bool:
    """Whether a pyramid may outgrow 32-bit offsets, if its tiles do not compress at all."""
    # A third for the lower levels, and half for LZW of noise.
    return raw_bytes * 2 > (1 << 32) - (1 << 24)


def natural_interpretation(what: Picture) -> str:
    """The libvips interpretation of a picture's bands."""
    kind, wide = what.meaning.kind, what.dtype == np.uint16
    if what.meaning.interpretation is not None:
        return what.meaning.interpretation
    return {'gray': 'grey16' if wide else 'b-w', 'rgb': 'rgb16' if wide else 'srgb'}.get(
        kind, kind)


def _save(what: Picture, plan: Plan, temporary: str, target: Target, report: Progress) -> None:
    """Let libvips write a file, then put right what it says of the picture."""
    mm_x = what.pixel_size[0] or what.pixel_size[1]
    mm_y = what.pixel_size[1] or what.pixel_size[0]
    is_tiff = target.suffix in _TIFF
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
        options.update(_no_metadata())
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


@contextmanager
def _reporter(progress: Progress | bool | None, name: str) -> Iterator[Progress]:
    """A function to call with the fraction that is done."""
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda fraction: None
        return
    try:
        from tqdm import tqdm
    except ImportError as exc:
        msg = 'progress=True needs tqdm; install it, or pass a function.'
        raise TileSourceError(msg) from exc
    with tqdm(total=100, desc=name, unit='%') as bar:
        yield lambda fraction: bar.update(round(fraction * 100) - bar.n)
