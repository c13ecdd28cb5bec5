"""Choice of the loader, and files that are refused before libvips reads them."""

import contextlib
import os
import pathlib
import pickle
import socket
import stat

import numpy as np
import PIL.Image
import pytest
import pyvips
import tifffile
from large_image import config
from large_image.exceptions import TileSourceError, TileSourceFileNotFoundError

from helpers.around import needs
from helpers.pixels import random_pixels
from helpers.reading import level, read
from large_image_source_vips.base.identity import file_identity
from large_image_source_vips.reading import loader
from large_image_source_vips.reading.known_formats import known_suffixes
from large_image_source_vips.reading.reader import FileReader


@pytest.fixture
def setting():
    """Change settings for one test."""
    before = dict(config.ConfigValues)

    def change(key, value):
        config.setConfig(key, value)

    yield change
    for key in ('source_vips_loaders', 'source_vips_dpi'):
        config.setConfig(key, before.get(key))


def make_tiff(path, seed=0):
    pixels = random_pixels((30, 41, 3), seed=seed)
    tifffile.imwrite(path, pixels, photometric='rgb')
    return pixels


@pytest.mark.parametrize('name', [
    'a[page=1].tif', 'a.tif[page=1]', 'a[0]', 'a,b=c.tif', "a'b\".tif", 'a\nb.tif', '-a.tif',
    '@a.tif', 'a b.tif', '\\a.tif', 'a%20b.tif', 'é漢字.tif', '[.tif', ']', 'a.tif[]', 'a',
    '~a.tif', 'a.tif:0', '$HOME.tif', '*.tif'])
def test_names_are_literal(tmp_path, name):
    pixels = make_tiff(tmp_path / name)
    make_tiff(tmp_path / 'b.tif', seed=1)
    np.testing.assert_array_equal(read(tmp_path / name), pixels)
    np.testing.assert_array_equal(read(os.fsencode(tmp_path / name)), pixels)


@pytest.mark.parametrize('name', ['a.tif[page=0]', 'a.tif[n=-1]', 'a.tif '])
def test_a_name_with_options_is_no_other_name(tmp_path, name):
    make_tiff(tmp_path / 'a.tif')
    with pytest.raises(TileSourceFileNotFoundError):
        FileReader(tmp_path / name)


@pytest.mark.parametrize('kind', ['.tif', '.png', '.v'])
def test_names_need_not_be_utf_8(tmp_path, kind):
    path = os.fsencode(tmp_path) + b'/\xff\xfe' + kind.encode()
    image = pyvips.Image.new_from_array(random_pixels((30, 41, 3)))
    image.write_to_file(str(tmp_path / f'a{kind}'))
    try:
        os.rename(tmp_path / f'a{kind}', path)
    except OSError:
        pytest.skip('this file system wants UTF-8')
    np.testing.assert_array_equal(read(path), image.numpy())
    np.testing.assert_array_equal(read(os.fsdecode(path)), image.numpy())
    np.testing.assert_array_equal(read(pathlib.Path(os.fsdecode(path))), image.numpy())


def test_links_and_relative_paths(tmp_path, monkeypatch):
    pixels = make_tiff(tmp_path / 'a.tif')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'b.tif').symlink_to(tmp_path / 'a.tif')
    monkeypatch.chdir(tmp_path / 'folder')
    reader = FileReader('b.tif')
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(level(reader), pixels)
    with pytest.raises(TileSourceFileNotFoundError):
        FileReader('b.tif')


@pytest.mark.parametrize('path', [None, 3, 2.5, object(), {}, [], b'a\0b', 'a\0b.tif', ('a',)])
def test_what_is_no_path_is_an_error(path):
    with pytest.raises(TileSourceError):
        FileReader(path)


@pytest.mark.parametrize('path', [
    None, 3, -1, 10**40, 2.5, object(), {}, b'a\0b', 'a\0b.tif', '', 'x' * 100_000, '\ud800', ...])
def test_asking_for_the_identity_of_anything_never_fails(path):
    assert file_identity(path) is None


