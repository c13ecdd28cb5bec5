"""
Patches that are put together, as a store of pixels.
"""
