"""Storage of item files: uploaded, imported, in GridFS, on a mount; with or without companions."""

import os
import re
import shutil
import struct

import numpy as np
import pytest

pytest.importorskip('girder_large_image', reason='needs Girder (the extra "girder")')

import pymongo
import pyvips

from helpers.girder_images import decoded, numbered_pixels, tiff_bytes, tile_of
from helpers.girder_server import Service, program

PIXELS = numbered_pixels(300, 400)
GRAY = PIXELS[..., :1]


def needs_a_mount():
    """Skip the test where a file system of a program cannot be mounted."""
    if not os.access('/dev/fuse', os.R_OK | os.W_OK):
        pytest.skip('needs /dev/fuse')
    if not shutil.which('fusermount'):
        pytest.skip('needs the programs of FUSE 2 (Debian: fuse, libfuse2)')


needs_analyze = pytest.mark.skipif(
    not pyvips.type_find('VipsOperation', 'analyzeload'),
    reason="this libvips has no analyzeload; Debian's has")


def analyze_pair(pixels):
    """
    A picture in the form Analyze 7.5: a header and, in another file, its pixels.

    :param pixels: an array (rows, cols, 1) of uint8.
    """
    header = bytearray(348)
    struct.pack_into('>i', header, 0, 348)
    header[38:39] = b'r'
    struct.pack_into('>8h', header, 40, 2, pixels.shape[1], pixels.shape[0], 1, 1, 1, 1, 1)
    struct.pack_into('>2h', header, 70, 2, 8)
    return bytes(header), pixels.tobytes()


def first_tile(client, item, **parameters):
    return decoded(client.read(f'item/{item}/tiles/zxy/1/0/0', encoding='PNG', **parameters))


def is_shown(client, item, pixels):
    expected = tile_of(pixels, 0, 0)
    tile = first_tile(client, item)[..., :expected.shape[2]]
    np.testing.assert_array_equal(tile, expected)


# Imported

ODD_NAMES = [
    'a[page=1].tif', 'a,access=sequential.tif', 'a.tif[page=1].tif', "quo'te\".tif", 'a%20b.tif',
    'é漢字.tif', '-a.tif', '@a.tif', '$HOME.tif', '~a.tif', '*.tif', 'UPPER.TIF', 'a&b=c;d.tiff']


def test_files_of_odd_names_are_imported(girder, admin, folder, tmp_path):
    for seed, name in enumerate(ODD_NAMES):
        (tmp_path / name).write_bytes(tiff_bytes(numbered_pixels(300, 400, seed)))
    girder.import_folder(tmp_path, folder)
    for seed, name in enumerate(ODD_NAMES):
        item = girder.item_named(folder, name)
        assert admin.item(item)['largeImage']['sourceName'] == 'vips'
        is_shown(admin, item, numbered_pixels(300, 400, seed))
        fields = admin.read(f'item/{item}/tiles/internal_metadata')
        assert fields['filename'] == name


@pytest.mark.parametrize('name', ODD_NAMES)
def test_files_of_odd_names_are_uploaded(admin, folder, name):
    is_shown(admin, admin.upload(folder, name, tiff_bytes(PIXELS))['itemId'], PIXELS)


def test_an_imported_file_that_changes_shows_at_once(girder, admin, folder, tmp_path):
    (tmp_path / 'a.tif').write_bytes(tiff_bytes(PIXELS))
    girder.import_folder(tmp_path, folder)
    item = girder.item_named(folder, 'a.tif')
    is_shown(admin, item, PIXELS)
    other = numbered_pixels(300, 400, 9)
    (tmp_path / 'b.tif').write_bytes(tiff_bytes(other))
    (tmp_path / 'b.tif').replace(tmp_path / 'a.tif')
    is_shown(admin, item, other)
    (tmp_path / 'a.tif').unlink()
    answer = admin.get(f'item/{item}/tiles/zxy/1/0/0', encoding='PNG')
    assert answer.status_code == 404
    assert 'gone from the disk' in answer.json()['message']


