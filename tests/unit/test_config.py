"""Settings: defaults of API.md, the environment, and that secrets stay secret."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from segserve.config import ENVIRONMENT, Settings, settings_from_environment
from segserve.errors import InvalidRequestError

SOURCE = Path(__file__).resolve().parents[2] / "src" / "segserve"


def test_defaults_are_those_of_the_api() -> None:
    settings = settings_from_environment({})
    assert settings == Settings()
    assert settings.limits.max_body_bytes == 25 * 2**20
    assert settings.image_limits.max_bytes == settings.fetch.max_bytes == 20 * 2**20
    assert settings.image_limits.max_pixels == 50_000_000
    assert settings.fetch.timeout_s == 10 and settings.fetch.max_redirects == 3 and settings.fetch.allow == ()
    assert settings.limits.timeout_s == 60 and settings.limits.shutdown_s == 25


def test_every_variable_has_its_effect() -> None:
    values = {
        "SEGSERVE_API_KEYS": "one, two",
        "SEGSERVE_ADMIN_KEY": "boss",
        "SEGSERVE_FETCH_ALLOW": "127.0.0.1, 10.0.0.0/8",
        "SEGSERVE_S3_BUCKETS": "pictures",
        "SEGSERVE_TILING_CATALOG": "catalog.yaml",
        "SEGSERVE_DETECTION_DIR": "detections",
        "SEGSERVE_LOG_FORMAT": "json",
        "SEGSERVE_MAX_BODY_BYTES": "1000",
        "SEGSERVE_MAX_IMAGE_BYTES": "900",
        "SEGSERVE_MAX_PIXELS": "800",
        "SEGSERVE_TIMEOUT_S": "7.5",
    }
    assert set(values) == set(ENVIRONMENT)
    for name, value in values.items():
        assert settings_from_environment({name: value}) != Settings(), name
    settings = settings_from_environment(values)
    assert settings.api_keys == {"one", "two"} and settings.admin_key == "boss"
    assert settings.fetch.allow == ("127.0.0.1", "10.0.0.0/8")
    assert (settings.limits.max_body_bytes, settings.limits.timeout_s) == (1000, 7.5)


@pytest.mark.parametrize("name", ["SEGSERVE_MAX_BODY_BYTES", "SEGSERVE_MAX_PIXELS", "SEGSERVE_TIMEOUT_S"])
@pytest.mark.parametrize("value", ["many", "-1", "0", "nan", "inf", ""])
def test_a_wrong_number_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        settings_from_environment({name: value})


def test_a_wrong_log_format() -> None:
    with pytest.raises(InvalidRequestError, match="SEGSERVE_LOG_FORMAT"):
        settings_from_environment({"SEGSERVE_LOG_FORMAT": "xml"})


def test_secrets_do_not_show() -> None:
    settings = settings_from_environment({"SEGSERVE_API_KEYS": "hidden-key", "SEGSERVE_ADMIN_KEY": "hidden-admin"})
    assert "hidden" not in repr(settings)


def test_only_config_reads_the_environment_for_settings() -> None:
    readers = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ENVIRONMENT:
                readers.append(path.name)
    # These two name variables to withhold them from TorchServe, and to set one for a service of their own.
    assert set(readers) == {"config.py", "java.py", "demo_server.py"}
