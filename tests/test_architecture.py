"""Who may import whom. The floors are those of ARCHITECTURE.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "segserve"
SUBPACKAGES = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}

# Which sub-packages of segserve each place may import (the core is allowed everywhere).
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "models": {"models"},
    "gateway": {"gateway"},
    "torchserve": {"torchserve", "models"},
    "handlers": {"torchserve", "models"},
    "training": {"training", "models"},
    "export": {"export", "models"},
    "conformance": {"conformance"},
    "cli": SUBPACKAGES,
}
# Which third-party packages only some places may import.
CONFINED: dict[str, set[str]] = {
    "ts": {"torchserve", "handlers"},
    "torch": {"models", "torchserve", "handlers", "training", "export"},
    "torchvision": {"models", "training", "export"},
    "transformers": {"models", "training", "export"},
    "fastapi": {"gateway"},
    "httpx2": {"gateway"},
    "orjson": {"gateway"},
    "openai": {"gateway"},
    "matplotlib": {"training", "export"},
    "onnx": {"models", "export"},
    "onnxruntime": {"models", "export"},
    "detectron2": {"models"},
}
CORE_MAY_IMPORT = {"numpy", "PIL", "cv2", "pydantic", "pycocotools"}
CLIENT_MAY_IMPORT = CORE_MAY_IMPORT | {"requests"}


def modules() -> list[tuple[str, Path]]:
    """(place, file) of every module of the product."""
    found = [("core", path) for path in PACKAGE.glob("*.py")]
    for name in SUBPACKAGES:
        found += [(name, path) for path in (PACKAGE / name).rglob("*.py")]
    return sorted(found + [("handlers", path) for path in (ROOT / "handlers").glob("*.py")])


def imported(tree: ast.AST, *, module_level_only: bool = False) -> Iterator[str]:
    nodes = tree.body if module_level_only and isinstance(tree, ast.Module) else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floors"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(place: str, source: str) -> list[str]:
    problems = []
    for name in imported(ast.parse(source)):
        parts = name.split(".")
        if parts[0] in ("tests", "benchmarks", "handlers", "examples"):
            problems.append(f"{name}: nothing imports {parts[0]}")
        elif parts[0] == "segserve":
            if len(parts) > 1 and parts[1] in SUBPACKAGES and parts[1] not in ALLOWED[place]:
                problems.append(f"{name}: {place} may not import {parts[1]}")
        elif place not in CONFINED.get(parts[0], {place}) and place != "cli":
            problems.append(f"{name}: {place} may not import {parts[0]}")
    return problems


@pytest.mark.parametrize(("place", "path"), modules(), ids=lambda value: getattr(value, "name", value))
def test_module_imports_only_what_its_floor_allows(place: str, path: Path) -> None:
    assert violations(place, path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_core_imports_few_packages(path: Path) -> None:
    allowed = CLIENT_MAY_IMPORT if path.name == "client.py" else CORE_MAY_IMPORT
    tops = {name.split(".")[0] for name in imported(ast.parse(path.read_text("utf-8")))}
    assert tops - allowed - set(sys.stdlib_module_names) - {"segserve"} == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda path: path.name)
def test_commands_import_heavy_packages_only_when_they_run(path: Path) -> None:
    at_import = {name.split(".")[0] for name in imported(ast.parse(path.read_text("utf-8")), module_level_only=True)}
    assert at_import - set(sys.stdlib_module_names) <= {"segserve"}


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("core", "import segserve.models.grounded_sam"),
        ("gateway", "from segserve.models import grounded_sam"),
        ("gateway", "def f():\n    import torch"),
        ("models", "from segserve import gateway"),
        ("models", "import ts.context"),
        ("torchserve", "import segserve.cli"),
        ("training", "import fastapi"),
        ("training", "from segserve.export import engines"),
        ("export", "from segserve.training import scenes"),
        ("gateway", "import onnxruntime"),
        ("conformance", "from segserve.gateway import app"),
        ("conformance", "import torch"),
        ("models", "from tests import scenes"),
    ],
)
def test_a_violation_is_seen(place: str, line: str) -> None:
    assert violations(place, line)


def run_with_blocked(blocked: list[str], code: str) -> subprocess.CompletedProcess[str]:
    block = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, check=False)


def test_gateway_and_serve_need_neither_torch_nor_torchserve() -> None:
    code = (
        "from segserve.config import Settings\nfrom segserve.gateway.app import create_app\n"
        "import segserve.torchserve.launcher, segserve.client, segserve.cli\n"
        "create_app(Settings())\n"
    )
    done = run_with_blocked(["torch", "torchvision", "transformers", "ts"], code)
    assert done.returncode == 0, done.stderr


def test_client_needs_no_server_package() -> None:
    done = run_with_blocked(["torch", "transformers", "ts", "fastapi", "httpx2", "uvicorn"], "import segserve.client")
    assert done.returncode == 0, done.stderr


def test_modules_stay_small() -> None:
    long = {str(path): n for _, path in modules() if (n := len(path.read_text("utf-8").splitlines())) > 450}
    assert long == {}
