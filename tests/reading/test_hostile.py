"""Small files with huge claims raise an error, or need no more than their size."""

import dataclasses
import io
import json
import struct
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import PIL.Image
import pytest
import tifffile
from large_image.exceptions import TileSourceError

from helpers.around import needs, overwrite
from helpers.pixels import random_pixels
from helpers.reading import found_or_why, level
from helpers.tiff_bytes import (
    ASCII,
    LONG,
    SHORT,
    UNDEFINED,
    At,
    gray_page,
    overlapping_directories,
    tiff_bytes,
)
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.base.limits import LIMITS
from large_image_source_vips.reading import metadata, page_roles, png_chunks
from large_image_source_vips.reading.reader import FileReader

PIXELS = random_pixels((64, 64))
STRIP = PIXELS.tobytes()


@pytest.fixture
def limited(monkeypatch):
    """Replaces limits."""
    def replace(module, **limits):
        monkeypatch.setattr(module, 'LIMITS', dataclasses.replace(LIMITS, **limits))
    return replace


@pytest.fixture
def opened(tmp_path):
    """Opens bytes as a file."""
    def open_bytes(data):
        (tmp_path / 'a').write_bytes(data)
        return FileReader(tmp_path / 'a')
    return open_bytes


def peak(call):
    """What a call returns, and the most memory that Python objects took during it."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def shared(tag, kind, size, pages):
    """A file of pages that share the bytes of one tag."""
    page = gray_page(**{f'tag{tag}': (kind, At(8 + len(STRIP), size))})
    text = b'x' * (size - 1) + b'\0'
    return tiff_bytes(*[page] * pages, after_header=STRIP + text)


def test_a_description_that_many_pages_share(opened, limited):
    reader = opened(shared(270, ASCII, 50_000, 300))
    limited(metadata, reading_frame_texts=1_000_000, reading_text=20_000)
    fields, most = peak(lambda: json.dumps(reader.internal_metadata()))
    assert len(fields) < 1_200_000
    assert most < 20 << 20
    frames = json.loads(fields)['frames']
    assert len(frames) == 299
    assert frames[0]['image-description'].startswith('xxx')
    assert frames[49]['image-description'].endswith('... (50000 bytes in all)')
    assert frames[50]['image-description'] == '... (a text of 50000 bytes, left out)'


@pytest.mark.parametrize(('texts', 'whole'), [(3, 3), (4, 3)])
def test_texts_of_frames_up_to_their_bound(opened, limited, texts, whole):
    limited(metadata, reading_frame_texts=30)
    pages = [gray_page(tag270=(ASCII, '123456789'))] * (texts + 1)
    found = [frame['image-description'] for frame in
             opened(tiff_bytes(*pages, after_header=STRIP)).internal_metadata()['frames']]
    assert found.count('123456789') == whole


def test_a_profile_that_many_pages_share_is_read_once(opened):
    reader = opened(shared(34675, UNDEFINED, 200_000, 200))
    profiles, most = peak(reader.icc_profiles)
    assert len(profiles) == 200
    assert len({id(profile) for profile in profiles}) == 1
    assert most < 5 << 20


@pytest.mark.parametrize(('most', 'fits'), [(3000, True), (2999, False)])
def test_different_profiles_have_a_bound(opened, limited, most, fits):
    limited(metadata, reading_profiles=most)
    pages = [gray_page(tag34675=(UNDEFINED, bytes([number]) * 1000)) for number in (1, 2, 3)]
    reader = opened(tiff_bytes(*pages, after_header=STRIP))
    if fits:
        assert [profile[0] for profile in reader.icc_profiles()] == [1, 2, 3]
    else:
        with pytest.raises(TileSourceError, match='3 different ones have 3000 bytes'):
            reader.icc_profiles()


def test_a_profile_in_ever_other_places(opened, limited):
    """Each page begins it one byte later, so that no two are equal."""
    limited(metadata, reading_profiles=1 << 20)
    start = 8 + len(STRIP)
    pages = [gray_page(tag34675=(UNDEFINED, At(start + number, 100_000))) for number in range(200)]
    data = tiff_bytes(*pages, after_header=STRIP + random_pixels((110_000,)).tobytes())
    reader = opened(data)

    def refused():
        with pytest.raises(TileSourceError, match='ICC profiles'):
            reader.icc_profiles()

    assert peak(refused)[1] < 5 << 20


def test_thousands_of_pages_of_other_sizes(opened):
    """Each is an associated image with a name of its own."""
    pages = [gray_page()] + [{256: (4, [70 + number % 7]), 257: (4, [31])}
                             for number in range(5000)]
    reader = opened(tiff_bytes(*pages, after_header=STRIP))
    np.testing.assert_array_equal(level(reader)[..., 0], PIXELS)
    names = reader.associated_names()
    assert len(set(names)) == len(names)


@pytest.mark.parametrize('pictures', [1, 50])
def test_the_steps_that_masks_take_grow_as_their_number(opened, monkeypatch, pictures):
    """Steps are counted, not time."""
    mask = gray_page(tag254=(LONG, [4]), tag258=(SHORT, [1]), tag262=(SHORT, [4]))
    is_mask = page_roles.is_mask
    looked = []
    monkeypatch.setattr(page_roles, 'is_mask', lambda page: looked.append(page) or is_mask(page))

    def steps(masks):
        looked.clear()
        reader = opened(tiff_bytes(*[gray_page()] * pictures, *[mask] * masks,
                                   after_header=STRIP))
        assert reader.frame_count == pictures
        return len(looked)

    assert steps(800) < 9 * steps(100)


def test_directories_that_lie_in_each_other(opened):
    with pytest.raises(TileSourceError, match='entries in all'):
        opened(overlapping_directories(1000, entries=4000))


@pytest.mark.parametrize('content', [
    '<Image><Pixels SizeX="64" SizeY="64" SizeZ="1000000"/></Image>' * 50,
    '<Image><Pixels SizeX="64" SizeY="64" SizeZ="1000000">' +
    '<TiffData PlaneCount="1000000"/>' * 100 + '</Pixels></Image>',
    '<Image><Pixels SizeX="64" SizeY="64" SizeC="2000">' + '<Channel Name="a"/>' * 2000 +
    '</Pixels></Image>'])
def test_ome_texts_that_claim_much(opened, content):
    data = tiff_bytes(gray_page(tag270=(ASCII, f'<OME>{content}</OME>')), after_header=STRIP)
    reader, most = peak(lambda: opened(data))
    assert most < 10 << 20
    assert reader.frame_count == 1
    np.testing.assert_array_equal(level(reader)[..., 0], PIXELS)
    assert len(json.dumps(reader.internal_metadata())) < 1_000_000


@pytest.mark.parametrize('text', [
    'ImageJ=1\n' + ''.join(f'k{number}=v\n' for number in range(20_000)),
    'Aperio' + ''.join(f'|k{number} = v' for number in range(20_000)),
    'ImageJ=1\nchannels=999999999\nslices=999999999\nframes=999999999\nimages=999999999\n'])
def test_fields_of_texts_are_cut(opened, text):
    reader = opened(tiff_bytes(gray_page(tag270=(ASCII, text)), after_header=STRIP))
    assert reader.frame_count == 1
    fields = reader.internal_metadata()
    assert len(json.dumps(fields)) < 300_000
    assert len(fields.get('imagej', fields.get('aperio'))) <= LIMITS.reading_items + 1


KINDS = {'BYTE': 1, 'ASCII': 2, 'SHORT': 3, 'RATIONAL': 5, 'SBYTE': 6, 'UNDEFINED': 7, 'SSHORT': 8,
         'SLONG': 9, 'SRATIONAL': 10, 'FLOAT': 11, 'DOUBLE': 12, 'SLONG8': 17}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('tag', [324, 325])
@pytest.mark.parametrize('compression', [None, 'jpeg', 'deflate', 'lzw'])
def test_places_of_tiles_of_any_type_on_a_later_page(tmp_path, compression, tag, kind):
    pixels = random_pixels((300, 300))
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        for _ in range(2):
            tiff.write(pixels, tile=(64, 64), compression=compression, metadata=None,
                       photometric='minisblack')
    with tifffile.TiffFile(tmp_path / 'a.tif') as tiff:
        place = tiff.pages[1].tags[tag].offset + 2
    overwrite(tmp_path / 'a.tif', place, struct.pack('<H', KINDS[kind]))
    reader = FileReader(tmp_path / 'a.tif')
    for reduction in (0, 2):
        # It may be read, or not; another error fails the test.
        with suppress(TileSourceError):
            level(reader, reduction, frame=1)
    json.dumps(reader.internal_metadata())
    assert reader.icc_profiles() == []
    # The other page is not affected.
    if compression != 'jpeg':
        np.testing.assert_array_equal(level(reader)[..., 0], pixels)


def png(*chunks):
    """A PNG file with chunks (kind, data) before its pixels."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(buffer, 'PNG')
    data = buffer.getvalue()
    more = b''.join(struct.pack('>I', len(body)) + kind + body +
                    struct.pack('>I', zlib.crc32(kind + body)) for kind, body in chunks)
    return data[:33] + more + data[33:]


