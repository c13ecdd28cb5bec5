"""
Decide which pages of a TIFF file are frames, levels, masks and associated images.

The result depends only on the directories and descriptions; nothing here reads the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..base.geometry import Size
from ..tiff import ome
from ..tiff.json_text import associated_of_json, axes_of_json, read_json_text
from ..tiff.page import Page
from .layout import reduction_between, unique_keys

_MASK_SUBFILE = 4
# The number of characters of a description in which to look for "label", "macro" and so on.
NAME_TEXT = 200
_NAMES = re.compile(r'\b(label|macro|thumbnail|overview)\b', re.IGNORECASE)


class Place(NamedTuple):
    """
    Where a picture is stored.

    :param page: its directory.
    :param number: the page in the main chain, or the page that has it as a sub-IFD.
    :param sub_page: its index among the sub-IFDs of that page; None for the page itself.
    """

    page: Page
    number: int
    sub_page: int | None = None


@dataclass(frozen=True)
class Directories:
    """
    The directories and descriptions of a file.

    :param pages: the pages of the main chain.
    :param sub_pages: the sub-IFDs of each page that has any; None for unreadable ones.
    :param texts: the ImageDescription of the first pages, by page number.
    :param file_name: without its folder; OME-XML may also describe other files.
    :param images: the number of images that the first page contains, and the bytes from one
        to the next.
    :param why_unreadable: returns the reason why a page cannot be decoded; None if it can.
    :param why_unlisted: the same for an associated image, whose data must be in the file.
    """

    pages: Sequence[Page]
    sub_pages: Mapping[int, Sequence[Page | None]] = field(default_factory=dict)
    texts: Mapping[int, str] = field(default_factory=dict)
    file_name: str = ''
    images: tuple[int, int] = (1, 0)
    why_unreadable: Callable[[Page], str | None] = lambda page: None
    why_unlisted: Callable[[Page], str | None] = lambda page: None

    @property
    def text(self) -> str:
        """The ImageDescription of the first page."""
        return self.texts.get(0, '')

    def subs(self, number: int) -> Iterator[Place]:
        """The readable sub-IFDs of a page."""
        for index, page in enumerate(self.sub_pages.get(number, ())):
            if page is not None:
                yield Place(page, number, index)


@dataclass
class PageRoles:
    """
    The role of each page.

    :param frames: in frame order.
    :param axes: the position of each frame on each axis; empty if no axes are known.
    :param channels: the names of the channels.
    :param levels: the reduced levels of each frame, by reduction.
    :param masks: the transparency mask of a page, by the offset of the page's directory.
    :param associated: associated images, by key.
    :param left_out: pages that are not used, with the reasons.
    """

    frames: list[Place]
    axes: list[Mapping[str, int]] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    levels: list[dict[int, Place]] = field(default_factory=list)
    masks: dict[int, Place] = field(default_factory=dict)
    associated: dict[str, Place] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def assign_roles(found: Directories) -> PageRoles:
    """Decide which pages are frames, levels, masks and associated images."""
    pages = found.pages
    fields = read_json_text(found.text)
    apart = _associated_of_this_package(found, fields)
    base = 0 if apart else _base_page(pages)
    alike = [Place(page, number) for number, page in enumerate(pages)
             if page.size == pages[base].size and page.kind == pages[base].kind
             and page.orientation == pages[base].orientation
             and is_mask(page) == is_mask(pages[base]) and number not in apart]
    count, step = found.images
    if count > 1 and len(alike) == 1:
        alike = [alike[0]._replace(page=replace(pages[base], shift=number * step))
                 for number in range(count)]
    series = ome.ome_series(
        found.text, found.file_name, max(1, pages[base].samples), len(pages))
    roles = (_frames_of_this_package(fields, series, alike) or _ome_frames(series, alike) or
             _imagej_frames(found.text, alike) or PageRoles(alike))
    roles.levels = [{} for _ in roles.frames]
    taken = {frame.number for frame in roles.frames}
    _add_sub_levels(roles, found, pages[base])
    taken |= _add_chain_levels(roles, found, pages[base], taken | apart)
    taken |= _add_masks(roles, found)
    _name_others(roles, found, series, taken, base)
    _restore_keys(roles, fields)
    return roles


def is_mask(page: Page) -> bool:
    """Whether a page is the transparency mask of another page."""
    return bool(page.subfile_type & _MASK_SUBFILE)


def _base_page(pages: Sequence[Page]) -> int:
    """
    The page number of the full-resolution image.

    This is the first page that is not a mask, or the first of a file of masks.  If the
    largest page has more than four times its area, that page is a thumbnail, and the
    largest page counts.
    """
    pictures = [number for number, page in enumerate(pages) if not is_mask(page)] or [0]
    largest = max(pictures, key=lambda number: pages[number].size.area)
    first = pictures[0]
    return largest if pages[largest].size.area > 4 * pages[first].size.area else first


def _associated_of_this_package(found: Directories, fields: Mapping[str, Any]) -> set[int]:
    """
    The pages of associated images in a file written by this package, whatever their size.

    :returns: empty if the pages do not match the JSON text.
    """
    keys = associated_of_json(fields)
    start = len(found.pages) - len(keys)
    # The description of such a page is its key, possibly cut; those of late pages are not
    # read.
    texts = [found.texts.get(start + index, key) for index, key in enumerate(keys)]
    fits = start > 0 and all(text and key.startswith(text)
                             for text, key in zip(texts, keys, strict=True))
    return {*range(start, len(found.pages))} if fits else set()


# Levels

def _add_sub_levels(roles: PageRoles, found: Directories, base: Page) -> None:
    """Add the levels that are sub-IFDs of their frames."""
    for position, frame in enumerate(roles.frames):
        for place in found.subs(frame.number):
            reduction = _reduction(place.page, base)
            if reduction and _is_usable(roles, found, place, reduction):
                roles.levels[position].setdefault(reduction, place)


def _add_chain_levels(roles: PageRoles, found: Directories, base: Page,
                      taken: set[int]) -> set[int]:
    """
    Add the levels that are pages of the main chain: those of one reduction are in the file
    order of the frames' pages.

    :returns: the numbers of the pages that are levels, used or not.
    """
    aperio = found.text.startswith('Aperio')
    by_reduction: dict[int, list[Place]] = {}
    for number, page in enumerate(found.pages):
        if number not in taken and not (aperio and page.tile is None):
            reduction = _reduction(page, base)
            if reduction:
                by_reduction.setdefault(reduction, []).append(Place(page, number))
    in_file_order = sorted(range(len(roles.frames)), key=lambda frame: (
        roles.frames[frame].number, roles.frames[frame].page.shift))
    levels = set[int]()
    for reduction, places in by_reduction.items():
        if len(places) != len(roles.frames) and len(roles.frames) > 1:
            continue
        for position, place in zip(in_file_order, places, strict=False):
            levels.add(place.number)
            if _is_usable(roles, found, place, reduction):
                roles.levels[position].setdefault(reduction, place)
    return levels


def _reduction(page: Page, base: Page) -> int | None:
    """The reduction at which a page can be a level; None or 0 if it cannot."""
    if page.kind != base.kind or is_mask(page):
        return None
    return reduction_between(base.size, page.size)


def _is_usable(roles: PageRoles, found: Directories, place: Place, reduction: int) -> bool:
    """Whether a level can be decoded; if not, the reason is added to ``left_out``."""
    reason = found.why_unreadable(place.page)
    if reason:
        width, height = place.page.size
        roles.left_out.append(
            f'the level of {width} x {height} pixels, which is computed instead: {reason}')
    return not reason


# Masks

def _add_masks(roles: PageRoles, found: Directories) -> set[int]:
    """
    Find the mask of each picture.

    A mask in the main chain follows its picture, possibly with other pages between.  A mask
    in a sub-IFD belongs to the page or to a level of that frame.

    :returns: the numbers of the pages that are masks.
    """
    levels = {frame.number: level for frame, level in zip(roles.frames, roles.levels, strict=True)}
    for number, page in enumerate(found.pages):
        pictures = [page, *(level.page for level in levels.get(number, {}).values())]
        for mask in found.subs(number):
            if is_mask(mask.page):
                _add_mask(roles, found, mask, pictures)
    # Pictures without a mask, by size, in file order.
    waiting: dict[Size, list[Page]] = {}
    masks = set[int]()
    for number, page in enumerate(found.pages):
        if number and is_mask(page):
            masks.add(number)
            _add_mask(roles, found, Place(page, number), waiting.get(page.size, [])[-1:])
            if waiting.get(page.size) and waiting[page.size][-1].offset in roles.masks:
                waiting[page.size].pop()
        elif page.offset not in roles.masks:
            waiting.setdefault(page.size, []).append(page)
    return masks


def _add_mask(roles: PageRoles, found: Directories, mask: Place,
              pictures: Sequence[Page]) -> None:
    """Assign a mask to the first picture of its size that has none."""
    for picture in pictures:
        if picture.size == mask.page.size and not is_mask(picture) \
                and picture.offset not in roles.masks:
            reason = found.why_unreadable(mask.page)
            if reason:
                roles.left_out.append(
                    f'the mask of {picture.size.width} x {picture.size.height} pixels: {reason}')
            else:
                roles.masks[picture.offset] = mask
            return


# Frames

def _ome_frames(series: Sequence[ome.Series], alike: Sequence[Place]) -> PageRoles | None:
    """The frames in the order and with the axes of OME-XML, if it describes these pages."""
    allowed = {place.number: place for place in alike}
    present = [(image, [plane for plane in image.planes if plane.page in allowed])
               for image in series]
    present = [(image, planes) for image, planes in present if planes]
    if allowed.keys() - {plane.page for _, planes in present for plane in planes} \
            or len(allowed) < len(alike):
        # OME-XML that does not describe all pages belongs to another file.
        return None
    roles = PageRoles([])
    seen = set[int]()
    for position, (_, planes) in enumerate(present):
        for plane in planes:
            if plane.page in seen:
                continue
            seen.add(plane.page)
            roles.frames.append(allowed[plane.page])
            axes = dict(plane.axes)
            if len(present) > 1:
                axes['IndexXY'] = position
            roles.axes.append(axes)
    _complete_axes(roles)
    roles.channels = _channel_names(present[0][0])
    return roles


def _frames_of_this_package(fields: Mapping[str, Any], series: Sequence[ome.Series],
                alike: Sequence[Place]) -> PageRoles | None:
    """The frames of a file written by this package: its first pages, in frame order."""
    axes = axes_of_json(fields)
    if axes is None or [place.number for place in alike[:axes.count]] != list(range(axes.count)):
        return None
    roles = PageRoles(list(alike[:axes.count]))
    if axes.lengths and '' not in axes.lengths:
        roles.axes = [{f'Index{axis.upper()}': place for axis, place in position.items()}
                     for position in axes.positions()]
    if series:
        roles.channels = _channel_names(series[0])
    return roles


def _channel_names(image: ome.Series) -> list[str]:
    """The names of the channels, made unique; empty if none has one."""
    if not any(channel.name for channel in image.channels):
        return []
    return unique_keys([channel.name or f'Channel {number + 1}'
                        for number, channel in enumerate(image.channels)])


def _complete_axes(roles: PageRoles) -> None:
    """Give every frame the same axes; missing positions become 0."""
    keys = sorted({key for axes in roles.axes for key in axes})
    roles.axes = [{key: axes.get(key, 0) for key in keys} for axes in roles.axes]


def _imagej_frames(text: str, alike: Sequence[Place]) -> PageRoles | None:
    """The frames with the axes of an ImageJ hyperstack."""
    axes = ome.imagej_axes(ome.imagej_fields(text), len(alike)) if text else []
    return PageRoles(list(alike), list(axes)) if axes else None


# Associated images

def _name_others(roles: PageRoles, found: Directories, series: Sequence[ome.Series],
                 taken: set[int], base: int) -> None:
    """Name the other pages as associated images, from their descriptions."""
    ome_names = {plane.page: image.name for image in series for plane in image.planes}
    numbers, names = [], []
    for number, page in enumerate(found.pages):
        if number in taken:
            continue
        reason = found.why_unlisted(page)
        if reason:
            roles.left_out.append(f'page {number}: {reason}')
            continue
        numbers.append(number)
        text = f'{ome_names.get(number, "")} {found.texts.get(number, "")[:NAME_TEXT]}'
        name = None if number == 0 else _NAMES.search(text)
        aperio_thumbnail = number == 1 and found.text.startswith('Aperio')
        if name:
            names.append(name[1].lower())
        elif aperio_thumbnail or (number == 0 and base and not is_mask(page)):
            names.append('thumbnail')
        else:
            names.append(f'page_{number}')
    roles.associated = {key: Place(found.pages[number], number)
                       for key, number in zip(unique_keys(names), numbers, strict=True)}


def _restore_keys(roles: PageRoles, fields: Mapping[str, Any]) -> None:
    """Restore the keys of associated images in a file written by this package."""
    keys = associated_of_json(fields)
    if len(keys) == len(roles.associated):
        roles.associated = dict(zip(keys, roles.associated.values(), strict=True))
