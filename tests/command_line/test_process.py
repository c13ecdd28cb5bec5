"""
The command line as a process: in pipes, in a terminal, interrupted.
"""

import importlib.util
import os
import signal
import subprocess
import sys

import PIL.Image
import pytest
import tifffile

from helpers.command_line import COMMAND, in_pipes, in_terminal, run
from helpers.pixels import random_pixels

needs_a_terminal = pytest.mark.skipif(
    not importlib.util.find_spec('pty') or sys.platform == 'win32', reason='needs a terminal')


@pytest.fixture
def slide(tmp_path):
    tifffile.imwrite(tmp_path / 'in.tif', random_pixels((1500, 1500, 3)), tile=(256, 256),
                     photometric='rgb')
    return tmp_path / 'in.tif'


class TestInPipes:
    def test_nothing_but_the_result(self, slide, tmp_path):
        done = in_pipes('convert', slide, tmp_path / 'a.tif')
        assert (done.status, done.err, len(done.out.splitlines())) == (0, '', 1)

    @pytest.mark.parametrize('arguments', [
        ['info', 'none.tif'], ['convert', 'none.tif', 'a.tif'], ['verify', 'none.tif'],
        ['stitch', '{x}{y}', 'a.tif'], ['thumbnail', 'none.tif', 'a.png'], ['nonsense'], [],
        ['info', '--nonsense', 'a.tif'], ['info', '.']])
    def test_an_error_is_one_sentence(self, tmp_path, arguments):
        done = in_pipes(*arguments, cwd=tmp_path)
        assert (done.status, done.out) == (1, '')
        (line,) = done.err.splitlines()
        assert line.startswith('large-image-vips: ')

    def test_verbose_shows_the_traceback(self, tmp_path):
        done = in_pipes('info', '--verbose', 'none.tif', cwd=tmp_path)
        assert done.status == 1
        assert done.err.startswith('Traceback')
        assert 'No such file' in done.err.splitlines()[-1]

    def test_a_warning_is_one_line(self, tmp_path):
        PIL.Image.new('L', (50, 50)).save(tmp_path / 'a.png')
        done = in_pipes('convert', tmp_path / 'a.png', tmp_path / 'a.tif')
        assert done.status == 0
        (line,) = done.err.splitlines()
        assert line.startswith('large-image-vips: warning: ')
        assert 'labels' in line

    def test_a_closed_pipe_is_no_error(self, slide):
        with subprocess.Popen([*COMMAND, 'info', *[slide] * 200], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b''

    @pytest.mark.parametrize('arguments', [
        [], ['info'], ['convert'], ['thumbnail'], ['tile'], ['region'], ['stitch'], ['verify']])
    def test_help(self, arguments):
        done = in_pipes(*arguments, '--help')
        assert (done.status, done.err) == (0, '')
        assert done.out.startswith('usage: large-image-vips')

    def test_version(self):
        done = in_pipes('--version')
        assert (done.status, done.out.split()[0]) == (0, 'large-image-vips')

    def test_names_that_the_terminal_cannot_show(self, slide, tmp_path):
        try:
            renamed = slide.rename(tmp_path / 'Prä\u0301parat \U0001f52c.tif')
        except (OSError, UnicodeEncodeError):
            pytest.skip('this file system has no such names')
        done = in_pipes('info', renamed, env={**os.environ, 'PYTHONIOENCODING': 'ascii'})
        assert (done.status, done.err) == (0, '')
        assert 'parat \\U0001f52c.tif' in done.out


@needs_a_terminal
class TestInATerminal:
    @pytest.mark.parametrize('arguments', [['convert'], ['verify']])
    @pytest.mark.parametrize('hide', [(), ('tqdm',)], ids=['tqdm', 'without tqdm'])
    def test_progress_ends_complete(self, slide, tmp_path, arguments, hide):
        if not hide:
            pytest.importorskip('tqdm')
        out = [tmp_path / 'a.tif'] * (arguments == ['convert'])
        done = in_terminal(*arguments, slide, *out, hide=hide)
        assert done.status == 0
        last = done.err.replace('\r\n', '\n').split('\r')[-1]
        assert '100' in last
        assert '/s' in last
        # The bar is not in the output.
        assert done.out.count('\n') == 1

    def test_an_error_stays_one_sentence(self, tmp_path):
        done = in_terminal('convert', tmp_path / 'none.tif', tmp_path / 'a.tif')
        assert (done.status, done.err.count('\n')) == (1, 1)


@pytest.mark.skipif(sys.platform == 'win32', reason='needs signals to another process')
@pytest.mark.parametrize(('number', 'status', 'text'), [
    (signal.SIGINT, 130, 'interrupted'), (signal.SIGTERM, 143, 'terminated')])
def test_interrupted(tmp_path, number, status, text):
    """Ctrl-C, or SIGTERM, during a conversion leaves nothing behind, and no traceback."""
    PIL.Image.effect_noise((4000, 4000), 90).save(tmp_path / 'in.png', compress_level=0)
    (tmp_path / 'out').mkdir()
    with subprocess.Popen([*COMMAND, 'convert', tmp_path / 'in.png', tmp_path / 'out' / 'a.tif',
                           '--lossless', '--compression', 'jpeg2000'],
                          stderr=subprocess.PIPE, text=True,
                          # Programs in the background inherit that the signal is ignored.
                          preexec_fn=lambda: signal.signal(  # noqa: PLW1509  (no threads yet)
                              signal.SIGINT, signal.SIG_DFL)) as process:
        # The file is being made as soon as its folder is there; this compression takes seconds.
        while process.poll() is None and not any((tmp_path / 'out').iterdir()):
            pass
        process.send_signal(number)
        _, error = process.communicate()
    assert process.returncode == status
    assert error == f'large-image-vips: {text}\n'
    assert not any((tmp_path / 'out').iterdir())


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_output_to_a_full_disk(slide, unbuffered):
    with open('/dev/full', 'w') as full:
        done = subprocess.run([*COMMAND, 'info', slide], stdout=full, stderr=subprocess.PIPE,
                              text=True, check=False,
                              env=os.environ | {'PYTHONUNBUFFERED': unbuffered})
    assert done.returncode == 1
    assert done.stderr.startswith('large-image-vips: ')
    assert 'No space left on device' in done.stderr
    assert done.stderr.count('\n') == 1


@pytest.mark.skipif(sys.platform == 'win32', reason='needs a shell with pipes')
@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_the_reader_of_the_output_has_ended(slide, unbuffered):
    done = subprocess.run(
        ['bash', '-o', 'pipefail', '-c', '{ sleep 1; "$@"; } | true', 'bash', *COMMAND, 'info',
         slide], capture_output=True, text=True, check=False,
        env=os.environ | {'PYTHONUNBUFFERED': unbuffered})
    assert (done.returncode, done.stderr) == (1, '')


@pytest.mark.skipif(sys.platform == 'win32', reason='needs a shell that closes streams')
@pytest.mark.parametrize('closed', ['>&-', '2>&-'])
def test_closed_streams(slide, closed):
    done = subprocess.run(
        ['sh', '-c', f'"$@" {closed}', 'sh', *COMMAND, 'info', slide],
        capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize('arguments', [['--verbose', 'info'], ['info', '--verbose']])
def test_verbose_may_stand_before_or_after_the_command(tmp_path, capsys, arguments):
    done = run(capsys, *arguments, tmp_path / 'none.tif')
    assert done.status == 1
    assert 'Traceback' in done.err


def test_main_returns_the_status(capsys, slide):
    assert run(capsys, 'info', slide).status == 0
