"""
Read image files: frames, levels, tiles and metadata, as a ``PixelStore``.
"""
