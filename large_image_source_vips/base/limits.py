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
        4, 'threads', 'Threads that one call starts; never more than there are processors.')
    base_scratch: int = _limit(
        16 * _MIB, 'bytes', 'Working memory that a thread keeps for each step of reducing; '
        'larger arrays are freed at once.')
    base_transfer: int = _limit(
        _GIB, 'bytes', 'One read or write call; macOS and Windows refuse 2 GiB or more.')
    base_frames: int = _limit(
        1 << 20, 'frames', 'Written or not; as many as the OME-XML of one file may describe.')

    base_colors: int = _limit(
        1 << 16, 'colours', 'Of a palette: as many as the ColorMap of a TIFF file may have.')

    # tiff
    tiff_directories: int = _limit(
        1 << 18, 'directories', 'More than any instrument writes; ends broken or circular '
        'chains.')
    tiff_sub_ifds: int = _limit(
        256, 'sub-IFDs', 'Of one page; more than any pyramid has levels.')
    tiff_entries: int = _limit(
        1 << 21, 'entries', 'In all directories of a file, which may overlap; 100,000 pages '
        'have about 20 each.')
    tiff_value: int = _limit(
        256 * _MIB, 'bytes', 'One tag; the tile table of a slide of 10 million tiles takes 80 MB.')
    tiff_text: int = _limit(
        64 * _MIB, 'bytes', 'A description; the OME-XML of a large screen takes 50 MB.')
    tiff_field_text: int = _limit(
        1 << 20, 'characters', "Of a maker's description in which fields are looked for; they "
        'have a few thousand.')
    tiff_integers: int = _limit(
        1 << 16, 'values', 'A tag read as a list of integers, other than a tile table.')
    tiff_missing: int = _limit(
        _GIB, 'bytes', 'Pixels that a file may claim beyond what its bytes can hold; a truncated '
        'file still opens.')
    tiff_side: int = _limit(
        100_000_000, 'pixels', 'Width or height of a page; that of libvips 8.18 '
        '(VIPS_MAX_COORD).')
    tiff_xml_marks: int = _limit(
        1 << 22, 'tags and attributes', 'Of an XML text, counted before it is parsed; 330,000 '
        'planes have about 10 each.')
    tiff_tile_extra: int = _limit(
        16 * _MIB, 'bytes', 'A compressed tile beyond four times its pixels; a larger one is '
        'refused.')
    tiff_ome_planes: int = _limit(
        1 << 20, 'planes', 'That the elements of an OME-XML text place in the file, repeated '
        'ones counted; a file has fewer pages.')

    # codecs
    codecs_tile_samples: int = _limit(
        1 << 28, 'samples', 'A compressed tile or strip decoded by this package; larger ones are '
        'left to libvips.')
    codecs_picture: int = _limit(
        512 * _MIB, 'bytes', 'Pixels of a JPEG 2000 file that imagecodecs decodes, all at once; it '
        'takes up to four times as much.')

    # reading
    reading_pages: int = _limit(
        100_000, 'pages', 'A file of more is refused, other than TIFF.')
    reading_pdf_sizes: int = _limit(
        1000, 'pages', 'Of a PDF, whose sizes are looked at, each by opening the file.  Further '
        'ones are expected to be as large as the first; if not, reading them is an error.')
    reading_heif_images: int = _limit(
        1000, 'images', 'Further images of a HEIF file are ignored; each is opened to learn its '
        'size.')
    reading_handles: int = _limit(
        128, 'images', 'Images kept open; each has a descriptor, and a process usually 1,024.')
    reading_handle_memory: int = _limit(
        256 * _MIB, 'bytes', 'Decoded rows that libvips keeps for all open images; the newest '
        'image is always kept.')
    reading_tiles: int = _limit(
        64 * _MIB, 'bytes', 'Decoded TIFF tiles of which other parts are likely to be read; a row '
        'of tiles of 240 of a slide 80,000 wide. The newest is always kept.')
    reading_memory: int = _limit(
        512 * _MIB, 'bytes', 'Decoded images and computed levels in memory, all files together; '
        'the newest is always kept.')
    reading_disk: int = _limit(
        32 * _GIB, 'bytes', 'The same in temporary files; the newest is always kept.')
    reading_image_memory: int = _limit(
        256 * _MIB, 'bytes', 'A decoded image or level that is larger goes to a temporary file.')
    reading_large: int = _limit(
        512 * _MIB, 'bytes', 'An image that decodes to less is decoded again when it is needed; '
        'that takes about half a second.')
    reading_kept: int = _limit(
        2 * _GIB, 'bytes', 'A larger decoded image is not kept when only a small level of it is '
        'requested.')
    reading_kept_disk: int = _limit(
        8 * _GIB, 'bytes', 'Decoded images kept for later; a stack has many.')
    reading_associated_side: int = _limit(
        8192, 'pixels', 'Width or height of an associated image; larger ones are reduced.')
    reading_text: int = _limit(
        100_000, 'characters', 'A text of the internal metadata; longer ones are cut.')
    reading_items: int = _limit(
        1000, 'items', 'A list of the internal metadata; longer ones are cut.')
    reading_described_frames: int = _limit(
        10_000, 'frames', 'Frames that the internal metadata describe one by one.')

    reading_frame_texts: int = _limit(
        16 * _MIB, 'bytes', 'The descriptions of all frames in the internal metadata; further '
        'ones are left out.')
    reading_profiles: int = _limit(
        64 * _MIB, 'bytes', 'All different ICC profiles of a file; a large one has 4 MB.')
    reading_message: int = _limit(
        1 << 16, 'bytes', 'Error output of a process that decodes; the end is kept.')
    reading_png_chunks: int = _limit(
        1000, 'chunks', 'Of a PNG file before its pixels; ends the search in a damaged file.')

    # regions
    regions_kept: int = _limit(
        4 * _MIB, 'bytes', 'A region, and a stored tile, that leaves its decoded tiles in the '
        'cache of large_image, which counts tiles of 512 KiB.')

    # girder
    girder_files: int = _limit(
        1000, 'documents', "Documents of Girder's files kept for a second; a server shows fewer "
        'images at a time.')

    # sink
    sink_side: int = _limit(
        10_000_000, 'pixels', 'Width or height; that of libvips 8.14 (VIPS_MAX_COORD).')
    sink_pool: int = _limit(
        64 * _MIB, 'bytes', 'Blocks in memory; all others are in the spool file.')
    sink_pinned_blocks: int = _limit(
        64, 'blocks', 'Blocks changed in memory by one tile; a tile over more is written to the '
        'spool block by block.')
    sink_open_logs: int = _limit(
        16, 'files', 'Logs of a shared spool open for reading; a killed process leaves one.')
    sink_received: int = _limit(
        4, 'images', 'Images with a shared spool that a worker keeps open between tasks.')
    sink_recent_tiles: int = _limit(
        32 * _MIB, 'bytes', 'Tiles of a log kept in memory while the blocks under them are made; '
        'the newest is always kept.')
    sink_window: int = _limit(
        8 * _MIB, 'bytes', 'Weights of a tile under feather that are kept for the next tile of '
        'the same size, for 4 sizes; those of larger tiles are computed anew.')
    sink_reserved: int = _limit(
        64 * _MIB, 'bytes', 'Disk space that the spool file reserves ahead, a quarter of its '
        'size otherwise.')

    # writing
    writing_threads: int = _limit(
        8, 'threads', 'Threads that compress the tiles of a file; never more than there are '
        'processors.  Each holds a branch of the pyramid.')
    writing_tile: int = _limit(
        2048, 'pixels', 'Width and height of a written tile; a branch holds some of them in '
        'memory.')


LIMITS = Limits()
