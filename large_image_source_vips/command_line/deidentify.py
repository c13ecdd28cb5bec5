"""
Report what was removed from a de-identified file, and what it still contains.
"""

from __future__ import annotations

from typing import Any

# Header fields about the pixels and the loader, which identify nobody.
_HARMLESS = frozenset({
    'width', 'height', 'bands', 'format', 'coding', 'interpretation', 'xoffset', 'yoffset',
    'xres', 'yres', 'vips-loader', 'n-pages', 'tile-width', 'tile-height', 'bits-per-sample',
    'orientation', 'resolution-unit', 'storage', 'icc-profile-data', 'jpeg-multiscan',
    'jpeg-chroma-subsample', 'interlaced', 'palette', 'palette-bit-depth', 'page-height',
    'n-subifds', 'subifd-offsets', 'left-out'})


def report_of(source: Any) -> list[str]:
    """
    What was left out of a de-identified file, and what was kept.

    :param source: the source that was written.
    """
    images = source.getAssociatedImagesList()
    fields = sorted(set(source.getInternalMetadata()) - _HARMLESS)
    kept = ['the pixels']
    if source.getNativeMagnification()['mm_x']:
        kept.append('their size')
    if source.palette is not None:
        kept.append('the colours of labels')
    if source.getICCProfiles():
        kept.append('the colour profile, without its texts, date and names of devices')
    return [
        f'  left out: associated images: {", ".join(images) or "none"}',
        f'  left out: metadata: {", ".join(fields) or "none"}',
        f'  kept: {", ".join(kept)}',
        '  Look at the pixels: writing on the glass cannot be recognised.',
    ]