# With companions

@pytest.fixture(scope='module')
def open_girder(start_girder):
    """A Girder with all loaders: Analyze is not among those that libvips trusts."""
    return start_girder('companions', source_vips_loaders='all')


@needs_analyze
def test_a_loader_with_companions_is_not_trusted(admin, folder):
    file = admin.upload(folder, 'a.hdr', analyze_pair(GRAY)[0])
    assert 'largeImage' not in admin.item(file['itemId'])


@needs_analyze
def test_companions_that_are_imported_are_found_beside(open_girder, tmp_path):
    header, body = analyze_pair(GRAY)
    (tmp_path / 'a.hdr').write_bytes(header)
    (tmp_path / 'a.img').write_bytes(body)
    folder = open_girder.admin.new_folder()
    open_girder.import_folder(tmp_path, folder)
    is_shown(open_girder.admin, open_girder.item_named(folder, 'a.hdr'), GRAY)


@needs_analyze
def test_companions_that_are_out_of_reach_are_explained(open_girder):
    # Without a mount nothing tells the names of uploads on disk.
    admin = open_girder.admin
    header, body = analyze_pair(GRAY)
    folder = admin.new_folder()
    file = admin.upload(folder, 'a.hdr', header)
    admin.upload(file['itemId'], 'a.img', body, parent_type='item')
    tiles = f'item/{file["itemId"]}/tiles'
    assert 'largeImage' not in admin.item(file['itemId'])
    assert admin.get(tiles).status_code == 400


# Which of its paths a file is read from

STORED, IN_ITEM, IN_FOLDER = (numbered_pixels(300, 400, seed) for seed in (1, 2, 3))


@pytest.fixture(scope='module')
def pretended(start_girder, tmp_path_factory):
    """
    A Girder that believes to be mounted on a folder, and that folder.

    What is in the folder differs from what is uploaded, which tells where a file
    was read.
    """
    girder = start_girder('pretended')
    place = tmp_path_factory.mktemp('pretended')
    with pymongo.MongoClient(girder.database) as client:
        client.get_default_database().setting.update_one(
            {'key': 'core.girder_mount_information'},
            {'$set': {'value': {'path': str(place), 'hasFlat': True}}}, upsert=True)
    return girder, place


def put_everywhere(girder, place, name, companions=()):
    """
    An item of a file that has other pixels at each place where it can be found.

    :param companions: the names of further files in the item.
    """
    admin = girder.admin
    folder = admin.new_folder()
    # None is compressed: Girder trusts a mount only where the size is right.
    file = admin.upload(folder, name, tiff_bytes(STORED, compression=None))
    for companion in companions:
        admin.upload(file['itemId'], companion, b'Some words.', parent_type='item')
    path = admin.read(f'resource/{file["itemId"]}/path', type='item').lstrip('/')
    for below, pixels in ((f'{path}/{name}', IN_ITEM), (f'flat/{path}', IN_FOLDER)):
        (place / below).parent.mkdir(parents=True)
        (place / below).write_bytes(tiff_bytes(pixels, compression=None))
    if 'largeImage' not in admin.item(file['itemId']):
        admin.post(f'item/{file["itemId"]}/tiles', fileId=file['_id'])
    return file['itemId']


@pytest.mark.parametrize('companions', [[], ['notes.txt'], ['b.tif', 'c.tif', 'd.tif']])
def test_a_format_without_companions_is_read_in_place(pretended, companions):
    girder, place = pretended
    is_shown(girder.admin, put_everywhere(girder, place, 'a.tif', companions), STORED)


@pytest.mark.parametrize('suffix', ['dcm', 'hdr', 'IMG', 'vms'])
def test_a_format_with_companions_is_read_among_the_items_of_its_folder(pretended, suffix):
    girder, place = pretended
    is_shown(girder.admin, put_everywhere(girder, place, f'a.{suffix}'), IN_FOLDER)


