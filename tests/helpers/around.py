"""Environments for tests: loaders, real files, threads, processes, damaged files."""

import multiprocessing
import os
import pathlib
import threading

import pytest
import pyvips
import tifffile

IMAGES = pathlib.Path(os.environ.get(
    'LARGE_IMAGE_SOURCE_VIPS_IMAGES',
    pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'images'))


def needs(operation):
    """Mark a test that needs a loader or saver which not every libvips has."""
    return pytest.mark.skipif(
        not pyvips.type_find('VipsOperation', operation),
        reason=f'this libvips has no {operation}')


def real_file(name):
    """One of the real files, or a skipped test where they are not."""
    path = IMAGES / name
    if not path.exists():
        pytest.skip(f'{name} is not in {IMAGES} (set LARGE_IMAGE_SOURCE_VIPS_IMAGES)')
    return path


def in_threads(work, shares):
    """Do something with each share, each in a thread of its own."""
    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_a_forked_child(work, *args):
    """What a function gives in a child process that is forked off this one."""
    context = multiprocessing.get_context('fork')
    here, there = context.Pipe()
    child = context.Process(target=lambda: there.send(work(*args)))
    child.start()
    assert here.poll(60)
    found = here.recv()
    child.join()
    return found


def in_a_bare_fork(work, *args):
    """The same in a child that knows nothing of ``multiprocessing``, as of some servers."""
    here, there = multiprocessing.Pipe()
    child = os.fork()
    if not child:
        try:
            there.send(work(*args))
        finally:
            os._exit(0)
    assert here.poll(60)
    found = here.recv()
    os.waitpid(child, 0)
    return found


def declare_empty(path, number):
    """Write 0 for the offset and the byte count of a tile or strip."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        places = []
        for code in (324, 325) if page.is_tiled else (273, 279):
            tag = page.tags[code]
            width = tag.valuebytecount // tag.count
            places.append((tag.valueoffset + number * width, bytes(width)))
    for offset, data in places:
        overwrite(path, offset, data)


def overwrite(path, offset, data):
    with open(path, 'r+b') as file:
        file.seek(offset)
        file.write(data)
