"""Regions and iterations: each rectangle is read once, and equals large_image's result."""

import functools
import itertools
import os
import pickle
import random
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from large_image.constants import TILE_FORMAT_NUMPY
from large_image.exceptions import TileSourceError
from large_image.tilesource import FileTileSource
from large_image.tilesource.tileiterator import TileIterator

import large_image_source_vips
from helpers.around import in_a_bare_fork, in_a_forked_child, in_threads, overwrite
from helpers.pixels import block_means, random_pixels
from large_image_source_vips import region_threads, regions
from large_image_source_vips.base.geometry import Rect
from large_image_source_vips.base.identity import file_identity
from large_image_source_vips.reading import reader
from large_image_source_vips.reading.file_version import Version

PIXELS = random_pixels((1300, 2100, 3))


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp('regions') / 'a.tif'
    tifffile.imwrite(path, PIXELS, photometric='rgb', tile=(64, 64), compression='deflate')
    return path


def open_file(path, **kwargs):
    # Without the tile cache of another test.
    return large_image_source_vips.open(str(path), noCache=True, **kwargs)


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=st.integers(0, 2099), top=st.integers(0, 1299), width=st.integers(1, 2100),
       height=st.integers(1, 1300))
def test_regions_anywhere(path, left, top, width, height):
    region = {'left': left, 'top': top, 'width': width, 'height': height}
    found, _format = open_file(path).getRegion(region=region, format=TILE_FORMAT_NUMPY)
    np.testing.assert_array_equal(found, PIXELS[top:top + height, left:left + width])


@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(200, 900), height=st.integers(200, 900),
       overlap=st.integers(0, 80), edges=st.booleans(), cached=st.booleans())
def test_iterations_of_any_tile_size(path, width, height, overlap, edges, cached):
    source = large_image_source_vips.open(str(path)) if cached else open_file(path)
    count = 0
    for tile in source.tileIterator(
            tile_size={'width': width, 'height': height},
            tile_overlap={'x': overlap, 'y': overlap, 'edges': edges}, format=TILE_FORMAT_NUMPY):
        left, top = tile['x'], tile['y']
        np.testing.assert_array_equal(
            tile['tile'], PIXELS[top:top + tile['height'], left:left + tile['width']])
        count += 1
    assert count == tile['iterator_range']['position']


def test_iterations_at_a_lower_scale(path):
    source = open_file(path)
    expected = block_means(PIXELS, 2)
    for tile in source.tileIterator(
            scale={'magnification': None}, output={'maxWidth': 1050, 'maxHeight': 650},
            tile_size={'width': 300, 'height': 200}, format=TILE_FORMAT_NUMPY):
        left, top = int(tile['x']), int(tile['y'])
        part = expected[top:top + tile['height'], left:left + tile['width']]
        assert np.abs(tile['tile'] - part).max() <= 0.5


def test_regions_that_are_scaled(path):
    source = open_file(path)
    image, _format = source.getRegion(output={'maxWidth': 333}, format=TILE_FORMAT_NUMPY)
    assert image.shape == (206, 333, 3)
    assert abs(image.mean() - PIXELS.mean()) < 1


def test_styles_and_frames(tmp_path):
    frames = random_pixels((3, 600, 900), 'uint16')
    tifffile.imwrite(tmp_path / 'a.ome.tif', frames, photometric='minisblack', ome=True,
                     metadata={'axes': 'CYX'}, tile=(128, 128))
    source = open_file(tmp_path / 'a.ome.tif')
    for number, frame in enumerate(frames):
        found = source.getRegion(format=TILE_FORMAT_NUMPY, frame=number)[0]
        np.testing.assert_array_equal(found[..., 0], frame)
    styled = open_file(tmp_path / 'a.ome.tif', style={'bands': [
        {'frame': number, 'palette': ['#000', color], 'min': 0, 'max': 65535}
        for number, color in enumerate(['#f00', '#0f0', '#00f'])]})
    found = styled.getRegion(format=TILE_FORMAT_NUMPY)[0]
    assert np.abs(found[..., :3] - frames.transpose(1, 2, 0) / 257.0).max() <= 1


