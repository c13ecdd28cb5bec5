"""Pixel size, magnification, profiles and header fields."""

import json
import math

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.PngImagePlugin
import pytest
import pyvips
import tifffile

import large_image_source_vips
from helpers.around import needs, real_file
from helpers.pixels import random_pixels, smooth_pixels
from helpers.reading import level
from large_image_source_vips.reading import metadata, pixel_size
from large_image_source_vips.reading.reader import FileReader

PIXELS = random_pixels((30, 41, 3))


def profile_bytes(name='sRGB'):
    return PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile(name)).tobytes()


@pytest.mark.parametrize(('unit', 'resolution', 'expected'), [
    ('NONE', (25.4, 25.4), (None, None)),
    ('INCH', (25.4, 25.4), (None, None)),
    ('INCH', (25.4, 50.8), (1, 0.5)),
    ('INCH', (254, 508), (0.1, 0.05)),
    ('CENTIMETER', (40000, 20000), (0.00025, 0.0005)),
    ('CENTIMETER', (10, 10), (None, None)),
    ('CENTIMETER', (10.01, 10.01), (10 / 10.01, 10 / 10.01)),
    ('INCH', (0, 254), (0.1, 0.1)),
    ('INCH', (254, 0), (0.1, 0.1)),
    ('INCH', (0, 0), (None, None)),
])
def test_tiff_resolutions(tmp_path, unit, resolution, expected):
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', resolution=resolution,
                     resolutionunit=unit)
    assert FileReader(tmp_path / 'a.tif').pixel_size == pytest.approx(expected)


def test_a_tiff_without_resolution_tags(tmp_path):
    PIL.Image.fromarray(PIXELS).save(tmp_path / 'a.tif')
    with tifffile.TiffFile(tmp_path / 'a.tif') as tiff:
        assert 282 not in tiff.pages[0].tags
    assert FileReader(tmp_path / 'a.tif').pixel_size == (None, None)


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.webp', '.gif', '.tif'])
def test_no_density_is_no_pixel_size(tmp_path, suffix):
    PIL.Image.fromarray(PIXELS).save(tmp_path / f'a{suffix}')
    reader = FileReader(tmp_path / f'a{suffix}')
    assert reader.pixel_size == (None, None)
    assert reader.magnification is None


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif'])
@pytest.mark.parametrize('dpi', [(72, 72), (254, 254), (26, 26), (300, 600)])
def test_densities(tmp_path, suffix, dpi):
    if suffix == '.jpg':
        dpi = tuple(map(round, dpi))
    PIL.Image.fromarray(PIXELS).save(tmp_path / f'a{suffix}', dpi=dpi)
    expected = tuple(25.4 / value for value in dpi)
    assert FileReader(tmp_path / f'a{suffix}').pixel_size == pytest.approx(expected, rel=1e-3)


def test_a_density_of_exif(tmp_path):
    exif = PIL.Image.Exif()
    exif[282], exif[283], exif[296] = 100.0, 50.0, 3
    PIL.Image.fromarray(PIXELS).save(tmp_path / 'a.jpg', exif=exif)
    assert FileReader(tmp_path / 'a.jpg').pixel_size == pytest.approx((0.1, 0.2))


def test_a_png_whose_unit_is_unknown(tmp_path):
    chunks = PIL.PngImagePlugin.PngInfo()
    chunks.add(b'pHYs', (4).to_bytes(4, 'big') + (8).to_bytes(4, 'big') + b'\0')
    PIL.Image.fromarray(PIXELS).save(tmp_path / 'a.png', pnginfo=chunks)
    assert FileReader(tmp_path / 'a.png').pixel_size == (None, None)


def test_a_turned_image_has_its_sizes_exchanged(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', resolution=(254, 508),
                     resolutionunit='INCH', extratags=[(274, 'H', 1, 6, True)])
    assert FileReader(tmp_path / 'a.tif').pixel_size == pytest.approx((0.05, 0.1))


@pytest.mark.parametrize(('unit', 'factor'), [
    ('um', 1e-3), ('micron', 1e-3), ('\\u00B5m', 1e-3), ('nm', 1e-6), ('mm', 1), ('cm', 10),
    ('inch', 25.4), ('pixel', None), ('', None)])
