"""
The example of the README works, with its photograph and with other images.
"""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

pytest.importorskip('tqdm', reason='the example shows progress with tqdm')

SCRIPT = Path(__file__).parent.parent / 'examples' / 'stitch.py'
NAMES = ['photo-lossless.tif', 'photo-overlay.jpg', 'photo-stains.ome.tif', 'photo.tif']


@pytest.fixture(scope='module')
def stitch():
    spec = importlib.util.spec_from_file_location('stitch', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture(rows, cols, bands, dtype=np.uint8):
    """Something smooth, as a photograph is, so that JPEG stays near it."""
    y, x = np.mgrid[:rows, :cols]
    planes = [127 + 100 * np.sin(x / (17 + band) + band) * np.cos(y / 29) for band in range(bands)]
    array = np.stack(planes, axis=2) * (np.iinfo(dtype).max / 255)
    return array.astype(dtype)[..., 0] if bands == 1 else array.astype(dtype)


def saved(folder, array):
    path = folder / 'photo.png'
    PIL.Image.fromarray(array).save(path)
    return path


def covered(shape, patches):
    inside = np.zeros(shape, bool)
    for left, top, width, height in patches:
        inside[top:top + height, left:left + width] = True
    return inside


class Whole:
    """An array as what is cut into patches."""

    def __init__(self, array):
        self.array = array
        self.height, self.width = array.shape[:2]

    def read(self, rect):
        left, top, width, height = rect
        return self.array[top:top + height, left:left + width]


@pytest.fixture(scope='module')
def made(stitch, tmp_path_factory):
    """A picture of 700 x 1100 pixels, its patches, and the folder with what became of it."""
    folder = tmp_path_factory.mktemp('demo')
    array = picture(700, 1100, 3)
    stitch.main([str(saved(folder, array)), '--output', str(folder), '--tile', '100',
                 '--overlap', '31'])
    return array, stitch.cut(Whole(array), 100, 31), folder


def test_runs_from_the_command_line(tmp_path):
    pytest.importorskip('skimage', reason='the default photograph is in scikit-image')
    done = subprocess.run(
        [sys.executable, SCRIPT, '--output', tmp_path / 'demo', '--size', '1500'], cwd=tmp_path,
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '1,500 x 1,500 pixels' in done.stdout
    assert 'channels hematoxylin, DAB' in done.stdout
    assert 'tiles/s' in done.stdout
    assert 'equals the patches in every pixel' in done.stdout
    # The progress bars came to their ends.
    assert done.stderr.count('100%') >= 4
    assert sorted(file.name for file in (tmp_path / 'demo').iterdir()) == [
        name.replace('photo', 'slide') for name in NAMES]


def test_files(made):
    assert sorted(file.name for file in made[2].iterdir()) == sorted([*NAMES, 'photo.png'])


@pytest.mark.parametrize('name', ['photo.tif', 'photo-lossless.tif'])
def test_slide_is_a_pyramid_of_tiles(made, name):
    with tifffile.TiffFile(made[2] / name) as tiff:
        sizes = [page.shape[:2] for page in tiff.pages]
        tiles = {page.tile for page in tiff.pages}
    assert sizes[:3] == [(700, 1100), (350, 550), (175, 275)]
    for (rows, cols), (half_rows, half_cols) in itertools.pairwise(sizes):
        assert (half_rows, half_cols) == (-(-rows // 2), -(-cols // 2))
    assert max(sizes[-1]) <= 256
    assert tiles == {(256, 256)}


def test_lossless_slide_holds_the_patches_and_holes(made):
    array, patches, folder = made
    found = tifffile.imread(folder / 'photo-lossless.tif', key=0)
    inside = covered(array.shape[:2], patches)
    assert not inside.all()
    np.testing.assert_array_equal(found[..., 3] == 255, inside)
    np.testing.assert_array_equal(found[inside, :3], array[inside])
    assert not found[~inside, 3].any()


def test_lossy_slide_is_near_the_patches(made):
    array, patches, folder = made
    inside = covered(array.shape[:2], patches)
    found = tifffile.imread(folder / 'photo.tif', key=0).astype(int)
    assert np.abs(found[inside] - array[inside]).mean() < 3


def test_stains_are_channels_with_names(made, stitch):
    array, patches, folder = made
    with tifffile.TiffFile(folder / 'photo-stains.ome.tif') as tiff:
        assert tiff.is_ome
        xml = tiff.ome_metadata
        found = tiff.series[0].asarray()
    assert 'Name="hematoxylin"' in xml
    assert 'Name="DAB"' in xml
    expected = np.moveaxis(stitch.predict(array), 2, 0)
    assert found.shape[:3] == (2, 700, 1100)
    channels = found if found.ndim == 3 else found[..., 0]
    # Averages of equal amounts are these amounts.
    inside = covered(array.shape[:2], patches)
    np.testing.assert_array_equal(channels[:, inside], expected[:, inside])


def test_overlay_shows_the_slide_beside_it(made):
    with PIL.Image.open(made[2] / 'photo-overlay.jpg') as image:
        assert image.size == (2 * 700 + 12, 700)
        pixels = np.asarray(image).astype(int)
    array = made[0][:, 200:900]
    # But for holes and the loss of JPEG.
    assert np.median(np.abs(pixels[:, :700] - array)) < 4


def test_stains_are_separated_as_by_scikit_image(stitch):
    color = pytest.importorskip('skimage.color')
    patch = np.random.default_rng(1).integers(20, 256, (40, 50, 3)).astype(np.uint8)
    expected = color.rgb2hed(patch)[..., [0, 2]]
    found = stitch.predict(patch).astype(float)
    # scikit-image has the same unit vectors but completes them with another third one, and
    # counts in units of ln(1e6).
    for stain in range(2):
        rank = np.corrcoef(expected[..., stain].ravel(), found[..., stain].ravel())[0, 1]
        assert rank > 0.8


@pytest.mark.parametrize('array', [
    picture(90, 130, 1), picture(300, 300, 1, np.uint16), picture(1, 1, 3), picture(5, 600, 3),
    picture(200, 210, 4)], ids=['gray', '16 bit', 'one pixel', 'narrow', 'alpha'])
def test_other_pictures(stitch, tmp_path, capsys, array):
    out = tmp_path / 'out'
    stitch.main([str(saved(tmp_path, array)), '--output', str(out), '--tile', '64',
                 '--overlap', '8'])
    assert 'equals the patches in every pixel' in capsys.readouterr().out
    assert sorted(file.name for file in out.iterdir()) == NAMES


def test_patches_cover_all_but_the_holes(stitch):
    whole = Whole(picture(3000, 2500, 3))
    patches = stitch.cut(whole, 128, 20)
    inside = covered((3000, 2500), patches)
    assert inside[0, 0]
    assert inside[-1, -1]
    assert 0.9 < inside.mean() < 1
    assert len(set(patches)) == len(patches)
    assert patches != sorted(patches)


def test_repeated_photograph_has_no_seams(stitch):
    tile = picture(40, 40, 3)
    whole = stitch.Repeated(tile, 200)
    all_of_it = whole.read(stitch.Rect(0, 0, 200, 200)).astype(int)
    np.testing.assert_array_equal(all_of_it[:40, :40], tile)
    np.testing.assert_array_equal(all_of_it[:40, 40:80], tile[:, ::-1])
    np.testing.assert_array_equal(all_of_it[80:120, 80:120], tile)
    np.testing.assert_array_equal(whole.read(stitch.Rect(33, 71, 50, 60)),
                                  all_of_it[71:131, 33:83])


def test_difference_is_noticed(stitch, made):
    array, patches, folder = made
    other = array.copy()
    left, top, _, _ = patches[3]
    other[top + 5, left + 5, 1] ^= 1
    with pytest.raises(SystemExit, match='does not hold'):
        stitch.verify_slide(folder / 'photo-lossless.tif', Whole(other), patches)
    with pytest.raises(SystemExit, match='does not hold'):
        stitch.verify_stains(folder / 'photo-stains.ome.tif', Whole(255 - array), patches)


def test_hole_that_is_filled_is_noticed(stitch, made):
    array, patches, folder = made
    with pytest.raises(SystemExit, match='does not hold'):
        stitch.verify_slide(folder / 'photo-lossless.tif', Whole(array), patches[:-20])


def test_own_image_is_not_replaced(stitch, tmp_path):
    path = tmp_path / 'photo.tif'
    PIL.Image.fromarray(picture(50, 60, 3)).save(path)
    before = path.read_bytes()
    with pytest.raises(SystemExit, match='would be replaced'):
        stitch.main([str(path), '--output', str(tmp_path)])
    assert path.read_bytes() == before


@pytest.mark.parametrize('arguments', [
    ['--tile', '10', '--overlap', '6'], ['--overlap', '-1'], ['--size', '0'],
    ['no/such/file.png']])
def test_nonsense_is_refused(stitch, capsys, arguments):
    with pytest.raises(SystemExit) as refusal:
        stitch.main(arguments)
    assert refusal.value.code == 2
    assert 'usage' in capsys.readouterr().err
