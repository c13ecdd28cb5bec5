"""Threads that add, read, write and resize at the same time."""

import copy
import sys
import threading

import numpy as np
import pytest
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.sink import (
    assert_same,
    at_every_line,
    make_sink,
    random_tile,
    read_all,
    read_file,
    read_level,
    run_threads,
)
from helpers.sink_model import SinkModel
from large_image_source_vips.sink.layers import FrozenLayers

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _frequent_switches():
    """Threads take turns as often as Python lets them."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def check_levels(sink, model):
    assert (sink.sizeX, sink.sizeY) == model.size
    assert sink.origin == {'x': model.left, 'y': model.top}
    levels = model.levels()
    assert sink.levels == len(levels)
    for level, expected in enumerate(levels):
        assert_same(read_level(sink, level), expected, near=True)


class Corner:
    """
    A part of the image that one thread alone changes.

    It shares its outer blocks with the corners beside it.

    :param number: which one.
    :param kind: of the tiles: their bands and dtype.
    """

    SIDE = 650

    def __init__(self, sink, number, kind, across=3):
        self.sink = sink
        self.left, self.top = number % across * self.SIDE, number // across * self.SIDE
        self.bands, self.dtype = kind
        self.rng = np.random.default_rng(number)
        # The calls of addTile, in order.
        self.added = []
        self.model = SinkModel()

    def add(self):
        rng = self.rng
        rows, cols = (int(side) for side in rng.choice([1, 30, 200, 256, 400], 2))
        y, x = (int(rng.integers(0, self.SIDE - side + 1)) for side in (rows, cols))
        tile = random_tile(self.dtype, (rows, cols, self.bands), int(rng.integers(1 << 30)))
        if self.bands in (2, 4):
            tile[:, :, -1] = rng.choice([0, 100, 255, 255], (rows, cols))
        mask = None if rng.random() < 0.7 else rng.random((rows, cols)) < 0.5
        arguments = {'tile': tile, 'x': self.left + x, 'y': self.top + y, 'mask': mask}
        self.sink.addTile(**arguments)
        self.added.append(arguments)
        self.model.add(**arguments)

    def expected(self):
        """The pixels of the corner, (rows, cols, bands)."""
        result = np.zeros((self.SIDE, self.SIDE, self.bands + self.bands % 2), self.dtype)
        if self.added:
            image = self.model.image()[self.top:, self.left:]
            result[:image.shape[0], :image.shape[1]] = image
        return result

    def check_pixels(self):
        region = self.sink.getRegion(format='numpy', region={
            'left': self.left, 'top': self.top,
            'width': self.SIDE, 'height': self.SIDE})[0]
        assert_same(region, self.expected())
        region[...] = 99

    def check_file(self, path):
        self.sink.write(path, lossy=False)
        pixels = read_file(path)
        assert_same(pixels[self.top:self.top + self.SIDE, self.left:self.left + self.SIDE],
                    self.expected())

    def look_anywhere(self):
        """A tile of any level, for what others do with it meanwhile."""
        sink = self.sink
        level = int(self.rng.integers(0, 4))
        scale = 256 << (3 - level)
        x, y = (int(self.rng.integers(0, -(-1950 // scale))) for _ in range(2))
        tile = sink.getTile(x, y, level, numpyAllowed='always')
        assert tile.dtype == self.dtype
        tile[...] = 99

    def resize(self):
        # Between the levels that the image has anyway.
        self.sink.minWidth = int(self.rng.integers(1951, 2048))
        self.sink.minHeight = int(self.rng.integers(1951, 2048))


@pytest.mark.parametrize('kind', [(3, 'uint8'), (4, 'uint8'), (2, 'uint16'), (1, 'int32'),
                                  (3, 'float32')], ids=str)
def test_threads_in_corners_of_their_own(tmp_path, kind):
    sink = large_image_source_vips.new()
    # The size and the number of levels are those of the end from the start.
    last = random_tile(kind[1], (1, 1, kind[0]), 1)
    last[:, :, -1] = 255
    sink.addTile(last, 1949, 1949)
    corners = [Corner(sink, number, kind) for number in range(6)]

    def work(corner):
        writes = 0
        for _ in range(60):
            choice = corner.rng.random()
            if choice < 0.5:
                corner.add()
            elif choice < 0.7:
                corner.check_pixels()
            elif choice < 0.92:
                corner.look_anywhere()
            elif choice < 0.97 or writes == 2:
                corner.resize()
            else:
                writes += 1
                corner.check_file(tmp_path / f'{corner.left}-{corner.top}.tif')

    run_threads(*(lambda corner=corner: work(corner) for corner in corners))
    sink.minWidth = sink.minHeight = None
    model = SinkModel()
    model.add(last, 1949, 1949)
    for corner in corners:
        for arguments in corner.added:
            model.add(**arguments)
    check_levels(sink, model)
    assert sink.bandRanges['min'].tolist() == model.band_ranges[0]
    assert sink.bandRanges['max'].tolist() == model.band_ranges[1]


def test_threads_that_let_the_image_grow_in_all_directions():
    sink = large_image_source_vips.new()
    tiles = [[(random_tile('uint8', (90, 300, 3), 100 * thread + step),
               dx * 120 * step, dy * 40 * step)
              for step in range(1, 15)]
             for thread, (dx, dy) in enumerate([(-1, -1), (1, -1), (-1, 1), (1, 1)])]

    def work(mine):
        for tile, x, y in mine:
            # Keep apart from the others, whatever the order.
            x, y = x - 300 * (x < 0), y - 90 * (y < 0)
            sink.addTile(tile, x, y)
            for level in range(3):
                sink.getTile(0, 0, level % sink.levels, numpyAllowed='always')

    run_threads(*(lambda mine=mine: work(mine) for mine in tiles))
    model = SinkModel()
    for mine in tiles:
        for tile, x, y in mine:
            model.add(tile, x - 300 * (x < 0), y - 90 * (y < 0))
    check_levels(sink, model)


def test_threads_that_widen_the_format_while_others_look():
    """Gray to RGB, 8 bits to 16 to floats: every look is of one format."""
    sink = make_sink(np.full((700, 700), 7, np.uint8))
    formats = {('uint8', 2): 7, ('uint8', 4): 7, ('uint16', 4): 7, ('float32', 4): 7}

    def widen():
        for dtype, bands in (('uint8', 3), ('uint16', 1), ('float32', 3)):
            for step in range(10):
                sink.addTile(np.full((50, 50, bands), 7, dtype), 60 * step, 300)

    def look():
        for step in range(120):
            for level in range(sink.levels):
                tile = sink.getTile(0, 0, level, numpyAllowed='always')
                assert (str(tile.dtype), tile.shape[2]) in formats
                assert (tile[:150, :150, :-1] == 7).all()
                tile[...] = step

    run_threads(widen, look, look)
    model = SinkModel()
    model.add(np.full((700, 700), 7, np.float32))
    model.add(np.full((50, 50, 3), 7, np.float32), 0, 300)
    check_levels(sink, model)


def test_threads_that_look_at_low_levels_where_others_add():
    """Lower levels are made and forgotten all the time, of one block by different threads."""
    sink = make_sink(np.zeros((4096, 4096), np.uint8))

    def add(number):
        for step in range(150):
            sink.addTile(np.full((8, 8), step + 1, np.uint8), 1024 * number + 8, 8)

    def look(number):
        for step in range(100):
            sink.getTile((3 * step + number) % 8, step // 8 % 8, 3, numpyAllowed='always')
            sink.getTile(0, 0, step % 3, numpyAllowed='always')

    run_threads(*(lambda number=number: add(number) for number in range(3)),
                *(lambda number=number: look(number) for number in range(3)))
    model = SinkModel()
    model.add(np.zeros((4096, 4096), np.uint8))
    for number in range(3):
        model.add(np.full((8, 8), 150, np.uint8), 1024 * number + 8, 8)
    check_levels(sink, model)


LARGE = 4_000_000_000


def check_that_the_large_value_counts(sink):
    """A signed tile has no format with it, so it must not be taken."""
    with pytest.raises(TileSourceError):
        sink.addTile(np.full((16, 16), -1, np.int8), 0, 1500)
    assert sink.dtype == np.uint32
    assert sink.bandRanges['max'].tolist()[0] == LARGE
    assert (sink.getRegion(format='numpy', region={'right': 9, 'bottom': 9})[0][:, :, 0]
            == LARGE).all()


@pytest.mark.parametrize('size', [40, 600])
def test_the_largest_value_of_any_thread_counts(size):
    """Small tiles, and such as are added by several threads at once."""
    for _ in range(4):
        sink = make_sink(np.zeros((2048, 4096), np.uint32))

        def work(number, sink=sink):
            for step in range(4):
                large = number == 0 and step == 2
                sink.addTile(np.full((size, size), LARGE if large else 10 * number + step,
                                     np.uint32), 600 * number % 3400, 0 if number < 5 else 700)

        run_threads(*(lambda number=number: work(number) for number in range(8)))
        sink.addTile(np.full((20, 20), LARGE, np.uint32)[:9, :9], 0, 0)
        check_that_the_large_value_counts(sink)


@pytest.mark.parametrize('first', ['large', 'small'])
@pytest.mark.parametrize('size', [40, 512])
def test_the_largest_value_counts_in_any_order_of_two_threads(first, size):
    # Tiles of 1 MiB and more are copied in parallel.
    large, small = (np.full((size, size), value, np.uint32) for value in (LARGE, 100))

    def prepare():
        # As large as it will be, so that nothing grows.
        sink = make_sink(np.zeros((1, 1), np.uint32))
        sink.addTile(np.zeros((1, 1), np.uint32), 1199, 1199)
        works = [lambda: sink.addTile(large), lambda: sink.addTile(small, 600, 600)]
        return (*works[::1 if first == 'large' else -1],
                lambda: check_that_the_large_value_counts(sink))

    # Small tiles may wait for each other at every line.
    at_every_line(prepare, step=3 if size == 512 else 31, opcodes='sink/canvas.py',
                  seconds=0.1 if size == 512 else 0.02)


def look_low(sink):
    sink.getTile(0, 0, 1, numpyAllowed='always')
    sink.getTile(1, 1, 1, numpyAllowed='always')


# What two threads do at once.  No two tiles overlap, and none adds a level.
CALLS = {
    'add': lambda sink: sink.addTile(np.full((200, 200, 3), 50, np.uint8), 10, 10),
    'add there': lambda sink: sink.addTile(np.full((200, 200, 3), 70, np.uint8), 390, 390),
    'add, alpha': lambda sink: sink.addTile(np.full((200, 200, 4), 80, np.uint8), 390, 10),
    'grow': lambda sink: sink.addTile(np.full((30, 30, 3), 90, np.uint8), -50, -60),
    'widen': lambda sink: sink.addTile(np.full((100, 30, 3), 90, np.uint16), 250, 250),
    'label': lambda sink: sink.addTile(np.full((30, 30, 3), True), 300, 300),
    'look': look_low,
    'resize': lambda sink: setattr(sink, 'minWidth', 1000),
}

# Of these the order does not matter.
PAIRS = [('add', 'add there'), ('add', 'look'), ('look', 'add'), ('look', 'grow'),
         ('grow', 'look'), ('add', 'grow'), ('grow', 'add there'), ('add', 'widen'),
         ('widen', 'add there'), ('look', 'widen'), ('widen', 'look'), ('look', 'label'),
         ('label', 'look'), ('look', 'look'), ('look', 'resize'), ('resize', 'look'),
         ('resize', 'grow'), ('add, alpha', 'look'), ('look', 'add, alpha')]

BASE = random_tile('uint8', (600, 600, 3))


@pytest.mark.parametrize(('one', 'other'), PAIRS)
def test_two_calls_at_once_are_one_after_the_other(one, other):
    """At every few lines of one call, another thread makes the other one."""
    model = SinkModel()
    model.add(BASE)

    class Recorder:
        """The same call for the model."""

        addTile = staticmethod(model.add)

        def __setattr__(self, name, value):
            model.min_width = value

    for name in (one, other):
        if name != 'look':
            CALLS[name](Recorder())
    expected = copy.copy(model)

    def prepare():
        sink = make_sink(BASE)
        # So that there are lower levels to forget.
        sink.getTile(0, 0, 0, numpyAllowed='always')
        return (lambda: CALLS[one](sink), lambda: CALLS[other](sink),
                lambda: check_levels(sink, expected))

    at_every_line(prepare, step=11)


def test_looking_at_one_corner_while_another_one_changes():
    """Lower levels of one place are made at every line of the addition to another."""
    near, far = (np.full((300, 300), value, np.uint8) for value in (9, 99))

    def prepare():
        sink = make_sink(near)
        sink.addTile(far, 2000, 2000)
        # All lower levels are there, but those of one corner.
        sink.getTile(0, 0, 0, numpyAllowed='always')
        sink.addTile(far, 2000, 2000)

        def look():
            tile = sink.getTile(4, 4, sink.levels - 2, numpyAllowed='always')
            assert (tile[:126, :126] == [99, 255]).all()

        def check():
            tile = sink.getTile(0, 0, 0, numpyAllowed='always')
            assert (tile[:18, :18] == [9, 255]).all()
            assert (tile[126:143, 126:143] == [99, 255]).all()

        return lambda: sink.addTile(near), look, check

    at_every_line(prepare, opcodes='sink/levels.py')
    at_every_line(prepare, step=5)


def test_pixels_read_by_many_threads_are_those_that_are_there():
    tile = random_tile('uint8', (1500, 1500, 3))
    sink = make_sink(tile)
    expected = read_all(sink)

    def look(number):
        for step in range(40):
            x, y = (step + number) % 6, (step // 6 + number) % 6
            pixels = sink.getTile(x, y, sink.levels - 1, numpyAllowed='always')
            part = expected[y * 256:y * 256 + 256, x * 256:x * 256 + 256]
            assert_same(pixels[:part.shape[0], :part.shape[1]], part)
            # Each has an array of its own.
            pixels[...] = number

    run_threads(*(lambda number=number: look(number) for number in range(4)))


@pytest.mark.parametrize(('x', 'dtype'), [(1500, 'uint8'), (800, 'uint16')],
                         ids=['larger', 'another dtype'])
def test_what_changes_the_whole_image_waits_for_readers_anywhere(monkeypatch, x, dtype):
    sink = make_sink(random_tile('uint8', (900, 900, 3)))
    added, order, real = threading.Event(), [], FrozenLayers.gather

    def add():
        sink.addTile(np.full((40, 40, 3), 9, dtype), x, 800)
        order.append('added')
        added.set()

    def gather(*arguments):
        found = real(*arguments)
        if not order:
            order.append('reading')
            thread.start()
            # Ends only if the other thread does not wait for this one.
            added.wait(0.5)
            order.append('read')
        return found

    thread = threading.Thread(target=add)
    monkeypatch.setattr(FrozenLayers, 'gather', gather)
    sink.getTile(0, 0, sink.levels - 1, numpyAllowed='always')
    thread.join()
    assert order == ['reading', 'read', 'added']
