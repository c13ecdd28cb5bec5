"""
A Girder server for the tests in this folder, started for the first test that needs it.

The helpers need Girder, which the other tests do without, so nothing of it is
imported before a test asks.
"""

import pytest


@pytest.fixture(scope='session')
def database(tmp_path_factory):
    from helpers.girder_server import Database, program

    if not program('secantusd-py'):
        pytest.skip('needs secantusdb, which plays the database')
    database = Database(tmp_path_factory.mktemp('database'))
    yield database
    database.stop()


@pytest.fixture(scope='session')
def start_girder(database, tmp_path_factory):
    """A function that starts a Girder with some settings of large_image."""
    from helpers.girder_server import Girder

    running = []

    def start(name='girder', **settings):
        girder = Girder(tmp_path_factory.mktemp(name), database, name, **settings)
        running.append(girder)
        return girder.set_up()

    yield start
    for girder in running:
        girder.stop()


@pytest.fixture(scope='session')
def girder(start_girder):
    """A Girder as it is installed, all settings at their defaults."""
    return start_girder()


@pytest.fixture(scope='session')
def admin(girder):
    """Its administrator."""
    return girder.admin


@pytest.fixture
def folder(admin):
    """The id of a private folder for one test."""
    return admin.new_folder()
