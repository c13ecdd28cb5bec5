"""
The compressed bytes of one tile, and its samples.
"""
