"""
The installed package: distribution, entry points, and a source that large_image finds.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import large_image
import pytest
import pyvips
from large_image.constants import SourcePriority
from large_image.exceptions import TileSourceError

import large_image_source_vips
from large_image_source_vips import VipsFileTileSource

DISTRIBUTION = 'large-image-source-vips'


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def installed() -> metadata.Distribution:
    """The distribution that is installed, if it is that of these sources."""
    try:
        found = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        pytest.skip('the package is on the path, but not installed')
    stated = re.search("version='(.*?)'", (ROOT / 'setup.py').read_text(encoding='utf-8'))[1]
    if found.version != stated:
        pytest.skip(f'{found.version} is installed; these are the sources of {stated}')
    return found


@pytest.fixture(scope='module')
def declared(tmp_path_factory) -> metadata.Distribution:
    """The metadata that these sources make, whatever is installed."""
    setuptools = pytest.importorskip('setuptools')
    if int(setuptools.__version__.split('.')[0]) < 77:
        pytest.skip('this setuptools is too old to build the package')
    folder = tmp_path_factory.mktemp('metadata')
    done = subprocess.run(
        [sys.executable, 'setup.py', '-q', 'egg_info', '--egg-base', folder], cwd=ROOT,
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = folder.iterdir()
    return metadata.PathDistribution(made)


def entry_points(group: str) -> dict[str, str]:
    return {point.name: point.value for point in metadata.entry_points(group=group)}


class TestDistribution:
    def test_version_is_that_of_the_metadata(self, installed):
        assert large_image_source_vips.__version__ == installed.version

    def test_version_satisfies_those_who_need_the_released_package(self, declared):
        major, minor = map(int, declared.version.split('.')[:2])
        assert (major, minor) >= (1, 35)

    def test_licence(self, declared):
        assert declared.metadata['License-Expression'] == 'Apache-2.0'
        assert declared.metadata['License-File'] == 'LICENSE'
        assert 'Apache License' in (ROOT / 'LICENSE').read_text(encoding='utf-8')

    def test_python_versions(self, declared):
        assert declared.metadata['Requires-Python'] == '>=3.10'
        classifiers = declared.metadata.get_all('Classifier')
        for minor in range(10, 15):
            assert f'Programming Language :: Python :: 3.{minor}' in classifiers

    def test_requirements(self, declared):
        needed = {re.match(r'[\w-]+', line).group().lower()
                  for line in declared.requires if 'extra ==' not in line}
        assert needed == {'imagecodecs', 'large-image', 'numpy', 'pillow', 'pyvips', 'simplejpeg',
                          'tifffile'}

    def test_oldest_versions_are_those_tested(self, declared):
        listed = ROOT / '.ci' / 'lowest.txt'
        tested = dict(line.lower().split('==') for line in listed.read_text().splitlines()
                      if line[:1] != '#')
        needed = dict(re.fullmatch(r'([\w-]+)>=([\d.]+)', line).groups()
                      for line in declared.requires if 'extra ==' not in line)
        assert {name.lower() for name in needed} == set(tested)
        for name, version in needed.items():
            # '3' allows 3.0.0.
            assert f'{tested[name.lower()]}.'.startswith(f'{version}.')

    def test_extras(self, declared):
        assert set(declared.metadata.get_all('Provides-Extra')) >= {
            'binary', 'girder', 'test', 'docs', 'demo'}

    def test_is_typed(self):
        assert resources.files(large_image_source_vips).joinpath('py.typed').is_file()


class TestEntryPoints:
    def test_source_of_large_image(self, installed):
        assert entry_points('large_image.source')['vips'] == (
            'large_image_source_vips:VipsFileTileSource')

    def test_loads(self, installed):
        (point,) = metadata.entry_points(group='large_image.source', name='vips')
        assert point.load() is VipsFileTileSource

    def test_source_of_girder(self, installed):
        assert entry_points('girder_large_image.source')['vips'] == (
            'large_image_source_vips.girder_source:VipsGirderTileSource')


    def test_command(self, installed):
        assert entry_points('console_scripts')['large-image-vips'] == (
            'large_image_source_vips.command_line.main:main')


class TestImport:
    def test_no_warnings(self):
        subprocess.run([sys.executable, '-W', 'error', '-c', 'import large_image_source_vips'],
                       check=True)

    @pytest.mark.parametrize('name', [
        'imagecodecs', 'tifffile', 'tqdm', 'large_image_source_vips.writing',
        'large_image_source_vips.reading.reader', 'large_image_source_vips.tiff'])
    def test_what_takes_time_is_imported_when_needed(self, name):
        code = f'import large_image_source_vips, sys; sys.exit({name!r} in sys.modules)'
        subprocess.run([sys.executable, '-c', code], check=True)


class TestDiscovery:
    def test_sources_show_version_and_suffixes(self, installed):
        listed = large_image.listSources()
        source = listed['sources']['vips']
        assert source['version'] == large_image_source_vips.__version__
        assert source['extensions']['default'] == SourcePriority.LOW
        assert source['extensions']['tif'] == SourcePriority.IMPLICIT
        assert 'tif' in listed['extensions']

    @pytest.mark.parametrize('suffix', ['tif', 'tiff', 'jpg', 'jpeg', 'png', 'webp', 'gif', 'v'])
    def test_common_suffixes_are_known_at_import(self, suffix):
        assert VipsFileTileSource.extensions[suffix] == SourcePriority.IMPLICIT

    @pytest.mark.parametrize(('loader', 'suffix'), [
        ('pdfload', 'pdf'), ('jp2kload', 'jp2'), ('jxlload', 'jxl'), ('niftiload', 'nii')])
    def test_suffixes_are_those_of_this_libvips(self, loader, suffix):
        # ImageMagick stands in for loaders that libvips lacks.
        able = any(pyvips.type_find('VipsForeignLoad', name) for name in (loader, 'magickload'))
        assert able or suffix not in VipsFileTileSource.extensions
        if pyvips.type_find('VipsForeignLoad', loader):
            assert suffix in VipsFileTileSource.extensions

    def test_suffixes_are_lower_case_without_a_dot(self):
        for suffix in VipsFileTileSource.extensions:
            assert suffix is None or (suffix == suffix.lower() and suffix[:1] != '.')

    def test_suffixes_are_not_added_later(self):
        before = dict(VipsFileTileSource.extensions)
        VipsFileTileSource.addKnownExtensions()
        assert VipsFileTileSource.extensions == before

    def test_mime_types(self):
        assert VipsFileTileSource.mimeTypes[None] == SourcePriority.FALLBACK

    def test_opens_through_large_image(self, tmp_path, installed):
        path = tmp_path / 'a.tif'
        pyvips.Image.black(300, 200, bands=3).copy(interpretation='srgb').tiffsave(str(path))
        assert isinstance(large_image.open(path), VipsFileTileSource)
        assert large_image.canRead(path)

    def test_new_image_through_large_image(self, installed):
        assert isinstance(large_image.new(), VipsFileTileSource)


class TestUnreadable:
    @pytest.fixture(params=['missing', 'directory', 'empty', 'text', 'binary', 'nothing'])
    def junk(self, request, tmp_path):
        path = tmp_path / f'{request.param}.tif'
        if request.param == 'nothing':
            return None
        if request.param == 'directory':
            path.mkdir()
        if request.param in {'empty', 'text', 'binary'}:
            path.write_bytes({'empty': b'', 'text': b'not an image\n' * 99,
                              'binary': b'II*\0\x08\0\0\0\xff\xff'}[request.param])
        return path

    def test_can_not_be_read(self, junk):
        assert large_image_source_vips.canRead(junk) is False

    def test_is_an_error_to_open(self, junk):
        with pytest.raises(TileSourceError):
            large_image_source_vips.open(junk)


@pytest.mark.parametrize('name', [
    'getRegion', 'tileIterator', 'getThumbnail', 'histogram', 'getAssociatedImage'])
def test_help_shows_what_the_base_class_takes(name: str) -> None:
    ours = getattr(large_image_source_vips.VipsFileTileSource, name)
    base = getattr(large_image.tilesource.FileTileSource, name)
    assert inspect.getdoc(ours) == inspect.getdoc(base)
    assert inspect.signature(ours) == inspect.signature(base)
