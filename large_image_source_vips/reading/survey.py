"""
Find the frames, levels and associated images of a file in any format but TIFF.

Only headers are read, and each page is opened at most once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyvips

from ..base.errors import TileSourceError, vips_errors
from ..base.files import read_at
from ..base.formats import alpha_band
from ..base.geometry import Size
from ..base.limits import LIMITS
from ..base.settings import dpi
from ..codecs.headers import jpeg_2000_tile
from .file import SourceFile
from .layout import Layout, Opening, Picture, Stored, reduction_between, unique_keys
from .level_cache import LARGE_PICTURE, MAX_LEVEL_MEMORY
from .loader import lacks_codec, why_not_decoded
from .survey_tiff import is_aperio, survey_tiff
from .unpack import unpacker

# The least pixels on the longer side of a rendered graphic without a resolution.
_VECTOR_PIXELS = 4096
# The longer side of the lowest rendered level is at most this long.
_VECTOR_LEAST = 1024
# Reductions by jpegload's option "shrink".  Measured: reduction 2 takes half of the time of
# the whole image, and a quarter more than reduction 3.
_JPEG_REDUCTION = 3
_JPEG_LARGE_REDUCTION = 2
# The minimum longer side for a reduced level.
_JPEG_WORTH = 4096
# Loaders that apply the orientation themselves.
_ORIENT_THEMSELVES = frozenset({'heifload', 'jxlload', 'openslideload'})
# Loaders that return premultiplied colours, as OpenEXR stores them.
_MULTIPLIED = frozenset({'openexrload'})
# Loaders that map the file into memory.
_RANDOM = frozenset({'vipsload'})
# HEIF codecs by item type; the types are listed near the start of a file.
_HEIF_CODECS = {
    b'hvc1': 'HEVC', b'hev1': 'HEVC', b'av01': 'AV1', b'vvc1': 'VVC', b'avc1': 'H.264',
    b'j2k1': 'JPEG 2000', b'jpeg': 'JPEG', b'unci': 'uncompressed'}
_HEIF_HEAD = 1 << 16
# In these first bytes of a JPEG 2000 file its size is looked for.
_JPEG_2000_HEAD = 1 << 20
# Sets of codecs that this process has decoded successfully.
_decoded_codecs: set[frozenset[str]] = set()


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
    """The layout according to the loader of the file, or its fallback."""
    if file.loader.name == 'openslideload' and file.fallback is not None and is_aperio(file):
        # This package can decode all pages: that is faster, keeps the colour profile, and
        # tiles can be passed on as stored.
        file.loader, file.fallback = file.fallback, None
    try:
        return _SURVEYS.get(file.loader.name, _survey_pages)(file)
    except (TileSourceError, pyvips.Error):
        if file.fallback is None:
            raise
        file.loader, file.fallback = file.fallback, None
    return _survey(file)


def field(image: pyvips.Image, name: str, default: Any = None) -> Any:
    """A header field of an image, or a default."""
    return image.get(name) if image.get_typeof(name) else default


def orientation_of(file: SourceFile, image: pyvips.Image) -> int:
    """The TIFF/EXIF orientation, 1 to 8, still to be applied."""
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

    :returns: None if there is none, or if colours are premultiplied, which are averaged
        without weights.
    """
    if field(image, 'vips-loader') in _MULTIPLIED:
        return None
    unpack = unpacker(image)
    return alpha_band(unpack.interpretation, unpack.bands)


def _has_option(file: SourceFile, option: str) -> bool:
    """Whether the loader of a file has an option."""
    name = file.loader.name if file.loader.through == 'path' else f'{file.loader.name}_source'
    return option in pyvips.Introspect.get(name).optional_input


