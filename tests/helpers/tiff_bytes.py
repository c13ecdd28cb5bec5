"""Little-endian classic TIFF files made tag by tag, including invalid ones."""

import struct

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, FLOAT, DOUBLE, IFD = 1, 2, 3, 4, 5, 7, 11, 12, 13
_CODES = {BYTE: 'B', ASCII: 'B', SHORT: 'H', LONG: 'I', UNDEFINED: 'B', FLOAT: 'f', DOUBLE: 'd',
          IFD: 'I', 6: 'b', 8: 'h', 9: 'i'}


class At:
    """
    The values of a tag lie at an offset of the file, which several tags may share.

    :param offset: where they begin.
    :param count: how many there are.
    """

    def __init__(self, offset, count):
        self.offset = offset
        self.count = count


def packed(kind, values):
    """The bytes of values and their number."""
    if isinstance(values, str):
        values = values.encode() + b'\0'
    if isinstance(values, bytes):
        return values, len(values)
    if kind == RATIONAL:
        return struct.pack(f'<{2 * len(values)}I', *(part for pair in values for part in pair)), \
            len(values)
    return struct.pack(f'<{len(values)}{_CODES[kind]}', *values), len(values)


def gray_page(width=64, height=64, **more):
    """The tags of a page of one strip, uncompressed, whose pixels lie at offset 8."""
    tags = {256: (LONG, [width]), 257: (LONG, [height]), 258: (SHORT, [8]), 259: (SHORT, [1]),
            262: (SHORT, [1]), 273: (LONG, [8]), 277: (SHORT, [1]), 278: (LONG, [height]),
            279: (LONG, [width * height])}
    tags.update({int(tag.removeprefix('tag')): value for tag, value in more.items()})
    return tags


def tiff_bytes(*pages, after_header=bytes(64 * 64)):
    """
    A TIFF file.

    :param pages: dictionaries of tag: (kind, values), values being bytes, a text, a list of
        numbers (of pairs for RATIONAL) or ``At``.
    :param after_header: what lies from offset 8 on.
    """
    data = bytearray(b'II*\0\0\0\0\0') + after_header
    link = 4
    for page in pages:
        entries = []
        for tag, (kind, values) in sorted(page.items()):
            if isinstance(values, At):
                value, count = struct.pack('<I', values.offset), values.count
            else:
                value, count = packed(kind, values)
                if len(value) > 4:
                    data += bytes(len(data) % 2)
                    value, stored = struct.pack('<I', len(data)), value
                    data += stored
            entries.append(struct.pack('<HHI', tag, kind, count) + value.ljust(4, b'\0'))
        data += bytes(len(data) % 2)
        data[link:link + 4] = struct.pack('<I', len(data))
        data += struct.pack('<H', len(entries)) + b''.join(entries)
        link = len(data)
        data += bytes(4)
    return bytes(data)


def overlapping_directories(count, entries=1000):
    """
    Directories that lie in each other: each begins one entry behind the one before.

    The value of an entry ends in the number of entries of the directory that begins there,
    and the entry behind a directory holds the offset of the next.
    """
    start = 0x30000
    total = count + entries + 1
    table = []
    for number in range(total):
        tag, kind = 1000 + number, SHORT
        follows = number - entries
        if 0 <= follows < count:
            offset = start + 12 * (follows + 1) if follows + 1 < count else 0
            tag, kind = offset & 0xffff, offset >> 16
        table.append([tag, kind])
    # Every directory needs a size: in entries that all of them share.
    table[entries - 2:entries] = [[256, SHORT], [257, SHORT]]
    body = struct.pack('<H', entries) + b''.join(
        struct.pack('<HHIHH', tag, kind, 1, 64, entries) for tag, kind in table)
    data = bytearray(tiff_bytes(gray_page()))
    link = struct.unpack_from('<I', data, 4)[0]
    link += 2 + 12 * struct.unpack_from('<H', data, link)[0]
    data[link:link + 4] = struct.pack('<I', start)
    return bytes(data.ljust(start, b'\0')) + body
