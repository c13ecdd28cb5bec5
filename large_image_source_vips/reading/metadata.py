"""
Collect the header fields and ICC profiles of a file.

All values can be serialised with ``json.dumps``; long texts and lists are cut.  libvips
opens only the first page.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyvips
from pyvips import ffi, glib_lib, vips_lib

from ..base.errors import TileSourceError
from ..base.limits import LIMITS
from ..tiff.directories import TiffDirectories, TiffFormatError, decode_text
from ..tiff.page import DESCRIPTION, ICC_PROFILE, Entry
from .file import SourceFile
from .layout import Layout
from .maker_tags import Scale
from .png_chunks import png_texts
from .storage import storage
from .unpack import unpacker


def internal_metadata(file: SourceFile, layout: Layout, image: pyvips.Image,
                      scale: Scale) -> dict[str, Any]:
    """
    The header fields of the first frame, and fields of other frames that differ.

    The entry 'storage' describes how levels and associated images are stored.

    :param image: an open image of the first frame.
    """
    fields = header_fields(image)
    fields['filename'] = json_safe(file.path)
    fields['vips-loader'] = file.loader.name
    if layout.pages:
        # libvips counts 1 page if it opened a single directory.
        fields['n-pages'] = layout.pages
    if layout.left_out:
        fields['left-out'] = json_safe(list(layout.left_out))
    fields.update(_texts_as_written(file, layout, fields))
    fields.update(json_safe_table(scale.further))
    fields['storage'] = storage(layout)
    if len(layout.frames) > 1:
        fields['frames'] = _frame_fields(file, layout, image)
    return fields


def icc_profiles(file: SourceFile, layout: Layout, image: pyvips.Image) -> list[bytes | None]:
    """
    The ICC profile of each frame; an empty list if no frame has one.

    In TIFF each page has its own profile; shared ones are read once.  In other formats all
    frames have the profile of the file.

    :param image: an open image of the first frame.
    :raises TileSourceError: if a profile cannot be read.
    """
    if layout.converted or unpacker(image).converts_colour:
        # The pixels are already converted to sRGB.
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
    """All header fields of an open image, by name, for ``json.dumps``."""
    fields = {}
    for raw in _field_names(image):
        name = decode_text(raw)
        try:
            value = image.get(raw)
        except UnicodeDecodeError as exc:
            value = decode_text(exc.object)
        fields[name] = json_safe(value, name)
    return fields


def _field_names(image: pyvips.Image) -> list[bytes]:
    """The names of the header fields, which need not be UTF-8."""
    array = vips_lib.vips_image_get_fields(image.pointer)
    names = []
    for number in itertools.count():
        if array[number] == ffi.NULL:
            break
        names.append(ffi.string(array[number]))
        glib_lib.g_free(array[number])
    glib_lib.g_free(array)
    return names


def json_safe(value: Any, name: str = '') -> Any:
    """
    A value that ``json.dumps`` accepts.

    XMP and XML bytes become text; other bytes become a dictionary with their length and
    hash.  Long texts and lists are cut and end with their full length.

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
        items = [json_safe(item) for item in value[:LIMITS.reading_items]]
        return items if len(value) <= LIMITS.reading_items else [
            *items, f'... ({len(value)} items in all)']
    text = str(value)
    cut = text[:LIMITS.reading_text].encode('utf-8', 'replace').decode('utf-8', 'replace')
    return cut if len(text) <= LIMITS.reading_text else (
        f'{cut}... ({len(text)} characters in all)')


def json_safe_table(value: Any) -> Any:
    """Nested dictionaries and lists that ``json.dumps`` accepts; long ones are cut."""
    most = LIMITS.reading_items
    if isinstance(value, Mapping):
        table = {str(key)[:LIMITS.reading_text]: json_safe_table(item)
                 for key, item in itertools.islice(value.items(), most)}
        if len(value) > most:
            table['...'] = f'({len(value)} items in all)'
        return table
    if isinstance(value, (list, tuple)):
        items = [json_safe_table(item) for item in value[:most]]
        return items if len(value) <= most else [*items, f'... ({len(value)} items in all)']
    return json_safe(value)


