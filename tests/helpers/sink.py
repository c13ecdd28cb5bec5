"""Helpers for tests of the sink."""

import sys
import threading

import numpy as np
import tifffile

import large_image_source_vips


def make_sink(tile=None, x=0, y=0, **kwargs):
    sink = large_image_source_vips.new()
    if tile is not None:
        sink.addTile(tile, x, y, **kwargs)
    return sink


def read_all(source, **kwargs):
    """Every full-resolution pixel of a source, (rows, cols, bands), from its tiles."""
    rows, cols = source.sizeY, source.sizeX
    result = None
    for y in range(-(-rows // 256)):
        for x in range(-(-cols // 256)):
            tile = source.getTile(x, y, source.levels - 1, numpyAllowed='always', **kwargs)
            if result is None:
                result = np.zeros((rows, cols, tile.shape[2]), tile.dtype)
            part = result[y * 256:y * 256 + 256, x * 256:x * 256 + 256]
            part[...] = tile[:part.shape[0], :part.shape[1]]
    return result


def read_level(source, level):
    """
    Every pixel of a level, (rows, cols, bands), from its tiles.

    Each tile is overwritten after it was copied: it belongs to who asked for it.
    """
    scale = 1 << (source.levels - 1 - level)
    rows, cols = -(-source.sizeY // scale), -(-source.sizeX // scale)
    result = None
    for y in range(-(-rows // 256)):
        for x in range(-(-cols // 256)):
            tile = source.getTile(x, y, level, numpyAllowed='always')
            if result is None:
                result = np.empty((rows, cols, tile.shape[2]), tile.dtype)
            part = result[y * 256:y * 256 + 256, x * 256:x * 256 + 256]
            part[...] = tile[:part.shape[0], :part.shape[1]]
            assert tile.flags.writeable
            tile[...] = 77
    return result


def assert_same(actual, expected, near=False):
    """
    Two images have the same shape, dtype and samples.

    :param near: whether floats may differ by what 32-bit arithmetic loses.
    """
    found, wanted = (actual.shape, actual.dtype), (expected.shape, expected.dtype)
    assert found == wanted, f'{found}, not {wanted}'
    if near and expected.dtype.kind == 'f':
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-2)
    else:
        # Shows the first differing places, which np.array_equal does not.
        wrong = np.argwhere(actual != expected)
        assert not len(wrong), (
            f'{len(wrong)} samples differ; at (row, col, band) {wrong[0]} there is '
            f'{actual[tuple(wrong[0])]}, not {expected[tuple(wrong[0])]}; at {wrong[-1]} '
            f'{actual[tuple(wrong[-1])]}, not {expected[tuple(wrong[-1])]}')


def read_file(path):
    """The first page of a TIFF file as tifffile sees it, (rows, cols, bands)."""
    array = tifffile.imread(path, key=0)
    return array if array.ndim == 3 else array[:, :, None]


def read_shown(path, level=0):
    """
    A page of a TIFF file as tifffile sees it, (rows, cols, bands).

    A transparency mask becomes a last band of 0 and 255.
    """
    with tifffile.TiffFile(path) as file:
        array = file.pages[level].asarray()
        array = array if array.ndim == 3 else array[:, :, None]
        masks = [page for page in file.pages[0].pages or () if page.subfiletype & 4]
        if masks:
            assert len(masks) == len(file.pages)
            mask = masks[level].asarray()
            array = np.dstack([array, np.where(mask, 255, 0).astype(array.dtype)])
    return array


def random_tile(dtype, shape, seed=0):
    """Values from the whole range of a dtype."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == 'b':
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind == 'f':
        return (rng.normal(size=shape) * 1000).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def run_threads(*works):
    """Run functions, each in a thread of its own; the first exception of any is raised here."""
    failures = []

    def guarded(work):
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - raised below
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


class Interleaved:
    """
    Runs one piece of work at a chosen line of another one, which waits there.

    What a switch of threads at an unlucky place would do, at every place in turn.  Where the
    other piece waits for something that the first one holds, the first goes on after a
    moment, so that no order is tried that cannot be.

    :param first: a function, run in a thread of its own.
    :param second: likewise.
    :param line: the number of the line of this package that is executed in ``first``, from 0,
        before which ``second`` is run.
    :param opcodes: the end of the names of files in which to count Python's instructions
        instead, of which a line has some.
    :param seconds: how long to wait for ``second`` before it is taken to be held up.
    """

    def __init__(self, first, second, line, opcodes=None, seconds=0.02):
        self._first, self._second, self._line = first, second, line
        self._opcodes, self._seconds = opcodes, seconds
        self._lines = 0
        self._other = None
        self._failures = []

    def run(self):
        """
        Run both.

        :returns: whether ``first`` had so many lines.
        """
        thread = threading.Thread(target=self._guarded, args=(self._traced,))
        thread.start()
        thread.join()
        if self._other is None:
            self._guarded(self._second)
        else:
            self._other.join()
        if self._failures:
            raise self._failures[0]
        return self._other is not None

    def _guarded(self, work):
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - raised by run
            self._failures.append(exc)

    def _traced(self):
        sys.settrace(self._trace)
        try:
            self._first()
        finally:
            sys.settrace(None)

    def _trace(self, frame, event, _argument):
        name = frame.f_code.co_filename
        if 'large_image_source_vips' not in name:
            return None
        frame.f_trace_opcodes = self._opcodes is not None and name.endswith(self._opcodes)
        if event == ('opcode' if self._opcodes else 'line') and self._other is None:
            if self._lines == self._line:
                self._other = threading.Thread(target=self._guarded, args=(self._second,))
                self._other.start()
                self._other.join(self._seconds)
            self._lines += 1
        return self._trace


def at_every_line(prepare, step=1, most=20_000, **kwargs):
    """
    Try every line of the first of two pieces of work as the place of the second.

    :param prepare: gives, anew each time, the first, the second, and a function that checks
        what they have left.
    :param step: try every so many lines only.
    :param most: give up after so many lines.
    :param kwargs: as ``Interleaved`` takes them.
    """
    for line in range(0, most, step):
        first, second, check = prepare()
        reached = Interleaved(first, second, line, **kwargs).run()
        check()
        if not reached:
            # Nothing at all only where that file is not there any more.
            assert line or kwargs, 'nothing was interleaved'
            return
    msg = f'The first piece of work has more than {most} lines.'
    raise AssertionError(msg)
