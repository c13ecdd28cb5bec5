"""Positioned reads and writes, reserved space and temporary files, on every system."""

import errno
import gc
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from helpers.around import in_a_forked_child, in_threads
from large_image_source_vips.base import files


@pytest.fixture(params=['as here', 'without positions'])
def ways(request, monkeypatch):
    """The module as it is here, and as on a system without positioned reads and writes."""
    if request.param != 'as here':
        monkeypatch.setattr(files, '_HAS_PREADV', False)
        monkeypatch.setattr(files, '_HAS_FALLOCATE', False)
        monkeypatch.setattr(files, 'HAS_PREAD', False)
        monkeypatch.setattr(files, '_HAS_PWRITE', False)
    return request.param


@pytest.fixture
def opened(tmp_path):
    """A descriptor of a file of 1,000 bytes, to read and write."""
    (tmp_path / 'a').write_bytes(bytes(range(250)) * 4)
    descriptor = os.open(tmp_path / 'a', os.O_RDWR | getattr(os, 'O_BINARY', 0))
    yield descriptor
    os.close(descriptor)


def test_reads_from_a_position_end_with_the_file(ways, opened):
    whole = bytes(range(250)) * 4
    assert files.read_at(opened, 10, 245) == whole[245:255]
    assert files.read_at(opened, 1000, 0) == whole
    assert files.read_at(opened, 100, 990) == whole[990:]
    assert files.read_at(opened, 100, 5000) == b''
    assert files.read_at(opened, 0, 0) == b''


@pytest.mark.parametrize('dtype', ['uint8', '<u2', '<f4'])
def test_reads_into_memory_fill_it_as_far_as_the_file_goes(ways, opened, dtype):
    array = np.zeros((5, 10), dtype)
    assert files.read_into(opened, array, 13) == array.nbytes
    assert array.tobytes() == (bytes(range(250)) * 4)[13:13 + array.nbytes]
    buffer = bytearray(b'x' * 20)
    assert files.read_into(opened, buffer, 995) == 5
    assert buffer == bytes(range(245, 250)) + b'x' * 15
    assert files.read_into(opened, np.zeros((0, 3), dtype), 0) == 0


@pytest.mark.parametrize('what', [
    b'abc', bytearray(b'abc'), np.frombuffer(b'abc', np.uint8), memoryview(b'abc'),
    np.array([[1, 2], [3, 4]], '<u2'), np.zeros((0, 4), '<f4')],
    ids=lambda what: type(what).__name__)
def test_writes_at_a_position_leave_the_rest(ways, opened, what):
    data = what.tobytes() if hasattr(what, 'tobytes') else bytes(what)
    files.write_at(opened, what, 500)
    expected = bytearray(bytes(range(250)) * 4)
    expected[500:500 + len(data)] = data
    assert files.read_at(opened, 2000, 0) == expected
    files.write_at(opened, b'end', 1200)
    assert files.read_at(opened, 2000, 1000) == bytes(200) + b'end'


def test_what_is_read_and_written_in_pieces_is_whole(ways, opened, monkeypatch):
    monkeypatch.setattr(files, '_MAX_REQUEST', 7)
    monkeypatch.setattr(files, '_COPY_SIZE', 3)
    data = np.random.default_rng(0).integers(0, 256, 400, dtype=np.uint8)
    files.write_at(opened, data, 50)
    assert files.read_at(opened, 400, 50) == data.tobytes()
    again = np.zeros(400, np.uint8)
    assert files.read_into(opened, again, 50) == 400
    assert np.array_equal(again, data)
    assert len(files.read_at(opened, 5000, 0)) == 1000
    assert files.read_into(opened, np.zeros(5000, np.uint8), 0) == 1000