def test_tiles_taken_in_any_order(path):
    source = open_file(path)
    tiles = list(source.tileIterator(tile_size={'width': 200, 'height': 300},
                                     format=TILE_FORMAT_NUMPY))
    order = list(range(len(tiles)))
    random.Random(1).shuffle(order)
    for number in [*order, *order[:5]]:
        tile = tiles[number]
        left, top = tile['x'], tile['y']
        np.testing.assert_array_equal(
            tile['tile'], PIXELS[top:top + tile['height'], left:left + tile['width']])
        tile.release()


def test_tiles_taken_by_several_threads(path):
    tiles = list(open_file(path).tileIterator(tile_size={'width': 200, 'height': 300},
                                              format=TILE_FORMAT_NUMPY))
    wrong = []

    def take(share):
        for tile in share:
            left, top = tile['x'], tile['y']
            expected = PIXELS[top:top + tile['height'], left:left + tile['width']]
            if not np.array_equal(tile['tile'], expected):
                wrong.append((left, top))

    in_threads(take, [tiles[start::3] for start in range(3)])
    assert not wrong


def test_info_and_length_are_those_of_large_image(path):
    source = open_file(path)
    iterator = source.tileIterator(tile_size={'width': 512, 'height': 512})
    assert len(iterator) == 15
    assert iterator.info['region']['width'] == 2100
    assert source.getSingleTile(tile_size={'width': 512, 'height': 512}, tile_position=7,
                                format=TILE_FORMAT_NUMPY)['tile'].shape == (512, 512, 3)


def test_a_tile_that_cannot_be_decoded_is_named(tmp_path):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, PIXELS, photometric='rgb', tile=(256, 256), compression='deflate')
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, length = page.dataoffsets[20], page.databytecounts[20]
    with open(path, 'r+b') as file:
        file.seek(offset)
        file.write(bytes(length))
    source = open_file(path)
    for region in ({}, {'region': {'left': 500, 'top': 500, 'width': 300, 'height': 300}}):
        with pytest.raises(TileSourceError, match=r'level 4, tile 2, 2 .*a\.tif'):
            source.getRegion(format=TILE_FORMAT_NUMPY, **region)


# What large_image makes of the same request: the method of its base class, unchanged, which
# joins tiles of getTile.


def save_pyramid(path, pixels, **kwargs):
    with tifffile.TiffWriter(path) as tiff:
        level, reduction = pixels, 0
        while True:
            tiff.write(level, photometric='rgb' if pixels.shape[2] >= 3 else 'minisblack',
                       resolution=(20_000, 20_000), resolutionunit='CENTIMETER',
                       subfiletype=1 if reduction else 0, metadata=None,
                       extrasamples=['unassalpha'] if pixels.shape[2] in (2, 4) else None,
                       planarconfig='contig' if pixels.shape[2] > 1 else None, **kwargs)
            if max(level.shape[:2]) <= 256:
                return
            reduction += 1
            level = pixels[::2 ** reduction, ::2 ** reduction]


FILES = {
    'rgb, tiles of 64': ('a.tif', (411, 533, 3), 'uint8',
                         {'tile': (64, 64), 'compression': 'deflate'}),
    'rgb, tiles of 240, JPEG': ('b.tif', (411, 533, 3), 'uint8',
                                {'tile': (240, 240), 'compression': 'jpeg'}),
    'gray, 16 bits': ('c.tif', (411, 533, 1), 'uint16', {'tile': (256, 256)}),
    'gray and alpha': ('d.tif', (411, 533, 2), 'uint8', {'tile': (128, 128)}),
    'rgb and alpha, strips': ('e.tif', (411, 533, 4), 'uint8', {'rowsperstrip': 16}),
    'float': ('f.tif', (411, 533, 1), 'float32', {'tile': (512, 512), 'compression': 'deflate'}),
    'five bands': ('g.tif', (411, 533, 5), 'int16', {'tile': (256, 256)}),
    'one level': ('h.tif', (700, 411, 3), 'uint8', {'tile': (256, 256)}),
    'PNG': ('i.png', (411, 533, 4), 'uint8', {}),
}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('files')
    for kind, (name, shape, dtype, options) in FILES.items():
        pixels = random_pixels(shape, dtype)
        if shape[2] in (2, 4):
            # Much that is transparent, with colours under it.
            pixels[..., -1] *= pixels[..., -1] > 100
        if name.endswith('.png'):
            PIL.Image.fromarray(pixels).save(folder / name, dpi=(5080, 5080))
        elif kind == 'one level':
            tifffile.imwrite(folder / name, pixels, photometric='rgb', metadata=None,
                             resolution=(20_000, 20_000), resolutionunit='CENTIMETER', **options)
        else:
            save_pyramid(folder / name, pixels, **options)
    tifffile.imwrite(folder / 'frames.tif', random_pixels((3, 300, 400)), tile=(128, 128),
                     photometric='minisblack', metadata=None)
    return folder


