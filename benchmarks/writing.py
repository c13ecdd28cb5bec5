"""
Jobs that write other pictures than opaque RGB with loss: lossless, data, holes.

Bare libvips copies the same tiles into a memory map and writes LZW with a predictor,
as one would without this package; 'tifffile' gets that map as an array, and writes what
this package writes, with as many threads as there are processors.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyvips

from .data import histology
from .outcome import Outcome, Pixels, peak_memory
from .reading import TILE, module_of
from .sink import SAMPLES, SAVE_OPTIONS, positions, tile_pool

# The seed of the random numbers of label images.
_SEED = 4
# Columns and rows of tiles of the slide.
HISTOLOGY = 8
# The width and height of a patch of one label in pixels.
_PATCH = 16

_FORMATS = {'uint8': 'uchar', 'uint16': 'ushort', 'uint32': 'uint', 'float32': 'float'}


def kinds(kind: str, count: int) -> list[Pixels]:
    """
    Different tiles of a kind of picture.

    :param kind: 'rgb'; 'histology', tiles of a real slide; 'holes', which are RGB with a
        transparent disc in each tile; 'outline', RGB with such a disc in every fifth tile
        and nothing in another fifth, as around tissue; 'uint16', 12 bits of a camera with
        noise; 'float32', probabilities; 'labels', of uint32.
    :param count: how many tiles are needed; there may be fewer.
    """
    if kind == 'histology':
        slide = histology(HISTOLOGY * TILE).numpy()
        return [slide[y:y + TILE, x:x + TILE].copy() for y in range(0, slide.shape[0], TILE)
                for x in range(0, slide.shape[1], TILE)]
    pool = tile_pool(TILE, count)
    numbers = np.random.default_rng(_SEED)
    if kind == 'rgb':
        return pool
    if kind in {'holes', 'outline'}:
        rows, cols = np.ogrid[:TILE, :TILE]
        disc = (rows - TILE // 2) ** 2 + (cols - TILE // 2) ** 2 < (TILE // 4) ** 2
        holed = np.where(disc, 0, 255).astype(np.uint8)[:, :, None]
        alphas = [holed] if kind == 'holes' else [
            holed, np.zeros_like(holed), *[np.full_like(holed, 255)] * 3]
        return [np.concatenate([tile, alphas[number % len(alphas)]], axis=2)
                for number, tile in enumerate(pool)]
    if kind == 'labels':
        cells = (TILE // _PATCH, TILE // _PATCH)
        return [np.kron(numbers.integers(0, 500, cells), np.ones((_PATCH, _PATCH)))[
            :, :, None].astype(np.uint32) for _tile in pool]
    gray = [tile[:, :, :1].astype(np.float32) for tile in pool]
    if kind == 'uint16':
        return [np.clip(tile * 8 + numbers.normal(0, 20, tile.shape), 0, 4095).astype(np.uint16)
                for tile in gray]
    return [tile / np.float32(255) for tile in gray]


def write(contender: str, kind: str, count: int,
          options: Mapping[str, Any] | None = None, exact: bool = True) -> Outcome:
    """
    Add tiles and write a pyramid.

    :param contender: the contender.
    :param kind: as for ``kinds``.
    :param count: how many tiles.
    :param options: of ``write`` of this package.
    :param exact: whether the file must hold every value that was added.
    """
    outcome = Outcome(facts={'count': count})
    pool, places = kinds(kind, count), list(positions(count, TILE, 0))
    with tempfile.TemporaryDirectory(prefix='bench-') as folder:
        path = os.path.join(folder, 'written.tif')
        if contender == 'ours':
            ours(outcome, pool, places, path, {'labels': kind == 'labels', **(options or {})})
        else:
            save = bare if contender == 'bare' else tifffile_alone
            mapped(outcome, pool, places, path, save)
        outcome.seconds['total'] = sum(outcome.seconds.values())
        outcome.facts['bytes'] = os.path.getsize(path)
        prove(outcome, path, pool, exact=exact)
    return outcome


def ours(outcome: Outcome, pool: list[Pixels], places: list[tuple[int, int, int]], path: str,
         options: dict[str, Any]) -> None:
    """Write with this package, and note the memory that ``write`` adds to that of the canvas."""
    interpretation = 'labels' if options.pop('labels') else None
    sink = module_of('ours').new()
    with outcome.timed('add'):
        for number, x, y in places:
            sink.addTile(pool[number % len(pool)], x=x, y=y, interpretation=interpretation)
    before = peak_memory()
    with outcome.timed('write'):
        sink.write(path, **options)
    after = peak_memory()
    if before is not None and after is not None:
        outcome.facts['added'] = after - before


def mapped(outcome: Outcome, pool: list[Pixels], places: list[tuple[int, int, int]], path: str,
           save: Any) -> None:
    """Copy the tiles into a memory map and save it."""
    side = max(x for _number, x, _y in places) + TILE
    height = max(y for _number, _x, y in places) + TILE
    with tempfile.TemporaryFile() as spool:
        with outcome.timed('add'):
            pixels = np.memmap(spool, pool[0].dtype, 'w+',
                               shape=(height, side, pool[0].shape[2]))
            for number, x, y in places:
                pixels[y:y + TILE, x:x + TILE] = pool[number % len(pool)]
        with outcome.timed('write'):
            save(pixels, path)


def bare(pixels: Pixels, path: str) -> None:
    """Write LZW with libvips; lower levels are picked."""
    height, width, bands = pixels.shape
    image = pyvips.Image.new_from_memory(pixels, width, height, bands, _FORMATS[str(pixels.dtype)])
    predictor = 'float' if pixels.dtype.kind == 'f' else 'horizontal'
    options = {key: value for key, value in SAVE_OPTIONS.items() if key != 'Q'}
    image.copy(interpretation='srgb' if bands >= 3 else 'b-w').tiffsave(path, **{
        **options, 'compression': 'lzw', 'predictor': predictor, 'region_shrink': 'nearest'})


def tifffile_alone(pixels: Pixels, path: str) -> None:
    """Write deflate with tifffile; lower levels are picked."""
    import tifffile

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        # A last dimension of 1 would be taken for the width.
        level = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
        while True:
            file.write(
                level, tile=(TILE, TILE), compression='adobe_deflate',
                compressionargs={'level': 6}, predictor=True, maxworkers=os.cpu_count(),
                photometric='rgb' if pixels.shape[2] >= 3 else 'minisblack', metadata=None)
            if max(level.shape[:2]) <= TILE:
                break
            level = np.ascontiguousarray(level[::2, ::2])


def prove(outcome: Outcome, path: str, pool: list[Pixels], *, exact: bool) -> None:
    """
    Read tiles of a written file with tifffile, and compare them with those added.

    :param exact: whether every value must be kept.
    :raises ValueError: if one is not.
    """
    import tifffile

    found: list[Pixels | None] = []
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        across = page.imagewidth // TILE
        for number, (segment, _index, _shape) in zip(
                range(min(SAMPLES, outcome_count(outcome))), page.segments(), strict=False):
            row, column = divmod(number, across)
            added = pool[(row * across + column) % len(pool)]
            pixels = np.asarray(segment).reshape(TILE, TILE, -1)
            if exact and not np.array_equal(pixels, added):
                msg = f'tile {number} is not what was added'
                raise ValueError(msg)
            found.append(pixels)
    outcome.prove(found)


def outcome_count(outcome: Outcome) -> int:
    """How many tiles were added."""
    return int(outcome.facts['count'])