@needs('pngload')
@pytest.mark.parametrize(('body', 'name', 'text'), [
    (b'Comment\0scale in \xb5m', 'png-comment-0-Comment', 'scale in µm'),
    ('Comment\0scale in µm'.encode(), 'png-comment-0-Comment', 'scale in µm'),
    (b'L\xe4nge\0 7', 'png-comment-0-Länge', ' 7'),
    (b'L\xe4nge\0\xb5', 'png-comment-0-Länge', 'µ')])
def test_texts_of_png_in_latin_1(opened, body, name, text):
    reader = opened(png((b'tEXt', body)))
    fields = reader.internal_metadata()
    json.dumps(fields, allow_nan=False)
    assert fields[name] == text
    np.testing.assert_array_equal(level(reader)[..., 0], PIXELS)


@needs('pngload')
def test_texts_of_png_are_numbered_as_by_libvips(opened):
    compressed = b'A\0\0' + zlib.compress(b'first')
    fields = opened(png((b'zTXt', compressed), (b'tEXt', b'B\0\xb5'))).internal_metadata()
    assert fields['png-comment-0-A'] == 'first'
    assert fields['png-comment-1-B'] == 'µ'


@pytest.mark.parametrize(('chunks', 'found'), [(3, True), (4, False)])
def test_chunks_of_png_are_counted(opened, limited, chunks, found):
    # The header is a chunk, too.
    limited(png_chunks, reading_png_chunks=5)
    reader = opened(png(*[(b'tEXt', b'a\0b')] * chunks,
                        (b'pHYs', struct.pack('>IIB', 5000, 5000, 1))))
    assert reader.pixel_size == ((0.2, 0.2) if found else (None, None))