@st.composite
def regions_of(draw):
    units = draw(st.sampled_from(['base_pixels', 'fraction', 'mm', 'mag_pixels']))
    most = {'base_pixels': 550, 'fraction': 1, 'mm': 0.28, 'mag_pixels': 280}[units]
    sides = st.integers(0, most) if units == 'base_pixels' else st.floats(0, most)
    region = {'units': units}
    for name in draw(st.sampled_from([
            (), ('left', 'top', 'width', 'height'), ('left', 'top', 'right', 'bottom'),
            ('right', 'bottom', 'width', 'height'), ('width', 'height'), ('left', 'bottom')])):
        region[name] = draw(sides)
    if draw(st.integers(0, 9)) == 0:
        region['left'] = -draw(sides)
    return region


def output_sizes():
    return st.one_of(
        st.fixed_dictionaries({}, optional={
            'maxWidth': st.integers(0, 700), 'maxHeight': st.integers(0, 700)}),
        st.sampled_from([{'maxWidth': 267}, {'maxWidth': 133, 'maxHeight': 200}]))


def scales():
    return st.sampled_from([
        {}, {'magnification': 20}, {'magnification': 10}, {'magnification': 5},
        {'magnification': 7.3}, {'mm_x': 0.001}, {'mm_x': 0.002, 'mm_y': 0.002},
        {'magnification': 10, 'exact': True}, {'magnification': 9, 'exact': True}])


def formats():
    return st.one_of(
        st.fixed_dictionaries({'format': st.sampled_from([
            'numpy', 'PIL', ('numpy', 'PIL'), ('PIL', 'image'), ['numpy'], {'PIL'}])}),
        st.fixed_dictionaries({'format': st.just('image'), 'encoding': st.sampled_from(
            ['JPEG', 'PNG', 'TIFF'])}))


def requests():
    return st.builds(
        lambda plain, output, rest: {**plain, **output, **rest},
        st.fixed_dictionaries({'region': regions_of()}),
        formats(),
        st.fixed_dictionaries({}, optional={
            'output': output_sizes(), 'scale': scales(), 'resample': st.sampled_from(
                [None, True, False]), 'fill': st.sampled_from(['red', 'corner:#00f', 'none']),
            'tile_overlap': st.fixed_dictionaries(
                {'x': st.integers(0, 40)}, optional={'edges': st.booleans()}),
            'tile_size': st.just({'width': 300}), 'tile_offset': st.just({'auto': True}),
            'tile_position': st.just(1)}))


# large_image's own arithmetic fails for some sizes of 0.
_REFUSALS = ValueError, TypeError, ZeroDivisionError, TileSourceError


def answer(get, request):
    """What a method gives, comparable: pixels or bytes, and the kind; or the error."""
    try:
        value, kind = get(**request)
    except _REFUSALS as exc:
        return type(exc), str(exc)
    if isinstance(value, PIL.Image.Image):
        return value.mode, value.size, value.tobytes(), kind
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes(), kind
    return bytes(value), kind


def assert_same_answers(source, request):
    """Compare with the base class, with what its own tiles leave in the cache and without."""
    with source.cache_lock:
        source.cache.clear()
    found = answer(source.getRegion, request)
    assert answer(functools.partial(FileTileSource.getRegion, source), request) == found
    assert answer(source.getRegion, request) == found


