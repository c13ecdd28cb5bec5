"""
``stitch`` places files by their names or by a table.
"""

import numpy as np
import PIL.Image
import pytest
import tifffile

from helpers.command_line import run
from helpers.pixels import random_pixels
from large_image_source_vips.command_line import stitch

PIXELS = random_pixels((200, 300, 3))


def cut(folder, name, side=64):
    """Write tiles named by ``name``, a function of left, top, column and row."""
    for row, top in enumerate(range(0, 200, side)):
        for col, left in enumerate(range(0, 300, side)):
            path = folder / name(left, top, col, row)
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(PIXELS[top:top + side, left:left + side]).save(path)


def written(path):
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[0].asarray()


@pytest.mark.parametrize(('name', 'pattern'), [
    (lambda x, y, col, row: f't_{x}_{y}.png', 't_{x}_{y}.png'),
    (lambda x, y, col, row: f'{y:06}/x{x:06}.tif', '{y}/x{x}.tif'),
    (lambda x, y, col, row: f'deep/r{row}/c{col}-of-5.png', 'deep/r{row}/c{col}-*.png'),
    (lambda x, y, col, row: f'a({row},{col}).webp', 'a({row},{col}).webp'),
    (lambda x, y, col, row: f'{x - 100}_{y - 50}.png', '{x}_{y}.png'),
])
def test_names(capsys, tmp_path, name, pattern):
    def lossless(x, y, col, row):
        return name(x, y, col, row).replace('.webp', '.png')

    cut(tmp_path / 'in', lossless)
    pattern = pattern.replace('.webp', '.png')
    done = run(capsys, 'stitch', tmp_path / 'in' / pattern, tmp_path / 'a.tif', '--lossless',
               '--pixel-size', '0.25')
    assert (done.status, done.err) == (0, '')
    np.testing.assert_array_equal(written(tmp_path / 'a.tif'), PIXELS)
    assert '20 files, 300 x 200 pixels' in done.out
    info = run(capsys, 'info', tmp_path / 'a.tif')
    assert '0.25 um' in info.out


def test_relative_patterns(capsys, tmp_path, monkeypatch):
    cut(tmp_path, lambda x, y, col, row: f'{x}_{y}.png')
    monkeypatch.chdir(tmp_path)
    run(capsys, 'stitch', './{x}_{y}.png', 'a.tif', '--lossless')
    np.testing.assert_array_equal(written('a.tif'), PIXELS)


def test_steps_of_overlapping_tiles(capsys, tmp_path):
    for row in range(3):
        for col in range(4):
            part = PIXELS[row * 60:row * 60 + 80, col * 70:col * 70 + 90]
            PIL.Image.fromarray(part).save(tmp_path / f'{row}.{col}.png')
    run(capsys, 'stitch', tmp_path / '{row}.{col}.png', tmp_path / 'a.tif', '--lossless',
        '--step', '70,60')
    np.testing.assert_array_equal(written(tmp_path / 'a.tif'), PIXELS)


@pytest.mark.parametrize('header', ['', 'name,x,y\n', ' Y, name ,x\n'])
def test_tables(capsys, tmp_path, header):
    cut(tmp_path / 'in', lambda x, y, col, row: f'{x},{y}.png')
    lines = [f'{y},"in/{x},{y}.png",{x}' if 'Y' in header else f'"in/{x},{y}.png",{x},{y}'
             for y in range(0, 200, 64) for x in range(0, 300, 64)]
    (tmp_path / 't.csv').write_text(header + '\n'.join(lines) + '\n\n')
    done = run(capsys, 'stitch', tmp_path / 't.csv', tmp_path / 'a.tif', '--lossless')
    assert done.status == 0
    np.testing.assert_array_equal(written(tmp_path / 'a.tif'), PIXELS)


def test_order_of_a_table_is_that_of_the_layers(capsys, tmp_path):
    for name, value in (('a', 1), ('b', 2)):
        tifffile.imwrite(tmp_path / f'{name}.tif', np.full((20, 20, 3), value, 'uint8'))
    (tmp_path / 't.csv').write_text('b.tif,0,0\na.tif,10,0\n')
    run(capsys, 'stitch', tmp_path / 't.csv', tmp_path / 'o.tif', '--lossless')
    np.testing.assert_array_equal(written(tmp_path / 'o.tif')[0, ::10, 0], [2, 1, 1])


def test_labels_are_kept(capsys, tmp_path):
    labels = random_pixels((64, 64)) % 100
    PIL.Image.fromarray(labels).save(tmp_path / '0_0.png')
    done = run(capsys, 'stitch', tmp_path / '{x}_{y}.png', tmp_path / 'a.tif', '--labels')
    assert done.err == ''
    np.testing.assert_array_equal(written(tmp_path / 'a.tif'), labels)


