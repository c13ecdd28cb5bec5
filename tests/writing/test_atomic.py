"""Overwriting: permissions are kept, and the old file remains until the new one is complete."""

import errno
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import textwrap

import numpy as np
import pytest
import pyvips
import tifffile
from large_image.exceptions import TileSourceError

from helpers.sink import make_sink, read_file
from large_image_source_vips.writing import atomic, in_place, permissions

NOBODY = 65534
IS_ROOT = hasattr(os, 'geteuid') and os.geteuid() == 0
only_root = pytest.mark.skipif(not IS_ROOT, reason='only root may give files away')
only_posix = pytest.mark.skipif(os.name != 'posix', reason='this system has no such modes')


def gray(value=7, side=300):
    return np.full((side, side + 50), value, np.uint8)


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def value_of(path):
    return read_file(path)[0, 0, 0]


@pytest.fixture(params=[0o022, 0o077], ids=['umask 022', 'umask 077'])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


# Modes


@only_posix
@pytest.mark.parametrize('suffix', ['.tif', '.jpg', '.png', '.v', '.webp'])
@pytest.mark.parametrize('mode', [0o600, 0o640, 0o664, 0o777, 0o202])
def test_a_file_that_is_overwritten_keeps_its_mode(tmp_path, umask, suffix, mode):
    if not pyvips.vips_lib.vips_foreign_find_save(f'x{suffix}'.encode()):
        pytest.skip(f'this libvips writes no {suffix}')
    path = tmp_path / f'a{suffix}'
    path.write_bytes(b'old')
    path.chmod(mode)
    make_sink(np.dstack([gray()] * 3)).write(path)
    assert mode_of(path) == mode
    assert path.stat().st_size > 100


@only_posix
@pytest.mark.parametrize('suffix', ['.tif', '.jpg', '.v', '.dzi'])
def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path, umask, suffix):
    make_sink(gray()).write(tmp_path / f'a{suffix}')
    for folder, folders, names in os.walk(tmp_path):
        for name in names:
            assert mode_of(os.path.join(folder, name)) == 0o666 & ~umask
        for name in folders:
            assert mode_of(os.path.join(folder, name)) == 0o777 & ~umask


@only_posix
def test_a_private_file_is_at_no_moment_open_to_others(tmp_path, monkeypatch):
    path = tmp_path / 'a.tif'
    path.write_bytes(b'old')
    path.chmod(0o600)
    seen = []
    replace = os.replace

    def look(_fraction=None):
        seen.extend(mode_of(tmp_path / name) for name in os.listdir(tmp_path))

    def spy(source, target):
        seen.append(mode_of(source))
        replace(source, target)

    monkeypatch.setattr(os, 'replace', spy)
    make_sink(gray()).write(path, progress=look)
    assert len(seen) > 3
    assert not any(mode & 0o077 for mode in seen)


@only_posix
def test_a_link_stays_and_what_it_points_to_keeps_its_mode(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'real' / 'b.tif').write_bytes(b'old')
    (tmp_path / 'real' / 'b.tif').chmod(0o640)
    (tmp_path / 'link.tif').symlink_to('real/b.tif')
    make_sink(gray()).write(tmp_path / 'link.tif')
    assert os.readlink(tmp_path / 'link.tif') == 'real/b.tif'
    assert mode_of(tmp_path / 'real' / 'b.tif') == 0o640
    assert value_of(tmp_path / 'real' / 'b.tif') == 7
    assert os.listdir(tmp_path / 'real') == ['b.tif']


@only_posix
def test_bits_that_give_more_than_access_do_not_stay(tmp_path):
    path = tmp_path / 'a.tif'
    path.write_bytes(b'old')
    path.chmod(0o6755)
    make_sink(gray()).write(path)
    assert mode_of(path) == 0o755


def test_other_names_of_a_file_keep_what_it_was(tmp_path):
    (tmp_path / 'a.tif').write_bytes(b'old')
    os.link(tmp_path / 'a.tif', tmp_path / 'b.tif')
    make_sink(gray()).write(tmp_path / 'a.tif')
    assert (tmp_path / 'b.tif').read_bytes() == b'old'
    assert value_of(tmp_path / 'a.tif') == 7


