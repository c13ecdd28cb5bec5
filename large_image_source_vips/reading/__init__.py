"""
A file that is read, as a store of pixels.
"""
