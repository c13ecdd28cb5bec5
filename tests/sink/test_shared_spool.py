"""An image that several processes add to, and that survives them."""

import copy
import errno
import gc
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers import spools
from helpers.sink import assert_same, read_all, read_shown
from large_image_source_vips.base import durable
from large_image_source_vips.sink import records

COUNT = 24
TESTS = Path(__file__).parents[1]

needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
pytestmark = pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'spool'


@pytest.fixture(scope='module')
def expected():
    """The image of all tiles, by policy; of one process."""
    found = {}

    def get(policy='over'):
        if policy not in found:
            sink = large_image_source_vips.new(blend=policy)
            # 'over' is sorted by key in a shared spool.
            numbers = sorted(range(COUNT), key='tile {}'.format)
            found[policy] = read_all(spools.add(sink, numbers))
        return found[policy]

    return get


def new(folder, **kwargs):
    return large_image_source_vips.new(spool=folder, **kwargs)


def parts_of(folder):
    return sorted(Path(folder).glob('*.part'))


def descriptors_in(folder):
    """The open files of this process in a folder."""
    found = []
    for descriptor in os.listdir('/proc/self/fd'):
        try:
            path = os.readlink(f'/proc/self/fd/{descriptor}')
        except OSError:
            continue
        if path.startswith(str(folder)):
            found.append(path)
    return found


# Processes

@pytest.mark.parametrize('method', ['spawn', pytest.param('fork', marks=needs_fork)])
@pytest.mark.parametrize('policy', ['over', 'mean'])
def test_processes_add_to_one_image(folder, expected, method, policy):
    sink = new(folder, blend=policy)
    works = [(sink, list(range(start, COUNT, 3))) for start in range(3)]
    with multiprocessing.get_context(method).Pool(3) as pool:
        pool.starmap(spools.add_in_process, works, chunksize=1)
        assert_same(read_all(sink), expected(policy))
        # Another process sees the same.
        assert_same(pool.apply(spools.pixels_in_process, (sink,)), expected(policy))
    assert sink.added('tile 5')
    sink.close(delete=True)
    assert not folder.exists()


@needs_fork
def test_a_forked_process_that_has_added_tiles_before_adds_to_a_log_of_its_own(folder, expected):
    sink = spools.add(new(folder), range(10))
    read_all(sink)
    child = os.fork()
    if not child:
        code = 1
        try:
            spools.add(sink, range(8, COUNT))
            code = 0 if np.array_equal(read_all(sink), expected()) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert len(parts_of(folder)) == 2
    assert_same(read_all(sink), expected())


@needs_fork
def test_a_fork_waits_for_no_thread_of_its_parent(folder):
    """Threads of the parent add and read all the time."""
    sink = new(folder)
    ended, failures = threading.Event(), []

    def work(first):
        number = first
        try:
            while not ended.is_set():
                spools.add(sink, [number % COUNT])
                read_all(sink)
                number += 1
        except BaseException as exc:  # noqa: BLE001 - shown below
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if not child:
                code = 1
                try:
                    # Ends a child that hangs; pytest-timeout handles the signal in its own way.
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)
                    signal.alarm(30)
                    spools.add(sink, range(COUNT))
                    code = 0 if sink.added('tile 1') else 2
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_pickled_image_is_the_same_one(folder, expected):
    sink = spools.add(new(folder), range(0, COUNT, 2))
    other = pickle.loads(pickle.dumps(sink))
    spools.add(other, range(1, COUNT, 2))
    assert_same(read_all(sink), expected())
    assert_same(read_all(copy.deepcopy(sink)), expected())


def test_an_image_that_is_sent_with_every_task_has_one_log_for_each_process(folder, expected):
    data = pickle.dumps(new(folder))
    for number in range(COUNT):
        spools.add(pickle.loads(data), [number])
        gc.collect()
    assert len(parts_of(folder)) == 1
    sink = pickle.loads(data)
    assert_same(read_all(sink), expected())
    sink.close()
    # Closed, it is opened again for the next task.
    assert pickle.loads(data).added('tile 1')


