"""HEIF files with several images, assembled from AVIF files with one (ISO/IEC 23008-12)."""

import io
import struct

import PIL.Image


def box(kind, *contents):
    body = b''.join(contents)
    return struct.pack('>I4s', 8 + len(body), kind) + body


def full_box(kind, *contents, version=0):
    return box(kind, struct.pack('>I', version << 24), *contents)


def boxes(data):
    """The boxes in some bytes: pairs of a kind and a content."""
    found, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from('>I4s', data, at)
        found.append((kind, data[at + 8:at + size]))
        at += size
    return found


def inside(data, *path):
    """The content of a box in boxes."""
    for kind in path:
        data = dict(boxes(data))[kind]
        if kind == b'meta':
            data = data[4:]
    return data


def hevc_configuration():
    """A decoder configuration of HEVC (ISO/IEC 14496-15) without parameter sets."""
    return box(b'hvcC', bytes([1, 1]) + bytes.fromhex('60000000') + bytes.fromhex('900000000000') +
               bytes([93]) + bytes.fromhex('f000fcfdf8f800000f00'))


def one_image(picture, **options):
    """The properties and the data of an image, as Pillow encodes them to AVIF."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).save(buffer, 'AVIF', **options)
    data = buffer.getvalue()
    properties = [box(kind, content) for kind, content in
                  boxes(inside(data, b'meta', b'iprp', b'ipco'))]
    return properties, dict(boxes(data))[b'mdat']


def heif(pictures, primary=0, kind=b'av01', brand=b'avif', damage=None, **options):
    """
    A HEIF file.

    :param pictures: arrays (rows, cols, 3).
    :param primary: the number of the primary image.
    :param kind: the type of the items: b'hvc1' for HEVC.
    :param damage: changes the encoded data of an image.
    """
    images = [one_image(picture, **options) for picture in pictures]
    if damage:
        images = [(properties, damage(data)) for properties, data in images]
    if kind == b'hvc1':
        images = [([hevc_configuration() if one[4:8] == b'av1C' else one for one in properties],
                   data) for properties, data in images]
    identifiers = range(1, len(images) + 1)
    everything, associations = [], []
    for identifier, (properties, _) in zip(identifiers, images, strict=True):
        numbers = range(len(everything) + 1, len(everything) + len(properties) + 1)
        everything += properties
        associations.append(struct.pack('>HB', identifier, len(properties)) + bytes(
            0x80 | number if properties[index][4:8] in {b'av1C', b'hvcC'} else number
            for index, number in enumerate(numbers)))
    handler = full_box(b'hdlr', struct.pack('>I4s12s', 0, b'pict', b''), b'\0')
    items = full_box(b'iinf', struct.pack('>H', len(images)), *(
        full_box(b'infe', struct.pack('>HH4s', identifier, 0, kind), b'\0', version=2)
        for identifier in identifiers))
    properties = box(b'iprp', box(b'ipco', *everything),
                     full_box(b'ipma', struct.pack('>I', len(images)), *associations))

    def meta(start):
        places, at = [], start
        for identifier, (_, data) in zip(identifiers, images, strict=True):
            places.append(struct.pack('>HHHII', identifier, 0, 1, at, len(data)))
            at += len(data)
        places = full_box(b'iloc', struct.pack('>BBH', 0x44, 0, len(images)), *places)
        return full_box(b'meta', handler, full_box(b'pitm', struct.pack('>H', primary + 1)),
                        places, items, properties)

    head = box(b'ftyp', brand, bytes(4), b'mif1', brand)
    start = len(head) + len(meta(0)) + 8
    return head + meta(start) + box(b'mdat', *(data for _, data in images))