def _survey_pages(file: SourceFile) -> Layout:
    """Any format: one image, or pages stacked in it."""
    opening = Opening((('n', -1),) if _has_option(file, 'n') else ())
    image = file.open(opening)
    opened = Size(image.width, image.height)
    rows = _page_rows(image)
    size = Size(image.width, rows)
    orientation = orientation_of(file, image)
    random = file.loader.name in _RANDOM
    tops = range(0, opened.height, rows)
    if len(tops) > LIMITS.reading_pages:
        msg = (f'Cannot read {file.path!r}: it has {len(tops)} pages, more than '
               f'{LIMITS.reading_pages}')
        raise TileSourceError(msg)
    alone = [Opening((('page', number), ('n', 1))) if opening.options and len(tops) > 1 else None
             for number in range(len(tops))]
    frames = [Picture({0: Stored(size, opening, opened, top, random, alone=single)}, orientation)
              for top, single in zip(tops, alone, strict=True)]
    return _layout(image, frames)


def _page_rows(image: pyvips.Image) -> int:
    """The number of rows of each page in a stack."""
    rows = field(image, 'page-height', image.height)
    slices = field(image, 'dsr-image_dimension.dim[3]')  # Analyze 7.5
    if isinstance(slices, int) and slices > 1 and image.height % slices == 0:
        rows = image.height // slices
    fits = isinstance(rows, int) and 0 < rows <= image.height and image.height % rows == 0
    return rows if fits else int(image.height)


def _survey_heif(file: SourceFile) -> Layout:
    """
    HEIF; each image is decoded on its own.

    The primary image is the first frame.  Images of the same size, dtype and bands are
    further frames, in file order; the others are associated images.
    """
    # Without the option page, libvips opens the primary image.
    image = file.open(Opening())
    count = min(int(field(image, 'n-pages', 1)), LIMITS.reading_heif_images)
    primary = int(field(image, 'heif-primary', 0))
    if not 0 <= primary < count:
        primary = 0
        image = file.open(Opening((('page', 0),)))
    _check_heif_codec(file, image)
    first = unpacker(image)
    frames, others = [], {}
    for number in (primary, *range(primary), *range(primary + 1, count)):
        opening = Opening((('page', number),))
        one = image if number == primary else file.open(opening)
        unpack, size = unpacker(one), Size(one.width, one.height)
        picture = Picture({0: Stored(size, opening)})
        if (*size, unpack.bands, unpack.dtype) == (
                image.width, image.height, first.bands, first.dtype):
            frames.append(picture)
        else:
            others[f'page_{number}'] = _like(one, picture)
    return _layout(image, frames, associated=others)


def _check_heif_codec(file: SourceFile, image: pyvips.Image) -> None:
    """
    Decode a pixel of a HEIF image, unless its codecs were decoded before.

    :raises TileSourceError: if libheif lacks the codec; the header does not show that.
    """
    with file.descriptor() as descriptor:
        head = read_at(descriptor, _HEIF_HEAD, 0)
    codecs = frozenset(name for kind, name in _HEIF_CODECS.items() if kind in head)
    if codecs in _decoded_codecs:
        return
    try:
        pyvips.Region.new(image).fetch(0, 0, 1, 1)
    except pyvips.Error as exc:
        if lacks_codec(exc):
            msg = (f'Cannot read {file.path!r}: {why_not_decoded("/".join(sorted(codecs)), exc)}; '
                   'or use large-image-source-pil with pillow-heif')
            raise TileSourceError(msg) from exc
        # Reading a damaged image raises the error.
    else:
        _decoded_codecs.add(codecs)


