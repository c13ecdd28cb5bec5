"""
A Girder server for tests, with its own database, and clients for it.

Everything listens on the loopback interface alone, on ports that were free, and
keeps its files in a temporary folder.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest
import requests

# How long a service may take to come up or to go, in seconds.  Generous: it is
# waited out only where something is broken.
_PATIENCE = 120
_HERE = '127.0.0.1'
_PASSWORD = 'correct horse'

GIRDER_LINE = int(importlib.metadata.version('girder').partition('.')[0])

FILESYSTEM, GRIDFS = 0, 1


def program(name):
    """A program that was installed into this Python, or None."""
    path = pathlib.Path(sys.executable).with_name(name)
    return str(path) if path.exists() else None


def free_port():
    with socket.socket() as probe:
        probe.bind((_HERE, 0))
        return probe.getsockname()[1]


def wait_until(ready, what, process=None, log=None):
    """
    Ask again and again until something is so.

    :param ready: called without arguments; what it returns is returned, once
        that is true.
    :param what: what is waited for, for the error.
    :param process: it is an error if this ends meanwhile.
    :param log: a file whose end explains an error.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        answer = ready()
        if answer:
            return answer
        died = process is not None and process.poll() is not None
        if died or time.monotonic() > deadline:
            text = log.read_text(errors='replace')[-4000:] if log else ''
            reason = f'ended with {process.returncode}' if died else 'took too long'
            msg = f'{what} {reason}\n{text}'
            raise RuntimeError(msg)
        time.sleep(0.05)


class Service:
    """
    A process that goes on until it is stopped.

    :param folder: for its log.
    :param name: of the log.
    :param command: what to run.
    :param ready: called without arguments; true when the service is up.
    :param environment: variables besides those of this process.
    """

    def __init__(self, folder, name, command, ready, environment=None):
        self.log = folder / f'{name}.log'
        with self.log.open('wb') as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd=folder, env={**os.environ, **(environment or {})})
        try:
            wait_until(ready, name, self.process, self.log)
        except BaseException:
            self.stop()
            raise

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


def _accepts(port):
    try:
        socket.create_connection((_HERE, port), 1).close()
    except OSError:
        return False
    return True


class Database(Service):
    """
    A server that speaks MongoDB's protocol, with nothing in it.

    :param folder: for its log.
    """

    def __init__(self, folder):
        port = free_port()
        self.address = f'mongodb://{_HERE}:{port}'
        super().__init__(folder, 'database', [
            program('secantusd-py'), '--host', _HERE, '--port', str(port), '--standalone',
            '--storage-path', ':memory:', '--cache-size', '128M', '--log-level', 'WARNING',
        ], lambda: _accepts(port))


def redis_server(folder):
    """A server of Redis, through which Girder 5 tells its web clients of events."""
    port = free_port()
    redis = Service(folder, 'redis', [
        'redis-server', '--bind', _HERE, '--port', str(port), '--save', '', '--dir', str(folder),
    ], lambda: _accepts(port))
    redis.address = f'redis://{_HERE}:{port}'
    return redis


