"""
Decode and encode the compressed bytes of tiles and strips.
"""
