"""
A small, seeded part of ``fuzz_reading`` in this process; the whole with ``-m slow``.
"""

import pytest

from helpers import damage, fuzz_reading
from large_image_source_vips.reading.known_formats import has_loader

# Who reads them, if libvips does.
LOADERS = {'heif': 'heifload', 'tga': 'magickload', 'sgi': 'magickload', 'pcx': 'magickload',
           'bmp': 'magickload'}


@pytest.mark.parametrize('seed', range(8))
def test_damaged_files_only_raise_source_errors(tmp_path, seed):
    results = []
    fuzz_reading.run_batch(seed, 50, tmp_path, results.append)
    assert len(results) == 50


@pytest.mark.slow
def test_20_000_damaged_files_only_raise_source_errors(capsys):
    assert fuzz_reading.main(20_000) == 0, capsys.readouterr().out


def test_the_seeds_are_read(tmp_path):
    for name, data in damage.seeds().items():
        if has_loader(LOADERS.get(name, 'tiffload')):
            (tmp_path / 'a').write_bytes(data)
            assert fuzz_reading.look(tmp_path / 'a') == 'read', name
