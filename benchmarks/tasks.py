"""
Lists the jobs that a worker can run, by name.
"""

from __future__ import annotations

from collections.abc import Callable

from . import data, frames, reading, regions, shared, sink, writing
from .outcome import Outcome

TASKS: dict[str, Callable[..., Outcome]] = {
    'browse': reading.browse,
    'eager': regions.eager,
    'frames': frames.frames,
    'iterate': reading.iterate,
    'last_page': reading.last_page,
    'low_levels': reading.low_levels,
    'make': data.make,
    'many_slides': reading.many_slides,
    'patches': regions.patches,
    'region': reading.region,
    'regions': regions.regions,
    'shared': shared.shared,
    'stitch': sink.stitch,
    'tiles': reading.tiles,
    'watch': sink.watch,
    'write': writing.write,
}
