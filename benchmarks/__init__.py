"""
Compares the speed of this package with bare libvips and the released package.

``python -m benchmarks`` measures and prints one table; see ``--help``.  The modules:

:cases: what is measured, and the targets.
:figures: computes the rows of the table from measured times.
:data: makes the files that are read, once.
:runner: runs each measurement in its own process, contenders in turn.
:peer: makes an environment with the released packages.
:worker, tasks: run in such a process, also in the peer's environment; they
    need numpy, large_image and pyvips but not this package.
"""
