"""Aligned tiles with alpha, which a sink stores interleaved, behave like other tiles."""

import copy

import numpy as np
import pytest
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.sink import assert_same, make_sink, read_all, read_level
from helpers.sink_model import SinkModel
from large_image_source_vips.sink.spool import Spool

SIDE = 1024


def picture(bands=4, *, shades=False):
    """Noise with holes of all kinds: whole blocks, parts of blocks, single pixels."""
    numbers = np.random.default_rng(bands)
    pixels = numbers.integers(0, 256, (SIDE, SIDE, bands), np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    pixels[..., -1] = np.where((x - 500) ** 2 + (y - 400) ** 2 < 300 ** 2, 0, 255)
    pixels[700::97, 300::89, -1] = 0
    pixels[:300, :300, -1] = 255
    pixels[600:, 600:, -1] = 0
    if shades:
        pixels[260:500, 20:90, -1] = numbers.integers(1, 255, (240, 70))
    return pixels


def blocks(pixels):
    """The aligned tiles of an image, the last first: the image does not grow any more."""
    places = [(x, y) for y in range(0, SIDE, 256) for x in range(0, SIDE, 256)]
    return [(pixels[y:y + 256, x:x + 256], x, y) for x, y in reversed(places)]


def tiled(pixels):
    """A sink to which the tiles of an image were added, and its model."""
    sink, model = large_image_source_vips.new(), SinkModel()
    for tile, x, y in [(pixels[:1, :1], 0, 0), *blocks(pixels)]:
        sink.addTile(tile, x, y)
        model.add(tile, x, y)
    assert sink._store._layers.interleaved.slots
    return sink, model


@pytest.mark.parametrize('shades', [False, True])
@pytest.mark.parametrize('bands', [2, 4])
def test_tiles_are_read_as_they_were_added(bands, shades):
    pixels = picture(bands, shades=shades)
    sink, model = tiled(pixels)
    assert_same(read_all(sink), pixels)
    assert_same(read_all(sink), model.image())
    whole = make_sink(pixels)
    for level in range(sink.levels):
        assert_same(read_level(sink, level), read_level(whole, level))
    for key, values in sink.bandRanges.items():
        assert values.tolist() == whole.bandRanges[key].tolist()


@pytest.mark.parametrize('form', ['one tile', 'mask', 'mask and alpha', 'several frames'])
@pytest.mark.parametrize('bands', [2, 4])
def test_whole_blocks_of_any_tile_are_kept_so(tmp_path, form, bands):
    pixels = picture(bands, shades='alpha' in form)
    sink, model = large_image_source_vips.new(), SinkModel()
    # Not aligned: the first blocks are covered in part.
    tile = pixels[:SIDE - 100, :SIDE - 30]
    mask = None
    if form.startswith('mask'):
        mask = np.random.default_rng(2).random(tile.shape[:2]) > 0.3
        mask[300:600, 300:600] = True
        tile = tile if 'alpha' in form else tile[..., :-1]
    if form == 'several frames':
        sink.addTile(np.stack([tile, tile[::-1]]), 100, 30, axes='zyxs')
    else:
        sink.addTile(tile, 100, 30, mask=mask)
    model.add(tile, 100, 30, mask=mask)
    assert len(sink._store._layers.interleaved.slots) >= 4
    assert_same(read_all(sink, frame=0), model.image())
    sink.write(tmp_path / 'a.tif', frame=0, lossy=False)
    assert_same(read_all(large_image_source_vips.open(tmp_path / 'a.tif')), model.image())


CHANGES = {
    'a small opaque tile': lambda noise: (noise[:40, :50, :3], 300, 270, None),
    'a small tile with alpha': lambda noise: (noise[:90, :90], 230, 240, None),
    'an opaque block': lambda noise: (noise[:256, :256, :3], 256, 256, None),
    'a block with alpha': lambda noise: (noise[:256, :256], 256, 256, None),
    'a block of which a mask shows a part': lambda noise: (
        noise[:256, :256, :3], 256, 256, noise[:256, :256, 3] > 100),
    'four parts of blocks': lambda noise: (noise[:256, :256], 384, 384, None),
    'a tile that makes the image larger': lambda noise: (noise[:300, :300], -100, -30, None),
    'all blocks': lambda noise: (noise, 0, 0, None),
    '16 bits': lambda noise: (noise[:20, :20].astype(np.uint16) * 200, 500, 500, None),
}


@pytest.mark.parametrize('change', CHANGES)
def test_parts_can_change_later(change, tmp_path):
    sink, model = tiled(picture())
    noise = np.random.default_rng(9).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    before = copy.copy(model).image()
    tile, x, y, mask = CHANGES[change](noise)

    added = []

    def add_once(_fraction):
        if not added:
            added.append(sink.addTile(tile, x, y, mask=mask))

    # What is written meanwhile is the image before.
    sink.write(tmp_path / 'a.tif', lossy=False, progress=add_once)
    model.add(tile, x, y, mask=mask)
    assert_same(read_all(sink), model.image())
    assert_same(read_all(large_image_source_vips.open(tmp_path / 'a.tif')), before)
    assert not any(plane.pinned for plane in sink._store._layers._planes)


@pytest.mark.parametrize('bands', [2, 4])
@pytest.mark.parametrize(('shades', 'kwargs'), [
    (False, {}), (False, {'fill': 9}), (False, {'quality': 70}), (True, {}),
    (True, {'lossy': False}), (True, {'resample': 'mode', 'lossy': False}),
    (True, {'fill': 200, 'lossy': False}), (False, {'alpha': False, 'fill': 3})])
def test_a_file_does_not_depend_on_how_blocks_are_kept(tmp_path, bands, shades, kwargs):
    pixels = picture(bands, shades=shades)
    tiled(pixels)[0].write(tmp_path / 'a.tif', **kwargs)
    make_sink(pixels).write(tmp_path / 'b.tif', **kwargs)
    assert (tmp_path / 'a.tif').read_bytes() == (tmp_path / 'b.tif').read_bytes()


@pytest.mark.parametrize('crop', [
    (0, 0, 700, 700), (256, 256, 256, 256), (301, 257, 500, 400), (600, 600, 100, 100)])
def test_a_crop_of_such_blocks(tmp_path, crop):
    pixels = picture(shades=True)
    sink, whole = tiled(pixels)[0], make_sink(pixels)
    for name, image in (('a.tif', sink), ('b.tif', whole)):
        image.crop = crop
        image.write(tmp_path / name)
    assert (tmp_path / 'a.tif').read_bytes() == (tmp_path / 'b.tif').read_bytes()


def test_a_block_without_holes_is_opaque():
    pixels = picture()
    pixels[..., 3] = 255
    sink = large_image_source_vips.new()
    sink.addTile(np.zeros((1, 1, 4), np.uint8))
    for tile, x, y in blocks(pixels):
        sink.addTile(tile, x, y)
    layers = sink._store._layers
    assert not layers.interleaved.slots
    assert not layers.alpha.slots
    assert_same(read_all(sink), pixels[..., :3] if read_all(sink).shape[2] == 3 else pixels)


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('after', [0, 1])
def test_a_full_disk_leaves_the_image_as_it_was(monkeypatch, change, after):
    pixels = picture()
    sink, model = tiled(pixels)
    noise = np.random.default_rng(9).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    tile, x, y, mask = CHANGES[change](noise)
    real, calls = Spool.allocate, []

    def full(spool, nbytes):
        calls.append(nbytes)
        if len(calls) > after:
            msg = 'no space'
            raise TileSourceError(msg)
        return real(spool, nbytes)

    state, ranges = sink.getState(), sink.bandRanges['max'].tolist()
    with monkeypatch.context() as patched:
        patched.setattr(Spool, 'allocate', full)
        try:
            sink.addTile(tile, x, y, mask=mask)
        except TileSourceError:
            assert sink.getState() == state
            assert sink.bandRanges['max'].tolist() == ranges
        else:
            # It needed no more.
            model.add(tile, x, y, mask=mask)
    assert_same(read_all(sink), model.image())
    layers = sink._store._layers
    spool = layers.pool.spool
    used = spool._end - sum(size * len(places) for size, places in spool._free.items())
    assert used == sum(plane.block_bytes * len(plane.slots) for plane in layers._planes)


@pytest.mark.parametrize('bands', [2, 4])
def test_opaque_tiles_with_an_alpha_band_replace_holes(bands):
    pixels = picture(bands)
    sink, model = tiled(pixels)
    over = pixels.copy()
    over[..., :-1] = 255 - over[..., :-1]
    over[..., -1] = 255
    for tile, x, y in blocks(over)[::2]:
        sink.addTile(tile, x, y)
        model.add(tile, x, y)
    assert_same(read_all(sink), model.image())