@pytest.mark.parametrize('kind', FILES)
@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request_=requests(), edge=st.sampled_from([False, False, True, '#f80']))
def test_regions_are_those_of_the_base_class(files, kind, request_, edge):
    source = open_file(files / FILES[kind][0], edge=edge)
    assert_same_answers(source, request_)


@settings(max_examples=200, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(FILES)), left=st.integers(-40, 600), top=st.integers(-40, 600),
       width=st.integers(0, 300), height=st.integers(0, 300), halvings=st.integers(0, 5),
       more=st.sampled_from([0, 0, 0, 1]))
def test_regions_that_are_smaller_by_a_power_of_two(
        files, kind, left, top, width, height, halvings, more):
    """The usual requests of data loaders, which are computed without large_image."""
    assert_same_answers(open_file(files / FILES[kind][0]), {
        'format': 'numpy', 'output': {'maxWidth': width, 'maxHeight': height},
        'region': {'left': left, 'top': top, 'width': width << halvings,
                   'height': (height << halvings) + more}})


@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request_=requests(), frame=st.sampled_from([None, 0, 1, '2', 3, -1]),
       style=st.sampled_from([None, {'icc': False}, {'min': 20}, {'bands': [
           {'frame': 2, 'palette': '#f00'}]}]))
def test_regions_of_frames_and_styles(files, request_, frame, style):
    source = open_file(files / 'frames.tif', style=style)
    assert_same_answers(source, {**request_, 'frame': frame})


@settings(max_examples=100, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(FILES)), request_=requests(), width=st.integers(30, 400),
       height=st.integers(30, 400), y=st.integers(0, 29), resample=st.booleans())
def test_iterations_are_those_of_large_image(files, kind, request_, width, height, y, resample):
    source = open_file(files / FILES[kind][0])
    chosen = {name: request_[name] for name in ('region', 'scale', 'output') if name in request_}
    overlap = {'x': 7, 'y': y, **request_.get('tile_overlap', {})}
    chosen |= {'tile_size': {'width': width + 40, 'height': height}, 'tile_overlap': overlap,
               'format': request_['format'] if 'encoding' not in request_ else 'PIL'}
    try:
        expected = TileIterator(source, resample=resample, **chosen)
    except _REFUSALS as exc:
        with pytest.raises(type(exc)):
            source.tileIterator(resample=resample, **chosen)
        return
    found = source.tileIterator(resample=resample, **chosen)
    count = 0
    for tile, other in itertools.islice(zip(found, expected, strict=True), 9):
        try:
            pixels = other['tile']
        except _REFUSALS as exc:
            with pytest.raises(type(exc)):
                tile['tile']
        else:
            assert np.array_equal(np.asarray(tile['tile']), np.asarray(pixels))
        assert dict(tile, tile=None) == dict(other, tile=None)
        count += 1
    assert count == min(9, len(list(source.tileIterator(resample=resample, **chosen))) if (
        expected.info) else 0)


def test_colours_under_alpha_0_stay_where_large_image_joins_pieces(tmp_path):
    """Beyond 4096 pixels the base class drops them; this source returns what is stored."""
    pixels = random_pixels((20, 4200, 4))
    pixels[..., 3] *= pixels[..., 3] > 100
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', tile=(256, 256),
                     extrasamples=['unassalpha'], metadata=None)
    source = open_file(tmp_path / 'a.tif')
    np.testing.assert_array_equal(source.getRegion(format=TILE_FORMAT_NUMPY)[0], pixels)
    joined = FileTileSource.getRegion(source, format=TILE_FORMAT_NUMPY)[0]
    np.testing.assert_array_equal(
        joined, np.where(pixels[..., 3:] > 0, pixels, 0))
    for request in ({'output': {'maxWidth': 4000}, 'format': 'numpy'},
                    {'output': {'maxWidth': 4000}, 'format': 'image', 'encoding': 'PNG'}):
        assert_same_answers(source, request)


