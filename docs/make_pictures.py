"""
Make the pictures of the documentation and the README.

``python docs/make_pictures.py`` reads the histology photograph that scikit-image carries
(extra ``demo``), does what the pages describe, and writes ``docs/pictures``.
"""

import pathlib
import tempfile

import numpy as np
import PIL.Image
import PIL.ImageDraw
import skimage.color
import skimage.data

import large_image_source_vips

FOLDER = pathlib.Path(__file__).resolve().parent / 'pictures'
GAP, RED = 12, (220, 30, 30)
QUALITY = 85


def photograph(repeats=4):
    """The photograph mirrored and repeated, (rows, cols, 3)."""
    tile = skimage.data.immunohistochemistry()
    pair = np.concatenate([tile, tile[:, ::-1]], axis=1)
    four = np.concatenate([pair, pair[::-1]])
    return np.tile(four, (repeats // 2, repeats // 2, 1))


def brown(pixels):
    """How much of the brown stain (DAB) there is, 0 to 1, by Ruifrok and Johnston."""
    stain = skimage.color.rgb2hed(pixels)[..., 2]
    return np.clip((stain - 0.02) / 0.12, 0, 1)


def overlaid(pixels, share):
    """Pixels with a share of yellow to red over them."""
    share = share[..., np.newaxis]
    heat = np.concatenate([np.full_like(share, 255), 230 * (1 - share), 0 * share], axis=-1)
    strength = 0.75 * np.clip(2 * share, 0, 1)
    return (pixels * (1 - strength) + heat * strength).astype('uint8')


def beside(*pictures):
    """Pictures side by side on white."""
    images = [PIL.Image.fromarray(picture) for picture in pictures]
    height = max(image.height for image in images)
    width = sum(image.width for image in images) + GAP * (len(images) - 1)
    whole = PIL.Image.new('RGB', (width, height), 'white')
    left = 0
    for image in images:
        whole.paste(image, (left, (height - image.height) // 2))
        left += image.width + GAP
    return whole


def reading(path):
    """A thumbnail with a rectangle, and what getRegion returns for it."""
    source = large_image_source_vips.open(path)
    thumbnail, _ = source.getThumbnail(width=384, height=384, format='numpy')
    left, top, side = 1010, 700, 384
    region, _ = source.getRegion(format='numpy', region={
        'left': left, 'top': top, 'width': side, 'height': side})
    image = PIL.Image.fromarray(thumbnail[..., :3])
    scale = image.width / source.sizeX
    PIL.ImageDraw.Draw(image).rectangle(
        [scale * left, scale * top, scale * (left + side), scale * (top + side)],
        outline=RED, width=2)
    return beside(np.asarray(image), region[..., :3])


def writing(pixels):
    """Some overlapping patches, and the slide that they are stitched to."""
    side, step = 160, 136
    sink = large_image_source_vips.new()
    apart = PIL.Image.new('RGB', (384, 384), 'white')
    shown = 0
    for row in range(7):
        for column in range(7):
            if (3 * row + 5 * column) % 11 == 4:
                continue
            patch = pixels[row * step:row * step + side, column * step:column * step + side]
            sink.addTile(patch, x=column * step, y=row * step)
            if row % 3 == 0 and column % 3 == 0:
                place = (20 + column // 3 * 120, 20 + row // 3 * 120)
                apart.paste(PIL.Image.fromarray(patch).resize((100, 100)), place)
                shown += 1
    assert shown > 5
    # A picture without its alpha band is black where there is nothing.
    tile, _ = sink.getRegion(format='numpy', output={'maxWidth': 384, 'maxHeight': 384})
    tile = np.where(tile[..., 3:] == 255, tile[..., :3], 255).astype('uint8')
    return beside(np.asarray(apart), tile)


def main():
    """Write all pictures."""
    FOLDER.mkdir(exist_ok=True)
    pixels = photograph()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'slide.tif'
        sink = large_image_source_vips.new()
        sink.addTile(pixels)
        sink.write(path)
        pictures = {
            'reading': reading(path),
            'writing': writing(pixels),
            'overlay': beside(pixels[:400, :420], overlaid(pixels, brown(pixels))[:400, :420]),
        }
    for name, picture in pictures.items():
        picture.save(FOLDER / f'{name}.jpg', quality=QUALITY, optimize=True)


if __name__ == '__main__':
    main()
