"""
Read the tags in which makers of scanners store pixel size and magnification in TIFF files.

Input is not trusted: texts are read up to a limit, and malformed values count as missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from ..base.limits import LIMITS
from ..tiff.directories import TiffDirectories
from ..tiff.ome import positive, xml_root
from ..tiff.page import DESCRIPTION, SOFTWARE, X_RESOLUTION, Y_RESOLUTION, Page

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

PixelSize = tuple[float | None, float | None]
UNKNOWN: PixelSize = (None, None)

# A private tag.
_XMP = 700
# The number of pages in which to look for Ventana's XML: it belongs to the label, usually page 0.
_VENTANA_PAGES = 8


class Scale(NamedTuple):
    """
    Pixel size and magnification.

    :param pixel_size: (x, y) in mm; in TIFF before the orientation is applied.
    :param magnification: that of the objective.
    :param further: more entries for the internal metadata.
    """

    pixel_size: PixelSize = UNKNOWN
    magnification: float | None = None
    further: Mapping[str, Any] = {}


class Header:
    """
    The tags of a TIFF file that makers use, each read on demand.

    :param tiff: the open file.
    :param first: its first page, with the descriptions.
    :param page: the page of the first frame.
    :param resolution: the pixel size according to the resolution tags of that page.
    """

    def __init__(self, tiff: TiffDirectories, first: Page, page: Page,
                 resolution: PixelSize) -> None:
        self._tiff = tiff
        self.first = first
        self.page = page
        self.resolution = resolution

    @cached_property
    def description(self) -> str:
        """The ImageDescription of the first page."""
        return self.text(DESCRIPTION, LIMITS.tiff_text)

    @property
    def fields_text(self) -> str:
        """Its beginning; texts with fields are short."""
        return self.description[:LIMITS.tiff_field_text]

    @cached_property
    def description_root(self) -> Element | None:
        """The ImageDescription as XML; None if it is not XML."""
        return xml_root(self.description) if self.description.lstrip()[:1] == '<' else None

    def root(self, tag: str) -> Element | None:
        """The ImageDescription as XML if its root element has this tag."""
        root = self.description_root if f'<{tag}' in self.description else None
        return root if root is not None and root.tag == tag else None

    @cached_property
    def software(self) -> str:
        """The tag Software of the first page."""
        return self.text(SOFTWARE)

    def has(self, tag: int) -> bool:
        """Whether the first page has a tag."""
        return tag in self.first.entries

    def text(self, tag: int, limit: int = LIMITS.tiff_field_text,
             page: Page | None = None) -> str:
        """A text tag of a page, by default the first."""
        return self._tiff.text((page or self.first).entries.get(tag), limit)

    def number(self, tag: int, page: Page | None = None) -> float | None:
        """A number above 0 in a tag of a page, by default the first."""
        return positive(self._tiff.number((page or self.first).entries.get(tag)))

    def data(self, tag: int, limit: int) -> bytes:
        """The first bytes of a tag of the first page."""
        return self._tiff.data(self.first.entries.get(tag), limit)

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Bytes of the file; fewer at its end."""
        return self._tiff.read(offset, size)

    def resolution_tags(self) -> PixelSize:
        """The numbers of the resolution tags of the frame, without their unit."""
        return self.number(X_RESOLUTION, self.page), self.number(Y_RESOLUTION, self.page)

    def first_pages_xmp(self) -> Iterable[str]:
        """The XMP of the first pages."""
        for _, page in zip(range(_VENTANA_PAGES), self._tiff.pages(), strict=False):
            if _XMP in page.entries:
                yield self._tiff.text(page.entries[_XMP])


def decimal(text: str | None) -> float | None:
    """A number above 0; some scanners write a decimal comma, depending on the locale."""
    return positive((text or '')[:100].replace(',', '.'))


def fields_of(parts: Iterable[str]) -> dict[str, str]:
    """The ``key = value`` pairs in texts; of equal keys the first counts."""
    fields: dict[str, str] = {}
    for part in parts:
        key, mark, value = part.partition('=')
        if mark:
            fields.setdefault(key.strip(), value.strip())
    return fields