@pytest.mark.parametrize('tag', [270, 305, 315])
def test_texts_of_tiff_in_latin_1(opened, tag):
    reader = opened(tiff_bytes(gray_page(**{f'tag{tag}': (ASCII, b'0.25 \xb5m\0')}),
                               after_header=STRIP))
    fields = reader.internal_metadata()
    json.dumps(fields, allow_nan=False)
    if tag == 270:
        assert fields['image-description'] == '0.25 µm'


@pytest.mark.parametrize(('most', 'described'), [(5, 4), (4, 3), (1, 0)])
def test_frames_that_are_described_are_counted(opened, limited, most, described):
    limited(metadata, reading_described_frames=most)
    reader = opened(tiff_bytes(*[gray_page(tag270=(ASCII, 'text'))] * 5, after_header=STRIP))
    assert len(reader.internal_metadata()['frames']) == described


def test_texts_and_lists_up_to_their_bound_are_whole():
    text, items = LIMITS.reading_text, LIMITS.reading_items
    assert metadata.json_safe('x' * text) == 'x' * text
    assert metadata.json_safe('x' * (text + 1)) == f'{"x" * text}... ({text + 1} characters in all)'
    assert metadata.json_safe([0] * items) == [0] * items
    cut = [*[0] * items, f'... ({items + 1} items in all)']
    assert metadata.json_safe([0] * (items + 1)) == cut
    assert metadata.json_safe_table([0] * (items + 1)) == cut
    table = {str(number): number for number in range(items + 1)}
    assert len(metadata.json_safe_table(table)) == items + 1
    assert metadata.json_safe_table(table)['...'] == f'({items + 1} items in all)'
    del table['0']
    assert metadata.json_safe_table(table) == table


