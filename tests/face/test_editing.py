"""Properties, state and references of an image that grows."""

import gc
import json
import os
import pickle
import tempfile
import threading
import weakref

import large_image
import numpy as np
import pytest
from large_image.exceptions import TileSourceError, TileSourceXYZRangeError

import large_image_source_vips
from helpers.sink import make_sink, random_tile, read_all

TILE = random_tile('uint8', (100, 120, 3))


def test_an_empty_sink():
    sink = large_image_source_vips.new()
    assert (sink.sizeX, sink.sizeY) == (0, 0)
    assert sink.origin == {'x': 0, 'y': 0}
    assert sink.bandFormat is None
    assert sink.bandRanges is None
    assert sink.crop is None
    assert (sink.minWidth, sink.minHeight, sink.mm_x, sink.mm_y) == (None,) * 4
    metadata = json.loads(json.dumps(sink.getMetadata()))
    assert (metadata['sizeX'], metadata['sizeY'], metadata['bandCount']) == (0, 0, None)
    assert sink.getInternalMetadata() == {}
    assert sink.getAssociatedImagesList() == []
    with pytest.raises(TileSourceXYZRangeError):
        sink.getTile(0, 0, 0)


def test_an_empty_sink_cannot_be_written(tmp_path):
    with pytest.raises(TileSourceError, match='without tiles'):
        large_image_source_vips.new().write(tmp_path / 'a.tif')
    assert os.listdir(tmp_path) == []


def test_an_empty_sink_of_a_minimum_size():
    sink = large_image_source_vips.new()
    sink.minWidth, sink.minHeight = 600, 300
    assert (sink.sizeX, sink.sizeY, sink.levels) == (600, 300, 3)
    assert not sink.getTile(2, 1, 2, numpyAllowed='always').any()


def test_the_minimum_size_is_one(tmp_path):
    sink = make_sink(TILE)
    sink.minWidth = 700
    assert (sink.sizeX, sink.sizeY) == (700, 100)
    sink.minHeight = 20
    assert (sink.sizeX, sink.sizeY) == (700, 100)
    result = read_all(sink)
    assert np.array_equal(result[:, :120, :3], TILE)
    assert not result[:, 120:].any()
    sink.minWidth = None
    assert (sink.sizeX, sink.sizeY) == (120, 100)


@pytest.mark.parametrize('value', [0, -5, 1.5, 'a', float('nan')])
@pytest.mark.parametrize('name', ['minWidth', 'minHeight'])
def test_bad_minimum_sizes_are_refused(name, value):
    sink = make_sink(TILE)
    with pytest.raises(TileSourceError, match=name):
        setattr(sink, name, value)
    assert getattr(sink, name) is None


@pytest.mark.parametrize('value', [0, -1, 'x', float('nan'), float('inf')])
@pytest.mark.parametrize('name', ['mm_x', 'mm_y'])
def test_bad_pixel_sizes_are_refused(name, value):
    sink = make_sink(TILE)
    with pytest.raises(TileSourceError, match=name):
        setattr(sink, name, value)
    assert getattr(sink, name) is None


def test_the_pixel_size_gives_the_magnification():
    sink = make_sink(TILE)
    sink.mm_x = 0.0005
    assert sink.mm_y is None
    assert sink.getNativeMagnification() == {
        'magnification': 20, 'mm_x': 0.0005, 'mm_y': 0.0005}
    sink.mm_y = 0.00025
    assert sink.getNativeMagnification()['mm_y'] == 0.00025
    sink.mm_x = sink.mm_y = None
    assert sink.getNativeMagnification() == {'magnification': None, 'mm_x': None, 'mm_y': None}


@pytest.mark.parametrize('crop', [
    (1, 2, 3), (0, 0, 0, 5), (-1, 0, 5, 5), 'abcd', 7, (0, 0, 1.5, 2), (0, 0, 5, -5)])
def test_malformed_crops_are_refused(crop):
    sink = make_sink(TILE)
    with pytest.raises(TileSourceError, match='crop'):
        sink.crop = crop
    assert sink.crop is None


def test_the_state_follows_every_change():
    sink = large_image_source_vips.new()
    states = [sink.getState()]
    for change in (lambda: sink.addTile(TILE), lambda: sink.addTile(TILE, 10, 10),
                   lambda: setattr(sink, 'minWidth', 700), lambda: setattr(sink, 'mm_x', 0.001)):
        change()
        states.append(sink.getState())
    assert len(set(states)) == len(states)


