"""
Make the table of formats from real runs.

``python docs/make_formats.py NAME`` makes files of every format that can be
made here, reads them with this libvips, notes under NAME what came out in
``formats.json``, and writes ``formats.rst`` anew from all the runs noted there.
"""

import json
import os
import pathlib
import sys
import tempfile
import warnings

import numpy as np
import PIL.Image
import pyvips
import tifffile
from large_image.exceptions import TileSourceError

from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.reading.known_formats import has_loader
from large_image_source_vips.reading.reader import FileReader

HERE = pathlib.Path(__file__).resolve().parent
IMAGES = pathlib.Path(os.environ.get(
    'LARGE_IMAGE_SOURCE_VIPS_IMAGES', HERE.parents[1] / 'shared' / 'images'))

INTRODUCTION = """\
Formats
=======

What is read of each format, as found by ``docs/make_formats.py`` when it made
files and read them with the versions of libvips named at the head of the
columns.  *Exact* means equal to what was written, sample by sample; *within n*,
that no sample was further off (lossy formats).  The numbers are those of the
files made: their frames, and the reductions that are stored or decoded at less
cost (1 is half the size).  "no loader" and "no codec" are answered with an
error that says which part is missing and how to get it.

"""


def _smooth(rows=1024, cols=1536):
    y, x = np.mgrid[:rows, :cols]
    bands = [127 + 80 * np.sin(x / (61 + 9 * band)) + 40 * np.cos(y / (37 + band))
             for band in range(3)]
    return np.clip(np.stack(bands, axis=-1), 0, 255).astype('uint8')


PIXELS = _smooth()
SIXTEEN = PIXELS.astype('uint16') * 257
IMAGE = PIL.Image.fromarray(PIXELS)
SVG = ('<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60">'
       '<rect width="9" height="9"/></svg>')
PDF = (b'%PDF-1.4\n1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj\n'
       b'2 0 obj <</Type/Pages/Count 2/Kids[3 0 R 3 0 R]>> endobj\n'
       b'3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]>> endobj\n'
       b'trailer <</Root 1 0 R>>\n')


def _tiff(**kwargs):
    def make(path):
        tifffile.imwrite(path, PIXELS, photometric='rgb', metadata=None, **kwargs)
        return PIXELS
    return make


def _frames(tile=None, **kwargs):
    def make(path):
        pixels = np.stack([SIXTEEN[..., 0] + number for number in range(6)])
        tifffile.imwrite(path, pixels.reshape(2, 3, *pixels.shape[1:]), photometric='minisblack',
                         tile=tile, **kwargs)
        return pixels[0][..., np.newaxis]
    return make


def _pillow(**kwargs):
    def make(path):
        IMAGE.save(path, **kwargs)
        return PIXELS
    return make


def _animation(path):
    images = [IMAGE.quantize(64 + number) for number in range(4)]
    images[0].save(path, save_all=True, append_images=images[1:])
    return np.asarray(images[0].convert('RGB'))


def _libvips(saver, pixels=PIXELS, **kwargs):
    def make(path):
        image = pyvips.Image.new_from_array(pixels)
        if pixels.dtype == np.uint16:
            image = image.copy(interpretation='rgb16')
        if saver == 'radsave':
            image = image.cast('float').copy(interpretation='scrgb')
        getattr(image, saver)(str(path), **kwargs)
        return pixels
    return make


def _bytes(data):
    def make(path):
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return make


def _real(name):
    def make(path):
        path.write_bytes((IMAGES / name).read_bytes())
    return make


