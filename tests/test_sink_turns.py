"""Threads that add small tiles take turns."""

import sys
import threading
import time

import numpy as np
import pytest

import large_image_source_vips
from large_image_source_vips.claims import Turns


def run(count, work):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_one_thread_at_a_time():
    turns = Turns()
    inside, most, total = 0, 0, 0

    def work(_number):
        nonlocal inside, most, total
        for _ in range(300):
            with turns:
                inside += 1
                most = max(most, inside)
                if not total % 50:
                    time.sleep(0.0005)
                total += 1
                inside -= 1

    run(5, work)
    assert (most, total) == (1, 1500)


def test_nobody_waits_for_ever_beside_a_busy_thread():
    turns = Turns()
    ended = threading.Event()
    got = []

    def work(number):
        if number:
            for _ in range(3):
                with turns:
                    got.append(number)
            if len(got) == 9:
                ended.set()
            return
        while not ended.is_set():
            with turns:
                pass

    run(4, work)
    assert sorted(got) == [1] * 3 + [2] * 3 + [3] * 3


def test_somebody_always_watches():
    """Threads that stop while others wait, at any moment."""
    for _ in range(4):
        turns = Turns()

        def work(number, turns=turns):
            for _ in range(3):
                with turns:
                    end = time.monotonic() + (0.04 if number == 0 else 0.001)
                    while time.monotonic() < end:
                        pass
                end = time.monotonic() + 0.008
                while time.monotonic() < end:
                    pass

        run(5, work)


def test_a_turn_ends_with_its_thread():
    turns = Turns()
    for _ in range(3):
        run(1, lambda _number: turns.__enter__() or turns.__exit__(None, None, None))
    with turns:
        pass


def test_errors_and_interruptions_give_the_turn_back():
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns:
        raise ZeroDivisionError
    # Interrupted between the grant and the end: the thread itself goes on.
    turns.__enter__()
    with turns:
        pass
    run(1, lambda _number: turns.__enter__() or turns.__exit__(None, None, None))


def test_an_interruption_while_waiting_leaves_the_others_alone():
    turns = Turns()
    entered, leave = threading.Event(), threading.Event()

    def hold(_number):
        with turns:
            entered.set()
            leave.wait(60)

    holder = threading.Thread(target=hold, args=(0,))
    holder.start()
    entered.wait(60)

    class Interrupted(BaseException):
        pass

    def wait(_timeout=None):
        raise Interrupted

    original, turns._changed.wait = turns._changed.wait, wait
    with pytest.raises(Interrupted), turns:
        pass
    turns._changed.wait = original
    leave.set()
    holder.join()
    with turns:
        pass


@pytest.mark.parametrize('size', [16, 100, 700])
def test_tiles_of_many_threads_are_all_there(size):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        rng = np.random.default_rng(0)
        across = 3000 // size
        tiles = rng.integers(0, 255, (across, across, size, size, 3), 'uint8')
        sink = large_image_source_vips.new()

        def work(number):
            for place in range(number, across * across, 6):
                row, column = divmod(place, across)
                sink.addTile(tiles[row, column], x=column * size, y=row * size)

        run(6, work)
    finally:
        sys.setswitchinterval(interval)
    whole = tiles.transpose(0, 2, 1, 3, 4).reshape(across * size, across * size, 3)
    found = sink.getRegion(format='numpy')[0]
    np.testing.assert_array_equal(found[..., :3], whole)
    assert sink.bandRanges['min'].tolist()[:3] == whole.min(axis=(0, 1)).tolist()
    assert sink.bandRanges['max'].tolist()[:3] == whole.max(axis=(0, 1)).tolist()
