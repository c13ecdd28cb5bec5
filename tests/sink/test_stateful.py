"""
Random sequences of operations on a sink, compared with a NumPy model of all levels.

Set ``LARGE_IMAGE_VIPS_TESTS=thorough`` to try some twelve times as many sequences.
"""

import copy
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.sink import assert_same, read_file, read_level
from helpers.sink_model import Refused, SinkModel, opaque_value

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore:.*64-bit floats')]

THOROUGH = os.environ.get('LARGE_IMAGE_VIPS_TESTS') == 'thorough'

SETTINGS = settings(
    max_examples=1000 if THOROUGH else 120, stateful_step_count=30 if THOROUGH else 20,
    deadline=None, derandomize=not THOROUGH,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

DTYPES = ['u1', 'bool', 'i1', 'u2', 'i2', 'u4', 'i4', 'i8', 'u8', 'f2', 'f4', 'f8']

# The band counts of the tiles of one image, and interpretations that go with them.
FAMILIES = {
    'gray': [1, 1, 2],
    'color': [3, 3, 4],
    'mixed': [1, 2, 3, 4],
    'labels': [1],
    'data': [5],
    'hsv': [3, 4],
    'any': [1, 2, 3, 4, 5, 7],
}
INTERPRETATIONS = {
    1: [None, None, 'L', 'b-w', 'labels', 'pixelmap', 'multiband'],
    2: [None, None, 'LA', 'b-w', 'RGB'],
    3: [None, None, 'RGB', 'srgb', 'hsv', 'multiband', 'RGBA'],
    4: [None, None, 'RGBA', 'RGB', 'srgb', 'hsv', 'cmyk'],
    5: [None, 'multiband', 'cmyk'],
    7: [None, 'multiband'],
}
FAMILY_INTERPRETATIONS = {
    'gray': [None, 'b-w'],
    'color': [None, 'srgb', 'RGB'],
    'mixed': [None],
    'labels': [None, 'labels', 'pixelmap'],
    'data': [None, 'multiband'],
    'hsv': ['hsv'],
}

# Small ones shrink to readable examples; 256 is a whole block.
SIDES = st.one_of(st.integers(1, 9), st.just(256), st.sampled_from([255, 257, 512]),
                  st.integers(1, 700))
PLACES = st.one_of(st.integers(-9, 9), st.sampled_from([-256, 0, 0, 256, 512]),
                   st.integers(-400, 700))


def samples(dtype, shape, rng):
    """Values of a dtype: all of them for up to 16 bits, else some that any other holds."""
    dtype = np.dtype(dtype)
    if dtype.kind == 'b':
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind == 'f':
        # Quarters, of which sums and the first few means are exact.
        return (rng.integers(-4000, 4000, shape) / 4).astype(dtype)
    if dtype.itemsize <= 2:
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    low, high = ((0, 200), (0, 70000), (-100, 100), (-40000, 40000))[
        int(rng.integers(0, 2)) + 2 * (dtype.kind == 'i')]
    return rng.integers(low, high, shape, dtype)


def alphas(dtype, shape, kind, rng):
    """An alpha band: 'opaque', 'holes', 'partial', or 'unit' (0 to 1, for floats)."""
    opaque = opaque_value(dtype)
    choices = {'opaque': [opaque], 'holes': [0, opaque, opaque],
               'partial': [0, opaque // 3, opaque // 2, opaque, opaque],
               'unit': [0, 0.25, 0.5, 1, 1]}[kind if np.dtype(dtype).kind == 'f' else
                                             kind.replace('unit', 'partial')]
    return rng.choice(np.array(choices, dtype), shape)


@dataclass(frozen=True)
class Tile:
    """One ``addTile``, in words that a failing example can be read in."""

    dtype: str
    bands: int
    x: int
    y: int
    cols: int
    rows: int
    alpha: str
    mask: str
    interpretation: str | None
    seed: int

    def arguments(self):
        rng = np.random.default_rng(self.seed)
        shape = self.rows, self.cols
        tile = samples(self.dtype, (*shape, self.bands), rng)
        if self.alpha:
            tile[:, :, -1] = alphas(self.dtype, shape, self.alpha, rng)
        mask = None
        if self.mask:
            mask_shape = {'one band': (*shape, 1), 'bands': (*shape, self.bands)}.get(
                self.mask, shape)
            mask = rng.random(mask_shape) < (2 if self.mask == 'all' else 0.4)
            mask = mask.astype(('bool', 'u1', 'f4')[self.seed % 3])
        return {'tile': tile[:, :, 0] if self.bands == 1 and self.seed % 2 else tile,
                'x': self.x, 'y': self.y, 'mask': mask, 'interpretation': self.interpretation}


@st.composite
def tiles(draw, family):
    """Tiles that mostly go together."""
    bands = draw(st.sampled_from(FAMILIES[family]))
    dtype = draw(st.sampled_from(DTYPES))
    interpretation = draw(st.sampled_from(
        FAMILY_INTERPRETATIONS.get(family) or INTERPRETATIONS[bands]))
    if interpretation in {'labels', 'pixelmap'} and dtype[0] == 'f':
        interpretation = None
    x, y, cols, rows = draw(PLACES), draw(PLACES), draw(SIDES), draw(SIDES)
    if draw(st.integers(0, 3)) == 3:
        # A whole block.
        x, y, cols, rows = x // 256 * 256, y // 256 * 256, 256, 256
    alpha = ''
    if dtype != 'bool' and bands == {'cmyk': 5, 'hsv': 4}.get(
            interpretation, bands if bands in (2, 4) and interpretation != 'multiband' else 0):
        alpha = draw(st.sampled_from(['opaque', 'holes', 'partial', 'unit']))
    mask = draw(st.sampled_from(['', '', 'flat', 'one band', 'bands', 'all']))
    return Tile(dtype, bands, x, y, cols, rows, alpha, mask, interpretation,
                draw(st.integers(0, 99)))


@st.composite
def bad_tiles(draw):
    """Arguments of an ``addTile`` that must fail, whatever there is already."""
    good = {'tile': np.full((20, 30, 3), 250, np.uint8), 'x': draw(PLACES), 'y': draw(PLACES)}
    return good | draw(st.sampled_from([
        {'tile': np.zeros((20, 30, 3), np.complex64)},
        {'tile': np.zeros((0, 30, 3), np.uint8)},
        {'tile': np.full((20, 30), 1 << 40)},
        {'tile': np.full((20, 30), np.iinfo('u8').max)},
        {'tile': [[1, 2], [3, 4]]},
        {'mask': np.ones((30, 20), bool)},
        {'mask': np.full((19, 30), np.nan)},
        {'mask': np.full((20, 31, 3), np.nan)},
        {'mask': 'mask'},
        {'x': float('nan')},
        {'y': 1.5},
        {'x': 1 << 40},
        {'interpretation': 'nonsense'},
        {'interpretation': 'pixelmap'},
        {'interpretation': 'LA'},
    ]))


class Cancelled(Exception):
    """Raised by a progress function."""


class SinkMachine(RuleBasedStateMachine):
    """One sink and its model, to which the same is done."""

    def __init__(self):
        super().__init__()
        self.sink = large_image_source_vips.new()
        self.model = SinkModel()
        self.folder = tempfile.TemporaryDirectory()
        self.family = 'any'
        self.levels_of = self.kept_color = self.known_levels = None

    def teardown(self):
        try:
            self.check_all_levels()
        finally:
            self.folder.cleanup()

    @property
    def levels(self):
        """The levels of the model as it is now, computed once."""
        model = self.model
        state = id(model.color), model.labels, model.size
        if state != self.levels_of:
            # Kept, so that no other array gets its id.
            self.levels_of, self.kept_color = state, model.color
            self.known_levels = model.levels()
        return self.known_levels

    @initialize(family=st.sampled_from(sorted(FAMILIES)))
    def choose_a_family(self, family):
        self.family = family

    # Changing

    def add(self, arguments):
        kept = {name: value.copy() for name, value in arguments.items()
                if isinstance(value, np.ndarray)}
        model = copy.copy(self.model)
        try:
            model.add(**arguments)
        except Refused:
            with pytest.raises(TileSourceError):
                self.sink.addTile(**arguments)
        else:
            self.sink.addTile(**arguments)
            self.model = model
        for name, value in kept.items():
            np.testing.assert_array_equal(arguments[name], value)
            # The sink must not have kept the caller's array.
            arguments[name][...] = 1

    @rule(data=st.data())
    def add_a_tile(self, data):
        self.add(data.draw(tiles(self.family)).arguments())

    @rule(data=st.data())
    def add_tiles_of_one_place(self, data):
        """Whole blocks over each other, with and without alpha and masks."""
        x = data.draw(st.sampled_from([-256, 0, 256]))
        for _ in range(data.draw(st.integers(2, 3))):
            tile = data.draw(tiles(self.family))
            self.add(replace(tile, x=x, y=0, cols=256, rows=256).arguments())

    @rule(arguments=bad_tiles())
    def add_a_tile_that_is_refused(self, arguments):
        with pytest.raises(TileSourceError):
            self.sink.addTile(**arguments)

    @rule(width=st.one_of(st.none(), st.integers(1, 1500)))
    def set_the_least_width(self, width):
        self.sink.minWidth = width
        self.model.min_width = width or 0

    @rule(height=st.one_of(st.none(), st.integers(1, 1500)))
    def set_the_least_height(self, height):
        self.sink.minHeight = height
        self.model.min_height = height or 0

    @rule(crop=st.one_of(st.none(), st.tuples(
        st.integers(0, 900), st.integers(0, 900), st.integers(1, 2000), st.integers(1, 2000))))
    def set_the_crop(self, crop):
        self.sink.crop = crop
        self.model.crop = crop

    # Looking

    @invariant()
    def what_there_is_is_told(self):
        sink, model = self.sink, self.model
        assert (sink.sizeX, sink.sizeY) == model.size
        assert sink.levels == model.level_count
        assert sink.origin == {'x': model.left, 'y': model.top}
        assert sink.dtype == model.dtype
        assert sink.bandCount == model.bands
        ranges = sink.bandRanges
        found = None if ranges is None else (ranges['min'].tolist(), ranges['max'].tolist())
        assert found == model.band_ranges

    @rule()
    def check_all_levels(self):
        assert len(self.levels) == self.sink.levels
        for level in range(self.sink.levels):
            assert_same(read_level(self.sink, level), self.levels[level], near=True)

    @precondition(lambda self: self.sink.levels)
    @rule(data=st.data())
    def look_at_some_tiles(self, data):
        for _ in range(3):
            level = data.draw(st.integers(0, self.sink.levels - 1))
            rows, cols = self.levels[level].shape[:2]
            x = data.draw(st.integers(0, (cols - 1) // 256))
            y = data.draw(st.integers(0, (rows - 1) // 256))
            expected = self.levels[level][y * 256:y * 256 + 256, x * 256:x * 256 + 256]
            for _ in range(2):
                tile = self.sink.getTile(x, y, level, numpyAllowed='always')
                # By default an edge tile is filled up.
                assert_same(tile[:expected.shape[0], :expected.shape[1]], expected, near=True)
                tile[...] = 99

    @precondition(lambda self: self.sink.levels)
    @rule(data=st.data())
    def look_at_a_region(self, data):
        cols, rows = self.model.size
        left, top = data.draw(st.integers(0, cols - 1)), data.draw(st.integers(0, rows - 1))
        right = min(cols, left + data.draw(st.integers(1, 600)))
        bottom = min(rows, top + data.draw(st.integers(1, 600)))
        for _ in range(2):
            region = self.sink.getRegion(format='numpy', region={
                'left': left, 'top': top, 'right': right, 'bottom': bottom})[0]
            assert_same(region, self.levels[-1][top:bottom, left:right])
            region[...] = 99

    @precondition(lambda self: self.sink.levels)
    @rule()
    def look_at_the_tiles_of_an_iterator(self):
        for tile in self.sink.tileIterator(format='numpy'):
            x, y, width, height = (int(tile[key]) for key in ('x', 'y', 'width', 'height'))
            assert_same(tile['tile'], self.levels[-1][y:y + height, x:x + width])
            tile['tile'][...] = 99

    # Writing

    def check_file(self, path, model, alpha=True):
        assert_same(read_file(path), model.file(alpha))

    @rule(alpha=st.booleans())
    def write(self, alpha):
        path = Path(self.folder.name) / 'a.tif'
        path.write_bytes(b'before')
        try:
            self.model.file()
        except Refused:
            with pytest.raises(TileSourceError):
                self.sink.write(path, lossy=False, alpha=alpha)
            assert path.read_bytes() == b'before'
        else:
            self.sink.write(path, lossy=False, alpha=alpha)
            self.check_file(path, self.model, alpha)

    @precondition(lambda self: self.model.dtype is not None)
    @rule(data=st.data())
    def write_while_tiles_are_added(self, data):
        self.sink.crop = self.model.crop = None
        first, second = data.draw(tiles(self.family)), data.draw(tiles(self.family))
        further_left = replace(first, x=self.model.left - data.draw(st.integers(1, 300)))
        added = [second.arguments(), further_left.arguments()]
        before = copy.copy(self.model)

        def progress(_fraction):
            while added:
                self.add(added.pop())

        path = Path(self.folder.name) / 'a.tif'
        self.sink.write(path, lossy=False, progress=progress)
        self.check_file(path, before)
        assert not added

    @precondition(lambda self: self.model.dtype is not None)
    @rule()
    def cancel_a_write(self):
        self.sink.crop = self.model.crop = None
        path = Path(self.folder.name) / 'a.tif'
        path.write_bytes(b'before')

        def progress(_fraction):
            raise Cancelled

        with pytest.raises(Cancelled):
            self.sink.write(path, lossy=False, progress=progress)
        assert path.read_bytes() == b'before'
        assert [entry.name for entry in path.parent.iterdir()] == ['a.tif']


def test_any_sequence_of_calls_is_what_the_model_makes_of_it():
    run_state_machine_as_test(SinkMachine, settings=SETTINGS)