def test_an_image_is_the_same_under_another_directory(folder, expected, monkeypatch, tmp_path):
    """A relative path is that of the process that made the image."""
    monkeypatch.chdir(tmp_path)
    sink = spools.add(large_image_source_vips.new(spool='spool'), range(COUNT))
    data = pickle.dumps(sink)
    sink.close()
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    assert_same(read_all(pickle.loads(data)), expected())


def test_what_was_set_is_set_in_every_process(folder):
    sink, other = new(folder), new(folder)
    sink.mm_x, sink.minWidth, sink.crop = 0.25, 500, (10, 20, 100, 90)
    sink.channelNames, sink.imageDescription = ['a', 'b'], {'text': 1}
    other.mm_y, other.frameAxes = 0.5, ['z']
    other.addAssociatedImage(np.full((5, 6, 3), 7, np.uint8), 'macro')
    other.addTile(np.zeros((30, 40), np.uint8), z=1, z_value=2.5)
    for image in (sink, other, new(folder)):
        assert (image.mm_x, image.mm_y) == (0.25, 0.5)
        assert (image.minWidth, image.crop) == (500, (10, 20, 100, 90))
        assert (image.channelNames, image.imageDescription) == (['a', 'b'], {'text': 1})
        assert image.frameAxes == ['z']
        assert image.frameValues[1, 0] == 2.5
        assert image.getAssociatedImagesList() == ['macro']
        assert len(image.getAssociatedImage('macro')[0]) > 0
        assert image.sizeX == 500
    other.crop = None
    assert sink.crop is None


def test_tiles_of_other_processes_are_seen_at_once(folder):
    sink, other = new(folder), new(folder)
    assert sink.getMetadata()['sizeX'] == 0
    other.addTile(np.full((30, 300, 3), 9, np.uint8))
    assert (sink.sizeX, sink.sizeY) == (300, 30)
    assert (sink.getTile(1, 0, 1, numpyAllowed='always')[:30, :44, :3] == 9).all()
    other.addTile(np.full((30, 10, 3), 5, np.uint8), -10)
    assert sink.origin == {'x': -10, 'y': 0}
    assert sink.getTile(0, 0, 1, numpyAllowed='always')[0, 0, 0] == 5


