"""
The frames of a canvas: their numbers, axes and annotations.

A frame has two numbers.  Its blocks are stored under one that it gets when it is first
written.  Its number in the image follows from its position on the axes, so a new or longer
axis renumbers the frames without moving blocks.  A frame that was never written has only
the second number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..base.frames import Annotations, Axes, Position, position_key
from .axes import Target


class Frames:
    """
    The axes, the frames written and the annotations of a canvas.

    Call its methods with the lock of the canvas held, or while no tile is added.
    """

    def __init__(self) -> None:
        # Without values, which are changed in place.
        self._notes = Annotations()
        self._values: dict[Position, dict[str, Any]] | None = None
        # The number under which the blocks of a frame are stored, by position.
        self._stored: dict[Position, int] = {}

    @property
    def axes(self) -> Axes:
        """The axes of the frames."""
        return self._notes.axes

    @property
    def has_palette(self) -> bool:
        """Whether the image has colours of labels."""
        return self._notes.palette is not None

    def annotations(self) -> Annotations:
        """The current annotations."""
        return replace(self._notes, values=self._values and {
            key: dict(found) for key, found in self._values.items()})

    def annotate(self, change: Callable[[Annotations], Mapping[str, Any]]) -> None:
        """
        Change annotations.

        :param change: a function of the current annotations that returns the fields to
            replace.
        """
        annotations = replace(self.annotations(), **change(self.annotations()))
        self._values = None if annotations.values is None else {
            key: dict(found) for key, found in annotations.values.items()}
        self._notes = replace(annotations, values=None)

    def copy_settings(self, other: Frames) -> None:
        """Copy the annotations of an image without tiles."""
        self._notes, self._values = other._notes, other._values

    def stored(self, frame: int) -> int | None:
        """The number under which a frame is stored; None if it was never written."""
        return self._stored.get(position_key(self.axes.position(frame)))

    def stored_at(self, position: Mapping[str, int]) -> int | None:
        """
        The number under which the frame at a position is stored; None if never written, or
        if it is not a position.
        """
        try:
            return self._stored.get(position_key(position))
        except (TypeError, ValueError):
            return None

    def reserve(self, target: Target) -> list[int]:
        """
        Choose the numbers under which to store the frames of a tile.

        :returns: the numbers; new ones are assigned by ``commit``.
        """
        result = []
        following = len(self._stored)
        for position in target.positions:
            number = self.stored_at(position)
            if number is None:
                number, following = following, following + 1
            result.append(number)
        return result

    def commit(self, target: Target, numbers: Sequence[int], axes: Axes) -> None:
        """
        Add the frames of a tile that has been pasted.

        :param target: of the tile.
        :param numbers: from ``reserve``.
        :param axes: the axes of the image with the tile.
        """
        for position, number in zip(target.positions, numbers, strict=True):
            self._stored[position_key(position)] = number
        self._notes = replace(self._notes, axes=axes)
        for position, found in target.values:
            self._set_values(position, found)

    def _set_values(self, position: Mapping[str, int], found: Mapping[str, Any]) -> None:
        """Set the values of a position; their axes become value axes."""
        known = self._notes.value_axes or ()
        if not set(found) <= set(known):
            order = [*self.axes.lengths, *known]
            self._notes = replace(self._notes, value_axes=tuple(
                sorted({*known, *found}, key=order.index)))
        if self._values is None:
            self._values = {}
        self._values.setdefault(self._notes.value_key(position), {}).update(found)


class Placer:
    """Determines the axes of an image after adding a tile."""

    def placed(self, frames: Frames, target: Target) -> tuple[Target, Axes]:
        """
        The frames of a tile with their values, and the axes of the image including it.

        :raises TileSourceError: if there would be too many frames.
        """
        return target, frames.axes.grown(target.lengths)


class SharedPlacer(Placer):
    """
    A placer whose result does not depend on the order of the tiles.

    If tiles give different values for a position, the greatest counts.
    """

    def __init__(self) -> None:
        self._lengths: dict[tuple[str, ...], dict[str, int]] = {}
        self._values: dict[Position, dict[str, Any]] = {}

    def placed(self, frames: Frames, target: Target) -> tuple[Target, Axes]:
        """See ``Placer``."""
        if not target.lengths:
            return target, frames.axes
        values = []
        for position, found in target.values:
            known = self._values.setdefault(position_key(position), {})
            for axis, value in found.items():
                known[axis] = max(known.get(axis, value), value, key=json.dumps)
            values.append((position, dict(known)))
        names = tuple(target.lengths)
        known_lengths = self._lengths.get(names, {})
        lengths = {axis: max(known_lengths.get(axis, 1), length)
                   for axis, length in target.lengths.items()}
        axes = frames.axes
        if lengths != known_lengths:
            self._lengths[names] = lengths
            axes = Axes()
            for _, needed in sorted(self._lengths.items()):
                axes = axes.grown(needed)
        return replace(target, values=values), axes