def test_imagej_units(tmp_path, unit, factor):
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS[..., 0], imagej=True, resolution=(4, 2),
                     metadata={'unit': unit} if unit else {})
    expected = (None, None) if factor is None else (0.25 * factor, 0.5 * factor)
    assert FileReader(tmp_path / 'a.tif').pixel_size == pytest.approx(expected)


@pytest.mark.parametrize(('unit', 'factor'), [
    ('µm', 1e-3), ('nm', 1e-6), ('mm', 1), ('pixel', None), ('reference frame', None)])
def test_ome_units(tmp_path, unit, factor):
    tifffile.imwrite(tmp_path / 'a.ome.tif', PIXELS[..., 0], photometric='minisblack', metadata={
        'axes': 'YX', 'PhysicalSizeX': 0.25, 'PhysicalSizeXUnit': unit})
    expected = (None, None) if factor is None else (0.25 * factor, 0.25 * factor)
    assert FileReader(tmp_path / 'a.ome.tif').pixel_size == pytest.approx(expected)


def test_the_objective_of_ome(tmp_path):
    text = ('<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Instrument ID="I:0">'
            '<Objective ID="Objective:0:0" NominalMagnification="63.0"/></Instrument>'
            '<Image ID="Image:0"><ObjectiveSettings ID="Objective:0:0"/>'
            '<Pixels DimensionOrder="XYCZT" SizeX="41" SizeY="30" SizeC="1" SizeZ="1" SizeT="1" '
            'PhysicalSizeY="0.5"><TiffData/></Pixels></Image></OME>')
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS[..., 0], photometric='minisblack',
                     description=text, metadata=None)
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.magnification == 63
    assert reader.pixel_size == (0.0005, 0.0005)


@pytest.mark.parametrize(('text', 'size', 'magnification'), [
    ('Aperio|AppMag = 40|MPP = 0.25', 0.00025, 40), ('Aperio|MPP = x|AppMag = -1', None, None),
    ('Aperio|MPP = inf|AppMag = nan', None, None), ('Aperio', None, None),
    ('Aperio|MPP=0.5', 0.0005, None)])
def test_aperio_texts(tmp_path, text, size, magnification):
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', description=text,
                     metadata=None)
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.pixel_size == (size, size)
    assert reader.magnification == magnification


# Profiles

@pytest.mark.parametrize('suffix', ['.tif', '.png', '.jpg', '.webp'])
def test_profiles_are_known(tmp_path, suffix):
    profile = profile_bytes()
    PIL.Image.fromarray(PIXELS).save(tmp_path / f'a{suffix}', icc_profile=profile)
    assert FileReader(tmp_path / f'a{suffix}').icc_profiles() == [profile]


@pytest.mark.parametrize('suffix', ['.tif', '.png', '.jpg', '.webp', '.gif'])
def test_no_profile_is_no_list(tmp_path, suffix):
    PIL.Image.fromarray(PIXELS).save(tmp_path / f'a{suffix}')
    assert FileReader(tmp_path / f'a{suffix}').icc_profiles() == []


def test_each_page_has_its_profile(tmp_path):
    profiles = [profile_bytes(), None, profile_bytes('XYZ')]
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        for profile in profiles:
            tiff.write(PIXELS, photometric='rgb', metadata=None, iccprofile=profile)
    assert FileReader(tmp_path / 'a.tif').icc_profiles() == profiles


def test_inks_that_became_colours_need_no_profile(tmp_path):
    image = PIL.Image.fromarray(random_pixels((30, 41, 4)), 'CMYK')
    image.save(tmp_path / 'a.tif', icc_profile=profile_bytes())
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.icc_profiles() == []
    # A profile of other colours is of no use for inks; they become colours without.
    np.testing.assert_allclose(level(reader), np.asarray(image.convert('RGB')), atol=1)


# Header fields

def test_header_fields_have_their_own_names(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', description='hello',
                     metadata=None)
    fields = FileReader(tmp_path / 'a.tif').internal_metadata()
    assert fields['width'] == 41
    assert fields['vips-loader'] == 'tiffload'
    assert fields['filename'] == str(tmp_path / 'a.tif')
    assert fields['image-description'] == 'hello'
    assert 'frames' not in fields
    json.dumps(fields, allow_nan=False)


def test_frames_tell_what_is_their_own(tmp_path):
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        for number in range(3):
            tiff.write(PIXELS, photometric='rgb', metadata=None, description=f'page {number}')
    fields = FileReader(tmp_path / 'a.tif').internal_metadata()
    assert fields['image-description'] == 'page 0'
    assert fields['frames'] == [{'image-description': 'page 1'}, {'image-description': 'page 2'}]


