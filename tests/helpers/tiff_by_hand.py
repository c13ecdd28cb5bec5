"""TIFF files made byte by byte, with common errors of writers."""

import struct

_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 16: 8}
_CODES = {1: 'B', 3: 'H', 4: 'I', 5: 'I', 16: 'Q'}
STRIPS, TILES = (273, 279), (324, 325)


def tags(pixels, photometric=None, **others):
    """
    The tags of an array (rows, cols) or (rows, cols, samples) of unsigned integers.

    :param others: more tags, or others; ``t330=(4, [...])`` is tag 330 of type 4; None removes
        a tag.
    """
    rows, cols = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    if photometric is None:
        photometric = 2 if samples >= 3 else 1
    found = {256: (4, [cols]), 257: (4, [rows]), 258: (3, [8 * pixels.itemsize] * samples),
             259: (3, [1]), 262: (3, [photometric]), 277: (3, [samples]), 278: (4, [rows])}
    found.update({int(name[1:]): value for name, value in others.items()})
    return {tag: value for tag, value in found.items() if value is not None}


def write_tiff(path, *pages, order='<', places=STRIPS, counts=True, in_order=True, last=0):
    """
    Write a TIFF file.

    :param path: of the file, or an open one.
    :param pages: pairs of tags, by number, and the bytes of each strip or tile.
    :param order: the byte order.
    :param places: the tags of offsets and of byte counts.
    :param counts: whether byte counts are listed; 'zero' lists zeros.
    :param in_order: whether the tags are in ascending order.
    :param last: the offset that ends the chain of directories, or the number of a page to
        which it leads back, as ``('page', 0)``.
    """
    data = bytearray({'<': b'II*\0', '>': b'MM\0*'}[order] + bytes(4))
    link, starts = 4, []
    for found, chunks in pages:
        offsets = []
        for chunk in chunks:
            offsets.append(len(data))
            data += chunk + b'\0' * (len(chunk) % 2)
        entries = {**found, places[0]: (4, offsets)}
        if counts:
            entries[places[1]] = (4, [0 if counts == 'zero' else len(chunk) for chunk in chunks])
        fields = []
        for tag, (kind, values) in sorted(entries.items(), reverse=not in_order):
            raw = values if isinstance(values, bytes) else struct.pack(
                f'{order}{len(values)}{_CODES[kind]}', *values)
            value = raw.ljust(4, b'\0')
            if len(raw) > 4:
                value = struct.pack(order + 'I', len(data))
                data += raw + b'\0' * (len(raw) % 2)
            fields.append(struct.pack(
                order + 'HHI', tag, kind, len(raw) // _WIDTHS[kind]) + value)
        starts.append(len(data))
        struct.pack_into(order + 'I', data, link, len(data))
        data += struct.pack(order + 'H', len(fields)) + b''.join(fields)
        link = len(data)
        data += bytes(4)
    struct.pack_into(order + 'I', data, link, starts[last[1]] if isinstance(last, tuple) else last)
    if hasattr(path, 'write'):
        path.write(data)
    else:
        with open(path, 'wb') as file:
            file.write(data)
    return starts
