"""
Real TIFF files of other projects are read correctly, or refused with the reason.

``tifffile`` and Pillow are the oracles (``helpers.oracles``); a frame is right if it equals
what one of them sees.  The tables list all files for which that is not enough, and why.
The files are small, and many are flawed on purpose.  They are not part of this project: the
tests are skipped where they are not, and the kinds of flaws are tested on files made here in
``test_layouts``, ``test_samples``, ``test_flavours`` and ``test_directories``.
"""

import contextlib
import functools
import re
import sys
import zlib

import numpy as np
import pytest
import tifffile
from large_image.exceptions import TileSourceError

from helpers import oracles
from helpers.around import IMAGES
from helpers.reading import level
from large_image_source_vips.reading.reader import FileReader

CORPUS = IMAGES / 'corpus'
NAMES = sorted(path.name for path in CORPUS.glob('*') if path.suffix.lower() in {'.tif', '.tiff'})
NUMBERS = {name[:3]: name for name in NAMES}
# Of the files that an oracle decodes, the share that must be read right.
SHARE = 0.97

# Files that are refused: by number, a part of the reason, and why that is right though an
# oracle may decode them.
REFUSED = {
    '038': ('CCITT fax 3', 'line 35 ends early; tifffile and Pillow show what is left of it'),
    '043': ('CCITT fax 4', 'rows are missing; tifffile and Pillow make them up'),
    '050': ('JPEG', 'its JPEGTables end within a table; tifffile and Pillow make up the rest'),
    '052': ('JPEG', 'made by a fuzzer; the data of two bands ends early'),
    '053': ('JPEG', 'made by a fuzzer'),
    '054': ('JPEG', 'made by a fuzzer'),
    '055': ('JPEG', 'made by a fuzzer'),
    '061': ('no image size', 'no pixels'),
    '062': ('no image size', 'no pixels'),
    '126': ('no image size', 'no pixels'),
    '127': ('no image size', 'no pixels'),
    '130': ('no image size', 'no pixels'),
    '180': ('JPEG data of 12 bits', 'no decoder of it reports damage'),
    '181': ('JPEG data of 12 bits', 'no decoder of it reports damage'),
}


def _highest_byte_first(path):
    """24-bit samples of a big-endian file, whose bytes tifffile exchanges."""
    return tifffile.imread(path).byteswap()


def _swapped_565(path):
    """Pixels of 5, 6 and 5 bits of a big-endian file."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        size = page.tile if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        rows, cols = (-(-extent // each) for extent, each in zip(page.shape[:2], size, strict=True))
        found = np.zeros((rows * size[0], cols * size[1], 3), np.uint8)
        for number, (offset, count) in enumerate(
                zip(page.dataoffsets, page.databytecounts, strict=True)):
            tiff.filehandle.seek(offset)
            data = zlib.decompress(tiff.filehandle.read(count))
            pixels = np.frombuffer(data, '>u2').reshape(-1, size[1])
            top, left = number // cols * size[0], number % cols * size[1]
            for band, (shift, bits) in enumerate([(11, 5), (5, 6), (0, 5)]):
                value = pixels >> shift & (1 << bits) - 1
                found[top:top + len(pixels), left:left + size[1], band] = (
                    value << 8 - bits | value >> 2 * bits - 8)
        return found[:page.shape[0], :page.shape[1]]


# Files that an oracle gets wrong: by number, what the first frame is.
OTHERWISE = {
    # 24 bits in a big-endian file: tifffile gives values beyond 2 ** 24.
    '186': _highest_byte_first,
    '196': _highest_byte_first,
    # 5, 6 and 5 bits in a big-endian file: tifffile reads little-endian numbers, which makes
    # noise of the ramps in these pictures.
    '190': _swapped_565,
    '191': _swapped_565,
}


@functools.cache
def oracle_frames(name):
    """What each oracle sees in each frame, and the numbers of frames that it may have."""
    seen, counts = [], set()
    for frames in (oracles.pages_by_tifffile, oracles.frames_by_pillow):
        try:
            found = frames(CORPUS / name)
        except Exception:  # noqa: BLE001  (flawed files make oracles fail in many ways)
            continue
        seen.append(found)
        counts.add(len(found))
    with contextlib.suppress(Exception):
        counts.update(oracles.images_by_tifffile(CORPUS / name)[:1])
    return seen, counts


def is_decoded(name):
    """Whether an oracle decodes the first frame."""
    return any(frames and frames[0] is not None for frames in oracle_frames(name)[0])


@functools.cache
def fault(name):
    """What is wrong with how a file is read, '' if nothing is, 'refused: ...' if it is refused."""
    try:
        reader = FileReader(CORPUS / name)
        frames = [level(reader, frame=frame) for frame in range(reader.frame_count)]
        for key in reader.associated_names():
            reader.associated_image(key)
    except TileSourceError as exc:
        return f'refused: {exc}'
    seen, counts = oracle_frames(name)
    if name[:3] in OTHERWISE:
        right = np.squeeze(OTHERWISE[name[:3]](CORPUS / name))
        return '' if np.array_equal(np.squeeze(frames[0]), right) else 'frame 0 is not so'
    if len(frames) not in counts:
        return f'{len(frames)} frames, not {sorted(counts)}'
    for number, pixels in enumerate(frames):
        candidates = [found[number] for found in seen
                      if number < len(found) and found[number] is not None]
        differences = [difference(pixels, candidate) for candidate in candidates]
        if candidates and all(differences):
            return f'frame {number} is {"; ".join(differences)}'
    return ''


def difference(pixels, seen):
    """How pixels differ from what an oracle sees, '' if they do not."""
    if pixels.shape != seen.pixels.shape or pixels.dtype != seen.pixels.dtype:
        return (f'{pixels.shape} {pixels.dtype}, but {seen.pixels.shape} {seen.pixels.dtype} '
                f'by {seen.by}')
    if seen.tolerance:
        off = np.abs(pixels.astype(float) - seen.pixels).max()
    else:
        off = 0 if np.array_equal(pixels, seen.pixels, equal_nan=pixels.dtype.kind == 'f') else 1
    return '' if off <= seen.tolerance else f'not as by {seen.by}'


needs_files = pytest.mark.skipif(
    not NAMES, reason=f'no files in {CORPUS} (set LARGE_IMAGE_SOURCE_VIPS_IMAGES)')


@needs_files
@pytest.mark.parametrize('name', NAMES or ['none'])
def test_a_real_file_is_read_right_or_refused_with_the_reason(name):
    number, found = name[:3], fault(name)
    if number in REFUSED:
        reason, _ = REFUSED[number]
        assert found.startswith('refused: ')
        assert re.search(reason, found)
    elif is_decoded(name) or number in OTHERWISE:
        assert not found
    else:
        # Neither oracle can tell.  What is read can at least be read without other errors.
        assert not found or found.startswith('refused: ')


@needs_files
def test_nearly_all_files_that_an_oracle_decodes_are_read_right():
    decoded = [name for name in NAMES if is_decoded(name)]
    faults = {name: fault(name) for name in decoded}
    right = [name for name, found in faults.items() if not found]
    share = len(right) / len(decoded)
    sys.stdout.write(f'{len(right)} of {len(decoded)} files are read right, {share:.1%}; oracles: '
                     f'{oracles.VERSIONS}\n')
    assert share >= SHARE, [(name, found) for name, found in faults.items() if found]