@pytest.mark.parametrize('suffix', ['.gif', '.webp'])
def test_frames_of_animations_have_their_delays(tmp_path, suffix):
    images = [PIL.Image.fromarray(smooth_pixels(50, 60, seed=seed)) for seed in range(4)]
    images[0].save(tmp_path / f'a{suffix}', save_all=True, append_images=images[1:],
                   duration=[10, 20, 30, 40])
    reader = FileReader(tmp_path / f'a{suffix}')
    fields = reader.internal_metadata()
    assert reader.frame_count == 4
    assert fields['delay'] == [10, 20, 30, 40]
    assert fields['frames'] == [{'delay': 20}, {'delay': 30}, {'delay': 40}]


def test_bytes_become_text_or_a_description(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x010e] = 'what it shows'
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">\xc3\xa9</x:xmpmeta>'
    profile = profile_bytes()
    PIL.Image.fromarray(PIXELS).save(tmp_path / 'a.webp', exif=exif, xmp=xmp, icc_profile=profile)
    fields = FileReader(tmp_path / 'a.webp').internal_metadata()
    assert fields['xmp-data'] == xmp.decode()
    assert fields['icc-profile-data']['kind'] == 'icc-profile'
    assert fields['icc-profile-data']['length'] == len(profile)
    assert len(fields['icc-profile-data']['sha256']) == 64
    assert any('what it shows' in str(value) for key, value in fields.items()
               if key.startswith('exif'))
    json.dumps(fields, allow_nan=False)


def test_the_real_jpeg():
    fields = FileReader(real_file('sample.jpg')).internal_metadata()
    json.dumps(fields, allow_nan=False)
    assert fields['icc-profile-data']['length'] > 100


@pytest.mark.parametrize('value', [
    math.nan, math.inf, b'\xff\0', '\ud800', [1.5, math.nan], 'x' * 1_000_000, list(range(5000)),
    None, True, object(), b'<xml/>', b'<\xff>', {1, 2}])
def test_any_value_survives_json(value):
    text = json.dumps(metadata.json_safe(value), allow_nan=False)
    assert len(text) < 120_000


def test_what_is_cut_says_how_long_it_was():
    assert metadata.json_safe('x' * 200_000).endswith('(200000 characters in all)')
    assert metadata.json_safe([0] * 2000)[-1] == '... (2000 items in all)'


@pytest.mark.parametrize('strange', [
    {282: (0xffffffff, 0)}, {282: (1, 0xffffffff)}, {282: (0, 0)}, {296: (9,)}])
def test_strange_resolutions_are_finite_or_unknown(tmp_path, strange):
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', metadata=None,
                     resolution=(254, 254), resolutionunit='INCH')
    with tifffile.TiffFile(tmp_path / 'a.tif', mode='r+') as tiff:
        for code, value in strange.items():
            tiff.pages[0].tags[code].overwrite(value if len(value) == 2 else value[0])
    for size in FileReader(tmp_path / 'a.tif').pixel_size:
        assert size is None or (math.isfinite(size) and size > 0)


# Numbers that nobody measured

