"""
Jobs that read: tiles, regions, whole levels, browsing, opening.

The first argument of each job is the contender: 'ours' and 'peer' are the package
``large_image_source_vips`` of their environments, 'tiff' is large-image-source-tiff,
'bare' is libvips without large_image.
"""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL.Image
import pyvips

from .outcome import Outcome, Pixels

TILE = 256

# Up to so many tiles are read before the measurement, to exclude imports, the first
# use of decoders, and fresh memory for large_image's cache of tiles until it is full
# (512 tiles here).
WARM_UP = 600

TileReader = Callable[[int, int], Any]


def module_of(contender: str) -> Any:
    """The module of a contender with a tile source."""
    if contender == 'tiff':
        import large_image_source_tiff

        return large_image_source_tiff
    import large_image_source_vips

    return large_image_source_vips


def open_source(contender: str, path: str) -> Any:
    """Open a file with the tile source of a contender."""
    return module_of(contender).open(path)


def numpy_tile(source: Any, column: int, row: int, level: int, frame: int = 0) -> Pixels:
    """One tile as an array (rows, cols, bands)."""
    tile: Pixels = source.getTile(column, row, level, frame=frame, numpyAllowed='always')
    return tile


def keep_few_tiles() -> None:
    """
    Keep large_image's cache of tiles small.

    It is then full after the first tiles, as in a server after a while, and each
    new tile reuses the memory of an old one.
    """
    import large_image

    # The cache gets 1 / 1024 of the memory.
    large_image.config.setConfig('cache_python_memory_portion', 1024)


def decoded(tile: bytes | Pixels) -> Pixels:
    """The pixels of a tile, encoded or not, as an array (rows, cols, bands)."""
    if isinstance(tile, np.ndarray):
        return tile
    with PIL.Image.open(io.BytesIO(tile)) as image:
        return np.atleast_3d(np.asarray(image))


def tile_reader(contender: str, path: str, encoded: bool) -> TileReader:
    """
    A function that reads the full-resolution tile at a column and row.

    :param contender: the contender.
    :param path: the file.
    :param encoded: whether to return the tile as the bytes of a JPEG.
    """
    if contender == 'bare':
        return bare_tile_reader(path)
    keep_few_tiles()
    source = open_source(contender, path)
    level = source.levels - 1
    if encoded:
        return lambda column, row: source.getTile(column, row, level)
    return lambda column, row: numpy_tile(source, column, row, level)


def bare_tile_reader(path: str) -> TileReader:
    """
    Read tiles with ``Region.fetch``, the fastest way in libvips.

    A region may be used by one thread only, so each thread has its own.
    """
    image = pyvips.Image.new_from_file(path)
    mine = threading.local()

    def read(column: int, row: int) -> Pixels:
        if not hasattr(mine, 'region'):
            mine.region = pyvips.Region.new(image)
        pixels = mine.region.fetch(column * TILE, row * TILE, TILE, TILE)
        return np.frombuffer(pixels, np.uint8).reshape(TILE, TILE, image.bands)

    return read


