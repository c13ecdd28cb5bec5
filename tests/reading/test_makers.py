"""Pixel size and magnification of each row of ``MAKERS``."""

import json
import struct

import numpy as np
import pytest
import tifffile
from large_image.exceptions import TileSourceError

from helpers.pixels import random_pixels
from helpers.tiff_bytes import ASCII, BYTE, LONG, RATIONAL, At, gray_page, tiff_bytes
from large_image_source_vips.reading import makers
from large_image_source_vips.reading.reader import FileReader

PIXELS = random_pixels((30, 41, 3))
ASCII_TAG, FLOAT_TAG, DOUBLE_TAG = 's', 'f', 'd'

PHILIPS = (
    '<?xml version="1.0" encoding="UTF-8" ?>\n<DataObject ObjectType="DPUfsImport">\n'
    '\t<Attribute Name="DICOM_MANUFACTURER" Group="0x0008" Element="0x0070" PMSVR="IString">'
    'PHILIPS</Attribute>\n'
    '\t<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" '
    'PMSVR="IDataObjectArray"><Array>\n'
    '{images}'
    '\t</Array></Attribute>\n</DataObject>')
PHILIPS_LABEL = (
    '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" '
    'Element="0x1004" PMSVR="IString">LABELIMAGE</Attribute><Attribute Name="PIM_DP_IMAGE_DATA" '
    'Group="0x301D" Element="0x1005" PMSVR="IString">/9j/4AAQ==</Attribute>'
    '<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">'
    '&quot;0.05&quot; &quot;0.05&quot;</Attribute></DataObject>')
PHILIPS_SLIDE = (
    '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" '
    'Element="0x1004" PMSVR="IString">WSI</Attribute><Attribute Name='
    '"DICOM_DERIVATION_DESCRIPTION" Group="0x0008" Element="0x2111" PMSVR="IString">'
    'tiff-useBigTIFF=1-useRgb=0-levels={levels}-processing=0-q80-sourceFilename="T-levels=9.isyntax"'
    '</Attribute>{spacing}<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" '
    'Group="0x1001" Element="0x8B01" PMSVR="IDataObjectArray"><Array>{levels_below}</Array>'
    '</Attribute></DataObject>')


def philips_spacing(rows, cols):
    return ('<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" '
            f'PMSVR="IDoubleArray">&quot;{rows}&quot; &quot;{cols}&quot;</Attribute>')


def philips(own=('0.000226891', '0.000226907'), levels='10003,10000', label=True):
    below = ''.join('<DataObject ObjectType="PixelDataRepresentation">'
                    f'{philips_spacing(size, size)}</DataObject>'
                    for size in ('0.000454', '0.000227', '0.000907'))
    slide = PHILIPS_SLIDE.format(
        levels=levels, levels_below=below, spacing=philips_spacing(*own) if own else '')
    return PHILIPS.format(images=(PHILIPS_LABEL if label else '') + slide)


def leica(*images):
    """The XML of an SCN file; images are (width, height, nm wide, nm high, objective)."""
    return ('<?xml version="1.0" encoding="utf-8"?>\r\n'
            '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:1">'
            '<collection name="Slide" sizeX="26564529" sizeY="76734541">'
            '<barcode>MTIz</barcode>' + ''.join(
                f'<image name="image_{number}"><creationDate>2012-05-02</creationDate>'
                f'<device model="Leica SCN400" version="1.4"/><pixels sizeX="{width}" '
                f'sizeY="{height}"><dimension sizeX="{width}" sizeY="{height}" r="0" ifd="0" />'
                f'</pixels><view sizeX="{across}" sizeY="{down}" offsetX="0" offsetY="0"/>'
                f'<scanSettings><objectiveSettings><objective>{objective}</objective>'
                '</objectiveSettings><illuminationSettings><numericalAperture>0.4'
                '</numericalAperture><illuminationSource>brightfield</illuminationSource>'
                '</illuminationSettings></scanSettings></image>'
                for number, (width, height, across, down, objective) in enumerate(images)) +
            '</collection></scn>')


ISCAN = ('<iScan Mode="brightfield" Magnification="20" ScanRes="{0}" UnitNumber="2000123" '
         'ScannerModel="VENTANA iScan HT" Z-layers="1" Z-spacing="1" UserName="x"><AOI0 Left="1"/>'
         '</iScan>')