@pytest.mark.parametrize(('kind', 'unit', 'across', 'down', 'expected'), [
    # What libvips writes where it knows nothing: 1 pixel a mm, in whatever unit.
    ('TIFF', 10.0, 10, 10, None), ('TIFF', 25.4, 25.4, 25.4, None),
    ('TIFF', 25.4, float(np.float32(25.4)), float(np.float32(25.4)), None),
    ('EXIF', 25.4, 25.4, 25.4, None), ('EXIF', 10.0, 10, 10, None),
    ('PNG', 1000.0, 1000, 1000, None), ('libvips', 1.0, 1.0, 1.0, None),
    ('JFIF', 10.0, 10, 10, None), ('JFIF', 25.4, 25, 25, None),
    # Such a pixel in one direction only, or nearly such a one, was measured.
    ('TIFF', 10.0, 10, 20, (1, 0.5)), ('TIFF', 10.0, 20, 10, (0.5, 1)),
    ('PNG', 1000.0, 1001, 1001, (1 / 1.001, 1 / 1.001)), ('TIFF', 25.4, 25, 25, (1.016, 1.016)),
    ('libvips', 1.0, 1.01, 1.01, (1 / 1.01, 1 / 1.01)), ('JFIF', 25.4, 26, 26, (0.97692, 0.97692)),
    # One pixel a unit: a number had to be given.
    ('TIFF', 25.4, 1, 1, None), ('TIFF', 10.0, 1, 1, None), ('EXIF', 25.4, 1, 1, None),
    ('EXIF', 10.0, 1, 1, None), ('JFIF', 25.4, 1, 1, None), ('PNG', 1000.0, 1, 1, None),
    ('TIFF', 25.4, 2, 2, (12.7, 12.7)),
    # 72 an inch is EXIF's word for unknown, and a number like others elsewhere.
    ('EXIF', 25.4, 72, 72, None), ('EXIF', 10.0, 72, 72, (10 / 72, 10 / 72)),
    ('EXIF', 25.4, 72, 36, (25.4 / 72, 25.4 / 36)), ('JFIF', 25.4, 72, 72, (25.4 / 72,) * 2),
    ('TIFF', 25.4, 72, 72, (25.4 / 72,) * 2),
    # No unit, or no numbers.
    ('TIFF', None, 300, 300, None), ('PNG', None, 3000, 3000, None),
    *(('TIFF', 10.0, bad, bad, None) for bad in (0, -10, math.inf, -math.inf, math.nan, None, '')),
    ('TIFF', 10.0, 5e-324, 5e-324, None), ('TIFF', 10.0, 1e308, 1e308, (1e-307, 1e-307)),
    # One direction goes for both.
    ('TIFF', 10.0, 100, 0, (0.1, 0.1)), ('TIFF', 10.0, None, 100, (0.1, 0.1)),
    ('TIFF', 10.0, math.nan, 10, None), ('TIFF', 10.0, 10, None, None),
])
def test_what_a_resolution_says(kind, unit, across, down, expected):
    found = pixel_size.size_from_resolution(kind, unit, across, down)
    assert found == (None, None) if expected is None else found == pytest.approx(expected, rel=1e-4)


def test_every_rule_has_its_reason():
    for rule in pixel_size.MADE_UP:
        assert rule.reason
        unit = rule.unit
        assert pixel_size.size_from_resolution(
            rule.kind or 'TIFF', unit, rule.pixels, rule.pixels) == (None, None)


SAVERS = {
    '.tif': [{}, {'resunit': 'inch'}, {'resunit': 'cm'}, {'tile': True, 'pyramid': True},
             {'bigtiff': True}, {'compression': 'jpeg'}],
    '.jpg': [{}, {'optimize_coding': True}], '.png': [{}, {'interlace': True}],
    '.webp': [{}, {'lossless': True}], '.v': [{}], '.avif': [{}], '.heic': [{}], '.jxl': [{}],
    '.jp2': [{}], '.gif': [{}], '.fits': [{}], '.ppm': [{}], '.hdr': [{}], '.nii': [{}],
}


def saved(path, options, **labels):
    """A file by libvips, or a skipped test where it lacks the saver."""
    image = pyvips.Image.new_from_array(PIXELS).copy(interpretation='srgb', **labels)
    try:
        image.write_to_file(str(path), **options)
    except pyvips.Error as exc:
        pytest.skip(f'this libvips does not write it: {exc}')
    return path


@pytest.mark.parametrize(('suffix', 'options'), [
    pytest.param(suffix, options, id=f'{suffix} {options}')
    for suffix, several in SAVERS.items() for options in several])
def test_libvips_writes_no_pixel_size_that_it_does_not_know(tmp_path, suffix, options):
    reader = FileReader(saved(tmp_path / f'a{suffix}', options))
    assert reader.pixel_size == (None, None)
    assert reader.magnification is None


@pytest.mark.parametrize(('first', 'second'), [
    ('.tif', '.jpg'), ('.jpg', '.tif'), ('.png', '.jpg'), ('.jpg', '.png'), ('.tif', '.webp'),
    ('.png', '.v'), ('.webp', '.tif')])
def test_what_is_not_known_stays_so_from_format_to_format(tmp_path, first, second):
    image = pyvips.Image.new_from_file(str(saved(tmp_path / f'a{first}', {})))
    image.write_to_file(str(tmp_path / f'b{second}'))
    assert FileReader(tmp_path / f'b{second}').pixel_size == (None, None)


