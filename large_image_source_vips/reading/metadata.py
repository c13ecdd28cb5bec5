"""
Collect the header fields and ICC profiles of a file.

Header fields are fit for ``json.dumps``; long texts and lists are cut.  No page but the
first is opened with libvips.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import pyvips

from ..base.errors import TileSourceError
from ..base.limits import LIMITS
from ..tiff.directories import DESCRIPTION, ICC_PROFILE, TiffDirectories, TiffFormatError
from .file import SourceFile
from .layout import Layout
from .pixel_size import Description
from .unpack import unpacker

# The most characters of a text and items of a list in the internal metadata.
_MAX_TEXT = LIMITS.reading_text
_MAX_ITEMS = LIMITS.reading_items
# The most frames that are described one by one.
_MAX_FRAMES = LIMITS.reading_described_frames


def internal_metadata(file: SourceFile, layout: Layout, image: pyvips.Image,
                      description: Description) -> dict[str, Any]:
    """
    The header fields of the first frame, and those in which other frames differ.

    :param image: an open image of the first frame.
    """
    fields = header_fields(image)
    fields['filename'] = json_safe(file.path)
    fields['vips-loader'] = file.loader.name
    if layout.pages:
        # libvips counts 1 if it was given a single directory.
        fields['n-pages'] = layout.pages
    if layout.left_out:
        fields['left-out'] = list(layout.left_out)
    fields.update(json_safe_table(description.further))
    if len(layout.frames) > 1:
        fields['frames'] = _frame_fields(file, layout, image)
    return fields


def icc_profiles(file: SourceFile, layout: Layout, image: pyvips.Image) -> list[bytes | None]:
    """
    The ICC profile of each frame; an empty list if no frame has one.

    In TIFF each page has its own profile; profiles that pages share are read once.  In
    other formats every frame has the profile of the file.

    :param image: an open image of the first frame.
    :raises TileSourceError: if a profile cannot be read.
    """
    if unpacker(image).converts_colour:
        # The pixels are converted to sRGB already.
        return []
    count = len(layout.frames)
    if file.loader.name == 'tiffload':
        profiles = _tiff_profiles(file, layout)
    else:
        known = image.get_typeof('icc-profile-data')
        profile = bytes(image.get('icc-profile-data')) if known else None
        profiles = [profile] * count
    return profiles if any(profiles) else []


def header_fields(image: pyvips.Image) -> dict[str, Any]:
    """Every header field of an open image, by name, fit for ``json.dumps``."""
    return {name: json_safe(image.get(name), name) for name in image.get_fields()}


def json_safe(value: Any, name: str = '') -> Any:
    """
    A value that ``json.dumps`` accepts.

    Bytes become text if they hold XMP or XML, else a dictionary with their length and
    hash.  Long texts and lists are cut and end with a note of their full length.

    :param value: a header field.
    :param name: its name.
    """
    if isinstance(value, (bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _describe_bytes(bytes(value), name)
    if isinstance(value, (list, tuple)):
        items = [json_safe(item) for item in value[:_MAX_ITEMS]]
        return items if len(value) <= _MAX_ITEMS else [
            *items, f'... ({len(value)} items in all)']
    text = str(value).encode('utf-8', 'replace').decode('utf-8', 'replace')
    return text if len(text) <= _MAX_TEXT else (
        f'{text[:_MAX_TEXT]}... ({len(text)} characters in all)')


def json_safe_table(value: Any) -> Any:
    """Nested dictionaries and lists that ``json.dumps`` accepts."""
    if isinstance(value, Mapping):
        return {str(key): json_safe_table(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe_table(item) for item in value]
    return json_safe(value)


def _frame_fields(file: SourceFile, layout: Layout, image: pyvips.Image) -> list[dict[str, Any]]:
    """The own fields of frames 1, 2 and so on."""
    frames = layout.frames[1:_MAX_FRAMES]
    entries: list[dict[str, Any]] = [{} for _ in frames]
    delays = image.get('delay') if image.get_typeof('delay') else []
    if isinstance(delays, list):
        for entry, delay in zip(entries, delays[1:], strict=False):
            entry['delay'] = delay
    pages = [frame.levels[0].page for frame in frames]
    if any(page is not None and DESCRIPTION in page.entries for page in pages):
        with file.descriptor() as descriptor:
            tiff = TiffDirectories(descriptor)
            for entry, page in zip(entries, pages, strict=True):
                if page is not None and DESCRIPTION in page.entries:
                    entry['image-description'] = json_safe(
                        tiff.text(page.entries[DESCRIPTION]))
    return entries


def _tiff_profiles(file: SourceFile, layout: Layout) -> list[bytes | None]:
    pages = [frame.levels[0].page for frame in layout.frames]
    entries = [page.entries.get(ICC_PROFILE) if page else None for page in pages]
    if not any(entries):
        return []
    seen: dict[bytes, bytes] = {}
    with file.descriptor() as descriptor:
        try:
            tiff = TiffDirectories(descriptor)
            read = {entry: tiff.data(entry) for entry in set(entries) if entry is not None}
        except TiffFormatError as exc:
            msg = f'Cannot read the ICC profiles of {file.path!r}: {exc}'
            raise TileSourceError(msg) from exc
    return [seen.setdefault(read[entry], read[entry]) or None if entry else None
            for entry in entries]


def _describe_bytes(data: bytes, name: str) -> Any:
    """Bytes as text if they hold XMP or XML, else as a digest."""
    stripped = data.rstrip(b'\0')
    if 'xmp' in name or stripped[:1] == b'<':
        try:
            return json_safe(stripped.decode('utf-8'))
        except UnicodeDecodeError:
            return _digest(data, name)
    return _digest(data, name)


def _digest(data: bytes, name: str) -> dict[str, Any]:
    return {'kind': name.removesuffix('-data') or 'bytes', 'length': len(data),
            'sha256': hashlib.sha256(data).hexdigest()}
