"""
The distribution; the tools are configured in pyproject.toml.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# PyPI shows neither pictures nor pages of the repository.
README = re.sub(r'\.\. image::.*?\n\n', '', (HERE / 'README.rst').read_text(encoding='utf-8'),
                flags=re.DOTALL)
README = re.sub(r'`([^`<]*?)\s+<[^:>]*>`_', r'\1', README)

EXTRAS = {
    # The libvips that pyvips brings along as a wheel.  Leave it out to use the
    # libvips of the system, which reads more formats.
    'binary': ['pyvips[binary]'],
    # Its releases need Girder 3, its pre-releases Girder 5; either will do.
    'girder': ['girder-large-image>=1.35'],
    'demo': ['scikit-image', 'tqdm'],
    # For examples/predict_dask.py.
    'dask': ['dask[array,distributed]', 'scikit-image', 'tqdm'],
    # The documentation runs its notebooks.
    'docs': ['furo', 'ipykernel', 'myst-nb', 'scikit-image', 'sphinx>=8'],
    'test': [
        'hypothesis',
        'pytest>=8',
        'pytest-timeout',
        'pytest-xdist',
        # Tests look at the metadata that setup.py makes.
        'setuptools>=77',
        'tqdm',
    ],
}

setup(
    name='large-image-source-vips',
    version='2.0.0rc1',
    description='A libvips tile source and sink for large_image.',
    long_description=README,
    long_description_content_type='text/x-rst',
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    keywords='large_image, tile source, libvips, whole slide image, pyramid, TIFF',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
        'Topic :: Scientific/Engineering :: Image Processing',
        'Typing :: Typed',
    ],
    python_requires='>=3.10',
    # `tox -e lowest` runs the tests with exactly these versions; they are also the last
    # ones of imagecodecs and tifffile for Python 3.10.
    install_requires=[
        'imagecodecs>=2025.3.30',
        'large-image>=1.35',
        'numpy>=1.24.4',
        'Pillow>=10.3',
        'pyvips>=3',
        'simplejpeg>=1.8.2',
        'tifffile>=2025.5.10',
    ],
    extras_require=EXTRAS,
    packages=find_packages(include=['large_image_source_vips', 'large_image_source_vips.*']),
    package_data={'large_image_source_vips': ['py.typed']},
    entry_points={
        'console_scripts': [
            'large-image-vips = large_image_source_vips.command_line.main:main',
        ],
        'large_image.source': [
            'vips = large_image_source_vips:VipsFileTileSource',
        ],
        'girder_large_image.source': [
            'vips = large_image_source_vips.girder_source:VipsGirderTileSource',
        ],
    },
)
