"""
The size of modules, the imports of tests, and the documentation of the structure.

The contracts of import-linter say what a module may import (``pyproject.toml``).
"""

import ast
import pathlib
import re

import pytest

TESTS = pathlib.Path(__file__).parent
PACKAGE = TESTS.parent / 'large_image_source_vips'
# The wings, each with those that its modules import; ``base`` is imported by all.
WINGS = {'tiff': set(), 'codecs': set(), 'reading': {'tiff', 'codecs'}, 'sink': set(),
         'writing': {'tiff', 'codecs'}}

needs_source = pytest.mark.skipif(not PACKAGE.is_dir(), reason='no source beside the tests')


def trees(folder, pattern):
    for path in sorted(folder.rglob(pattern)):
        text = path.read_text('utf-8')
        yield path.relative_to(folder), text, ast.parse(text)


def length(function):
    """The lines of a function without those of its docstring."""
    first, lines = function.body[0], function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def imported_wings(tree):
    """The wings of which a module of tests imports something."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split('.')[1] for name in names if name.startswith(f'{PACKAGE.name}.')}
    return found & WINGS.keys()


@needs_source
def test_modules_are_at_most_400_lines():
    lines = {str(path): text.count('\n') for path, text, _ in trees(PACKAGE, '*.py')}
    assert {path: count for path, count in lines.items() if count > 400} == {}


@needs_source
def test_functions_are_at_most_60_lines():
    lengths = {f'{path}: {node.name}': length(node) for path, _, tree in trees(PACKAGE, '*.py')
               for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert {name: count for name, count in lengths.items() if count > 60} == {}


@needs_source
def test_the_docstring_of_a_module_begins_with_what_it_does():
    """Not with a question word, a pronoun, or the name of something personified."""
    wrong = re.compile(r'(what|which|how|where|when|who|whether|it|this|that)\b', re.IGNORECASE)
    found = {}
    for path, _, tree in trees(PACKAGE, '*.py'):
        first = (ast.get_docstring(tree) or '').partition('\n')[0]
        if not first or wrong.match(first):
            found[str(path)] = first
    assert found == {}


@needs_source
def test_the_design_page_names_every_module_on_two_pages():
    text = (TESTS.parent / 'docs' / 'design.rst').read_text('utf-8')
    tree = text.partition('::\n')[2].partition('\nTo add')[0]
    named = set(re.findall(r'\b[a-z_0-9]+\b', tree))
    modules = {path.stem for path, _, _ in trees(PACKAGE, '*.py')
               if path.stem != '__init__' and path.parts[0] != 'command_line'}
    assert modules - named == set()
    assert len(text.splitlines()) <= 130, 'two printed pages'


@needs_source
def test_one_module_distinguishes_files_from_canvases():
    kinds = {'Canvas', 'FileReader', 'Picture', 'PixelStore', 'SpooledCanvas'}
    found = {str(path) for path, _, tree in trees(PACKAGE, '*.py') for node in ast.walk(tree)
             if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'isinstance'
             and kinds & {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}}
    assert found == {'opening.py'}


def test_tests_reach_into_one_wing():
    strays = {}
    for path, _, tree in trees(TESTS, 'test_*.py'):
        wing = path.parts[0] if path.parts[0] in WINGS else None
        others = imported_wings(tree) - {wing}
        if others - WINGS[wing] if wing else len(others) > 1:
            strays[str(path)] = others
    assert strays == {}