def test_a_subclass_with_tiles_of_its_own_has_regions_of_these(path):
    class Inverted(large_image_source_vips.VipsFileTileSource):
        cacheName = 'tilesource'

        def getTile(self, *args, **kwargs):
            return 255 - super().getTile(*args, **{**kwargs, 'numpyAllowed': 'always'})

    source = Inverted(str(path), noCache=True)
    np.testing.assert_array_equal(source.getRegion(format=TILE_FORMAT_NUMPY)[0], 255 - PIXELS)
    tile = next(source.tileIterator(tile_size={'width': 300}, format=TILE_FORMAT_NUMPY))
    np.testing.assert_array_equal(tile['tile'], 255 - PIXELS[:300, :300])


# What is read of the file.

@pytest.fixture
def reads(monkeypatch):
    """The rectangles that are read of files, as (reduction, rectangle)."""
    found, read = SimpleNamespace(rects=[]), Version.read

    def recording(self, frame, reduction, rect, **kwargs):
        found.rects.append((reduction, rect))
        return read(self, frame, reduction, rect, **kwargs)

    monkeypatch.setattr(Version, 'read', recording)
    return found


PLACE = {'left': 300, 'top': 200, 'width': 512, 'height': 400}


@pytest.fixture
def slide(tmp_path):
    """A file with tiles of 240 x 240, and its pixels."""
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', tile=(240, 240),
                     compression='deflate', metadata=None)
    return tmp_path / 'a.tif'


def test_every_stored_tile_is_read_once(slide, reads):
    source = open_file(slide)
    for _ in range(2):
        found = source.getRegion(region=PLACE, format=TILE_FORMAT_NUMPY)[0]
        np.testing.assert_array_equal(found, PIXELS[200:600, 300:812])
        assert [rect for _, rect in reads.rects] == [
            Rect(left, top, 240, 240) for top in (0, 240, 480) for left in (240, 480, 720)]
    # Tiles and another source on the file need nothing else.
    np.testing.assert_array_equal(
        source.getTile(1, 1, 4, numpyAllowed='always'), PIXELS[256:512, 256:512])
    large_image_source_vips.open(str(slide), noCache=True, edge='#f00').getTile(1, 1, 4)
    open_file(slide).getRegion(region=PLACE, output={'maxWidth': 400}, format='PIL')
    assert len(reads.rects) == 9


def test_a_region_needs_only_what_tiles_have_not_read(slide, reads):
    source = open_file(slide)
    source.getTile(1, 0, 4, numpyAllowed='always')
    assert len(reads.rects) == 4
    reads.rects.clear()
    found = source.getRegion(format=TILE_FORMAT_NUMPY)[0]
    np.testing.assert_array_equal(found, PIXELS)
    assert sum(rect.width * rect.height for _, rect in reads.rects) == (
        2100 * 1300 - 480 * 480)


def test_a_large_region_leaves_nothing_in_the_cache(slide, reads):
    source = open_file(slide)
    for _ in range(2):
        source.getRegion(format=TILE_FORMAT_NUMPY)
    assert sum(rect.width * rect.height for _, rect in reads.rects) == 2 * 2100 * 1300