class Client:
    """
    A user of a Girder, or nobody.

    :param url: of the API.
    """

    def __init__(self, url):
        self.url = url
        self.http = requests.Session()
        self.http.trust_env = False
        self.token = None

    def request(self, method, path, parameters=None, **kwargs):
        # Booleans as in JSON, structures as JSON.
        parameters = {key: value if isinstance(value, (str, int, float)) and value is not True
                      and value is not False else json.dumps(value)
                      for key, value in (parameters or {}).items()}
        return self.http.request(
            method, f'{self.url}/{path}', params=parameters, timeout=_PATIENCE, **kwargs)

    def get(self, path, headers=None, **parameters):
        return self.request('GET', path, parameters, headers=headers)

    def _result(self, method, path, parameters, **kwargs):
        response = self.request(method, path, parameters, **kwargs)
        assert response.ok, f'{method} {path}: {response.status_code} {response.text}'
        return response.json() if 'json' in response.headers['Content-Type'] else response.content

    def read(self, path, **parameters):
        """The contents of what must be there: from JSON, or bytes."""
        return self._result('GET', path, parameters)

    def post(self, path, data=None, **parameters):
        return self._result('POST', path, parameters, data=data)

    def put(self, path, data=None, **parameters):
        return self._result('PUT', path, parameters, data=data)

    def delete(self, path, **parameters):
        return self._result('DELETE', path, parameters)

    def log_in(self, name):
        """Become a user, who is created; the first one is the administrator."""
        user = self.post('user', login=name, email=f'{name}@example.com', password=_PASSWORD,
                         firstName=name, lastName=name)
        answer = self.http.get(f'{self.url}/user/authentication', auth=(name, _PASSWORD),
                               timeout=_PATIENCE)
        self.token = answer.json()['authToken']['token']
        self.http.headers['Girder-Token'] = self.token
        return user

    def new_folder(self, name='folder', public=False):
        """The id of a new folder in a new collection."""
        collection = self.post('collection', name=f'collection {time.monotonic_ns()}',
                               public=public)
        return self.post('folder', parentType='collection', parentId=collection['_id'], name=name,
                         public=public)['_id']

    def upload(self, parent, name, data, parent_type='folder', **parameters):
        """
        Upload a file as the web client does.

        :param parent: the id of a folder or an item.
        :param data: bytes.
        :returns: the document of the file.
        """
        parameters.setdefault('mimeType', '')
        upload = self.post('file', parentType=parent_type, parentId=parent, name=name,
                           size=len(data), **parameters)
        return self._send(upload, data)

    def replace(self, file, data):
        """Give a file other contents."""
        return self._send(self.put(f'file/{file}/contents', size=len(data)), data)

    def _send(self, upload, data):
        return self.post('file/chunk', data, uploadId=upload['_id'], offset=0)

    def item(self, item):
        return self.read(f'item/{item}')


class Girder(Service):
    """
    A server with an administrator and a place for files.

    :param folder: for its files.
    :param database: the ``Database``.
    :param name: of the database in it; two servers of one name share all.
    :param settings: of large_image, by their names.
    """

    def __init__(self, folder, database, name='girder', **settings):
        self.folder = folder
        self.port = free_port()
        self.site = f'http://{_HERE}:{self.port}'
        self.url = f'{self.site}/api/v1'
        self.mongo = database.address
        self.database = f'{database.address}/{name}'
        self.environment = {
            'HOME': str(folder),
            'GIRDER_CONFIG': str(folder / 'girder.cfg'),
            'GIRDER_MONGO_URI': self.database,
            # Girder 5 leaves imports to workers; this makes the server do them.
            'GIRDER_WORKER_TASK_ALWAYS_EAGER': 'true',
            **{f'LARGE_IMAGE_{key.upper()}': json.dumps(value) for key, value in settings.items()},
        }
        # In the other modes Girder 5 starts anew whenever a source file changes.
        mode = 'testing' if GIRDER_LINE < 5 else 'production'
        super().__init__(folder, 'girder', [
            program('girder'), 'serve', '--mode', mode, '-H', _HERE, '-p', str(self.port),
            '-d', self.database,
        ], self._is_up, self.environment)
        self.admin = self.client()

    def _is_up(self):
        with contextlib.suppress(requests.ConnectionError):
            return self.client().get('system/version').ok
        return False

    def set_up(self):
        """Create the administrator, and an assetstore in the file system."""
        self.admin.log_in('admin')
        self.root = self.folder / 'assetstore'
        self.assetstore = self.admin.post(
            'assetstore', type=FILESYSTEM, name='files', root=str(self.root))['_id']
        return self

    def client(self):
        """Somebody who is not logged in."""
        return Client(self.url)

    def stored(self, data):
        """Where an upload is on disk."""
        sha = hashlib.sha512(data).hexdigest()
        return self.root / sha[:2] / sha[2:4] / sha

    def new_gridfs(self, name):
        """The id of a new assetstore in the database; a skipped test where there is none."""
        if GIRDER_LINE >= 5:
            pytest.skip('Girder 5 has no GridFS assetstores any more')
        return self.admin.post(
            'assetstore', type=GRIDFS, name=name, db=name, mongohost=self.mongo)['_id']

    def import_folder(self, source, folder):
        """Make the files below a folder on disk items of a folder in Girder."""
        self.admin.post(f'assetstore/{self.assetstore}/import', importPath=str(source),
                        destinationId=folder, destinationType='folder')

    def item_named(self, folder, name):
        """The id of the item of that name in a folder."""
        (item,) = [item for item in self.admin.read('item', folderId=folder, limit=0)
                   if item['name'] == name]
        return item['_id']