def test_metadata_and_bands_follow_later_tiles():
    sink = make_sink(TILE[:, :, 0])
    assert sink.getMetadata()['bandCount'] == 2
    assert sink.getBandInformation()[1]['interpretation'] == 'gray'
    sink.addTile(TILE.astype(np.uint16), 500, 0)
    metadata = sink.getMetadata()
    assert (metadata['bandCount'], metadata['dtype'], metadata['sizeX']) == (4, 'uint16', 620)
    assert sink.getBandInformation()[4]['interpretation'] == 'alpha'
    assert sink.bandFormat == 'ushort'
    assert metadata['levels'] == 3


@pytest.mark.parametrize('dtype', ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32',
                                   'float32'])
def test_the_band_format_is_what_is_written(tmp_path, dtype):
    import pyvips

    sink = make_sink(random_tile(dtype, (9, 9, 3)))
    sink.write(tmp_path / 'a.v')
    assert pyvips.Image.vipsload(str(tmp_path / 'a.v')).format == sink.bandFormat


def test_band_ranges_count_the_tiles_that_have_a_band():
    sink = make_sink(np.full((5, 5, 3), 7, np.uint8) + np.arange(3, dtype=np.uint8))
    assert sink.bandRanges['min'].tolist() == [7, 8, 9]
    sink.addTile(np.full((5, 5, 4), 100, np.uint8))
    assert sink.bandRanges['min'].tolist() == [7, 8, 9, 100]
    assert sink.bandRanges['max'].tolist() == [100] * 4
    sink.addTile(np.full((5, 5), 3, np.uint8))
    assert sink.bandRanges['min'].tolist() == [3, 8, 9, 100]
    assert sink.bandRanges['max'].dtype == np.uint8


def test_band_ranges_keep_alpha_last_when_gray_becomes_colour():
    sink = make_sink(np.dstack([np.full((5, 5), 9), np.full((5, 5), 50)]).astype(np.uint8))
    sink.addTile(np.full((5, 5, 3), 1, np.uint8))
    assert sink.bandRanges['max'].tolist() == [9, 1, 1, 50]


def test_band_ranges_and_styles_do_not_disturb_each_other():
    sink = large_image_source_vips.new(style={'min': 'min', 'max': 'max'})
    sink.addTile(TILE)
    expected = sink.bandRanges
    sink.getTile(0, 0, 0, numpyAllowed='always')
    assert sink.bandRanges['min'].tolist() == expected['min'].tolist()
    sink.addTile(TILE // 2)
    assert sink.bandRanges['max'].tolist() == expected['max'].tolist()


def test_a_styled_sink_shows_what_was_added_to_it():
    sink = large_image_source_vips.new(
        style={'bands': [{'band': 1, 'palette': ['#000', '#f00'], 'min': 0, 'max': 255}]})
    sink.addTile(TILE)
    tile = sink.getTile(0, 0, 0, numpyAllowed='always')
    assert np.array_equal(np.rint(tile[:100, :120, 0]).astype(np.uint8), TILE[:, :, 0])
    assert not tile[:, :, 1].any()


def test_a_sink_of_large_image():
    sink = large_image_source_vips.new()
    assert isinstance(sink, large_image_source_vips.VipsFileTileSource)
    assert sink.newPriority == large_image.constants.SourcePriority.MEDIUM


def test_sinks_cannot_be_pickled():
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(make_sink(TILE))


@pytest.mark.parametrize('edit', [
    lambda source: source.addTile(TILE), lambda source: setattr(source, 'crop', None),
    lambda source: setattr(source, 'minWidth', 5), lambda source: setattr(source, 'mm_x', 1)],
    ids=['addTile', 'crop', 'minWidth', 'mm_x'])
def test_opened_sources_cannot_be_edited(tmp_path, edit):
    make_sink(TILE).write(tmp_path / 'a.tif', lossy=False)
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    with pytest.raises(TileSourceError, match='opened from a file'):
        edit(source)
    assert np.array_equal(read_all(source), TILE)


def descriptors():
    return len(os.listdir('/proc/self/fd'))


needs_proc = pytest.mark.skipif(
    not os.path.isdir('/proc/self/fd'), reason='counts descriptors by /proc')


@needs_proc
def test_discarded_sinks_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'spool'))
    (tmp_path / 'spool').mkdir()
    before = descriptors()
    for index in range(30):
        sink = make_sink(random_tile('uint8', (300, 300, 3), index), 37 * index, -5)
        sink.getTile(0, 0, 0)
        sink.crop = (1, 1, 200, 200)
        sink.write(tmp_path / 'a.tif', lossy=bool(index % 2))
        reference = weakref.ref(sink)
        del sink
        assert reference() is None
    gc.collect()
    assert descriptors() <= before + 2
    assert os.listdir(tmp_path / 'spool') == []