def _texts_as_written(file: SourceFile, layout: Layout,
                      fields: Mapping[str, Any]) -> dict[str, Any]:
    """Texts that are not UTF-8; libvips would replace their characters."""
    page = layout.frames[0].levels[0].page
    with file.descriptor() as descriptor:
        if page is not None and DESCRIPTION in page.entries:
            text = TiffDirectories(descriptor).text(page.entries[DESCRIPTION])
            found = {'image-description': json_safe(text)}
        elif file.loader.name == 'pngload':
            found = {f'png-comment-{number}-{key}': json_safe(text)
                     for number, key, text in png_texts(descriptor)}
        else:
            found = {}
    return {name: text for name, text in found.items() if name in fields}


def _frame_fields(file: SourceFile, layout: Layout, image: pyvips.Image) -> list[dict[str, Any]]:
    """The fields of frames 1, 2 and so on that differ from frame 0."""
    frames = layout.frames[1:LIMITS.reading_described_frames]
    entries: list[dict[str, Any]] = [{} for _ in frames]
    delays = image.get('delay') if image.get_typeof('delay') else []
    if isinstance(delays, list):
        for entry, delay in zip(entries, delays[1:], strict=False):
            entry['delay'] = delay
    found = [frame.levels[0].page for frame in frames]
    scale = [page.entries[DESCRIPTION] if page is not None and DESCRIPTION in page.entries
                 else None for page in found]
    if any(scale):
        with file.descriptor() as descriptor:
            for entry, text in zip(entries, _texts(TiffDirectories(descriptor), scale),
                                   strict=True):
                if text is not None:
                    entry['image-description'] = text
    return entries


def _texts(tiff: TiffDirectories, entries: Sequence[Entry | None]) -> Iterator[str | None]:
    """The texts of entries, cut; those beyond ``LIMITS.reading_frame_texts`` are left out."""
    left = LIMITS.reading_frame_texts
    for entry in entries:
        if entry is None:
            yield None
            continue
        most = min(entry.values, LIMITS.reading_text)
        if most > left:
            yield f'... (a text of {entry.values} bytes, left out)'
            continue
        left -= most
        text = tiff.text(entry, most)
        yield text if most == entry.values else f'{text}... ({entry.values} bytes in all)'


def _tiff_profiles(file: SourceFile, layout: Layout) -> list[bytes | None]:
    """The profile of each frame; equal profiles are one object."""
    pages = [frame.levels[0].page for frame in layout.frames]
    entries = [page.entries.get(ICC_PROFILE) if page else None for page in pages]
    # Found by position in the file, then by content.
    places: dict[tuple[int, int], bytes] = {}
    profiles: dict[bytes, bytes] = {}
    if any(entries):
        with file.descriptor() as descriptor:
            try:
                tiff = TiffDirectories(descriptor)
                for entry in filter(None, entries):
                    if (entry.offset, entry.values) not in places:
                        data = tiff.data(entry)
                        places[entry.offset, entry.values] = profiles.setdefault(data, data)
                        _check_profiles(profiles)
            except TiffFormatError as exc:
                msg = f'Cannot read the ICC profiles of {file.path!r}: {exc}'
                raise TileSourceError(msg) from exc
    return [(places[entry.offset, entry.values] or None) if entry else None for entry in entries]


def _check_profiles(profiles: Collection[bytes]) -> None:
    """
    Check the total size of the different profiles of a file.

    :raises TiffFormatError: if they are too large.
    """
    size = sum(map(len, profiles))
    if size > LIMITS.reading_profiles or len(profiles) > LIMITS.reading_items:
        msg = f'{len(profiles)} different ones have {size} bytes'
        raise TiffFormatError(msg)


def _describe_bytes(data: bytes, name: str) -> Any:
    """XMP or XML bytes as text, others as a digest."""
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