# Owners and lists


@only_root
@pytest.mark.parametrize('suffix', ['.tif', '.jpg'])
def test_root_keeps_the_owner(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    path.write_bytes(b'old')
    os.chown(path, 1234, 2345)
    path.chmod(0o640)
    make_sink(gray()).write(path)
    status = path.stat()
    assert (status.st_uid, status.st_gid, mode_of(path)) == (1234, 2345, 0o640)


def access_list(*entries):
    """A POSIX access list as Linux stores it, of (tag, permissions, number)."""
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in entries)


NO_NUMBER = 0xffffffff
# The owner may do all; the user 1234 may read and so may the group, within the mask; others none.
LIST = access_list((1, 6, NO_NUMBER), (2, 4, 1234), (4, 4, NO_NUMBER), (0x10, 4, NO_NUMBER),
                   (0x20, 0, NO_NUMBER))


def set_attribute(path, name, value):
    if not hasattr(os, 'setxattr'):
        pytest.skip('this system has no extended attributes')
    try:
        os.setxattr(path, name, value)
    except OSError as exc:
        pytest.skip(f'{name} cannot be set here: {exc.strerror}')


@pytest.mark.parametrize('suffix', ['.tif', '.jpg'])
def test_lists_and_attributes_of_the_user_stay(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    path.write_bytes(b'old')
    set_attribute(path, 'system.posix_acl_access', LIST)
    set_attribute(path, 'user.origin', b'scanner 3')
    make_sink(gray()).write(path)
    assert os.getxattr(path, 'system.posix_acl_access') == LIST
    assert os.getxattr(path, 'user.origin') == b'scanner 3'
    assert mode_of(path) == 0o640


def test_a_list_that_the_folder_hands_down_does_not_open_a_private_file(tmp_path):
    path = tmp_path / 'a.tif'
    path.write_bytes(b'old')
    path.chmod(0o600)
    set_attribute(tmp_path, 'system.posix_acl_default', LIST)
    make_sink(gray()).write(path)
    assert 'system.posix_acl_access' not in os.listxattr(path)
    assert mode_of(path) == 0o600
    make_sink(gray()).write(tmp_path / 'new.tif')
    assert (2, 4, 1234) in struct.iter_unpack(
        '<HHI', os.getxattr(tmp_path / 'new.tif', 'system.posix_acl_access')[4:])


@only_posix
@pytest.mark.parametrize(('mode', 'expected'), [
    (0o664, 0o644), (0o640, 0o600), (0o606, 0o606), (0o676, 0o666)])
def test_a_group_that_cannot_be_kept_leaves_no_more_than_others_have(
        tmp_path, monkeypatch, mode, expected):
    (tmp_path / 'old').write_bytes(b'')
    (tmp_path / 'old').chmod(mode)
    (tmp_path / 'new').write_bytes(b'')
    before = permissions.permissions_of(tmp_path / 'old')

    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EPERM, 'no')

    monkeypatch.setattr(os, 'chown', refuse, raising=False)
    foreign = permissions.Permissions(before.mode, (before.owner[0], before.owner[1] + 1), {})
    permissions.set_permissions(tmp_path / 'new', foreign)
    assert mode_of(tmp_path / 'new') == expected


@only_posix
def test_a_file_that_cannot_be_made_private_is_not_put_in_place(tmp_path, monkeypatch):
    path = tmp_path / 'a.tif'
    path.write_bytes(b'old')
    path.chmod(0o600)

    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EPERM, 'no')

    sink = make_sink(gray())
    monkeypatch.setattr(os, 'chmod', refuse)
    with pytest.raises(TileSourceError, match=r'a\.tif.*mode 600'):
        sink.write(path)
    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['a.tif']


# What cannot be replaced


