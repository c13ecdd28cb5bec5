"""An item's page in Girder's web client, in a real browser."""

import contextlib
import io
import re
import shutil
import time

import numpy as np
import pytest

pytest.importorskip('girder_large_image', reason='needs Girder (the extra "girder")')
pytest.importorskip('playwright', reason='needs Playwright, which talks to the browser')

import PIL.Image
from playwright.sync_api import sync_playwright

from helpers.girder_images import pyramid_bytes
from helpers.girder_server import GIRDER_LINE, redis_server

SIDE, LEVELS = 4096, 5
QUADRANTS = {(0, 0): (200, 30, 30), (0, 1): (30, 200, 30), (1, 0): (30, 30, 200),
             (1, 1): (200, 200, 30)}
# In the middle of the first quadrant, too small to be seen in the overview.
DETAIL = 64
# Of JPEG, in every band.
TOLERANCE = 12
PATIENCE = 60


def painted_slide():
    """Four colours, with a detail in the first: half white, half black."""
    pixels = np.zeros((SIDE, SIDE, 3), 'uint8')
    half, middle = SIDE // 2, SIDE // 4
    for (row, col), colour in QUADRANTS.items():
        pixels[row * half:(row + 1) * half, col * half:(col + 1) * half] = colour
    rows = slice(middle - DETAIL, middle + DETAIL)
    pixels[rows, middle - DETAIL:middle] = 255
    pixels[rows, middle:middle + DETAIL] = 0
    return pixels


@pytest.fixture(scope='module')
def site(start_girder, tmp_path_factory):
    """A Girder with its web client."""
    if GIRDER_LINE < 5:
        pytest.skip('the packages of Girder before 5 bring no built web client')
    if not shutil.which('redis-server'):
        pytest.skip('needs redis-server, through which Girder notifies its clients')
    redis = redis_server(tmp_path_factory.mktemp('redis'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('GIRDER_NOTIFICATION_REDIS_URL', redis.address)
        yield start_girder('browser')
    redis.stop()


@pytest.fixture(scope='module')
def chromium():
    program = shutil.which('chromium')
    if not program:
        pytest.skip('needs the browser (Debian: chromium)')
    with sync_playwright() as running:
        # There is neither a graphics card nor, for root, a sandbox.
        browser = running.chromium.launch(executable_path=program, args=[
            '--no-sandbox', '--use-gl=swiftshader', '--enable-unsafe-swiftshader'])
        yield browser
        browser.close()


class Viewer:
    """
    The page of an item, and all that went on there.

    :param page: of the browser, still empty.
    :param url: of the item.
    """

    def __init__(self, page, url):
        self.page = page
        self.errors = []
        self.tiles = []
        page.on('console', lambda message: message.type == 'error' and self.errors.append(
            f'{message.text} {message.location}'))
        page.on('pageerror', lambda error: self.errors.append(str(error)))
        page.on('response', self._note)
        page.goto(url)
        self.canvas = page.locator('.geojs-map canvas').first
        self.canvas.wait_for(timeout=PATIENCE * 1000)

    def _note(self, response):
        tile = re.search(r'/tiles/f?zxy/(?:\d+/)?(\d+)/\d+/\d+', response.url)
        if tile:
            self.tiles.append((int(tile[1]), response.status))

    def levels(self):
        return {z for z, _ in self.tiles}

    def point(self, x, y):
        """
        Where a point of the image is in the overview.

        :param x: as a fraction of the image's width; likewise y.
        :returns: pixels from the left and from the top of the canvas.
        """
        box = self.canvas.bounding_box()
        side = min(box['width'], box['height'])
        return ((box['width'] - side) / 2 + x * side, (box['height'] - side) / 2 + y * side)

    def zoom_in(self, x, y):
        """Turn the wheel by a notch over a point of the canvas."""
        box = self.canvas.bounding_box()
        self.page.mouse.move(box['x'] + x, box['y'] + y)
        self.page.mouse.wheel(0, -120)

    def shows(self, colours):
        """
        Whether the canvas has colours at points of it.

        :param colours: by pixels from the left and from the top.
        """
        shot = np.asarray(PIL.Image.open(io.BytesIO(self.canvas.screenshot())).convert('RGB'))
        return all(np.abs(shot[round(y), round(x)].astype(int) - colour).max() <= TOLERANCE
                   for (x, y), colour in colours.items())

    def until(self, ready):
        """Look until something is so; the page goes on meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < deadline, (self.tiles, self.errors)
            self.page.wait_for_timeout(100)


@pytest.mark.parametrize('public', [True, False], ids=['for everybody', 'after logging in'])
def test_a_slide_is_shown_and_zoomed_into(site, chromium, public):
    admin = site.admin
    folder = admin.new_folder(public=public)
    item = admin.upload(folder, 'slide.tif', pyramid_bytes(painted_slide()))['itemId']
    context = chromium.new_context(viewport={'width': 1200, 'height': 1000})
    if not public:
        # As logging in leaves it: one for the program, one for the tiles.
        context.add_init_script(f"localStorage.setItem('girderToken', '{admin.token}')")
        context.add_cookies([{'name': 'girderToken', 'value': admin.token, 'url': site.site}])
    with contextlib.closing(context):
        viewer = Viewer(context.new_page(), f'{site.site}/#item/{item}')

        overview = {viewer.point((col + 0.25) / 2, (row + 0.25) / 2): colour
                    for (row, col), colour in QUADRANTS.items()}
        viewer.until(lambda: viewer.shows(overview))
        assert max(viewer.levels()) < LEVELS - 1

        # The four colours have no such neighbours in the overview.
        x, y = viewer.point(0.25, 0.25)
        detail = {(x - 30, y): (255, 255, 255), (x + 30, y): (0, 0, 0)}
        assert not viewer.shows(detail)

        def zoomed():
            viewer.zoom_in(x, y)
            return viewer.shows(detail)

        viewer.until(zoomed)
        viewer.until(lambda: LEVELS - 1 in viewer.levels())
        assert {status for _, status in viewer.tiles} == {200}
        assert viewer.errors == []


def test_a_private_slide_is_not_shown_to_everybody(site, chromium):
    admin = site.admin
    item = admin.upload(
        admin.new_folder(), 'slide.tif', pyramid_bytes(painted_slide()))['itemId']
    with contextlib.closing(chromium.new_context()) as context:
        page = context.new_page()
        with page.expect_response(re.compile(f'/item/{item}')) as answer:
            page.goto(f'{site.site}/#item/{item}')
        assert answer.value.status == 401
        assert page.locator('.geojs-map').count() == 0
