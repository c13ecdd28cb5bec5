"""
Write an image to a file, completely or not at all.

The file is planned, written to a temporary folder, and moved into place.  After an error or
an interruption an existing file is unchanged.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..base.errors import TileSourceError
from ..store import Picture, Snapshot, checked_frame
from .atomic import Target, atomic_output, resolve_target
from .choices import Choices, check_choices
from .derived_images import common_picture, with_common_tiles
from .file_formats import FILE_FORMATS, SaverPlan, make_saver_plan
from .plan import TIFF_SUFFIXES, TiffPlan, make_tiff_plan
from .pyramid import Progress
from .savers import save, saver_for
from .tiff_file import Contents, write_contents

Plan = TiffPlan | SaverPlan

# The suffixes of OME-TIFF files.
_OME = ('.ome.tif', '.ome.tiff')

# A picture of one 8-bit band with at most this many different values is written as labels,
# because it is probably a class map.
FEW_VALUES = 64

# The stack level of the caller of ``write``, for warnings of ``write_image`` itself.
_CALLER = 4

# What only TIFF files can hold: fields of annotations, and their names in a warning.
_PROPERTIES = {
    'channel_names': 'channel names', 'channel_colors': 'channel colours',
    'values': 'values of axes', 'description': 'the description', 'metadata': 'metadata',
    'magnification': 'the magnification', 'palette': 'the palette',
    'class_names': 'class names'}


def write_image(open_image: Callable[[], AbstractContextManager[Snapshot]], path: Any,
                choices: Choices, *, overwrite: bool = True,
                progress: Progress | bool | None = None) -> None:
    """
    Write an image to a file.

    The file appears when it is complete; after an error an existing file is unchanged.
    Only TIFF files can have several frames, texts and associated images.

    :param open_image: returns a context with all frames; called after
        the path was checked.
    :param path: the file; its suffix decides the format.
    :param choices: how to write it.
    :param overwrite: whether an existing file may be replaced.
    :param progress: a function that is called with the fraction done, 0 to 1;
        True for a progress bar.  An exception in the function cancels the write
        and is passed on.
    :raises TileSourceError: if the file cannot be written.
    """
    target = resolve_target(path, overwrite)
    is_pyramid = target.suffix in TIFF_SUFFIXES and choices.vips_kwargs is None
    saver = '' if is_pyramid else saver_for(target)
    if not is_pyramid:
        form = FILE_FORMATS.get(target.suffix)
        check_choices(choices, target.suffix, () if form is None else form.choices)
    with open_image() as image:
        if not is_pyramid:
            checked_frame(None, image.count, image.name)
        contents = _contents(image, target, keeps_all=is_pyramid)

        def plan_for(picture: Picture) -> Plan:
            return (make_tiff_plan(picture, choices, masks=not contents.is_ome,
                                   palette=contents.annotations.palette is not None)
                    if is_pyramid else
                    make_saver_plan(picture, target, saver, choices))

        if image.annotations.palette is not None:
            contents = replace(contents, frames=[_as_labels(frame) for frame in contents.frames])
        picture = common_picture(contents.frames)
        plan = plan_for(picture)
        if picture.meaning.labels:
            if choices.vips_kwargs is None and _loses_labels(target):
                _warn(f'{target.shown}: {target.suffix} is always lossy, which '
                      f'changes labels; write a .tif or .png to keep them.')
        elif choices.may_be_labels:
            labels = replace(picture.meaning, labels=True)
            other = plan_for(replace(picture, meaning=labels))
            if other != plan and has_few_values(contents.frames):
                _warn_of_few_values(target)
                plan = other
                contents = replace(contents, frames=[
                    replace(frame, meaning=labels) for frame in contents.frames])
        if is_pyramid and plan.dtype == np.float64:
            _warn(f'{target.shown} has 64-bit floats, which libvips, Pillow and the released '
                  f"large-image-source-vips cannot read; dtype='float32' writes 32-bit floats.")
        if not is_pyramid:
            _warn_of_losses(image, target)
        with _reporter(progress, target.name) as report:
            _write_plan(contents, plan, target, overwrite, report)


def _as_labels(picture: Picture) -> Picture:
    """
    A picture with a palette, as labels.

    :raises TileSourceError: if its samples cannot be labels.
    """
    if picture.meaning.color_bands != 1 or picture.dtype.kind not in 'iu':
        msg = (f'An image with a palette is one band of integers, but this one has '
               f'{picture.meaning.color_bands} of {picture.dtype}; set palette to None to write '
               f'it without one.')
        raise TileSourceError(msg)
    return replace(picture, meaning=replace(picture.meaning, labels=True))


def _contents(image: Snapshot, target: Target, *, keeps_all: bool) -> Contents:
    """
    The parts of an image that the file can have.

    Warns about associated images that cannot be read.

    :param keeps_all: whether the file can have several frames.
    """
    frames = with_common_tiles([image.picture(frame) for frame in range(image.count)])
    if not keeps_all:
        return Contents(frames)
    found = {key: _read_or_why(read) for key, read in image.associated.items()}
    lost = [f'{key} ({why})' for key, why in found.items() if isinstance(why, str)]
    if lost:
        _warn(f'{target.shown} is written without associated images that cannot be read: '
              f'{"; ".join(lost)}', stacklevel=_CALLER + 1)
    associated = {key: pixels for key, pixels in found.items() if not isinstance(pixels, str)}
    is_ome = image.count > 1 or target.name.lower().endswith(_OME)
    return Contents(frames, image.annotations, image.positions, associated, is_ome)


def _read_or_why(read: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any] | str:
    """An associated image; the reason if it cannot be read."""
    try:
        return read()
    except TileSourceError as exc:
        return str(exc)


def _write_plan(contents: Contents, plan: Plan, target: Target, overwrite: bool,
                report: Progress) -> None:
    """Carry out a plan; exceptions of ``report`` are raised unchanged, even an ``OSError``."""
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
            if isinstance(plan, SaverPlan):
                save(contents.frames[0], plan, temporary, target, tell)
            else:
                write_contents(contents, plan, temporary, tell)
            tell(1.0)
    except BaseException:
        if raised:
            raise raised[0] from None
        raise


def has_few_values(frames: Sequence[Picture]) -> bool:
    """
    Whether an image is one 8-bit band with at most ``FEW_VALUES`` different values.

    Stops reading when there are more.
    """
    seen = np.zeros(256, np.bool_)
    for picture in frames:
        if picture.dtype != np.uint8 or picture.meaning.color_bands != 1:
            return False
        for rect in picture.filled():
            found = picture.read(rect)
            if found is not None:
                seen |= np.bincount(found[0].reshape(-1), minlength=256) > 0
            if np.count_nonzero(seen) > FEW_VALUES:
                return False
    return True


def _warn_of_few_values(target: Target) -> None:
    _warn(
        f'{target.shown}: the image is one 8-bit band with at most {FEW_VALUES} different values, '
        f'so it is written as labels: lossless, and lower levels are not averaged.  Add tiles '
        f"with interpretation='labels' to avoid this warning, or choose a compression.",
        stacklevel=_CALLER + 1)


def _warn(text: str, stacklevel: int = _CALLER) -> None:
    """Warn the caller of ``write``."""
    warnings.warn(text, stacklevel=stacklevel)


def _warn_of_losses(image: Snapshot, target: Target) -> None:
    """Warn of what a file that is not a TIFF cannot hold of an image."""
    lost = [name for field, name in _PROPERTIES.items() if getattr(image.annotations, field)]
    if image.associated:
        lost.append(f'associated images ({", ".join(image.associated)})')
    if lost:
        _warn(f'{target.shown} is written without what only .tif files hold: {", ".join(lost)}',
              stacklevel=_CALLER + 1)


def _loses_labels(target: Target) -> bool:
    """Whether a format has no lossless compression."""
    form = FILE_FORMATS.get(target.suffix)
    return form is not None and form.lossless is None


@contextmanager
def _reporter(progress: Progress | bool | None, name: str) -> Iterator[Progress]:
    """A context with the function to call with the fraction done."""
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda fraction: None
        return
    try:
        from tqdm import tqdm
    except ImportError as exc:
        msg = 'progress=True needs the package tqdm; install it, or pass a function.'
        raise TileSourceError(msg) from exc
    with tqdm(total=100, desc=name, unit='%') as bar:
        yield lambda fraction: bar.update(round(fraction * 100) - bar.n)
