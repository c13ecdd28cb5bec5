"""
Find the frames, levels and associated images of a TIFF file.

This package parses the directories; libvips opens at most the first frame.  ``page_roles``
decides which pages are frames, levels, masks and associated images.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyvips

from ..base.errors import TileSourceError
from ..base.formats import COLOR_BANDS
from ..base.limits import LIMITS
from ..codecs import colours
from ..tiff import ome
from ..tiff.directories import TiffDirectories, TiffFormatError, TooManyEntriesError
from ..tiff.json_text import labels_of_json, read_json_text
from ..tiff.page import DESCRIPTION, EXTRA_SAMPLES, UNCOMPRESSED, Page
from ..tiff.tile_table import data_missing, tile_table
from .file import SourceFile
from .layout import Layout, Opening, Picture, Stored
from .loader import lacks_codec, why_not_decoded
from .page_roles import NAME_TEXT, Directories, PageRoles, Place, assign_roles
from .rows import empty_tiles
from .tiff_samples import COLOR_MAP, Samples, problem
from .unpack import Unpacker, unpacker

_logger = logging.getLogger(__name__)

# The number of pages whose descriptions are read.
_DESCRIBED = 64
# In the tag ExtraSamples.
_ALPHA = frozenset({colours.ASSOCIATED, colours.UNASSOCIATED})
# Colours that are converted to sRGB; the profile then does not apply.
_CONVERTED = frozenset({colours.CMYK, colours.CIELAB, colours.ICCLAB})
# libtiff follows the chain of directories at each open.  In files with more pages, each
# page is opened as if it were the only one.
_MANY_PAGES = 64
# Compressions that every libtiff decodes: none, LZW, JPEG, deflate, PackBits.
_ALWAYS_THERE = frozenset({1, 5, 7, 8, 32773, 32946})
# The most bytes that one compressed byte can expand to.  PackBits: a run of 128 bytes in 2;
# LZW: at most 4096 bytes in a code of 12 bits; deflate: 1032 to 1 (zlib's manual); JPEG: at
# least a bit for a block of 64 samples, or of 128 with subsampled chroma; ZSTD: a block of
# 128 kB in 4 bytes (RFC 8878, 3.1.1.2).
_MAX_EXPANSION = {
    1: 1, 5: 2731, 6: 1024, 7: 1024, 8: 1033, 32773: 64, 32946: 1033, 50000: 32768}
_EXTRA_BYTES = LIMITS.tiff_missing
# Compressions that libtiff decodes and this package does not: NeXT, ThunderScan, PixarLog,
# SGI LogLuv, JBIG.
_ONLY_BY_LIBTIFF = frozenset({32766, 32809, 32909, 34661, 34676, 34677})


def survey_tiff(file: SourceFile) -> Layout:
    """
    The layout of a TIFF file.

    :raises TileSourceError: if its directories are invalid or libvips cannot read its
        first frame.
    """
    with file.descriptor() as descriptor:
        try:
            tiff = TiffDirectories(descriptor)
            pages = list(tiff.pages())
            if not pages:
                msg = 'it has no page'
                raise TiffFormatError(msg)
            texts = {number: tiff.text(page.entries.get(DESCRIPTION),
                                       None if not number else NAME_TEXT)
                     for number, page in enumerate(pages) if number < _DESCRIBED}
            subs = _sub_pages(tiff, pages)
            labels = labels_of_json(read_json_text(texts[0]), 'palette') is not None
            if labels:
                # The ColorMap has the colours of labels; the samples stay labels.
                pages = [_uncoloured(page) for page in pages]
                subs = {number: [page and _uncoloured(page) for page in found]
                        for number, found in subs.items()}
            plan = assign_roles(Directories(
                pages, subs, texts, os.path.basename(file.path),
                contiguous_images(tiff, pages, texts.get(0, '')),
                lambda page: why_unreadable(tiff, page),
                lambda page: why_unreadable(tiff, page) or data_missing(tiff, page)))
            reason = problem(tiff, plan.frames[0].page)
            alpha = {place.page.offset: alpha_band(tiff, place.page)
                     for place in (plan.frames[0], *plan.associated.values())}
        except TiffFormatError as exc:
            msg = f'Cannot read {file.path!r}: {exc}'
            raise TileSourceError(msg) from exc
    for what in plan.left_out:
        _logger.warning('%s is read without %s', file.path, what)
    alone = len(pages) > _MANY_PAGES
    band = alpha[plan.frames[0].page.offset]
    frames = [_picture({0: place, **levels}, band, alone, labels=labels)
              for place, levels in zip(plan.frames, plan.levels, strict=True)]
    first = frames[0].levels[0]
    _check_tables(file, first)
    unpack = _open_first(file, first, reason)
    masked = (COLOR_BANDS.get(unpack.interpretation) == unpack.bands and
              any(place.page.offset in plan.masks for place in plan.frames))
    if masked:
        frames = [_with_masks(frame, plan, alone) for frame in frames]
    return Layout(
        tuple(frames), unpack.dtype, unpack.bands + masked, unpack.interpretation,
        axes=tuple(plan.axes), channels=tuple(plan.channels), pages=len(pages),
        converted=plan.frames[0].page.photometric in _CONVERTED, left_out=tuple(plan.left_out),
        associated={key: _picture({0: place}, alpha[place.page.offset], alone)
                    for key, place in plan.associated.items()})


def is_aperio(file: SourceFile) -> bool:
    """Whether a TIFF file is an Aperio slide, and this package can decode each page."""
    with file.descriptor() as descriptor:
        try:
            tiff = TiffDirectories(descriptor)
            pages = list(tiff.pages())
            return (bool(pages) and
                    tiff.text(pages[0].entries.get(DESCRIPTION), NAME_TEXT).startswith('Aperio')
                    and all(problem(tiff, page) is None for page in pages))
        except TiffFormatError:
            return False


def _uncoloured(page: Page) -> Page:
    """A page with indices as samples, without its palette."""
    return page if page.photometric != colours.PALETTE else replace(
        page, photometric=colours.BLACK_IS_ZERO)


def alpha_band(tiff: TiffDirectories, page: Page) -> int | None:
    """
    The alpha band of a page, counted from the end.

    The tag ExtraSamples (TIFF 6.0, section 18) gives the meaning of the samples after the
    colours; 0 is unspecified data.  Without the tag, a single extra sample is alpha.
    Reading converts associated (1) to unassociated alpha (2).

    :returns: None if there is none, or more than one: libvips writes data bands so.
    """
    count = colours.COLOURS.get(page.photometric)
    if count is None or page.samples <= count:
        return None
    extra = page.samples - count
    if EXTRA_SAMPLES not in page.entries:
        return -1 if extra == 1 and page.photometric != colours.CMYK else None
    kinds = tiff.integers(page.entries[EXTRA_SAMPLES])
    found = [index for index, kind in enumerate(kinds[:extra]) if kind in _ALPHA]
    return found[0] - extra if len(found) == 1 else None


def _open_first(file: SourceFile, stored: Stored, reason: str | None) -> Samples | Unpacker:
    """
    Open the first frame, and decode a pixel if its codec may be missing.

    An error lets large_image try another source.

    :param reason: why this package cannot decode it; None if it can.
    :returns: the format of its pixels.
    :raises TileSourceError: if neither this package nor libvips can decode it.
    """
    page = stored.page
    assert page is not None  # it is a TIFF file
    tiles = file.tiles(stored)
    if tiles is not None:
        return tiles.samples
    try:
        unpack = (file.handle(stored).unpacker if stored.random
                  else unpacker(file.open(stored.opening)))
        if page.compression not in _ALWAYS_THERE or reason:
            # pyvips needs the image itself while its region is in use.
            image = file.open(stored.opening, sequential=True)
            pyvips.Region.new(image).fetch(0, 0, 1, 1)
    except pyvips.Error as exc:
        # Reading a damaged tile raises the error; the rest of the file can be read.
        if reason or lacks_codec(exc):
            said = why_not_decoded(page.compression_name, exc)
            msg = f'Cannot read {file.path!r}: {reason + "; libvips: " if reason else ""}{said}'
            raise TileSourceError(msg) from exc
    except TileSourceError as exc:
        if reason is None:
            raise
        msg = f'Cannot read {file.path!r}: {reason}; libvips does not read it, either ({exc})'
        raise TileSourceError(msg) from exc
    return unpack


def contiguous_images(tiff: TiffDirectories, pages: Sequence[Page], text: str) -> tuple[int, int]:
    """
    Find uncompressed images that follow one another, with a directory for the first only:
    ImageJ's stacks of more than 4 GB, and tifffile's on request.

    :param text: the description of the first, which gives their number.
    :returns: the number of images, and the bytes from one to the next.
    """
    page = pages[0]
    count = ome.described_images(text, page.size, page.samples)
    if len(pages) > 1 or count < 2 or page.compression != UNCOMPRESSED or page.tile:
        return 1, 0
    table = tile_table(tiff, page)
    if table is None or table[0].size != page.pieces or not table[0].all():
        return 1, 0
    offsets, counts = table
    step = int(counts.sum())
    fits = int(offsets[0]) + count * step <= tiff.file_size
    return (count, step) if fits and (np.diff(offsets) == counts[:-1]).all() else (1, 0)


def why_unreadable(tiff: TiffDirectories, page: Page) -> str | None:
    """
    Why the pixels of a page cannot be decoded, from its header fields; None if they can.

    Whether libvips can is not known before it has tried; it is believed for codecs that only
    libtiff has.
    """
    reason = problem(tiff, page)
    return None if page.compression in _ONLY_BY_LIBTIFF else reason


def _sub_pages(tiff: TiffDirectories, pages: Sequence[Page]) -> dict[int, list[Page | None]]:
    """
    The sub-IFDs of each page that has any, in order; None for unreadable ones.

    :raises TiffFormatError: if the directories have too many entries.
    """
    found: dict[int, list[Page | None]] = {}
    # Pages may share sub-IFDs.
    known: dict[int, Page | None] = {}
    for number, page in enumerate(pages):
        for offset in page.sub_offsets:
            if offset not in known:
                try:
                    known[offset] = tiff.page_at(offset)
                except TooManyEntriesError:
                    raise
                except TiffFormatError:
                    # libtiff cannot read it either; the level is computed instead.
                    known[offset] = None
            found.setdefault(number, []).append(known[offset])
    return found


def _check_tables(file: SourceFile, stored: Stored) -> None:
    """
    Refuse a page whose tile table cannot be right, instead of failing slowly at each tile.

    :raises TileSourceError: if it lists fewer tiles than its size needs, or if a tile is
        larger than the whole file could expand to.
    """
    page = stored.page
    assert page is not None  # it is a TIFF file
    piece = page.piece
    if min(piece) < 1:
        msg = f'Cannot read {file.path!r}: its tiles or strips have no pixels'
        raise TileSourceError(msg)
    if page.tile is not None and page.tile_count < page.pieces:
        msg = f'Cannot read {file.path!r}: it lists {page.tile_count} of its {page.pieces} tiles'
        raise TileSourceError(msg)
    most = _MAX_EXPANSION.get(page.compression)
    needed = piece.width * piece.height * page.samples // page.planes * page.bits // 8
    if most is not None and needed > most * file.identity.size + _EXTRA_BYTES:
        empty = empty_tiles(file, stored)
        if empty is None or not empty.all():
            msg = (f'Cannot read {file.path!r}: a tile or strip claims to have {needed} bytes, '
                   f'more than a file of {file.identity.size} bytes can hold')
            raise TileSourceError(msg)


def _picture(places: Mapping[int, Place], alpha: int | None, alone: bool, *,
             labels: bool = False) -> Picture:
    """
    A frame or associated image with its levels.

    :param places: its levels, by reduction.
    :param alpha: its alpha band, counted from the end.
    :param alone: whether libvips gets each directory alone.
    :param labels: whether a single band has labels, according to the JSON text.
    """
    stored = {reduction: _stored(place, alone) for reduction, place in sorted(places.items())}
    page = places[0].page
    return Picture(stored, page.orientation if 1 <= page.orientation <= 8 else 1,
                   page.photometric == colours.PALETTE or COLOR_MAP in page.entries or
                   (labels and page.samples - (alpha is not None) == 1), alpha)


def _with_masks(picture: Picture, plan: PageRoles, alone: bool) -> Picture:
    """
    A picture with the alpha band of its masks, opaque if it has none.

    A level without a mask is left out beside those that have one.
    """
    levels: dict[int, Stored] = {}
    for reduction, stored in picture.levels.items():
        assert stored.page is not None  # they are pages
        mask = plan.masks.get(stored.page.offset)
        if mask is not None or levels.get(0, stored).mask is None:
            levels[reduction] = replace(
                stored, masked=True, mask=None if mask is None else _stored(mask, alone))
    return replace(picture, levels=levels, alpha=-1)


def _stored(place: Place, alone: bool) -> Stored:
    """
    A page or a sub-IFD of it as a stored picture.

    :param alone: whether libvips gets its directory alone.
    """
    page, number, sub_page = place
    options = {'page': number} if sub_page is None else {'page': number, 'subifd': sub_page}
    opening = (Opening(directory=page.offset, shift=page.shift)
               if alone or page.is_separate_gray or page.shift else Opening(tuple(options.items())))
    return Stored(page.size, opening, random=page.tile is not None,
                  kept_rows=2 * page.tile.height if page.tile else 0, page=page)
