"""
Collect added tiles in an image: the ``PixelStore`` of a sink.
"""
