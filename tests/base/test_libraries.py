"""Libraries that decode tiles, beside libraries of the same names loaded by libvips."""

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip('imagecodecs')


def test_libraries_of_imagecodecs_are_not_mixed_up_with_those_of_libvips():
    code = """
        import pyvips
        import numpy as np
        from large_image_source_vips.base.libraries import imagecodecs
        pixels = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
        for name in ['jpegxl', 'jpeg2k', 'webp', 'png', 'lerc']:
            codec = getattr(imagecodecs(), f'{name}_encode')
            data = codec(pixels, lossless=True) if name in {'jpegxl', 'webp'} else codec(pixels)
            found = getattr(imagecodecs(), f'{name}_decode')(data)
            assert np.array_equal(found, pixels), name
    """
    subprocess.run([sys.executable, '-c', textwrap.dedent(code)], check=True)


def test_flags_of_loading_are_put_back():
    from large_image_source_vips.base.libraries import imagecodecs

    get = getattr(sys, 'getdlopenflags', None)
    if get is None:
        pytest.skip('this system has no flags')
    before = get()
    assert imagecodecs().lzma_decode
    with pytest.raises(AttributeError):
        _ = imagecodecs().no_such_codec
    assert get() == before
