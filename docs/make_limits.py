"""
Make ``limits.rst`` from the table of limits.

``python docs/make_limits.py`` writes the page anew.
"""

import dataclasses
import pathlib

from large_image_source_vips.base.limits import LIMITS

PAGE = pathlib.Path(__file__).resolve().with_name('limits.rst')

INTRODUCTION = """\
Limits
======

All fixed limits of the package, as ``docs/make_limits.py`` lists them from
``large_image_source_vips/base/limits.py``.  They bound memory, disk space and
open files, and refuse files whose headers claim more than any real file has.
The first word of a name is the part of the package that keeps the limit.
Limits of memory and disk hold for the whole process, those of ``sink`` for one
image.

"""

UNITS = {30: 'GiB', 20: 'MiB', 10: 'KiB'}


def amount(value, unit):
    """A value with its unit; bytes in the largest binary unit that divides them."""
    if unit == 'bytes':
        for bits, name in UNITS.items():
            if value % (1 << bits) == 0:
                return f'{value >> bits:,} {name}'
    return f'{value:,} {unit}'


def page(limits=LIMITS):
    """The text of the page."""
    rows = [('Limit', 'Value', 'Reason')]
    rows.extend((f'``{field.name}``',
                 amount(getattr(limits, field.name), field.metadata['unit']),
                 field.metadata['reason']) for field in dataclasses.fields(limits))
    lines = ['.. list-table::', '   :header-rows: 1', '   :widths: 25 20 55', '']
    for row in rows:
        lines.extend(f'   {"  -" if column else "* -"} {cell}' for column, cell in enumerate(row))
    return INTRODUCTION + '\n'.join(lines) + '\n'


if __name__ == '__main__':
    PAGE.write_text(page())