@needs_proc
def test_an_image_of_many_tiles_has_few_descriptors():
    before = descriptors()
    sink = large_image_source_vips.new()
    for index in range(500):
        sink.addTile(TILE[:32, :32], index % 25 * 32, index // 25 * 32)
    assert descriptors() <= before + 3
    assert sink.sizeX == 800


def test_the_spool_is_where_tempfile_says(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'nowhere'))
    with pytest.raises(TileSourceError, match='TMPDIR'):
        make_sink(TILE)


@pytest.mark.parametrize('averaged', [True, False])
def test_lower_levels_of_a_growing_image(averaged):
    """Against the reduction of the whole image, after each of many tiles."""
    dtype = 'uint8' if averaged else 'int32'
    rng = np.random.default_rng(0)
    sink = large_image_source_vips.new()
    for step in range(8):
        tile = random_tile(dtype, (int(rng.integers(100, 500)), int(rng.integers(100, 500))), step)
        sink.addTile(tile, int(rng.integers(-300, 900)), int(rng.integers(-300, 900)))
        whole = read_all(sink).astype(np.float64)
        for level in range(sink.levels - 2, -1, -1):
            whole = np.pad(whole, ((0, whole.shape[0] % 2), (0, whole.shape[1] % 2), (0, 0)),
                           mode='edge')
            if averaged:
                parts = [whole[dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)]
                alpha = sum(part[:, :, 1] for part in parts)
                color = sum(part[:, :, 0] * part[:, :, 1] for part in parts)
                whole = np.dstack([
                    np.where(alpha > 0, color / np.where(alpha > 0, alpha, 1), 0), alpha / 4])
            else:
                whole = whole[::2, ::2]
            rows, cols = whole.shape[:2]
            for y in range(-(-rows // 256)):
                for x in range(-(-cols // 256)):
                    tile = sink.getTile(x, y, level, numpyAllowed='always')
                    part = whole[y * 256:y * 256 + 256, x * 256:x * 256 + 256]
                    seen = tile[:part.shape[0], :part.shape[1]].astype(np.float64)
                    visible = part[:, :, 1] > 2
                    assert np.abs(seen[:, :, 1] - part[:, :, 1]).max() <= sink.levels
                    if averaged:
                        # Each level is rounded, also under a small alpha.
                        error = np.abs(seen - part)[:, :, 0][visible]
                        assert error.size == 0 or error.mean() < 1
                    else:
                        assert np.array_equal(seen, part)


def test_threads_that_add_make_the_same_image():
    whole = random_tile('uint8', (2000, 2300, 3))
    places = [(x, y) for y in range(0, 2000, 130) for x in range(0, 2300, 170)]
    sink = large_image_source_vips.new()
    failures = []

    def work(mine):
        try:
            for x, y in mine:
                sink.addTile(whole[y:y + 130, x:x + 170], x, y)
        except BaseException as exc:  # noqa: BLE001 - shown by the assertion below
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(places[k::4],)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert np.array_equal(read_all(sink)[:, :, :3], whole)


def test_tiles_read_while_others_add_are_old_or_new():
    old, new = (np.full((600, 700, 3), value, np.uint8) for value in (10, 200))
    sink = make_sink(old)
    stop, failures = threading.Event(), []

    def add():
        try:
            for step in range(60):
                sink.addTile((new, old)[step % 2][:300, :350], step * 7 % 350, step * 5 % 300)
                sink.addTile((new, old)[step % 2].astype((np.uint8, np.uint16)[step > 40]))
        except BaseException as exc:  # noqa: BLE001 - shown by the assertion below
            failures.append(exc)
        finally:
            stop.set()

    thread = threading.Thread(target=add)
    thread.start()
    while not stop.is_set():
        full = sink.getTile(1, 1, sink.levels - 1, numpyAllowed='always')
        assert set(np.unique(full[:, :, :3])) <= {10, 200}
        assert set(np.unique(full[:, :, 3])) <= {255, 65535}
        low = sink.getTile(0, 0, 0, numpyAllowed='always')
        assert low[:150, :175, :3].min() >= 10
        assert low[:150, :175, :3].max() <= 200
    thread.join()
    assert failures == []


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
def test_a_forked_process_leaves_the_image_alone():
    sink = make_sink(random_tile('uint8', (600, 700, 3)))
    before = read_all(sink)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(TileSourceError, match='another process'):
                sink.getTile(0, 0, 0, numpyAllowed='always')
            with pytest.raises(TileSourceError, match='another process'):
                sink.addTile(TILE, 10, 10)
            code = 0
        finally:
            del sink
            gc.collect()
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(read_all(sink), before)
    sink.addTile(TILE, 1000, 1000)
    assert sink.sizeX == 1120