def test_a_failed_tile_is_not_cached(slide):
    before = slide.read_bytes()
    with tifffile.TiffFile(slide) as tiff:
        offset, length = tiff.pages[0].dataoffsets[11], tiff.pages[0].databytecounts[11]
    stat = slide.stat()
    source = open_file(slide)
    # The date stays, so this is the same version of the file.
    overwrite(slide, offset, bytes(length))
    os.utime(slide, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(TileSourceError, match='level 4'):
        source.getRegion(region=PLACE, format=TILE_FORMAT_NUMPY)
    overwrite(slide, offset, before[offset:offset + length])
    os.utime(slide, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = source.getRegion(region=PLACE, format=TILE_FORMAT_NUMPY)[0]
    np.testing.assert_array_equal(found, PIXELS[200:600, 300:812])


def test_arrays_are_the_callers(slide):
    source = open_file(slide)
    iteration = {'tile_size': {'width': 480, 'height': 300}, 'format': TILE_FORMAT_NUMPY}
    for _ in range(2):
        arrays = [
            (source.getRegion(region=PLACE, format=TILE_FORMAT_NUMPY)[0],
             PIXELS[200:600, 300:812]),
            (source.getTile(1, 1, 4, numpyAllowed=True), PIXELS[256:512, 256:512]),
            (next(source.tileIterator(**iteration))['tile'], PIXELS[:300, :480])]
        for found, expected in arrays:
            np.testing.assert_array_equal(found, expected)
            found[:] = 0


@pytest.mark.parametrize('stored', [{'tile': (240, 240)}, {'rowsperstrip': 16}],
                         ids=['tiles', 'strips'])
def test_a_replaced_file_is_not_mixed_with_the_old_one(tmp_path, stored):
    def save(value):
        tifffile.imwrite(tmp_path / 'new.tif', np.full((600, 700, 3), value, 'uint8'),
                         photometric='rgb', metadata=None, **stored)
        os.replace(tmp_path / 'new.tif', tmp_path / 'a.tif')

    save(1)
    source = open_file(tmp_path / 'a.tif')
    source.getRegion(region=PLACE, format=TILE_FORMAT_NUMPY)
    source.getTile(0, 0, 2)
    save(2)
    for found in (source.getRegion(region=PLACE, format=TILE_FORMAT_NUMPY)[0],
                  source.getTile(0, 0, 2, numpyAllowed='always'),
                  source.getTile(0, 0, 2, pilImageAllowed=True),
                  next(source.tileIterator(tile_size={'width': 500}, format='numpy'))['tile'],
                  source.getRegion(region=PLACE, format='PIL', output={'maxWidth': 90})[0]):
        assert np.unique(found).tolist() == [2]


def test_a_file_that_is_replaced_while_a_region_is_read_is_not_mixed(tmp_path, monkeypatch):
    def save(value):
        tifffile.imwrite(tmp_path / 'new.tif', np.full((600, 700, 3), value, 'uint8'),
                         photometric='rgb', tile=(240, 240), metadata=None)
        os.replace(tmp_path / 'new.tif', tmp_path / 'a.tif')

    save(1)
    source, read = open_file(tmp_path / 'a.tif'), Version.read

    def replacing(self, frame, reduction, rect, **kwargs):
        if rect.left:
            save(2)
        return read(self, frame, reduction, rect, **kwargs)

    monkeypatch.setattr(Version, 'read', replacing)
    found = source.getRegion(region=PLACE, format=TILE_FORMAT_NUMPY)[0]
    assert np.unique(found).size == 1
    assert np.unique(source.getRegion(region=PLACE, format=TILE_FORMAT_NUMPY)[0]) == [2]


@pytest.mark.parametrize('region', [
    {'left': 300, 'top': 200, 'width': 512, 'height': 400},
    {'left': -300, 'top': -200, 'width': 100, 'height': 100},
    {'left': 2000, 'top': 1200, 'width': 500, 'height': 500},
    {'left': 3000, 'top': 0, 'width': 10, 'height': 10},
    {'left': 5.4, 'top': 3, 'width': 10.2, 'height': 10},
    {'left': True, 'top': 3, 'width': 10, 'height': 10},
    {'left': None, 'top': 3, 'width': 10, 'height': 10},
    {'left': 5, 'top': 3, 'width': 0, 'height': 10},
    {'left': 5, 'top': 3, 'right': 80, 'height': 10},
    {'left': 5, 'top': 3, 'width': 10, 'height': 10, 'units': 'fraction'},
])
@pytest.mark.parametrize('compression', [None, 'deflate'])
def test_a_region_in_pixels_is_where_the_base_class_has_it(tmp_path, region, compression):
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', tile=(240, 240),
                     compression=compression, metadata=None)
    source = open_file(tmp_path / 'a.tif')
    found, kind = source.getRegion(region=region, format=TILE_FORMAT_NUMPY)
    expected, same_kind = FileTileSource.getRegion(
        source, region=region, format=TILE_FORMAT_NUMPY)
    assert kind == same_kind
    np.testing.assert_array_equal(found, expected)


def test_uncompressed_tiles_are_read_from_the_file_each_time(tmp_path, reads):
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', tile=(240, 240),
                     metadata=None)
    source = open_file(tmp_path / 'a.tif')
    for count in (1, 2):
        np.testing.assert_array_equal(
            source.getRegion(region=PLACE, format=TILE_FORMAT_NUMPY)[0], PIXELS[200:600, 300:812])
        np.testing.assert_array_equal(
            source.getTile(8, 5, source.levels - 1, numpyAllowed='always')[:20, :52],
            PIXELS[1280:, 2048:])
        assert [rect for _, rect in reads.rects] == count * [
            Rect(300, 200, 512, 400), Rect(2048, 1280, 52, 20)]