PLANES = random_pixels((2, 3, 40, 50), 'uint16')


def test_frames_of_names(capsys, tmp_path):
    for c, z in np.ndindex(2, 3):
        tifffile.imwrite(tmp_path / f'0_0_c{c}_z{z}.tif', PLANES[c, z])
    done = run(capsys, 'stitch', tmp_path / '{x}_{y}_c{c}_z{z}.tif', tmp_path / 'a.ome.tif')
    assert (done.status, '6 files, 50 x 40 pixels, 6 frames' in done.out) == (0, True)
    with tifffile.TiffFile(tmp_path / 'a.ome.tif') as tiff:
        (series, *_) = tiff.series
        assert series.axes == 'ZCYX'
        np.testing.assert_array_equal(series.asarray(), PLANES.swapaxes(0, 1))


@pytest.mark.parametrize('header', ['', 'name,x,y,c,z\n', 'z,c,name,y,x\n'])
def test_frames_of_a_table(capsys, tmp_path, header):
    rows = [header]
    for c, z in np.ndindex(2, 3):
        for side in range(2):
            name, x = f'{c}{z}{side}.tif', 25 * side
            tifffile.imwrite(tmp_path / name, PLANES[c, z][:, x:x + 25])
            row = {'name': name, 'x': x, 'y': 0, 'c': c, 'z': z}
            order = (header or 'name,x,y,c,z').strip().split(',')
            rows.append(','.join(str(row[key]) for key in order) + '\n')
    (tmp_path / 't.csv').write_text(''.join(rows))
    assert run(capsys, 'stitch', tmp_path / 't.csv', tmp_path / 'a.tif').status == 0
    with tifffile.TiffFile(tmp_path / 'a.tif') as tiff:
        assert tiff.series[0].axes == 'ZCYX'
        np.testing.assert_array_equal(tiff.series[0].asarray(), PLANES.swapaxes(0, 1))


def test_frames_that_a_file_cannot_hold(capsys, tmp_path):
    for z in range(2):
        tifffile.imwrite(tmp_path / f'0_0_{z}.tif', np.zeros((9, 9), 'uint8'))
    done = run(capsys, 'stitch', tmp_path / '{x}_{y}_{z}.tif', tmp_path / 'a.png')
    assert (done.status, 'belong to 2 frames' in done.err) == (1, True)
    found = stitch.match(str(tmp_path / '{x}_{y}_{z}.tif'), None)
    assert [tile.frame for tile in found] == [{'z': 0}, {'z': 1}]


def test_deepzoom(capsys, tmp_path):
    for x in (0, 70):
        PIL.Image.fromarray(PIXELS).save(tmp_path / f'{x}_0.png')
    done = run(capsys, 'stitch', tmp_path / '{x}_{y}.png', tmp_path / 'out.dz', '--no-alpha')
    assert (done.status, done.err) == (0, '')
    assert 'out.dz: 2 files' in done.out
    assert (tmp_path / 'out.dzi').is_file()


@pytest.mark.parametrize(('pattern', 'words'), [
    ('{x}_{y}.jpg', 'No file matches'),
    ('a.png', 'must hold {x} and {y}'),
    ('{x}.png', 'must hold {x} and {y}'),
    ('{x}_{y}_{row}.png', 'must hold {x} and {y}'),
    ('{x}_{y}_{q}.png', 'must hold {x} and {y}'),
    ('none.csv', 'There is no file none.csv.'),
    ('latin.csv', 'latin.csv is no CSV table in UTF-8'),
    ('bad.csv', "Row 2 of bad.csv is '0_0.png,a,0'"),
    ('missing.csv', "names '9.png', and there is no such file"),
    ('empty.csv', 'empty.csv has no row that names a file'),
    ('broken/{x}_{y}.png', '0_0.png: '),
])
def test_one_sentence_and_nothing_written(capsys, tmp_path, monkeypatch, pattern, words):
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(PIXELS).save('0_0.png')
    for name, text in {'bad.csv': '0_0.png,0,0\n0_0.png,a,0\n', 'missing.csv': '9.png,0,0',
                       'empty.csv': ''}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / 'latin.csv').write_bytes(b'name,x,y\n\xe9.png,0,0')
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / '0_0.png').write_text('no image')
    done = run(capsys, 'stitch', pattern, 'out.tif')
    assert done.status == 1
    (error,) = done.err.splitlines()
    assert words in error
    assert not (tmp_path / 'out.tif').exists()
