"""
Read the chunks of a PNG file that come before its pixels (PNG 1.2, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..base.files import read_at
from ..base.limits import LIMITS
from ..tiff.directories import decode_text

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_TEXTS = frozenset({b'tEXt', b'zTXt', b'iTXt'})


class Chunk(NamedTuple):
    """
    A chunk.

    :param kind: such as b'pHYs'.
    :param offset: that of its data in the file.
    :param size: the number of bytes of its data.
    """

    kind: bytes
    offset: int
    size: int


def png_chunks(descriptor: int) -> Iterator[Chunk]:
    """Iterate over the chunks before IDAT; a damaged file may end early."""
    offset = len(_SIGNATURE)
    for _ in range(LIMITS.reading_png_chunks):
        head = read_at(descriptor, 8, offset)
        if len(head) < 8 or head[4:] == b'IDAT':
            return
        size = int.from_bytes(head[:4], 'big')
        yield Chunk(head[4:], offset + 8, size)
        offset += 12 + size


def png_texts(descriptor: int) -> Iterator[tuple[int, str, str]]:
    """
    Iterate over the tEXt chunks, which libvips decodes as UTF-8.

    :returns: yields the number of a text chunk (of any kind), its keyword and its text.
        The standard requires Latin-1, but some programs write UTF-8.
    """
    texts = (chunk for chunk in png_chunks(descriptor) if chunk.kind in _TEXTS)
    for number, chunk in enumerate(texts):
        if chunk.kind == b'tEXt':
            data = read_at(descriptor, min(chunk.size, LIMITS.reading_text), chunk.offset)
            key, _, text = data.partition(b'\0')
            yield number, decode_text(key), decode_text(text)