@pytest.mark.parametrize('kind', ['pipe', 'device'])
def test_pipes_and_devices_are_refused(tmp_path, kind):
    path = tmp_path / 'a.tif'
    if kind == 'pipe':
        os.mkfifo(path)
    elif not os.path.exists(os.devnull) or os.name != 'posix':
        pytest.skip('there is no device to try')
    else:
        path.symlink_to(os.devnull)
    with pytest.raises(TileSourceError, match='a pipe or a device'):
        make_sink(gray()).write(path)


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / 'a.tif').symlink_to('a.tif')
    with pytest.raises(TileSourceError, match=r'a\.tif cannot be written'):
        make_sink(gray()).write(tmp_path / 'a.tif')
    assert (tmp_path / 'a.tif').is_symlink()


@pytest.mark.parametrize('number', [errno.EBUSY, errno.EXDEV, errno.EPERM])
@pytest.mark.parametrize('old', [b'old', b'old' * 100_000])
def test_a_file_that_cannot_be_replaced_is_filled(tmp_path, monkeypatch, number, old):
    path = tmp_path / 'a.tif'
    path.write_bytes(old)
    path.chmod(0o640)
    os.link(path, tmp_path / 'same.tif')

    def refuse(source, target):
        raise OSError(number, 'cannot be replaced', target)

    monkeypatch.setattr(os, 'replace', refuse)
    make_sink(gray()).write(path, vips_kwargs={'compression': 'none'})
    assert sorted(os.listdir(tmp_path)) == ['a.tif', 'same.tif']
    assert path.samefile(tmp_path / 'same.tif')
    assert np.array_equal(read_file(path)[:, :, 0], gray())
    assert path.stat().st_size < 200_000
    if os.name == 'posix':
        assert mode_of(path) == 0o640


def test_a_file_that_something_has_open_on_windows_stays(tmp_path, monkeypatch):
    path = tmp_path / 'a.tif'
    path.write_bytes(b'old')

    def refuse(source, target):
        raise PermissionError(errno.EACCES, 'Access is denied', source, 5, target)

    monkeypatch.setattr(os, 'replace', refuse)
    with pytest.raises(TileSourceError, match=r'a\.tif cannot be replaced.*close'):
        make_sink(gray()).write(path)
    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['a.tif']


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EIO])
def test_no_room_to_fill_a_file_leaves_the_old_one(tmp_path, monkeypatch, number):
    path = tmp_path / 'a.tif'
    path.write_bytes(b'old')

    def refuse(*_args):
        raise OSError(number, 'no')

    def refuse_after_growing(descriptor, start, size):
        os.ftruncate(descriptor, size // 2)
        raise OSError(number, 'no')

    monkeypatch.setattr(os, 'replace', lambda *_args: refuse_busy())
    monkeypatch.setattr(in_place, 'reserve', refuse_after_growing)

    def refuse_busy():
        raise OSError(errno.EBUSY, 'busy')

    with pytest.raises(TileSourceError, match=r'a\.tif cannot be written: no'):
        make_sink(gray()).write(path)
    assert path.read_bytes() == b'old'
    monkeypatch.setattr(in_place, 'reserve', lambda *_args: None)
    monkeypatch.setattr(in_place, 'write_at', refuse)
    with pytest.raises(TileSourceError, match=r'a\.tif now has only a part'):
        make_sink(gray()).write(path)
    assert os.listdir(tmp_path) == ['a.tif']


@pytest.fixture
def mounted(tmp_path):
    """A file that is a mount point."""
    (tmp_path / 'behind').write_bytes(b'old' * 50_000)
    (tmp_path / 'a.tif').write_bytes(b'')
    mount = shutil.which('mount')
    done = mount and IS_ROOT and subprocess.run(
        [mount, '--bind', tmp_path / 'behind', tmp_path / 'a.tif'],
        capture_output=True, check=False).returncode == 0
    if not done:
        pytest.skip('nothing can be mounted here')
    yield tmp_path
    subprocess.run(['umount', tmp_path / 'a.tif'], check=True)


def test_a_mount_point_is_filled(mounted):
    make_sink(gray()).write(mounted / 'a.tif')
    assert value_of(mounted / 'behind') == 7
    assert sorted(os.listdir(mounted)) == ['a.tif', 'behind']


@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='open files cannot be listed')
@pytest.mark.parametrize('name', ['b.tif', 'b.png', 'b.v'])
def test_a_write_that_fails_keeps_nothing_open(tmp_path, name):
    pytest.importorskip('resource')
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / 'a.tif', noise, tile=(256, 256), photometric='rgb')
    result = subprocess.run([sys.executable, '-c', textwrap.dedent("""
        import os, resource, sys
        import large_image_source_vips
        from large_image.exceptions import TileSourceError
        source = large_image_source_vips.open(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            source.write(sys.argv[2], lossy=False)
        except TileSourceError as exc:
            print(exc)
            # Windows would not have let go of a folder with an open file.
            links = [f'/proc/self/fd/{number}' for number in os.listdir('/proc/self/fd')]
            print([os.readlink(link) for link in links
                   if os.path.islink(link) and '_partial_' in os.readlink(link)])
    """), tmp_path / 'a.tif', tmp_path / name], capture_output=True, text=True, check=True)
    said, left = result.stdout.splitlines()
    assert 'File too large' in said
    assert left == '[]'
    assert os.listdir(tmp_path) == ['a.tif']