def test_a_system_that_moves_less_than_asked_is_asked_again(opened, monkeypatch):
    read, write = os.read, os.write
    for name in ('HAS_PREAD', '_HAS_PREADV', '_HAS_PWRITE'):
        monkeypatch.setattr(files, name, False)
    monkeypatch.setattr(os, 'read', lambda fd, size: read(fd, min(size, 100)))
    monkeypatch.setattr(os, 'write', lambda fd, data: write(fd, data[:100]))
    files.write_at(opened, b'\1' * 950, 10)
    assert files.read_at(opened, 1000, 0) == bytes(range(10)) + b'\1' * 950 + bytes(range(210, 250))
    buffer = bytearray(950)
    assert files.read_into(opened, buffer, 10) == 950
    assert buffer == b'\1' * 950


def test_threads_read_and_write_one_descriptor(ways, opened):
    files.reserve(opened, 0, 64 * 4096)
    wrong = []

    def work(share):
        for turn in range(40):
            value = bytes([(share * 40 + turn) % 256]) * 4096
            files.write_at(opened, value, share * 4096)
            if files.read_at(opened, 4096, share * 4096) != value:
                wrong.append((share, turn))

    in_threads(work, range(8))
    assert wrong == []


def test_errors_of_the_system_are_raised(ways, tmp_path):
    (tmp_path / 'a').write_bytes(b'abc')
    descriptor = os.open(tmp_path / 'a', os.O_RDONLY)
    try:
        with pytest.raises(OSError, match='Bad file descriptor'):
            files.write_at(descriptor, b'x', 0)
    finally:
        os.close(descriptor)
    with pytest.raises(OSError, match='Bad file descriptor'):
        files.read_at(descriptor, 1, 0)


# Space


def test_reserving_makes_a_file_longer_and_never_shorter(ways, opened):
    files.reserve(opened, 1000, 9000)
    assert os.fstat(opened).st_size == 10000
    files.reserve(opened, 0, 500)
    files.reserve(opened, 5000, 0)
    assert os.fstat(opened).st_size == 10000
    assert files.read_at(opened, 10000, 0) == bytes(range(250)) * 4 + bytes(9000)


@pytest.mark.parametrize('number', [errno.EOPNOTSUPP, errno.EINVAL])
def test_file_systems_that_cannot_reserve_get_a_longer_file(opened, monkeypatch, number):
    def refuse(*_args):
        raise OSError(number, 'no')

    monkeypatch.setattr(os, 'posix_fallocate', refuse, raising=False)
    monkeypatch.setattr(files, '_HAS_FALLOCATE', True)
    files.reserve(opened, 1000, 24)
    assert os.fstat(opened).st_size == 1024


def test_a_full_disk_is_said_when_space_is_reserved(opened, monkeypatch):
    def refuse(*_args):
        raise OSError(errno.ENOSPC, 'full')

    monkeypatch.setattr(os, 'posix_fallocate', refuse, raising=False)
    monkeypatch.setattr(files, '_HAS_FALLOCATE', True)
    with pytest.raises(OSError, match='full'):
        files.reserve(opened, 1000, 24)
    assert os.fstat(opened).st_size == 1000


# Temporary files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary files are made."""
    monkeypatch.setattr(files.tempfile, 'tempdir', str(tmp_path))
    return tmp_path


@pytest.fixture(params=['as here', 'by its name'])
def named(request, monkeypatch):
    """Whether a scratch file keeps its name until it is closed."""
    if request.param != 'as here':
        monkeypatch.setattr(files, '_opens_without_name', lambda *_args: False)
    return request.param == 'by its name' or not files._opens_without_name('/tmp', files._user())


class OpenFiles:
    """A system that does not let go of the names of some files, as Windows does."""

    def __init__(self, monkeypatch):
        self.names = set()
        self._unlink = os.unlink
        monkeypatch.setattr(os, 'unlink', self)

    def __call__(self, path, **kwargs):
        if path in self.names:
            raise PermissionError(errno.EACCES, 'it is being used', path)
        self._unlink(path, **kwargs)


