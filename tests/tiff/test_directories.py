"""Directories of damaged TIFF files."""

import zlib

import numpy as np
import pytest
import tifffile

from helpers.around import overwrite
from helpers.damage import mutate, seeds
from large_image_source_vips.tiff import tile_table
from large_image_source_vips.tiff.directories import TiffDirectories, TiffFormatError


@pytest.mark.parametrize('seed', range(4))
def test_damaged_directories_are_followed_or_refused(tmp_path, seed):
    rng = np.random.default_rng(seed)
    files = [data for data in seeds().values() if data[:2] in {b'II', b'MM'}]
    for _ in range(200):
        data = mutate(files[int(rng.integers(0, len(files)))], files, rng)
        (tmp_path / 'a').write_bytes(data)
        with open(tmp_path / 'a', 'rb') as file:
            try:
                tiff = TiffDirectories(file.fileno())
                pages = list(tiff.pages())
            except TiffFormatError:
                continue
            for page in pages:
                assert min(page.size) > 0
                tile_table.empty_tiles(tiff, page)
                for entry in page.entries.values():
                    tiff.array(entry)
                    tiff.number(entry)
                    tiff.text(entry)


@pytest.mark.parametrize('target', [0, 1, -1], ids=['first', 'second', 'itself'])
def test_the_pages_of_a_chain_that_loops_are_read_once(tmp_path, caplog, target):
    data = bytearray(seeds()['pages'])
    (tmp_path / 'a').write_bytes(data)
    with open(tmp_path / 'a', 'rb') as file:
        pages = list(TiffDirectories(file.fileno()).pages())
    place = pages[-1].next_offset_at
    data[place:place + 4] = pages[target].offset.to_bytes(4, 'little')
    (tmp_path / 'a').write_bytes(data)
    with open(tmp_path / 'a', 'rb') as file:
        assert list(TiffDirectories(file.fileno()).pages()) == pages
    assert 'leads back' in caplog.text


def page_and_table(path, number=0):
    with open(path, 'rb') as file:
        tiff = TiffDirectories(file.fileno())
        page = list(tiff.pages())[number]
        return page, tile_table.tile_table(tiff, page)


@pytest.mark.parametrize('tile', [None, (32, 16)], ids=['strips', 'tiles'])
@pytest.mark.parametrize('planar', ['contig', 'separate'])
@pytest.mark.parametrize('compression', [None, 'deflate'])
@pytest.mark.parametrize('flaw', ['zeros', 'missing', 'too few'])
def test_byte_counts_that_are_not_listed_are_estimated(
        tmp_path, tile, planar, compression, flaw):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 50, 70), np.uint8)
    if planar == 'contig':
        pixels = pixels.transpose(1, 2, 0)
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, pixels, photometric='rgb', planarconfig=planar, tile=tile,
                     rowsperstrip=None if tile else 16, compression=compression, metadata=None)
    page, (offsets, counts) = page_and_table(path)
    assert len(counts) == page.pieces
    entry = page.table[1]
    unknown = np.ones(len(counts), bool)
    if flaw == 'zeros':
        overwrite(path, entry.offset, bytes({3: 2, 4: 4}[entry.kind] * entry.values))
    elif flaw == 'missing':
        overwrite(path, entry.at, (65000).to_bytes(2, 'little'))
    else:
        # One value stands in the entry itself, where the offset of all was.
        overwrite(path, entry.at + 4, np.array([1, counts[0]], '<u4').tobytes())
        unknown[0] = False

    again = page_and_table(path)[1]

    np.testing.assert_array_equal(again[0], offsets)
    data = path.read_bytes()
    for offset, count, estimate in zip(offsets[unknown], counts[unknown], again[1][unknown],
                                       strict=True):
        if compression:
            # Padding may follow.
            stream = zlib.decompressobj()
            stream.decompress(data[offset:offset + estimate])
            assert stream.eof
        else:
            assert estimate == count


def test_tiles_may_be_listed_in_the_tags_of_strips(tmp_path):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), tile=(32, 32), metadata=None)
    page, table = page_and_table(path)
    for entry, tag in zip(page.table, (273, 279), strict=True):
        overwrite(path, entry.at, tag.to_bytes(2, 'little'))
    page, again = page_and_table(path)
    assert page.tile == (32, 32)
    assert page.tile_count == page.pieces == 4
    np.testing.assert_array_equal(again, table)


def test_a_page_that_states_no_photometric_interpretation(tmp_path):
    expected = {'gray': 1, 'colour': 2, 'fax': 0}
    for name, (shape, compression) in {
            'gray': ((8, 8), None), 'colour': ((8, 8, 3), None), 'fax': ((8, 8), None)}.items():
        path = tmp_path / name
        tifffile.imwrite(path, np.zeros(shape, np.uint8), metadata=None, compression=compression)
        page, _ = page_and_table(path)
        if name == 'fax':
            overwrite(path, page.entries[259].offset, (4).to_bytes(2, 'little'))
        overwrite(path, page.entries[262].at, (65000).to_bytes(2, 'little'))
        assert page_and_table(path)[0].photometric == expected[name]


def test_samples_of_different_widths(tmp_path):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.uint8), photometric='rgb', metadata=None)
    page, _ = page_and_table(path)
    assert (page.bits, page.bits_each, page.fill_order) == (8, (), 1)
    overwrite(path, page.entries[258].offset, np.array([5, 6, 5], '<u2').tobytes())
    page, _ = page_and_table(path)
    assert (page.bits, page.bits_each) == (6, (5, 6, 5))