@pytest.mark.parametrize('suffix', ['.tif', '.jpg', '.png', '.webp', '.v', '.avif'])
@pytest.mark.parametrize('density', [(4.0, 4.0), (4000.0, 2000.0), (1.0, 2.0)])
def test_a_pixel_size_that_libvips_knows_stays(tmp_path, suffix, density):
    reader = FileReader(saved(tmp_path / f'a{suffix}', {}, xres=density[0], yres=density[1]))
    assert reader.pixel_size == pytest.approx((1 / density[0], 1 / density[1]), rel=1e-3)


@pytest.mark.parametrize(('resolution', 'unit', 'expected'), [
    (72.0, 2, None), (1.0, 2, None), (1.0, 3, None), (10.0, 3, None), (25.4, 2, None),
    (300.0, 1, None), (0.0, 2, None), (300.0, 2, 25.4 / 300), (72.0, 3, 10 / 72)])
@pytest.mark.parametrize('suffix', ['.jpg', '.webp', '.png'])
def test_resolutions_of_exif(tmp_path, suffix, resolution, unit, expected):
    exif = PIL.Image.Exif()
    exif[282], exif[283], exif[296] = resolution, resolution, unit
    PIL.Image.fromarray(PIXELS).save(tmp_path / f'a{suffix}', exif=exif)
    assert FileReader(tmp_path / f'a{suffix}').pixel_size == (
        (None, None) if expected is None else pytest.approx((expected, expected), rel=1e-3))


def test_a_text_that_says_1_mm_is_believed(tmp_path):
    tags = {'resolution': (10, 10), 'resolutionunit': 'CENTIMETER'}
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', metadata=None,
                     description='Aperio|MPP = 1000', **tags)
    tifffile.imwrite(tmp_path / 'b.ome.tif', PIXELS[..., 0], photometric='minisblack', metadata={
        'axes': 'YX', 'PhysicalSizeX': 1, 'PhysicalSizeXUnit': 'mm'}, **tags)
    tifffile.imwrite(tmp_path / 'c.tif', PIXELS[..., 0], imagej=True, resolution=(1, 1),
                     metadata={'unit': 'mm'})
    for name in ('a.tif', 'b.ome.tif', 'c.tif'):
        assert FileReader(tmp_path / name).pixel_size == (1, 1)


def test_a_text_without_a_size_does_not_make_tags_true(tmp_path):
    tags = {'resolution': (10, 10), 'resolutionunit': 'CENTIMETER'}
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', metadata=None,
                     description='Aperio|AppMag = 20', **tags)
    tifffile.imwrite(tmp_path / 'b.ome.tif', PIXELS[..., 0], photometric='minisblack',
                     metadata={'axes': 'YX'}, **tags)
    assert FileReader(tmp_path / 'a.tif').pixel_size == (None, None)
    assert FileReader(tmp_path / 'a.tif').magnification == 20
    assert FileReader(tmp_path / 'b.ome.tif').pixel_size == (None, None)


@pytest.mark.parametrize('suffix', ['.tif', '.jpg', '.v'])
def test_an_unknown_size_is_not_magnified(tmp_path, suffix):
    path = saved(tmp_path / f'a{suffix}', {})
    source = large_image_source_vips.open(path)
    unknown = {'magnification': None, 'mm_x': None, 'mm_y': None}
    assert source.getNativeMagnification() == unknown
    assert {key: source.getMetadata()[key] for key in unknown} == unknown
    assert (source.mm_x, source.mm_y) == (None, None)
    for scale in ({'magnification': 20}, {'mm_x': 0.001}):
        region, _ = source.getRegion(format='numpy', scale=scale)
        assert region.shape[:2] == PIXELS.shape[:2]


@pytest.mark.parametrize('suffix', ['.tif', '.png', '.jpg', '.webp'])
@pytest.mark.parametrize('size', [None, 0.25])
def test_a_sink_writes_the_pixel_size_that_it_knows(tmp_path, suffix, size):
    sink = large_image_source_vips.new()
    sink.addTile(PIXELS)
    sink.mm_x = sink.mm_y = size
    sink.write(tmp_path / f'a{suffix}')
    assert FileReader(tmp_path / f'a{suffix}').pixel_size == pytest.approx((size, size))


@needs('openslideload')
def test_openslide_describes_the_slide(only_openslide):
    reader = FileReader(real_file('CMU-1-Small-Region.tiff'))
    assert reader.internal_metadata()['vips-loader'] == 'openslideload'
    assert pyvips.at_least_libvips(8, 13) is False or reader.bands == 3