def test_the_identity_of_a_file_changes_with_it(tmp_path):
    path = tmp_path / 'a'
    assert file_identity(path) is None
    path.write_bytes(b'1')
    first = file_identity(str(path))
    assert first == file_identity(path)
    assert hash(first) == hash(pickle.loads(pickle.dumps(first)))
    os.utime(path, (1, 1))
    assert first != file_identity(path)
    assert 'size=1' in repr(first)


def test_missing_files_are_not_found(tmp_path):
    for path in (tmp_path / 'a.tif', tmp_path / 'a' / 'b.tif', ''):
        if path != '':
            with pytest.raises(TileSourceFileNotFoundError, match=r'a|b'):
                FileReader(path)
    (tmp_path / 'c.tif').symlink_to(tmp_path / 'nowhere')
    with pytest.raises(TileSourceFileNotFoundError, match=r'c\.tif'):
        FileReader(tmp_path / 'c.tif')


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


def make_pipe(path):
    os.mkfifo(path)


@pytest.mark.parametrize(('kind', 'make'), [
    ('directory', os.mkdir), ('pipe', make_pipe), ('socket', make_socket)])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind, make, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make('a.tif')
    with pytest.raises(TileSourceError, match=f'a.tif.*{kind}'):
        FileReader('a.tif')


def test_devices_are_refused():
    if not stat.S_ISCHR(os.stat('/dev/zero').st_mode):
        pytest.skip('there is no /dev/zero')
    with pytest.raises(TileSourceError, match='a device'):
        FileReader('/dev/zero')


@pytest.mark.parametrize('text', ['', 'hello', '1 2\n3 4\n', '2 2\n1 2\n3 4\n', 'a,b\n1,2\n', '{}',
                                  '<html><body>svg</body></html>', '\0' * 1000, 'II*\0', 'MM\0*'])
@pytest.mark.parametrize('suffix', ['', '.txt', '.csv', '.mat', '.tif', '.png'])
def test_texts_and_tables_are_no_images(tmp_path, text, suffix):
    path = tmp_path / f'a{suffix}'
    path.write_text(text)
    with pytest.raises(TileSourceError, match='a'):
        FileReader(path)


def test_the_suffix_does_not_matter(tmp_path):
    pixels = make_tiff(tmp_path / 'a.tif')
    for suffix in ('', '.jpg', '.csv', '.v', '.svs'):
        os.replace(next(tmp_path.iterdir()), tmp_path / f'a{suffix}')
        np.testing.assert_array_equal(read(tmp_path / f'a{suffix}'), pixels)


def test_suffixes_are_those_that_can_be_loaded():
    suffixes = known_suffixes()
    assert {'tif', 'tiff', 'jpg', 'jpeg', 'png', 'webp', 'gif', 'v'} <= set(suffixes)
    assert all(suffix == suffix.lower().lstrip('.') for suffix in suffixes)
    assert not {'csv', 'raw', 'dz', 'szi'} & set(suffixes)
    for suffix, name in (('pdf', 'pdfload'), ('svg', 'svgload'), ('jp2', 'jp2kload'),
                         ('svs', 'openslideload'), ('fits', 'fitsload')):
        assert (suffix in suffixes) == bool(pyvips.type_find('VipsOperation', name))


def test_no_loadable_suffix_of_libvips_is_missing():
    # What libvips saves and can also load; the others have no loader.
    saved = {suffix.lstrip('.') for suffix in pyvips.get_suffixes()}
    assert saved - {'csv', 'mat', 'raw', 'dz', 'szi'} <= set(known_suffixes()) | {
        'bmp', 'gif', 'nii'}


@pytest.mark.parametrize('missing', ['%PDF-1.4\n', 'SIMPLE  =                    T', 'v/1\x01'])
def test_a_loader_that_libvips_lacks_is_named(tmp_path, missing, monkeypatch):
    monkeypatch.setattr(loader, 'has_loader', lambda name: False)
    reason = loader._no_loader_message(str(tmp_path / 'a'), missing.encode())
    assert 'looks like' in reason
    assert 'install' in reason


