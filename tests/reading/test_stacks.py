"""Damaged animations: frames before the damage can be read."""

import io

import numpy as np
import PIL.Image
import pytest
from large_image.exceptions import TileSourceError

from helpers.around import needs
from helpers.pixels import random_pixels
from helpers.reading import level, level_by_tiles
from large_image_source_vips.reading import stored_levels
from large_image_source_vips.reading.reader import FileReader

ROWS, COLS = 60, 83
FRAMES = 5


def animation(kind):
    """The bytes of an animation, and its frames as Pillow reads them."""
    frames = [PIL.Image.fromarray(random_pixels((ROWS, COLS, 3), seed=seed))
              for seed in range(FRAMES)]
    if kind == 'GIF':
        frames = [frame.quantize(200) for frame in frames]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=100,
                   **({'lossless': True} if kind == 'WEBP' else {'disposal': 1}))
    return buffer.getvalue(), [np.asarray(frame.convert('RGB')) for frame in frames]


def gif_with_damage(data, frame):
    """The same with codes in the data of a frame that its table does not have yet."""
    data = bytearray(data)
    starts, at = [], 0
    # An image is announced by a comma; Pillow writes a graphic control extension before it.
    while (at := data.find(b'\x21\xf9\x04', at)) >= 0:
        starts.append(at + 8)
        at += 8
    start = starts[frame]
    assert data[start] == 0x2c
    flags = data[start + 9]
    # The code size, the length of the first block, its data.
    block = start + 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    data[block + 1:block + 1 + data[block]] = b'\xff' * data[block]
    return bytes(data)


def webp_with_damage(data, frame):
    """The same with code lengths in the data of a frame that make no Huffman code."""
    data = bytearray(data)
    at = -1
    for _ in range(frame + 1):
        at = data.index(b'VP8L', at + 1)
    # The size of the chunk, the signature and the size of the image.
    data[at + 13:at + 25] = b'\xff' * 12
    return bytes(data)


DAMAGE = [pytest.param('GIF', gif_with_damage, marks=needs('gifload'), id='gif'),
          pytest.param('WEBP', webp_with_damage, marks=needs('webpload'), id='webp')]


@pytest.mark.parametrize('frame', [1, FRAMES - 1])
@pytest.mark.parametrize(('kind', 'damaged'), DAMAGE)
def test_the_frames_before_the_damage(tmp_path, kind, damaged, frame):
    data, expected = animation(kind)
    (tmp_path / 'a').write_bytes(damaged(data, frame))
    reader = FileReader(tmp_path / 'a')
    assert reader.frame_count == FRAMES
    for _ in range(2):
        for number in range(frame):
            found = level(reader, frame=number)
            np.testing.assert_array_equal(found[..., :3], expected[number])
            np.testing.assert_array_equal(level_by_tiles(reader, frame=number, side=32), found)
            level(reader, 1, frame=number)
        with pytest.raises(TileSourceError, match=f'frame {frame}'):
            level(reader, frame=frame)


@pytest.mark.parametrize(('kind', 'damaged'), DAMAGE)
def test_the_first_frame_is_damaged(tmp_path, kind, damaged):
    (tmp_path / 'a').write_bytes(damaged(animation(kind)[0], 0))
    with pytest.raises(TileSourceError):
        level(FileReader(tmp_path / 'a'))


@pytest.mark.parametrize('kind', ['GIF', 'WEBP'])
def test_a_whole_animation_is_decoded_once(tmp_path, monkeypatch, kind):
    data, expected = animation(kind)
    (tmp_path / 'a').write_bytes(data)
    opened = []
    decoder = stored_levels.Decoder
    monkeypatch.setattr(stored_levels, 'Decoder', lambda file, stored: opened.append(
        stored.opening) or decoder(file, stored))
    reader = FileReader(tmp_path / 'a')
    for number in reversed(range(FRAMES)):
        np.testing.assert_array_equal(level(reader, frame=number)[..., :3], expected[number])
    assert len(set(opened)) == 1