def tiles(contender: str, path: str, count: int, threads: int = 1,
          encoded: bool = False) -> Outcome:
    """
    Read different full-resolution tiles, scattered over the image.

    :param contender: the contender.
    :param path: the file.
    :param count: how many tiles.
    :param threads: how many threads share them.
    :param encoded: whether to read tiles as the bytes of a JPEG.
    """
    header = pyvips.Image.new_from_file(path)
    # Whole tiles only, so that each takes the same work.
    places = [(column, row) for row in range(header.height // TILE)
              for column in range(header.width // TILE)]
    random.Random(1).shuffle(places)
    warm_up, chosen = places[count:count + WARM_UP], places[:count]
    outcome = Outcome(facts={'count': count})
    read = tile_reader(contender, path, encoded)
    with ThreadPoolExecutor(threads) as pool:
        for _tile in pool.map(lambda place: read(*place), warm_up):
            pass
        shares = [chosen[index::threads] for index in range(threads)]

        def read_all(share: list[tuple[int, int]]) -> None:
            # Tiles are released at once.  Otherwise the time would be mostly
            # that of the system to find fresh memory for them.
            for place in share:
                read(*place)

        with outcome.timed():
            for _none in pool.map(read_all, shares):
                pass
    outcome.prove([decoded(read(*place)) for share in shares for place in share])
    return outcome


def low_levels(contender: str, path: str, levels: int) -> Outcome:
    """
    Open a file and read every tile of its lowest levels.

    Bare libvips computes the largest of these levels in one pass over the file and
    the others from it, which is the lower bound for a file that stores none.

    :param contender: the contender.
    :param path: the file.
    :param levels: how many levels, from the lowest up.
    """
    outcome = Outcome()
    found: list[Pixels | None] = []
    if contender == 'bare':
        with outcome.timed():
            for pixels in bare_levels(path, levels):
                rows, columns = pixels.shape[:2]
                found += [pixels[top:top + TILE, left:left + TILE]
                          for top in range(0, rows, TILE) for left in range(0, columns, TILE)]
        header = pyvips.Image.new_from_file(path)
        size = header.width, header.height
    else:
        module = module_of(contender)
        with outcome.timed():
            source = module.open(path)
            for level in range(levels):
                found += [tile_or_none(source, *place, level)
                          for place in grid(source.sizeX, source.sizeY, source.levels - 1 - level)]
        size = source.sizeX, source.sizeY
    outcome.facts['count'] = len(found)
    outcome.facts['failed'] = sum(tile is None for tile in found)
    top = level_count(*size) - 1
    places = [(*place, top - level) for level in range(levels)
              for place in grid(*size, top - level)]
    outcome.prove([trimmed(tile, *place, *size)
                   for tile, place in zip(found, places, strict=True)])
    return outcome


def level_count(width: int, height: int) -> int:
    """The number of levels in large_image of an image of this size in pixels."""
    return 1 + max(0, (max(width, height) - 1) // TILE).bit_length()


def grid(width: int, height: int, reduction: int) -> list[tuple[int, int]]:
    """The columns and rows of all tiles of an image reduced by 2 ** reduction."""
    scale = TILE << reduction
    return [(column, row) for row in range(-(-height // scale))
            for column in range(-(-width // scale))]


def trimmed(tile: Pixels | None, column: int, row: int, reduction: int,
            width: int, height: int) -> Pixels | None:
    """
    The part of a tile that is compared.

    If the size of the image is not a multiple of the scale of a level, the last
    column and row of the level cover less than a whole pixel.  The released package
    leaves them black, so they are cut.

    :param tile: the tile, with or without rows and columns beyond the image.
    :param column: its column.
    :param row: its row.
    :param reduction: how many times the level is halved.
    :param width: the width of the image in full-resolution pixels.
    :param height: the height of the image in full-resolution pixels.
    """
    if tile is None:
        return None
    return tile[:max(0, (height >> reduction) - row * TILE),
                :max(0, (width >> reduction) - column * TILE), :3]


def bare_levels(path: str, levels: int) -> list[Pixels]:
    """
    The lowest levels of a file, lowest first, computed by libvips in one pass.

    The file is opened for random access, because libvips then decodes the tiles of
    a TIFF in several threads, and in one for sequential access.  A JPEG file is
    decoded at the smallest size that its decoder offers.
    """
    image = pyvips.Image.new_from_file(path)
    scale = 1 << (level_count(image.width, image.height) - levels)
    if image.get('vips-loader') == 'jpegload':
        smaller = min(8, scale)
        image = pyvips.Image.jpegload(path, shrink=smaller)
        scale //= smaller
    image = image.shrink(scale, scale, ceil=True).copy_memory()
    made = [image]
    while len(made) < levels:
        image = image.shrink(2, 2, ceil=True).copy_memory()
        made.insert(0, image)
    return [level.numpy().reshape(level.height, level.width, level.bands) for level in made]


def tile_or_none(source: Any, column: int, row: int, level: int) -> Pixels | None:
    """
    A tile, or None if reading it fails.

    The released package cannot read some tiles at the border; they are counted,
    and the measurement continues.
    """
    try:
        return numpy_tile(source, column, row, level)
    except Exception as exc:  # noqa: BLE001 - it raises errors of many kinds
        print(f'level {level}, tile {column}, {row}: {exc}')
        return None


def browse(contender: str, path: str, others: list[str]) -> Outcome:
    """
    Open files and zoom to full resolution, as a viewer does.

    Each level is one step: up to 12 encoded tiles around the centre.

    :param contender: the contender.
    :param path: the first file.
    :param others: more files, opened one after the other.
    """
    outcome = Outcome()
    module = module_of(contender)
    found: list[Pixels | None] = []
    for number, name in enumerate([path, *others]):
        with outcome.timed(f'{number} open'):
            source = module.open(name)
        for level in range(source.levels):
            places = view(source.sizeX, source.sizeY, source.levels - 1 - level)
            with outcome.timed(f'{number} level {level}'):
                got = [source.getTile(*place, level) for place in places]
            found += [trimmed(decoded(tile), *place, source.levels - 1 - level,
                              source.sizeX, source.sizeY)
                      for tile, place in zip(got, places, strict=True)]
        del source
    outcome.seconds['total'] = sum(outcome.seconds.values())
    outcome.facts['count'] = len(found)
    outcome.prove(found)
    return outcome


def view(width: int, height: int, reduction: int) -> list[tuple[int, int]]:
    """The 4 x 3 tiles in the middle of a level, or fewer if it is smaller."""
    scale = TILE << reduction
    left, top = max(0, -(-width // scale) // 2 - 2), max(0, -(-height // scale) // 2 - 1)
    return [(column, row) for column, row in grid(width, height, reduction)
            if left <= column < left + 4 and top <= row < top + 3]


def region(contender: str, path: str, size: int) -> Outcome:
    """
    Read one square region at full resolution.

    :param contender: the contender.
    :param path: the file.
    :param size: width and height of the region in pixels.
    """
    outcome = Outcome()
    corner = 1000
    if contender == 'bare':
        image = pyvips.Image.new_from_file(path)
        image.crop(0, 0, corner, corner).write_to_memory()
        with outcome.timed():
            pixels = image.crop(corner, corner, size, size).numpy()
    else:
        source = open_source(contender, path)

        def read(left: int, width: int) -> Pixels:
            place = {'left': left, 'top': left, 'width': width, 'height': width}
            array: Pixels = source.getRegion(region=place, format='numpy')[0]
            return array

        read(0, corner)
        with outcome.timed():
            pixels = read(corner, size)
    outcome.prove([pixels[:, :, :3]])
    return outcome


def iterate(contender: str, path: str, size: int, tile: int) -> Outcome:
    """
    Iterate over a square region at full resolution with ``tileIterator``.

    :param contender: the contender.
    :param path: the file.
    :param size: width and height of the region in pixels.
    :param tile: width and height of the tiles in pixels.
    """
    outcome = Outcome()
    source = open_source(contender, path)
    with outcome.timed():
        # The tile is decoded when 'tile' is accessed.
        found = [piece['tile'] for piece in source.tileIterator(
            region={'left': 0, 'top': 0, 'width': size, 'height': size},
            tile_size={'width': tile, 'height': tile}, format='numpy')]
    outcome.facts['count'] = len(found)
    outcome.prove([piece[:, :, :3] for piece in found])
    return outcome


def last_page(contender: str, path: str) -> Outcome:
    """Open a file of many pages and read the first tile of the last page."""
    module = module_of(contender)
    pages = pyvips.Image.new_from_file(path).get('n-pages')
    outcome = Outcome(facts={'count': pages})
    with outcome.timed():
        source = module.open(path)
        tile = numpy_tile(source, 0, 0, source.levels - 1, frame=pages - 1)
    outcome.prove([tile[:, :, :3]])
    return outcome


def many_slides(contender: str, path: str, others: list[str]) -> Outcome:
    """
    Open many slides, keep them open, read tiles of each, and record the memory.

    large_image's cache of tiles is kept small, so that it does not count.

    :param contender: the contender.
    :param path: the first slide.
    :param others: the other slides.
    """
    keep_few_tiles()
    outcome = Outcome()
    names = [path, *others]
    kept = []
    found: list[Pixels | None] = []
    for number, name in enumerate(names, 1):
        with outcome.timed():
            source = open_source(contender, name)
            level = source.levels - 1
            strip = [numpy_tile(source, column, 0, level)
                     for column in range(0, source.sizeX // TILE, 8)]
        kept.append(source)
        found.append(strip[-1])
        if number in {len(names) // 2, len(names)}:
            resident = resident_memory()
            if resident is not None:
                outcome.facts['half' if number < len(names) else 'all'] = resident
    outcome.prove(found)
    return outcome


def resident_memory() -> int | None:
    """The resident memory of this process in bytes; None if unknown."""
    try:
        with open('/proc/self/status', encoding='ascii') as status:
            lines = dict(line.split(':', 1) for line in status)
    except OSError:
        return None
    return int(lines['VmRSS'].split()[0]) * 1024
