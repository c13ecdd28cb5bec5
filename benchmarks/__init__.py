"""
How fast this package is, beside bare libvips and the released package.

``python -m benchmarks`` measures and prints one table; ``--help`` tells the
rest.  The modules:

:cases: what is measured, and what must come out.
:figures: from measured times to one row of the table.
:data: the files that are read, made once.
:runner: starts one process for each measurement, contenders in turn.
:peer: an environment with the released packages.
:worker, tasks: what runs in such a process, also in that of the peer; they
    need numpy, large_image and pyvips but not this package.
"""
