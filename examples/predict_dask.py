"""
Predict over a whole slide with several processes, and write the predictions as a pyramid.

The model is a stain deconvolution: the amount of brown DAB in each pixel.  Each process
reads its patches with large_image and adds its predictions to one image, whose tiles are
stored in a folder.  Overlapping patches are blended.  A killed run continues when it is
started again.

    python examples/predict_dask.py [slide] [--output file] [--workers 2] [--patch 512]
        [--overlap 128]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import large_image
import numpy as np
import numpy.typing as npt
import skimage.color
import skimage.data
from dask.distributed import Client, LocalCluster, as_completed
from tqdm import tqdm

import large_image_source_vips

Pixels = npt.NDArray[Any]
Sink = large_image_source_vips.VipsFileTileSource
Place = tuple[int, int, int, int]

# The optical density of DAB that becomes white.
_DENSEST = 0.3


def main(arguments: list[str] | None = None) -> None:
    """
    Predict over a slide, and write the predictions.

    :param arguments: the command line arguments; None for those of the process.
    """
    options = parse(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    slide = options.slide or make_slide(options.output.with_name('slide.tif'))
    source = large_image.open(slide)
    sink = large_image_source_vips.new(
        spool=options.output.with_name(options.output.name + '.spool'), blend='feather')
    sink.mm_x, sink.mm_y = (source.getNativeMagnification()[name] for name in ('mm_x', 'mm_y'))

    places = list(cut(source.sizeX, source.sizeY, options.patch, options.overlap))
    with LocalCluster(n_workers=options.workers, threads_per_worker=1) as cluster, (
            Client(cluster)) as client:
        tasks = client.map(predict, places, slide=str(slide), sink=sink)
        for task in tqdm(as_completed(tasks), total=len(tasks), desc='patches', unit='patch'):
            # This raises the exceptions of the task.
            task.result()
    sink.write(options.output)
    print(f'{options.output}: {sink.sizeX} x {sink.sizeY} pixels, of {len(places)} patches')
    sink.close(delete=True)


def cut(width: int, height: int, patch: int, overlap: int) -> list[Place]:
    """
    Cover a slide with patches.

    :param width: of the slide in pixels.
    :param height: of the slide in pixels.
    :param patch: the width and height of a patch in pixels.
    :param overlap: the number of pixels that neighbouring patches share.
    :returns: left, top, right and bottom of each patch.
    """
    step = patch - overlap
    return [(left, top, min(left + patch, width), min(top + patch, height))
            for top in range(0, max(1, height - overlap), step)
            for left in range(0, max(1, width - overlap), step)]


def predict(place: Place, slide: str, sink: Sink) -> None:
    """
    Add the prediction for a patch to an image, if it is not yet there.

    :param place: from ``cut``.
    :param slide: the path of the slide; each process opens it once.
    :param sink: the image; the same one in all processes.
    """
    if sink.added(place):
        return
    left, top, right, bottom = place
    pixels, _ = large_image.open(slide).getRegion(
        region={'left': left, 'top': top, 'right': right, 'bottom': bottom}, format='numpy')
    sink.addTile(model(pixels[:, :, :3]), x=left, y=top, key=place)
    sink.flush()


def model(pixels: Pixels) -> Pixels:
    """
    The amount of DAB.

    Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, 2001.

    :param pixels: 8-bit RGB, (rows, cols, 3).
    :returns: 0 for none to 255, (rows, cols).
    """
    density: Pixels = skimage.color.rgb2hed(pixels)[:, :, 2]
    return np.rint(np.clip(density / _DENSEST, 0, 1) * 255).astype(np.uint8)


def make_slide(path: Path) -> Path:
    """Write a slide of 2048 x 2048 pixels, from a photograph of scikit-image."""
    photo = skimage.data.immunohistochemistry()
    mirrored = np.concatenate([photo, photo[:, ::-1]], axis=1)
    mirrored = np.concatenate([mirrored, mirrored[::-1]], axis=0)
    sink = large_image_source_vips.new()
    for row in range(2):
        for column in range(2):
            sink.addTile(mirrored, x=1024 * column, y=1024 * row)
    sink.mm_x = sink.mm_y = 0.0005
    sink.write(path, lossy=False)
    return path


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n\n')[0].strip())
    parser.add_argument('slide', nargs='?', type=Path, help='default: made from a photograph')
    parser.add_argument('--output', type=Path, default=Path('build/dask/dab.ome.tif'))
    parser.add_argument('--workers', type=int, default=2, help='processes')
    parser.add_argument('--patch', type=int, default=512, help='pixels')
    parser.add_argument('--overlap', type=int, default=128, help='pixels')
    options = parser.parse_args(arguments)
    if options.slide is not None and not options.slide.is_file():
        parser.error(f'There is no file {options.slide}.')
    if not 0 <= options.overlap < options.patch or options.workers < 1:
        parser.error('The overlap must be smaller than a patch, and there must be a worker.')
    return options


if __name__ == '__main__':
    main()
