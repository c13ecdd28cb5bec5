"""
What a TIFF file holds: its pages, sub-IFDs and texts, arranged.

The directories are read here, not by libvips, which would have to open every
page for it.  ``arrange`` is a pure function of what they say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyvips

from ..base.errors import TileSourceError
from ..base.limits import LIMITS
from ..tiff import ome
from ..tiff.directories import DESCRIPTION, EXTRA_SAMPLES, Page, TiffDirectories, TiffFormatError
from .file import SourceFile
from .layout import Layout, Opening, Picture, Stored, reduction_between, unique_keys
from .loader import lacks_codec, why_not_decoded
from .rows import empty_tiles
from .unpack import Unpacker, unpacker

_PALETTE = 3
# How many samples are colours, by photometric interpretation.
_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4, 6: 3}
# Of the tag ExtraSamples: associated and unassociated alpha.
_ALPHA = frozenset({1, 2})
_MASK_SUBFILE = 4
# What the sub-IFDs of a file list together, at most; a level has some 20 entries.
_MAX_ENTRIES = LIMITS.tiff_sub_ifd_entries
# With more pages than this, walking the chain of directories at each open, as
# libvips and libtiff do, is what costs; pages are shown to them one by one then.
_MANY_PAGES = 64
_NAMES = re.compile(r'\b(label|macro|thumbnail|overview)\b', re.IGNORECASE)


# Compressions that every libtiff decodes: none, LZW, JPEG, deflate, PackBits.
_ALWAYS_THERE = frozenset({1, 5, 7, 8, 32773, 32946})
# How many bytes one byte becomes at most: a PackBits run has 128 bytes in 2,
# an LZW code of 12 bits at most 4096 bytes, deflate 1032 to 1 (zlib's manual).
_MOST_OF_A_BYTE = {1: 1, 5: 2731, 8: 1033, 32773: 64, 32946: 1033}
# What may be claimed beyond that: a file that was cut is to open, and to fail
# where it was cut.
_CLAIMED_BYTES = LIMITS.tiff_missing
# Forms that libvips does not read, at least up to 8.18.
_NOT_READ: dict[str, Callable[[Page], bool]] = {
    'samples of more than 32 bits, such as 64-bit floats': lambda page: page.bits > 32,
    'tiles with each band in tiles of its own':
        lambda page: page.tile is not None and page.planar == 2 and page.samples > 1,
    'complex samples': lambda page: page.sample_format in {5, 6},
    'a number of bits that is not 1, 2, 4, 8, 16 or 32':
        lambda page: page.bits not in {1, 2, 4, 8, 16, 32},
}


@dataclass
class Arrangement:
    """
    Which page is what.

    :param frames: the pages of the frames, in frame order.
    :param levels: for each frame its further levels: by reduction a page, and
        the number among the sub-IFDs or None for a page of the main chain.
    :param associated: pages that are images of their own, by key.
    """

    frames: list[int]
    axes: list[Mapping[str, int]] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    levels: list[dict[int, tuple[Page, int, int | None]]] = field(default_factory=list)
    associated: dict[str, int] = field(default_factory=dict)


def survey_tiff(file: SourceFile) -> Layout:
    """
    What a TIFF file holds.

    :raises TileSourceError: if its directories cannot be followed or libvips
        does not read its first frame.
    """
    with file.descriptor() as descriptor:
        try:
            tiff = TiffDirectories(descriptor)
            pages = list(tiff.pages())
            if not pages:
                msg = 'it has no page'
                raise TiffFormatError(msg)
            texts = {number: tiff.text(page.entries.get(DESCRIPTION))
                     for number, page in enumerate(pages) if number < 64}
            sub_pages = _sub_pages(tiff, pages)
            plan = arrange(pages, sub_pages, texts, os.path.basename(file.path))
            alpha = {number: alpha_band(tiff, pages[number])
                     for number in (plan.frames[0], *plan.associated.values())}
        except TiffFormatError as exc:
            msg = f'Cannot read {file.path!r}: {exc}'
            raise TileSourceError(msg) from exc
    frames = [_picture(pages, number, levels, alpha[plan.frames[0]])
              for number, levels in zip(plan.frames, plan.levels, strict=True)]
    first = frames[0].levels[0]
    _check_tables(file, first)
    unpack = _open_first(file, first)
    return Layout(
        tuple(frames), unpack.dtype, unpack.bands, unpack.interpretation,
        axes=tuple(plan.axes), channels=tuple(plan.channels),
        pages=len(pages),
        associated={key: _picture(pages, number, {}, alpha[number])
                    for key, number in plan.associated.items()})


def alpha_band(tiff: TiffDirectories, page: Page) -> int | None:
    """
    The alpha band of a page, counted from the end.

    The tag ExtraSamples (TIFF 6.0, section 18) says what the samples beyond the
    colours are; 0 is data of any kind.  A page without it has alpha if it has one
    sample more.  libvips divides colours by associated alpha (1) when it reads them,
    so that it is no other than unassociated alpha (2) then.

    :returns: None if there is none, or more than one: libvips writes that for data.
    """
    colours = _COLOURS.get(page.photometric)
    if colours is None or page.samples <= colours:
        return None
    extra = page.samples - colours
    if EXTRA_SAMPLES not in page.entries:
        return -1 if extra == 1 else None
    kinds = tiff.integers(page.entries[EXTRA_SAMPLES])
    places = [place for place, kind in enumerate(kinds[:extra]) if kind in _ALPHA]
    return places[0] - extra if len(places) == 1 else None


def _open_first(file: SourceFile, stored: Stored) -> Unpacker:
    """
    Open the first frame.

    :returns: what becomes of its samples.
    :raises TileSourceError: if libvips does not read it, also if that only
        shows when it decodes: then another source may be asked.
    """
    page = stored.page
    assert page is not None  # it is a TIFF file
    forms = [form for form, is_it in _NOT_READ.items() if is_it(page)]
    try:
        unpack = (file.handle(stored).unpacker if stored.random
                  else unpacker(file.open(stored.opening)))
    except (TileSourceError, pyvips.Error) as exc:
        if not forms:
            raise
        msg = f'{exc} (libvips does not read TIFF files of {forms[0]})'
        raise TileSourceError(msg) from exc
    if page.compression in _ALWAYS_THERE and not forms:
        return unpack
    try:
        pyvips.Region.new(file.open(stored.opening, sequential=True)).fetch(0, 0, 1, 1)
    except pyvips.Error as exc:
        # Damage is reported when it is read; it may be elsewhere, too.
        if forms or lacks_codec(exc):
            reason = why_not_decoded(page.compression_name, exc)
            msg = f'Cannot read {file.path!r}: {reason}'
            raise TileSourceError(msg) from exc
    return unpack


def _sub_pages(tiff: TiffDirectories, pages: Sequence[Page]) -> dict[int, list[Page | None]]:
    """
    The readable sub-IFDs of each page that has any, in order.

    :raises TiffFormatError: if they are more than any file needs.
    """
    found: dict[int, list[Page | None]] = {}
    # Many pages may point to the same.
    known: dict[int, Page | None] = {}
    entries = 0
    for number, page in enumerate(pages):
        for offset in page.sub_offsets:
            if offset not in known:
                try:
                    known[offset] = sub_page = tiff.page_at(offset)
                    entries += len(sub_page.entries)
                except TiffFormatError:
                    # libtiff would not read it either; the level is reduced instead.
                    known[offset] = None
            if entries > _MAX_ENTRIES:
                msg = f'its sub-IFDs have more than {_MAX_ENTRIES} entries'
                raise TiffFormatError(msg)
            found.setdefault(number, []).append(known[offset])
    return found


def _check_tables(file: SourceFile, stored: Stored) -> None:
    """
    Refuse a page that cannot be what it says: it would fail slowly, tile by tile.

    :raises TileSourceError: if it lists fewer tiles than it has, or one of them
        is more than all the bytes of the file can become.
    """
    page = stored.page
    assert page is not None  # it is a TIFF file
    piece = page.tile or page.size._replace(height=min(page.rows_per_strip, page.size.height))
    if min(piece) < 1:
        msg = f'Cannot read {file.path!r}: its tiles or strips have no size'
        raise TileSourceError(msg)
    planes = page.samples if page.planar == 2 else 1
    expected = -(-page.size.width // piece.width) * -(-page.size.height // piece.height) * planes
    if page.tile is not None and page.tile_count < expected:
        msg = f'Cannot read {file.path!r}: it lists {page.tile_count} of its {expected} tiles'
        raise TileSourceError(msg)
    most = _MOST_OF_A_BYTE.get(page.compression)
    needed = piece.width * piece.height * page.samples // planes * page.bits // 8
    if most is not None and needed > most * file.identity.size + _CLAIMED_BYTES:
        empty = empty_tiles(file, stored)
        if empty is None or not empty.all():
            msg = (f'Cannot read {file.path!r}: a tile or strip of it is said to have {needed} '
                   f'bytes, more than a file of {file.identity.size} bytes can hold')
            raise TileSourceError(msg)


def arrange(pages: Sequence[Page], sub_pages: Mapping[int, Sequence[Page | None]],
            texts: Mapping[int, str], file_name: str) -> Arrangement:
    """
    Which pages are frames, levels and associated images.

    :param pages: the main chain.
    :param sub_pages: the sub-IFDs of each page; None for unreadable ones.
    :param texts: the descriptions of the first pages.
    :param file_name: without its folder, for OME-XML that speaks of other files.
    """
    base = _base_page(pages)
    full, kind = pages[base].size, pages[base].kind
    alike = [number for number, page in enumerate(pages)
             if page.size == full and page.kind == kind
             and page.orientation == pages[base].orientation
             and not page.subfile_type & _MASK_SUBFILE]
    series = ome.ome_series(texts.get(0, ''), file_name, max(1, pages[base].samples))
    plan = _ome_frames(series, alike) or _imagej_frames(texts.get(0, ''), alike)
    if plan is None:
        plan = Arrangement(alike)
    taken = set(plan.frames)
    plan.levels = [{} for _ in plan.frames]
    for position, number in enumerate(plan.frames):
        for index, sub_page in enumerate(sub_pages.get(number, ())):
            if sub_page is not None and sub_page.kind == kind:
                reduction = reduction_between(full, sub_page.size)
                if reduction:
                    plan.levels[position].setdefault(reduction, (sub_page, number, index))
    aperio = texts.get(0, '').startswith('Aperio')
    by_reduction: dict[int, list[int]] = {}
    for number, page in enumerate(pages):
        if number in taken or page.kind != kind or (aperio and page.tile is None):
            continue
        reduction = reduction_between(full, page.size)
        if reduction:
            by_reduction.setdefault(reduction, []).append(number)
    for reduction, numbers in by_reduction.items():
        if len(numbers) != len(plan.frames) and len(plan.frames) > 1:
            continue
        for position, number in enumerate(numbers[:len(plan.frames)]):
            plan.levels[position].setdefault(reduction, (pages[number], number, None))
            taken.add(number)
    _name_others(plan, pages, texts, series, taken, base)
    return plan


def _base_page(pages: Sequence[Page]) -> int:
    """
    The page that decides the size of the frames.

    The first, unless a later one has more than four times its area: then the
    first was a thumbnail.
    """
    areas = [page.size.width * page.size.height for page in pages]
    largest = areas.index(max(areas))
    return largest if areas[largest] > 4 * areas[0] else 0


def _ome_frames(series: Sequence[ome.Series], alike: Sequence[int]) -> Arrangement | None:
    """The frames in the order and with the axes of OME-XML, if it speaks of these pages."""
    allowed = set(alike)
    present = [(image, [plane for plane in image.planes if plane.page in allowed])
               for image in series]
    present = [(image, planes) for image, planes in present if planes]
    if allowed - {plane.page for _, planes in present for plane in planes}:
        # It does not account for every page, so it is not about this file.
        return None
    plan = Arrangement([])
    seen = set[int]()
    for position, (_, planes) in enumerate(present):
        for plane in planes:
            if plane.page in seen:
                continue
            seen.add(plane.page)
            plan.frames.append(plane.page)
            axes = dict(plane.axes)
            if len(present) > 1:
                axes['IndexXY'] = position
            plan.axes.append(axes)
    _even_out(plan)
    channels = present[0][0].channels
    if any(channel.name for channel in channels):
        plan.channels = unique_keys([channel.name or f'Channel {number + 1}'
                                     for number, channel in enumerate(channels)])
    return plan


def _even_out(plan: Arrangement) -> None:
    """Give every frame the same axes, at 0 where an image has no extent along one."""
    keys = sorted({key for axes in plan.axes for key in axes})
    plan.axes = [{key: axes.get(key, 0) for key in keys} for axes in plan.axes]


def _imagej_frames(text: str, alike: Sequence[int]) -> Arrangement | None:
    """The frames with the axes of an ImageJ hyperstack."""
    axes = ome.imagej_axes(ome.imagej_fields(text), len(alike)) if text else []
    return Arrangement(list(alike), list(axes)) if axes else None


def _name_others(plan: Arrangement, pages: Sequence[Page], texts: Mapping[int, str],
                 series: Sequence[ome.Series], taken: set[int], base: int) -> None:
    """Name the pages that are neither frame nor level, from what they say of themselves."""
    ome_names = {plane.page: image.name for image in series for plane in image.planes}
    numbers = [number for number in range(len(pages)) if number not in taken]
    names = []
    for number in numbers:
        text = f'{ome_names.get(number, "")} {texts.get(number, "")[:200]}'
        found = None if number == 0 else _NAMES.search(text)
        aperio_thumbnail = number == 1 and texts.get(0, '').startswith('Aperio')
        if found:
            names.append(found[1].lower())
        elif aperio_thumbnail or (number == 0 and base):
            names.append('thumbnail')
        else:
            names.append(f'page_{number}')
    plan.associated = dict(zip(unique_keys(names), numbers, strict=True))


def _picture(pages: Sequence[Page], number: int,
             levels: Mapping[int, tuple[Page, int, int | None]], alpha: int | None) -> Picture:
    """A frame or associated image with its levels."""
    alone = len(pages) > _MANY_PAGES
    stored = {0: _stored(pages[number], number, None, alone)}
    for reduction, (page, owner, index) in sorted(levels.items()):
        stored[reduction] = _stored(page, owner, index, alone)
    orientation = pages[number].orientation
    return Picture(stored, orientation if 1 <= orientation <= 8 else 1,
                   pages[number].photometric == _PALETTE, alpha)


def _stored(page: Page, number: int, sub_page: int | None, alone: bool) -> Stored:
    """
    How to open a page, or a sub-IFD of it.

    :param number: of the page in the main chain.
    :param sub_page: the number of the sub-IFD, None for the page itself.
    :param alone: whether libvips is to see its directory only.
    """
    options = {'page': number} if sub_page is None else {'page': number, 'subifd': sub_page}
    opening = (Opening(directory=page.offset) if alone or page.is_separate_gray
               else Opening(tuple(options.items())))
    return Stored(page.size, opening, random=page.tile is not None,
                  kept_rows=2 * page.tile.height if page.tile else 0, page=page)