# Another user


@pytest.fixture
def closed():
    """A folder where another user may write some files, but make none."""
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / 'tmp').mkdir()
    (folder / 'tmp').chmod(0o777)
    (folder / 'closed').mkdir()
    for name, mode in (('open.tif', 0o666), ('own.tif', 0o644), ('large.tif', 0o666),
                       ('open.dzi', 0o666)):
        (folder / 'closed' / name).write_bytes(b'old' * (100_000 if name == 'large.tif' else 1))
        (folder / 'closed' / name).chmod(mode)
    yield folder / 'closed'
    (folder / 'closed').chmod(0o755)
    shutil.rmtree(folder)


def write_as_nobody(folder, *names):
    """What writing files says, one line each, to one who is not root and owns none of them."""
    (folder / 'warm').mkdir(exist_ok=True)
    folder.chmod(0o755 if IS_ROOT else 0o555)
    result = subprocess.run([sys.executable, '-c', textwrap.dedent(f"""
        import os, sys
        import numpy as np
        import large_image_source_vips
        from large_image.exceptions import TileSourceError
        def make():
            sink = large_image_source_vips.new()
            sink.addTile(np.full((300, 350), 7, np.uint8))
            return sink
        if os.geteuid() == 0:
            # Loads what one who is not root could not.
            make().write(sys.argv[1] + '/warm/a.tif')
            os.setgroups([])
            os.setegid({NOBODY})
            os.seteuid({NOBODY})
        sink = make()
        for name in sys.argv[2:]:
            try:
                sink.write(os.path.join(sys.argv[1], name), lossy=False)
                print('written')
            except TileSourceError as exc:
                print(exc)
    """), folder, *names], capture_output=True, text=True, check=True,
        env=dict(os.environ, TMPDIR=str(folder.parent / 'tmp')))
    assert os.listdir(folder.parent / 'tmp') == []
    assert not [name for name in os.listdir(folder) if name.startswith('.')]
    return result.stdout.splitlines()


@pytest.mark.skipif(not hasattr(os, 'geteuid'), reason='this system has no such users')
def test_files_of_a_closed_folder_are_filled_if_they_can_be_written(closed):
    (closed / 'own.tif').chmod(0o644 if IS_ROOT else 0o444)
    identity = (closed / 'open.tif').stat().st_ino
    said = write_as_nobody(closed, 'open.tif', 'large.tif', 'own.tif', 'new.tif', 'open.dzi')
    assert said[:2] == ['written', 'written']
    for name in ('open.tif', 'large.tif'):
        assert np.array_equal(read_file(closed / name)[:, :, 0], gray())
        assert mode_of(closed / name) == 0o666
    assert (closed / 'open.tif').stat().st_ino == identity
    assert 'own.tif cannot be written: Permission denied' in said[2]
    assert (closed / 'own.tif').read_bytes() == b'old'
    assert f'new.tif cannot be written: no file can be created in {closed}' in said[3]
    assert 'open.dzi cannot be written: no file can be created' in said[4]
    assert (closed / 'open.dzi').read_bytes() == b'old'


