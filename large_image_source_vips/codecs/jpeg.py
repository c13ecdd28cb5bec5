"""
JPEG tiles of a TIFF page, decoded at a half, a quarter or an eighth of their size.

libjpeg can leave out what a smaller picture does not show: that takes less time
than to decode all of it and to average, and gives the same but for a grey value or
two.  Pillow brings libjpeg; libvips offers this for whole files only.

Getting a decoder ready takes as long as decoding an eighth of a tile.  So tiles are
stacked: the coded samples of one below those of the other, each an interval of its
own between restart markers (ITU-T T.81, B.2.1 and E.1.4), make one tall picture.
"""

from __future__ import annotations

import functools
import io
import itertools
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.features
import PIL.Image

from ..base.geometry import Rect, Size
from ..base.limits import LIMITS
from ..base.reduce import reduce_pixels
from ..reading.layout import Stored
from ..tiff.directories import JPEG_TABLES, MCU, Page
from ..tiff.stored_tiles import Damaged, PackedPage

Tile = npt.NDArray[np.uint8]

# How often libjpeg halves a picture, at most.
MAX_HALVINGS = 3

# An APP14 segment as Adobe writes it, without and with conversion from YCbCr: a
# decoder would have to guess what the three components are.
_ADOBE = b'\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00'
# Markers (ITU-T T.81, table B.1), the second byte of those before the scan.
_START, _END = b'\xff\xd8', b'\xff\xd9'
_FRAMES, _RESTARTS, _SCAN, _APPLICATION = (0xC0, 0xC1), 0xDD, 0xDA, range(0xE0, 0xF0)
_MODES = {1: 'L', 3: 'RGB'}
# The sampling factors, horizontal and vertical, of the first component if the others
# have 1 x 1: no pixel of a tile that is decoded smaller depends on the tile above.
_SAMPLING = {1: {(1, 1)}, 3: {(1, 1), (2, 1), (2, 2)}}
# The pixels of the tiles that are stacked, at most, and their rows: libjpeg takes no
# taller picture.
_MAX_STACKED = LIMITS.codecs_stacked_pixels
_MAX_ROWS = LIMITS.codecs_stacked_rows


@functools.cache
def _has_jpeg() -> bool:
    return bool(PIL.features.check('jpg'))


def suits(stored: Stored) -> bool:
    """Whether the tiles of a stored picture can be decoded smaller here."""
    page = stored.page
    return page is not None and page.is_plain_jpeg and stored.opened is None and _has_jpeg()


class _NotStackedError(Exception):
    """Tiles that must be decoded one by one."""


class _Coded(NamedTuple):
    """A JPEG stream without its SOI marker, in two parts."""

    # All segments but those for applications, up to the scan header.
    head: bytes
    # The coded samples, and the EOI marker if it is the end.
    scan: bytes


