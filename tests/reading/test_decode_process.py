"""The decoding process of forked children: pixels, errors, end."""

import dataclasses
import threading

import numpy as np
import pytest
from large_image.exceptions import TileSourceError

from large_image_source_vips.base.limits import LIMITS
from large_image_source_vips.reading import decode_process

SHAPE = (100, 3)


@pytest.fixture
def decoded(monkeypatch):
    """Runs a program in the place of the one that decodes."""
    def run(program):
        monkeypatch.setattr(decode_process, '_PROGRAM',
                            'import sys; sys.stdin.buffer.read(); ' + program)
        pieces = decode_process.decode_in_process(None, SHAPE, np.dtype('u1'), 100)
        return sum(rows.shape[0] for _, rows in pieces)
    return run


PIXELS = 'sys.stdout.buffer.write(bytes(30000))'
CHATTER = "sys.stderr.write('warning\\n' * 100_000); sys.stderr.flush(); "


def test_a_codec_that_warns_much_does_not_stop_decoding(decoded):
    assert decoded(CHATTER + PIXELS) == 100


def test_warnings_between_pixels(decoded):
    assert decoded('[(sys.stdout.buffer.write(bytes(300)), sys.stdout.flush(), '
                   "sys.stderr.write('warning\\n' * 1000)) for _ in range(100)]") == 100


def test_the_end_of_the_words_is_kept(decoded, monkeypatch):
    monkeypatch.setattr(decode_process, 'LIMITS',
                        dataclasses.replace(LIMITS, reading_message=1000))
    with pytest.raises(TileSourceError) as error:
        decoded(CHATTER + "sys.stderr.write('the reason'); sys.stderr.flush(); sys.exit(3)")
    assert str(error.value).endswith('the reason')
    assert len(str(error.value)) <= 1000


def test_a_process_that_crashes(decoded):
    with pytest.raises(TileSourceError, match=r'failed: .*last words'):
        decoded("sys.stderr.write('last words'); sys.stderr.flush(); sys.exit(7)")


def test_a_process_that_is_not_asked_for_all_rows_ends(monkeypatch):
    monkeypatch.setattr(decode_process, '_PROGRAM',
                        'import sys; sys.stdin.buffer.read(); ' + CHATTER +
                        'sys.stdout.buffer.write(bytes(30_000_000))')
    before = set(threading.enumerate())
    pieces = decode_process.decode_in_process(None, SHAPE, np.dtype('u1'), 100_000)
    assert next(pieces)[1].shape[1:] == SHAPE
    pieces.close()
    assert not set(threading.enumerate()) - before
