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

from .geometry import Rect, Size
from .layout import Stored
from .packed import Damaged, PackedPage
from .raster import reduce_pixels
from .tiff import JPEG_TABLES, MCU, Page

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
# The pixels of the tiles that are stacked, at most.
_MAX_STACKED = 1 << 22


@functools.cache
def _has_jpeg() -> bool:
    return bool(PIL.features.check('jpg'))


def suits(stored: Stored) -> bool:
    """Whether the tiles of a stored picture can be decoded smaller here."""
    page = stored.page
    return page is not None and page.is_plain_jpeg and stored.opened is None and _has_jpeg()


class _Coded(NamedTuple):
    """A JPEG stream without its SOI marker, in two parts."""

    # All segments but those for applications, up to the scan header.
    head: bytes
    # The coded samples, and the EOI marker.
    scan: bytes

    @property
    def is_whole(self) -> bool:
        """Whether there is no marker in the scan but EOI at its end."""
        return (self.scan.endswith(_END) and
                self.scan.count(b'\xff') == self.scan.count(b'\xff\x00') + 1)


class JpegPage(PackedPage):
    """
    A page of a picture that ``suits``.

    :raises Damaged: if it does not say where its tiles are.
    """

    def __init__(self, descriptor: int, page: Page) -> None:
        super().__init__(descriptor, page)
        assert page.tile is not None  # it is a page of tiles
        self._tile = page.tile
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
            except Damaged:
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
        readable = []
        for place, number in enumerate(numbers):
            with suppress(Damaged):
                readable.append((place, _coded(self.packed(number))))
        most = max(1, _MAX_STACKED // self._tile.area)
        for (_, is_whole), run in itertools.groupby(
                readable, lambda item: (item[1].head, item[1].is_whole)):
            together = list(run)
            can_be_stacked = is_whole and _interval(together[0][1].head, self._tile) is not None
            step = most if can_be_stacked else 1
            for first in range(0, len(together), step):
                yield together[first:first + step]

    def _decoded(self, tiles: list[_Coded], halvings: int) -> Tile:
        """
        Tiles that can be decoded together, smaller.

        :returns: an array (tiles, rows, cols, samples).
        :raises Damaged: if one is not as it should be.
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


def _coded(stream: bytes) -> _Coded:
    """
    The parts of a tile.

    :raises Damaged: if it has no scan.
    """
    segments, end = _segments(stream)
    if not segments or segments[-1][1] != _SCAN:
        raise Damaged
    return _Coded(b''.join(segments), stream[end:])


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
    first, *others = [divmod(factors, 16) for factors in frame[11::3]]
    if first not in _SAMPLING.get(count, ()) or any(factors != (1, 1) for factors in others):
        return None
    across, down = width // (8 * first[0]), height // (8 * first[1])
    return across * down if across * down < 1 << 16 else None


def _stack(tiles: list[_Coded], tile: Size) -> Iterator[bytes]:
    """The parts of a stream, from its tables on, that has tiles below one another."""
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
    for number, coded in enumerate(tiles):
        yield coded.scan[:-2]
        yield bytes((0xFF, 0xD0 + number % 8)) if number < len(tiles) - 1 else _END


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
    picture = Rect(0, 0, *stored.size)
    across = -(-stored.size.width // tile.width)
    width, height = tile.width // factor, tile.height // factor
    wholes = {
        row * across + column: Rect(column * tile.width, row * tile.height, *tile).clipped(picture)
        for row in range(rect.top // height, -(-rect.bottom // height))
        for column in range(rect.left // width, -(-rect.right // width))}
    # Of the last blocks of JPEG, a part may be behind the edge of the picture.
    inside = [number for number, whole in wholes.items()
              if not (whole.width % MCU or whole.height % MCU)]
    decoded = dict(zip(inside, page.tiles(inside, halvings), strict=True))
    result = np.empty((rect.height, rect.width, stored.page.samples), np.uint8)
    for number, whole in wholes.items():
        pixels: npt.NDArray[np.generic] | None = decoded.get(number)
        if pixels is None:
            # What is damaged is decoded as a whole, by what says what is wrong.
            pixels = reduce_pixels(read(whole), factor, averaged=True)
        place = Rect(whole.left // factor, whole.top // factor, width, height)
        part = place.clipped(rect)
        result[part.top - rect.top:part.bottom - rect.top,
               part.left - rect.left:part.right - rect.left] = pixels[
                   part.top - place.top:part.bottom - place.top,
                   part.left - place.left:part.right - place.left]
    return result