# What it is, the suffix, the loader it takes, and what makes a file of it.
FORMATS = [
    *((f'TIFF, strips, {name or "uncompressed"}', '.tif', 'tiffload', _tiff(compression=name))
      for name in (None, 'lzw', 'deflate', 'packbits')),
    *((f'TIFF, tiles, {name or "uncompressed"}', '.tif', 'tiffload',
       _tiff(compression=name, tile=(256, 256)))
      for name in (None, 'lzw', 'deflate', 'webp', 'zstd', 'lzma', 'jpeg2000', 'lerc')),
    ('TIFF, tiles, JPEG of quality 95', '.tif', 'tiffload',
     _tiff(compression='jpeg', compressionargs={'level': 95}, tile=(256, 256))),
    ('BigTIFF, tiles', '.tif', 'tiffload', _tiff(bigtiff=True, tile=(256, 256))),
    ('TIFF, pyramid of pages', '.tif', 'tiffload',
     _libvips('tiffsave', tile=True, pyramid=True)),
    ('TIFF, pyramid of sub-IFDs', '.tif', 'tiffload',
     _libvips('tiffsave', tile=True, pyramid=True, subifd=True)),
    ('OME-TIFF, 16 bit', '.ome.tif', 'tiffload', _frames(metadata={'axes': 'ZCYX'}, ome=True)),
    ('ImageJ hyperstack, 16 bit', '.tif', 'tiffload', _frames(imagej=True)),
    ('TIFF, equal tiled pages', '.tif', 'tiffload', _frames(tile=(256, 256))),
    ('Aperio slide', '.svs.tiff', 'tiffload', _real('CMU-1-Small-Region.tiff')),
    ('JPEG', '.jpg', 'jpegload', _pillow(quality=95)),
    ('PNG', '.png', 'pngload', _pillow()),
    ('PNG, 16 bit', '.png', 'pngload', _libvips('pngsave', SIXTEEN)),
    ('WebP, lossless', '.webp', 'webpload', _pillow(lossless=True)),
    ('GIF, animated', '.gif', 'gifload', _animation),
    ('AVIF', '.avif', 'heifload', _pillow(quality=90)),
    ('JPEG 2000, lossless', '.jp2', 'jp2kload',
     _libvips('jp2ksave', lossless=True, tile_width=256, tile_height=256)),
    ('JPEG XL, lossless', '.jxl', 'jxlload', _libvips('jxlsave', lossless=True)),
    ('PDF, 300 dpi', '.pdf', 'pdfload', _bytes(PDF)),
    ('SVG', '.svg', 'svgload', _bytes(SVG)),
    ('FITS', '.fits', 'fitsload', _libvips('fitssave')),
    ('PPM', '.ppm', 'ppmload', _libvips('ppmsave')),
    ('Radiance', '.hdr', 'radload', _libvips('radsave')),
    ('BMP', '.bmp', 'magickload', _pillow()),
    ('TGA', '.tga', 'magickload', _pillow()),
    ('SGI', '.sgi', 'magickload', _pillow()),
    ('PCX', '.pcx', 'magickload', _pillow()),
    ('libvips', '.v', 'vipsload', _libvips('vipssave')),
]


def describe(path, expected, wanted):
    """What reading a file gives, in a few words."""
    try:
        reader = FileReader(path)
        pixels = reader.read(0, 0, Rect(0, 0, *reader.size))
    except TileSourceError as exc:
        return 'no codec' if 'lacks that codec' in str(exc) else f'error: {exc}'
    if reader.internal_metadata()['vips-loader'] != wanted:
        return 'by ' + reader.internal_metadata()['vips-loader']
    words = []
    if expected is None:
        words.append('read')
    else:
        off = np.abs(pixels[..., :expected.shape[2]].astype('float64') - expected).max()
        words.append(f'within {off:.2g}' if off else 'exact')
    if reader.frame_count > 1:
        axes = [f'{axis.removeprefix("Index")}' for axis in reader.frame_axes()[0]]
        words.append(f'{reader.frame_count} frames' + (f' ({", ".join(axes)})' if axes else ''))
    stored = [str(reduction) for reduction in reader._layout.frames[0].levels if reduction]
    if stored:
        words.append('levels ' + ', '.join(stored))
    if reader.associated_names():
        words.append(', '.join(reader.associated_names()))
    if reader.pixel_size[0]:
        words.append(f'{reader.pixel_size[0] * 1000:.4g} um')
    return '; '.join(words)


def run():
    """What this libvips reads, by format."""
    results = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for number, (name, suffix, wanted, make) in enumerate(FORMATS):
            if not has_loader(wanted):
                results[name] = 'no loader'
                continue
            path = pathlib.Path(folder) / f'{number}{suffix}'
            try:
                expected = make(path)
            except (pyvips.Error, OSError, KeyError) as exc:
                results[name] = f'not tried ({type(exc).__name__} making it)'
                continue
            results[name] = describe(path, expected, wanted)
    return results


def table(runs):
    """The page, of the results of all runs."""
    columns = ['Format', *(f'{name} (libvips {run["libvips"]})' for name, run in runs.items())]
    rows = [[name, *(run['results'].get(name, '') for run in runs.values())]
            for name, *_ in FORMATS]
    lines = ['.. list-table::', '   :header-rows: 1', '']
    for row in (columns, *rows):
        lines.extend(f'   {"* -" if not place else "  -"} {cell}'.rstrip()
                     for place, cell in enumerate(row))
    return INTRODUCTION + '\n'.join(lines) + '\n'


def main(name):
    """Note the results of this libvips and write the page anew."""
    notes = HERE / 'formats.json'
    runs = json.loads(notes.read_text()) if notes.exists() else {}
    version = '.'.join(str(pyvips.version(part)) for part in range(3))
    runs[name] = {'libvips': version, 'results': run()}
    notes.write_text(json.dumps(runs, indent=1, sort_keys=True) + '\n')
    (HERE / 'formats.rst').write_text(table(runs))


if __name__ == '__main__':
    main(*sys.argv[1:])
