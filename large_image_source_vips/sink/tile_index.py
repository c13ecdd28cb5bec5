"""
An index of the tiles in logs: the tiles on each block in order, their keys and common
format.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..base.errors import TileSourceError, shown
from ..base.formats import Meaning, joined_dtype
from ..base.geometry import Rect
from . import records
from .blend import ORDERED, check_policy, result_dtype
from .blocks import BLOCK_SIZE
from .canvas_state import CanvasState, check_size
from .frames import Frames, Placer, SharedPlacer
from .grid import block_area, blocks_in
from .records import Entry, Kind

# The frame number in the keys of blocks, the column and the row.
Block = tuple[int, int, int]
Format = tuple[np.dtype[Any], Meaning]
# The number of a tile, and the index of one of its frames.
FrameOfTile = tuple[int, int]
# The sort key of a tile, and the tile.
Keyed = tuple[tuple[Any, ...], FrameOfTile]


class TileIndex:
    """
    The tiles of an image.

    :param policy: the blend policy.
    :param accumulator: the dtype of means and sums, or None.
    :param frames: of the image; those of the tiles are added.
    :param shared: whether several processes add tiles; their order then does not depend on
        the time.
    :param read: returns the bytes of a tile's samples.
    :param part_name: returns the name of the log that has a tile.
    """

    def __init__(self, policy: str, accumulator: str | None, frames: Frames, shared: bool,
                 read: Callable[[Entry], bytes], part_name: Callable[[Entry], str]) -> None:
        self._policy = policy
        self._accumulator = accumulator
        self._frames = frames
        self._placer = SharedPlacer() if shared else Placer()
        self._shared = shared
        self._read = read
        self._part_name = part_name
        self.entries: list[Entry] = []
        self.blocks: dict[Block, list[FrameOfTile]] = {}
        self.extent: Rect | None = None
        # The dtype and meaning of the image, and the dtype of its tiles.
        self.format: Format | None = None
        self.tile_dtype: np.dtype[Any] | None = None
        # Whether a tile had an alpha band.
        self.alpha_given = False
        self._keys: dict[Any, Entry] = {}
        self._kinds: dict[bytes, tuple[Kind, tuple[int, int]]] = {}
        self._digests: dict[int, bytes] = {}
        # The contradiction between tiles of different processes, if one was found.
        self._conflict: str | None = None

    def add_entries(self, entries: Iterable[Entry]) -> list[tuple[int, Rect]]:
        """
        Add tiles.

        :returns: the changed frames (numbers in the keys of blocks) and rectangles.
        :raises TileSourceError: if tiles of two processes contradict each other; later
            calls raise it again.
        """
        self.check()
        changed: list[tuple[int, Rect]] = []
        try:
            for entry in entries:
                if self._is_repeated(entry):
                    continue
                self._count_kind(entry)
                extent = entry.rect if self.extent is None else self.extent.united(entry.rect)
                if extent is not self.extent:
                    check_size(CanvasState.size_of(extent), entry.text().capitalize())
                    self.extent = extent
                changed += [(frame, entry.rect) for frame in self._add(entry)]
        except TileSourceError as exc:
            self._conflict = str(exc)
            raise
        return changed

    def check(self) -> None:
        """
        Check that the known tiles do not contradict each other.

        :raises TileSourceError: if they do.
        """
        if self._conflict is not None:
            raise TileSourceError(self._conflict)

    def _add(self, entry: Entry) -> list[int]:
        """Add a tile to the blocks under it; returns its frames."""
        target, axes = self._placer.placed(self._frames, entry.target)
        frames = self._frames.reserve(target)
        self._frames.commit(target, frames, axes)
        number, area = len(self.entries), block_area(entry.rect)
        self.entries.append(entry)
        self.alpha_given = self.alpha_given or entry.has_alpha_band
        for place, frame in enumerate(frames):
            for column, row in blocks_in(area):
                self.blocks.setdefault((frame, column, row), []).append((number, place))
        return frames

    # Keys

    def added(self, key: Any) -> bool:
        """Whether a tile with the key was added."""
        return key in self._keys

    def _is_repeated(self, entry: Entry) -> bool:
        """
        Whether the same tile with the same key is already in the index.

        :raises TileSourceError: if that was another tile.
        """
        key = entry.key
        if key is None:
            return False
        before = self._keys.setdefault(key, entry)
        if before is entry:
            return False
        if self._digest(before) != self._digest(entry):
            msg = (f'The key {key!r} was given to two different tiles: {before.text()} in '
                   f'{self._part_name(before)} and {entry.text()} in '
                   f'{self._part_name(entry)}.')
            raise TileSourceError(msg)
        return True

    def check_key(self, key: Any, entry: Entry, buffers: Iterable[Any]) -> bool:
        """
        Whether a tile to add is already in the index under its key.

        :param entry: the tile.
        :param buffers: its samples.
        :raises TileSourceError: if that was another tile.
        """
        before = self._keys.get(key)
        if before is None:
            return False
        if self._digest(before) != records.digest(buffers, entry):
            msg = (f'The key {key!r} was given to {before.text()}, and now to '
                   f'{entry.text()} with other samples; a key names one tile.')
            raise TileSourceError(msg)
        return True

    def _digest(self, entry: Entry) -> bytes:
        return records.digest([self._read(entry)], entry)

    # Format

    def _count_kind(self, entry: Entry) -> None:
        """
        Widen the format so that it can hold a tile.

        The kinds of samples are joined in a fixed order, so the result does not depend on
        which tile was found first.

        :raises TileSourceError: if no format can hold all tiles.
        """
        name, details = entry.kind.encoded, entry.details or {}
        found = tuple(details.get('extremes', (0, 0)))
        known = self._kinds.get(name)
        if known is not None:
            low, high = min(known[1][0], found[0]), max(known[1][1], found[1])
            if (low, high) == known[1]:
                return
            found = low, high
        self._kinds[name] = entry.kind, found
        self.tile_dtype, meaning = self._joined(self._kinds)
        self.format = (
            result_dtype(self._policy, self.tile_dtype, self._accumulator), meaning)

    def _joined(self, kinds: dict[bytes, tuple[Kind, tuple[int, int]]]) -> Format:
        dtype: np.dtype[Any] | None = None
        meaning: Meaning | None = None
        extremes = 0, 0
        for _, (kind, found) in sorted(kinds.items()):
            check_policy(self._policy, kind.meaning)
            meaning = kind.meaning if meaning is None else meaning.joined(kind.meaning)
            if dtype is None or dtype == kind.dtype:
                dtype = kind.dtype
            else:
                dtype = joined_dtype(dtype, kind.dtype, extremes, found)
            extremes = min(extremes[0], found[0]), max(extremes[1], found[1])
        assert dtype is not None
        assert meaning is not None
        return dtype, meaning

    def check_fits(self, kind: Kind, extremes: tuple[int, int]) -> None:
        """
        Check that a tile can be combined with the known tiles.

        :raises TileSourceError: if it cannot.
        """
        known = self._kinds.get(kind.encoded)
        if known is None or known[1] != extremes:
            self._joined({**self._kinds, kind.encoded: (kind, extremes)})

    # Order

    def whole_block(self, block: Block, dtype: np.dtype[Any], meaning: Meaning) -> Entry | None:
        """
        The tile whose samples are those of a block, in a format; None if there is none.

        It is the only tile on the block, and covers it without alpha, mask and weight.
        """
        sheets = self.blocks.get(block, [])
        if len(sheets) != 1 or sys.byteorder != 'little':
            return None
        entry, (_, column, row) = self.entries[sheets[0][0]], block
        kind = entry.kind
        fits = (entry.rect == (column * BLOCK_SIZE, row * BLOCK_SIZE, BLOCK_SIZE, BLOCK_SIZE) and
                kind.dtype == dtype and kind.meaning.color_bands == meaning.color_bands and
                entry.nbytes == dtype.itemsize * meaning.color_bands * BLOCK_SIZE ** 2)
        return entry if fits else None

    def tiles_on(self, block: Block) -> list[tuple[Entry, int]]:
        """
        The tiles on a block, in the order for the policy.

        :returns: tiles, each with the index of the frame.
        """
        sheets = self.blocks.get(block, [])
        if self._policy not in ORDERED:
            # A fixed order, because the last bits of sums of floats depend on it.
            return sorted(((self.entries[number], place) for number, place in sheets),
                          key=_place_key)
        keyed = sorted((self._order_key(number), (number, place)) for number, place in sheets)
        if self._shared:
            keyed = self._sorted_by_digest(keyed)
        found = [(self.entries[number], place) for _, (number, place) in keyed]
        return found if self._policy == 'over' else found[::-1]

    def _order_key(self, number: int) -> tuple[Any, ...]:
        """
        The sort key of a tile: ``order``, then key and place, or in one process the time.

        Tiles without an order or a key are below those that have one.
        """
        entry = self.entries[number]
        order, key = entry.order, entry.key
        first = (order is not None, order or 0)
        if not self._shared:
            return (*first, number)
        return (*first, _sortable(key), entry.rect.top, entry.rect.left)

    def _sorted_by_digest(self, keyed: list[Keyed]) -> list[Keyed]:
        """Sort tiles at the same place without key and order by a hash of their samples."""
        counts: dict[tuple[Any, ...], int] = {}
        for key, _ in keyed:
            counts[key] = counts.get(key, 0) + 1
        if len(counts) == len(keyed):
            return keyed
        return sorted((((*key, self._known_digest(sheet[0])) if counts[key] > 1 else (*key, b'')),
                       sheet) for key, sheet in keyed)

    def _known_digest(self, number: int) -> bytes:
        if number not in self._digests:
            self._digests[number] = self._digest(self.entries[number])
        return self._digests[number]


def _place_key(sheet: tuple[Entry, int]) -> tuple[Any, ...]:
    entry, place = sheet
    rect = entry.rect
    return (rect.top, rect.left, rect.height, rect.width, entry.kind.encoded, entry.checksum,
            place)


def _sortable(key: Any) -> tuple[Any, ...]:
    """Make a key sortable: None, then integers, then texts, then tuples of these."""
    if key is None:
        return (0,)
    if isinstance(key, int):
        return 1, key
    if isinstance(key, str):
        return 2, key
    return 3, tuple(map(_sortable, key))


def tile_key(key: Any) -> Any:
    """
    Check a key.

    :raises TileSourceError: if it is not None, an integer, a text, or a tuple of these.
    """
    if key is None or isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
        return key
    if isinstance(key, (tuple, list)) and key:
        return tuple(map(tile_key, key))
    if isinstance(key, np.integer):
        return int(key)
    msg = f'key must be an integer, a text, or a tuple of these, not {shown(key)}.'
    raise TileSourceError(msg)
