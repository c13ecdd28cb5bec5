"""
A picture, written to a file.
"""
