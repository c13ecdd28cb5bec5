"""Bounds on entries and values of TIFF directories."""

import dataclasses

import pytest

from helpers.tiff_bytes import (
    ASCII,
    DOUBLE,
    FLOAT,
    LONG,
    RATIONAL,
    At,
    gray_page,
    overlapping_directories,
    tiff_bytes,
)
from large_image_source_vips.base.limits import LIMITS
from large_image_source_vips.tiff import directories, tile_table
from large_image_source_vips.tiff.directories import (
    TiffDirectories,
    TiffFormatError,
    TooManyEntriesError,
    decode_text,
)
from large_image_source_vips.tiff.page import DESCRIPTION


@pytest.fixture
def opened(tmp_path):
    """Parses bytes as a file."""
    files = []

    def open_bytes(data):
        (tmp_path / f'{len(files)}').write_bytes(data)
        files.append(open(tmp_path / f'{len(files)}', 'rb'))  # noqa: SIM115
        return TiffDirectories(files[-1].fileno())

    yield open_bytes
    for file in files:
        file.close()


@pytest.fixture
def limited(monkeypatch):
    """Replaces limits."""
    def replace(**limits):
        monkeypatch.setattr(directories, 'LIMITS', dataclasses.replace(LIMITS, **limits))
    return replace


@pytest.mark.parametrize(('pages', 'fits'), [(10, True), (11, False)])
def test_directories_are_counted(opened, limited, pages, fits):
    limited(tiff_directories=10)
    chain = opened(tiff_bytes(*[gray_page()] * pages)).pages()
    if fits:
        assert len(list(chain)) == pages
    else:
        with pytest.raises(TiffFormatError, match='more than 10 directories'):
            list(chain)


@pytest.mark.parametrize(('most', 'fits'), [(90, True), (89, False)])
def test_entries_of_all_directories_are_counted(opened, limited, most, fits):
    limited(tiff_entries=most)
    chain = opened(tiff_bytes(*[gray_page()] * 10)).pages()
    if fits:
        assert len(list(chain)) == 10
    else:
        with pytest.raises(TooManyEntriesError, match='more than 89 entries'):
            list(chain)


@pytest.mark.parametrize('side', ['width', 'height'])
def test_sides_of_a_page_have_a_bound(opened, limited, side):
    limited(tiff_side=1000)
    assert list(opened(tiff_bytes(gray_page(**{side: 1000}))).pages())
    with pytest.raises(TiffFormatError, match=r'claims .*1001.* pixels; at most 1000 are read'):
        list(opened(tiff_bytes(gray_page(**{side: 1001}))).pages())


def test_offsets_of_sub_directories_count_as_entries(opened, limited):
    page = gray_page(tag330=(LONG, At(8, 200)))
    limited(tiff_entries=4 * 210)
    assert len(list(opened(tiff_bytes(*[page] * 4)).pages())) == 4
    limited(tiff_entries=4 * 210 - 1)
    with pytest.raises(TooManyEntriesError):
        list(opened(tiff_bytes(*[page] * 4)).pages())


def test_directories_that_lie_in_each_other_end_in_an_error(opened, limited):
    data = overlapping_directories(500)
    assert len(data) < 250_000
    pages = list(opened(data).pages())
    assert len(pages) > 300
    assert sum(len(page.entries) for page in pages) > 300_000
    limited(tiff_entries=100_000)
    with pytest.raises(TooManyEntriesError):
        list(opened(data).pages())


@pytest.mark.parametrize(('size', 'fits'), [(1000, True), (1001, False)])
def test_values_have_a_bound(opened, limited, size, fits):
    limited(tiff_value=1000)
    tiff = opened(tiff_bytes(gray_page(tag34675=(7, bytes(size)))))
    page = next(tiff.pages())
    assert len(tiff.data(page.entries[34675])) == (size if fits else 0)


@pytest.mark.parametrize('kind', [FLOAT, DOUBLE, RATIONAL])
@pytest.mark.parametrize('tag', [273, 279])
def test_places_that_are_no_integers_are_no_places(opened, kind, tag):
    value = [(8, 1)] if kind == RATIONAL else [float('nan')]
    tiff = opened(tiff_bytes(gray_page(**{f'tag{tag}': (kind, value)})))
    page = next(tiff.pages())
    table = tile_table.tile_table(tiff, page)
    assert table is None if tag == 273 else table[1].tolist() == [64 * 64]
    assert tile_table.empty_tiles(tiff, page) is None


@pytest.mark.parametrize(('data', 'expected'), [
    ('0.25 µm'.encode(), '0.25 µm'), (b'0.25 \xb5m', '0.25 µm'),
    ('0.25 µm'.encode('utf-16'), '0.25 µm'), (b'plain\0rest', 'plain'), (b'', ''),
    (b'\xff', 'ÿ'), ('日本'.encode(), '日本')])
def test_texts_are_decoded_as_they_were_written(opened, data, expected):
    tiff = opened(tiff_bytes(gray_page(tag270=(ASCII, data))))
    page = next(tiff.pages())
    assert tiff.text(page.entries.get(DESCRIPTION)) == expected


@pytest.mark.parametrize(('limit', 'expected'), [
    (3, '日'), (4, '日'), (5, '日'), (6, '日本'), (7, '日本'), (None, '日本')])
def test_a_text_is_cut_between_characters(opened, limit, expected):
    tiff = opened(tiff_bytes(gray_page(tag270=(ASCII, '日本'))))
    assert tiff.text(next(tiff.pages()).entries[DESCRIPTION], limit) == expected


def test_texts_have_a_bound(opened, limited):
    limited(tiff_text=10)
    tiff = opened(tiff_bytes(gray_page(tag270=(ASCII, 'x' * 1000))))
    assert tiff.text(next(tiff.pages()).entries[DESCRIPTION]) == 'x' * 10


def test_any_bytes_are_a_text():
    data = bytes(range(256))
    assert decode_text(data) == data.decode('latin-1')
    assert decode_text(b'\xc3', is_cut=True) == ''
    assert decode_text(b'\xc3') == 'Ã'


@pytest.mark.parametrize(('count', 'found'), [(256, 256), (257, 0)])
def test_sub_directories_of_a_page_have_a_bound(opened, count, found):
    assert LIMITS.tiff_sub_ifds == 256
    page = next(opened(tiff_bytes(gray_page(tag330=(LONG, At(8, count))))).pages())
    assert len(page.sub_offsets) == found


@pytest.mark.parametrize(('count', 'found'), [(65536, 65536), (65537, 0)])
def test_lists_of_integers_have_a_bound(opened, count, found):
    assert LIMITS.tiff_integers == 65536
    tiff = opened(tiff_bytes(gray_page(tag338=(LONG, At(8, count))), after_header=bytes(4 * 65540)))
    assert len(tiff.integers(next(tiff.pages()).entries[338])) == found