TRESTLE = ('Background Color=E6E6E6;White Balance=C0AAA1;Objective Power=10;JPEG Quality=60;'
           ' OverlapsXY= 64 64 32 32 16 16')
METASERIES = (
    '<MetaData>\r\n<PlaneInfo>\r\n<prop id="plane-type" type="string" value="plane"/>\r\n'
    '<prop id="spatial-calibration-state" type="bool" value="{0}"/>\r\n'
    '<prop id="spatial-calibration-x" type="float" value="0.645"/>\r\n'
    '<prop id="spatial-calibration-y" type="float" value="0.5"/>\r\n'
    '<prop id="spatial-calibration-units" type="string" value="{1}"/>\r\n</PlaneInfo>\r\n'
    '</MetaData>')
APERIO = ('Aperio Image Library v10.2.24\r\n1024x768 [0,0 1024x768] (256x256) JPEG/RGB Q=70'
          '|AppMag = {0}|StripeWidth = 2040|ScanScope ID = SS1283|Filename = 4|Date = 02/02/17|'
          'Time = 11:22:33|User = me, MPP = 7|Parmset = MPP=9|MPP = {1}|Left = 25,691574|'
          'Top = 23,449873')
NDPI = ('Product=C9600-12\r\nNDP.S/N=000100\r\nCreated=2009/12/31\r\nUpdated=2009/12/31\r\n'
        'Objective.Lens.Magnificant=20\r\nFocus time=3\r\n')
QPTIFF = ('<?xml version="1.0" encoding="{0}"?><PerkinElmer-QPI-ImageDescription>'
          '<DescriptionVersion>2</DescriptionVersion><Name>DAPI</Name><ImageType>FullResolution'
          '</ImageType><ScanProfile><root><Objective>20x</Objective></root></ScanProfile>'
          '</PerkinElmer-QPI-ImageDescription>')
MICROSCOPE = {'resolution': (20000, 40000), 'resolutionunit': 'CENTIMETER'}
HALF, TAGS = (5e-4, 5e-4), (5e-4, 2.5e-4)


def tag(code, text, kind=ASCII_TAG):
    return {'extratags': [(code, kind, 0 if kind == ASCII_TAG else 1, text, True)]}


