"""
``convert`` writes the contents of the source, and never overwrites a file by accident.
"""

import argparse
import functools
import io
import json
import threading

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import tifffile

import large_image_source_vips
from helpers.command_line import run
from helpers.pixels import random_pixels
from large_image_source_vips.command_line import convert
from large_image_source_vips.command_line.arguments import frame_numbers

PIXELS = random_pixels((700, 900, 3))


@pytest.fixture
def slide(tmp_path):
    """A slide with everything that identifies a person or a machine."""
    path = tmp_path / 'in.tif'
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS, tile=(256, 256), photometric='rgb', compression='deflate',
                   description='Aperio Image|AppMag = 20|MPP = 0.5|Date = 12/29/09|User = Secret',
                   datetime='2009:12:29 09:59:15', software='Secret 7', metadata=None,
                   iccprofile=profile_with_texts(),
                   extratags=[(271, 2, 0, 'Secret Make', True), (315, 2, 0, 'Secret', True)])
        tiff.write(PIXELS[:100, :80], description='Aperio\nlabel 80x100 Secret',
                   photometric='rgb', metadata=None)
        tiff.write(PIXELS[:90, :200], description='Aperio\nmacro 200x90 Secret',
                   photometric='rgb', metadata=None)
    return path


@functools.cache
def profile_with_texts() -> bytes:
    """A colour profile that swaps red and green, of a device with a name and a date."""
    profile = bytearray(PIL.ImageCms.ImageCmsProfile(
        PIL.ImageCms.createProfile('sRGB')).tobytes())
    for start in range(128 + 4, 128 + 4 + 12 * profile[131], 12):
        name = bytes(profile[start:start + 4])
        if name in {b'rXYZ', b'gXYZ'}:
            profile[start:start + 4] = {b'rXYZ': b'gXYZ', b'gXYZ': b'rXYZ'}[name]
    profile[48:52] = b'Make'
    profile[52:56] = b'SN42'
    at = profile.find('sRGB'.encode('utf-16-be'))
    assert at > 0
    profile[at:at + 8] = 'SN42'.encode('utf-16-be')
    return bytes(profile)


def first_page(path):
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[0].asarray()


def test_lossless_is_exact(capsys, slide, tmp_path):
    done = run(capsys, 'convert', slide, tmp_path / 'out.tif', '--lossless')
    assert done.status == 0
    np.testing.assert_array_equal(first_page(tmp_path / 'out.tif'), PIXELS)
    assert done.out.startswith(f'{tmp_path / "out.tif"}: ')


def test_lossy_is_smaller(capsys, slide, tmp_path):
    run(capsys, 'convert', slide, tmp_path / 'a.tif')
    run(capsys, 'convert', slide, tmp_path / 'b.tif', '--lossless')
    assert (tmp_path / 'a.tif').stat().st_size < (tmp_path / 'b.tif').stat().st_size


@pytest.mark.parametrize(('options', 'names'), [
    ([], ['label', 'macro']), (['--keep', 'label'], ['label']), (['--drop', 'label'], ['macro']),
    (['--drop', 'label,macro'], []), (['--keep', 'label,macro', '--drop', 'macro'], ['label'])])
@pytest.mark.parametrize('name', ['a.tif', 'a.ome.tif'])
def test_associated_images(capsys, slide, tmp_path, options, names, name):
    done = run(capsys, 'convert', slide, tmp_path / name, *options)
    assert (done.status, done.err) == (0, '')
    found = json.loads(run(capsys, 'info', '--json', tmp_path / name).out)
    assert sorted(found['associated']) == names


def test_images_that_are_lost_are_named(capsys, slide, tmp_path):
    done = run(capsys, 'convert', slide, tmp_path / 'a.jpg')
    assert 'without what only .tif files hold: ' in done.err
    assert done.err.endswith('associated images (label, macro)\n')
    assert done.err.count('\n') == 1
    done = run(capsys, 'convert', slide, tmp_path / 'b.jpg', '--drop', 'label,macro')
    assert 'associated' not in done.err
    done = run(capsys, 'convert', slide, tmp_path / 'c.jpg', '--deidentify')
    assert done.err == ''


@pytest.mark.parametrize('crop', [(100, 200, 333, 222), (800, 650, 1000, 1000), (0, 0, 1, 1)])
def test_crop(capsys, slide, tmp_path, crop):
    left, top, width, height = crop
    run(capsys, 'convert', slide, tmp_path / 'a.tif', '--lossless',
        '--crop', ','.join(map(str, crop)))
    np.testing.assert_array_equal(
        first_page(tmp_path / 'a.tif'), PIXELS[top:top + height, left:left + width])


def test_level_becomes_full_resolution(capsys, slide, tmp_path):
    run(capsys, 'region', slide, tmp_path / 'a.npy', '--level', '1')
    run(capsys, 'convert', slide, tmp_path / 'a.tif', '--lossless', '--level', '1')
    np.testing.assert_array_equal(first_page(tmp_path / 'a.tif'), np.load(tmp_path / 'a.npy'))
    found = json.loads(run(capsys, 'info', '--json', tmp_path / 'a.tif').out)
    # Twice the 0.5 um of the slide.
    assert found['mm_x'] == pytest.approx(0.001)


def test_crop_of_a_level(capsys, slide, tmp_path):
    which = ('--level', '1', '--crop', '101,203,700,397')
    run(capsys, 'region', slide, tmp_path / 'a.npy', *which)
    run(capsys, 'convert', slide, tmp_path / 'a.tif', '--lossless', *which)
    np.testing.assert_array_equal(first_page(tmp_path / 'a.tif'), np.load(tmp_path / 'a.npy'))


def test_profile_is_kept(capsys, slide, tmp_path):
    run(capsys, 'convert', slide, tmp_path / 'a.tif', '--crop', '0,0,300,300')
    with PIL.Image.open(tmp_path / 'a.tif') as image:
        assert image.info['icc_profile'] == profile_with_texts()


@pytest.mark.parametrize('options', [[], ['--lossless'], ['--crop', '9,9,400,400'],
                                     ['--level', '1']])
def test_deidentified_files_hold_no_names_and_dates(capsys, slide, tmp_path, options):
    out = tmp_path / 'out.tif'
    done = run(capsys, 'convert', slide, out, '--deidentify', *options)
    assert done.status == 0
    data = out.read_bytes()
    with PIL.Image.open(out) as image:
        profile = image.info['icc_profile']
    for coding in ('ascii', 'utf-16-be', 'utf-16-le'):
        for text in ('Secret', '2009:12', '12/29/09'):
            assert text.encode(coding) not in data
        for text in ('SN42', 'Make', 'sRGB'):
            assert text.encode(coding) not in profile
    with tifffile.TiffFile(out) as tiff:
        assert not {'ImageDescription', 'DateTime', 'Software', 'Make', 'Artist'} & {
            tag.name for page in tiff.pages for tag in page.tags}
    assert 'left out: associated images: label, macro' in done.out
    assert 'image-description' in done.out
    assert 'kept: the pixels, their size, the colour profile' in done.out


def test_deidentified_pixels_are_exact(capsys, slide, tmp_path):
    run(capsys, 'convert', slide, tmp_path / 'a.tif', '--deidentify', '--lossless')
    np.testing.assert_array_equal(first_page(tmp_path / 'a.tif'), PIXELS)
    found = json.loads(run(capsys, 'info', '--json', tmp_path / 'a.tif').out)
    assert found['mm_x'] == pytest.approx(0.0005)
    assert found['associated'] == {}


def test_deidentified_exif_and_xmp_are_gone(capsys, tmp_path):
    image = PIL.Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[0x010F], exif[0x9003] = 'Secret Make', '2009:12:29 09:59:15'
    image.save(tmp_path / 'a.jpg', exif=exif, xmp=b'<x:xmpmeta>Secret</x:xmpmeta>')
    assert b'Secret' in (tmp_path / 'a.jpg').read_bytes()
    for suffix in ('.tif', '.png', '.jpg'):
        out = tmp_path / f'out{suffix}'
        assert run(capsys, 'convert', tmp_path / 'a.jpg', out, '--deidentify').status == 0
        assert b'Secret' not in out.read_bytes()
        assert b'2009:12' not in out.read_bytes()


