"""One archive and one running service for all end-to-end tests that need no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from servers import SCENE_SEED, Served, serving

from segserve import imaging
from segserve.torchserve.archive import build_archive
from segserve.training.scenes import Scene, make_scene


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are e2e."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the archive of the demo weights."""
    folder = tmp_path_factory.mktemp("model_store")
    build_archive("grounded_sam", servers.DEMO_WEIGHTS, folder)
    return folder


@pytest.fixture(scope="session")
def served(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service of one worker that takes up to four images at once."""
    with serving(tmp_path_factory.mktemp("served"), store, workers=1, batch_size=4, batch_delay_ms=200) as service:
        yield service


@pytest.fixture(scope="session")
def scene() -> Scene:
    """A scene of a seed that is never trained on."""
    return make_scene(SCENE_SEED)


@pytest.fixture(scope="session")
def scene_png(scene: Scene) -> bytes:
    """Its picture as a PNG file."""
    return imaging.encode(scene.image)
