"""Requests that are refused: status, user and text."""

import re

import pytest

pytest.importorskip('girder_large_image', reason='needs Girder (the extra "girder")')

import pymongo
import pyvips
from bson import ObjectId

from helpers.girder_images import numbered_pixels, slide_bytes, tiff_bytes
from helpers.girder_routes import OTHERS, READING, path_of

PIXELS = numbered_pixels(600, 800)
SLIDE = slide_bytes(PIXELS, numbered_pixels(120, 90, seed=5))
SVG = (b'<svg xmlns="http://www.w3.org/2000/svg" width="400" height="300">'
       b'<rect width="400" height="300" fill="red"/></svg>')


# Who may see what

@pytest.fixture(scope='module')
def private(admin):
    """The path of an item that only the administrator may see."""
    return f'item/{admin.upload(admin.new_folder(), "slide.tif", SLIDE)["itemId"]}'


@pytest.fixture(scope='module')
def public(admin):
    """The path of an item that everybody may see."""
    folder = admin.new_folder(public=True)
    return f'item/{admin.upload(folder, "slide.tif", SLIDE)["itemId"]}'


@pytest.fixture(scope='module')
def stranger(girder, admin):
    """A user who has nothing to do with any of it."""
    client = girder.client()
    client.log_in('stranger')
    return client


ALL_ROUTES = {**{('GET', route): parameters for route, parameters in READING.items()}, **OTHERS}


@pytest.mark.parametrize(('method', 'route'), ALL_ROUTES, ids=' '.join)
def test_a_private_item_is_for_nobody_else(girder, admin, stranger, private, method, route):
    path, parameters = f'{private}/{path_of(route)}', ALL_ROUTES[method, route]
    if method == 'GET':
        # Now the image is in every cache of the server.
        assert admin.request(method, path, parameters).ok
    assert girder.client().request(method, path, parameters).status_code == 401
    assert stranger.request(method, path, parameters).status_code == 403


@pytest.mark.parametrize('route', READING)
def test_a_public_item_is_for_everybody(girder, public, route):
    answer = girder.client().get(f'{public}/{path_of(route)}', **READING[route])
    assert answer.status_code == 200
    assert answer.content


# To convert makes a new item elsewhere; whoever may read may do so.
@pytest.mark.parametrize(
    ('method', 'route'), [route for route in OTHERS if 'convert' not in route[1]], ids=' '.join)
def test_a_public_item_is_changed_by_nobody_else(girder, stranger, public, method, route):
    path, parameters = f'{public}/{route}', OTHERS[method, route]
    assert girder.client().request(method, path, parameters).status_code == 401
    assert stranger.request(method, path, parameters).status_code == 403
    assert girder.client().get(f'{public}/tiles').ok


def test_access_that_is_taken_away_is_gone_at_once(admin, stranger, folder):
    tile = f'item/{admin.upload(folder, "a.tif", SLIDE)["itemId"]}/tiles/zxy/0/0/0'

    readers = [{'id': stranger.read('user/me')['_id'], 'level': 0}]
    for users, status in ((readers, 200), ([], 403), (readers, 200)):
        admin.put(f'folder/{folder}/access', access={'users': users, 'groups': []})
        assert stranger.get(tile).status_code == status


# What cannot be read

class Trouble:
    """Ways for an image that was uploaded to become unreadable, and the words for it."""

    def __init__(self, girder):
        self.girder = girder
        self.admin = girder.admin

    def gone(self, file, stored):
        stored.unlink()
        return r"The file 'slide.tif' is gone from the disk of the server, or"

    def empty(self, file, stored):
        stored.write_bytes(b'')
        return r"Cannot read 'slide.tif': it is empty"

    def cut_off(self, file, stored):
        stored.write_bytes(stored.read_bytes()[:100])
        return r"Cannot read 'slide.tif'"

    def not_an_image(self, file, stored):
        stored.write_bytes(b'Dear diary, today I was renamed.')
        return r"Cannot read 'slide.tif': this libvips .* does not recognise its format"

    def of_a_loader_that_is_not_trusted(self, file, stored):
        stored.write_bytes(SVG)
        return r"Refused to read 'slide.tif': its loader svgload .* source_vips_loaders"

    def in_gridfs(self, file, stored):
        grid = self.girder.new_gridfs(f'grid{file["_id"]}')
        self.admin.put(f'file/{file["_id"]}/move', assetstoreId=grid)
        return r"'slide.tif' is in an assetstore without files on disk; .*girder mount"

    def a_link(self, file, stored):
        link = self.admin.post('file', parentType='item', parentId=file['itemId'],
                               name='slide.tif', linkUrl='https://example.com/a.tif')
        self._refer(file['itemId'], link['_id'])
        return r"'slide.tif' is a link to another site"

    def no_file_at_all(self, file, stored):
        self._refer(file['itemId'], 24 * 'f')
        return r'No large image file in this item'

    def _refer(self, item, file):
        """Make an image of a file that Girder would not make one of."""
        with pymongo.MongoClient(self.girder.database) as client:
            client.get_default_database().item.update_one(
                {'_id': ObjectId(item)}, {'$set': {'largeImage.fileId': ObjectId(file)}})
        # Girder forgets items that it holds when any item is saved.
        self.admin.put(f'item/{item}', name='slide.tif')


