"""
Describe how levels and associated images are stored: ``storage`` in the internal metadata.
"""

from __future__ import annotations

from typing import Any

from ..base.geometry import Size, level_count
from .layout import Layout, Picture, Stored, oriented

# Reductions made by the decoder: options of libvips' loaders, and texts for them.
_DECODED = {'shrink': 'decoded at 1/{}', 'scale': 'rendered at scale {:g}'}
_NUMBERED = {'level': 'level {} of the file', 'page': 'page {}'}


def storage(layout: Layout) -> dict[str, Any]:
    """
    How the levels of the first frame and the associated images are stored.

    :returns: 'levels', a list from the smallest level (0, as in large_image) to full
        resolution, and 'associated', a dictionary by key.  Each entry has 'width' and
        'height' in pixels; 'from', such as 'page 3', 'sub-IFD 1 of page 0' or 'computed';
        'tileWidth' and 'tileHeight', and 'compression', None where unknown or computed.
    """
    frame = layout.frames[0]
    count = level_count(layout.size)
    levels = []
    for level in range(count):
        reduction = count - 1 - level
        stored = frame.levels.get(reduction)
        levels.append({'level': level, **_entry(
            stored, layout.size.reduced(reduction), frame.orientation)})
    return {'levels': levels,
            'associated': {key: _of_picture(picture)
                           for key, picture in layout.associated.items()}}


def _of_picture(picture: Picture) -> dict[str, Any]:
    return _entry(picture.levels[0], picture.size, picture.orientation)


def _entry(stored: Stored | None, size: Size, orientation: int) -> dict[str, Any]:
    """
    :param stored: the stored picture; None for a computed level.
    :param size: of the displayed level.
    """
    page = stored.page if stored else None
    tile = oriented(page.tile, orientation) if page and page.tile else None
    return {'width': size.width, 'height': size.height,
            'from': _place(stored) if stored else 'computed',
            'tileWidth': tile.width if tile else None,
            'tileHeight': tile.height if tile else None,
            'compression': page.compression_name if page else None}


def _place(stored: Stored) -> str:
    """The place of a stored picture in its file."""
    options = dict(stored.opening.options)
    if 'subifd' in options:
        return f'sub-IFD {options["subifd"]} of page {options["page"]}'
    if stored.opening.directory is not None:
        return f'directory at byte {stored.opening.directory:,}'
    for table in (_DECODED, _NUMBERED):
        for option, text in table.items():
            if option in options:
                return text.format(options[option])
    if stored.opening.attached:
        return stored.opening.attached
    return f'rows {stored.top:,} and below' if stored.top else 'the whole file'
