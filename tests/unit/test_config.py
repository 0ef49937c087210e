"""Settings: defaults of API.md, the environment, and that secrets stay secret."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

from segserve.config import (
    ENVIRONMENT,
    CorsPolicy,
    RewritingSettings,
    ServeDefaults,
    Settings,
    serve_defaults,
    settings_from_environment,
)
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
        "SEGSERVE_HOST": "0.0.0.0",
        "SEGSERVE_PORT": "9000",
        "SEGSERVE_MODEL_STORE": "/opt/ml/model:store",
        "SEGSERVE_MODELS": "a, b",
        "SEGSERVE_LOG_DIR": "/tmp/logs",
        "SEGSERVE_MULTI_MODEL_DIR": "/models",
        "SEGSERVE_SAGEMAKER_RUNTIME": "true",
        "SAGEMAKER_BIND_TO_PORT": "8090",
        "SAGEMAKER_SAFE_PORT_RANGE": "21000-21999",
        "SAGEMAKER_MULTI_MODEL": "true",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "3",
        "SAGEMAKER_MODEL_SERVER_TIMEOUT": "900",
        "SAGEMAKER_CONTAINER_LOG_LEVEL": "30",
    }
    assert set(values) == set(ENVIRONMENT)
    for name, value in values.items():
        read = settings_from_environment({name: value}), serve_defaults({name: value})
        assert read != (Settings(), ServeDefaults()), name
    assert serve_defaults(values) == ServeDefaults(
        host="0.0.0.0",
        port=8090,
        model_stores=(Path("/opt/ml/model"), Path("store")),
        log_dir=Path("/tmp/logs"),
        models=("a", "b"),
        workers=3,
        multi_model=True,
        multi_model_dir=Path("/models"),
        sagemaker_runtime=True,
        inner_ports=(21000, 21999),
    )
    settings = settings_from_environment(values)
    assert settings.api_keys == {"one", "two"} and settings.admin_key == "boss"
    assert settings.fetch.allow == ("127.0.0.1", "10.0.0.0/8")
    assert (settings.limits.max_body_bytes, settings.limits.timeout_s) == (1000, 7.5)
    assert settings_from_environment({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "900"}).limits.timeout_s == 900
    assert settings.log_level == logging.WARNING
    assert settings.cors == CorsPolicy(("https://shop.example", "http://localhost:3000"), credentials=True)
    assert settings.rewriting == RewritingSettings("sk-1", "prod/openai", "http://127.0.0.1:9/v1", "small")


@pytest.mark.parametrize("name", ["SEGSERVE_MAX_BODY_BYTES", "SEGSERVE_MAX_PIXELS", "SEGSERVE_TIMEOUT_S"])
@pytest.mark.parametrize("value", ["many", "-1", "0", "nan", "inf", ""])
def test_a_wrong_number_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        settings_from_environment({name: value})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SEGSERVE_PORT", "http", "from 0 to 65535, came 'http'"),
        ("SEGSERVE_PORT", "65536", "from 0 to 65535"),
        ("SAGEMAKER_BIND_TO_PORT", "0", "from 1 to 65535"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "-1", "from 1"),
        ("SAGEMAKER_MULTI_MODEL", "1", "true or false"),
        ("SEGSERVE_SAGEMAKER_RUNTIME", "on", "true or false"),
        ("SAGEMAKER_SAFE_PORT_RANGE", "22000-21000", "first-last"),
        ("SAGEMAKER_SAFE_PORT_RANGE", "21000", "first-last"),
        ("SAGEMAKER_SAFE_PORT_RANGE", "1-70000", "first-last"),
    ],
)
def test_a_wrong_default_names_its_variable(name: str, value: str, told: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{name}: .*{told}"):
        serve_defaults({name: value})


def test_the_port_that_sagemaker_asks_for_comes_first_and_empty_variables_say_nothing() -> None:
    assert serve_defaults({"SEGSERVE_PORT": "9000"}).port == 9000
    assert serve_defaults({"SEGSERVE_PORT": "9000", "SAGEMAKER_BIND_TO_PORT": "8090"}).port == 8090
    names = [name for name in ENVIRONMENT if name.startswith("SAGEMAKER_")] + ["SEGSERVE_PORT", "SEGSERVE_HOST"]
    names.remove("SAGEMAKER_MODEL_SERVER_TIMEOUT")
    empty = dict.fromkeys([*names, "SEGSERVE_MODEL_STORE", "SEGSERVE_LOG_DIR"], "")
    assert serve_defaults(empty) == ServeDefaults()
    assert settings_from_environment(empty) == Settings()


@pytest.mark.parametrize(("given", "level"), [("10", 10), ("ERROR", 40), ("warning", 30), ("20", 20)])
def test_levels_of_the_log(given: str, level: int) -> None:
    assert settings_from_environment({"SAGEMAKER_CONTAINER_LOG_LEVEL": given}).log_level == level


@pytest.mark.parametrize("given", ["loud", "99", "-1"])
def test_a_wrong_level_of_the_log(given: str) -> None:
    with pytest.raises(InvalidRequestError, match="SAGEMAKER_CONTAINER_LOG_LEVEL"):
        settings_from_environment({"SAGEMAKER_CONTAINER_LOG_LEVEL": given})


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
    # The others name variables to withhold them from TorchServe, or to set them for what they start.
    assert set(readers) == {"config.py", "java.py", "demo_server.py", "conform.py", "image.py"}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://segserve.example/", "https://segserve.example"),
        (
            "https://a1b2c3.execute-api.eu-west-1.amazonaws.com/prod/",
            "https://a1b2c3.execute-api.eu-west-1.amazonaws.com/prod",
        ),
        ("http://127.0.0.1:8080/a/b_c", "http://127.0.0.1:8080/a/b_c"),
    ],
)
def test_the_pages_endpoint_may_have_a_path(given: str, kept: str) -> None:
    assert settings_from_environment({"SEGSERVE_PAGE_ENDPOINT": given}).page_endpoint == kept


@pytest.mark.parametrize(
    "given",
    ["segserve.example", "https://", "https://a.example/b c", "https://a.example/b;c", "https://a.example/?x", "//a/b"],
)
def test_a_page_endpoint_that_is_none(given: str) -> None:
    with pytest.raises(InvalidRequestError, match="SEGSERVE_PAGE_ENDPOINT"):
        settings_from_environment({"SEGSERVE_PAGE_ENDPOINT": given})


@pytest.mark.parametrize(
    "name", ["SEGSERVE_PORT", "SAGEMAKER_BIND_TO_PORT", "SAGEMAKER_MODEL_SERVER_WORKERS", "SAGEMAKER_SAFE_PORT_RANGE"]
)
def test_a_number_of_thousands_of_digits_is_refused_in_words(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{name}: expected"):
        serve_defaults({name: 5000 * "9"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", 5000 * "9"),
        ("SEGSERVE_MAX_BODY_BYTES", "0.5"),
        ("SEGSERVE_MAX_IMAGE_BYTES", "0.5"),
        ("SEGSERVE_MAX_PIXELS", "0.5"),
    ],
)
def test_a_limit_below_one_and_a_level_without_end_are_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{name}: expected"):
        settings_from_environment({name: value})
