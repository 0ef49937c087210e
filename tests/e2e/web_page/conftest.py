"""One service with every demo model, one browser, and a fresh page for each test that watches what it does."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
import uvicorn
from playwright.sync_api import Browser, sync_playwright
from servers import ROOT, SCENE_SEED, Served, serving

from segserve import imaging
from segserve.config import Settings
from segserve.gateway.app import create_app
from segserve.gateway.server import build_server
from segserve.masks import Mask
from segserve.torchserve.archive import build_archive, find_archives
from segserve.torchserve.ports import free_ports
from segserve.training.scenes import CATEGORIES, Scene, make_scene
from web_page.segmenting_page import SegmentingPage

MODELS = ("grounded_sam", "mask_rcnn", "sam2", "semantic")
PICTURES = ROOT / "build" / "screenshots"
"""Git-ignored; CI keeps it as an artefact."""

_READY_S = 30

_LAUNCH = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
"""A container has neither user namespaces for the sandbox, nor a large /dev/shm, nor a GPU."""


@pytest.fixture(scope="package")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with all demo models."""
    folder = tmp_path_factory.mktemp("page_store")
    for model in MODELS:
        build_archive(model, ROOT / "weights" / "demo" / model, folder)
    return folder


@pytest.fixture(scope="package")
def demo(demo_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with them, one worker each."""
    with serving(tmp_path_factory.mktemp("page_served"), demo_store, models=MODELS, workers=1) as service:
        yield service


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; without one, Playwright's own, which says how to install it when it is missing too."""
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=next(found, None), args=_LAUNCH)
        yield chromium
        chromium.close()


OpenPage = Callable[..., SegmentingPage]


@pytest.fixture
def open_page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    """Opens the page of a gateway's address in a context of its own. options: of the context, e.g. viewport.

    When the test ends, each page must have kept the rules of `WatchedPage.check`; its last look is kept as a picture.
    """
    opened: list[SegmentingPage] = []
    with contextlib.ExitStack() as stack:

        def open_one(url: str, path: str = "/", **options: object) -> SegmentingPage:
            chosen = {"viewport": {"width": 1280, "height": 900}, "accept_downloads": True, **options}
            context = stack.enter_context(contextlib.closing(browser.new_context(**chosen)))
            context.set_default_timeout(20_000)
            page = SegmentingPage(context.new_page(), url)
            opened.append(page)
            page.open(path)
            return page

        yield open_one
        name = re.sub(r"[^\w.-]+", "_", request.node.name)
        for number, page in enumerate(opened):
            page.screenshot(PICTURES / f"{name}{f'_{number}' if number else ''}.png")
        for page in opened:
            page.check()


@pytest.fixture
def page(open_page: OpenPage, demo: Served) -> SegmentingPage:
    """The page of the demo service, on a desktop's screen."""
    return open_page(demo.url)


@dataclass(frozen=True)
class Room:
    """A scene that no model was trained on, and its picture's file."""

    scene: Scene
    file: Path

    @property
    def floor(self) -> Mask:
        """Where its floor is."""
        return np.asarray(self.scene.semantic == CATEGORIES.index("floor"))


@pytest.fixture(scope="package")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """A bedroom: 480 x 640 pixels, with a floor, walls, a door, a bed, a picture and a table."""
    scene = make_scene(SCENE_SEED)
    file = tmp_path_factory.mktemp("rooms") / "room.png"
    file.write_bytes(imaging.encode(scene.image))
    return Room(scene, file)


OpenGateway = Callable[..., str]


@pytest.fixture
def open_gateway(demo: Served, demo_store: Path) -> Iterator[OpenGateway]:
    """Runs another gateway in front of the demo's TorchServe, in a thread; returns its URL. settings: of Settings."""
    with contextlib.ExitStack() as stack:

        def open_one(**settings: object) -> str:
            (port,) = free_ports(1)
            known = {archive.name: archive.about for archive in find_archives(demo_store, MODELS)}
            chosen = Settings(models=MODELS, torchserve=demo.address, archives=known, port=port, **settings)
            url = f"http://127.0.0.1:{port}"
            stack.enter_context(_running(build_server(create_app(chosen), chosen), url))
            return url

        yield open_one


@contextlib.contextmanager
def _running(server: uvicorn.Server, url: str) -> Iterator[None]:
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        _wait_until_ready(url)
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the gateway at {url} is not ready after {_READY_S} s")
