"""
Read the compressed bytes of the tiles or strips of a TIFF page.

Strips are called tiles here, too: a strip is a tile as wide as the page; the last one may
be shorter.  If each band has its own tiles (PlanarConfiguration 2), the tiles of the first
band come first, then those of the second, and so on.
"""

from __future__ import annotations

from ..base.files import read_at
from ..base.geometry import Size
from ..base.limits import LIMITS
from .directories import TiffDirectories, TiffFormatError
from .old_jpeg import old_jpeg_stream
from .page import OLD_JPEG, UNCOMPRESSED, Page
from .tile_table import tile_table


class StoredTileError(Exception):
    """A tile cannot be read; the reason is a clause for an error message."""


def stored_tiles(tiff: TiffDirectories, page: Page) -> StoredTiles | OldJpeg:
    """
    Find the tiles of a page.

    :raises StoredTileError: if the page does not list its tiles.
    """
    return OldJpeg(page) if page.compression == OLD_JPEG else StoredTiles(tiff, page)


class StoredTiles:
    """
    The compressed tiles of a page.

    Immutable, so threads may share it.

    :param tiff: the directories of the file.
    :param page: the page.
    :raises StoredTileError: if the page does not list its tiles.
    """

    def __init__(self, tiff: TiffDirectories, page: Page) -> None:
        self.size = page.size
        #: The declared size of a tile in pixels; the last strip is shorter.
        self.tile = page.piece
        table = tile_table(tiff, page) if min(self.tile) > 0 else None
        if table is None:
            msg = 'it does not list its tiles or strips'
            raise StoredTileError(msg)
        self._offsets, self._counts = table
        self.across = -(-page.size.width // self.tile.width)
        self.down = -(-page.size.height // self.tile.height)
        self._is_tiled = page.tile is not None
        self._bits = page.bits * page.samples // page.planes
        self._uncompressed = page.compression == UNCOMPRESSED
        self._file_size = tiff.file_size
        #: The memory that this object takes.
        self.bytes = self._offsets.nbytes + self._counts.nbytes

    @property
    def count(self) -> int:
        """The number of tiles of one plane."""
        return self.across * self.down

    def tile_size(self, number: int) -> Size:
        """
        The pixels that a tile holds.

        :param number: counted in file order.
        """
        if self._is_tiled:
            return self.tile
        top = number % self.down * self.tile.height
        return Size(self.tile.width, min(self.tile.height, self.size.height - top))

    def is_empty(self, number: int) -> bool:
        """Whether a tile is declared empty, which means blank: offset 0 and byte count 0."""
        return (number < self._offsets.size and
                not self._offsets[number] and not self._counts[number])

    def read(self, descriptor: int, number: int) -> bytes:
        """
        Read the stored bytes of a tile.

        :param descriptor: of the file.
        :param number: counted in file order.
        :raises StoredTileError: if it is not listed, or extends beyond the end of the file.
        """
        offset, count = self.extent(number)
        try:
            data = read_at(descriptor, count, offset)
        except OSError as exc:
            msg = f'{count} bytes at {offset} cannot be read: {exc.strerror}'
            raise StoredTileError(msg) from exc
        if len(data) < count:
            msg = f'the file ends after {len(data)} of its {count} bytes'
            raise StoredTileError(msg)
        return data

    def extent(self, number: int) -> tuple[int, int]:
        """
        The offset and byte count of a tile; for uncompressed tiles only the bytes of its
        pixels.

        :raises StoredTileError: as ``read``.
        """
        if not 0 <= number < self._offsets.size:
            msg = f'the page lists only {self._offsets.size} tiles or strips'
            raise StoredTileError(msg)
        offset, count = int(self._offsets[number]), int(self._counts[number])
        width, height = self.tile_size(number)
        needed = -(-width * self._bits // 8) * height
        if self._uncompressed:
            count = min(count, needed)
        elif count > 4 * needed + LIMITS.tiff_tile_extra:
            # In a malicious file all tiles may share all bytes.
            msg = f'it claims {count} bytes, too many for {width} x {height} pixels'
            raise StoredTileError(msg)
        if offset <= 0 or not 0 < count <= self._file_size - offset:
            msg = (f'its {count} bytes at {offset} are not in the file, which has '
                   f'{self._file_size} bytes')
            raise StoredTileError(msg)
        return offset, count


class OldJpeg:
    """
    A page of old-style JPEG as one tile, because its strips share one stream.

    The interface is that of ``StoredTiles``.

    :param page: the page.
    """

    across = down = count = 1

    def __init__(self, page: Page) -> None:
        self.bytes = 1 << 10
        self.size = self.tile = page.size
        self._page = page

    def tile_size(self, number: int) -> Size:
        """The pixels of the page."""
        del number
        return self.size

    def is_empty(self, number: int) -> bool:
        """Always False."""
        del number
        return False

    def read(self, descriptor: int, number: int) -> bytes:
        """
        Assemble the JPEG stream of the page.

        :raises StoredTileError: if a part of it is not in the file.
        """
        del number
        try:
            return old_jpeg_stream(TiffDirectories(descriptor), self._page)
        except TiffFormatError as exc:
            raise StoredTileError(str(exc)) from exc

    def extent(self, number: int) -> tuple[int, int]:
        """
        Not available, because the parts of the stream are scattered.

        :raises StoredTileError: always.
        """
        msg = f'tile {number} of old-style JPEG is not in one place'
        raise StoredTileError(msg)
