"""Resources of a source are freed with it, whatever locks other threads hold."""

import gc
import os
import threading

import numpy as np
import PIL.Image
import pytest
import tifffile

from helpers.around import in_a_forked_child, in_threads
from helpers.pixels import random_pixels
from helpers.reading import level
from large_image_source_vips.base.threads import CleanupLock
from large_image_source_vips.reading.handles import HandlePool, pool
from large_image_source_vips.reading.level_cache import CachedLevel, LevelCache, cached_levels
from large_image_source_vips.reading.reader import FileReader

PIXELS = random_pixels((600, 700, 3))


class Thing:
    """Something open that takes some memory."""

    bytes = 1000


def in_another_thread(lock, work):
    """Do something while another thread holds a lock, and wait until that has let go."""
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            assert go_on.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    work()
    go_on.set()
    thread.join()


def in_the_same_thread(lock, work):
    """Do something with a lock, as the garbage collector may."""
    with lock:
        work()


def with_nobody_in_the_way(lock, work):
    """Do something with the lock free."""
    del lock
    work()


HOLDERS = [in_another_thread, in_the_same_thread, with_nobody_in_the_way]


def what_is_held(serial):
    return ([key for key in cached_levels._slots if key[0] == serial],
            [key for key in pool._handles if key[0] == serial])


@pytest.mark.parametrize('holder', HOLDERS)
@pytest.mark.parametrize('lock', ['levels', 'handles'])
@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'strips.tif'])
def test_all_of_a_file_goes_with_its_last_reader(tmp_path, name, lock, holder):
    path = tmp_path / name
    if name == 'a.png':
        PIL.Image.fromarray(PIXELS).save(path)
    else:
        tifffile.imwrite(path, PIXELS, photometric='rgb', compression='lzw',
                         tile=(64, 64) if name == 'a.tif' else None)
    readers = [FileReader(path)]
    serial = readers[0]._file.serial
    for reduction in (0, 2, 3):
        level(readers[0], reduction)
    assert any(what_is_held(serial))

    def drop():
        readers.clear()
        gc.collect()

    holder({'levels': cached_levels, 'handles': pool}[lock]._lock, drop)
    assert what_is_held(serial) == ([], [])


@pytest.mark.parametrize('holder', HOLDERS)
def test_the_garbage_collector_finds_a_reader_in_a_circle(tmp_path, holder):
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', rowsperstrip=20)
    circle = [FileReader(tmp_path / 'a.tif')]
    serial = circle[0]._file.serial
    level(circle[0], 3)
    circle.append(circle)
    del circle
    assert any(what_is_held(serial))
    holder(cached_levels._lock, gc.collect)
    assert what_is_held(serial) == ([], [])


@pytest.mark.parametrize('holder', HOLDERS)
def test_handles_of_a_thread_that_ends(holder):
    handles, there, go_on = HandlePool(), threading.Event(), threading.Event()

    def work():
        handles.get('file', 'tile', Thing)
        there.set()
        assert go_on.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert there.wait(60)
    assert handles.bytes == Thing.bytes

    def end():
        go_on.set()
        thread.join()
        gc.collect()

    holder(handles._lock, end)
    assert len(handles) == handles.bytes == 0


def test_what_goes_may_take_others_with_it():
    cache = LevelCache()

    class Chain:
        nbytes, on_disk, complete = 10, False, True

        def __init__(self, following):
            self.following = following

        def __del__(self):
            cache.forget(self.following)

    for owner in range(5):
        cache.get(owner, 'level', lambda owner=owner: Chain(owner + 1))
    with cache._lock:
        cache.forget(0)
        assert cache.peek(0, 'level') is not None
    assert cache.bytes(on_disk=False) == 0


def test_no_request_is_left_over_among_threads():
    cleaned, lock = [], None

    def clean():
        while lock.requests:
            cleaned.append(lock.requests.popleft())

    lock = CleanupLock(clean)

    def work(share):
        for number in range(2000):
            if number % 3:
                lock.request((share, number))
            else:
                with lock:
                    lock.request((share, number))

    in_threads(work, range(6))
    assert sorted(cleaned) == [(share, number) for share in range(6) for number in range(2000)]


def test_an_error_with_the_lock_does_not_lose_a_request():
    cache = LevelCache()
    cache.get('file', 'level', lambda: CachedLevel((10, 10, 3), np.dtype('uint8')))

    def fail():
        cache.forget('file')
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_the_same_thread(cache._lock, fail)
    assert cache.bytes(on_disk=False) == 0


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork')
def test_a_fork_while_the_lock_is_held():
    cache = LevelCache()
    for owner in 'ab':
        cache.get(owner, 'level', lambda: CachedLevel((10, 10, 3), np.dtype('uint8')))

    def held_in_child():
        cache.after_fork()
        return cache.bytes(on_disk=False)

    found = []

    def fork():
        cache.forget('a')
        found.append(in_a_forked_child(held_in_child))

    in_another_thread(cache._lock, fork)
    assert found == [300]
    assert cache.bytes(on_disk=False) == 300
