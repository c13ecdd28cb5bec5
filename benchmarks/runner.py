"""
Runs each measurement in its own process, contenders in turn, and collects reports.

This module and its imports are kept small: a child process inherits the peak memory
of its parent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cases import Case, Run
from .figures import Growth, Report, Reports, Row, steady

# How often the open files of a worker are counted, in seconds.
LOOK_EVERY = 0.02

# The version to compare with; any other is an error.
PEER_VERSION = '1.35.6'

ROOT = Path(__file__).resolve().parent.parent


class WorkerError(Exception):
    """A measurement failed."""


@dataclass
class Runner:
    """
    Runs cases.

    :param pythons: contender -> the Python of its environment.  Contenders that
        are missing are not measured, and figures that need them are left out.
    :param folder: the folder for data, spools and outputs.
    :param verbose: whether to report progress.
    """

    pythons: Mapping[str, str]
    folder: Path
    verbose: bool = True

    def run(self, case: Case, rounds: int | None = None) -> tuple[list[Row], list[str]]:
        """
        Measure a case.

        :param case: the case.
        :param rounds: the number of rounds; None for that of the case.
        :returns: the rows of the table, and descriptions of outputs that differ.
        """
        runs = {label: run for label, run in case.runs.items()
                if contender(label) in self.pythons}
        for run in runs.values():
            self.prepare(run)
        reports: dict[str, list[Report]] = {label: [] for label in runs}
        for number in range(rounds or case.rounds):
            for label in turned(list(runs), number):
                if number == 0 or not runs[label].once:
                    self.say(f'{case.name}: {label}, round {number + 1}')
                    reports[label].append(self.work(contender(label), runs[label]))
        return rows(case, reports), differences(case, reports)

    def prepare(self, run: Run) -> None:
        """Make the files of a run, and read them into the system's cache."""
        for kind, size in run.files:
            if not (self.folder / file_name(kind, size)).exists():
                self.say(f'making {file_name(kind, size)}')
                self.work('ours', Run('make', {
                    'folder': str(self.folder), 'kind': kind, 'size': size}))
            with open(self.folder / file_name(kind, size), 'rb') as file:
                while file.read(1 << 20):
                    pass

    def work(self, who: str, run: Run) -> Report:
        """
        Run one job in its own process.

        :param who: the contender.
        :param run: the job.
        :returns: its report, with the largest number of open files under 'facts'.
        :raises WorkerError: if it fails.
        """
        params = dict(run.params)
        paths = [str(self.folder / file_name(*file)) for file in run.files]
        if paths:
            params['path'] = paths[0]
        if len(paths) > 1:
            params['others'] = paths[1:]
        job = json.dumps({'contender': who, 'task': run.task, 'params': params})
        with tempfile.TemporaryDirectory(prefix='work-', dir=self.folder) as scratch:
            worker = subprocess.Popen(
                [self.pythons[who], '-m', 'benchmarks.worker'], cwd=ROOT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=environment(who, scratch))
            try:
                with counted_files(worker.pid) as most_files:
                    out, errors = worker.communicate(job)
            finally:
                # Do not leave it running if this process is interrupted.
                worker.kill()
        if worker.returncode:
            last = '\n'.join(errors.strip().splitlines()[-12:])
            msg = f'{who}, {run.task} {dict(run.params)} ended with {worker.returncode}:\n{last}'
            raise WorkerError(msg)
        report: dict[str, Any] = json.loads(out)
        if most_files:
            report['facts']['files'] = max(most_files)
        check_version(who, report['versions'])
        return report

    def say(self, text: str) -> None:
        """Report progress."""
        if self.verbose:
            print(text, file=sys.stderr, flush=True)


def environment(who: str, scratch: str) -> dict[str, str]:
    """
    The environment variables of a worker.

    :param who: the contender.
    :param scratch: the folder for its spools and outputs.
    """
    variables = {**os.environ, 'TMPDIR': scratch, 'PYTHONDONTWRITEBYTECODE': '1'}
    if who in {'peer', 'tiff'}:
        # It may contain this package.
        variables.pop('PYTHONPATH', None)
    return variables


def contender(label: str) -> str:
    """The contender of a label."""
    return label.partition(' ')[0]


def file_name(kind: str, size: int) -> str:
    """The same as ``data.file_name``, without the imports of that module."""
    return f'{kind}-{size}{".jpg" if kind == "photo" else ".tif"}'


def turned(labels: list[str], number: int) -> list[str]:
    """The labels in a different order each round, so that no contender is always first."""
    first = number % len(labels)
    return labels[first:] + labels[:first]


def check_version(who: str, versions: Mapping[str, str]) -> None:
    """
    Check that the intended package was measured.

    :raises WorkerError: if it was another one.
    """
    origin = versions.get('from')
    if origin is None:
        return
    in_tree = Path(origin).resolve().parent.parent == ROOT
    version = versions.get('large-image-source-vips', 'no version')
    if (who == 'ours') != in_tree or (who != 'ours' and version != PEER_VERSION):
        msg = f'{who} was measured with the wrong package: {version} from {origin}'
        raise WorkerError(msg)


class counted_files:  # noqa: N801 - used as a function, as contextlib's are
    """
    Count the open files of a process periodically while a block runs.

    :param pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self._folder = f'/proc/{pid}/fd'
        self._over = threading.Event()
        self._counts: list[int] = []
        self._thread = threading.Thread(target=self._count, daemon=True)

    def _count(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            # The process has ended, or the system has no such folder.
            with suppress(OSError):
                self._counts.append(len(os.listdir(self._folder)))

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self._counts

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()


def rows(case: Case, reports: Reports) -> list[Row]:
    """The rows of the table for which all runs were made."""
    def complete(figure: Any) -> bool:
        labels = [getattr(figure, name) for name in ('of', 'by', 'label', 'ours', 'other')
                  if hasattr(figure, name)]
        if isinstance(figure, Growth):
            labels += [*figure.many, *figure.few]
        return all(label in reports for label in labels)

    return [figure.row(reports) for figure in case.figures if complete(figure)]


def differences(case: Case, reports: Reports) -> list[str]:
    """Describe outputs that differ but should not."""
    def found() -> Iterator[str]:
        for label, of_label in reports.items():
            yield from steady(label, of_label)
        for same in case.same:
            if same.one in reports and same.other in reports:
                yield from same.differences(reports)

    return [f'{case.name}: {text}' for text in found()]
