"""What the image says of itself, and what is in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from engine import Engine

LARGEST_CPU_IMAGE = 3 * 2**30
LARGEST_CODE_LAYER = 20 * 2**20


@pytest.fixture(scope="module")
def inspected(engine: Engine, image: str) -> dict[str, Any]:
    return engine.inspect(image)


def python(engine: Engine, image: str, code: str) -> str:
    """What a program prints that runs in the image."""
    return engine.run(image, "-c", code, options=engine.hardened, entrypoint="python3").strip()


def test_it_starts_as_sagemaker_starts_it(inspected: dict[str, Any]) -> None:
    config = inspected["Config"]
    assert config["Entrypoint"] == ["segserve"]
    assert config["Cmd"] == ["serve"]
    assert "8080/tcp" in config["ExposedPorts"]
    labels = config["Labels"]
    for capability in ("accept-bind-to-port", "multi-models"):
        assert labels[f"com.amazonaws.sagemaker.capabilities.{capability}"] == "true"
    assert labels["org.opencontainers.image.title"] == "segserve"
    assert len(labels["org.opencontainers.image.revision"]) == 40


def test_it_runs_as_nobody_in_particular_and_checks_its_health(inspected: dict[str, Any]) -> None:
    user, _, group = inspected["Config"]["User"].partition(":")
    assert int(user) > 0 and int(group) > 0
    health = inspected.get("Healthcheck") or inspected["Config"]["Healthcheck"]
    assert health["Test"][0] == "CMD" and "/ping" in health["Test"][-1]


def test_nothing_is_left_of_the_build(engine: Engine, image: str) -> None:
    code = """
import glob, importlib.util, os, shutil
tools = [name for name in ('pip', 'pip3', 'gcc', 'cc', 'g++', 'make', 'git', 'curl', 'wget') if shutil.which(name)]
modules = [name for name in ('pip', 'pytest', 'moto', 'ruff', 'mypy') if importlib.util.find_spec(name)]
places = [path for path in ('/build', '/root/.cache', '/opt/pip', '/opt/package')
          if os.path.exists(path)]
places += glob.glob('/var/lib/apt/lists/*') + glob.glob('/mnt/*') + glob.glob('/run/*.conf') + glob.glob('/etc/pip*')
print(tools, modules, places)
"""
    assert python(engine, image, code) == "[] [] []"


def test_its_user_can_change_nothing_but_the_temporary_folder(engine: Engine, image: str) -> None:
    code = """
import os
found = []
for top in ('/opt', '/usr', '/etc', '/var', '/home', '/srv', '/root'):
    for folder, names, files in os.walk(top):
        for path in [folder, *(os.path.join(folder, name) for name in files)]:
            if not os.path.islink(path) and os.access(path, os.W_OK):
                found.append(path)
print(os.getuid() > 0, sorted(set(found) - {'/var/tmp', '/var/lock', '/run/lock'})[:20])
"""
    # Without --read-only, which would forbid it anyhow.
    assert engine.run(image, "-c", code, entrypoint="python3").strip() == "True []"


def test_the_demo_archives_are_in_it_and_nothing_is_compiled_at_the_start(engine: Engine, image: str) -> None:
    code = """
import glob, importlib.util, os
print(sorted(os.path.basename(path) for path in glob.glob('/opt/segserve/model_store/*')))
spec = importlib.util.find_spec('segserve.cli.serving')
print(os.path.exists(spec.cached), spec.origin.startswith('/opt/venv/'))
"""
    archives, compiled = python(engine, image, code).splitlines()
    assert archives == "['grounded_sam.mar', 'mask_rcnn.mar', 'sam2.mar', 'semantic.mar']"
    assert compiled == "True True"


def test_the_command_line_answers(engine: Engine, image: str) -> None:
    assert "serve the archives of a model store" in engine.run(image, "--help", options=engine.hardened)


def test_a_change_of_the_code_pushes_a_small_layer(
    engine: Engine, image: str, inspected: dict[str, Any], figures: dict[str, Any]
) -> None:
    history = (
        json.loads(engine("history", "--format", "json", image)) if engine.is_podman else _docker_history(engine, image)
    )
    sizes = [int(step["size"]) for step in history]
    figures["image_bytes"] = inspected["Size"]
    figures["layers_bytes"] = [size for size in sizes if size > 2**20]
    (largest,) = [index for index, size in enumerate(sizes) if size == max(sizes)]
    # The newest come first: what lies above the installed packages is segserve itself and its demo archives.
    assert all(size < 64 * 2**20 for size in sizes[:largest])
    flavor = python(engine, image, "import importlib.metadata as m; print(m.version('torch'))")
    figures["torch"] = flavor
    if flavor.endswith("+cpu"):
        assert inspected["Size"] < LARGEST_CPU_IMAGE


def _docker_history(engine: Engine, image: str) -> list[dict[str, Any]]:
    lines = engine("history", "--no-trunc", "--human=false", "--format", "{{.Size}}", image).split()
    return [{"size": line} for line in lines]