def test_anonymous_profile_converts_alike(capsys, slide, tmp_path):
    run(capsys, 'convert', slide, tmp_path / 'a.tif', '--deidentify')
    with PIL.Image.open(tmp_path / 'a.tif') as image:
        anonymous = image.info['icc_profile']
    assert anonymous != profile_with_texts()
    picture = PIL.Image.fromarray(PIXELS)
    shown = [np.asarray(PIL.ImageCms.profileToProfile(
        picture, io.BytesIO(profile), PIL.ImageCms.createProfile('sRGB')))
        for profile in (profile_with_texts(), anonymous)]
    np.testing.assert_array_equal(*shown)
    assert not np.array_equal(shown[0], PIXELS)


class TestFrames:
    STACK = random_pixels((5, 60, 70), 'uint16')

    @pytest.fixture
    def stack(self, tmp_path):
        tifffile.imwrite(tmp_path / 's.tif', self.STACK, photometric='minisblack')
        return tmp_path / 's.tif'

    def test_one_frame(self, capsys, stack, tmp_path):
        assert run(capsys, 'convert', stack, tmp_path / 'a.tif', '--frames', '3').status == 0
        np.testing.assert_array_equal(first_page(tmp_path / 'a.tif'), self.STACK[3])

    @pytest.mark.parametrize('name', ['a.tif', 'a.ome.tif'])
    @pytest.mark.parametrize('chosen', [[], ['--frames', 'all']])
    def test_all_frames(self, capsys, stack, tmp_path, chosen, name):
        assert run(capsys, 'convert', stack, tmp_path / name, *chosen).status == 0
        with tifffile.TiffFile(tmp_path / name) as tiff:
            assert tiff.is_ome
            np.testing.assert_array_equal(tiff.series[0].asarray(), self.STACK)

    def test_some_frames(self, capsys, stack, tmp_path):
        out = tmp_path / 'a.tif'
        assert run(capsys, 'convert', stack, out, '--frames', '0-1,4').status == 0
        np.testing.assert_array_equal(
            tifffile.imread(out).reshape(3, 60, 70), self.STACK[[0, 1, 4]])

    @pytest.mark.parametrize('chosen', [[], ['--frames', 'all'], ['--frames', '0-2']])
    def test_what_a_png_cannot_hold(self, capsys, stack, tmp_path, chosen):
        done = run(capsys, 'convert', stack, tmp_path / 'a.png', *chosen)
        assert done.status == 1
        assert 'choose one with --frames 0 to --frames 4, or write a .tif' in done.err
        assert not (tmp_path / 'a.png').exists()

    def test_one_frame_of_a_png(self, capsys, stack, tmp_path):
        assert run(capsys, 'convert', stack, tmp_path / 'a.png', '--frames', '2').status == 0
        with PIL.Image.open(tmp_path / 'a.png') as image:
            np.testing.assert_array_equal(np.asarray(image), self.STACK[2])

    @pytest.mark.parametrize(('text', 'frames'), [
        ('3', (3,)), ('0,2,5-7', (0, 2, 5, 6, 7)), ('all', None)])
    def test_lists(self, text, frames):
        assert frame_numbers(text) == frames

    @pytest.mark.parametrize('text', ['', '-1', '3-1', 'x', '1,,2', '0-99999999999'])
    def test_wrong_lists(self, text):
        with pytest.raises(argparse.ArgumentTypeError, match='count from 0'):
            frame_numbers(text)


