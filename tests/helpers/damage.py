"""Small files of all kinds, and damaged copies of them."""

import io
import struct
from contextlib import suppress

import numpy as np
import PIL.Image
import tifffile

from helpers.heif import heif
from helpers.tiff_by_hand import TILES, tags, write_tiff
from helpers.tiff_bytes import gray_page, tiff_bytes

COMPRESSIONS = ('deflate', 'lzw', 'jpeg', 'packbits', 'zstd', 'webp', 'jpeg2000', 'lerc', 'lzma',
                'jpegxl')


def samples(pixels):
    """Samples of other kinds, and how to write them."""
    first = pixels[..., 0]
    planar = {'photometric': 'rgb', 'planarconfig': 'separate'}
    return [
        (first.astype('uint16') * 257, {'compression': 'deflate', 'predictor': True}),
        (first.astype('float32'), {'compression': 'lzw', 'predictor': True}),
        (first.astype('float16'), {'compression': 'zstd'}),
        (first.astype('float64'), {'compression': 'deflate'}),
        (first > 128, {'compression': 'packbits'}),
        (first.astype('int32'), {'compression': 'lzma', 'byteorder': '>'}),
        (first, {'compression': 'jpeg'}),
        (np.moveaxis(pixels, 2, 0), {**planar, 'compression': 'deflate', 'predictor': True}),
        (np.moveaxis(pixels, 2, 0), {**planar, 'compression': 'jpeg'}),
        (np.moveaxis(pixels, 2, 0), planar),
        (np.dstack([pixels, first]), {'photometric': 'rgb', 'extrasamples': ['unassalpha'],
                                      'compression': 'zstd'}),
        (np.dstack([pixels, first]), {'photometric': 'separated', 'compression': 'lzw'}),
        (pixels, {'photometric': 'rgb', 'compression': 'jpeg',
                  'compressionargs': {'level': 75}, 'subsampling': (2, 2)}),
    ]


