"""Images to upload to Girder, and their expected tiles."""

import io

import numpy as np
import PIL.Image
import tifffile

TILE = 256


def numbered_pixels(rows, cols, seed=0):
    """RGB pixels (rows, cols, 3), smooth enough to compress, alike in no two tiles."""
    y, x = np.mgrid[:rows, :cols]
    place = (y // TILE * 31 + x // TILE * 7 + seed * 13) % 256
    return np.stack([(x + seed) % 256, (y * 3) % 256, place], axis=-1).astype('uint8')


def tiff_bytes(*pages, **kwargs):
    """A TIFF file of tiles without loss, whose pages are arrays."""
    stream = io.BytesIO()
    options = {'photometric': 'rgb', 'tile': (TILE, TILE), 'compression': 'deflate', **kwargs}
    with tifffile.TiffWriter(stream) as tiff:
        for page in pages:
            tiff.write(page, **options)
    return stream.getvalue()


def picked(pixels, reduction):
    """A level of a ``pyramid_bytes``: every so-manieth pixel, none averaged."""
    return pixels[::2 ** reduction, ::2 ** reduction]


def pyramid_bytes(pixels):
    """
    A TIFF pyramid whose levels are known to the last bit.

    :param pixels: an array (rows, cols, 3).
    """
    reductions = (max(pixels.shape) - 1) // TILE
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as tiff:
        for reduction in range(reductions.bit_length() + 1):
            tiff.write(picked(pixels, reduction), photometric='rgb', tile=(TILE, TILE),
                       compression='deflate', subifds=0,
                       subfiletype=1 if reduction else 0, metadata=None)
    return stream.getvalue()


def slide_bytes(pixels, label):
    """A slide as of an Aperio scanner: the image, a thumbnail and a label."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as tiff:
        for image, tile, text in (
                (pixels, (240, 240), 'Aperio Image|AppMag = 40|MPP = 0.25'),
                (picked(pixels, 3), None, 'Aperio Image thumbnail'),
                (label, None, f'Aperio Image\nlabel {label.shape[1]}x{label.shape[0]}')):
            tiff.write(image, photometric='rgb', tile=tile, description=text, metadata=None,
                       compression='deflate', subfiletype=0 if tile else 1)
    return stream.getvalue()


def ome_bytes(frames):
    """
    An OME-TIFF file.

    :param frames: an array (channels, planes, rows, cols).
    """
    stream = io.BytesIO()
    tifffile.imwrite(stream, frames, ome=True, photometric='minisblack', metadata={
        'axes': 'CZYX', 'Channel': {'Name': [f'stain {c}' for c in range(len(frames))]}})
    return stream.getvalue()


def png_bytes(pixels):
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, 'PNG')
    return stream.getvalue()


def decoded(data):
    """The pixels of an encoded image, (rows, cols, bands)."""
    pixels = np.asarray(PIL.Image.open(io.BytesIO(data)))
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def tile_of(level, x, y):
    """The piece of a level that is its tile in a column and a row."""
    return level[y * TILE:(y + 1) * TILE, x * TILE:(x + 1) * TILE]
