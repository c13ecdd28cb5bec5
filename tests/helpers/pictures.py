"""Pictures for tests of the writer."""

import contextlib

from large_image_source_vips.store import Snapshot


def one_frame(picture):
    """The function that ``write_image`` calls to open an image with one frame."""
    return lambda: contextlib.nullcontext(Snapshot('the image', 1, lambda _frame: picture))
