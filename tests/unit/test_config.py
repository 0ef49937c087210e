"""Settings: defaults of API.md, the environment, and that secrets stay secret."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from segserve.config import ENVIRONMENT, CorsPolicy, RewritingSettings, Settings, settings_from_environment
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
        "SEGSERVE_PAGE_ENDPOINT": "https://segserve.example",
        "SEGSERVE_CORS_ORIGINS": "https://shop.example, http://localhost:3000",
        "SEGSERVE_CORS_CREDENTIALS": "true",
        "OPENAI_API_KEY": "sk-1",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "SEGSERVE_OPENAI_MODEL": "small",
        "SEGSERVE_OPENAI_SECRET": "prod/openai",
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
    assert settings.cors == CorsPolicy(("https://shop.example", "http://localhost:3000"), credentials=True)
    assert settings.rewriting == RewritingSettings("sk-1", "prod/openai", "http://127.0.0.1:9/v1", "small")


@pytest.mark.parametrize("name", ["SEGSERVE_MAX_BODY_BYTES", "SEGSERVE_MAX_PIXELS", "SEGSERVE_TIMEOUT_S"])
@pytest.mark.parametrize("value", ["many", "-1", "0", "nan", "inf", ""])
def test_a_wrong_number_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        settings_from_environment({name: value})


def test_a_wrong_log_format() -> None:
    with pytest.raises(InvalidRequestError, match="SEGSERVE_LOG_FORMAT"):
        settings_from_environment({"SEGSERVE_LOG_FORMAT": "xml"})


@pytest.mark.parametrize(
    ("origins", "word"),
    [
        ("https://shop.example/", "shop.example/"),
        ("shop.example", "https://"),
        ("https://Shop.example", "lower case"),
        ("https://user@shop.example", "user@"),
        ("https://*.example", "https://"),
        ("null", "null"),
        ("*, https://shop.example", "alone"),
    ],
)
def test_a_wrong_origin_says_what_an_origin_is(origins: str, word: str) -> None:
    with pytest.raises(InvalidRequestError, match="SEGSERVE_CORS_ORIGINS") as caught:
        settings_from_environment({"SEGSERVE_CORS_ORIGINS": origins})
    assert word in caught.value.message


def test_origins_of_every_form_are_taken() -> None:
    origins = "http://127.0.0.1:8000,http://[::1]:3000,https://a-b.example.org,chrome-extension://abcdef"
    assert settings_from_environment({"SEGSERVE_CORS_ORIGINS": origins}).cors.origins == tuple(origins.split(","))
    assert settings_from_environment({"SEGSERVE_CORS_ORIGINS": "*"}).cors == CorsPolicy(("*",))


def test_every_origin_and_credentials_exclude_each_other() -> None:
    both = {"SEGSERVE_CORS_ORIGINS": "*", "SEGSERVE_CORS_CREDENTIALS": "true"}
    with pytest.raises(InvalidRequestError, match="SEGSERVE_CORS_CREDENTIALS"):
        settings_from_environment(both)
    with pytest.raises(InvalidRequestError, match="SEGSERVE_CORS_CREDENTIALS: expected true or false, came 'yes'"):
        settings_from_environment({"SEGSERVE_CORS_CREDENTIALS": "yes"})


def test_a_base_url_that_is_none() -> None:
    with pytest.raises(InvalidRequestError, match="OPENAI_BASE_URL"):
        settings_from_environment({"OPENAI_BASE_URL": "ftp://someone:hidden@host"})


def test_secrets_do_not_show() -> None:
    secrets = {
        "SEGSERVE_API_KEYS": "hidden-key",
        "SEGSERVE_ADMIN_KEY": "hidden-admin",
        "OPENAI_API_KEY": "hidden-openai",
        "OPENAI_BASE_URL": "https://someone:hidden@host/v1",
    }
    assert "hidden" not in repr(settings_from_environment(secrets))


def test_only_config_reads_the_environment_for_settings() -> None:
    readers = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ENVIRONMENT:
                readers.append(path.name)
    # These two name variables to withhold them from TorchServe, and to set one for a service of their own.
    assert set(readers) == {"config.py", "java.py", "demo_server.py"}