@pytest.mark.parametrize('compression', [1, 5, 7, 8, 32773])
@pytest.mark.parametrize('place', ['strips', 'tiles'])
def test_pixels_that_no_file_of_the_size_can_hold(opened, compression, place):
    """A strip or tile of 2 GB in a file of a few kB would take minutes and all memory."""
    width, height = 1 << 23, 256
    page = gray_page(width, height, tag259=(SHORT, [compression]), tag279=(LONG, [4096]))
    if place == 'tiles':
        del page[273], page[278], page[279]
        page.update({322: (LONG, [width]), 323: (LONG, [height]), 324: (LONG, [8]),
                     325: (LONG, [4096])})
    with pytest.raises(TileSourceError, match='claims to have'):
        opened(tiff_bytes(page))


# Claims of a directory that no decoder may take at its word


PLANES = {'tag262': (SHORT, [6]), 'tag258': (SHORT, [8, 8, 8]), 'tag277': (SHORT, [3]),
          'tag284': (SHORT, [2]), 'tag273': (LONG, [8, 8, 8]), 'tag279': (LONG, [4096] * 3)}
CHUNKY = {**PLANES, 'tag284': (SHORT, [1]), 'tag273': (LONG, [8]), 'tag279': (LONG, [4096])}


@pytest.mark.parametrize('claims', [
    {'tag277': (SHORT, [0])},
    {'tag277': (LONG, [(1 << 32) - 1])},
    {'tag277': (SHORT, [0]), 'tag284': (SHORT, [2])},
    {'tag277': (SHORT, [0]), 'tag270': (ASCII, '{"shape": [3, 64, 64]}')},
    {'tag270': (ASCII, '{"shape": [999999999, 999999999, 64, 64]}')},
    {'tag322': (LONG, [(1 << 32) - 1]), 'tag323': (LONG, [(1 << 32) - 1])},
    {'tag278': (LONG, [(1 << 32) - 1]), 'tag257': (LONG, [99_000_000]),
     'tag256': (LONG, [99_000_000]), 'tag277': (SHORT, [65535])},
    {'tag258': (SHORT, [3, 4]), 'tag277': (SHORT, [8])},
    {**PLANES, 'tag258': (SHORT, [3, 4, 5])},
    {'tag259': (SHORT, [4]), 'tag258': (SHORT, [1]), 'tag339': (SHORT, [5])},
    {'tag259': (SHORT, [3]), 'tag258': (SHORT, [1]), 'tag292': (LONG, [1 << 31])},
    {'tag259': (SHORT, [4]), 'tag258': (SHORT, [1]), 'tag266': (LONG, [1 << 20])},
    {**CHUNKY, 'tag530': (SHORT, [2])},
    {**CHUNKY, 'tag530': (SHORT, [0, 0])},
    {**CHUNKY, 'tag258': (SHORT, [1, 1, 1]), 'tag530': (SHORT, [1, 1])},
    {**PLANES, 'tag530': (SHORT, [2])},
    {**PLANES, 'tag530': (SHORT, [0, 4])},
    {**CHUNKY, 'tag259': (SHORT, [6]), 'tag530': (SHORT, [2]), 'tag519': (LONG, [8, 8, 8]),
     'tag520': (LONG, [8, 8, 8]), 'tag521': (LONG, [8, 8, 8])},
    {'tag254': (LONG, [4])},
    {'tag254': (LONG, [228]), 'tag258': (SHORT, [40])},
], ids=str)
def test_what_a_directory_claims_raises_no_foreign_error(opened, claims, tmp_path):
    def read():
        reader = opened(tiff_bytes(gray_page(**claims), after_header=STRIP))
        for name in reader.associated_names():
            reader.associated_image(name)
        reader.internal_metadata()
        pixels = reader.read(0, 0, Rect(0, 0, 64, 64).clipped(Rect(0, 0, *reader.size)))
        return pixels.shape[2] == reader.bands

    right, why = found_or_why(read)
    assert right or str(tmp_path / 'a') in why