REQUESTS = {
    'a region': lambda source: source.getRegion(region=PLACE, format=TILE_FORMAT_NUMPY),
    'a scaled region': lambda source: source.getRegion(
        region=PLACE, output={'maxWidth': 90}, format=TILE_FORMAT_NUMPY),
    'a region joined from tiles': lambda source: source.getRegion(
        region=PLACE, tile_size={'width': 100}, format=TILE_FORMAT_NUMPY),
    'a tile': lambda source: source.getTile(1, 1, 4, numpyAllowed='always'),
    'a tile of a lower level': lambda source: source.getTile(0, 0, 3, numpyAllowed='always'),
    'an encoded tile': lambda source: source.getTile(1, 1, 4),
    'a thumbnail': lambda source: source.getThumbnail(),
}


@pytest.mark.parametrize('request_of', REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize(
    'style', [None, {'band': 1, 'min': 0, 'max': 255}], ids=['plain', 'styled'])
def test_a_request_looks_once_whether_the_file_has_changed(
        slide, monkeypatch, request_of, style):
    source, looks = open_file(slide, style=style), []
    monkeypatch.setattr(
        reader, 'file_identity', lambda path: looks.append(path) or file_identity(path))
    for count in (1, 2):
        request_of(source)
        assert len(looks) == count


def test_a_region_that_fails_does_not_keep_the_old_version(tmp_path):
    def save(value):
        tifffile.imwrite(tmp_path / 'new.tif', np.full((600, 700, 3), value, 'uint8'),
                         photometric='rgb', tile=(240, 240), metadata=None)
        os.replace(tmp_path / 'new.tif', tmp_path / 'a.tif')

    save(1)
    source = open_file(tmp_path / 'a.tif')
    with pytest.raises(ValueError, match='units'):
        source.getRegion(region={'left': 0, 'units': 'furlongs'})
    save(2)
    assert np.unique(source.getRegion(format=TILE_FORMAT_NUMPY)[0]) == [2]


# Who reads.

@pytest.fixture
def threads(monkeypatch):
    """Counts the threads that read; four processors, and anything is large."""
    seen, read = set(), Version.read

    def recording(self, *args, **kwargs):
        seen.add(threading.get_ident())
        return read(self, *args, **kwargs)

    monkeypatch.setattr(Version, 'read', recording)
    monkeypatch.setattr(regions, 'SHARED_PIXELS', 1)
    monkeypatch.setattr(regions, 'MAX_KEPT', 1 << 18)
    monkeypatch.setattr(regions, '_SHARE', 1 << 14)
    monkeypatch.setattr(region_threads, '_processors', lambda: 4)
    monkeypatch.setattr(region_threads, 'readers', region_threads.Readers())
    return seen


def read_whole(source):
    found = source.getRegion(format=TILE_FORMAT_NUMPY)[0]
    return np.array_equal(found, PIXELS)


def test_other_threads_help_with_a_large_region(slide, threads, monkeypatch):
    # The first thread that reads waits for a second one, or it may do all before that starts.
    read, started, second = Version.read, set(), threading.Event()

    def waiting(self, *args, **kwargs):
        started.add(threading.get_ident())
        if len(started) > 1:
            second.set()
        assert second.wait(60)
        return read(self, *args, **kwargs)

    monkeypatch.setattr(Version, 'read', waiting)
    assert read_whole(open_file(slide))
    assert len(threads) > 1


def test_no_thread_helps_on_one_processor(slide, threads, monkeypatch):
    monkeypatch.setattr(region_threads, '_processors', lambda: 1)
    assert read_whole(open_file(slide))
    assert threads == {threading.get_ident()}


def test_no_thread_helps_with_a_small_region(slide, threads, monkeypatch):
    monkeypatch.setattr(regions, 'SHARED_PIXELS', 1 << 30)
    assert read_whole(open_file(slide))
    assert threads == {threading.get_ident()}


def test_no_thread_helps_beside_threads_of_the_caller(slide, threads):
    """Not when they read at the same moment, nor when they read in turn."""
    source, turns = open_file(slide), threading.Barrier(2, timeout=60)
    right = []

    def read(number):
        for turn in range(4):
            if turn % 2 == number:
                right.append(read_whole(source))
            turns.wait()

    assert region_threads.readers.enter()
    region_threads.readers.leave()
    in_threads(read, [0, 1])
    assert right == [True] * 4
    assert len(threads) == 2


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system has no fork')
def test_no_thread_helps_in_a_forked_process(slide, threads):
    def read():
        threads.clear()
        return read_whole(open_file(slide)), len(threads)

    assert in_a_forked_child(read) == (True, 1)
    assert in_a_bare_fork(read) == (True, 1)


def test_an_error_in_another_thread_is_raised(slide, threads):
    with tifffile.TiffFile(slide) as tiff:
        offset, length = tiff.pages[0].dataoffsets[-1], tiff.pages[0].databytecounts[-1]
    overwrite(slide, offset, bytes(length))
    with pytest.raises(TileSourceError, match=r'level 4, tile 7, 4 .*a\.tif'):
        open_file(slide).getRegion(format=TILE_FORMAT_NUMPY)


def test_tiles_of_iterations_are_sent_to_processes(slide):
    source = large_image_source_vips.open(str(slide))
    tiles = list(source.tileIterator(tile_size={'width': 700, 'height': 700},
                                     format=TILE_FORMAT_NUMPY))
    tiles[0]['tile']
    copies = pickle.loads(pickle.dumps(tiles))
    for tile in copies:
        left, top = tile['x'], tile['y']
        np.testing.assert_array_equal(
            tile['tile'], PIXELS[top:top + tile['height'], left:left + tile['width']])


def _goes_on(iterator):
    """Whether the rest of an iteration is right."""
    right = True
    for tile in iterator:
        left, top = tile['x'], tile['y']
        right &= np.array_equal(
            tile['tile'], PIXELS[top:top + tile['height'], left:left + tile['width']])
    return right


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system has no fork')
def test_an_iteration_goes_on_in_a_forked_child(path):
    source = open_file(path)
    iterator = source.tileIterator(tile_size={'width': 300, 'height': 300},
                                   format=TILE_FORMAT_NUMPY)
    for _number in range(5):
        assert next(iterator)['tile'] is not None
    assert in_a_forked_child(_goes_on, iterator)
    # And one that starts anew.
    assert in_a_forked_child(lambda: np.array_equal(
        open_file(path).getRegion(format=TILE_FORMAT_NUMPY)[0], PIXELS))


LATE = """
import sys, threading, time
import numpy as np
import large_image_source_vips

def look():
    threading.main_thread().join()
    time.sleep(0.2)
    for path in sys.argv[1:]:
        source = large_image_source_vips.open(path)
        print(source.getRegion(format='numpy')[0].shape,
              source.getTile(0, 0, 0, numpyAllowed='always').shape, flush=True)

threading.Thread(target=look).start()
"""


def test_a_thread_that_outlives_the_main_one(path, tmp_path):
    """Python's pools of threads take nothing any more then."""
    tifffile.imwrite(tmp_path / 'b.tif', PIXELS, photometric='rgb', rowsperstrip=8,
                     compression='zlib')
    done = subprocess.run([sys.executable, '-c', LATE, str(path), str(tmp_path / 'b.tif')],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == '(1300, 2100, 3) (256, 256, 3)\n' * 2, done.stderr