@only_root
def test_files_of_another_in_a_shared_folder(closed):
    closed.chmod(0o1777)
    folder = closed / 'shared'
    folder.mkdir()
    for name, mode in (('open.tif', 0o666), ('own.tif', 0o644)):
        (folder / name).write_bytes(b'old')
        (folder / name).chmod(mode)
    # Nobody else may replace these, but may write the first.
    folder.chmod(0o1777)
    said = write_as_nobody(closed, 'shared/open.tif', 'shared/own.tif', 'shared/new.tif')
    assert said[0] == said[2] == 'written'
    assert 'own.tif cannot be written' in said[1]
    assert value_of(folder / 'open.tif') == 7
    assert (folder / 'open.tif').stat().st_uid == 0
    assert (folder / 'new.tif').stat().st_uid == NOBODY
    assert sorted(os.listdir(folder)) == ['new.tif', 'open.tif', 'own.tif']


@pytest.mark.parametrize('where', ['made', 'filled'])
def test_the_temporary_folder_is_named_where_it_has_no_room(tmp_path, monkeypatch, where):
    path = tmp_path / 'a.tif'
    path.write_bytes(b'old')
    sink = make_sink(gray())
    mkdir = pathlib.Path.mkdir

    def closed(self, *args, **kwargs):
        if self.name.startswith(atomic.PARTIAL_PREFIX):
            raise PermissionError(errno.EACCES, 'Permission denied')
        mkdir(self, *args, **kwargs)

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(pathlib.Path, 'mkdir', closed)
    if where == 'made':
        monkeypatch.setattr(tempfile, 'mkdtemp', full)
        with pytest.raises(TileSourceError, match=tempfile.gettempdir()):
            sink.write(path)
    else:
        monkeypatch.setattr('large_image_source_vips.writing.write.write_contents', full)
        with pytest.raises(TileSourceError, match=r'a\.tif.*TMPDIR'):
            sink.write(path)
    assert path.read_bytes() == b'old'


# Pairs


NAMES = ['x.dz', 'x.dzi', 'é.dzi', 'x.DZI', 'x.Dz', 'a b,c.dzi']


