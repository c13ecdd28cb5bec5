"""Arguments of the wrong kind raise a short ``TileSourceError``, whatever they are."""

import decimal

import numpy as np
import pytest
from large_image.exceptions import TileSourceError

import large_image_source_vips

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
ODD = [
    np.zeros((3000, 3, 3), np.uint8), np.zeros(0), np.array(2.5), object(), float('nan'),
    float('inf'), 10 ** 400, -1, 1.5, 1j, 'x' * 300, '\ud800', 'no\0end', b'x', [], [[1]],
    [None], {1: 2}, {'a': np.zeros(2)}, set(), decimal.Decimal('1e500'), len]
IDS = [str(number) for number in range(len(ODD))]


def new_image(**options):
    image = large_image_source_vips.new(**options)
    image.addTile(PIXELS)
    return image


def check(call):
    """A call may succeed; if it fails, then with one line that is not too long."""
    said = ''
    try:
        call()
    except TileSourceError as exc:
        said = str(exc)
    assert len(said) < 1200
    assert '\n' not in said


@pytest.mark.parametrize('odd', ODD, ids=IDS)
@pytest.mark.parametrize('name', [
    'x', 'y', 'mask', 'axes', 'interpretation', 'z', 'c', 'q', 'z_value', 'weight', 'key', 'order'])
def test_arguments_of_add_tile(name, odd):
    image = new_image(**({'blend': 'mean'} if name == 'weight' else {}))
    check(lambda: image.addTile(PIXELS, **{name: odd}))
    check(lambda: image.addTile(odd))
    image.addTile(PIXELS)


@pytest.mark.parametrize('odd', ODD, ids=IDS)
@pytest.mark.parametrize('name', [
    'vips_kwargs', 'frame', 'compression', 'quality', 'subsampling', 'predictor', 'tileSize',
    'resample', 'fill', 'dtype', 'crop', 'level', 'associatedImages'])
def test_arguments_of_write(tmp_path, name, odd):
    image = new_image()
    check(lambda: image.write(tmp_path / 'a.tif', **{name: odd}))
    assert [path.name for path in tmp_path.iterdir()] in ([], ['a.tif'])


@pytest.mark.parametrize('odd', ODD, ids=IDS)
def test_paths(tmp_path, monkeypatch, odd):
    monkeypatch.chdir(tmp_path)
    if isinstance(odd, bytes):
        pytest.skip('it is a path')
    check(lambda: new_image().write(odd))
    check(lambda: large_image_source_vips.open(odd))
    assert large_image_source_vips.canRead(odd) is False


@pytest.mark.parametrize('odd', ODD, ids=IDS)
@pytest.mark.parametrize('name', [
    'mm_x', 'magnification', 'crop', 'minWidth', 'channelNames', 'channelColors', 'frameAxes',
    'frameUnits', 'frameValues', 'imageDescription', 'additionalMetadata', 'palette', 'classNames'])
def test_properties(name, odd):
    check(lambda: setattr(new_image(), name, odd))


@pytest.mark.parametrize('odd', ODD, ids=IDS)
def test_other_arguments(odd):
    image = new_image()
    check(lambda: large_image_source_vips.new(blend=odd))
    check(lambda: large_image_source_vips.new(blend='mean', accumulator=odd))
    assert image.getAssociatedImage(odd) is None
    check(lambda: image.addAssociatedImage(odd, 'key'))
    check(lambda: image.addAssociatedImage(PIXELS, odd))
    check(lambda: image.getTile(odd, 0, 0))
    check(lambda: image.getTile(0, 0, 0, frame=odd))
    check(lambda: image.asArray(level=odd))
    check(lambda: image.asArray(frame=odd))
