"""
All fixed limits: memory, disk space, open files, sizes of images and metadata.

Each field of the frozen ``LIMITS`` has a value, a unit and a reason;
``docs/make_limits.py`` makes ``docs/limits.rst`` from them.  The first word of a name is
the part of the package that applies the limit.  Sizes that only affect speed are in the
modules that use them.

Tests replace the table in a module: ``monkeypatch.setattr(module, 'LIMITS',
dataclasses.replace(LIMITS, sink_pool=1 << 18))``.
"""

from __future__ import annotations

import dataclasses

_MIB, _GIB = 1 << 20, 1 << 30


def _limit(value: int, unit: str, reason: str) -> int:
    """A field of the table."""
    result: int = dataclasses.field(default=value, metadata={'unit': unit, 'reason': reason})
    return result


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits by name; each value is in the unit of its field."""

    # base
    base_threads: int = _limit(
        4, 'threads', 'Threads started by one call; never more than processors.')
    base_scratch: int = _limit(
        16 * _MIB, 'bytes', 'Working memory kept by a thread for each step of reducing; '
        'larger arrays are freed immediately.')
    base_transfer: int = _limit(
        _GIB, 'bytes', 'One read or write call; macOS and Windows refuse 2 GiB or more.')
    base_frames: int = _limit(
        1 << 20, 'frames', 'Frames of an image, written or not; also the most that the '
        'OME-XML of a file may describe.')

    base_colors: int = _limit(
        1 << 16, 'colours', 'Colours of a palette: the most in a TIFF ColorMap.')

    # tiff
    tiff_directories: int = _limit(
        1 << 18, 'directories', 'Directories of a file; ends broken or circular chains.  No '
        'instrument writes as many.')
    tiff_sub_ifds: int = _limit(
        256, 'sub-IFDs', 'Sub-IFDs of a page; no pyramid has as many levels.')
    tiff_entries: int = _limit(
        1 << 21, 'entries', 'Entries of all directories of a file, which may overlap; '
        '100,000 pages have about 20 each.')
    tiff_value: int = _limit(
        256 * _MIB, 'bytes', 'One tag; the tile table of a slide of 10 million tiles takes '
        '80 MB.')
    tiff_text: int = _limit(
        64 * _MIB, 'bytes', 'A description; the OME-XML of a large screen takes 50 MB.')
    tiff_field_text: int = _limit(
        1 << 20, 'characters', "The part of a maker's description that is searched for "
        "fields; usual ones have a few thousand.")
    tiff_integers: int = _limit(
        1 << 16, 'values', 'A tag with a list of integers, other than a tile table.')
    tiff_missing: int = _limit(
        _GIB, 'bytes', 'Pixels that a file claims beyond what its bytes can hold; a '
        'truncated file still opens.')
    tiff_side: int = _limit(
        100_000_000, 'pixels', "Width or height of a page; libvips 8.18's limit "
        "(VIPS_MAX_COORD).")
    tiff_xml_marks: int = _limit(
        1 << 22, 'tags and attributes', 'An XML text, counted before it is parsed; 330,000 '
        'planes have about 10 each.')
    tiff_tile_extra: int = _limit(
        16 * _MIB, 'bytes', 'A compressed tile beyond four times the size of its pixels; '
        'larger ones are refused.')
    tiff_ome_planes: int = _limit(
        1 << 20, 'planes', 'Planes that an OME-XML text assigns to pages of the file, '
        'including repeated ones.')

    # codecs
    codecs_tile_samples: int = _limit(
        1 << 28, 'samples', 'A compressed tile or strip decoded by this package; libvips '
        'decodes larger ones.')
    codecs_picture: int = _limit(
        512 * _MIB, 'bytes', 'Pixels of a JPEG 2000 file that imagecodecs decodes in one '
        'piece, with up to four times as much memory.')

    # reading
    reading_pages: int = _limit(
        100_000, 'pages', 'Pages of a file other than TIFF; files with more are refused.')
    reading_pdf_sizes: int = _limit(
        1000, 'pages', 'Pages of a PDF whose size is read, by opening the file for each.  '
        'Further pages are assumed to have the size of the first; if not, reading them is an '
        'error.')
    reading_heif_images: int = _limit(
        1000, 'images', 'Images of a HEIF file; each is opened to read its size.  Further '
        'ones are ignored.')
    reading_handles: int = _limit(
        128, 'images', 'Open images; each has a descriptor, and a process usually has 1,024.')
    reading_handle_memory: int = _limit(
        256 * _MIB, 'bytes', 'Decoded rows that libvips keeps for all open images; the '
        'newest image is always kept.')
    reading_tiles: int = _limit(
        64 * _MIB, 'bytes', 'Decoded TIFF tiles of which other parts will probably be read; '
        'a row of tiles of 240 of a slide 80,000 wide.  The newest is always kept.')
    reading_memory: int = _limit(
        512 * _MIB, 'bytes', 'Decoded images and computed levels in memory, for all files; '
        'the newest is always kept.')
    reading_disk: int = _limit(
        32 * _GIB, 'bytes', 'Decoded images and computed levels in temporary files, for all '
        'files; the newest is always kept.')
    reading_image_memory: int = _limit(
        256 * _MIB, 'bytes', 'A decoded image or level in memory; larger ones go to a '
        'temporary file.')
    reading_large: int = _limit(
        512 * _MIB, 'bytes', 'The size from which a decoded image is kept for other levels; '
        'smaller ones are decoded again in about half a second.')
    reading_kept: int = _limit(
        2 * _GIB, 'bytes', 'A decoded image that is kept when only a small level is '
        'requested.')
    reading_kept_disk: int = _limit(
        8 * _GIB, 'bytes', 'Decoded images kept for other levels, for all files; a stack has '
        'many.')
    reading_associated_side: int = _limit(
        8192, 'pixels', 'Width or height of an associated image; larger ones are reduced.')
    reading_text: int = _limit(
        100_000, 'characters', 'A text in the internal metadata; longer ones are cut.')
    reading_items: int = _limit(
        1000, 'items', 'A list in the internal metadata; longer ones are cut.')
    reading_described_frames: int = _limit(
        10_000, 'frames', 'Frames listed in the internal metadata.')

    reading_frame_texts: int = _limit(
        16 * _MIB, 'bytes', 'Descriptions of all frames in the internal metadata; further '
        'ones are left out.')
    reading_profiles: int = _limit(
        64 * _MIB, 'bytes', 'All different ICC profiles of a file; a large one has 4 MB.')
    reading_message: int = _limit(
        1 << 16, 'bytes', 'Error output of a decoding process; the end is kept.')
    reading_png_chunks: int = _limit(
        1000, 'chunks', 'Chunks of a PNG file before its pixels; ends the search in a '
        'damaged file.')

    # regions
    regions_kept: int = _limit(
        4 * _MIB, 'bytes', "A region or a stored tile whose decoded tiles are put into "
        "large_image's cache, which assumes tiles of 512 KiB.")

    # girder
    girder_files: int = _limit(
        1000, 'documents', "Documents of Girder's files, cached for a second; a server shows "
        "fewer images at a time.")

    # sink
    sink_side: int = _limit(
        10_000_000, 'pixels', "Width or height of a new image; libvips 8.14's limit "
        "(VIPS_MAX_COORD).")
    sink_pool: int = _limit(
        64 * _MIB, 'bytes', 'Blocks in memory; all others are in the spool file.')
    sink_pinned_blocks: int = _limit(
        64, 'blocks', 'Blocks changed in memory for one tile; the blocks of larger tiles are '
        'written to the spool one by one.')
    sink_open_logs: int = _limit(
        16, 'files', 'Logs of a shared spool open for reading; each process that added tiles '
        'has one.')
    sink_received: int = _limit(
        4, 'images', 'Images with a shared spool that a worker keeps open between tasks.')
    sink_recent_tiles: int = _limit(
        32 * _MIB, 'bytes', 'Tiles of a log kept in memory while blocks are computed; the '
        'newest is always kept.')
    sink_window: int = _limit(
        8 * _MIB, 'bytes', 'Weights of a tile for feather, kept for the next tile of the same '
        'size, for 4 sizes; those of larger tiles are computed each time.')
    sink_reserved: int = _limit(
        64 * _MIB, 'bytes', 'Disk space that the spool file reserves in advance; less if '
        'that is more than a quarter of the file.')

    # writing
    writing_threads: int = _limit(
        8, 'threads', 'Threads that compress the tiles of a file; never more than '
        'processors.  Each holds a branch of the pyramid.')
    writing_tile: int = _limit(
        2048, 'pixels', 'Width and height of a written tile; a branch of the pyramid holds '
        'some of them in memory.')


LIMITS = Limits()
