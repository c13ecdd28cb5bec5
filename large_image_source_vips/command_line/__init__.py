"""
The command line: ``python -m large_image_source_vips`` and ``large-image-vips``.

One module for each kind of command.  They use the public face of the package only, so
they also show how it is used.
"""