class JpegPage(PackedPage):
    """
    A page of a picture that ``suits``.

    :raises Damaged: if it does not say where its tiles are.
    """

    def __init__(self, descriptor: int, page: Page) -> None:
        super().__init__(descriptor, page)
        assert page.tile is not None  # it is a page of tiles
        self._tile = page.tile
        # The start of the tile that was read last, as it is in the file, and its head.
        self._start, self._head = b'', b''
        tables = self._tiff.data(page.entries.get(JPEG_TABLES))
        self._tables = b''.join(_segments(tables)[0]) if tables else b''
        if page.samples == 3:
            self._tables += _ADOBE + (b'\x01' if page.photometric == 6 else b'\x00')

    def tiles(self, numbers: Sequence[int], halvings: int) -> list[Tile | None]:
        """
        Tiles, smaller.

        :param numbers: of the tiles, in file order.
        :param halvings: how often they are halved, 1 to 3.
        :returns: for each an array (rows, cols, samples); None if it is not as it
            should be.
        """
        tiles: list[Tile | None] = [None] * len(numbers)
        for run in self._runs(numbers):
            try:
                pixels = self._decoded([coded for _, coded in run], halvings)
            except (Damaged, _NotStackedError):
                # One of them; each on its own, then.
                for place, coded in run if len(run) > 1 else []:
                    with suppress(Damaged):
                        tiles[place] = self._decoded([coded], halvings)[0]
                continue
            for (place, _), tile in zip(run, pixels, strict=True):
                tiles[place] = tile
        return tiles

    def _runs(self, numbers: Sequence[int]) -> Iterator[list[tuple[int, _Coded]]]:
        """Tiles that can be decoded together, with their places among the numbers."""
        most = max(1, min(_MAX_STACKED // self._tile.area, _MAX_ROWS // self._tile.height))
        for head, run in itertools.groupby(self._all_coded(numbers), lambda item: item[1].head):
            step = 1 if _interval(head, self._tile) is None else most
            while together := list(itertools.islice(run, step)):
                yield together

    def _all_coded(self, numbers: Sequence[int]) -> Iterator[tuple[int, _Coded]]:
        """Those that can be read, with their places among the numbers."""
        for place, number in enumerate(numbers):
            with suppress(Damaged):
                yield place, self._coded(number)

    def _coded(self, number: int) -> _Coded:
        """
        A tile as it is in the file.

        :raises Damaged: if it has no scan.
        """
        stream = self.packed(number)
        if not (self._start and stream.startswith(self._start)):
            segments, end = _segments(stream)
            if not segments or segments[-1][1] != _SCAN:
                raise Damaged
            self._start, self._head = stream[:end], b''.join(segments)
        return _Coded(self._head, stream[len(self._start):])

    def _decoded(self, tiles: list[_Coded], halvings: int) -> Tile:
        """
        Tiles that can be decoded together, smaller.

        :returns: an array (tiles, rows, cols, samples).
        :raises Damaged: if one is not as it should be.
        :raises _NotStackedError: if the scan of one has markers in it, or does not end.
        """
        tile, samples, count = self._tile, self._page.samples, len(tiles)
        size = tile.width, tile.height * count
        wanted = tile.width >> halvings, (tile.height >> halvings) * count
        stream = b''.join([_START, self._tables, *_stack(tiles, tile)])
        try:
            with PIL.Image.open(io.BytesIO(stream), formats=('JPEG',)) as image:
                if image.size != size or image.mode != _MODES[samples]:
                    raise Damaged
                image.draft(None, wanted)
                # Take all of the stream at once, not in pieces.
                image.decodermaxblock = len(stream)
                pixels: Tile = np.asarray(image)
        except (OSError, SyntaxError, ValueError, struct.error,
                PIL.Image.DecompressionBombError) as exc:
            raise Damaged from exc
        if pixels.shape[1::-1] != wanted:
            raise Damaged
        return pixels.reshape(count, -1, wanted[0], samples)


def _segments(stream: bytes) -> tuple[list[bytes], int]:
    """
    The segments of a JPEG stream up to its scan header, and where they end.

    Those for applications are left out: they may say other things of the colours
    than the TIFF file does.

    :raises Damaged: if it is none.
    """
    if not stream.startswith(_START):
        raise Damaged
    kept, at = [], 2
    while at + 4 <= len(stream) and stream[at] == 0xFF and stream[at:at + 2] != _END:
        end = at + 2 + int.from_bytes(stream[at + 2:at + 4], 'big')
        if not at + 4 <= end <= len(stream):
            raise Damaged
        if stream[at + 1] not in _APPLICATION:
            kept.append(stream[at:end])
        is_last = stream[at + 1] == _SCAN
        at = end
        if is_last:
            break
    return kept, at


@functools.lru_cache(maxsize=64)
def _interval(head: bytes, tile: Size) -> int | None:
    """
    How many units of coding (MCU) a tile has.

    :param head: of the tile.
    :param tile: the size that it should have.
    :returns: None if such a tile cannot be stacked.
    """
    segments = {segment[1]: segment for segment in _segments(_START + head)[0]}
    frames = [segments[marker] for marker in _FRAMES if marker in segments]
    if len(frames) != 1 or _RESTARTS in segments or len(frames[0]) < 10:
        return None
    frame, scan = frames[0], segments[_SCAN]
    count = frame[9]
    height, width = struct.unpack('>HH', frame[5:9])
    # Baseline, all components in one scan.
    if (width, height) != tile or len(frame) != 10 + 3 * count or scan[4:5] != frame[9:10]:
        return None
    if count not in _SAMPLING:
        return None
    first, *others = [divmod(factors, 16) for factors in frame[11::3]]
    if first not in _SAMPLING[count] or any(factors != (1, 1) for factors in others):
        return None
    across, down = width // (8 * first[0]), height // (8 * first[1])
    return across * down if across * down < 1 << 16 else None


def _stack(tiles: list[_Coded], tile: Size) -> Iterator[bytes]:
    """
    The parts of a stream, from its tables on, that has tiles below one another.

    :raises _NotStackedError: if the scan of one has markers in it, or does not end.
    """
    if len(tiles) == 1:
        yield from tiles[0]
        return
    interval = _interval(tiles[0].head, tile)
    assert interval is not None  # else they are decoded one by one
    for segment in _segments(_START + tiles[0].head)[0]:
        if segment[1] in _FRAMES:
            height = struct.pack('>H', tile.height * len(tiles))
            yield segment[:5] + height + segment[7:]
        elif segment[1] == _SCAN:
            yield struct.pack('>BBHH', 0xFF, _RESTARTS, 4, interval)
            yield segment
        else:
            yield segment
    parts: list[bytes] = []
    for number, coded in enumerate(tiles):
        if not coded.scan.endswith(_END):
            raise _NotStackedError
        parts += (coded.scan[:-2], bytes((0xFF, 0xD0 + number % 8)))
    parts[-1] = _END
    scan = b''.join(parts)
    # In the samples, 0 stands behind 255 (B.1.1.5); a marker there would be taken
    # for that between this tile and another.
    samples = np.frombuffer(scan, np.uint8)
    marks = np.flatnonzero(samples[:-1] == 0xFF)
    if np.count_nonzero(samples[marks + 1]) != len(tiles):
        raise _NotStackedError
    yield scan


def smaller(page: JpegPage, stored: Stored, halvings: int, rect: Rect,
            read: Callable[[Rect], npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    """
    A rectangle of a stored picture, made smaller.

    A pixel has one value, whatever rectangle it is read with.

    :param page: its tiles.
    :param halvings: how often it is halved, 1 to 3.
    :param rect: in pixels of the smaller picture.
    :param read: gives a rectangle of the stored picture, for tiles that reach beyond
        its edge, and for damaged ones.
    :returns: an array (rect.height, rect.width, samples).
    """
    assert stored.page is not None
    tile, factor = stored.page.tile, 1 << halvings
    assert tile is not None
    across = -(-stored.size.width // tile.width)
    width, height = tile.width // factor, tile.height // factor
    places = [(row, column) for row in range(rect.top // height, -(-rect.bottom // height))
              for column in range(rect.left // width, -(-rect.right // width))]
    # Of the last blocks of JPEG, a part may be behind the edge of the picture.
    rows, columns = (extent // each if extent % each % MCU else -(-extent // each)
                     for extent, each in ((stored.size.height, tile.height),
                                          (stored.size.width, tile.width)))
    inside = [row * across + column for row, column in places
              if row < rows and column < columns]
    decoded = dict(zip(inside, page.tiles(inside, halvings), strict=True))
    result = np.empty((rect.height, rect.width, stored.page.samples), np.uint8)
    for row, column in places:
        pixels: npt.NDArray[np.generic] | None = decoded.get(row * across + column)
        if pixels is None:
            # What is damaged is decoded as a whole, by what says what is wrong.
            whole = Rect(column * tile.width, row * tile.height, *tile)
            pixels = reduce_pixels(
                read(whole.clipped(Rect(0, 0, *stored.size))), factor, averaged=True)
        left, top = column * width - rect.left, row * height - rect.top
        result[max(0, top):top + height, max(0, left):left + width] = pixels[
            max(0, -top):rect.height - top, max(0, -left):rect.width - left]
    return result
