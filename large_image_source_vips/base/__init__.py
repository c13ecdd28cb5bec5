"""
Formats, geometry, reducing pixels, files, threads and limits, used by all other parts of
the package.
"""