def _survey_jpeg(file: SourceFile) -> Layout:
    """JPEG: the image and a level reduced by 4 or 8, which libjpeg decodes faster."""
    image = file.open(Opening())
    size = Size(image.width, image.height)
    orientation = orientation_of(file, image)
    levels = {0: Stored(size, Opening())}
    # For a large image, the larger reduced level serves more tiles without a full decode;
    # but it should fit in memory.
    decoded = size.area * image.bands
    large = (decoded >= LARGE_PICTURE and
             decoded <= MAX_LEVEL_MEMORY << 2 * _JPEG_LARGE_REDUCTION)
    reduction = _JPEG_LARGE_REDUCTION if large else _JPEG_REDUCTION
    shrink = 1 << reduction
    # libvips drops the last, partial block; after a rotation that would be the first.
    aligned = orientation == 1 or not (size.width % shrink or size.height % shrink)
    if max(size) >= _JPEG_WORTH and aligned:
        smaller = Size(size.width // shrink, size.height // shrink)
        if min(smaller):
            levels[reduction] = Stored(smaller, Opening((('shrink', shrink),)))
    return _layout(image, [Picture(levels, orientation)])


def _survey_pdf(file: SourceFile) -> Layout:
    """PDF: pages of the same size as the first are frames, others are associated images."""
    base = (('dpi', dpi()),)
    first = file.open(Opening(base))
    full = Size(first.width, first.height)
    count = int(field(first, 'n-pages', 1))
    if count > LIMITS.reading_pages:
        msg = f'Cannot read {file.path!r}: it has {count} pages, more than {LIMITS.reading_pages}'
        raise TileSourceError(msg)
    # If opened together, libvips would widen narrow pages to the widest.
    looked_at = min(count, LIMITS.reading_pdf_sizes)
    others_open = (file.open(Opening((*base, ('page', number)))) for number in range(1, looked_at))
    sizes = [full, *(Size(image.width, image.height) for image in others_open)]
    sizes += [full] * (count - looked_at)
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
    """
    A picture of a vector format; each lower level is rendered separately.

    Loaders round sizes in different ways; ``rows`` corrects that.
    """
    levels: dict[int, Stored] = {}
    reduction = 0
    while True:
        reduced = size.reduced(reduction)
        rendering = (*options, ('scale', scale / (1 << reduction)))
        levels[reduction] = Stored(reduced, Opening(rendering))
        if max(reduced) <= _VECTOR_LEAST or not _has_option(file, 'scale'):
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
    JPEG 2000; libvips opens its resolutions as pages.

    Images with alpha do not use them, because the wavelets mix in the colours of
    transparent pixels.
    """
    image = file.open(Opening())
    full = Size(image.width, image.height)
    if file.loader.through == 'codec':
        return _layout(image, [Picture({0: Stored(full, Opening())})])
    levels = {0: Stored(full, Opening(), random=True, kept_rows=1024)}
    resolutions = int(field(image, 'n-pages', 1)) if _alpha_of(image) is None else 1
    with file.descriptor() as descriptor:
        tile = jpeg_2000_tile(read_at(descriptor, _JPEG_2000_HEAD, 0))
    # libvips (at least up to 8.14) ends the process where a reduced tile has no pixels.
    for number in range(1, min(resolutions, min(tile).bit_length())):
        opening = Opening((('page', number),))
        try:
            reduced = file.open(opening)
        except TileSourceError:
            # libvips 8.14 refuses some sizes of subsampled images; then the level is
            # computed.
            continue
        size = Size(reduced.width, reduced.height)
        reduction = reduction_between(full, size)
        if reduction is not None:
            levels.setdefault(reduction, Stored(size, opening, random=True, kept_rows=1024))
    return _layout(image, [Picture(levels)])


def _survey_openslide(file: SourceFile) -> Layout:
    """A slide read by OpenSlide: its levels and associated images."""
    # No alpha: areas that were not scanned have the background colour of the slide.
    base = (('rgb', True),) if _has_option(file, 'rgb') else ()
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
        # libvips 8.14 crashes when it decodes an image opened with the option 'associated',
        # so the image attached to the slide is read.
        opening = Opening((('attach_associated', True),), attached=f'openslide.associated.{name}')
        associated[key] = _like(
            header, Picture({0: Stored(Size(header.width, header.height), opening)}))
    return _layout(image, [Picture(levels)], associated=associated)


_SURVEYS: dict[str, Callable[[SourceFile], Layout]] = {
    'heifload': _survey_heif,
    'jp2kload': _survey_jpeg2000,
    'jpegload': _survey_jpeg,
    'openslideload': _survey_openslide,
    'pdfload': _survey_pdf,
    'svgload': _survey_svg,
    'tiffload': survey_tiff,
}
