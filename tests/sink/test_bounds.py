"""Resources of a canvas: disk space, descriptors, blocks that are read."""

import contextlib
import dataclasses
import gc
import os
import struct
import subprocess
import sys
import textwrap

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import tifffile
from large_image.exceptions import TileSourceError, TileSourceXYZRangeError

import large_image_source_vips
from helpers.sink import make_sink, random_tile, read_all, read_file
from large_image_source_vips.base.limits import LIMITS
from large_image_source_vips.sink import blocks, spool
from large_image_source_vips.sink import levels as lower_levels

TILE = random_tile('uint8', (256, 256, 3))


def spool_of(sink):
    return sink._store._layers.pool.spool


def unaccounted(sink):
    """The bytes of the spool that are neither free nor those of a block."""
    used = spool_of(sink)._end - sum(
        size * len(places) for size, places in spool_of(sink)._free.items())
    layers = sink._store._layers
    return used - sum(plane.block_bytes * len(plane.slots) for plane in layers._planes)


# Space


@pytest.mark.parametrize('kwargs', [
    {'alpha': False}, {'alpha': False, 'lossy': False}, {'lossy': False}, {}])
def test_writing_again_and_again_takes_no_more_space(tmp_path, kwargs):
    sink = make_sink(TILE)
    sink.addTile(TILE, 1024, 1024)
    sizes = []
    for _ in range(4):
        sink.write(tmp_path / 'a.tif', **kwargs)
        sizes.append(spool_of(sink)._end)
    assert len(set(sizes)) == 1
    assert unaccounted(sink) == 0


def test_writing_a_growing_image_takes_no_space_besides_its_blocks(tmp_path):
    sink = make_sink(TILE)
    for number in range(1, 30):
        sink.addTile(TILE, 256 * number, 0)
        sink.write(tmp_path / 'a.tif', lossy=False)
    assert spool_of(sink)._end <= 31 * 256 * 256 * 3


def test_tiles_added_during_a_write_give_back_the_places_of_the_snapshot(tmp_path):
    sink = make_sink(random_tile('uint8', (1024, 1024, 3)))

    def progress(_fraction):
        sink.addTile(random_tile('uint8', (1024, 1024, 3), 1))
        sink.addTile(random_tile('uint8', (300, 300, 3), 2), 100, 100)

    for _ in range(5):
        sink.write(tmp_path / 'a.tif', progress=progress)
        assert unaccounted(sink) == 0
    assert not any(plane.pinned for plane in sink._store._layers._planes)


def descriptors():
    return len(os.listdir('/proc/self/fd'))


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='needs /proc')
@pytest.mark.parametrize('cancelled', [True, False])
@pytest.mark.parametrize('x', [0, -37])
@pytest.mark.parametrize(('bands', 'kwargs'), [
    (3, {}), (3, {'lossy': False}), (4, {}), (4, {'lossy': False}), (4, {'alpha': False})])
def test_writes_leave_no_descriptor(tmp_path, bands, kwargs, x, cancelled):
    """Though libvips keeps what it computed with in its cache of operations."""
    sink = make_sink(random_tile('uint8', (300, 300, bands)), x, 0)

    def progress(_fraction):
        if cancelled:
            raise InterruptedError

    counts = []
    for _ in range(12):
        with contextlib.suppress(InterruptedError):
            sink.write(tmp_path / 'a.tif', progress=progress, **kwargs)
        gc.collect()
        counts.append(descriptors())
    # Pipes and the like of libvips' threads come with the first write.
    assert counts[-1] <= counts[1] + 1
    assert os.listdir(tmp_path) == ([] if cancelled else ['a.tif'])


# Looking at what is sparse


@pytest.fixture
def halved(monkeypatch):
    """Counts the blocks of lower levels that are made."""
    counts = [0]
    real = lower_levels.halve

    def counting(*args):
        counts[0] += 1
        return real(*args)

    monkeypatch.setattr(lower_levels, 'halve', counting)
    return counts


@pytest.mark.parametrize('far', [400_000, 5_000_000])
def test_looking_at_tiles_far_apart_costs_what_they_cost(halved, far):
    sink = make_sink(TILE)
    sink.addTile(TILE, far, far)
    sink.getTile(0, 0, 0, numpyAllowed='always')
    assert halved[0] <= 3 * sink.levels
    known = sum(map(len, sink._store._lower[0]._known))
    assert known <= 3 * sink.levels
    sink.addTile(TILE, 0, 0)
    halved[0] = 0
    sink.getTile(0, 0, 0, numpyAllowed='always')
    assert halved[0] <= sink.levels


