"""
Cut a photograph into overlapping, shuffled patches and stitch them into a slide.

This is what a program does that gets its pixels piece by piece, from a camera
on a moving stage or from a network that looks at one patch at a time: it adds
each patch to a new image as it comes, in whatever order, and writes a pyramid
when the last one is there.

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
    The tutorial, from a picture to a slide that is proved to be the same picture.

    :param arguments: the words of the command line.
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

    # From here on the files are read as any program of large_image would.
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
    The picture to work on.

    :param path: a file of any format that Pillow reads; None for the
        histology photograph that comes with scikit-image.
    :returns: an array (rows, cols, bands).
    """
    if path is None:
        # Only needed for this photograph.
        import skimage.data

        return np.asarray(skimage.data.immunohistochemistry())
    with PIL.Image.open(path) as image:
        # Palettes, inks and transparency are not what this example is about.
        pixels = np.asarray(image if image.mode in {'L', 'I;16', 'RGB'} else image.convert('RGB'))
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def cut(picture: Pixels, tile: int, overlap: int) -> Iterator[tuple[int, int, Pixels]]:
    """
    Cut a picture into patches that together cover all of it.

    :param picture: an array (rows, cols, bands).
    :param tile: the width and height of a patch in pixels; patches at the right
        and bottom border are smaller.
    :param overlap: how many pixels of a patch its neighbour shows, too.
    :returns: for each patch its left and top in pixels of the picture, and its
        own array (rows, cols, bands).
    """
    rows, cols = picture.shape[:2]
    for top in range(0, rows, tile - overlap):
        for left in range(0, cols, tile - overlap):
            yield left, top, picture[top:top + tile, left:left + tile].copy()


def stitch(sink: large_image_source_vips.VipsFileTileSource,
           patches: list[tuple[int, int, Pixels]]) -> None:
    """
    Add all patches to a new image.

    :param sink: what ``large_image_source_vips.new()`` gave.
    :param patches: as of ``cut``, in any order.
    """
    for left, top, patch in tqdm(patches, desc='adding patches', unit='patch'):
        sink.addTile(patch, x=left, y=top)


def save_thumbnail(source: Any, path: Path) -> None:
    """
    Save a picture of the whole slide that is at most 256 pixels wide and high.

    :param source: what ``large_image.open`` gave.
    :param path: where to.
    """
    png, _mime_type = source.getThumbnail(width=256, height=256, encoding='PNG')
    path.write_bytes(bytes(png))


def verify(path: Path, picture: Pixels) -> None:
    """
    Read a slide back and make sure that it is the picture, bit for bit.

    :param path: a slide that was written with ``lossy=False``.
    :param picture: what it was put together from, (rows, cols, bands).
    :raises SystemExit: if any sample differs.
    """
    pixels, _mime_type = large_image.open(path).getRegion(format=TILE_FORMAT_NUMPY)
    if not np.array_equal(pixels, picture):
        msg = f'{path} does not hold the pixels that were put in.'
        raise SystemExit(msg)


def describe(source: Any, slide: Path, exact: Path, thumbnail: Path) -> str:
    """
    A short table of what came out.

    :param source: what ``large_image.open`` gave for ``slide``.
    :param slide: the JPEG pyramid.
    :param exact: the lossless one.
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
    """Runs steps, remembers how long each took, and prints that."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}

    def time(self, name: str, step: Callable[[], Result]) -> Result:
        """
        Run a step.

        :param name: what it does.
        :param step: called once, without arguments.
        :returns: what the step returns.
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
    The options, checked.

    :param arguments: the words of the command line.
    """
    parser = argparse.ArgumentParser(
        description='Cut a photograph into patches and stitch them into a slide.')
    parser.add_argument('image', nargs='?', type=Path,
                        help='a picture; without one, a histology photograph of scikit-image')
    parser.add_argument('--output', type=Path, default=Path('demo'), help='a folder for the files')
    parser.add_argument('--tile', type=int, default=160, help='width and height of a patch')
    parser.add_argument('--overlap', type=int, default=24, help='pixels that neighbours share')
    options = parser.parse_args(arguments)
    if not 0 <= options.overlap < options.tile:
        parser.error('the overlap is at least 0 and smaller than a patch')
    if options.image and not options.image.is_file():
        parser.error(f'there is no file {options.image}')
    return options


if __name__ == '__main__':
    main()