TROUBLES = [name for name in vars(Trouble) if not name.startswith('_')]


@pytest.fixture(scope='module')
def troubled(girder, admin):
    """A function that gives the path of an unreadable item, and what is said of it."""
    made = {}

    def get(trouble):
        if trouble == 'of_a_loader_that_is_not_trusted' and not pyvips.type_find(
                'VipsOperation', 'svgload'):
            pytest.skip('this libvips has no svgload')
        if trouble not in made:
            # Each its own: equal contents are one file on disk.
            data = slide_bytes(PIXELS, numbered_pixels(120, 90, seed=100 + len(made)))
            file = admin.upload(admin.new_folder(public=True), 'slide.tif', data)
            words = getattr(Trouble(girder), trouble)(file, girder.stored(data))
            made[trouble] = f'item/{file["itemId"]}', words
        return made[trouble]

    return get


@pytest.mark.parametrize('route', READING)
@pytest.mark.parametrize('trouble', TROUBLES)
def test_what_cannot_be_read_is_explained(girder, troubled, trouble, route):
    path, words = troubled(trouble)
    for _ in range(2):
        answer = girder.client().get(f'{path}/{path_of(route)}', **READING[route])
        assert answer.status_code in {400, 404}
        message = answer.json()['message']
        assert re.search(words, message)
        assert str(girder.folder) not in message


@pytest.mark.parametrize('trouble', ['gone', 'cut_off', 'not_an_image'])
def test_a_file_that_goes_bad_while_it_is_shown_is_explained(girder, admin, folder, trouble):
    data = slide_bytes(PIXELS, numbered_pixels(120, 90, seed=200 + TROUBLES.index(trouble)))
    tiles = f'item/{admin.upload(folder, "slide.tif", data)["itemId"]}/tiles'
    assert admin.get(f'{tiles}/zxy/2/0/0', encoding='PNG').ok
    getattr(Trouble(girder), trouble)(None, girder.stored(data))
    for route in ('zxy/2/1/1', 'region', 'dzi_files/10/0_0.png', 'bands', 'images/label/metadata'):
        answer = admin.get(f'{tiles}/{route}', encoding='PNG')
        assert answer.status_code in {400, 404}
        assert "'slide.tif'" in answer.json()['message']
        assert str(girder.folder) not in answer.text


def test_a_damaged_tile_is_explained_and_the_others_are_served(girder, admin, folder):
    # Tiles behind one another, so that half of them are cut off.
    data = tiff_bytes(PIXELS, compression='lzw')
    tiles = f'item/{admin.upload(folder, "a.tif", data)["itemId"]}/tiles'
    stored = girder.stored(data)
    body = bytearray(stored.read_bytes())
    body[-2000:] = bytes(2000)
    stored.write_bytes(body)
    assert admin.get(f'{tiles}/zxy/2/0/0').ok
    answer = admin.get(f'{tiles}/zxy/2/3/2')
    assert answer.status_code == 404
    assert re.search(r"Cannot read frame 0, level 2, tile 3, 2 .* of 'a.tif'",
                     answer.json()['message'])
    stored.write_bytes(data)
    assert admin.get(f'{tiles}/zxy/2/3/2').ok


def test_a_format_that_may_lack_its_companions_tells_of_the_mount(girder, admin, folder):
    data = tiff_bytes(numbered_pixels(300, 400, 55))
    item = admin.upload(folder, 'a.img', data)['itemId']
    admin.post(f'item/{item}/tiles')
    girder.stored(data).write_bytes(b'Pixels, and the rest is in another file.')
    message = admin.get(f'item/{item}/tiles').json()['message']
    assert re.search(r"Cannot read 'a.img': .* Girder has to be mounted", message)


# The loaders

@pytest.mark.skipif(not pyvips.type_find('VipsOperation', 'svgload'),
                    reason='this libvips has no svgload')
def test_an_upload_for_an_untrusted_loader_is_left_alone(admin, folder):
    for name in ('a.svg', 'a.tif'):
        file = admin.upload(folder, name, SVG)
        assert 'largeImage' not in admin.item(file['itemId'])


@pytest.fixture(scope='module')
def open_girder(start_girder):
    """A Girder whose administrator allows all loaders."""
    return start_girder('open', source_vips_loaders='all')


@pytest.mark.skipif(not pyvips.type_find('VipsOperation', 'svgload'),
                    reason='this libvips has no svgload')
def test_an_administrator_may_allow_more_loaders(open_girder):
    admin = open_girder.admin
    file = admin.upload(admin.new_folder(), 'a.svg', SVG)
    tiles = f'item/{file["itemId"]}/tiles'
    assert admin.read(f'{tiles}/internal_metadata')['vips-loader'] == 'svgload'
    assert admin.read(f'{tiles}/pixel', left=10, top=10)['r'] == 255
