"""
Run the notebooks of the documentation, and store them with what they print.

``python docs/run_notebooks.py [notebooks]`` needs what ``tox -e notebook`` installs.
Maps are left out: a page shows nothing of them.
"""

import os
import pathlib
import re
import sys
import tempfile

import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).resolve().parent / 'notebooks'
# Without ipyleaflet a source is a thumbnail and a table.
_NO_MAPS = "import sys\nsys.modules['ipyleaflet'] = None\n"
# Of temporary folders only the names of the files are stored.
_FOLDER = re.compile(r'(?:[A-Za-z]:)?[\w./\\-]*[/\\]tmp\w+[/\\]')


def run(path, folder):
    """
    Run a notebook in place.

    :param path: the notebook.
    :param folder: where it runs.
    """
    notebook = nbformat.read(path, 4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name='python3',
                            resources={'metadata': {'path': str(folder)}}).execute()
    for cell in notebook.cells:
        # When a cell ran says nothing to a reader.
        cell.metadata.pop('execution', None)
        for output in cell.get('outputs', ()):
            shorten(output.get('data', {}))
    notebook.metadata.language_info.pop('version', None)
    nbformat.write(notebook, path)


def shorten(data):
    """Store pictures once, and no temporary folder."""
    if 'image/jpeg' in data or 'text/html' in data:
        data.pop('image/png', None)
    for kind, text in data.items():
        if kind.startswith('text/') and isinstance(text, str):
            data[kind] = _FOLDER.sub('', text)


def main():
    """Run the notebooks that are named, or all."""
    paths = [pathlib.Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob('*.ipynb'))
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / 'sitecustomize.py').write_text(_NO_MAPS, encoding='utf-8')
        os.environ['PYTHONPATH'] = os.pathsep.join(
            [folder, *filter(None, [os.environ.get('PYTHONPATH')])])
        for path in paths:
            run(path, folder)


if __name__ == '__main__':
    main()