def test_lower_levels_of_tiles_far_apart_are_right():
    sink = make_sink(np.full((512, 512, 3), 90, np.uint8))
    sink.addTile(np.full((512, 512, 3), 30, np.uint8), 40_000, 20_000)
    tile = sink.getTile(0, 0, sink.levels - 8, numpyAllowed='always')
    assert tile[0, 0].tolist() == [90, 90, 90, 255]
    scale = 1 << 7
    assert not tile[20, 20].any()
    far = sink.getTile(
        40_000 // scale // 256, 20_000 // scale // 256, sink.levels - 8, numpyAllowed='always')
    assert far[20_000 // scale % 256 + 1, 40_000 // scale % 256 + 1].tolist() == [30, 30, 30, 255]


def test_a_blank_place_that_was_looked_at_shows_what_is_added_later():
    sink = make_sink(TILE)
    sink.addTile(TILE, 5000, 5000)
    before = sink.getTile(0, 0, 0, numpyAllowed='always')
    assert not before[100, 100].any()
    sink.addTile(np.full((1000, 1000, 3), 7, np.uint8), 1500, 1500)
    after = sink.getTile(0, 0, 0, numpyAllowed='always')
    place = 2000 >> (sink.levels - 1)
    assert after[place, place].tolist() == [7, 7, 7, 255]


# All or nothing


@pytest.mark.slow
@pytest.mark.parametrize('failing', range(1, 12))
@pytest.mark.parametrize('kind', ['small', 'large', 'masked'])
def test_a_disk_that_fails_midway_changes_nothing(monkeypatch, failing, kind):
    """Whichever access of the spool fails, the image is as it was."""
    monkeypatch.setattr(blocks, 'LIMITS', dataclasses.replace(LIMITS, sink_pool=1 << 18))
    sink = large_image_source_vips.new()
    sink.addTile(random_tile('uint8', (1500, 1500, 4), 1))
    before, ranges, state = read_all(sink, sparseFallback=True), sink.bandRanges, sink.getState()
    size = 300 if kind == 'small' else 2500
    mask = random_tile('bool', (size, size)) if kind == 'masked' else None
    tile = random_tile('uint8', (size, size, 3), 2)
    left, reals = [failing], {}
    for name in ('write', 'read', 'allocate'):
        reals[name] = getattr(spool.Spool, name)

        def fail(self, *args, name=name):
            left[0] -= 1
            if left[0] == 0:
                msg = 'The disk has failed.'
                raise TileSourceError(msg)
            return reals[name](self, *args)

        monkeypatch.setattr(spool.Spool, name, fail)
    try:
        sink.addTile(tile, 123, 57, mask=mask)
    except TileSourceError:
        for name, real in reals.items():
            monkeypatch.setattr(spool.Spool, name, real)
        assert sink.getState() == state
        assert np.array_equal(sink.bandRanges['max'], ranges['max'])
        assert np.array_equal(read_all(sink, sparseFallback=False), before)
        sink.addTile(tile, 123, 57, mask=mask)
    else:
        for name, real in reals.items():
            monkeypatch.setattr(spool.Spool, name, real)
    rows = np.s_[57:57 + size]
    cols = np.s_[123:123 + size]
    whole = read_all(sink)[rows, cols]
    shown = np.ones((size, size), bool) if mask is None else mask
    assert np.array_equal(whole[shown][:, :3], tile[shown])


@pytest.mark.parametrize('name', ['a.tif', 'a.png'])
@pytest.mark.parametrize('lossy', [True, False])
def test_a_spool_that_cannot_be_read_fails_the_write(tmp_path, name, lossy):
    (tmp_path / name).write_bytes(b'old')
    sink = make_sink(np.full((2048, 2048, 3), 200, np.uint8))

    def damage(_fraction):
        os.ftruncate(spool_of(sink)._file.descriptor, spool_of(sink)._end // 2)

    with pytest.raises(TileSourceError, match=r'spool file .* cannot be read'):
        sink.write(tmp_path / name, lossy=lossy, progress=damage)
    assert (tmp_path / name).read_bytes() == b'old'
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize('megabytes', [13, 15, 17, 19, 22])
@pytest.mark.parametrize('lossy', [False, True])
def test_an_output_that_cannot_grow_is_an_error_on_every_libvips(tmp_path, megabytes, lossy):
    """Noise compresses to more than the spool takes, so only the output hits the limit."""
    script = textwrap.dedent("""
        import resource, sys
        import numpy as np
        import large_image_source_vips
        from large_image.exceptions import TileSourceError
        sink = large_image_source_vips.new()
        sink.addTile(np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), np.uint8))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]) << 20,) * 2)
        try:
            sink.write(sys.argv[1], lossy=sys.argv[3] == 'True')
            print('written')
        except TileSourceError as exc:
            print('refused:', exc)
    """)
    pytest.importorskip('resource')
    (tmp_path / 'a.tif').write_bytes(b'old')
    result = subprocess.run(
        [sys.executable, '-c', script, str(tmp_path / 'a.tif'), str(megabytes), str(lossy)],
        capture_output=True, text=True, check=False)
    assert result.returncode == 0, (result.returncode, result.stderr)
    assert os.listdir(tmp_path) == ['a.tif']
    if result.stdout.startswith('refused:'):
        assert (tmp_path / 'a.tif').read_bytes() == b'old'
    else:
        assert result.stdout == 'written\n'
        assert read_file(tmp_path / 'a.tif').shape == (2048, 2048, 3)


# What is asked for and cannot be


@pytest.mark.parametrize('frame', [1, 7, -1])
def test_a_frame_that_a_sink_does_not_have_is_an_error(tmp_path, frame):
    sink = make_sink(TILE)
    with pytest.raises(TileSourceError, match=f'no frame {frame}'):
        sink.write(tmp_path / 'a.tif', frame=frame)
    with pytest.raises(TileSourceXYZRangeError):
        sink.getTile(0, 0, 0, frame=7)
    assert os.listdir(tmp_path) == []


def test_frame_0_of_a_sink_is_the_image(tmp_path):
    make_sink(TILE).write(tmp_path / 'a.tif', frame=0, lossy=False)
    assert np.array_equal(read_file(tmp_path / 'a.tif'), TILE)


@pytest.mark.parametrize('name', ['minWidth', 'minHeight'])
def test_a_minimum_beyond_the_largest_image_is_refused(name):
    sink = make_sink(TILE)
    with pytest.raises(TileSourceError, match=r'20000000.*the maximum is 10000000'):
        setattr(sink, name, 20_000_000)
    assert getattr(sink, name) is None
    assert (sink.sizeX, sink.sizeY) == (256, 256)
    sink.addTile(TILE, 1, 1)


# The point 0, 0


@pytest.mark.parametrize(('x', 'y', 'size'), [
    (-10, -5, (10, 5)), (-10, 3, (10, 7)), (3, -5, (7, 5)), (-4, -4, (4, 4)), (-2, -2, (4, 4))])
def test_the_image_holds_the_point_0_0(tmp_path, x, y, size):
    tile = random_tile('uint8', (4, 4, 3))
    sink = make_sink(tile, x, y)
    assert (sink.sizeX, sink.sizeY) == size
    assert sink.origin == {'x': min(0, x), 'y': min(0, y)}
    left, top = max(x, 0), max(y, 0)
    expected = np.zeros((size[1], size[0], 4), np.uint8)
    expected[top:top + 4, left:left + 4] = np.dstack([tile, np.full((4, 4), 255)])
    assert np.array_equal(read_all(sink), expected)
    sink.write(tmp_path / 'a.tif', lossy=False)
    written = read_file(tmp_path / 'a.tif')
    assert np.array_equal(written, expected[:, :, :written.shape[2]])


# The profile of a file


def gray_profile():
    """The least that is an ICC profile of gray: white point, and a gamma of 2.2."""
    tags = {
        b'desc': b'desc' + bytes(4) + struct.pack('>I', 5) + b'gray\0' + bytes(78),
        b'wtpt': b'XYZ ' + bytes(4) + struct.pack('>iii', 63190, 65536, 54061),
        b'kTRC': b'curv' + bytes(4) + struct.pack('>IHxx', 1, 563)}
    table, data = b'', b''
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name + struct.pack('>II', 132 + 36 + len(data), len(value))
        data += value
    body = struct.pack('>I', len(tags)) + table + data
    head = struct.pack('>I4sI4s4s4s12x4s', 128 + len(body), b'lcms', 0x02400000, b'mntr', b'GRAY',
                       b'XYZ ', b'acsp')
    head = head.ljust(68, b'\0') + struct.pack('>iii', 63190, 65536, 54061)
    return head.ljust(128, b'\0') + body


@pytest.mark.parametrize('kwargs', [{}, {'lossy': False}, {'alpha': False}])
@pytest.mark.parametrize('mode', ['L', 'LA', 'RGB', 'RGBA'])
@pytest.mark.parametrize('suffix', ['.tif', '.png'])
def test_a_conversion_keeps_the_icc_profile(tmp_path, mode, kwargs, suffix):
    profile = gray_profile() if 'L' in mode else PIL.ImageCms.ImageCmsProfile(
        PIL.ImageCms.createProfile('sRGB')).tobytes()
    pixels = random_tile('uint8', (600, 600, len(mode)))
    image = pixels.squeeze()
    extra = {} if len(mode) % 2 else {'extrasamples': ['unassalpha']}
    tifffile.imwrite(tmp_path / 'in.tif', image, iccprofile=profile, tile=(256, 256), **extra,
                     photometric='rgb' if len(mode) > 2 else 'minisblack')
    source = large_image_source_vips.open(str(tmp_path / 'in.tif'))
    source.write(tmp_path / f'out{suffix}', **kwargs)
    if suffix == '.tif':
        with tifffile.TiffFile(tmp_path / 'out.tif') as file:
            assert file.pages[0].tags[34675].value == profile
    else:
        assert PIL.Image.open(tmp_path / 'out.png').info['icc_profile'] == profile


@pytest.mark.parametrize('bands', [3, 4])
@pytest.mark.parametrize('mask', [False, True])
def test_no_block_stays_in_use_after_a_tile(bands, mask):
    sink = make_sink(random_tile('uint8', (900, 900, bands)))
    for x, y in ((0, 0), (200, 300), (500, 500), (-50, 700)):
        sink.addTile(random_tile('uint8', (150, 150, bands), 1), x, y,
                     mask=np.eye(150, dtype=bool) if mask else None)
    held = sink._store._layers.pool.held
    assert held
    assert {key for key, block in held.items() if block.pins} == set()
