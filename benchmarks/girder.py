"""
Measures how fast a Girder serves tiles: ``python -m benchmarks.girder FILE...``.

The command starts a Girder, imports each file, and lets several clients on this machine
ask for random tiles that nobody has asked for before.  The
contenders, this package and ``large-image-source-tiff``, serve the same tiles of the same
file in the same server, in turns; only the source that the item names differs.  It needs
an environment with this package, ``girder-large-image``, ``large-image-source-tiff``,
``secantusdb`` and ``requests``.
"""

from __future__ import annotations

import argparse
import http.client
import importlib
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SOURCES = {'vips': 'this package', 'tiff': 'tiff source'}

# How long the slowest answer may take, in seconds.
PATIENCE = 120

# Level, column and row of a tile.
Place = tuple[int, int, int]


def main() -> None:
    """Measure the files and print a line for each round and for each file."""
    options = parse()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tests'))
    servers = importlib.import_module('helpers.girder_server')
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = servers.Database(folder)
        try:
            girder = servers.Girder(folder, database)
            try:
                girder.set_up()
                for path in options.files:
                    measure(girder, path.resolve(), options)
            finally:
                girder.stop()
        finally:
            database.stop()


def measure(girder: Any, path: Path, options: argparse.Namespace) -> None:
    """Compare the contenders on one file."""
    admin = girder.admin
    items = {}
    for source in SOURCES:
        links = girder.folder / f'{source} {path.stem}'
        links.mkdir()
        (links / path.name).symlink_to(path)
        folder = admin.new_folder(public=True)
        girder.import_folder(links, folder)
        item = girder.item_named(folder, path.name)
        if 'largeImage' not in admin.item(item):
            admin.post(f'item/{item}/tiles', notify=False)
        name_source(girder.database, item, source)
        items[source] = item
    information = {source: admin.read(f'item/{item}/tiles') for source, item in items.items()}
    level = information['vips']['levels'] - 1
    across, down = (-(-information['vips'][f'size{axis}'] // information['vips'][f'tile{name}'])
                    for axis, name in (('X', 'Width'), ('Y', 'Height')))
    print(f'{path.name}: {across} x {down} tiles at full resolution; tiles of '
          f'{[(one["tileWidth"], one["tileHeight"]) for one in information.values()]}', flush=True)
    places = [(level, x, y) for x in range(across - 1) for y in range(down - 1)]
    random.Random(1).shuffle(places)
    needed = options.count * (options.rounds + 1)
    if len(places) < needed:
        msg = (f'{path} has {len(places)} whole tiles, {needed} are needed: give a smaller '
               '--count or fewer --rounds.')
        raise SystemExit(msg)

    ratios = []
    for number in range(options.rounds + 1):
        chosen = places[number * options.count:(number + 1) * options.count]
        rates, lengths = {}, {}
        for source in list(SOURCES)[::1 if number % 2 else -1]:
            rates[source], lengths[source] = ask(girder.port, items[source], chosen,
                                                 options)
        if number == 0:
            # The first round opens files and starts threads.
            continue
        ratios.append(rates['vips'] / rates['tiff'])
        print(f'  round {number}: ' + ', '.join(
            f'{SOURCES[source]} {rate:.0f} tiles/s of {lengths[source] / options.count:.0f} bytes'
            for source, rate in rates.items()) + f', {ratios[-1]:.2f} x', flush=True)
    print(f'  median {statistics.median(ratios):.2f} x', flush=True)


def name_source(database: str, item: str, source: str) -> None:
    """Make Girder open an item with a source; its API has no choice of sources."""
    # Modules of the environment that this runs in.
    pymongo = importlib.import_module('pymongo')
    identifier = importlib.import_module('bson.objectid').ObjectId(item)
    with pymongo.MongoClient(database) as client:
        found = client.get_default_database()['item'].update_one(
            {'_id': identifier}, {'$set': {'largeImage.sourceName': source}})
    if found.matched_count != 1:
        msg = f'Item {item} is not in {database}.'
        raise RuntimeError(msg)


def ask(port: int, item: str, places: list[Place],
        options: argparse.Namespace) -> tuple[float, int]:
    """
    Let clients share the tiles.

    :returns: tiles a second, and the bytes of all answers.
    """
    clients, context = options.clients, multiprocessing.get_context('fork')
    start, results = context.Barrier(clients + 1), context.SimpleQueue()
    processes = [context.Process(target=client, args=(
        port, f'/api/v1/item/{item}/tiles/zxy/{{}}/{{}}/{{}}?{options.parameters}',
        places[number::clients], start, results)) for number in range(clients)]
    for process in processes:
        process.start()
    start.wait(PATIENCE)
    before = time.perf_counter()
    answers = [results.get() for _process in processes]
    took = time.perf_counter() - before
    for process in processes:
        process.join()
    wrong = [answer for answer in answers if isinstance(answer, str)]
    if wrong:
        raise RuntimeError(wrong[0])
    return len(places) / took, sum(answers)


def client(port: int, path: str, places: list[Place], start: Any, results: Any) -> None:
    """Ask for tiles over one connection, as a viewer does."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=PATIENCE)
    connection.connect()
    start.wait(PATIENCE)
    length = 0
    for level, x, y in places:
        connection.request('GET', path.format(level, x, y))
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200 or answer.getheader('Content-Type') != 'image/jpeg':
            results.put(f'Tile {level}/{x}/{y}: {answer.status} {data[:500]!r}')
            return
        length += len(data)
    results.put(length)


def parse() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.girder', description=__doc__)
    parser.add_argument('files', nargs='+', type=Path, help='tiled TIFF files')
    parser.add_argument('--rounds', type=int, default=5, help='default: %(default)s')
    parser.add_argument('--count', type=int, default=800,
                        help='tiles of a round; default: %(default)s')
    parser.add_argument('--clients', type=int, default=4, help='default: %(default)s')
    parser.add_argument('--parameters', default='',
                        help='of the requests, such as jpegQuality=90; default: none')
    return parser.parse_args()


if __name__ == '__main__':
    main()
