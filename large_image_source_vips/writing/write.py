"""
Writes a picture to a file, which is complete or not there at all.

The file is planned, written to a temporary folder and moved into place.  After
an error or an interruption, a file that was there before is unchanged.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ..base.errors import TileSourceError
from ..store import Picture
from .atomic import Target, atomic_output, resolve_target
from .choices import Choices, check_choices
from .file_formats import FILE_FORMATS, SaverPlan, make_saver_plan
from .plan import TIFF_SUFFIXES, TiffPlan, make_tiff_plan
from .pyramid import Progress
from .savers import save, saver_for
from .tiff_file import write_pyramid

Plan = TiffPlan | SaverPlan

# A picture of one 8-bit band with at most so many different values is written as
# labels: it is rather a map of classes than a photograph.
FEW_VALUES = 64

# The stack level of the caller of ``write``, for warnings.
_CALLER = 5


def write_image(open_picture: Callable[[], AbstractContextManager[Picture]], path: Any,
                choices: Choices, *, overwrite: bool = True,
                progress: Progress | bool | None = None) -> None:
    """
    Write a picture to a file.

    The file appears when it is complete; after an error an existing file is
    unchanged.

    :param open_picture: returns a context with the picture; called once the path is
        known to be writable.
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
    check_choices(choices, target.suffix, is_pyramid=is_pyramid)

    def plan_for(picture: Picture) -> Plan:
        return (make_tiff_plan(picture, choices) if is_pyramid else
                make_saver_plan(picture, target, saver, choices))

    with open_picture() as picture:
        plan = plan_for(picture)
        if picture.meaning.labels:
            if choices.vips_kwargs is None and _loses_labels(target):
                _warn(f'{target.shown}: {target.suffix} always compresses with loss, which '
                      f'changes labels; write a .tif or .png to keep them.')
        elif choices.says_nothing_of_values:
            labels = replace(picture, meaning=replace(picture.meaning, labels=True))
            other = plan_for(labels)
            if other != plan and has_few_values(picture):
                _warn_of_few_values(target)
                picture, plan = labels, other
        if is_pyramid and plan.dtype == np.float64:
            _warn(f'{target.shown} holds 64-bit floats, which libvips, Pillow and the released '
                  f"large-image-source-vips cannot read; dtype='float32' writes 32-bit floats.")
        with _reporter(progress, target.name) as report:
            _write_plan(picture, plan, target, overwrite, report)


def _write_plan(picture: Picture, plan: Plan, target: Target, overwrite: bool,
                report: Progress) -> None:
    """Carry out a plan; exceptions of ``report`` are passed on, even an ``OSError``."""
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
                save(picture, plan, temporary, target, tell)
            else:
                write_pyramid(picture, plan, temporary, tell)
            tell(1.0)
    except BaseException:
        if raised:
            raise raised[0] from None
        raise


def has_few_values(picture: Picture) -> bool:
    """
    Whether a picture is one 8-bit band with at most ``FEW_VALUES`` different values.

    Reads pixels until there are more.
    """
    if picture.dtype != np.uint8 or picture.meaning.color_bands != 1:
        return False
    seen = np.zeros(256, np.bool_)
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
        f"with interpretation='labels' to avoid this warning, or choose a compression.")


def _warn(text: str) -> None:
    """Warn the caller of ``write``."""
    warnings.warn(text, stacklevel=_CALLER)


def _loses_labels(target: Target) -> bool:
    """Whether a format has no lossless compression."""
    form = FILE_FORMATS.get(target.suffix)
    return form is not None and form.lossless is None


@contextmanager
def _reporter(progress: Progress | bool | None, name: str) -> Iterator[Progress]:
    """Return the function to call with the fraction done."""
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