def test_the_written_file_does_not_depend_on_who_added(folder, tmp_path):
    """Tiles without keys, of several dtypes, some at the same place."""
    def tiles():
        rng = np.random.default_rng(1)
        for number in range(12):
            dtype = ['uint8', 'uint16'][number % 2]
            tile = rng.integers(0, 255, (50, 60, 3)).astype(dtype)
            yield tile, {'x': 40 * (number // 4), 'order': 1 if number == 2 else None}

    written = []
    for attempt in range(3):
        place = folder / str(attempt)
        sinks = [new(place) for _ in range(3)]
        found = list(tiles())
        random.Random(attempt).shuffle(found)
        for number, (tile, kwargs) in enumerate(found):
            sinks[number % (attempt + 1)].addTile(tile, **kwargs)
        path = tmp_path / f'{attempt}.tif'
        sinks[attempt].write(path, lossy=False)
        written.append(read_shown(path))
        for sink in sinks:
            sink.close()
    assert_same(written[1], written[0])
    assert_same(written[2], written[0])


def test_axes_do_not_depend_on_which_tile_came_first(folder):
    tiles = [{'c': 1}, {'z': 2}, {'t': 1, 'c': 0}, {'z': 1, 'c': 2}, {'t': 0, 'z': 0}]
    found = []
    for attempt in range(4):
        sink = new(folder / str(attempt))
        random.Random(attempt).shuffle(tiles)
        for position in tiles:
            sink.addTile(np.full((4, 4), 10, np.uint8), **position)
        found.append(sink.getMetadata()['frames'])
    assert all(frames == found[0] for frames in found)


# Keys

def test_a_key_counts_once_over_all_processes(folder):
    first, second = new(folder, blend='sum'), new(folder)
    tile = np.full((4, 4), 3, np.uint8)
    for sink in (first, second, first):
        sink.addTile(tile, key=7)
        sink.addTile(tile)
    assert read_all(first)[0, 0, 0] == 3 + 3 * 3
    assert second.added(7)


def test_a_key_of_two_tiles_is_an_error_that_names_both(folder):
    first, second = new(folder), new(folder)
    first.addTile(np.zeros((4, 4), np.uint8), key='a')
    # Not looked at what the other one did.
    second.addTile(np.ones((5, 4), np.uint8), 8, 9, key='a')
    for sink in (first, second, first):
        with pytest.raises(TileSourceError, match=r"'a'.*4 x 4 at 0, 0.*4 x 5 at 8, 9|"
                                                  r"'a'.*4 x 5 at 8, 9.*4 x 4 at 0, 0"):
            sink.getRegion(format='numpy')


def test_tiles_that_cannot_be_joined_are_an_error_in_every_process(folder):
    first, second = new(folder), new(folder)
    first.addTile(np.zeros((4, 4, 3), np.uint8))
    second.addTile(np.zeros((4, 4, 7), np.uint8))
    for sink in (first, second):
        with pytest.raises(TileSourceError, match='band'):
            sink.getRegion(format='numpy')


# Resuming

def test_a_folder_is_continued(folder, expected):
    with new(folder, blend='mean') as sink:
        spools.add(sink, range(10))
        sink.flush()
    sink = new(folder)
    assert [sink.added(f'tile {number}') for number in (9, 10)] == [True, False]
    spools.add(sink, range(COUNT))
    assert_same(read_all(sink), expected('mean'))
    with pytest.raises(TileSourceError, match="has blend='mean', not 'max'"):
        new(folder, blend='max')


def test_every_torn_tail_is_cut_with_a_warning(folder, tmp_path):
    sink = new(folder)
    for value in (1, 2):
        sink.addTile(np.full((3, 3), value, np.uint8), value * 3, key=value)
    sink.close()
    log, = parts_of(folder)
    data = log.read_bytes()
    starts = [place for place in range(len(data)) if data[place:place + 4] == b'TILE']
    assert len(starts) == 2
    for end in range(starts[0] + 1, len(data)):
        copied = tmp_path / str(end)
        shutil.copytree(folder, copied)
        (copied / log.name).write_bytes(data[:end])
        whole = end >= starts[1]
        if end == starts[1]:
            torn = new(copied)
        else:
            with pytest.warns(UserWarning, match='was not complete'):
                torn = new(copied)
        assert [torn.added(key) for key in (1, 2)] == [whole, False]
        torn.addTile(np.full((3, 3), 2, np.uint8), 6, key=2)
        assert (read_all(torn)[:, 6:, 0] == 2).all()
        torn.close(delete=True)
        assert not copied.exists()


def test_a_damaged_tile_behind_the_last_flush_is_cut(folder):
    """After a loss of power, pages of a file may be zero."""
    sink = new(folder)
    for key in range(4):
        sink.addTile(np.full((64, 64), 5, np.uint8), key * 64, key=key)
        if key == 1:
            sink.flush()
    sink.close()
    log, = parts_of(folder)
    data = bytearray(log.read_bytes())
    last = data.rindex(b'TILE')
    third = data.rindex(b'TILE', 0, last)
    data[third + 1000:third + 2000] = bytes(1000)
    log.write_bytes(data)
    with pytest.warns(UserWarning, match='was not complete'):
        sink = new(folder)
    assert [sink.added(key) for key in range(4)] == [True, True, False, False]


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int32', 'float16', 'float64', '>u2'])
def test_a_log_does_not_depend_on_who_computes_its_checksums(folder, monkeypatch, dtype):
    """Without libdeflate zlib does; both write what the other reads."""
    tiles = [np.arange(9 * 7 * 3).reshape(9, 7, 3).astype(dtype) + shift for shift in (0, 1)]
    mask = tiles[0][..., 0] > 4
    with new(folder) as sink:
        sink.addTile(tiles[0], 0, mask=mask)
    monkeypatch.setattr(records, '_crc32', lambda: zlib.crc32)
    with new(folder) as sink:
        sink.addTile(tiles[1], 10, mask=mask)
    found = read_all(new(folder))
    monkeypatch.undo()
    np.testing.assert_array_equal(read_all(new(folder)), found)
    for left, tile in enumerate(tiles):
        np.testing.assert_array_equal(found[3, 10 * left:10 * left + 7, :3], tile[3])


def test_a_damaged_tile_before_the_last_flush_is_an_error_that_names_it(folder):
    sink = new(folder)
    sink.addTile(np.full((64, 64), 5, np.uint8), 64, key=0)
    sink.flush()
    sink.close()
    log, = parts_of(folder)
    data = bytearray(log.read_bytes())
    data[-2000:-1000] = bytes(1000)
    log.write_bytes(data)
    sink = new(folder)
    with pytest.raises(TileSourceError, match=r'tile of 64 x 64 at 64, 0 are damaged'):
        sink.getRegion(format='numpy')


def test_the_log_of_a_living_process_is_not_cut(folder):
    """Its last record may be in the middle of being written."""
    sink = new(folder)
    sink.addTile(np.zeros((4, 4), np.uint8), key=1)
    log, = parts_of(folder)
    with log.open('ab') as file:
        file.write(records.log_header())
    size = log.stat().st_size
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        other = new(folder)
        assert other.added(1)
    assert log.stat().st_size == size


def _killed(folder, first, end, step, delay):
    """Start a worker, and kill it after some time."""
    worker = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-m', 'helpers.spools', folder, str(first), str(end),
         str(step)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(
            [str(TESTS), str(TESTS.parent), os.environ.get('PYTHONPATH', '')])},
        stdout=subprocess.PIPE)
    with worker:
        assert worker.stdout.readline() == b'ready\n'
        timer = threading.Timer(delay, worker.kill)
        timer.start()
        worker.wait()
        timer.cancel()