def test_a_scratch_file_can_be_opened_again_and_leaves_nothing(folder, named):
    scratch = files.scratch_file('abc_', '.tif')
    files.write_at(scratch.descriptor, b'pixels', 0)
    with open(scratch.path, 'rb') as again:
        assert again.read() == b'pixels'
    assert [name.startswith('abc_') and name.endswith('.tif')
            for name in os.listdir(folder)] == [True] * named
    scratch.close()
    scratch.close()
    assert os.listdir(folder) == []
    with pytest.raises(OSError, match='Bad file descriptor'):
        os.fstat(scratch.descriptor)


def test_a_closed_scratch_file_gives_its_space_back_though_it_is_open_elsewhere(folder, named):
    scratch = files.scratch_file('abc_', '.tif')
    files.write_at(scratch.descriptor, bytes(100_000), 0)
    with open(scratch.path, 'rb') as again:
        scratch.close()
        assert os.fstat(again.fileno()).st_size == 0


def test_a_scratch_file_that_is_collected_leaves_nothing(folder, named):
    scratch = files.scratch_file('abc_', '.tif')
    descriptor = scratch.descriptor
    del scratch
    gc.collect()
    assert os.listdir(folder) == []
    with pytest.raises(OSError, match='Bad file descriptor'):
        os.fstat(descriptor)


def test_a_name_that_is_in_use_goes_when_the_next_scratch_file_is_closed(folder, monkeypatch):
    monkeypatch.setattr(files, '_opens_without_name', lambda *_args: False)
    system = OpenFiles(monkeypatch)
    first, second, third = (files.scratch_file(f'{name}_', '') for name in 'abc')
    system.names.add(first.name)
    first.close()
    second.close()
    assert {name[0] for name in os.listdir(folder)} == {'a', 'c'}
    system.names.clear()
    third.close()
    assert os.listdir(folder) == []


def test_a_name_that_is_in_use_goes_at_the_end_of_the_process(tmp_path):
    result = subprocess.run([sys.executable, '-c', textwrap.dedent("""
        import errno, os
        from large_image_source_vips.base import files
        files._opens_without_name = lambda *_args: False
        unlink, held = os.unlink, set()
        def refuse(path, **kwargs):
            if path in held:
                held.discard(path)
                raise PermissionError(errno.EACCES, 'it is being used', path)
            unlink(path, **kwargs)
        os.unlink = refuse
        first, second = files.scratch_file('a_', ''), files.scratch_file('b_', '')
        held.add(first.name)
        first.close()
        print(sorted(name[0] for name in os.listdir(os.environ['TMPDIR'])))
    """)], env=dict(os.environ, TMPDIR=str(tmp_path)), capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['a', 'b']"
    assert os.listdir(tmp_path) == []


def test_a_forked_child_leaves_the_file_of_its_parent(folder, named):
    scratch = files.scratch_file('abc_', '.tif')
    files.write_at(scratch.descriptor, b'pixels', 0)

    def close():
        scratch.close()
        return not os.path.exists(f'/proc/self/fd/{scratch.descriptor}')

    assert in_a_forked_child(close)
    assert files.read_at(scratch.descriptor, 10, 0) == b'pixels'
    with open(scratch.path, 'rb') as again:
        assert again.read() == b'pixels'
    scratch.close()
    assert os.listdir(folder) == []


def test_a_forked_child_keeps_the_names_that_its_parent_could_not_remove(folder, monkeypatch):
    monkeypatch.setattr(files, '_opens_without_name', lambda *_args: False)
    system = OpenFiles(monkeypatch)
    first, second = files.scratch_file('a_', ''), files.scratch_file('b_', '')
    system.names.add(first.name)
    first.close()

    def close():
        system.names.clear()
        files.scratch_file('c_', '').close()
        return sorted(name[0] for name in os.listdir(folder))

    assert in_a_forked_child(close) == ['a', 'b']
    system.names.clear()
    second.close()
    assert os.listdir(folder) == []


def test_no_scratch_file_is_left_where_it_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, 'tempdir', str(tmp_path / 'nowhere'))
    with pytest.raises(OSError, match='nowhere'):
        files.scratch_file('a_', '')