class TestSeveral:
    @pytest.fixture
    def files(self, tmp_path):
        for name in ('a.png', 'b.png', 'c.ome.tif'):
            PIL.Image.fromarray(PIXELS).save(tmp_path / name)
        return [tmp_path / name for name in ('a.png', 'b.png', 'c.ome.tif')]

    @pytest.mark.parametrize('jobs', [1, 3])
    def test_into_a_folder(self, capsys, files, tmp_path, jobs):
        done = run(capsys, 'convert', *files, tmp_path / 'out', '--lossless', '--jobs', jobs)
        assert (done.status, done.err) == (0, '')
        assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
            'a.tif', 'b.tif', 'c.tif']
        for path in (tmp_path / 'out').iterdir():
            np.testing.assert_array_equal(first_page(path), PIXELS)
        assert [line.split(':')[0][-5:] for line in done.out.splitlines()] == [
            'a.tif', 'b.tif', 'c.tif']

    def test_suffix(self, capsys, files, tmp_path):
        (tmp_path / 'out').mkdir()
        run(capsys, 'convert', files[0], tmp_path / 'out', '--suffix', 'webp')
        assert [path.name for path in (tmp_path / 'out').iterdir()] == ['a.webp']

    def test_one_bad_file_does_not_stop_the_others(self, capsys, files, tmp_path):
        files[1].write_text('no image')
        done = run(capsys, 'convert', *files, tmp_path / 'out', '--jobs', '2')
        assert done.status == 1
        (error,) = done.err.splitlines()
        assert 'b.png' in error
        assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a.tif', 'c.tif']

    def test_same_names_are_refused_before_anything_is_written(self, capsys, files, tmp_path):
        PIL.Image.fromarray(PIXELS).save(tmp_path / 'a.webp')
        done = run(capsys, 'convert', *files, tmp_path / 'a.webp', tmp_path / 'out')
        assert (done.status, 'would both be written' in done.err) == (1, True)
        assert not (tmp_path / 'out').exists()

    def test_a_file_is_no_folder(self, capsys, files):
        done = run(capsys, 'convert', *files)
        assert (done.status, 'name a folder' in done.err) == (1, True)

    def test_stopping_cancels_all(self, files, tmp_path):
        stop = threading.Event()
        stop.set()
        tell = convert._stoppable(lambda fraction: None, stop)
        with pytest.raises(convert.CancelledError):
            tell(0.5)


@pytest.mark.parametrize(('arguments', 'words'), [
    (['in.tif', 'in.tif', '--overwrite'], 'is the file to convert'),
    (['in.tif', 'there.tif'], '--overwrite'),
    (['in.tif', 'no/a.tif'], 'no folder'),
    (['in.tif', 'a.xyz'], 'writes no .xyz'),
    (['none.tif', 'a.tif'], 'No such file'),
    (['in.tif', 'a.png', '--keep', 'label'], 'cannot have associated images'),
    (['in.tif', 'a.tif', '--keep', 'labels'], "no associated image 'labels'; it has label, macro"),
    (['in.tif', 'a.tif', '--keep', 'label', '--deidentify'], 'leave out --keep'),
    (['in.tif', 'a.tif', '--drop', 'labels'], "no associated image 'labels'; it has label, macro"),
    (['in.tif', 'a.tif', '--frames', '1'], 'only frame 0'),
    (['in.tif', 'a.tif', '--level', '9'], 'no level 9'),
    (['in.tif', 'a.tif', '--crop', '900,0,1,1'], 'outside of the image'),
    (['in.tif', 'a.tif', '--jobs', '0'], 'at least 1'),
])
def test_one_sentence_and_nothing_written(capsys, slide, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'there.tif').write_text('mine')
    before = slide.read_bytes()
    done = run(capsys, 'convert', *arguments)
    assert done.status == 1
    (error,) = [line for line in done.err.splitlines() if 'without' not in line]
    assert words in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in.tif', 'there.tif']
    assert (tmp_path / 'there.tif').read_text() == 'mine'
    assert slide.read_bytes() == before


def test_deepzoom(capsys, slide, tmp_path):
    done = run(capsys, 'convert', slide, tmp_path / 'a.dzi')
    assert (done.status, (tmp_path / 'a.dzi').is_file()) == (0, True)
    assert any((tmp_path / 'a_files').rglob('*.jp*g'))


@pytest.mark.parametrize(('name', 'options', 'words'), [
    ('a.jpg', ['--compression', 'zstd'], '--compression is not possible: a .jpg file is written'),
    ('a.png', ['--quality', '50'], '--quality is not possible'),
    ('a.jpg', ['--tile-size', '512'], '--tile-size is not possible'),
    ('a.webp', ['--quality', '50', '--lossless'], '--lossless keeps every bit'),
    ('a.jpg', ['--lossless'], 'the format is always lossy. Write a .tif.'),
    ('a.tif', ['--tile-size', '100'], '--tile-size must be a multiple of 16'),
    ('', [], 'the name of the file is empty')])
