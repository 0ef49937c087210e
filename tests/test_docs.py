"""The documents tell the truth: every path, module, command, setting, route and parameter that they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from segserve.catalog import CATALOG
from segserve.cli import COMMANDS, build_parser
from segserve.config import ENVIRONMENT, Settings
from segserve.errors import error_classes
from segserve.gateway.app import create_app

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
TEXT = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in DOCUMENTS}


@pytest.mark.parametrize("name", TEXT)
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT[name])
    missing = [link for link in links if "://" not in link and not ((ROOT / name).parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", TEXT)
def test_paths_exist(name: str) -> None:
    quoted = re.findall(r"`((?:src|tests|handlers|docs|weights|benchmarks|examples|training)/[\w./-]*)`", TEXT[name])
    places = (ROOT, ROOT / "src" / "segserve")
    assert [path for path in quoted if not any((place / path).exists() for place in places)] == []


def test_the_code_map_names_every_module_of_the_packages_and_nothing_else() -> None:
    map_ = TEXT["ARCHITECTURE.md"].split("## Code map")[1].split("## Who may")[0]
    named = set(re.findall(r"`(\w+\*?)(?:\.py)?`", map_))
    package = ROOT / "src" / "segserve"
    for folder in ("", "models", "torchserve", "gateway"):
        modules = {path.stem for path in (package / folder).glob("*.py")} - {"__init__"}
        assert modules - named == set(), f"{folder or 'core'}: missing in ARCHITECTURE.md"
    known = (
        {path.stem for path in package.rglob("*.py")}
        | {path.name for path in package.rglob("*") if path.is_dir()}
        | {"src"}
    )
    assert {name for name in named if name.rstrip("*") not in known and not name.endswith("*")} == set()


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    named = {word for text in TEXT.values() for word in re.findall(r"(?:SEGSERVE|OPENAI|SAGEMAKER)_[A-Z0-9_]+", text)}
    assert named == set(ENVIRONMENT)


def test_every_named_command_exists() -> None:
    named = {word for text in TEXT.values() for word in re.findall(r"(?:^|[\s`/])segserve ([a-z][a-z-]+)", text)}
    prose = {"serves", "packs", "scene", "settings", "sets", "cannot", "keeps", "reads", "decides", "refuses", "itself"}
    assert named - prose - set(COMMANDS) == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args([command, "--help"])
    assert stopped.value.code == 0
    assert f"segserve {command}" in capsys.readouterr().out


def test_help_is_fast_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, contextlib, io\nfrom segserve.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main(['--help'])\n"
        "print([name for name in ('torch', 'transformers', 'cv2', 'fastapi', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_documented_routes_are_those_of_the_gateway() -> None:
    served = set(create_app(Settings(sagemaker_runtime=True)).openapi()["paths"])
    named = set(re.findall(r"`(?:GET|POST|PUT|DELETE) (/[\w/{}-]*)", TEXT["docs/api.md"]))
    assert named <= served | {"/docs", "/openapi.json"}
    assert served - named <= {"/", "/docs", "/openapi.json"}


def test_documented_error_codes_and_parameters_are_complete() -> None:
    text = TEXT["docs/api.md"]
    for cls in error_classes():
        if "code" in vars(cls) and cls.code not in ("error", "too_large", "unreachable"):
            assert f"`{cls.code}`" in text, cls.code
    for entry in CATALOG.values():
        for parameter in entry.parameters:
            assert f"`{parameter}`" in text, parameter


def test_makefile_targets_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {word for text in TEXT.values() for word in re.findall(r"(?m)(?:^|`)make ([a-z-]+)\b", text)}
    assert {name for name in named if name in targets} >= {"demo", "test", "serve", "lint", "bench"}
    assert named - targets == set()


def test_built_places_are_ignored_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text("utf-8")
    for place in ("build/", "demo_output/", "logs/", "model_store/*", ".venv/"):
        assert place in ignored
