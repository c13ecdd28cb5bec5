"""A small, seeded part of ``fuzz_reading``, in this process."""

import pytest

from helpers import fuzz_reading


@pytest.mark.parametrize('seed', range(8))
def test_damaged_files_only_raise_source_errors(tmp_path, seed):
    results = []
    fuzz_reading.run_batch(seed, 50, tmp_path, results.append)
    assert len(results) == 50


def test_the_seeds_are_read(tmp_path):
    for name, data in fuzz_reading.seeds().items():
        (tmp_path / 'a').write_bytes(data)
        assert fuzz_reading.look(tmp_path / 'a') == 'read', name