def test_a_format_with_companions_is_read_among_the_files_of_its_item(pretended):
    girder, place = pretended
    is_shown(girder.admin, put_everywhere(girder, place, 'a.img', ['a.txt']), IN_ITEM)


# On a mount

@pytest.fixture(scope='module')
def mounted(start_girder, tmp_path_factory):
    """A Girder whose files can be had from a mount, too, and the place of that."""
    needs_a_mount()
    girder = start_girder('mounted', source_vips_loaders='all')
    place = tmp_path_factory.mktemp('mount')
    try:
        mount = Service(girder.folder, 'mount', [
            program('girder'), 'mount', '-d', girder.database, '-o', 'foreground', str(place),
        ], lambda: os.path.ismount(place), girder.environment)
    except RuntimeError as exc:
        # A container may have the device, and yet not the right to mount.
        if re.search('Operation not permitted|Permission denied', str(exc)):
            pytest.skip('needs the right to mount')
        raise
    yield girder, place
    mount.stop()


def test_a_file_without_companions_is_read(mounted):
    girder, _ = mounted
    admin = girder.admin
    file = admin.upload(admin.new_folder(), 'a.tif', tiff_bytes(PIXELS))
    is_shown(admin, file['itemId'], PIXELS)


@needs_analyze
def test_companions_in_one_item_are_found(mounted):
    girder, _ = mounted
    admin = girder.admin
    header, body = analyze_pair(GRAY)
    file = admin.upload(admin.new_folder(), 'a.img', body)
    assert 'largeImage' not in admin.item(file['itemId'])
    # Now there is something to see.
    admin.upload(file['itemId'], 'a.hdr', header, parent_type='item')
    assert admin.item(file['itemId'])['largeImage']['sourceName'] == 'vips'
    is_shown(admin, file['itemId'], GRAY)


@needs_analyze
def test_companions_in_items_side_by_side_are_found(mounted):
    girder, _ = mounted
    admin = girder.admin
    header, body = analyze_pair(GRAY)
    folder = admin.new_folder()
    admin.upload(folder, 'a.img', body)
    file = admin.upload(folder, 'a.hdr', header)
    assert admin.item(file['itemId'])['largeImage']['sourceName'] == 'vips'
    is_shown(admin, file['itemId'], GRAY)


def test_a_file_in_gridfs_is_read_through_the_mount(mounted):
    girder, _ = mounted
    admin = girder.admin
    file = admin.upload(admin.new_folder(), 'a.tif', tiff_bytes(PIXELS),
                        assetstoreId=girder.new_gridfs('grid'))
    assert admin.item(file['itemId'])['largeImage']['sourceName'] == 'vips'
    is_shown(admin, file['itemId'], PIXELS)


@pytest.fixture(scope='module')
def mounted_gridfs(mounted):
    """An assetstore whose files can be had from the mount only."""
    return mounted[0].new_gridfs('odd')


@pytest.mark.parametrize('name', ODD_NAMES)
def test_odd_names_on_a_mount_are_literal(mounted, mounted_gridfs, name):
    girder, _ = mounted
    admin = girder.admin
    file = admin.upload(admin.new_folder(), name, tiff_bytes(PIXELS), assetstoreId=mounted_gridfs)
    is_shown(admin, file['itemId'], PIXELS)


def test_a_file_that_is_gone_below_the_mount_is_explained(mounted):
    girder, _ = mounted
    admin = girder.admin
    data = tiff_bytes(numbered_pixels(300, 400, 77))
    file = admin.upload(admin.new_folder(), 'a.tif', data)
    girder.stored(data).unlink()
    for route in ('tiles', 'tiles/bands', 'tiles/region'):
        answer = admin.get(f'item/{file["itemId"]}/{route}')
        assert answer.status_code == 400
        assert "'a.tif' is gone from the disk" in answer.json()['message']