def test_errors_speak_of_options(capsys, slide, name, options, words, tmp_path):
    done = run(capsys, 'convert', slide, name and tmp_path / name, *options)
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert words in line
    assert 'vips_kwargs' not in line
    assert not {path.name for path in tmp_path.iterdir()} - {'in.tif'}


def test_folder_of_a_new_folder(capsys, slide, tmp_path):
    done = run(capsys, 'convert', slide, slide, tmp_path / 'none' / 'out')
    assert (done.status, 'There is no folder' in done.err or 'both' in done.err) == (1, True)
    other = tmp_path / 'b.tif'
    other.write_bytes(slide.read_bytes())
    done = run(capsys, 'convert', slide, other, tmp_path / 'none' / 'out')
    assert (done.status, 'There is no folder' in done.err) == (1, True)


@pytest.mark.parametrize('address', ['https://example.com/a.tif', 's3://bucket/a.tif'])
@pytest.mark.parametrize('command', [['info'], ['convert'], ['thumbnail'], ['verify']])
def test_addresses_are_no_files(capsys, tmp_path, command, address):
    out = [tmp_path / 'a.png'] if command[0] in {'convert', 'thumbnail'} else []
    done = run(capsys, *command, address, *out)
    assert done.status == 1
    assert 'is an address, not a file; download it first' in done.err + done.out


def test_quality_of_other_formats(capsys, slide, tmp_path):
    for suffix in ('jpg', 'webp'):
        sizes = []
        for quality in (20, 95):
            out = tmp_path / f'{quality}.{suffix}'
            assert run(capsys, 'convert', slide, out, '--quality', quality).status == 0
            sizes.append(out.stat().st_size)
        assert sizes[0] < sizes[1] / 2


def test_tiles_of_deepzoom(capsys, slide, tmp_path):
    assert run(capsys, 'convert', slide, tmp_path / 'a.dzi', '--tile-size', 512,
               '--quality', 30).status == 0
    assert 'TileSize="512"' in (tmp_path / 'a.dzi').read_text()
    # With an overlap of one pixel.
    with PIL.Image.open(next((tmp_path / 'a_files' / '10').glob('0_0.*'))) as tile:
        assert tile.size == (513, 513)
        assert tile.format == 'JPEG'


def test_colours_of_labels_stay_without_their_names(capsys, tmp_path):
    sink = large_image_source_vips.new()
    sink.palette, sink.classNames = ['black', 'red'], ['glass', 'tumour of a patient']
    sink.addTile(PIXELS[..., 0] % 2)
    sink.write(tmp_path / 'a.tif')
    done = run(capsys, 'convert', tmp_path / 'a.tif', tmp_path / 'b.tif', '--deidentify')
    assert 'the colours of labels' in done.out.split('kept:')[1]
    assert 'image-description' in done.out.split('left out: metadata:')[1]
    assert b'patient' in (tmp_path / 'a.tif').read_bytes()
    assert b'patient' not in (tmp_path / 'b.tif').read_bytes()
    assert large_image_source_vips.open(tmp_path / 'b.tif').palette == ['#000000', '#ff0000']


def test_transparency_can_be_left_out(capsys, tmp_path):
    pixels = np.dstack([PIXELS, np.where(np.indices(PIXELS.shape[:2])[0] > 300, 255, 0)])
    PIL.Image.fromarray(pixels.astype('uint8')).save(tmp_path / 'a.png')
    done = run(capsys, 'convert', tmp_path / 'a.png', tmp_path / 'a.jpg')
    assert (done.status, '--no-alpha' in done.err) == (1, True)
    assert run(capsys, 'convert', tmp_path / 'a.png', tmp_path / 'a.jpg', '--no-alpha').status == 0
    with PIL.Image.open(tmp_path / 'a.jpg') as written:
        assert (written.mode, written.size) == ('RGB', (900, 700))