CASES = {
    'Aperio': ({'description': APERIO.format(20, '0.500000')}, HALF, 20),
    'Aperio, decimal comma': ({'description': APERIO.format('20,0', '0,500000')}, HALF, 20),
    'Aperio, tags of its own': (
        {'description': 'Aperio Leica Biosystems GT450 v1.0.1\r\n100x100 [0,0,100x100] JPEG',
         'extratags': [(55001, 'f', 1, 40.0, True), (55002, 'd', 1, 0.5, True)]}, HALF, 40),
    'Aperio, free text only': (
        {'description': 'Aperio Image Library v1\r\nMPP = 3 |AppMag = 20', **MICROSCOPE}, TAGS, 20),
    'Aperio, MPP twice': ({'description': 'Aperio|MPP = 0.5|Title = a|MPP = 7'}, HALF, None),
    'Philips': ({'description': philips(), 'software': '4.0.3'}, (2.26907e-4, 2.26891e-4), None),
    'Philips, of its levels': ({'description': philips(own=None)}, (2.27e-4,) * 2, None),
    'Philips, magnification': (
        {'description': philips(levels='40,10002')}, (2.26907e-4, 2.26891e-4), 40),
    'Philips, no label': ({'description': philips(label=False)}, (2.26907e-4, 2.26891e-4), None),
    'Philips, malformed': (
        {'description': philips(own=('x', '')).replace('0.000', '-0.000'), **MICROSCOPE},
        TAGS, None),
    'Hamamatsu': ({'extratags': [(65420, 'I', 1, 1, True), (65421, 'f', 1, 40.0, True)],
                   **MICROSCOPE}, TAGS, 40),
    'Hamamatsu, text': (
        {'extratags': [(65420, 'I', 1, 1, True), (65449, ASCII_TAG, 0, NDPI, True)],
         **MICROSCOPE}, TAGS, 20),
    'Hamamatsu, macro': ({'extratags': [(65420, 'I', 1, 1, True), (65421, 'f', 1, -1.0, True)]},
                         (None, None), None),
    'Leica': ({'description': leica((1616, 4668, 26564529, 76734541, '0.60833'),
                                    (41, 30, 20500, 7500, '20'))}, TAGS, 20),
    'Leica, 2010/03': ({'description': leica((41, 30, 20500, 7500, '20')).replace(
        '2010/10/01', '2010/03/10')}, TAGS, 20),
    'Leica, other size': ({'description': leica((100, 100, 99_000_000, 99_000_000, '1'),
                                                (4100, 3000, 2_050_000, 1_500_000, '40'))},
                          HALF, 40),
    'Leica, malformed': ({'description': leica(('x', 30, 20500, 7500, '20')), **MICROSCOPE},
                         TAGS, None),
    'Ventana': (tag(700, ISCAN.format('0.5')), HALF, 20),
    'Ventana, Metadata': (tag(700, "<?xml version='1.0' encoding='utf-8' ?>\n<Metadata>" +
                              ISCAN.format('0.5') + '</Metadata>'), HALF, 20),
    'Ventana, EncodeInfo': (tag(700, '<EncodeInfo Ver="2"><SlideInfo>' + ISCAN.format('0.5') +
                                '</SlideInfo><AoiOrigin/></EncodeInfo>'), HALF, 20),
    'Ventana, decimal comma': (tag(700, ISCAN.format('0,5')), HALF, 20),
    'Ventana, description': ({'description': ISCAN.format('0.5')}, HALF, 20),
    'Ventana, level': ({'description': 'level=0 mag=40 quality=95', **MICROSCOPE}, TAGS, 40),
    'Trestle': ({'description': TRESTLE, 'software': 'MedScan 2.0', 'resolution': (0.5, 0.25),
                 'resolutionunit': 'INCH'}, TAGS, 10),
    'Trestle, no unit': ({'description': TRESTLE, 'software': 'MedScan', 'resolution': (0.5, 0.25),
                          'resolutionunit': 'NONE'}, TAGS, 10),
    'PerkinElmer': ({'description': QPTIFF.format('utf-8'), 'software': 'PerkinElmer-QPI',
                     **MICROSCOPE}, TAGS, 20),
    'MetaMorph': ({'description': METASERIES.format('on', 'um'), 'software': 'MetaSeries'},
                  (6.45e-4, 5e-4), None),
    'MetaMorph, words': ({'description': METASERIES.format('on', 'Microns')}, (6.45e-4, 5e-4),
                         None),
    'MetaMorph, off': ({'description': METASERIES.format('off', 'um'), **MICROSCOPE}, TAGS, None),
    'MetaMorph, pixels': ({'description': METASERIES.format('on', 'pixel')}, (None, None), None),
    'Argos': (tag(65000, '<Argos.Scan.Metadata><MinZ>0</MinZ><ObjectiveMagnification>20'
                         '</ObjectiveMagnification></Argos.Scan.Metadata>') | MICROSCOPE,
              TAGS, 20),
    'Micro-Manager': (tag(51123, json.dumps({'PixelSizeUm': 0.5, 'Width': 41})), HALF, None),
    'Micro-Manager, not calibrated': (tag(51123, '{"PixelSizeUm": 0}'), (None, None), None),
    'Micro-Manager, no JSON': (tag(51123, '[' * 100_000), (None, None), None),
    'FEI': (tag(34682, '[User]\r\nUser=x\r\n[Scan]\r\nPixelWidth=5e-007\r\nPixelHeight=2.5e-007'),
            TAGS, None),
    'large_image': ({'description': json.dumps({'large_image_converter': {
        'version': '1.35', 'metadata': {'magnification': 40, 'mm_x': 1}}}), **MICROSCOPE},
        TAGS, 40),
    'this package': ({'description': '{"large_image_source_vips": {"magnification": 40}}',
                      **MICROSCOPE}, TAGS, 40),
}


@pytest.mark.parametrize('case', CASES)
def test_what_makers_write(tmp_path, case):
    options, size, magnification = CASES[case]
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, **{
        'photometric': 'rgb', 'metadata': None, 'software': False, **options})
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.pixel_size == (
        size if size == (None, None) else pytest.approx(size, rel=1e-6))
    assert reader.magnification == magnification
    json.dumps(reader.internal_metadata(), allow_nan=False)


def test_every_row_has_a_case():
    tested = {case.partition(',')[0] for case in CASES} | {
        # Tested below and in test_metadata.
        'OME', 'ImageJ', 'Zeiss LSM', 'Olympus SIS'}
    assert {maker.name for maker in makers.MAKERS} == tested
    assert all(maker.place for maker in makers.MAKERS)