@needs('magickload')
def test_image_magick_is_not_asked_about_what_others_read(tmp_path):
    # A directory that libtiff refuses and ImageMagick would try.
    make_tiff(tmp_path / 'a.tif')
    data = bytearray((tmp_path / 'a.tif').read_bytes())
    for place in range(4, 64):
        damaged = bytearray(data)
        damaged[place] ^= 0xff
        (tmp_path / 'b.tif').write_bytes(damaged)
        with contextlib.suppress(TileSourceError):
            assert FileReader(tmp_path / 'b.tif')._file.loader.name != 'magickload'
    (tmp_path / 'c.tga').write_bytes(bytes(18) + bytes(1000))
    with pytest.raises(TileSourceError, match='does not recognise its format'):
        FileReader(tmp_path / 'c.tga')


@needs('magickload')
def test_image_magick_reads_what_nothing_else_does(tmp_path):
    pixels = random_pixels((30, 41, 3))
    PIL.Image.fromarray(pixels).save(tmp_path / 'a.bmp')
    np.testing.assert_array_equal(read(tmp_path / 'a.bmp')[..., :3], pixels)


# The setting source_vips_loaders

def make_files(folder):
    image = PIL.Image.fromarray(random_pixels((30, 41, 3)))
    for suffix in ('tif', 'png', 'jpg'):
        image.save(folder / f'a.{suffix}')
    pyvips.Image.new_from_array(random_pixels((30, 41, 3))).vipssave(str(folder / 'a.v'))
    (folder / 'a.svg').write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"/>')


def is_readable(path):
    try:
        FileReader(path)
    except TileSourceError as exc:
        refused = 'source_vips_loaders' in str(exc) and path.name in str(exc)
        assert refused
        return False
    return True


def readable(folder):
    return {path.suffix for path in folder.iterdir() if is_readable(path)}


@needs('svgload')
def test_all_loaders_are_allowed_by_default(tmp_path):
    make_files(tmp_path)
    assert readable(tmp_path) == {'.tif', '.png', '.jpg', '.v', '.svg'}


@needs('svgload')
@pytest.mark.skipif(not pyvips.at_least_libvips(8, 13), reason='libvips knows of trust since 8.13')
def test_trusted_loaders_only(tmp_path, setting):
    make_files(tmp_path)
    setting('source_vips_loaders', 'trusted')
    assert readable(tmp_path) == {'.tif', '.png', '.jpg'}


@needs('svgload')
@pytest.mark.parametrize(('value', 'expected'), [
    (['tiffload'], {'.tif'}), (['tiffload_source', 'svgload'], {'.tif', '.svg'}),
    ('pngload, jpegload', {'.png', '.jpg'}), (['vipsload'], {'.v'}), ([], set())])
def test_a_list_of_loaders(tmp_path, setting, value, expected):
    make_files(tmp_path)
    setting('source_vips_loaders', value)
    assert readable(tmp_path) == expected


@pytest.mark.parametrize('value', [3, {'tiffload': 1}, [1], None])
def test_a_setting_that_makes_no_sense_is_an_error(tmp_path, setting, value):
    make_tiff(tmp_path / 'a.tif')
    setting('source_vips_loaders', value)
    with pytest.raises(TileSourceError, match='source_vips_loaders'):
        FileReader(tmp_path / 'a.tif')


def test_the_setting_holds_for_a_file_that_is_open_already(tmp_path, setting):
    make_tiff(tmp_path / 'a.tif')
    reader = FileReader(tmp_path / 'a.tif')
    setting('source_vips_loaders', ['pngload'])
    with pytest.raises(TileSourceError, match='Refused to read'):
        FileReader(tmp_path / 'a.tif')
    assert level(reader).any()


def test_a_refused_loader_does_not_run(tmp_path, setting, monkeypatch):
    make_tiff(tmp_path / 'a.tif')
    setting('source_vips_loaders', ['pngload'])
    called = []
    monkeypatch.setattr(pyvips.Operation, 'call', lambda *args, **kwargs: called.append(args))
    with pytest.raises(TileSourceError, match='Refused to read'):
        FileReader(tmp_path / 'a.tif')
    assert called == []
