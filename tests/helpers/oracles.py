"""
Expected samples of a TIFF file, computed with tifffile and Pillow.

tifffile gives stored samples.  What the documentation says about them is done here to its
arrays, by other means than in the package: Pillow, libvips' colour spaces, plain floats.
"""

import warnings
from typing import NamedTuple

import imagecodecs
import numpy as np
import PIL.Image
import pyvips
import tifffile

VERSIONS = ', '.join(f'{module.__name__} {module.__version__}'
                     for module in (tifffile, imagecodecs, PIL, pyvips)) + (
    ', libvips ' + '.'.join(str(pyvips.version(part)) for part in range(3)))


class Seen(NamedTuple):
    """
    One picture as an oracle sees it.

    :param pixels: (rows, cols, bands).
    :param tolerance: the difference that other rounding makes.
    :param by: the oracle, and what was done to its pixels.
    """

    pixels: np.ndarray
    tolerance: float
    by: str


def pages_by_tifffile(path, most=100):
    """What tifffile sees in each page: ``Seen``, or None where it cannot decode the page."""
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with tifffile.TiffFile(path) as tiff:
            for number in range(min(len(tiff.pages), most)):
                page = tiff.pages[number].aspage()
                try:
                    stored = page.asarray()
                except Exception:  # noqa: BLE001  (each codec has errors of its own)
                    seen.append(None)
                    continue
                seen.append(_shown(page, stored) if stored.size else None)
    return seen