def flavours(rng):
    """Pages of kinds that tifffile does not write: their tags, and the bytes of their strips."""
    rows, cols = 48, 64
    area = rows * cols
    gray, rgb = np.zeros((rows, cols), 'u1'), np.zeros((rows, cols, 3), 'u1')
    subsampled = {'t530': (3, [2, 2])}

    def noise(count):
        return rng.integers(0, 256, count, dtype='u1').tobytes()

    jpeg = io.BytesIO()
    PIL.Image.fromarray(rng.integers(0, 256, rgb.shape, dtype='u1')).save(jpeg, 'JPEG')
    found = {f'{bits} bits': (tags(gray, t258=(3, [bits])), [noise(area * bits // 8)])
             for bits in (2, 3, 12, 24, 40)}
    found.update({
        '565': (tags(rgb, t258=(3, [5, 6, 5])), [noise(2 * area)]),
        'units': (tags(rgb, 6, **subsampled), [noise(area * 3 // 2)]),
        'planes of YCbCr': (tags(rgb, 6, t284=(3, [2]), **subsampled),
                            [noise(area), noise(area // 4), noise(area // 4)]),
        'palette': (tags(gray, 3, t258=(3, [4]), t320=(3, list(range(48)))), [noise(area // 2)]),
        'lab': (tags(rgb, 8), [noise(3 * area)]),
        'white is zero': (tags(gray, 0, t266=(3, [2])), [noise(area)]),
        'data bands': (tags(rgb, 1, t338=(3, [0, 0])), [noise(3 * area)]),
        'associated alpha': (tags(np.zeros((rows, cols, 4), 'u1'), 2, t338=(3, [1])),
                             [noise(4 * area)]),
        'old JPEG': (tags(rgb, 6, t259=(3, [6]), t513=(4, [8]),
                          t514=(4, [len(jpeg.getvalue())])), [jpeg.getvalue()]),
        'images': (tags(gray, t270=(2, b'ImageJ=1.0\nimages=3\n')), [noise(3 * area)]),
        'shape': (tags(gray, t270=(2, b'{"shape": [3, 48, 64]}')), [noise(3 * area)]),
    })
    return found


def seeds():
    """Small files of all kinds, by name."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (90, 130, 3), dtype='uint8')
    pixels[20:60, 30:100] = 90
    image = PIL.Image.fromarray(pixels)
    files = {}

    def save(name, kind, picture=image, **kwargs):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **kwargs)
        files[name] = buffer.getvalue()

    def write(name, data, **kwargs):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, data, **kwargs)
        files[name] = buffer.getvalue()

    exif = PIL.Image.Exif()
    exif[274], exif[282], exif[296] = 6, 100.0, 2
    save('jpeg', 'JPEG', exif=exif, dpi=(100, 100))
    save('progressive', 'JPEG', progressive=True)
    save('png', 'PNG', dpi=(100, 100))
    save('palette', 'PNG', image.quantize(16))
    save('webp', 'WEBP', exif=exif)
    save('lossless', 'WEBP', lossless=True)
    animation = [image.quantize(32 + number) for number in range(3)]
    save('gif', 'GIF', animation[0], save_all=True, append_images=animation[1:], duration=50)
    rgb = {'photometric': 'rgb', 'metadata': None}
    gray = {'photometric': 'minisblack', 'metadata': None}
    for compression in (None, *COMPRESSIONS):
        # An imagecodecs may lack one.
        with suppress(KeyError, ValueError, RuntimeError, ImportError):
            write(f'strips {compression}', pixels, compression=compression, rowsperstrip=32, **rgb)
            write(f'tiles {compression}', pixels, compression=compression, tile=(32, 48), **rgb)
    for number, (data, options) in enumerate(samples(pixels)):
        for place in ({'tile': (32, 48)}, {'rowsperstrip': 16}):
            write(f'samples {number} {place}', data, **{**gray, **options, **place})
    write('big', pixels, bigtiff=True, byteorder='>', tile=(32, 48), **rgb)
    write('pages', np.stack([pixels[..., 0]] * 4), photometric='minisblack', metadata=None,
          description='ImageJ=1.0\nimages=4\nslices=4\nunit=um\n')
    write('ome', np.stack([pixels[..., 0]] * 6).reshape(2, 3, 90, 130), ome=True,
          photometric='minisblack', metadata={'axes': 'ZCYX', 'PhysicalSizeX': 0.5})
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as tiff:
        tiff.write(pixels, tile=(32, 48), subifds=1, compression='deflate',
                   description='Aperio|AppMag = 40|MPP = 0.25',
                   extratags=[(274, 'H', 1, 3, True)], **rgb)
        tiff.write(pixels[::2, ::2], tile=(32, 48), compression='deflate', **rgb)
        tiff.write(pixels[::4, ::4], tile=(32, 48), compression='deflate', **rgb)
    files['pyramid'] = buffer.getvalue()
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as tiff:
        tiff.write(pixels, tile=(32, 48), compression='jpeg', **rgb)
        tiff.write(pixels[..., 0] > 64, tile=(32, 48), compression='deflate', subfiletype=4,
                   photometric='mask', metadata=None)
    files['mask'] = buffer.getvalue()
    for name, page in flavours(rng).items():
        for order in '<>':
            buffer = io.BytesIO()
            write_tiff(buffer, page, order=order)
            files[f'{name} {order}'] = buffer.getvalue()
    buffer = io.BytesIO()
    write_tiff(buffer, (tags(pixels[:64, :96], t322=(3, [32]), t323=(3, [32])),
                        [bytes(32 * 32 * 3)] * 6), places=TILES)
    files['tiles by hand'] = buffer.getvalue()
    for compression in ('group3', 'group4', 'tiff_ccitt'):
        save(compression, 'TIFF', image.convert('1'), compression=compression)
    files['heif'] = heif([pixels, pixels[:60], pixels], 1)
    for name, kind in (('tga', 'TGA'), ('sgi', 'SGI'), ('pcx', 'PCX'), ('bmp', 'BMP')):
        save(name, kind)
    leica = ('<?xml version="1.0"?><scn><collection><image><pixels sizeX="64" sizeY="64"/>'
             '<view sizeX="64000" sizeY="64000"/></image></collection></scn>')
    files['maker'] = tiff_bytes(gray_page(
        tag270=(2, leica), tag305=(2, 'MedScan'), tag33560=(4, [8]), tag34412=(7, bytes(64)),
        tag700=(2, '<iScan Magnification="20" ScanRes="0.5"/>'),
        tag51123=(2, '{"PixelSizeUm": 1}'), tag65420=(4, [1]), tag65421=(11, [20.0]),
        tag65449=(2, 'a=b')))
    return files


# Tags, types and values with which an entry of a directory may claim much, or nonsense.
TAGS = (254, 256, 257, 258, 259, 262, 266, 270, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323,
        324, 325, 330, 338, 339, 347, 513, 514, 519, 529, 530, 532, 34675)
VALUES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 24, 32, 40, 64, 128, 255, 256, 8224, 32773, 32803,
          34712, 50000, 50001, 65535, 1 << 20, 1 << 31, (1 << 32) - 1)


def mutate_entry(data, rng):
    """Change an entry of the first directory of a classic TIFF file, if it is one."""
    order = {b'II*\0': '<', b'MM\0*': '>'}.get(bytes(data[:4]))
    if order is None or len(data) < 8:
        return
    start = struct.unpack_from(order + 'I', data, 4)[0]
    if start + 2 > len(data):
        return
    count = struct.unpack_from(order + 'H', data, start)[0]
    at = start + 2 + 12 * int(rng.integers(0, max(1, count)))
    if at + 12 > len(data):
        return
    value, kind = int(rng.choice(VALUES)), int(rng.integers(0, 5))
    if kind == 0:
        struct.pack_into(order + 'H', data, at, int(rng.choice(TAGS)))
    elif kind == 1:
        struct.pack_into(order + 'H', data, at + 2, int(rng.integers(0, 19)))
    elif kind == 2:
        struct.pack_into(order + 'I', data, at + 4, value)
    elif kind == 3:
        struct.pack_into(order + 'I', data, at + 8, value)
    else:
        struct.pack_into(order + 'H', data, at + 8, value & 0xFFFF)


def mutate(data, others, rng):
    """A damaged copy of a file: flipped bits, cuts, strange numbers, parts of other files."""
    data = bytearray(data)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            mutate_entry(data, rng)
        if rng.random() < 0.8:
            return bytes(data)
    # Headers and directories are where a little damage does the most.
    near = len(data) if rng.random() < 0.4 else min(len(data), 600)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(0, near))
        if rng.random() < 0.3:
            place = len(data) - 1 - place
        kind = rng.integers(0, 6)
        if kind == 0:
            data[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            size = int(rng.choice([1, 2, 4, 8]))
            strange = rng.choice([0, 1, 255, 256, 65535, 1 << 31, (1 << 32) - 1, len(data)])
            value = int(strange) & ((1 << 8 * size) - 1)
            data[place:place + size] = value.to_bytes(size, 'little')
        elif kind == 2 and rng.random() < 0.3:
            del data[place:]
        elif kind == 3:
            other = others[int(rng.integers(0, len(others)))]
            start = int(rng.integers(0, len(other)))
            size = int(rng.integers(1, 64))
            data[place:place + size] = other[start:start + size]
        elif kind == 4:
            del data[place:place + int(rng.integers(1, 32))]
        else:
            data[place:place] = bytes(rng.integers(0, 256, int(rng.integers(1, 16)), 'uint8'))
        if not data:
            return b'\0'
        near = min(near, len(data))
    return bytes(data)
