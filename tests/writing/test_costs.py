"""Resources of a write: memory, descriptors, disk, threads."""

import gc
import os
import pathlib
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import tifffile
from large_image.exceptions import TileSourceError

import large_image_source_vips
from helpers.pictures import one_frame
from helpers.sink import make_sink, random_tile
from large_image_source_vips.base.formats import RGB
from large_image_source_vips.base.geometry import Rect, Size
from large_image_source_vips.store import Picture
from large_image_source_vips.writing import pyramid
from large_image_source_vips.writing.choices import Choices
from large_image_source_vips.writing.write import write_image

KINDS = [{}, {'lossy': False}, {'compression': 'zstd'}, {'alpha': False},
         {'resample': 'lanczos', 'lossy': False}]
needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='needs /proc')


class Computed:
    """A picture of any size whose pixels are computed when they are read."""

    def __init__(self, width, height):
        self.reading, self.most = 0, 0
        self.threads = set()
        self._lock = threading.Lock()
        self.picture = Picture(
            Size(width, height), np.dtype(np.uint8), RGB, True, (None, None), None, self._read,
            lambda: iter([Rect(0, 0, width, height)]), lambda: 'none')

    def _read(self, rect):
        with self._lock:
            self.threads.add(threading.get_ident())
        return np.full((rect.height, rect.width, 3), (rect.left + rect.top) % 251, np.uint8), None

    def write(self, path, **kwargs):
        write_image(one_frame(self.picture), path, Choices(**kwargs))


@pytest.mark.skipif(sys.platform != 'linux', reason='reads the peak from /proc')
@pytest.mark.parametrize('lossy', [True, False])
def test_memory_does_not_grow_with_the_picture(tmp_path, lossy):
    """12,288 x 12,288 pixels are 450 MB."""
    script = textwrap.dedent("""
        import resource, sys
        sys.path.insert(0, sys.argv[1])
        import test_costs
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        lossy = sys.argv[3] == 'True'
        test_costs.Computed(1000, 1000).write(sys.argv[2], lossy=lossy)
        before = peak()
        test_costs.Computed(12288, 12288).write(sys.argv[2], lossy=lossy)
        print(peak() - before)
    """)
    folder = pathlib.Path(__file__).parent
    result = subprocess.run(
        [sys.executable, '-c', script, str(folder), str(tmp_path / 'a.tif'), str(lossy)],
        capture_output=True, text=True, check=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(
            [str(folder.parent), str(folder.parents[1]), os.environ.get('PYTHONPATH', '')])})
    assert float(result.stdout) < 40


def test_tiles_are_compressed_by_several_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(pyramid, 'THREADS', 3)
    computed = Computed(8000, 8000)
    computed.write(tmp_path / 'a.tif')
    assert 1 < len(computed.threads) <= 3
    assert threading.get_ident() not in computed.threads


@pytest.mark.parametrize('threads', [1, 2, 5])
@pytest.mark.parametrize('kwargs', KINDS)
@pytest.mark.parametrize('bands', [3, 4])
def test_the_number_of_threads_does_not_change_the_file(
        tmp_path, monkeypatch, threads, kwargs, bands):
    tile = random_tile('uint8', (2000, 1300, bands))
    if bands == 4:
        tile[..., 3] = np.where(tile[..., 3] > 60, 255, 0)
    sink = make_sink(tile)
    sink.addTile(random_tile('uint8', (700, 700, 3), 1), 2000, 1500)
    sink.write(tmp_path / 'a.tif', **kwargs)
    monkeypatch.setattr(pyramid, 'THREADS', threads)
    sink.write(tmp_path / 'b.tif', **kwargs)
    with tifffile.TiffFile(tmp_path / 'a.tif') as a, tifffile.TiffFile(tmp_path / 'b.tif') as b:
        for first, second in zip(a.pages, b.pages, strict=True):
            np.testing.assert_array_equal(first.asarray(), second.asarray())


@needs_proc
@pytest.mark.parametrize('name', ['a.tif', 'a.png', 'a.v'])
def test_few_files_are_open_during_a_write_and_none_after(tmp_path, name):
    sink = make_sink(random_tile('uint8', (3000, 3000, 3)))
    sink.write(tmp_path / name)
    gc.collect()
    before, most = len(os.listdir('/proc/self/fd')), 0

    def look(_fraction):
        nonlocal most
        most = max(most, len(os.listdir('/proc/self/fd')))

    sink.write(tmp_path / name, progress=look)
    gc.collect()
    assert most - before <= 6
    assert len(os.listdir('/proc/self/fd')) <= before + 1