@pytest.mark.skipif(os.name == 'nt', reason='Windows removes no open files')
@pytest.mark.parametrize('times', [3, pytest.param(100, marks=pytest.mark.slow)])
def test_workers_can_be_killed_at_any_moment(folder, tmp_path, expected, times):
    chance = random.Random(times)
    folder.mkdir()
    before = set(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else set()
    for _ in range(times):
        first = chance.randrange(COUNT)
        _killed(folder, first, COUNT, chance.randint(1, 5), chance.random() * 0.03)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        sink = new(folder)
    spools.add(sink, range(COUNT))
    assert_same(read_all(sink), expected())
    sink.write(tmp_path / 'retried.tif', lossy=False)
    single = spools.add(new(tmp_path / 'single'), range(COUNT))
    single.write(tmp_path / 'undisturbed.tif', lossy=False)
    single.close(delete=True)
    assert (tmp_path / 'retried.tif').read_bytes() == (
        tmp_path / 'undisturbed.tif').read_bytes()
    sink.close(delete=True)
    assert not folder.exists()
    if before:
        gc.collect()
        assert set(os.listdir('/proc/self/fd')) <= before


# Folders that cannot be used

def test_a_folder_of_a_newer_version_is_refused(folder):
    new(folder).close()
    marker = folder / 'spool.json'
    fields = json.loads(marker.read_text())
    marker.write_text(json.dumps({**fields, 'version': 99}))
    with pytest.raises(TileSourceError, match=r'version 99.*use a newer version'):
        new(folder)


def test_a_log_of_a_newer_version_is_refused(folder, monkeypatch):
    monkeypatch.setattr(records, 'VERSION', 99)
    sink = new(folder)
    sink.addTile(np.zeros((4, 4), np.uint8))
    sink.close()
    monkeypatch.undo()
    with pytest.raises(TileSourceError, match=r'version 99.*use a newer version'):
        new(folder).getMetadata()


def _foreign(folder):
    folder.mkdir()
    (folder / 'thesis.txt').write_text('text')


def _file(folder):
    folder.write_text('text')


def _unmarked(folder):
    sink = spools.add(new(folder), [1])
    sink.close()
    (folder / 'spool.json').unlink()


def _broken_marker(folder):
    folder.mkdir()
    (folder / 'spool.json').write_text('{')


def _other_program(folder):
    folder.mkdir()
    (folder / 'spool.json').write_text('{"version": 1}')


@pytest.mark.parametrize(('prepare', 'words'), [
    (_foreign, r'not a spool: it has other files, such as thesis.txt'),
    (_file, r'must be a folder'), (_unmarked, r'has lost its spool.json'),
    (_broken_marker, 'damaged or belongs to another program'),
    (_other_program, 'damaged or belongs to another program')])
def test_something_else_is_refused_and_left_alone(folder, prepare, words):
    prepare(folder)
    before = sorted(os.listdir(folder)) if folder.is_dir() else folder.read_text()
    with pytest.raises(TileSourceError, match=words):
        new(folder)
    assert (sorted(os.listdir(folder)) if folder.is_dir() else folder.read_text()) == before


def test_a_log_that_is_gone_is_an_error(folder):
    sink = spools.add(new(folder), range(3))
    sink.close()
    sink = new(folder)
    assert sink.added('tile 1')
    parts_of(folder)[0].unlink()
    with pytest.raises(TileSourceError, match='of a shared spool cannot be read'):
        sink.added('tile 2')


def test_a_folder_that_is_removed_is_an_error(folder):
    sink = spools.add(new(folder), range(3))
    shutil.rmtree(folder)
    with pytest.raises(TileSourceError, match='cannot be read'):
        read_all(sink)


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0,
                    reason='root writes everywhere')
def test_a_read_only_folder_can_be_read(folder, expected):
    spools.add(new(folder), range(COUNT)).close()
    folder.chmod(0o500)
    try:
        sink = new(folder)
        assert_same(read_all(sink), expected())
        with pytest.raises(TileSourceError, match='Check its permissions'):
            spools.add(sink, [0], keyed=False)
    finally:
        folder.chmod(0o700)


def test_a_full_disk_loses_nothing(folder, expected, monkeypatch):
    sink = spools.add(new(folder), range(10))

    def full(descriptor, buffers, offset):
        os.pwrite(descriptor, bytes(buffers[0])[:20], offset)
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(durable, 'append_at', full)
        for _ in range(3):
            with pytest.raises(TileSourceError, match=r'No space left.*before is safe'):
                spools.add(sink, [10])
    assert not sink.added('tile 10')
    spools.add(sink, range(COUNT))
    assert_same(read_all(sink), expected())
    assert_same(read_all(new(folder)), expected())


def test_a_file_system_that_cannot_flush_says_so(folder, monkeypatch):
    sink = spools.add(new(folder), range(2))

    def broken(_descriptor):
        raise OSError(errno.EIO, 'Input/output error')

    monkeypatch.setattr(os, 'fsync', broken)
    with pytest.raises(TileSourceError, match='cannot be flushed: Input/output error'):
        sink.flush()


def test_without_locks_nothing_is_cut_and_torn_records_are_ignored(folder, monkeypatch):
    monkeypatch.setattr(durable, 'try_lock', lambda _descriptor: False)
    spools.add(new(folder), range(3)).close()
    log, = parts_of(folder)
    data = log.read_bytes()
    log.write_bytes(data[:-10])
    sink = new(folder)
    assert [sink.added(f'tile {number}') for number in range(3)] == [True, True, False]
    spools.add(sink, [2])
    assert sink.added('tile 2')
    assert log.stat().st_size == len(data) - 10


# Closing

@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='needs /proc')
def test_closing_gives_everything_back(folder):
    sink = spools.add(new(folder), range(COUNT))
    read_all(sink)
    assert descriptors_in(folder)
    sink.close()
    assert descriptors_in(folder) == []
    for use in (lambda: sink.added('tile 1'), lambda: sink.addTile(np.zeros((4, 4), np.uint8)),
                sink.flush, lambda: sink.getTile(0, 0, 0)):
        with pytest.raises(TileSourceError, match='has been closed'):
            use()
    sink.close()


def test_closing_removes_the_folder_only_if_asked(folder):
    sink = spools.add(new(folder), range(2))
    other = new(folder)
    sink.close()
    assert other.added('tile 1')
    (folder / 'notes.txt').write_text('mine')
    with pytest.raises(TileSourceError, match='cannot be removed'):
        other.close(delete=True)
    assert (folder / 'notes.txt').read_text() == 'mine'


def test_many_dead_workers_need_few_descriptors(folder):
    for number in range(40):
        spools.add(new(folder), [number % COUNT]).close()
    sink = new(folder)
    read_all(sink)
    if os.path.isdir('/proc/self/fd'):
        assert len(descriptors_in(folder)) <= 16
    sink.close(delete=True)
