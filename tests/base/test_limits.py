"""The table of limits and the page of the documentation made from it."""

import dataclasses
import importlib.util
import pathlib

import pytest

from large_image_source_vips.base.limits import LIMITS

DOCS = pathlib.Path(__file__).resolve().parents[2] / 'docs'
FIELDS = dataclasses.fields(LIMITS)


@pytest.fixture
def make_limits():
    spec = importlib.util.spec_from_file_location('make_limits', DOCS / 'make_limits.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(make_limits):
    assert make_limits.PAGE.read_text() == make_limits.page(), (
        'run python docs/make_limits.py and commit docs/limits.rst')


@pytest.mark.parametrize('field', FIELDS, ids=lambda field: field.name)
def test_every_limit_has_a_unit_and_a_reason(make_limits, field):
    value = getattr(LIMITS, field.name)
    assert type(value) is int
    assert value > 0
    assert field.metadata['unit']
    assert field.metadata['reason'].endswith('.')
    assert field.name in make_limits.page()


def test_limits_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LIMITS.sink_pool = 1


@pytest.mark.parametrize(('value', 'unit', 'expected'), [
    (3 << 30, 'bytes', '3 GiB'), (1536 << 20, 'bytes', '1,536 MiB'), (1 << 16, 'bytes', '64 KiB'),
    (1000, 'bytes', '1,000 bytes'), (10_000_000, 'pixels', '10,000,000 pixels')])
def test_amounts_are_readable(make_limits, value, unit, expected):
    assert make_limits.amount(value, unit) == expected