def images_by_tifffile(path):
    """The number of images in each series of tifffile."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with tifffile.TiffFile(path) as tiff:
            return [int(np.prod([
                extent for axis, extent in zip(series.axes, series.shape, strict=True)
                if axis not in 'YXS'])) for series in tiff.series]


def frames_by_pillow(path, most=100):
    """What Pillow sees in each frame: ``Seen``, or None where it cannot decode it."""
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with PIL.Image.open(path) as image:
            seen.extend(_frame_by_pillow(image, number)
                        for number in range(min(getattr(image, 'n_frames', 1), most)))
    return seen


def _frame_by_pillow(image, number):
    try:
        image.seek(number)
        # Loading applies the orientation.
        image.load()
    except (OSError, ValueError, SyntaxError, MemoryError):
        return None
    return _by_pillow(image)


def _by_pillow(image):
    if image.mode in {'P', 'PA', 'CMYK', 'YCbCr', '1'}:
        mode = {'PA': 'RGBA', '1': 'L'}.get(image.mode, 'RGB')
        return Seen(_three(np.asarray(image.convert(mode))), int(image.mode == 'YCbCr'),
                    f'Pillow, {image.mode} as {mode}')
    if image.mode == 'LAB':
        # Its a and b have an offset of 128.
        stored = np.asarray(image)
        return _shown_lab(stored ^ np.array([0, 128, 128], np.uint8), 'Pillow', icc=False)
    # libtiff rounds between the steps from YCbCr to RGB.
    tolerance = 3 if image.tag_v2.get(259) == 6 else 0
    return Seen(_three(np.asarray(image)), tolerance, f'Pillow, {image.mode}')


def _three(pixels):
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def _shown(page, stored):
    """The samples of a page as documented."""
    pixels = stored
    if page.samplesperpixel > 1 and int(page.planarconfig) == 2:
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = _three(pixels)
    seen = _colours(page, pixels)
    tag = page.tags.get(274)
    orientation = tag.value if tag else 1
    if isinstance(orientation, bytes):
        # Stored as a byte, which TIFF 6.0 allows (section 2).
        orientation = orientation[0]
    return seen._replace(pixels=oriented(seen.pixels, int(orientation)))


def _colours(page, pixels):
    """Colours of the samples of a page; each kind with the section of TIFF 6.0."""
    kind = page.tags.get(262)
    kind = int(kind.value) if kind else None
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 8
    if pixels.dtype == np.float16:
        return Seen(pixels.astype(np.float32), 0, 'tifffile, as 32-bit floats')
    if pixels.dtype.kind == 'c':
        return Seen(np.ascontiguousarray(pixels).view(f'f{pixels.itemsize // 2}'), 0,
                    'tifffile, real and imaginary parts')
    if kind in {None, 0, 1, 4} and pixels.dtype.kind in 'bu' and page.samplesperpixel < 3:
        return _gray(page, kind, bits, pixels)
    if kind == 3:
        palette = np.asarray(page.colormap)
        colours = np.moveaxis(palette, 0, -1)[pixels[..., 0]]
        if bits <= 8:
            colours = (colours if palette.max() < 256 else colours >> 8).astype(np.uint8)
        extra = pixels[..., 1:] if 2 in page.extrasamples else pixels[..., :0]
        return Seen(np.concatenate([colours, extra], 2), 0, 'tifffile, colours of the palette')
    if kind == 5 and pixels.shape[2] >= 4:
        return _inks(page, bits, pixels)
    if kind == 6 and int(page.compression) not in {7, 50001, 34712, 33003, 33005}:
        return _ycbcr(page, pixels)
    if kind in {8, 9}:
        return _shown_lab(pixels, 'tifffile', icc=kind == 9)
    if pixels.dtype == bool:
        return Seen(pixels * np.uint8(255), 0, 'tifffile, 1 bit as 0 and 255')
    return _without_multiplication(page, pixels, 'tifffile')


def _gray(page, kind, bits, pixels):
    """Section 4: 0 is black or white; 1, 2 and 4 bits are shown with 8."""
    most = 2 ** bits - 1
    numbers = pixels.astype(np.uint8) if pixels.dtype == bool else pixels.copy()
    if kind == 0 or (kind is None and int(page.compression) in {2, 3, 4}):
        numbers[..., 0] = most - numbers[..., 0]
    if bits in {1, 2, 4}:
        numbers = numbers * np.uint8(255 // most)
    return _without_multiplication(page, numbers, 'tifffile, black is 0')


def _without_multiplication(page, pixels, by):
    """Section 18: colours with associated alpha are multiplied by it."""
    if tuple(int(extra) for extra in page.extrasamples) != (1,) or pixels.dtype.kind != 'u':
        return Seen(pixels, 0, by)
    most = 2 ** page.bitspersample - 1
    colours, alpha = pixels[..., :-1].astype(object), pixels[..., -1:].astype(object)
    divided = np.minimum(most, colours * most // np.maximum(alpha, 1))
    divided = np.where(alpha == 0, colours, divided)
    return Seen(np.concatenate([divided.astype(pixels.dtype), pixels[..., -1:]], 2), 0,
                f'{by}, divided by alpha')


def _inks(page, bits, pixels):
    """Section 16, by Pillow; it has no 16 bits."""
    extra = tuple(int(each) for each in page.extrasamples)
    pixels = _without_multiplication(page, pixels, '').pixels
    alpha = pixels[..., 4:5] if extra[:1] in {(1,), (2,)} else pixels[..., :0]
    most = 2 ** bits - 1
    if bits == 8:
        image = PIL.Image.frombytes('CMYK', pixels.shape[1::-1], pixels[..., :4].tobytes())
        colours = np.asarray(image.convert('RGB'))
    else:
        inks = pixels[..., :4] / most
        colours = np.rint(most * (1 - inks[..., :3]) * (1 - inks[..., 3:])).astype(pixels.dtype)
    return Seen(np.concatenate([colours, alpha], 2), int(bits > 8), 'tifffile, inks as RGB')


def _ycbcr(page, pixels):
    """Section 21."""
    def numbers(tag, default):
        value = page.tags.get(tag)
        return ([above / below for above, below in np.reshape(value.value, (-1, 2))]
                if value else default)

    red, green, blue = numbers(529, [.299, .587, .114])
    ranges = np.reshape(numbers(532, [0, 255, 128, 255, 128, 255]), (3, 2))
    full = [(pixels[..., band] - low) * (255 if not band else 127) / (high - low)
            for band, (low, high) in enumerate(ranges)]
    first = full[0] + full[2] * (2 - 2 * red)
    third = full[0] + full[1] * (2 - 2 * blue)
    second = (full[0] - red * first - blue * third) / green
    rgb = np.clip(np.rint(np.stack([first, second, third], 2)), 0, 255)
    return Seen(rgb.astype(np.uint8), 1, 'tifffile, YCbCr as RGB')


def _shown_lab(pixels, by, *, icc):
    """Section 23; libvips makes the colours."""
    unit = 1 if pixels.itemsize == 1 else 256
    signed = pixels.view(f'i{pixels.itemsize}').astype(float)
    numbers = pixels.astype(float)
    lab = np.dstack([numbers[..., 0] * 100 / (255 * unit if icc or unit == 1 else 65535),
                     (numbers[..., 1:3] - 128 * unit if icc else signed[..., 1:3]) / unit])
    image = pyvips.Image.new_from_array(lab.astype(np.float32)).copy(interpretation='lab')
    return Seen(image.colourspace('srgb' if unit == 1 else 'rgb16').numpy(), 2 * unit,
                f'{by}, L*a*b* as sRGB')


def oriented(pixels, orientation):
    """Turn pixels as the tag Orientation says (TIFF 6.0, section 8)."""
    if orientation in {5, 6, 7, 8}:
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels
