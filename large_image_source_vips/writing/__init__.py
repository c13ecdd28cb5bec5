"""
Write a ``Picture`` to a file: TIFF pyramids, and the formats of libvips' savers.
"""
