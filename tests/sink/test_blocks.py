"""Blocks of samples in memory and in the spool."""

import dataclasses

import numpy as np
import pytest

from large_image_source_vips.base.limits import LIMITS
from large_image_source_vips.sink.blocks import BLOCK_SIZE, BlockKey, BlockPool, Plane
from large_image_source_vips.sink.spool import Spool

BYTES = BLOCK_SIZE * BLOCK_SIZE
KEYS = [BlockKey(0, 0, number, 0) for number in range(8)]


@pytest.fixture
def pool(monkeypatch):
    """Room for four blocks of bytes."""
    monkeypatch.setattr('large_image_source_vips.sink.blocks.LIMITS',
                        dataclasses.replace(LIMITS, sink_pool=4 * BYTES))
    return BlockPool(Spool())


def fill(plane, key, value):
    held, _ = plane.hold(key)
    held.samples[...] = value
    held.dirty = True
    return held


@pytest.mark.parametrize('pinned', [0, 1, 3])
def test_blocks_in_use_stay_and_the_oldest_others_leave(pool, pinned):
    plane = Plane(pool, np.dtype('uint8'), 1, 0)
    for number, key in enumerate(KEYS):
        held = fill(plane, key, number)
        if number >= pinned:
            held.pins -= 1
    pool.shrink()
    assert [key for _, key in pool.held] == [*KEYS[:pinned], *KEYS[4 + pinned:]]
    for number, key in enumerate(KEYS):
        assert (plane.read(key) == number).all()
        assert len(pool.held) <= 4


def test_a_block_that_was_read_is_not_the_oldest(pool):
    plane = Plane(pool, np.dtype('uint8'), 1, 0)
    for number, key in enumerate(KEYS[:4]):
        fill(plane, key, number).pins -= 1
    plane.read(KEYS[0])
    fill(plane, KEYS[4], 4).pins -= 1
    pool.shrink()
    assert KEYS[0] in {key for _, key in pool.held}
    assert KEYS[1] not in {key for _, key in pool.held}
