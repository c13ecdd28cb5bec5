"""Small files of all kinds, and damaged copies of them."""

import io

import numpy as np
import PIL.Image
import tifffile


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
    for compression in (None, 'deflate', 'lzw', 'jpeg', 'packbits'):
        write(f'strips {compression}', pixels, compression=compression, **rgb)
        write(f'tiles {compression}', pixels, compression=compression, tile=(32, 48), **rgb)
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
    return files


def mutate(data, others, rng):
    """A damaged copy of a file: flipped bits, cuts, strange numbers, parts of other files."""
    data = bytearray(data)
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
