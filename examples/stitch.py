"""
Cut a photograph into overlapping, shuffled patches and stitch them into a slide.

Programs that get their pixels patch by patch, from a camera on a moving stage or
from a neural network, can do the same: add each patch to a new image, in any
order, then write a pyramid.

    python examples/stitch.py [image] [--output folder] [--tile 160] [--overlap 24]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import large_image
import numpy as np
import numpy.typing as npt
import PIL.Image
from large_image.constants import TILE_FORMAT_NUMPY
from tqdm import tqdm

import large_image_source_vips

Pixels = npt.NDArray[Any]
Result = TypeVar('Result')


def main(arguments: list[str] | None = None) -> None:
    """
    Cut a picture, stitch it, write it, and check that the slide equals the picture.

    :param arguments: the command line arguments; None for those of the process.
    """
    options = parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    name = options.image.stem if options.image else 'immunohistochemistry'
    slide = options.output / f'{name}.tif'
    exact = options.output / f'{name}-lossless.tif'
    thumbnail = options.output / f'{name}-thumbnail.png'
    clock = Clock()

    picture = clock.time('load the picture', lambda: load(options.image))
    patches = clock.time(
        'cut it into patches', lambda: list(cut(picture, options.tile, options.overlap)))
    random.Random(1).shuffle(patches)

    sink = large_image_source_vips.new()
    clock.time(f'add {len(patches)} patches', lambda: stitch(sink, patches))
    clock.time('write a pyramid, JPEG', lambda: sink.write(slide))
    clock.time('write a pyramid, lossless', lambda: sink.write(exact, lossy=False))

    # From here on only large_image's own API is used.
    source = clock.time('open the slide', lambda: large_image.open(slide))
    clock.time('save a thumbnail', lambda: save_thumbnail(source, thumbnail))
    clock.time('compare with the picture', lambda: verify(exact, picture))

    print(describe(source, slide, exact, thumbnail))
    print()
    print(clock)
    print()
    print(f'The lossless slide equals the picture in all {picture.size:,} samples.')


def load(path: Path | None) -> Pixels:
    """
    Load the picture.

    :param path: a file of any format that Pillow reads; None for the
        histology photograph of scikit-image.
    :returns: an array (rows, cols, bands).
    """
    if path is None:
        # scikit-image is needed only for this photograph.
        import skimage.data

        return np.asarray(skimage.data.immunohistochemistry())
    with PIL.Image.open(path) as image:
        # Keep the example simple: no palettes, CMYK or transparency.
        pixels = np.asarray(image if image.mode in {'L', 'I;16', 'RGB'} else image.convert('RGB'))
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def cut(picture: Pixels, tile: int, overlap: int) -> Iterator[tuple[int, int, Pixels]]:
    """
    Cut a picture into patches that cover all of it.

    :param picture: an array (rows, cols, bands).
    :param tile: the width and height of a patch in pixels; patches at the right
        and bottom border are smaller.
    :param overlap: how many pixels neighbouring patches share.
    :returns: for each patch its left and top in pixels of the picture, and a
        copy of its pixels (rows, cols, bands).
    """
    rows, cols = picture.shape[:2]
    for top in range(0, rows, tile - overlap):
        for left in range(0, cols, tile - overlap):
            yield left, top, picture[top:top + tile, left:left + tile].copy()


def stitch(sink: large_image_source_vips.VipsFileTileSource,
           patches: list[tuple[int, int, Pixels]]) -> None:
    """
    Add all patches to a new image.

    :param sink: a new image from ``large_image_source_vips.new()``.
    :param patches: as returned by ``cut``, in any order.
    """
    for left, top, patch in tqdm(patches, desc='adding patches', unit='patch'):
        sink.addTile(patch, x=left, y=top)


def save_thumbnail(source: Any, path: Path) -> None:
    """
    Save a thumbnail of at most 256 x 256 pixels.

    :param source: the slide, opened by ``large_image.open``.
    :param path: the PNG file to write.
    """
    png, _mime_type = source.getThumbnail(width=256, height=256, encoding='PNG')
    path.write_bytes(bytes(png))


def verify(path: Path, picture: Pixels) -> None:
    """
    Read a slide and check that it equals the picture, bit for bit.

    :param path: a slide that was written with ``lossy=False``.
    :param picture: the original pixels (rows, cols, bands).
    :raises SystemExit: if any sample differs.
    """
    pixels, _mime_type = large_image.open(path).getRegion(format=TILE_FORMAT_NUMPY)
    if not np.array_equal(pixels, picture):
        msg = f'{path} does not hold the pixels of the picture.'
        raise SystemExit(msg)


def describe(source: Any, slide: Path, exact: Path, thumbnail: Path) -> str:
    """
    Describe the results in a short table.

    :param source: ``slide``, opened by ``large_image.open``.
    :param slide: the JPEG pyramid.
    :param exact: the lossless pyramid.
    :param thumbnail: the PNG file.
    """
    metadata = source.getMetadata()
    bands = f'{metadata["bandCount"]} bands of {metadata["dtype"]}'
    rows = {
        'slide': f'{slide} ({slide.stat().st_size / 1024:,.0f} KB)',
        'lossless': f'{exact} ({exact.stat().st_size / 1024:,.0f} KB)',
        'thumbnail': str(thumbnail),
        'opened by': f'{type(source).__name__} {large_image_source_vips.__version__}',
        'size': f'{metadata["sizeX"]} x {metadata["sizeY"]} pixels',
        'levels': f'{metadata["levels"]}, tiles of '
                  f'{metadata["tileWidth"]} x {metadata["tileHeight"]}',
        'format': f'{source.bandFormat}, {bands}',
    }
    return '\n'.join(f'{name:<12}{value}' for name, value in rows.items())


class Clock:
    """Runs steps and measures how long each takes; ``str`` gives a table."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}

    def time(self, name: str, step: Callable[[], Result]) -> Result:
        """
        Run a step.

        :param name: its name in the table.
        :param step: called once, without arguments.
        :returns: the result of the step.
        """
        start = time.perf_counter()
        result = step()
        self.steps[name] = time.perf_counter() - start
        return result

    def __str__(self) -> str:
        return '\n'.join(f'{name:<28}{seconds * 1000:>8.1f} ms'
                         for name, seconds in self.steps.items())


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """
    Parse and check the options.

    :param arguments: the command line arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        description='Cut a photograph into patches and stitch them into a slide.')
    parser.add_argument('image', nargs='?', type=Path,
                        help='a picture; default: a histology photograph of scikit-image')
    parser.add_argument('--output', type=Path, default=Path('demo'), help='folder for the files')
    parser.add_argument('--tile', type=int, default=160, help='width and height of a patch')
    parser.add_argument('--overlap', type=int, default=24, help='pixels that neighbours share')
    options = parser.parse_args(arguments)
    if not 0 <= options.overlap < options.tile:
        parser.error('--overlap must be at least 0 and smaller than --tile')
    if options.image and not options.image.is_file():
        parser.error(f'there is no file {options.image}')
    return options


if __name__ == '__main__':
    main()
