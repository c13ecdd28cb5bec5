"""
Decode the compressed bytes of tiles and strips.
"""
