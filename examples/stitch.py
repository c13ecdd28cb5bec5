"""
Predict patch by patch, and stitch the predictions into slides.

Neural networks and cameras on a moving stage produce patches, which overlap and come in any
order.  Here a histology photograph, mirrored and repeated to the size of a slide, is cut
into such patches, and a "model" separates the stains of each.  Two images are stitched: the
slide, and the predictions with one channel for each stain.

    python examples/stitch.py [image] [--output demo] [--size 10000] [--tile 512] [--overlap 64]

Any other image, of any size, can be used instead; it is read piece by piece with
large_image.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import large_image
import numpy as np
import numpy.typing as npt
import PIL.Image
from large_image.constants import TILE_FORMAT_NUMPY
from tqdm import tqdm

import large_image_source_vips

Pixels = npt.NDArray[Any]
Sink = large_image_source_vips.VipsFileTileSource

# The width of a pixel of the photograph, which was taken at 40 x.
MM = 0.00025
# One patch in this many is left out, as a model skips background.
HOLES = 40
# The optical density in red, green and blue of each stain and of the residual: Ruifrok and
# Johnston, Quantification of histochemical staining by color deconvolution, 2001.
STAINS = ('hematoxylin', 'DAB')
DENSITIES = np.array([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78], [0.71, -0.42, 0.57]])
# The concentration that becomes 255.
FULL = 1.5


class Rect(NamedTuple):
    """A rectangle in pixels of the slide."""

    left: int
    top: int
    width: int
    height: int


class Picture(Protocol):
    """The image that is cut into patches."""

    width: int
    height: int

    def read(self, rect: Rect) -> Pixels:
        """The pixels of a rectangle, (rows, cols, 3)."""


class Repeated:
    """A photograph mirrored and repeated, so that it has no seams."""

    def __init__(self, photograph: Pixels, size: int) -> None:
        self.width = self.height = size
        pair = np.concatenate([photograph, photograph[:, ::-1]], axis=1)
        self._whole = np.concatenate([pair, pair[::-1]])

    def read(self, rect: Rect) -> Pixels:
        """The pixels of a rectangle, (rows, cols, 3)."""
        rows = np.arange(rect.top, rect.top + rect.height) % self._whole.shape[0]
        cols = np.arange(rect.left, rect.left + rect.width) % self._whole.shape[1]
        # One axis after the other takes a fifth of the time of both together.
        return np.asarray(self._whole[rows].take(cols, axis=1))


class Opened:
    """An image file of any size."""

    def __init__(self, path: Path) -> None:
        # With this source, whatever the file name.
        self._source: Any = large_image_source_vips.open(path, style={'icc': False})
        self.width, self.height = int(self._source.sizeX), int(self._source.sizeY)

    def read(self, rect: Rect) -> Pixels:
        """The pixels of a rectangle, (rows, cols, 3)."""
        pixels, _ = self._source.getRegion(region=rect._asdict(), format=TILE_FORMAT_NUMPY)
        if pixels.dtype != np.uint8:
            # Only this demo is limited to 8 bits.
            pixels = (pixels / (np.iinfo(pixels.dtype).max / 255)).astype(np.uint8)
        return np.asarray(pixels[:, :, :3] if pixels.shape[2] > 2 else
                          np.repeat(pixels[:, :, :1], 3, axis=2))


def main(arguments: list[str] | None = None) -> None:
    """
    Predict, stitch, write and check.

    :param arguments: the command line arguments; None for those of the process.
    """
    options = parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    picture: Picture = Opened(options.image) if options.image else Repeated(
        photograph(), options.size)
    name = options.image.stem if options.image else 'slide'
    files = {kind: options.output / f'{name}{suffix}' for kind, suffix in (
        ('lossy', '.tif'), ('lossless', '-lossless.tif'), ('stains', '-stains.ome.tif'),
        ('picture', '-overlay.jpg'))}
    if options.image and any(path.exists() and path.samefile(options.image)
                             for path in files.values()):
        msg = f'{options.image} would be replaced; name another folder with --output.'
        raise SystemExit(msg)
    patches = cut(picture, options.tile, options.overlap)
    table = Table()

    # Overlapping patches are blended.
    slide, stains = (large_image_source_vips.new(blend='feather') for _ in range(2))
    table.time('predict and add', lambda: stitch(picture, patches, slide, stains), len(patches))
    tiles = -(-picture.width // 256) * -(-picture.height // 256)
    table.time('write the slide, JPEG', lambda: write(slide, files['lossy']), tiles)
    table.time('write it without loss', lambda: write(slide, files['lossless'], lossy=False), tiles)
    table.time('write the stains', lambda: write(stains, files['stains'], lossy=False),
               tiles * len(STAINS))

    # From here on only large_image's API is used.
    table.time('check the slide', lambda: verify_slide(files['lossless'], picture, patches), tiles)
    table.time('check the stains', lambda: verify_stains(files['stains'], picture, patches),
               len(STAINS))
    overlay(files['lossy'], files['stains']).save(files['picture'], quality=90)
    print(describe(files))
    print()
    print(table)
    print()
    print('The lossless slide equals the patches in every pixel; what no patch covers is '
          'transparent.')


def photograph() -> Pixels:
    """The histology photograph of scikit-image."""
    import skimage.data

    return np.asarray(skimage.data.immunohistochemistry())


def cut(picture: Picture, tile: int, overlap: int) -> list[Rect]:
    """
    The rectangles of patches in random order; some are left out.

    :param tile: the width and height of a patch in pixels; those at the right and bottom
        border are smaller.
    :param overlap: the number of pixels that neighbours share.
    """
    step = tile - overlap
    patches = [Rect(left, top, min(tile, picture.width - left), min(tile, picture.height - top))
               for top in range(0, max(1, picture.height - overlap), step)
               for left in range(0, max(1, picture.width - overlap), step)]
    # The first patches are at the top left and bottom right corner: the image has its size.
    corners, others = [patches[0], *patches[1:][-1:]], patches[1:-1]
    order = random.Random(1)
    order.shuffle(others)
    patches = corners + others[len(others) // HOLES:]
    order.shuffle(patches)
    return patches


def predict(patch: Pixels) -> Pixels:
    """
    The amount of each stain.

    :param patch: (rows, cols, 3).
    :returns: (rows, cols, stains): 0 for nothing, 255 for much.
    """
    amounts = np.empty((*patch.shape[:2], len(STAINS)), np.uint8)
    for stain, tables in enumerate(_TABLES):
        total = tables[0][patch[..., 0]]
        total += tables[1][patch[..., 1]]
        total += tables[2][patch[..., 2]]
        np.clip(total, 0, 255, out=total)
        amounts[..., stain] = total
    return amounts


def _tables() -> npt.NDArray[np.float32]:
    """The contribution of each value of red, green and blue to each stain: (2, 3, 256)."""
    unit = DENSITIES / np.linalg.norm(DENSITIES, axis=1, keepdims=True)
    density = -np.log10(np.maximum(np.arange(256), 1) / 255)
    shares = np.linalg.inv(unit)[:, :len(STAINS)] * (255 / FULL)
    return np.asarray(shares.T[:, :, np.newaxis] * density, np.float32)


_TABLES = _tables()


def stitch(picture: Picture, patches: list[Rect], slide: Sink, stains: Sink) -> None:
    """
    Predict each patch, and add it to the slide and its predictions to the stains.

    :param slide: a new image.
    :param stains: another; each stain is a channel of it.
    """
    for rect in tqdm(patches, desc='predict and add', unit=' patches'):
        patch = picture.read(rect)
        slide.addTile(patch, x=rect.left, y=rect.top)
        amounts = predict(patch)
        for channel in range(len(STAINS)):
            stains.addTile(amounts[..., channel], x=rect.left, y=rect.top, c=channel)
    slide.mm_x = slide.mm_y = stains.mm_x = stains.mm_y = MM
    stains.channelNames = list(STAINS)
    stains.channelColors = ['4040ff', 'a05000']


def write(sink: Sink, path: Path, **options: Any) -> None:
    """Write a pyramid, with a progress bar."""
    with tqdm(desc=f'write {path.name}', total=100, unit='%',
              bar_format='{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}') as bar:
        sink.write(path, progress=lambda fraction: bar.update(100 * fraction - bar.n), **options)


def verify_slide(path: Path, picture: Picture, patches: list[Rect]) -> None:
    """
    Check every pixel of the lossless slide.

    :raises SystemExit: if a pixel under a patch differs from the picture, or a pixel
        outside of all patches is not transparent.
    """
    source = large_image.open(path)
    covered = np.zeros((picture.height, picture.width), bool)
    for rect in patches:
        covered[rect.top:rect.top + rect.height, rect.left:rect.left + rect.width] = True
    pieces = source.tileIterator(
        tile_size={'width': 1024, 'height': 1024}, format=TILE_FORMAT_NUMPY)
    for piece in pieces:
        pixels, left, top = piece['tile'], piece['x'], piece['y']
        rect = Rect(left, top, pixels.shape[1], pixels.shape[0])
        inside = covered[top:top + rect.height, left:left + rect.width]
        equal = pixels[..., :3] == picture.read(rect)
        same = equal[..., 0] & equal[..., 1] & equal[..., 2]
        opaque = pixels[..., 3] == 255 if pixels.shape[2] > 3 else np.ones_like(inside)
        if not (same[inside].all() and np.array_equal(opaque, inside)):
            msg = f'{path} does not hold the pixels of the patches near {left}, {top}.'
            raise SystemExit(msg)


def verify_stains(path: Path, picture: Picture, patches: list[Rect]) -> None:
    """
    Check the channel names, and one patch of each channel.

    :raises SystemExit: if any differs from the prediction.
    """
    source = large_image.open(path)
    if source.getMetadata()['channels'] != list(STAINS):
        msg = f'{path} does not name the channels {", ".join(STAINS)}.'
        raise SystemExit(msg)
    rect = patches[0]
    expected = predict(picture.read(rect))
    for channel in range(len(STAINS)):
        pixels, _ = source.getRegion(
            region=rect._asdict(), frame=channel, format=TILE_FORMAT_NUMPY)
        if not np.array_equal(pixels[..., 0], expected[..., channel]):
            msg = f'{path} does not hold the {STAINS[channel]} that was predicted.'
            raise SystemExit(msg)


def overlay(slide: Path, stains: Path, side: int = 700) -> PIL.Image.Image:
    """
    A part of the slide, and beside it the same part with the DAB overlaid.

    :param side: the width and height of the part in pixels.
    """
    source, predicted = large_image.open(slide), large_image.open(stains)
    region = {'left': max(0, (source.sizeX - side) // 2),
              'top': max(0, (source.sizeY - side) // 2), 'width': side, 'height': side}
    pixels, _ = source.getRegion(region=region, format=TILE_FORMAT_NUMPY)
    amount, _ = predicted.getRegion(
        region=region, frame=STAINS.index('DAB'), format=TILE_FORMAT_NUMPY)
    pixels = pixels[..., :3]
    strength = np.clip((amount[..., :1] / 255 - 0.1) / 0.5, 0, 1)
    heat = np.concatenate(
        [np.full_like(strength, 255), 230 * (1 - strength), 0 * strength], axis=2)
    cover = 0.75 * np.clip(2 * strength, 0, 1)
    covered = (pixels * (1 - cover) + heat * cover).astype(np.uint8)
    gap = np.full((pixels.shape[0], 12, 3), 255, np.uint8)
    return PIL.Image.fromarray(np.concatenate([pixels, gap, covered], axis=1))


def describe(files: dict[str, Path]) -> str:
    """A short table of the files."""
    rows = []
    for kind, path in files.items():
        size = f'{path.stat().st_size / 1e6:8,.1f} MB'
        if kind == 'picture':
            rows.append(f'{path!s:<34}{size}   a part of the slide beside its DAB')
            continue
        metadata = large_image.open(path).getMetadata()
        channels = metadata.get('channels')
        rows.append(
            f'{path!s:<34}{size}   {metadata["sizeX"]:,} x {metadata["sizeY"]:,} pixels, '
            f'{metadata["levels"]} levels' + (f', channels {", ".join(channels)}' if channels
                                              else ''))
    return '\n'.join(rows)


class Table:
    """Runs steps and measures them; ``str`` gives a table."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, float, int]] = []

    def time(self, name: str, step: Callable[[], None], tiles: int) -> None:
        """
        Run a step.

        :param name: its name in the table.
        :param step: called once, without arguments.
        :param tiles: the number of patches that it adds, or tiles of 256 x 256 in the
            largest level that it writes or reads.
        """
        start = time.perf_counter()
        step()
        self.steps.append((name, time.perf_counter() - start, tiles))

    def __str__(self) -> str:
        lines = [f'{name:<24}{seconds:>7.2f} s {tiles / seconds:>9,.0f} tiles/s'
                 for name, seconds, tiles in self.steps]
        total = sum(seconds for _, seconds, _ in self.steps)
        return '\n'.join([*lines, f'{"altogether":<24}{total:>7.2f} s'])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """
    Parse and check the options.

    :param arguments: the command line arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        description='Cut an image into patches, predict each, and stitch them into slides.')
    parser.add_argument('image', nargs='?', type=Path,
                        help='an image of any size; default: a photograph of scikit-image, '
                             'mirrored and repeated')
    parser.add_argument('--output', type=Path, default=Path('demo'), help='folder for the files')
    parser.add_argument('--size', type=int, default=10000,
                        help='width and height of the slide made of the photograph')
    parser.add_argument('--tile', type=int, default=512, help='width and height of a patch')
    parser.add_argument('--overlap', type=int, default=64, help='pixels that neighbours share')
    options = parser.parse_args(arguments)
    if not 0 <= 2 * options.overlap <= options.tile or options.tile < 1 or options.size < 1:
        parser.error('--overlap must be from 0 to half of --tile, and --size at least 1')
    if options.image and not options.image.is_file():
        parser.error(f'there is no file {options.image}')
    return options


if __name__ == '__main__':
    main()
