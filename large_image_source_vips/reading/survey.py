"""
Find the frames, levels and associated images of a file of any format except TIFF.

Images are opened for their headers only.  A file has at most ``_MAX_PAGES`` pages, and
each is opened at most once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyvips

from ..base.errors import TileSourceError, vips_errors
from ..base.formats import alpha_band
from ..base.geometry import Size
from ..base.limits import LIMITS
from ..base.settings import dpi
from .file import SourceFile
from .layout import Layout, Opening, Picture, Stored, reduction_between, unique_keys
from .planes import LARGE_PICTURE, MAX_PLANE_MEMORY
from .survey_tiff import survey_tiff
from .unpack import unpacker

# Drawings without a resolution are rendered with at least so many pixels on the longer side.
_VECTOR_PIXELS = 4096
# Reductions by jpegload's option "shrink".  Reduction 3 is the cheapest to decode;
# reduction 2 takes a quarter more time, half of that of the whole image.
_JPEG_REDUCTION = 3
_JPEG_LARGE_REDUCTION = 2
# The longer side from which on a reduced level is used.
_JPEG_WORTH = 4096
# Loaders that apply the orientation themselves.
_ORIENT_THEMSELVES = frozenset({'heifload', 'jxlload', 'openslideload'})
# Loaders that return premultiplied colours, as OpenEXR stores them.
_MULTIPLIED = frozenset({'openexrload'})
# Formats that libvips maps into memory.
_RANDOM = frozenset({'vipsload'})
# The most pages that are opened one by one.
_MAX_PAGES = LIMITS.reading_pages


def survey(file: SourceFile) -> Layout:
    """
    The layout of a file, determined once for all sources on it.

    :raises TileSourceError: if the file cannot be read.
    """
    with file.survey_lock:
        if file.layout is None:
            with vips_errors(f'Cannot read {file.path!r}'):
                file.layout = _survey(file)
        file.forget_source()
        return file.layout


def _survey(file: SourceFile) -> Layout:
    """The layout according to the loader of the file, or the one to use instead."""
    try:
        return _SURVEYS.get(file.loader.name, _survey_pages)(file)
    except (TileSourceError, pyvips.Error):
        if file.instead is None:
            raise
        file.loader, file.instead = file.instead, None
    return _survey(file)


def field(image: pyvips.Image, name: str, default: Any = None) -> Any:
    """A header field of an image, or a default."""
    return image.get(name) if image.get_typeof(name) else default


def orientation_of(file: SourceFile, image: pyvips.Image) -> int:
    """The TIFF/EXIF orientation, 1 to 8, that the loader has not applied."""
    if file.loader.name in _ORIENT_THEMSELVES:
        return 1
    value = field(image, 'orientation', 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_palette(image: pyvips.Image) -> bool:
    """Whether the samples were indices into a palette."""
    return any(image.get_typeof(name) for name in ('palette', 'palette-bit-depth'))


def _layout(image: pyvips.Image, frames: list[Picture], **kwargs: Any) -> Layout:
    """A layout of frames with the dtype, bands and alpha of an open image."""
    unpack = unpacker(image)
    return Layout(tuple(_like(image, frame) for frame in frames), unpack.dtype, unpack.bands,
                  unpack.interpretation, **kwargs)


def _like(image: pyvips.Image, picture: Picture) -> Picture:
    """A picture with the palette and alpha of an open image."""
    return replace(picture, is_palette=_is_palette(image), alpha=_alpha_of(image))


def _alpha_of(image: pyvips.Image) -> int | None:
    """
    The alpha band of an unpacked image, counted from the end.

    :returns: None if there is none, or if colours are premultiplied: then plain means
        are right.
    """
    if field(image, 'vips-loader') in _MULTIPLIED:
        return None
    unpack = unpacker(image)
    return alpha_band(unpack.interpretation, unpack.bands)


def _takes(file: SourceFile, option: str) -> bool:
    """Whether the loader of a file has an option."""
    name = file.loader.name if file.loader.through == 'path' else f'{file.loader.name}_source'
    return option in pyvips.Introspect.get(name).optional_input


def _survey_pages(file: SourceFile) -> Layout:
    """Any format: the image, or the pages stacked in it."""
    opening = Opening((('n', -1),) if _takes(file, 'n') else ())
    image = file.open(opening)
    opened = Size(image.width, image.height)
    rows = _page_rows(image)
    size = Size(image.width, rows)
    orientation = orientation_of(file, image)
    random = file.loader.name in _RANDOM
    frames = [Picture({0: Stored(size, opening, opened, top, random)}, orientation)
              for top in range(0, opened.height, rows)]
    return _layout(image, frames)


def _page_rows(image: pyvips.Image) -> int:
    """The number of rows of each page in a stack."""
    rows = field(image, 'page-height', image.height)
    slices = field(image, 'dsr-image_dimension.dim[3]')  # Analyze 7.5
    if isinstance(slices, int) and slices > 1 and image.height % slices == 0:
        rows = image.height // slices
    fits = isinstance(rows, int) and 0 < rows <= image.height and image.height % rows == 0
    return rows if fits else int(image.height)


def _survey_separate_pages(file: SourceFile) -> Layout:
    """
    HEIF, whose images can be decoded separately.

    Images of the same size, dtype and bands as the primary image are frames, the others
    associated images.
    """
    first = file.open(Opening())
    count = min(int(field(first, 'n-pages', 1)), _MAX_PAGES)
    primary = int(field(first, 'heif-primary', 0))
    pages = {}
    for number in range(count):
        opening = Opening((('page', number),))
        image = first if not number else file.open(opening)
        pages[number] = (image, Stored(Size(image.width, image.height), opening))
    base = pages[primary if primary in pages else 0]
    alike = {
        number for number, (image, stored) in pages.items()
        if stored.size == base[1].size and unpacker(image).bands == unpacker(base[0]).bands
        and unpacker(image).dtype == unpacker(base[0]).dtype}
    return _layout(
        base[0], [Picture({0: pages[number][1]}) for number in sorted(alike)],
        associated={f'page_{number}': _like(image, Picture({0: stored}))
                    for number, (image, stored) in pages.items() if number not in alike})


def _survey_jpeg(file: SourceFile) -> Layout:
    """JPEG: the image and a level reduced by 4 or 8, which libjpeg decodes faster."""
    image = file.open(Opening())
    size = Size(image.width, image.height)
    orientation = orientation_of(file, image)
    levels = {0: Stored(size, Opening())}
    # Of a large image, the larger reduced level serves more tiles without decoding the
    # whole; but it should fit in memory.
    decoded = size.area * image.bands
    large = (decoded >= LARGE_PICTURE and
             decoded <= MAX_PLANE_MEMORY << 2 * _JPEG_LARGE_REDUCTION)
    reduction = _JPEG_LARGE_REDUCTION if large else _JPEG_REDUCTION
    shrink = 1 << reduction
    # libvips drops the last, partial block; after a rotation it would be the first.
    aligned = orientation == 1 or not (size.width % shrink or size.height % shrink)
    if max(size) >= _JPEG_WORTH and aligned:
        smaller = Size(size.width // shrink, size.height // shrink)
        if min(smaller):
            levels[reduction] = Stored(smaller, Opening((('shrink', shrink),)))
    return _layout(image, [Picture(levels, orientation)])


def _survey_pdf(file: SourceFile) -> Layout:
    """PDF: pages of the size of the first are frames, the others associated images."""
    base = (('dpi', dpi()),)
    first = file.open(Opening(base))
    full = Size(first.width, first.height)
    count = int(field(first, 'n-pages', 1))
    if count > _MAX_PAGES:
        msg = f'Cannot read {file.path!r}: it has {count} pages, more than {_MAX_PAGES}'
        raise TileSourceError(msg)
    # Opened together, libvips would widen narrow pages to the widest.
    others_open = (file.open(Opening((*base, ('page', number)))) for number in range(1, count))
    sizes = [full, *(Size(image.width, image.height) for image in others_open)]
    frames, others = [], {}
    for number, size in enumerate(sizes):
        picture = _scaled(file, size, (*base, ('page', number)))
        if size == full:
            frames.append(picture)
        else:
            others[f'page_{number}'] = _like(first, picture)
    return _layout(first, frames, associated=others)


def _scaled(file: SourceFile, size: Size, options: tuple[tuple[str, Any], ...],
            scale: float = 1.0) -> Picture:
    """A picture of a vector format; each lower level is rendered separately."""
    levels: dict[int, Stored] = {}
    reduction = 0
    while True:
        reduced = size.reduced(reduction)
        rendering = (*options, ('scale', scale / (1 << reduction)))
        levels[reduction] = Stored(reduced, Opening(rendering))
        if max(reduced) <= 1024 or not _takes(file, 'scale'):
            return Picture(levels)
        reduction += 1


def _survey_svg(file: SourceFile) -> Layout:
    """SVG, scaled by a power of two to ``_VECTOR_PIXELS`` or more on the longer side."""
    natural = file.open(Opening())
    scale = 1.0
    while max(natural.width, natural.height) * scale < _VECTOR_PIXELS:
        scale *= 2
    image = file.open(Opening((('scale', scale),)))
    return _layout(image, [_scaled(file, Size(image.width, image.height), (), scale)])


def _survey_jpeg2000(file: SourceFile) -> Layout:
    """
    JPEG 2000, whose resolutions libvips opens as pages.

    They are not used for images with alpha, because the wavelets mix the colours of
    transparent pixels into them.
    """
    image = file.open(Opening())
    full = Size(image.width, image.height)
    levels = {0: Stored(full, Opening(), random=True, kept_rows=1024)}
    resolutions = int(field(image, 'n-pages', 1)) if _alpha_of(image) is None else 1
    for number in range(1, resolutions):
        opening = Opening((('page', number),))
        reduced = file.open(opening)
        size = Size(reduced.width, reduced.height)
        reduction = reduction_between(full, size)
        if reduction is not None:
            levels.setdefault(reduction, Stored(size, opening, random=True, kept_rows=1024))
    return _layout(image, [Picture(levels)])


def _survey_openslide(file: SourceFile) -> Layout:
    """A slide read by OpenSlide: its levels and associated images."""
    # Without alpha: areas that were not scanned get the background colour of the slide.
    base = (('rgb', True),) if _takes(file, 'rgb') else ()
    image = file.open(Opening(base))
    full = Size(image.width, image.height)
    levels: dict[int, Stored] = {}
    for number in range(int(field(image, 'openslide.level-count', 1))):
        size = Size(*(int(field(image, f'openslide.level[{number}].{side}', 0))
                      for side in ('width', 'height')))
        reduction = reduction_between(full, size) if min(size) > 0 else None
        if reduction is not None:
            levels.setdefault(reduction, Stored(
                size, Opening((*base, ('level', number))), random=True, kept_rows=1024))
    names = [name for name in re.split(r',\s*', field(image, 'slide-associated-images', ''))
             if name]
    associated = {}
    for key, name in zip(unique_keys(names), names, strict=True):
        header = file.open(Opening((('associated', name),)))
        # libvips 8.14 crashes when it decodes an image opened with the option
        # 'associated', so the pixels are read from an image attached to the slide.
        opening = Opening((('attach_associated', True),), attached=f'openslide.associated.{name}')
        associated[key] = _like(
            header, Picture({0: Stored(Size(header.width, header.height), opening)}))
    return _layout(image, [Picture(levels)], associated=associated)


_SURVEYS: dict[str, Callable[[SourceFile], Layout]] = {
    'heifload': _survey_separate_pages,
    'jp2kload': _survey_jpeg2000,
    'jpegload': _survey_jpeg,
    'openslideload': _survey_openslide,
    'pdfload': _survey_pdf,
    'svgload': _survey_svg,
    'tiffload': survey_tiff,
}
