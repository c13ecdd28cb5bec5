"""
The notebooks of the documentation run, and are stored as executed.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / 'docs' / 'notebooks').glob('*.ipynb'))
_LACKING = [name for name in ('nbclient', 'nbformat', 'ipykernel', 'skimage')
            if not importlib.util.find_spec(name)]


def cells(path):
    """The cells of code, and the source of each."""
    found = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [(cell, ''.join(cell['source'])) for cell in found if cell['cell_type'] == 'code']


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebook_ran_from_top_to_bottom(path):
    counts = [cell['execution_count'] for cell, _ in cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell, _ in cells(path) for output in cell['outputs']]
    assert not [output for output in outputs if output['output_type'] == 'error']
    assert any('text/html' in output.get('data', {}) for output in outputs)
    assert path.stat().st_size < 500_000


@pytest.mark.skipif(
    bool(_LACKING), reason=f'not installed: {", ".join(_LACKING)} (see `tox -e notebook`)')
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
    monkeypatch.setenv('JUPYTER_RUNTIME_DIR', str(tmp_path / 'runtime'))
    notebook = nbformat.read(path, 4)
    # A cell that fails is an error here, with what it printed.
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name='python3',
        resources={'metadata': {'path': str(tmp_path)}}).execute()
