"""A file has the state of the image when ``write`` was called."""

import copy
import threading

import numpy as np
import pytest
import pyvips
import tifffile
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.sink import assert_same, read_all, read_shown
from helpers.sink_model import SinkModel

pytestmark = pytest.mark.slow

SIDE = 900


class Pair:
    """A sink and its model, to which the same is added."""

    def __init__(self, tile, x=0, y=0, **kwargs):
        self.sink, self.model = large_image_source_vips.new(), SinkModel()
        self.add(tile, x, y, **kwargs)

    def add(self, tile, x=0, y=0, **kwargs):
        self.sink.addTile(tile, x, y, **kwargs)
        model = copy.copy(self.model)
        model.add(tile, x, y, **kwargs)
        self.model = model

    def check(self):
        """The image holds everything that was added."""
        assert self.sink.origin == {'x': self.model.left, 'y': self.model.top}
        assert_same(read_all(self.sink), self.model.image())


def gradient(bands=3, dtype='uint8', rows=SIDE, cols=SIDE):
    """Smooth colours, of which no two quarters of the image look alike."""
    y, x = np.mgrid[:rows, :cols]
    parts = [x * 200 // cols, y * 200 // rows, (x + y) * 200 // (rows + cols), x * 0 + 90]
    return np.dstack(parts[:bands]).astype(dtype)


def with_holes():
    tile = np.dstack([gradient(), np.full((SIDE, SIDE), 255, np.uint8)])
    tile[200:500, 300:700, 3] = 0
    tile[700:, 700:, 3] = 0
    return tile


def only_in_a_corner():
    """Opaque, but for a few pixels of the first block."""
    tile = np.dstack([gradient(), np.full((SIDE, SIDE), 255, np.uint8)])
    tile[:8, :8, 3] = 0
    return tile


# Name: the first tile, how it is added, the suffix, the arguments of write, the crop.
KINDS = {
    'jpeg': (gradient(), {}, '.tif', {}, None),
    'jpeg, gray': (gradient(1), {}, '.tif', {}, None),
    'holes': (with_holes(), {}, '.tif', {}, None),
    'a hole in a corner': (only_in_a_corner(), {}, '.tif', {}, None),
    'lossless': (gradient(dtype='uint16'), {}, '.tif', {'lossy': False}, None),
    'lossless, holes': (with_holes(), {}, '.tif', {'lossy': False}, None),
    'data': (gradient(4), {'interpretation': 'multiband'}, '.tif', {}, None),
    'png': (gradient(), {}, '.png', {}, None),
    'png, holes': (with_holes(), {}, '.png', {}, None),
    'jpg': (gradient(), {}, '.jpg', {}, None),
    'labels': (gradient(1).astype('int32')[:, :, 0] * 300, {}, '.tif', {}, None),
    'pixelmap': (gradient(1).astype('int32') * 300, {'interpretation': 'pixelmap'}, '.tif', {},
                 None),
    'crop': (gradient(), {}, '.tif', {}, (301, 307, 500, 400)),
    'crop of holes': (with_holes(), {}, '.tif', {}, (256, 100, 600, 300)),
    'crop, lossless': (gradient(dtype='int16'), {}, '.tif', {}, (1, 2, 850, 700)),
    'options': (gradient(), {}, '.tif', {'vips_kwargs': {'compression': 'lzw'}}, None),
    'no alpha': (with_holes(), {}, '.tif', {'lossy': False, 'alpha': False}, None),
}


def bands_of(pair):
    """The bands and the dtype of a tile that goes with what there is, without alpha."""
    return pair.model.colors, pair.model.dtype


def negative(pair):
    bands, dtype = bands_of(pair)
    pair.add(np.full((300, 300, bands), 77, dtype), pair.model.left - 256, pair.model.top - 100)


def far(pair):
    bands, dtype = bands_of(pair)
    pair.add(np.full((100, 100, bands), 77, dtype), pair.model.color.shape[1] + 300, 900)


def over(pair):
    bands, dtype = bands_of(pair)
    pair.add(np.full((SIDE, SIDE, bands), 255 if dtype == np.uint8 else 9, dtype))


def wider(pair):
    """Another dtype, and more bands where that can be."""
    bands, dtype = bands_of(pair)
    wide = 'uint16' if dtype == np.uint8 else 'int32'
    pair.add(np.full((600, 600, 3 if pair.model.has_alpha else bands), 99, wide), 500, 500)


def see_through(pair):
    """A tile with alpha over what is opaque; data have none."""
    if pair.model.has_alpha:
        bands, dtype = bands_of(pair)
        tile = np.full((700, 700, bands + 1), 99, dtype)
        pair.add(tile, SIDE - 300, SIDE - 300)


def shape(pair):
    """What is no pixel, but in the file all the same."""
    pair.sink.minWidth, pair.sink.minHeight = 2000, 1900
    pair.model = copy.copy(pair.model)
    pair.model.min_width, pair.model.min_height = 2000, 1900
    pair.sink.mm_x, pair.sink.mm_y = 0.5, 0.75
    pair.sink.crop = (5, 6, 70, 80)


def everything(pair):
    for change in (over, negative, wider, far, see_through, shape):
        change(pair)


CHANGES = [negative, far, over, wider, see_through, shape, everything]


def prepared(kind):
    tile, kwargs, suffix, options, crop = KINDS[kind]
    pair = Pair(tile, **kwargs)
    pair.sink.crop = pair.model.crop = crop
    pair.sink.mm_x, pair.sink.mm_y = 0.25, 0.125
    return pair, f'a{suffix}', options


def read_written(path):
    """The pixels of a file that may have been compressed with loss."""
    if path.suffix == '.tif':
        return read_shown(path)
    image = pyvips.Image.new_from_file(str(path)).numpy()
    return image if image.ndim == 3 else image[:, :, None]


def check_file(path, model, alpha=True, size=(0.25, 0.125)):
    expected, actual = model.file(alpha), read_written(path)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    lossy = path.suffix == '.jpg' or (
        path.suffix == '.tif' and tifffile.TiffFile(path).pages[0].compression not in {5, 8, 1})
    if lossy:
        shown = np.ones(expected.shape[:2], bool)
        if expected.shape[2] in (2, 4):
            shown = expected[:, :, -1] > 0
            np.testing.assert_array_equal(actual[:, :, -1], expected[:, :, -1])
        colors = model.colors
        error = np.abs(actual.astype(int) - expected)[:, :, :colors].max(axis=2)[shown]
        # Edges ring; everything else is nearly right.
        assert np.count_nonzero(error > 12) < 0.005 * error.size
        assert error.mean() < 3
    else:
        assert_same(actual, expected)
    if path.suffix == '.tif':
        source = large_image_source_vips.open(path)
        assert (source.mm_x, source.mm_y) == pytest.approx(size)


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('kind', KINDS)
def test_what_is_added_by_the_progress_function_is_not_in_the_file(tmp_path, kind, change):
    pair, name, options = prepared(kind)
    before, calls = pair.model, 0

    def progress(_fraction):
        nonlocal calls
        # At 0.0, and at the first tiles that are ready if that is told.
        if calls < 2:
            change(pair)
        calls += 1

    pair.sink.write(tmp_path / name, progress=progress, **options)
    check_file(tmp_path / name, before, options.get('alpha', True))
    pair.check()


@pytest.mark.parametrize('at', [0.3, 0.6, 1.0])
@pytest.mark.parametrize('kind', ['jpeg', 'holes', 'a hole in a corner', 'lossless, holes'])
def test_what_is_added_in_the_middle_is_not_in_the_file(tmp_path, kind, at):
    tile, kwargs, suffix, options, _ = KINDS[kind]
    pair = Pair(tile, **kwargs)
    # Large enough for some branches of the pyramid.
    pair.add(np.rot90(tile), 2100, 1900)
    pair.add(tile, 4000, 0)
    pair.sink.mm_x, pair.sink.mm_y = 0.25, 0.125
    before, changed = pair.model, []

    def progress(fraction):
        if fraction >= at and not changed:
            changed.append(fraction)
            negative(pair)
            over(pair)

    pair.sink.write(tmp_path / f'a{suffix}', progress=progress, **options)
    check_file(tmp_path / f'a{suffix}', before)
    assert changed
    pair.check()


@pytest.mark.parametrize('kind', ['jpeg', 'holes', 'lossless', 'png', 'labels', 'crop',
                                  'crop of holes'])
def test_what_another_thread_adds_is_not_in_the_file(tmp_path, kind):
    pair, name, options = prepared(kind)
    before = pair.model
    started, ended, failures = threading.Event(), threading.Event(), []

    def add():
        try:
            started.wait()
            for step in range(200):
                if ended.is_set():
                    break
                # The last one makes the image wider, so it is left for the end.
                (over, see_through, negative)[min(step % 4, 2)](pair)
            wider(pair)
        except BaseException as exc:  # noqa: BLE001 - shown by the assertion below
            failures.append(exc)

    thread = threading.Thread(target=add)
    thread.start()
    try:
        pair.sink.write(tmp_path / name, progress=lambda _fraction: started.set(), **options)
    finally:
        started.set()
        ended.set()
        thread.join()
    assert failures == []
    check_file(tmp_path / name, before, options.get('alpha', True))
    pair.check()


@pytest.mark.parametrize('lossy', [True, False])
def test_a_file_is_the_image_of_one_moment(tmp_path, lossy):
    """While one thread repaints the whole image again and again, as one tile each time."""
    versions = [np.full((600, 700, 4), value, np.uint8) for value in range(10, 250, 10)]
    for version in versions:
        version[:, :, 3] = 255
        version[300:320, 500:, 3] = 0
    sink = large_image_source_vips.new()
    # The hole stays one: what is transparent leaves what was there.
    sink.addTile(versions[0])
    ended, failures = threading.Event(), []

    def add():
        try:
            for step in range(20000):
                if ended.is_set():
                    return
                sink.addTile(versions[step % len(versions)], mask=versions[0][:, :, 3])
        except BaseException as exc:  # noqa: BLE001 - shown by the assertion below
            failures.append(exc)

    thread = threading.Thread(target=add)
    thread.start()
    files = []
    try:
        for number in range(6):
            path = tmp_path / f'{number}.tif'
            sink.write(path, lossy=lossy)
            files.append(read_written(path))
    finally:
        ended.set()
        thread.join()
    assert failures == []
    opaque = versions[0][:, :, 3] == 255
    for pixels in files:
        assert np.array_equal(pixels[:, :, 3] == 255, opaque)
        # JPEG rings at the edges of the holes, which are white.
        assert np.ptp(pixels[opaque][:, :3]) <= (16 if lossy else 0)


@pytest.mark.parametrize('kind', ['jpeg', 'holes', 'lossless', 'png'])
def test_a_growing_image_is_written_as_it_was_after_some_tile(tmp_path, kind):
    """Tile after tile at negative positions, and files from another thread."""
    suffix, options = KINDS[kind][2:4]
    bands = 4 if kind == 'holes' else 3
    sink = large_image_source_vips.new()
    tiles = [np.full((100, 256, bands), 10 + 4 * number, np.uint8) for number in range(40)]
    for tile in tiles:
        tile[:, :, 3:] = 255
    sink.addTile(tiles[0], 0, 0)
    failures = []

    def add():
        try:
            for number, tile in enumerate(tiles[1:], 1):
                sink.addTile(tile, -256 * number, 0)
        except BaseException as exc:  # noqa: BLE001 - shown by the assertion below
            failures.append(exc)

    thread = threading.Thread(target=add)
    thread.start()
    paths = [tmp_path / f'{number}{suffix}' for number in range(5)]
    try:
        for path in paths:
            sink.write(path, **options)
    finally:
        thread.join()
    assert failures == []
    for path in paths:
        pixels = read_written(path)
        count = pixels.shape[1] // 256
        assert pixels.shape == (100, 256 * count, 3)
        expected = np.concatenate([tile[:, :, :3] for tile in tiles[:count][::-1]], axis=1)
        assert np.abs(pixels.astype(int) - expected).max() <= 4


@pytest.mark.parametrize('kind', ['jpeg', 'holes', 'lossless', 'png', 'crop'])
def test_a_write_within_a_write(tmp_path, kind):
    pair, name, options = prepared(kind)
    moments = [pair.model]

    def inner(_fraction):
        if len(moments) == 2:
            everything(pair)
            moments.append(None)

    def outer(_fraction):
        if len(moments) == 1:
            negative(pair)
            over(pair)
            moments.append(pair.model)
            pair.sink.write(tmp_path / f'inner{name}', progress=inner, **options)

    pair.sink.write(tmp_path / name, progress=outer, **options)
    check_file(tmp_path / name, moments[0])
    check_file(tmp_path / f'inner{name}', moments[1])
    pair.check()


@pytest.mark.parametrize('kinds', [('jpeg', '.tif'), ('holes', '.png'), ('lossless', '.tif')])
def test_two_threads_write_at_once(tmp_path, kinds):
    pair, _, options = prepared(kinds[0])
    moments, failures = {}, []
    # Each waits until the other one has begun as well.
    begun = threading.Barrier(2, timeout=60)

    def write(name):
        def progress(fraction):
            if fraction == 0:
                begun.wait()
        try:
            pair.sink.write(tmp_path / name, progress=progress, **options)
        except BaseException as exc:  # noqa: BLE001 - shown by the assertion below
            failures.append(exc)

    moments['a.tif'] = moments[f'b{kinds[1]}'] = pair.model
    threads = [threading.Thread(target=write, args=(name,)) for name in moments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for name, model in moments.items():
        check_file(tmp_path / name, model)
    pair.check()


def test_the_file_is_that_of_the_call_also_if_it_is_checked_late(tmp_path):
    """What changes between two files of one image is in the second only."""
    pair, _, _ = prepared('lossless')
    pair.sink.write(tmp_path / 'a.tif', lossy=False)
    first = pair.model
    everything(pair)
    pair.sink.crop = None
    pair.sink.write(tmp_path / 'b.tif', lossy=False)
    check_file(tmp_path / 'a.tif', first)
    check_file(tmp_path / 'b.tif', pair.model, size=(0.5, 0.75))


@pytest.mark.parametrize('kind', ['jpeg', 'holes', 'lossless', 'png'])
def test_a_cancelled_write_keeps_what_was_added_meanwhile(tmp_path, kind):
    pair, name, options = prepared(kind)

    class Cancelled(Exception):
        pass

    def progress(_fraction):
        everything(pair)
        raise Cancelled

    with pytest.raises(Cancelled):
        pair.sink.write(tmp_path / name, progress=progress, **options)
    assert list(tmp_path.iterdir()) == []
    pair.check()


@pytest.mark.parametrize('error', [OSError('full'), InterruptedError(), TimeoutError('late'),
                                   StopIteration(), KeyError('x'), TileSourceError('mine')])
@pytest.mark.parametrize('kind', ['jpeg', 'holes', 'png'])
def test_what_a_progress_function_raises_comes_back_as_it_is(tmp_path, kind, error):
    pair, name, options = prepared(kind)

    def progress(_fraction):
        raise error

    with pytest.raises(type(error)) as caught:
        pair.sink.write(tmp_path / name, progress=progress, **options)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []
