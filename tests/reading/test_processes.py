"""Threads, forks and other processes; descriptors and memory are bounded and freed."""

import concurrent.futures
import gc
import multiprocessing
import os
import pathlib
import threading

import numpy as np
import PIL.Image
import pytest
import pyvips
import tifffile

from helpers.pixels import random_pixels, smooth_pixels
from helpers.processes import sums_of_levels
from helpers.reading import level, level_by_tiles
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.reading import handles as handles_module
from large_image_source_vips.reading.handles import HandlePool, pool
from large_image_source_vips.reading.level_cache import CachedLevel, LevelCache, cached_levels
from large_image_source_vips.reading.reader import FileReader

linux = pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='there is no /proc/self/fd')


def descriptors():
    """What this process has open."""
    return [os.readlink(entry) for entry in pathlib.Path('/proc/self/fd').iterdir()
            if entry.is_symlink()]


def make_files(folder):
    """Files of all the ways that they are read in, and their pixels."""
    pixels = random_pixels((600, 700, 3))
    tifffile.imwrite(folder / 'tiles.tif', pixels, photometric='rgb', tile=(64, 64),
                     compression='deflate')
    tifffile.imwrite(folder / 'strips.tif', pixels, photometric='rgb', compression='deflate')
    PIL.Image.fromarray(pixels).save(folder / 'a.png')
    PIL.Image.fromarray(pixels).save(folder / 'a.webp', lossless=True)
    with tifffile.TiffWriter(folder / 'pages.tif') as tiff:
        for _ in range(12):
            tiff.write(pixels, photometric='rgb', metadata=None)
    return pixels


NAMES = ['tiles.tif', 'strips.tif', 'a.png', 'a.webp', 'pages.tif']


@linux
@pytest.mark.parametrize('name', NAMES)
def test_descriptors_are_given_back(tmp_path, name):
    pixels = make_files(tmp_path)
    path = tmp_path / name

    def look():
        reader = FileReader(path)
        frame = reader.frame_count - 1
        np.testing.assert_array_equal(level(reader, 0, frame), pixels)
        level(reader, 3, frame)
        reader.internal_metadata()
        reader.icc_profiles()

    for _ in range(40):
        look()
    gc.collect()
    assert not [name for name in descriptors() if str(tmp_path) in name]


@linux
def test_descriptors_are_given_back_after_errors(tmp_path):
    make_files(tmp_path)
    for name in NAMES:
        os.truncate(tmp_path / name, (tmp_path / name).stat().st_size // 2)
    failures = 0
    for name in NAMES * 20:
        try:
            level(FileReader(tmp_path / name))
        except Exception as exc:  # noqa: BLE001, PERF203 (only counted)
            failures += type(exc).__name__ == 'TileSourceError'
    gc.collect()
    assert failures > 50
    assert not [name for name in descriptors() if str(tmp_path) in name]


@linux
def test_closing_gives_back_the_descriptors_of_all_threads(tmp_path):
    make_files(tmp_path)
    reader = FileReader(tmp_path / 'tiles.tif')
    look = threading.Barrier(4)
    leave = threading.Barrier(4)

    def work():
        level(reader)
        look.wait()
        leave.wait()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    look.wait()
    assert [name for name in descriptors() if str(tmp_path) in name]
    reader.close()
    assert not [name for name in descriptors() if str(tmp_path) in name]
    leave.wait()
    for thread in threads:
        thread.join()


@linux
def test_a_thread_that_ends_leaves_nothing_open(tmp_path):
    make_files(tmp_path)
    reader = FileReader(tmp_path / 'tiles.tif')
    thread = threading.Thread(target=level, args=(reader,))
    thread.start()
    thread.join()
    gc.collect()
    # The main thread's own, from opening, where libvips takes descriptors.
    assert len([name for name in descriptors() if str(tmp_path) in name]) <= 1


@pytest.mark.parametrize('name', NAMES)
def test_many_threads_read_exactly(tmp_path, name):
    pixels = make_files(tmp_path)
    reader = FileReader(tmp_path / name)
    reduced = {reduction: level(reader, reduction) for reduction in (1, 3)}

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            left, top = int(rng.integers(0, 600)), int(rng.integers(0, 500))
            found = reader.read(0, 0, Rect(left, top, 100, 100))
            if not np.array_equal(found, pixels[top:top + 100, left:left + 100]):
                return False
            for reduction, expected in reduced.items():
                if not np.array_equal(level(reader, reduction), expected):
                    return False
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as workers:
        assert all(workers.map(work, range(8)))


def child_checks(reader, expected, reduced, answers):
    """What a forked child does with a source of its parent."""
    right = (np.array_equal(level_by_tiles(reader), expected) and
             all(np.array_equal(level(reader, reduction), pixels)
                 for reduction, pixels in reduced.items()))
    answers.put(right)


@pytest.mark.skipif('fork' not in multiprocessing.get_all_start_methods(), reason='no fork here')
@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
@pytest.mark.parametrize('used', [False, True], ids=['fresh', 'used'])
@pytest.mark.parametrize('name', NAMES)
def test_a_source_works_after_a_fork(tmp_path, name, used):
    make_files(tmp_path)
    expected = level(FileReader(tmp_path / name))
    reduced = {reduction: level(FileReader(tmp_path / name), reduction) for reduction in (2, 3, 5)}
    reader = FileReader(tmp_path / name)
    if used:
        level(reader)
    context = multiprocessing.get_context('fork')
    answers = context.Queue()
    children = [context.Process(target=child_checks, args=(reader, expected, reduced, answers))
                for _ in range(3)]
    for child in children:
        child.start()
    # Parent and children read at once; they must not share a position.
    assert np.array_equal(level_by_tiles(reader), expected)
    assert [answers.get(timeout=60) for _ in children] == [True] * 3
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert np.array_equal(level_by_tiles(reader), expected)


def test_a_spawned_process_reads_the_same(tmp_path):
    make_files(tmp_path)
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as workers:
        for name in NAMES:
            path = str(tmp_path / name)
            assert workers.submit(sums_of_levels, path).result() == sums_of_levels(path)


# The bounds

class FakeHandle:
    def __init__(self, size):
        self.bytes = size


def test_handles_are_bounded_in_bytes_and_number():
    some = HandlePool(max_bytes=1000, max_handles=5)
    for number in range(20):
        some.get('file', number, lambda: FakeHandle(150))
    assert (len(some), some.bytes) == (5, 750)
    some.get('file', 'large', lambda: FakeHandle(900))
    assert (len(some), some.bytes) == (1, 900)
    some.get('file', 'huge', lambda: FakeHandle(5000))
    assert (len(some), some.bytes) == (1, 5000)


def test_the_least_recently_used_handle_goes_first():
    some = HandlePool(max_bytes=1000, max_handles=2)
    first = some.get('file', 1, lambda: FakeHandle(1))
    some.get('file', 2, lambda: FakeHandle(1))
    assert some.get('file', 1, lambda: FakeHandle(1)) is first
    some.get('file', 3, lambda: FakeHandle(1))
    assert some.get('file', 1, lambda: FakeHandle(1)) is first


def test_each_thread_has_its_own_handle():
    some = HandlePool()
    found = []

    def work():
        found.append(some.get('file', 1, lambda: FakeHandle(1)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work()
    assert len({id(handle) for handle in found}) == 4


def test_handles_of_real_slides_stay_within_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, 'max_bytes', 20 << 20)
    image = pyvips.Image.new_from_array(smooth_pixels(256, 4000))
    image.tiffsave(str(tmp_path / 'a.tif'), tile=True, tile_width=256, tile_height=256)
    readers = []
    for number in range(30):
        os.link(tmp_path / 'a.tif', tmp_path / f'{number}.tif')
        reader = FileReader(tmp_path / f'{number}.tif')
        level_by_tiles(reader)
        readers.append(reader)
    assert 0 < pool.bytes <= 20 << 20
    assert pool.bytes > handles_module._BASE_BYTES
    expected = level(readers[-1])
    for reader in readers:
        np.testing.assert_array_equal(level(reader), expected)


def make_plane(size):
    plane = CachedLevel((size, 1, 1), np.dtype('uint8'))
    plane.put(0, np.zeros((size, 1, 1), 'uint8'))
    return plane.finish()


def test_planes_are_bounded():
    some = LevelCache(max_memory=1000)
    for number in range(20):
        some.get('file', number, lambda: make_plane(150))
    assert some.bytes(on_disk=False) == 900
    some.get('file', 'huge', lambda: make_plane(5000))
    assert some.bytes(on_disk=False) == 5000


def test_planes_go_with_their_file(tmp_path):
    make_files(tmp_path)
    reader = FileReader(tmp_path / 'a.png')
    level(reader)
    serial = reader._file.serial
    assert any(key[0] == serial for key in cached_levels._slots)
    del reader
    gc.collect()
    assert not any(key[0] == serial for key in cached_levels._slots)


def test_two_sources_share_what_is_decoded_and_closing_one_leaves_the_other(tmp_path):
    pixels = make_files(tmp_path)
    first, second = FileReader(tmp_path / 'a.png'), FileReader(tmp_path / 'a.png')
    assert np.shares_memory(level(first), level(second))
    first.close()
    np.testing.assert_array_equal(level(second), pixels)


def test_a_plane_that_failed_is_tried_again():
    some = LevelCache()
    attempts = []

    def make():
        attempts.append(None)
        if len(attempts) == 1:
            raise ZeroDivisionError
        return make_plane(10)

    with pytest.raises(ZeroDivisionError):
        some.get('file', 1, make)
    assert some.get('file', 1, make).shape == (10, 1, 1)