def test_xml_in_utf_16(tmp_path):
    text = QPTIFF.format('utf-16').encode('utf-16')
    (tmp_path / 'a.tif').write_bytes(tiff_bytes(gray_page(tag270=(ASCII, text))))
    assert FileReader(tmp_path / 'a.tif').magnification == 20


@pytest.mark.parametrize('unit', ['\xb5m'.encode('latin-1'), 'µm'.encode(), 'μm'.encode(),
                                  b'\\u00B5m', b'um', b'micron', 'Âµm'.encode()])
def test_imagej_units_as_bytes(tmp_path, unit):
    text = b'ImageJ=1.53t\nunit=' + unit + b'\nloop=false\n\0'
    (tmp_path / 'a.tif').write_bytes(tiff_bytes(gray_page(
        tag270=(ASCII, text), tag282=(RATIONAL, [(2, 1)]), tag283=(RATIONAL, [(4, 1)]))))
    assert FileReader(tmp_path / 'a.tif').pixel_size == pytest.approx(TAGS)


def test_imagej_units_that_differ(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS[..., 0], metadata=None, resolution=(2, 4),
                     photometric='minisblack', description='ImageJ=1.53t\nunit=um\nyunit=mm\n')
    assert FileReader(tmp_path / 'a.tif').pixel_size == pytest.approx((5e-4, 0.25))


def test_the_xml_of_ventana_on_the_page_of_the_label(tmp_path):
    """A BIF file begins with the label; the slide is the largest page."""
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        tiff.write(PIXELS, photometric='rgb', metadata=None, description='Label_Image')
        tiff.write(random_pixels((300, 400, 3)), photometric='rgb', metadata=None,
                   description='level=0 mag=20 quality=95', **tag(700, ISCAN.format('0.2325')))
    reader = FileReader(tmp_path / 'a.tif')
    assert tuple(reader.size) == (400, 300)
    assert reader.pixel_size == pytest.approx((2.325e-4, 2.325e-4))
    assert reader.magnification == 20


def test_a_zeiss_lsm(tmp_path):
    info = struct.pack('<2I8i3d', 0x0400494C, 64, 41, 30, 1, 3, 1, 1, 41, 30, 5e-7, 2.5e-7, 1e-6)
    tifffile.imwrite(tmp_path / 'a.tif', PIXELS, photometric='rgb', metadata=None,
                     extratags=[(34412, 'B', len(info), info, True)])
    assert FileReader(tmp_path / 'a.tif').pixel_size == pytest.approx(TAGS)


@pytest.mark.parametrize('pointer', [True, False])
def test_olympus_sis(tmp_path, pointer):
    general = struct.pack('<10xhdd8xd2x', -6, 0.5, 0.25, 60.0)
    head = struct.pack('<4s6x5h6x32sH', b'SIS0', 1, 2, 3, 4, 120, b'a', 2)
    start = 8 + 64 * 64
    blocks = struct.pack('<HHIHHI', 10, 0, 0, 1, 0, start + 60 + 16)
    data = bytes(64 * 64) + head + blocks + general
    entry = (LONG, [start]) if pointer else (BYTE, At(start, 60))
    (tmp_path / 'a.tif').write_bytes(
        tiff_bytes(gray_page(tag33560=entry), after_header=data))
    reader = FileReader(tmp_path / 'a.tif')
    assert reader.pixel_size == pytest.approx(TAGS)
    assert reader.magnification == 60


@pytest.mark.parametrize('seed', range(3))
def test_damaged_texts_give_a_size_or_none(tmp_path, seed):
    rng = np.random.default_rng(seed)
    options = [CASES[case][0] for case in CASES]
    for option in options:
        tifffile.imwrite(tmp_path / 'a.tif', PIXELS, **{
            'photometric': 'rgb', 'metadata': None, 'software': False, **option})
        data = bytearray((tmp_path / 'a.tif').read_bytes())
        # The pixels come last; what is before are tags and texts.
        for place in rng.integers(8, len(data) - PIXELS.size, 6):
            data[place] = rng.integers(0, 256)
        (tmp_path / 'a.tif').write_bytes(data)
        try:
            reader = FileReader(tmp_path / 'a.tif')
        except TileSourceError:
            continue
        for value in (*reader.pixel_size, reader.magnification):
            assert value is None or 0 < value < np.inf
