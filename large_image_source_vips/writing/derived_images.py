"""
Derive pictures to write from others: a crop, a level, some frames, without metadata.

Nothing is copied: pixels are read from the original when the derived picture is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from ..base.errors import TileSourceError
from ..base.frames import Annotations, Axes, Position, position_key
from ..base.geometry import Rect, Size
from ..base.transparency import (
    ColorAndAlpha,
    Transparency,
    find_transparency,
    split_alpha,
)
from ..store import EncodedLevel, Picture, Snapshot, checked_frame
from .icc_profiles import anonymous

# The height of the rectangles of ``Picture.filled`` for a level.
_FILLED_ROWS = 256


def cropped(picture: Picture, crop: Rect) -> Picture:
    """
    A rectangle of a picture.

    :param crop: in pixels of the picture; it is clipped to it.
    :raises TileSourceError: if nothing is left.
    """
    part = crop.clipped(Rect(0, 0, *picture.size))
    if part.empty:
        msg = (f'The crop {tuple(crop)} is outside of the image of {picture.size.width} x '
               f'{picture.size.height} pixels.')
        raise TileSourceError(msg)

    def read(rect: Rect) -> ColorAndAlpha | None:
        return picture.read(rect.moved(part.left, part.top))

    def filled() -> Iterator[Rect]:
        for rect in picture.filled():
            inside = rect.clipped(part)
            if not inside.empty:
                yield inside.moved(-part.left, -part.top)

    return replace(picture, size=part.size, read=read, filled=filled,
                   transparency=_transparency_of(picture, part.size, read), encoded={})


def _transparency_of(picture: Picture, size: Size, read: Callable[[Rect], ColorAndAlpha | None],
                     ) -> Callable[[], Transparency]:
    """``Picture.transparency`` of a derived picture."""
    return lambda: 'none' if picture.opaque else find_transparency(size, read)


def at_reduction(picture: Picture, reduction: int,
                 read: Callable[[Rect], npt.NDArray[Any]]) -> Picture:
    """
    A level of a picture.

    :param reduction: the level is ``2 ** reduction`` times smaller.
    :param read: returns the pixels of a rectangle of the level.
    """
    size = picture.size.reduced(reduction)
    across, down = (None if mm is None else mm * 2 ** reduction for mm in picture.pixel_size)

    def filled() -> Iterator[Rect]:
        for top in range(0, size.height, _FILLED_ROWS):
            yield Rect(0, top, size.width, min(_FILLED_ROWS, size.height - top))

    def read_level(rect: Rect) -> ColorAndAlpha:
        return split_alpha(read(rect), picture.meaning.color_bands)

    return replace(
        picture, size=size, pixel_size=(across, down), read=read_level, filled=filled,
        transparency=_transparency_of(picture, size, read_level), encoded={
            stored - reduction: level for stored, level in picture.encoded.items()
            if stored >= reduction})


def without_metadata(picture: Picture) -> Picture:
    """
    A picture with pixels, pixel size and an anonymous colour profile only.

    Fields that are not in_words here get their defaults, so none can be forgotten.
    """
    profile = anonymous(picture.profile) if picture.profile else None
    return Picture(
        size=picture.size, dtype=picture.dtype, meaning=picture.meaning, opaque=picture.opaque,
        pixel_size=picture.pixel_size, profile=profile, read=picture.read, filled=picture.filled,
        transparency=picture.transparency, encoded=picture.encoded)


# All frames


def one_frame(snapshot: Snapshot, frame: int) -> Snapshot:
    """
    One frame of an image, with its annotations.

    :raises TileSourceError: if there is no such frame.
    """
    checked_frame(frame, snapshot.count, snapshot.name)
    if snapshot.count == 1:
        return snapshot
    annotations, position = snapshot.annotations, snapshot.position(frame)
    names, colors = annotations.channel_names, annotations.channel_colors
    if 'c' in annotations.axes.lengths:
        here = slice(position['c'], position['c'] + 1)
        names, colors = None if names is None else names[here] or None, colors[here]
    values: Mapping[Position, Mapping[str, Any]] | None = None
    if annotations.values is not None:
        values = {(): annotations.values_at(position)}
    return replace(
        snapshot, count=1, picture=lambda _: snapshot.picture(frame), positions=None,
        annotations=replace(annotations, axes=Axes(), channel_names=names, channel_colors=colors,
                            values=values))


def some_frames(snapshot: Snapshot, frames: Sequence[int]) -> Snapshot:
    """
    Some frames of an image, with their annotations.

    They keep their axes, except axes with a single position left.

    :param frames: their numbers, each once, in ascending order.
    :raises TileSourceError: if there is no such frame.
    """
    if len(frames) == 1:
        return one_frame(snapshot, frames[0])
    for frame in frames:
        checked_frame(frame, snapshot.count, snapshot.name)
    annotations = snapshot.annotations
    positions = [snapshot.position(frame) for frame in frames]
    places = {axis: sorted({position[axis] for position in positions})
              for axis in annotations.axes.lengths}
    axes = Axes({axis: len(found) for axis, found in places.items() if len(found) > 1})
    chosen = {axis: places[axis] for axis in axes.lengths}
    moved = [{axis: found.index(position[axis]) for axis, found in chosen.items()}
             for position in positions]
    names, colors = annotations.channel_names, annotations.channel_colors
    if 'c' in places:
        at = [place for place in places['c'] if place < max(len(names or ()), len(colors))]
        names = None if names is None else tuple(
            names[place] for place in at if place < len(names)) or None
        colors = tuple(color for place in at for color in colors[place:place + 1])
    return replace(
        snapshot, count=len(frames), picture=lambda number: snapshot.picture(frames[number]),
        positions=None if moved == [*axes.positions()] else moved,
        annotations=replace(annotations, axes=axes, channel_names=names, channel_colors=colors,
                            values=_values_at(annotations, places)))


def _values_at(annotations: Annotations, places: Mapping[str, Sequence[int]],
               ) -> dict[Position, Mapping[str, Any]] | None:
    """
    The values at some positions, by the new positions.

    :param places: the positions on each axis, ascending.
    """
    if annotations.values is None:
        return None
    found = {}
    for key, values in annotations.values.items():
        position = {axis: dict(key).get(axis, 0) for axis in annotations.value_axes or ()}
        if all(place in places.get(axis, (0,)) for axis, place in position.items()):
            found[position_key({axis: places[axis].index(place)
                                for axis, place in position.items() if axis in places})] = values
    return found


def with_changed_frames(snapshot: Snapshot, change: Callable[[int, Picture], Picture]) -> Snapshot:
    """
    An image with changed frames.

    :param change: a function of the number of a frame and its picture that returns the new
        picture.
    """
    return replace(snapshot, picture=lambda frame: change(frame, snapshot.picture(frame)))


def with_associated(snapshot: Snapshot, keys: frozenset[str] | None) -> Snapshot:
    """
    An image with only some of its associated images.

    :param keys: None for all.
    :raises TileSourceError: if there is no associated image with a key.
    """
    if keys is None:
        return snapshot
    for key in sorted(keys - snapshot.associated.keys()):
        msg = (f'{snapshot.name} has no associated image {key!r}; it has '
               f'{", ".join(snapshot.associated) or "none"}.')
        raise TileSourceError(msg)
    return replace(snapshot, associated={
        key: read for key, read in snapshot.associated.items() if key in keys})


def with_smaller_scale(snapshot: Snapshot, reduction: int) -> Snapshot:
    """The magnification for an image of which a lower level is written."""
    annotations = snapshot.annotations
    if annotations.magnification is None:
        return snapshot
    return replace(snapshot, annotations=replace(
        annotations, magnification=annotations.magnification / 2 ** reduction))


def anonymous_snapshot(snapshot: Snapshot) -> Snapshot:
    """An image with frames, axes and palette only; see ``without_metadata``."""
    return with_changed_frames(Snapshot(
        snapshot.name, snapshot.count, snapshot.picture,
        Annotations(snapshot.annotations.axes, palette=snapshot.annotations.palette),
        snapshot.positions), lambda _, picture: without_metadata(picture))


def common_picture(frames: Sequence[Picture]) -> Picture:
    """
    A picture with the common properties of all frames, to plan how to write them.

    :param frames: of the same size, dtype and meaning.
    """
    if len(frames) == 1:
        return frames[0]

    def transparency() -> Transparency:
        found = {picture.transparency() for picture in frames}
        return 'partial' if 'partial' in found else 'holes' if 'holes' in found else 'none'

    return replace(frames[0], opaque=all(picture.opaque for picture in frames),
                   transparency=transparency)


def with_common_tiles(frames: Sequence[Picture]) -> list[Picture]:
    """
    Frames without the stored levels whose encoding differs between frames.

    Tiles are passed on with their encoding, and readers expect the same in all frames.
    """
    def kind(level: EncodedLevel) -> EncodedLevel:
        return replace(level, read=_unread, tables=b'', whole=bytes)

    common = {reduction: kind(level) for reduction, level in frames[0].encoded.items()}
    for picture in frames[1:]:
        common = {reduction: level for reduction, level in common.items()
                  if reduction in picture.encoded and kind(picture.encoded[reduction]) == level}
    return [replace(picture, encoded={
        reduction: level for reduction, level in picture.encoded.items() if reduction in common})
        for picture in frames]


def _unread(_column: int, _row: int) -> bytes | None:
    """Replaces functions that read tiles, to compare levels."""
