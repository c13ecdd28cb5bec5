"""
TIFF as bytes: no libvips, no large_image.
"""
