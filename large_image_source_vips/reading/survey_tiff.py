"""
Find the frames, levels and associated images of a TIFF file.

The directories are parsed here instead of opening each page with libvips; libvips opens
only the first frame.  ``arrange`` decides what the pages are.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence

import pyvips

from ..base.errors import TileSourceError
from ..base.limits import LIMITS
from ..tiff.directories import (
    DESCRIPTION,
    EXTRA_SAMPLES,
    Page,
    TiffDirectories,
    TiffFormatError,
    TooManyEntriesError,
)
from .arrange import NAME_TEXT, Arrangement, Directories, Place, arrange
from .file import SourceFile
from .layout import Layout, Opening, Picture, Stored
from .loader import lacks_codec, why_not_decoded
from .rows import empty_tiles
from .tiff_samples import Samples
from .unpack import Unpacker, unpacker

_logger = logging.getLogger(__name__)

_PALETTE = 3
# The pages whose descriptions are read.
_DESCRIBED = 64
# The number of colour samples by photometric interpretation.
_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4, 6: 3}
# In the tag ExtraSamples: associated and unassociated alpha.
_ALPHA = frozenset({1, 2})
# libtiff follows the chain of directories at each open.  In files with more pages than this
# each page is opened as if it were the only one.
_MANY_PAGES = 64
# Compressions that every libtiff decodes: none, LZW, JPEG, deflate, PackBits.
_ALWAYS_THERE = frozenset({1, 5, 7, 8, 32773, 32946})
# The most bytes that one compressed byte can expand to: a PackBits run has 128 bytes in 2,
# an LZW code of 12 bits at most 4096 bytes, deflate 1032 to 1 (zlib's manual).  JPEG takes a
# bit for the mean of a block of 64 samples, or of 128 where chroma is subsampled; a block of
# ZSTD has 128 kB in 4 bytes (RFC 8878, 3.1.1.2).
_MAX_EXPANSION = {
    1: 1, 5: 2731, 7: 1024, 8: 1033, 32773: 64, 32946: 1033, 50000: 32768}
# Tolerated beyond that, so that a truncated file opens and fails only at its missing tiles.
_EXTRA_BYTES = LIMITS.tiff_missing
# Kinds of TIFF files that libvips up to 8.18 does not read.
_UNSUPPORTED: dict[str, Callable[[Page], bool]] = {
    'samples of more than 32 bits, such as 64-bit floats': lambda page: page.bits > 32,
    'tiles that hold one band each':
        lambda page: page.tile is not None and page.planar == 2 and page.samples > 1,
    'complex samples': lambda page: page.sample_format in {5, 6},
    'a number of bits that is not 1, 2, 4, 8, 16 or 32':
        lambda page: page.bits not in {1, 2, 4, 8, 16, 32},
}


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
            plan = arrange(Directories(
                pages, _sub_pages(tiff, pages), texts, os.path.basename(file.path),
                why_unreadable=why_unreadable))
            alpha = {place.page.offset: alpha_band(tiff, place.page)
                     for place in (plan.frames[0], *plan.associated.values())}
        except TiffFormatError as exc:
            msg = f'Cannot read {file.path!r}: {exc}'
            raise TileSourceError(msg) from exc
    for what in plan.left_out:
        _logger.warning('%s is read without %s', file.path, what)
    alone = len(pages) > _MANY_PAGES
    band = alpha[plan.frames[0].page.offset]
    frames = [_picture({0: place, **levels}, plan, band, alone)
              for place, levels in zip(plan.frames, plan.levels, strict=True)]
    first = frames[0].levels[0]
    _check_tables(file, first)
    unpack = _open_first(file, first)
    return Layout(
        tuple(frames), unpack.dtype, unpack.bands, unpack.interpretation,
        axes=tuple(plan.axes), channels=tuple(plan.channels),
        pages=len(pages), left_out=tuple(plan.left_out),
        associated={key: _picture({0: place}, plan, alpha[place.page.offset], alone)
                    for key, place in plan.associated.items()})


def alpha_band(tiff: TiffDirectories, page: Page) -> int | None:
    """
    The alpha band of a page, counted from the end.

    The tag ExtraSamples (TIFF 6.0, section 18) gives the meaning of the samples after the
    colours; 0 is unspecified data.  Without the tag, a single extra sample is alpha.
    libvips unpremultiplies colours with associated alpha (1) when it reads them, so that it
    equals unassociated alpha (2).

    :returns: None if there is none, or more than one, which libvips writes for data.
    """
    colours = _COLOURS.get(page.photometric)
    if colours is None or page.samples <= colours:
        return None
    extra = page.samples - colours
    if EXTRA_SAMPLES not in page.entries:
        return -1 if extra == 1 else None
    kinds = tiff.integers(page.entries[EXTRA_SAMPLES])
    found = [index for index, kind in enumerate(kinds[:extra]) if kind in _ALPHA]
    return found[0] - extra if len(found) == 1 else None


def _open_first(file: SourceFile, stored: Stored) -> Samples | Unpacker:
    """
    Open the first frame, and decode a pixel if its codec may be missing.

    Failing here lets large_image try another source.

    :returns: what its pixels are.
    :raises TileSourceError: if neither this package nor libvips can decode it.
    """
    page = stored.page
    assert page is not None  # it is a TIFF file
    tiles = file.tiles(stored)
    if tiles is not None:
        return tiles.samples
    unsupported = [kind for kind, matches in _UNSUPPORTED.items() if matches(page)]
    try:
        unpack = (file.handle(stored).unpacker if stored.random
                  else unpacker(file.open(stored.opening)))
    except (TileSourceError, pyvips.Error) as exc:
        if not unsupported:
            raise
        msg = f'{exc} (libvips does not read TIFF files of {unsupported[0]})'
        raise TileSourceError(msg) from exc
    if page.compression in _ALWAYS_THERE and not unsupported:
        return unpack
    try:
        pyvips.Region.new(file.open(stored.opening, sequential=True)).fetch(0, 0, 1, 1)
    except pyvips.Error as exc:
        # A damaged tile raises when it is read; the rest of the file can still be read.
        if unsupported or lacks_codec(exc):
            reason = '; '.join(filter(None, [
                why_not_decoded(page.compression_name, exc), file.problem(stored)]))
            msg = f'Cannot read {file.path!r}: {reason}'
            raise TileSourceError(msg) from exc
    return unpack


def why_unreadable(page: Page) -> str | None:
    """Why the pixels of a page cannot be decoded, from its header fields; None if they can."""
    return next((f'libvips does not read TIFF files of {kind}'
                 for kind, matches in _UNSUPPORTED.items() if matches(page)), None)


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


def _picture(places: Mapping[int, Place], plan: Arrangement, alpha: int | None,
             alone: bool) -> Picture:
    """
    A frame or associated image with its levels.

    :param places: its levels, by reduction.
    :param alpha: its alpha band, counted from the end.
    :param alone: whether libvips gets each directory alone.
    """
    stored = {reduction: _stored(place, alone) for reduction, place in sorted(places.items())}
    page = places[0].page
    return Picture(stored, page.orientation if 1 <= page.orientation <= 8 else 1,
                   page.photometric == _PALETTE, alpha)


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
