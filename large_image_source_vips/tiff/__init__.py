"""
Read and write the structures of TIFF files, without libvips or large_image.
"""