def tree(folder):
    """All files below a folder and what they hold."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob('*')) if path.is_file()}


@pytest.fixture
def moves(monkeypatch):
    """The names that files and folders are given, in order; the one in 'fail' is refused."""
    class Moves(list):
        fail = None
        error = OSError(errno.EIO, 'it broke')

    seen = Moves()

    def watched(real):
        def move(source, target, **kwargs):
            name = os.path.basename(target)
            if name == seen.fail:
                seen.fail = None
                raise seen.error
            real(source, target, **kwargs)
            if not name.endswith('.old'):
                seen.append(name)
        return move

    monkeypatch.setattr(os, 'replace', watched(os.replace))
    monkeypatch.setattr(os, 'rename', watched(os.rename))
    return seen


@pytest.mark.parametrize('name', NAMES)
def test_the_named_file_of_a_deepzoom_comes_last(tmp_path, moves, name):
    stem = os.path.splitext(name)[0]
    sink = make_sink(gray())
    for _ in range(2):
        moves.clear()
        sink.write(tmp_path / name)
        assert moves == [f'{stem}_files', f'{stem}.dzi']
        assert sorted(os.listdir(tmp_path)) == sorted([f'{stem}_files', f'{stem}.dzi'])


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('part', ['.dzi', '_files'])
@pytest.mark.parametrize('error', [
    OSError(errno.EIO, 'it broke'), PermissionError(errno.EACCES, 'it broke'), KeyboardInterrupt()],
    ids=repr)
def test_a_failure_midway_leaves_the_old_pair(tmp_path, moves, name, part, error):
    stem = os.path.splitext(name)[0]
    make_sink(gray(side=700)).write(tmp_path / name)
    before = tree(tmp_path)
    moves.fail, moves.error = stem + part, error
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else TileSourceError
    with pytest.raises(expected) as caught:
        make_sink(gray(9)).write(tmp_path / name)
    if expected is TileSourceError:
        assert f'{stem}{part} cannot be replaced: it broke' in str(caught.value)
    assert tree(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == sorted([f'{stem}_files', f'{stem}.dzi'])


def test_a_new_pair_that_fails_leaves_nothing(tmp_path, moves):
    moves.fail = 'x.dzi'
    with pytest.raises(TileSourceError, match='it broke'):
        make_sink(gray()).write(tmp_path / 'x.dzi')
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_put_back_is_named_and_kept(tmp_path, monkeypatch):
    make_sink(gray(side=700)).write(tmp_path / 'x.dzi')
    before = tree(tmp_path / 'x_files')
    rename, replace = os.rename, os.replace

    def refuse_back(source, target):
        if str(source).endswith('.old'):
            raise OSError(errno.EIO, 'it broke again')
        rename(source, target)

    def refuse_named(source, target):
        if str(target).endswith('x.dzi'):
            raise OSError(errno.EIO, 'it broke')
        replace(source, target)

    monkeypatch.setattr(os, 'rename', refuse_back)
    monkeypatch.setattr(os, 'replace', refuse_named)
    with pytest.raises(TileSourceError, match='cannot be restored') as caught:
        make_sink(gray(9)).write(tmp_path / 'x.dzi')
    partial, = tmp_path.glob(f'{atomic.PARTIAL_PREFIX}*')
    old, = partial.glob('*.old')
    assert f'Move {old} to {tmp_path / "x_files"}' in str(caught.value)
    assert tree(old) == before


@only_posix
def test_a_pair_keeps_its_modes(tmp_path, umask):
    make_sink(gray()).write(tmp_path / 'x.dzi')
    for path in tmp_path.rglob('*'):
        path.chmod(0o2770 if path.is_dir() else 0o660)
    make_sink(gray(9, 900)).write(tmp_path / 'x.dzi')
    found = {(path.is_dir(), mode_of(path)) for path in tmp_path.rglob('*')}
    assert found == {(True, 0o2770), (False, 0o660)}


@only_root
def test_a_pair_keeps_its_owner(tmp_path):
    make_sink(gray()).write(tmp_path / 'x.dzi')
    for path in tmp_path.rglob('*'):
        os.chown(path, 1234, 2345)
    make_sink(gray(9, 900)).write(tmp_path / 'x.dzi')
    assert {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.rglob('*')} == {
        (1234, 2345)}


def test_linked_parts_of_a_pair_stay_links(tmp_path):
    make_sink(gray(side=700)).write(tmp_path / 'x.dzi')
    (tmp_path / 'real').mkdir()
    (tmp_path / 'x_files').rename(tmp_path / 'real' / 'tiles')
    (tmp_path / 'x_files').symlink_to('real/tiles')
    make_sink(gray(9)).write(tmp_path / 'x.dz')
    assert (tmp_path / 'x_files').is_symlink()
    assert len(tree(tmp_path / 'real' / 'tiles')) == len(tree(tmp_path / 'x_files')) > 5
    assert sorted(os.listdir(tmp_path)) == ['real', 'x.dzi', 'x_files']
    assert os.listdir(tmp_path / 'real') == ['tiles']


def test_read_only_tiles_leave_nothing_behind(tmp_path):
    make_sink(gray()).write(tmp_path / 'x.dzi')
    for path in (tmp_path / 'x_files').rglob('*'):
        path.chmod(0o555 if path.is_dir() else 0o444)
    make_sink(gray(9)).write(tmp_path / 'x.dzi')
    assert sorted(os.listdir(tmp_path)) == ['x.dzi', 'x_files']


# Paths


def test_paths_with_nul_are_refused(tmp_path):
    with pytest.raises(TileSourceError, match='NUL'):
        make_sink(gray()).write(f'{tmp_path}/a\0.tif')


def test_a_folder_whose_name_is_no_text_is_named_where_libvips_cannot_take_it(
        tmp_path, monkeypatch):
    folder = os.path.join(os.fsencode(tmp_path), b'd\xff')
    os.mkdir(folder)
    isdir = os.path.isdir
    monkeypatch.setattr(os.path, 'isdir', lambda path: path != '/proc/self/fd' and isdir(path))
    with pytest.raises(TileSourceError, match='Write to another folder'):
        make_sink(gray()).write(os.path.join(folder, b'a.tif'))
    assert os.listdir(folder) == []
