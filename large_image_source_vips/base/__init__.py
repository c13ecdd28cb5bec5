"""
What everything else is built on: no files of images, no sinks, no TIFF.
"""
