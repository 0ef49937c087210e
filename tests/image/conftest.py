"""The image, built once, and containers of it. `make image-test` runs these tests; the ordinary suite does not, since
a build loads gigabytes: their files are called image_*.py.

TEST_IMAGE in the environment names an image that is there already, and nothing is built.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from build_inputs import DEFAULT_BASE, pip_options, provide_base, torch_index
from engine import Container, Engine

from segserve.torchserve.archive import build_archive
from segserve.training.scenes import Scene, make_scene

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "image-test"
TAG = "segserve:test"
SCENE_SEED = 600_000_001
"""Never trained on."""

_log = logging.getLogger("image-test")


@pytest.fixture(scope="session")
def figures() -> Iterator[dict[str, Any]]:
    """What was measured; kept in build/image-test/figures.json."""
    found: dict[str, Any] = {}
    yield found
    (FOLDER / "figures.json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Docker or podman."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    return Engine.find()


@pytest.fixture(scope="session")
def image(engine: Engine, figures: dict[str, Any]) -> str:
    """The image of this working tree, for CPUs."""
    given = os.environ.get("TEST_IMAGE")
    if given:
        engine.settle(given, FOLDER)
        return given
    base = os.environ.get("BASE", DEFAULT_BASE)
    _log.info("the base image %s", base)
    provide_base(engine, base, FOLDER)
    engine.settle(base, FOLDER)
    log = FOLDER / "build.log"
    log.unlink(missing_ok=True)
    index = torch_index()
    _log.info("building %s (torch from %s); log: %s", TAG, index or "the usual package index", log)
    started = time.monotonic()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    arguments = {"BASE": base, "TORCH_INDEX": index, "REVISION": commit.stdout.strip() or "unknown"}
    options = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    # The base is here: where it was made of packages, no registry has the same one.
    pull = ["--pull=never"] if engine.is_podman else []
    engine.build([*options, *pull, *pip_options(engine, FOLDER), "--tag", TAG], ROOT, log)
    figures["build_s"] = round(time.monotonic() - started)
    figures["torch_index"] = index
    return TAG


@pytest.fixture(scope="session")
def start(engine: Engine, image: str) -> Iterator[Callable[..., Container]]:
    """Starts containers, and ends all of them; their logs are kept in build/image-test."""
    containers: list[Container] = []

    def start_one(*arguments: str, **options: Any) -> Container:
        container = engine.start(image, *arguments, **options)
        containers.append(container)
        _log.info("started %s", container.name)
        return container

    yield start_one
    for container in containers:
        (FOLDER / f"{container.name}.log").write_text(container.logs(), "utf-8")
        container.remove()


@pytest.fixture(scope="session")
def scene() -> Scene:
    """A generated room and its truth."""
    return make_scene(SCENE_SEED)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What SageMaker unpacks of a model.tar.gz: one archive, under a name that none of the image's has."""
    folder = tmp_path_factory.mktemp("artifacts")
    build_archive("semantic", ROOT / "weights" / "demo" / "semantic", folder, name="rooms")
    # Readable by the container's user, as SageMaker's own folder is; pytest's are for this user alone.
    for place in (folder, *folder.parents[:2]):
        place.chmod(0o755)
    return folder
