"""Directories of damaged TIFF files."""

import numpy as np
import pytest

from helpers import fuzz_reading
from large_image_source_vips.tiff.directories import TiffDirectories, TiffFormatError


@pytest.mark.parametrize('seed', range(4))
def test_damaged_directories_are_followed_or_refused(tmp_path, seed):
    rng = np.random.default_rng(seed)
    files = [data for data in fuzz_reading.seeds().values() if data[:2] in {b'II', b'MM'}]
    for _ in range(200):
        data = fuzz_reading.mutate(files[int(rng.integers(0, len(files)))], files, rng)
        (tmp_path / 'a').write_bytes(data)
        with open(tmp_path / 'a', 'rb') as file:
            try:
                tiff = TiffDirectories(file.fileno())
                pages = list(tiff.pages())
            except TiffFormatError:
                continue
            for page in pages:
                assert min(page.size) > 0
                tiff.empty_tiles(page)
                for entry in page.entries.values():
                    tiff.array(entry)
                    tiff.number(entry)
                    tiff.text(entry)


def test_a_chain_that_loops_is_refused(tmp_path):
    data = bytearray(fuzz_reading.seeds()['pages'])
    (tmp_path / 'a').write_bytes(data)
    with open(tmp_path / 'a', 'rb') as file:
        pages = list(TiffDirectories(file.fileno()).pages())
    place = pages[-1].next_offset_at
    data[place:place + 4] = pages[1].offset.to_bytes(4, 'little')
    (tmp_path / 'a').write_bytes(data)
    with open(tmp_path / 'a', 'rb') as file, pytest.raises(TiffFormatError, match='does not end'):
        list(TiffDirectories(file.fileno()).pages())
