"""Lower levels of a sink that are read, changed and read again."""

import numpy as np
import pytest

from helpers.sink import assert_same, make_sink, random_tile, read_level

SHAPE = (1200, 1900, 3)


@pytest.mark.parametrize('corner', [(0, 0), (-1100, 0), (0, -700), (-300, -1000), (200, 50)])
@pytest.mark.parametrize('place', [(0, 0), (1860, 0), (0, 1160), (1860, 1160), (900, 600)])
def test_a_change_is_seen_in_every_level(corner, place):
    whole = random_tile('uint8', SHAPE)
    patch = random_tile('uint8', (40, 40, 3), 1)
    x, y = corner[0] + place[0], corner[1] + place[1]
    seen, fresh = make_sink(whole, *corner), make_sink(whole, *corner)
    for level in range(seen.levels):
        read_level(seen, level)
    for sink in (seen, fresh):
        sink.addTile(patch, x, y)
    for level in range(seen.levels):
        assert_same(read_level(seen, level), read_level(fresh, level))


@pytest.mark.parametrize('grown', [(1, 0), (0, 1), (1, 1), (700, 300)])
@pytest.mark.parametrize('shape', [(1025, 1537, 3), (1024, 1536, 3), (1279, 1023, 4)])
def test_a_larger_image_has_the_levels_of_one_that_was_as_large_from_the_start(shape, grown):
    tile = random_tile('uint8', shape)
    rows, cols = shape[:2]
    more = random_tile('uint8', (40, 40, 3), 1)
    seen, fresh = make_sink(tile), make_sink(tile)
    for level in range(seen.levels):
        read_level(seen, level)
    for sink in (seen, fresh):
        sink.addTile(more, cols + grown[0] - 40, rows + grown[1] - 40)
    for level in range(seen.levels):
        assert_same(read_level(seen, level), read_level(fresh, level))


@pytest.mark.parametrize('transparent', [False, True])
def test_a_block_that_is_made_anew_has_given_its_place_back(transparent):
    tile = random_tile('uint8', (1024, 1024, 4), 3)
    if not transparent:
        tile[..., 3] = 255
    sink = make_sink(tile)
    read_level(sink, 0)
    layers = sink._store._layers
    planes = (layers.color, layers.alpha) if transparent else (layers.color,)
    for plane in planes:
        assert {key.level for key in plane.slots if key.level} == {1, 2}
    sink.addTile(np.full((10, 10, 4), 100, np.uint8), 600, 100)
    for plane in planes:
        lower = [(key.level, key.column, key.row) for key in plane.slots if key.level]
        assert sorted(lower) == [(1, 0, 0), (1, 0, 1), (1, 1, 1)]
