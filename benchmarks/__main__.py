"""
Run the benchmarks and print one table.

Times are medians, ratios are medians of the ratios of interleaved rounds; each
run has its own process.  The exit status is 1 if outputs differ or a measurement
fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from . import data, peer
from .cases import FULL, QUICK, Case, full_cases, quick_cases
from .figures import Row, table
from .region_cases import LIBRARIES, region_cases
from .runner import Runner, WorkerError
from .writing_cases import writing_cases


def main() -> int:
    """
    Run the selected cases and print the table.

    :returns: the exit status.
    """
    options = parse()
    cases = chosen(options)
    if options.list:
        print('\n'.join(case.name for case in cases))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    pythons = dict.fromkeys(('ours', 'bare', 'tifffile'), sys.executable)
    if not options.no_peer:
        python = str(options.peer_python or peer.make(options.folder))
        pythons |= {'peer': python, 'tiff': python}
    python = str(options.readers_python or sys.executable)
    pythons |= {reader: python for reader in LIBRARIES if has(python, reader)}
    if data.slide() is None:
        print(f'No cases of real histology: {data.SLIDE} is not in the folder that '
              f'{data.IMAGES_VARIABLE} names.', file=sys.stderr)
    cases = [case for case in cases if has_room(case, options.folder)]
    runner = Runner(pythons, options.folder.resolve(), verbose=not options.quiet)

    start = time.monotonic()
    rows: list[Row] = []
    wrong: list[str] = []
    for case in cases:
        try:
            more_rows, more_wrong = runner.run(case, options.rounds)
        except WorkerError as exc:
            # Run the other cases; the failure is reported at the end.
            wrong.append(f'{case.name} FAILED: {exc}')
            continue
        rows += more_rows
        wrong += [f'OUTPUTS DIFFER: {text}' for text in more_wrong]
        if not options.quiet:
            print('\n'.join('    ' + '  '.join(row) for row in more_rows), file=sys.stderr)
    print(table(rows))
    print(f'\n{len(cases)} cases in {time.monotonic() - start:.0f} s')
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in rows], indent=2) + '\n')
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


def chosen(options: argparse.Namespace) -> list[Case]:
    """
    Select the cases to run.

    :raises SystemExit: if a given name is not the name of a case.
    """
    cases = quick_cases() if options.quick else full_cases()
    cases += writing_cases(100 if options.quick else 2500)
    if data.slide() is not None:
        scale = QUICK if options.quick else FULL
        cases += region_cases(scale.side, scale.tiles)
    if not options.case:
        return cases
    unknown = set(options.case) - {case.name for case in cases}
    if unknown:
        msg = f'There is no case {", ".join(sorted(unknown))}; see --list.'
        raise SystemExit(msg)
    return [case for case in cases if case.name in options.case]


def has_room(case: Case, folder: Path) -> bool:
    """Whether the disk has room for a case; says so where it has not."""
    free = shutil.disk_usage(folder).free // 10 ** 9
    if free < case.free_gb:
        print(f'{case.name} is left out: it needs {case.free_gb} GB of free disk space, and '
              f'{folder} has {free}.', file=sys.stderr)
    return free >= case.free_gb


def has(python: str, module: str) -> bool:
    """Whether an environment has a module; says so where it has not."""
    tried = subprocess.run([python, '-c', f'import {module}'], capture_output=True, text=True,
                           check=False)
    if tried.returncode:
        reason = tried.stderr.strip().rpartition('\n')[2]
        print(f'{module} is left out: {reason}', file=sys.stderr)
    return not tried.returncode


def parse() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
    parser.add_argument('--quick', action='store_true',
                        help='small files and few tiles, to check that everything works')
    parser.add_argument('--case', action='append', help='run only this case; may be repeated')
    parser.add_argument('--list', action='store_true', help='list the cases')
    parser.add_argument('--rounds', type=int, help='number of rounds; default: that of each case')
    parser.add_argument('--folder', type=Path, default=Path('build/benchmarks'),
                        help='for data (about 5 GB), spools and outputs; default: %(default)s')
    parser.add_argument('--peer-python', type=Path,
                        help='the Python of an environment with the released packages; '
                             'default: make one in the folder')
    parser.add_argument('--readers-python', type=Path,
                        help='the Python of an environment with pyvips, openslide, cucim and '
                             'fastslide; default: this one')
    parser.add_argument('--no-peer', action='store_true',
                        help='skip what needs the released packages')
    parser.add_argument('--json', type=Path, help='also write the rows of the table to this file')
    parser.add_argument('--quiet', action='store_true', help='print only the table')
    return parser.parse_args()


if __name__ == '__main__':
    sys.exit(main())
