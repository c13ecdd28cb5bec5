"""
The command line: ``python -m large_image_source_vips`` and ``large-image-vips``.

There is one module for each kind of command.  They use only the public API of the package,
so they also show how to use it.
"""