@pytest.mark.parametrize('name', ['a.tif', 'a.png', 'a.dzi'])
@pytest.mark.parametrize('at', [0.0, 0.2, 0.5, 0.95, 1.0])
def test_a_cancelled_write_leaves_nothing(tmp_path, name, at):
    sink = make_sink(random_tile('uint8', (3000, 3000, 3)))

    def cancel(fraction):
        if fraction >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sink.write(tmp_path / name, progress=cancel)
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate()
                if thread.name.startswith('large_image_vips_write')]


@pytest.mark.parametrize('kwargs', KINDS)
def test_an_error_in_a_thread_ends_the_write_and_is_told(tmp_path, monkeypatch, kwargs):
    sink = make_sink(random_tile('uint8', (3000, 3000, 3)))
    (tmp_path / 'a.tif').write_bytes(b'old')
    real, calls = pyramid.tile_encoder, []

    def failing(*args, **options):
        encode = real(*args, **options)

        def encode_some(tile):
            calls.append(1)
            if len(calls) > 70:
                msg = 'no more'
                raise RuntimeError(msg)
            return encode(tile)
        return encode_some

    monkeypatch.setattr(pyramid, 'tile_encoder', failing)
    with pytest.raises(TileSourceError, match=r'the tile in column \d+, row \d+.*no more'):
        sink.write(tmp_path / 'a.tif', **kwargs)
    assert (tmp_path / 'a.tif').read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['a.tif']


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    done = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'none', str(folder)], capture_output=True,
        check=False) if os.name == 'posix' else None
    if done is None or done.returncode:
        pytest.skip('no file system can be mounted here')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


@pytest.mark.parametrize('name', ['a.tif', 'a.png', 'a.dzi'])
@pytest.mark.parametrize('lossy', [True, False])
def test_a_full_disk_gives_back_all_bytes(small_disk, name, lossy):
    if name == 'a.dzi' and not lossy:
        name = 'a.v'
    (small_disk / name).write_bytes(b'old')
    free = os.statvfs(small_disk).f_bavail
    sink = make_sink(random_tile('uint8', (2500, 2500, 3)))
    with pytest.raises(TileSourceError, match=r'a\.\w+ cannot be written'):
        sink.write(small_disk / name, lossy=lossy)
    assert os.listdir(small_disk) == [name]
    assert (small_disk / name).read_bytes() == b'old'
    assert os.statvfs(small_disk).f_bavail == free


def test_a_disk_without_room_for_the_temporary_file_is_told_in_bytes(small_disk):
    sink = make_sink(np.zeros((3000, 3000, 3), np.uint8))
    # 12 x 12 tiles of 256 x 256 x 3 bytes.
    with pytest.raises(TileSourceError, match=r'temporary file of 28,311,552 bytes.*bytes free'):
        sink.write(small_disk / 'a.png')
    assert os.listdir(small_disk) == []


@pytest.mark.parametrize('kwargs', [{}, {'lossy': False}, {'alpha': False}])
def test_the_cost_follows_what_is_there_not_the_area(tmp_path, monkeypatch, kwargs):
    encoded = []
    real = pyramid.tile_encoder

    def counting(*args, **options):
        encode = real(*args, **options)
        return lambda tile: (encoded.append(1), encode(tile))[1]

    monkeypatch.setattr(pyramid, 'tile_encoder', counting)
    sink = make_sink(random_tile('uint8', (256, 256, 3)))
    sink.addTile(random_tile('uint8', (256, 256, 3), 1), 51_200, 51_200)
    sink.write(tmp_path / 'a.tif', **kwargs)
    # Two tiles at each of 9 levels, and a blank one for each.
    assert len(encoded) <= 27
    with tifffile.TiffFile(tmp_path / 'a.tif') as file:
        assert file.pages[0].shape[:2] == (51_456, 51_456)
    source = large_image_source_vips.open(tmp_path / 'a.tif')
    tile = source.getTile(200, 200, source.levels - 1, numpyAllowed='always')
    error = np.abs(tile[:, :, :3].astype(int) - random_tile('uint8', (256, 256, 3), 1))
    # Noise is what JPEG is worst at.
    assert error.mean() < (5 if kwargs.get('lossy', True) else 1e-9)
