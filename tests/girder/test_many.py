"""Many simultaneous users, and the resources of the server."""

import concurrent.futures
import itertools
import pathlib
import random

import numpy as np
import pytest

pytest.importorskip('girder_large_image', reason='needs Girder (the extra "girder")')

from helpers.girder_images import (
    decoded,
    numbered_pixels,
    ome_bytes,
    picked,
    pyramid_bytes,
    tile_of,
)
from helpers.girder_server import Client

SIDE = 4096
LEVELS = 5
CLIENTS = 8
RED = {'bands': [{'band': 1, 'palette': ['#000', '#f00'], 'min': 0, 'max': 255}]}


def pixels_of(seed):
    return numbered_pixels(SIDE, SIDE, seed)


def test_a_thousand_tiles_for_eight_clients_at_once(girder, admin, folder):
    images = []
    for seed in range(2):
        pixels = pixels_of(seed)
        file = admin.upload(folder, f'{seed}.tif', pyramid_bytes(pixels))
        images.append((f'item/{file["itemId"]}/tiles', [
            picked(pixels, LEVELS - 1 - z) for z in range(LEVELS)]))
    places = [(z, x, y) for z in range(LEVELS) for x in range(2 ** z) for y in range(2 ** z)]
    variations = ({'encoding': 'PNG'}, {'encoding': 'TIFF', 'tiffCompression': 'lzw'},
                  {'encoding': 'PNG', 'style': RED})
    jobs = list(itertools.product(images, places, variations))
    random.Random(7).shuffle(jobs)
    jobs = jobs[:1000]
    clients = [Client(girder.url) for _ in range(CLIENTS)]

    def check(client, job):
        (path, levels), (z, x, y), parameters = job
        client.http.headers['Girder-Token'] = admin.token
        answer = client.get(f'{path}/zxy/{z}/{x}/{y}', **parameters)
        assert answer.status_code == 200, answer.text
        expected = tile_of(levels[z], x, y)
        if 'style' in parameters:
            expected = expected * np.array([1, 0, 0], 'uint8')
        np.testing.assert_array_equal(decoded(answer.content)[..., :3], expected)

    def work(number):
        for job in jobs[number::CLIENTS]:
            check(clients[number], job)
        return len(jobs[number::CLIENTS])

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        assert sum(pool.map(work, range(CLIENTS))) == 1000
    check_open_files(girder)


def check_open_files(girder):
    """See that a server does not hold a file for every thread and variation there was."""
    from large_image_source_vips.reading.handles import MAX_HANDLES

    descriptors = pathlib.Path(f'/proc/{girder.process.pid}/fd')
    if descriptors.exists():
        assert len(list(descriptors.iterdir())) < MAX_HANDLES + 100


# The class itself, on the database and the files of the server

@pytest.fixture(scope='module')
def models(girder):
    """The models of Girder in this process, on the database of the server."""
    from girder.utility import config

    database = config.getConfig()['database']
    before, database['uri'] = database['uri'], girder.database
    yield
    database['uri'] = before


@pytest.fixture
def loads(monkeypatch):
    """The list of all files that libvips is made to open."""
    from large_image_source_vips.reading import loader

    opened, load = [], loader.load

    def counted(chosen, path, *args, **kwargs):
        opened.append(path)
        return load(chosen, path, *args, **kwargs)

    monkeypatch.setattr(loader, 'load', counted)
    return opened


@pytest.fixture
def open_item(models):
    """A function that makes a source on an item as the server does."""
    from girder.models.item import Item

    from large_image_source_vips.girder_source import VipsGirderTileSource

    return lambda item, **kwargs: VipsGirderTileSource(Item().load(item, force=True), **kwargs)


@pytest.fixture
def stack(admin, folder):
    """An item of four frames, and these."""
    frames = np.stack([[numbered_pixels(600, 700, seed)[..., 0]] for seed in range(4)])
    return admin.upload(folder, 'a.ome.tif', ome_bytes(frames))['itemId'], frames


def test_variations_of_one_image_open_its_file_once(loads, open_item, stack):
    item, frames = stack
    source = open_item(item)
    for frame in range(4):
        assert source.getTile(1, 1, 2, frame=frame)
    once = len(loads)
    assert once
    for number, quality, edge in itertools.product(range(12), (70, 90), (False, '#ff0000')):
        style = {'min': number, 'max': 200}
        for encoding in ('JPEG', 'PNG'):
            varied = open_item(item, encoding=encoding, jpegQuality=quality, edge=edge,
                               style=str(style).replace("'", '"'))
            assert varied.getTile(1, 1, 2, frame=number % 4)
    plain = open_item(item, encoding='PNG')
    tile = plain.getTile(0, 0, 2, frame=3, numpyAllowed='always')
    np.testing.assert_array_equal(tile[..., 0], frames[3, 0, :256, :256])
    assert len(loads) == once


def test_the_same_request_gets_the_same_source(open_item, stack):
    item, _ = stack
    assert open_item(item) is open_item(item)
    assert open_item(item, encoding='PNG') is open_item(item, encoding='PNG')
    assert open_item(item) is not open_item(item, encoding='PNG')


def test_a_source_of_another_item_is_another(admin, open_item, stack):
    copy = admin.post(f'item/{stack[0]}/copy')['_id']
    assert open_item(copy) is not open_item(stack[0])


def test_contents_that_are_replaced_are_another_source(admin, open_item, stack):
    item, frames = stack
    before = open_item(item)
    (file,) = admin.read(f'item/{item}/files')
    admin.replace(file['_id'], ome_bytes(frames[::-1]))
    after = open_item(item)
    assert after is not before
    tile = after.getTile(0, 0, 2, frame=0, numpyAllowed='always')
    np.testing.assert_array_equal(tile[..., 0], frames[3, 0, :256, :256])


def test_the_database_is_asked_for_a_file_once_a_second(open_item, stack, monkeypatch):
    from girder.models.file import File

    from large_image_source_vips import girder_source

    monkeypatch.setattr(girder_source, '_KEPT_SECONDS', 3600)
    asked, load = [], File.load

    def counted(self, *args, **kwargs):
        asked.append(args)
        return load(self, *args, **kwargs)

    monkeypatch.setattr(File, 'load', counted)
    for encoding in ('JPEG', 'PNG'):
        open_item(stack[0], encoding=encoding)
    # The base class loads it, too, when it looks for the path.
    opened = len(asked)
    assert opened <= 3
    for _ in range(20):
        open_item(stack[0])
    assert len(asked) == opened


def test_a_file_that_is_saved_in_this_process_is_another_source(open_item, stack):
    from girder.models.file import File
    from girder.models.item import Item

    before = open_item(stack[0])
    (file,) = Item().childFiles(Item().load(stack[0], force=True))
    file['sha512'] = 'f' * 128
    File().save(file, triggerEvents=True, validate=False)
    assert open_item(stack[0]) is not before


def test_a_source_can_be_sent_to_another_process(open_item, stack):
    import pickle

    source = open_item(stack[0])
    again = pickle.loads(pickle.dumps(source))
    assert again.getMetadata() == source.getMetadata()


@pytest.mark.parametrize('item', [None, {}, {'largeImage': {}}, {'largeImage': {'fileId': None}}])
def test_what_is_no_item_of_an_image_cannot_be_read(models, item):
    from large_image.exceptions import TileGeneralError

    from large_image_source_vips.girder_source import VipsGirderTileSource

    assert VipsGirderTileSource.canRead(item) is False
    with pytest.raises(TileGeneralError, match='No large image file'):
        VipsGirderTileSource(item)
