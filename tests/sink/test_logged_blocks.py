"""Tiles that are whole blocks are read from the logs; the logs' files are closed by themselves."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.sink import assert_same, random_tile, read_all, read_shown
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.sink.spool import Spool

POLICIES = ['over', 'first', 'mean', 'feather', 'max', 'min']


def tiles_of(dtype='uint8', bands=3):
    """Four whole blocks, the last one with a tile over its corner."""
    return [(0, 0, random_tile(dtype, (256, 256, bands), 1)),
            (256, 0, random_tile(dtype, (256, 256, bands), 2)),
            (0, 256, random_tile(dtype, (256, 256, bands), 3)),
            (256, 256, random_tile(dtype, (256, 256, bands), 4))]


def filled(tiles, folder, **kwargs):
    sink = large_image_source_vips.new(spool=folder, **kwargs)
    for x, y, tile in tiles:
        sink.addTile(tile, x, y)
    return sink


def put_together(tiles):
    rows, cols = (max(tile[1 - axis] + 256 for tile in tiles) for axis in (0, 1))
    result = np.zeros((rows, cols, tiles[0][2].shape[2]), tiles[0][2].dtype)
    for x, y, tile in tiles:
        result[y:y + 256, x:x + 256] = tile
    return result


@pytest.mark.parametrize('policy', POLICIES)
@pytest.mark.parametrize(('dtype', 'bands'), [
    ('uint8', 3), ('uint8', 1), ('uint16', 3), ('float32', 1), ('float64', 5)])
def test_tiles_that_are_blocks_are_shown_and_written(policy, dtype, bands, tmp_path, monkeypatch):
    tiles = tiles_of(dtype, bands)
    expected = put_together(tiles)
    written = []
    write = Spool.write
    monkeypatch.setattr(Spool, 'write', lambda *args: written.append(args) or write(*args))
    sink = filled(tiles, tmp_path / 'spool', blend=policy)
    assert_same(read_all(sink)[:, :, :bands], expected)
    sink.write(tmp_path / 'written.tif', lossy=False)
    assert_same(read_shown(tmp_path / 'written.tif')[:, :, :bands], expected)
    # Nothing was copied.
    assert not written
    sink.close(delete=True)


def test_a_tile_over_a_block_changes_it_and_no_snapshot(tmp_path):
    tiles = tiles_of()
    before = put_together(tiles)
    sink = filled(tiles, tmp_path / 'spool', blend='max')
    with sink._canvas.picture() as picture:
        sink.addTile(np.full((256, 256, 3), 255, np.uint8), 128, 128, order=2)
        after = before.copy()
        after[128:384, 128:384] = 255
        assert_same(read_all(sink)[:, :, :3], after)
        color, _ = picture.read(Rect(0, 0, 512, 512))
        assert_same(color, before)
    # A whole block again.
    sink.addTile(np.full((256, 256, 3), 255, np.uint8), 0, 0)
    after[:256, :256] = 255
    assert_same(read_all(sink)[:, :, :3], after)


def test_a_snapshot_outlives_its_image(tmp_path):
    """``write`` in one thread, ``close`` in another."""
    expected = put_together(tiles_of())
    folder = tmp_path / 'spool'
    sink = filled(tiles_of(), folder)
    with sink._canvas.picture() as picture:
        sink.close(delete=os.name != 'nt')
        assert folder.exists() == (os.name == 'nt')
        color, _ = picture.read(Rect(0, 0, 512, 512))
        assert_same(color, expected)
    with pytest.raises(TileSourceError, match='has been closed'):
        sink.getTile(0, 0, 0)


@pytest.mark.parametrize('change', ['flip', 'cut'])
def test_a_damaged_tile_is_found_when_it_is_written(tmp_path, change):
    sink = filled(tiles_of(), tmp_path / 'spool')
    log, = (tmp_path / 'spool').glob('*.part')
    with sink._canvas.picture() as picture:
        data = log.read_bytes()
        rest = b'' if change == 'cut' else bytes([data[-9] ^ 1]) + data[-8:]
        log.write_bytes(data[:-9] + rest)
        with pytest.raises(TileSourceError, match='the tile of 256 x 256 at 256, 256 are damaged'):
            picture.read(Rect(256, 256, 256, 256))


@pytest.mark.parametrize('kwargs', [
    {'mask': np.arange(65536).reshape(256, 256) % 3 > 0}, {'weight': np.full((256, 256), 2.5)}])
def test_whole_blocks_with_a_mask_or_weight_are_blended(tmp_path, kwargs):
    tile = random_tile('uint8', (256, 256, 3))
    with large_image_source_vips.new(spool=tmp_path / 'spool', blend='mean') as sink:
        sink.addTile(tile, **kwargs)
        found = read_all(sink)
    mask = kwargs.get('mask', np.ones((256, 256), bool))
    assert_same(found[:, :, :3], np.where(mask[:, :, np.newaxis], tile, 0).astype(np.uint8))
    assert np.array_equal(found[:, :, -1] > 0, mask) or found.shape[2] == 3


def test_blocks_of_several_frames_and_of_a_wider_image(tmp_path):
    first, second = (random_tile('uint8', (256, 256, 1), seed) for seed in (1, 2))
    with large_image_source_vips.new(spool=tmp_path / 'spool') as sink:
        sink.addTile(np.stack([first, second]), axes='cyxs')
        sink.addTile(np.full((256, 256, 1), 60000, np.uint16), 256, 0, c=1)
        for frame, tile in enumerate((first, second)):
            found = read_all(sink, frame=frame)
            assert found.dtype == np.uint16
            assert_same(found[:, :256, :1], tile.astype(np.uint16))
        assert (found[:, 256:, 0] == 60000).all()


@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='needs /proc')
@pytest.mark.parametrize('shared', [True, False])
def test_an_image_that_is_dropped_gives_its_files_back(tmp_path, shared):
    """Of Dask tasks and notebooks, which close nothing."""
    options = {'spool': tmp_path / 'spool'} if shared else {'blend': 'mean'}

    def use():
        sink = large_image_source_vips.new(**options)
        sink.addTile(np.ones((256, 256, 3), np.uint8))
        sink.getTile(0, 0, 0)

    use()
    gc.collect()
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(5):
        use()
    gc.collect()
    assert len(os.listdir('/proc/self/fd')) <= before
    # The log of a dropped image is not locked: the next one may repair it.
    assert not shared or len(list(Path(tmp_path / 'spool').glob('*.part'))) == 6
