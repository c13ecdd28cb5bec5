"""
The pixel store of a sink: an image made of added tiles.
"""
