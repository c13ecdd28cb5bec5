"""A sink in a forked process raises an error and never waits."""

import copy
import gc
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.sink import assert_same, make_sink, random_tile, read_all

pytestmark = [
    pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork'),
    pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning'),
]

# How long a child may take, on the slowest machine; then it hangs.
SECONDS = 30

TILE = random_tile('uint8', (600, 700, 3))


def begin(work, *args):
    """
    Run a function in a forked process.

    :returns: the process' id, and a descriptor for ``finish``.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    # Nothing of pytest's may run in the child.
    try:
        os.close(reading)
        try:
            result = work(*args)
        except BaseException as exc:  # noqa: BLE001 - shown by the parent
            result = exc
        with os.fdopen(writing, 'wb') as pipe:
            pickle.dump(result, pipe)
    finally:
        os._exit(0)


def finish(child, reading):
    """What the function returned, or the exception that it raised; a child that hangs is ended."""
    data = b''
    try:
        while True:
            if not select.select([reading], [], [], SECONDS)[0]:
                os.kill(child, signal.SIGKILL)
                return f'the child hung for {SECONDS} seconds'
            part = os.read(reading, 1 << 20)
            if not part:
                return pickle.loads(data) if data else 'the child died'
            data += part
    finally:
        os.close(reading)
        os.waitpid(child, 0)


def in_child(work, *args):
    return finish(*begin(work, *args))


def error_of(work):
    """What the sink says against a call, or None."""
    try:
        work()
    except TileSourceError as exc:
        return str(exc)
    return None


def assert_refused(result):
    assert isinstance(result, TileSourceError), result
    assert 'process' in str(result)


# What changes a sink: all of it must be refused.
CHANGES = {
    'addTile': lambda sink: sink.addTile(TILE),
    'addTile inside': lambda sink: sink.addTile(TILE[:8, :8], 5, 5),
    'addTile, whole block': lambda sink: sink.addTile(TILE[:256, :256], 256, 0),
    'addTile, negative': lambda sink: sink.addTile(TILE, -300, -20),
    'addTile, another dtype': lambda sink: sink.addTile(TILE.astype('int16')),
    'minWidth': lambda sink: setattr(sink, 'minWidth', 5000),
    'minHeight': lambda sink: setattr(sink, 'minHeight', None),
    'crop': lambda sink: setattr(sink, 'crop', (0, 0, 5, 5)),
    'mm_x': lambda sink: setattr(sink, 'mm_x', 0.5),
    'mm_y': lambda sink: setattr(sink, 'mm_y', None),
}


def pixels_of(sink):
    return read_all(sink)


def region_of(sink):
    return sink.getRegion(format='numpy', region={'right': 500, 'bottom': 400})[0]


def lowest_of(sink):
    return sink.getTile(0, 0, 0, numpyAllowed='always')


def tiles_of(sink):
    return [tile['tile'].copy() for tile in sink.tileIterator(format='numpy')]


def encoded_of(sink):
    return sink.getTile(0, 0, sink.levels - 1)


# What only looks: it may be refused, or give what the parent sees.
LOOKS = {
    'tiles': pixels_of, 'region': region_of, 'lowest level': lowest_of, 'iterator': tiles_of,
    'encoded': encoded_of, 'metadata': lambda sink: dict(sink.getMetadata()),
    'ranges': lambda sink: {key: value.tolist() for key, value in sink.bandRanges.items()},
}


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('empty', [True, False])
def test_every_change_in_a_child_is_refused(change, empty):
    sink = make_sink(None if empty else TILE)
    before, ranges = (None if empty else read_all(sink)), copy.deepcopy(sink.bandRanges)
    state = sink.getState()
    assert_refused(in_child(CHANGES[change], sink))
    assert sink.getState() == state
    if empty:
        assert (sink.sizeX, sink.sizeY, ranges) == (0, 0, None)
    else:
        assert_same(read_all(sink), before)
    CHANGES[change](sink)


def test_the_first_of_many_changes_is_refused_already():
    """Also where a tile would still fit into memory, and into space that is reserved."""
    sink = make_sink(TILE)

    def add(step):
        return error_of(lambda: sink.addTile(np.full((16, 16, 3), step, np.uint8), 16 * step, 0))

    results = in_child(lambda: [add(step) for step in range(20)])
    assert all(result and 'process' in result for result in results), results
    assert_same(read_all(sink)[:, :, :3], TILE)


@pytest.mark.parametrize('look', LOOKS)
@pytest.mark.parametrize('seen', [False, True])
def test_looking_in_a_child_is_refused_or_right(look, seen):
    """Whether or not the parent has looked there already."""
    sink = make_sink(TILE, -100, 50)
    if seen:
        LOOKS[look](sink)
    result = in_child(LOOKS[look], sink)
    if isinstance(result, BaseException):
        assert_refused(result)
    else:
        np.testing.assert_equal(result, LOOKS[look](sink))
    assert_same(lowest_of(sink), lowest_of(make_sink(TILE, -100, 50)))


@pytest.mark.parametrize('kwargs', [{}, {'lossy': False}])
@pytest.mark.parametrize('name', ['a.tif', 'a.png'])
def test_writing_in_a_child_is_refused_or_right(tmp_path, name, kwargs):
    tile = np.dstack([TILE, np.full(TILE.shape[:2], 255, np.uint8)])
    tile[:50, :60, 3] = 0
    sink = make_sink(tile)
    sink.write(tmp_path / f'parent{name}', **kwargs)
    result = in_child(lambda: sink.write(tmp_path / name, **kwargs))
    if result is not None:
        assert_refused(result)
        assert not (tmp_path / name).exists()
    else:
        parent, child = (large_image_source_vips.open(tmp_path / part)
                         if name.endswith('.tif') else
                         large_image_source_vips.VipsFileTileSource(tmp_path / part)
                         for part in (f'parent{name}', name))
        assert_same(read_all(child), read_all(parent))
    assert_same(read_all(sink), tile)


def test_a_child_that_ends_leaves_the_image_and_its_spool():
    sink = make_sink(TILE)
    # More than memory keeps, so that some of it is in the spool only.
    for row in range(6):
        for column in range(8):
            sink.addTile(np.full((1024, 1024, 3), row * 8 + column, np.uint8),
                         column * 1024, row * 1024)

    def leave():
        nonlocal sink
        sink = None
        gc.collect()

    assert in_child(leave) is None
    for row in range(6):
        for column in range(8):
            tile = sink.getTile(column * 4, row * 4, sink.levels - 1, numpyAllowed='always')
            assert (tile[:, :, :3] == row * 8 + column).all()


def test_a_sink_that_a_child_made_is_the_childs():
    make_sink(TILE)

    def work():
        sink = make_sink(TILE)
        sink.addTile(TILE, -700, 0)
        sink.minHeight = 900
        return read_all(sink), in_child(CHANGES['addTile'], sink)

    pixels, grandchild = in_child(work)
    assert pixels.shape == (900, 1400, 4)
    assert np.array_equal(pixels[:600, :, :3], np.hstack([TILE, TILE]))
    assert_refused(grandchild)


def busy_adding(sink, step):
    sink.addTile(np.full((1100, 1100, 3), step % 200, np.uint8), 0, 0)


def busy_adding_small(sink, step):
    sink.addTile(np.full((64, 64, 3), step % 200, np.uint8), 64 * (step % 16), 300)


def busy_growing(sink, step):
    sink.addTile(np.full((64, 64, 3), step % 200, np.uint8), -(step % 500), step % 300)


def busy_reading(sink, step):
    sink.addTile(np.full((1, 1, 3), step % 200, np.uint8))
    sink.getTile(0, 0, 0, numpyAllowed='always')


def busy_setting(sink, step):
    sink.minWidth = 2000 + step % 50
    assert sink.bandRanges is not None


def visit(sink, number):
    """What one child tries: one change or look after the other, all of them answered."""
    return [(number, error_of(lambda work=work: work(sink)))
            for work in (*CHANGES.values(), *LOOKS.values())]


@pytest.mark.parametrize('busy', [busy_adding, busy_adding_small, busy_growing, busy_reading,
                                  busy_setting])
def test_children_forked_under_load_never_hang(busy):
    sink = make_sink(random_tile('uint8', (2048, 2048, 3)))
    ended, failures = threading.Event(), []

    def work(seed):
        try:
            step = seed
            while not ended.is_set():
                step += 1
                busy(sink, step)
        except BaseException as exc:  # noqa: BLE001 - shown by the assertion below
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        results = []
        for number in range(10):
            results.append(in_child(visit, sink, number))
            if not isinstance(results[-1], list):
                break
    finally:
        ended.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    assert failures == []
    for result in results:
        assert isinstance(result, list), result
        for number, (_, answer) in enumerate(result):
            assert answer is None or 'process' in answer
            if number < len(CHANGES):
                assert answer is not None, list(CHANGES)[number]
    # The parent goes on.
    sink.addTile(TILE)
    np.testing.assert_array_equal(
        sink.getRegion(format='numpy', region={
            'left': -sink.origin['x'], 'top': -sink.origin['y'],
            'width': 700, 'height': 600})[0][:, :, :3], TILE)


@pytest.mark.parametrize('size', [64, pytest.param(600, marks=pytest.mark.slow)])
def test_children_forked_at_any_line_of_an_addition_never_hang(size):
    """One thread stops every few lines of ``addTile`` until another has forked a child."""
    sink = make_sink(TILE)
    tile = np.full((size, size, 3), 9, np.uint8)
    at_line, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    lines = 0

    def trace(frame, event, _argument):
        nonlocal lines
        if 'large_image_source_vips' not in frame.f_code.co_filename:
            return None
        if event == 'line' and not ended.is_set():
            lines += 1
            if lines % 5 == 0:
                at_line.set()
                go_on.wait(SECONDS)
                go_on.clear()
        return trace

    def add():
        sys.settrace(trace)
        try:
            sink.addTile(tile, -8, 40)
        finally:
            sys.settrace(None)
            ended.set()
            at_line.set()

    thread = threading.Thread(target=add)
    thread.start()
    results = []
    while True:
        at_line.wait(SECONDS)
        at_line.clear()
        if ended.is_set():
            break
        results.append(in_child(visit, sink, lines))
        if not isinstance(results[-1], list):
            ended.set()
            go_on.set()
            break
        go_on.set()
    thread.join()
    assert len(results) > 3
    for result in results:
        assert isinstance(result, list), result
        assert all(answer is not None and 'process' in answer
                   for _, answer in result[:len(CHANGES)]), result
    pixels = read_all(sink)
    assert (pixels[40:40 + size, :size, :3] == 9).all()
    assert np.array_equal(pixels[:40, 8:, :3], TILE[:40])


@pytest.mark.parametrize('kind', ['jpeg', 'holes', 'png'])
def test_a_child_forked_while_a_file_is_written(tmp_path, kind):
    tile = np.dstack([TILE, np.full(TILE.shape[:2], 255, np.uint8)])
    if kind == 'holes':
        tile[:300, :300, 3] = 0
    sink, results = make_sink(tile), []

    def progress(fraction):
        results.append(in_child(visit, sink, fraction))

    path = tmp_path / ('a.png' if kind == 'png' else 'a.tif')
    sink.write(path, lossy=kind != 'png', progress=progress)
    assert len(results) > 1
    for result in results:
        assert isinstance(result, list), result
        assert all(answer is not None and 'process' in answer
                   for _, answer in result[:len(CHANGES)]), result
    assert_same(read_all(sink), tile)
    alone = make_sink(tile)
    alone.write(tmp_path / f'alone{path.suffix}', lossy=kind != 'png')
    assert (tmp_path / f'alone{path.suffix}').read_bytes() == path.read_bytes()


SHARED = {}


def add_to_the_shared_sink(number):
    return error_of(lambda: SHARED['sink'].addTile(TILE[:20, :20], 20 * number, 0))


def test_workers_of_a_pool_that_share_a_sink_are_told():
    SHARED['sink'] = make_sink(TILE)
    try:
        with multiprocessing.get_context('fork').Pool(2) as pool:
            answers = pool.map_async(add_to_the_shared_sink, range(8)).get(SECONDS)
        assert all(answer and 'process' in answer for answer in answers), answers
        assert_same(read_all(SHARED['sink'])[:, :, :3], TILE)
    finally:
        SHARED.clear()


def test_a_process_that_would_need_a_copy_of_a_sink_is_refused():
    process = multiprocessing.get_context('spawn').Process(target=read_all, args=(make_sink(),))
    with pytest.raises(pickle.PicklingError):
        process.start()


@pytest.mark.parametrize('name', ['b.png', 'b.tif'])
@pytest.mark.parametrize('written_before', [True, False])
def test_an_opened_file_is_written_in_a_child_or_refused_at_once(tmp_path, name, written_before):
    """Libvips' threads stay in the parent, and a child that needs them would wait for them."""
    make_sink(TILE).write(tmp_path / 'a.tif', lossy=False)
    script = textwrap.dedent("""
        import os, sys
        import large_image_source_vips
        from large_image.exceptions import TileSourceError
        source = large_image_source_vips.open(sys.argv[1])
        if sys.argv[3] == 'True':
            source.write(sys.argv[2])
        child = os.fork()
        if child == 0:
            try:
                source.write(sys.argv[2])
                os._exit(0)
            except TileSourceError as exc:
                os._exit(7 if 'forked' in str(exc) else 8)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script, str(tmp_path / 'a.tif'),
         str(tmp_path / name), str(written_before)],
        capture_output=True, text=True, check=False, timeout=120)
    refused = written_before and name == 'b.png'
    assert result.returncode == (7 if refused else 0), result.stderr
