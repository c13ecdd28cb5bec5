"""
Helpers for tests: ``from helpers.sink import make_sink``.

Pytest imports each file of tests under a name of its own that other processes do not
know.  What a test hands to a process that is spawned has to be defined here
(``helpers.processes``).
"""
