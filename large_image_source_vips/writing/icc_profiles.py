"""
Make ICC profiles anonymous: remove texts, dates and device names.

Colours are converted as before.  Offsets and names of fields: ICC.1:2022, sections 7
(header, tag table), 9 (tags) and 10 (tag types).
"""

from __future__ import annotations

import struct

_HEADER = 128
# Header fields to set to 0: date and time, manufacturer, model, creator, and the hash of
# the profile.
_IDENTIFYING = ((24, 36), (48, 56), (80, 84), (84, 100))
# Tags for the conversion of colours.  Texts and unknown tags are removed.
_COLOUR_TAGS = frozenset({
    b'A2B0', b'A2B1', b'A2B2', b'B2A0', b'B2A1', b'B2A2', b'D2B0', b'D2B1', b'D2B2', b'D2B3',
    b'B2D0', b'B2D1', b'B2D2', b'B2D3', b'rXYZ', b'gXYZ', b'bXYZ', b'rTRC', b'gTRC', b'bTRC',
    b'kTRC', b'wtpt', b'bkpt', b'chad', b'chrm', b'gamt', b'lumi', b'pre0', b'pre1', b'pre2',
    b'tech', b'view', b'cicp'})
# Every profile must have a description and a copyright.
_DESCRIPTION, _COPYRIGHT = 'colour profile', 'none'


def anonymous(profile: bytes) -> bytes | None:
    """
    A profile that converts colours in the same way, without texts, date or device.

    :param profile: an ICC profile.
    :returns: None if it is damaged.
    """
    if len(profile) < _HEADER + 4 or profile[36:40] != b'acsp':
        return None
    header = bytearray(profile[:_HEADER])
    for start, stop in _IDENTIFYING:
        header[start:stop] = bytes(stop - start)
    modern = header[8] >= 4
    tags: list[tuple[bytes, bytes]] = [
        (b'desc', _localized(_DESCRIPTION) if modern else _described(_DESCRIPTION)),
        (b'cprt', _localized(_COPYRIGHT) if modern else _plain(_COPYRIGHT))]
    (count,) = struct.unpack_from('>I', profile, _HEADER)
    if _HEADER + 4 + 12 * count > len(profile):
        return None
    for name, start, size in struct.iter_unpack(
            '>4sII', profile[_HEADER + 4:_HEADER + 4 + 12 * count]):
        if start + size > len(profile):
            return None
        if name in _COLOUR_TAGS:
            tags.append((name, profile[start:start + size]))
    return _assembled(header, tags)


def _assembled(header: bytearray, tags: list[tuple[bytes, bytes]]) -> bytes:
    """Assemble a profile from a header and tags; equal tags share their data."""
    start = _HEADER + 4 + 12 * len(tags)
    table, body = struct.pack('>I', len(tags)), b''
    places: dict[bytes, int] = {}
    for name, data in tags:
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += struct.pack('>4sII', name, places[data], len(data))
    struct.pack_into('>I', header, 0, start + len(body))
    return bytes(header) + table + body


def _localized(text: str) -> bytes:
    """A multiLocalizedUnicodeType with one English text."""
    encoded = text.encode('utf-16-be')
    return struct.pack('>4sIII2s2sII', b'mluc', 0, 1, 12, b'en', b'US', len(encoded), 28) + encoded


def _described(text: str) -> bytes:
    """A textDescriptionType (ICC.1:2001-04, 6.5.17) with an ASCII part only."""
    encoded = text.encode('ascii') + b'\0'
    # No Unicode text, and no Macintosh text in its 67 bytes.
    return struct.pack('>4sII', b'desc', 0, len(encoded)) + encoded + bytes(4 + 4 + 2 + 1 + 67)


def _plain(text: str) -> bytes:
    """A textType."""
    return struct.pack('>4sI', b'text', 0) + text.encode('ascii') + b'\0'
