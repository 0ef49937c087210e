"""Options of ``segserve serve`` and the variables that stand in for them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from segserve.cli import build_parser
from segserve.cli.serve import INNER_PORTS, with_defaults
from segserve.cli.serving import Service
from segserve.config import ServeDefaults
from segserve.errors import InvalidRequestError, NotFoundError
from segserve.torchserve.ports import free_ports, is_free


def options(*given: str, defaults: ServeDefaults) -> argparse.Namespace:
    return with_defaults(build_parser().parse_args(["serve", *given]), defaults)


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path, Path]:
    """One that is not there, one without an archive, one with."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.mar").write_bytes(b"")
    return tmp_path / "none", tmp_path / "empty", tmp_path / "full"


def test_without_options_and_variables_it_serves_model_store_on_loopback(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_store").mkdir()
    (tmp_path / "model_store" / "a.mar").write_bytes(b"")
    args = options(defaults=ServeDefaults())
    assert (args.host, args.port, args.model_store, args.log_dir) == (
        "127.0.0.1",
        8080,
        Path("model_store"),
        Path("logs"),
    )
    assert (args.models, args.workers, args.multi_model, args.sagemaker_runtime) == (None, None, False, False)
    assert [getattr(args, f"torchserve_{name}_port") for name in INNER_PORTS] == [8085, 8081, 8082]


def test_an_option_comes_before_its_variable(stores):
    of_container = ServeDefaults(
        "0.0.0.0", 8090, stores, Path("/log"), ("a",), 2, True, Path("/models"), True, (20000, 20999)
    )
    args = options(defaults=of_container)
    assert (args.host, args.port, args.model_store, args.log_dir) == ("0.0.0.0", 8090, stores[2], Path("/log"))
    assert (args.models, args.workers, args.multi_model_dir) == ("a", 2, Path("/models"))
    assert args.multi_model and args.sagemaker_runtime
    given = "--host 127.0.0.2 --port 0 --model-store here --log-dir there --models b --workers 4 --no-multi-model "
    given += "--multi-model-dir loads --no-sagemaker-runtime --torchserve-metrics-port 9"
    args = options(*given.split(), defaults=of_container)
    assert (args.host, args.port, args.model_store, args.log_dir) == ("127.0.0.2", 0, Path("here"), Path("there"))
    assert (args.models, args.workers, args.multi_model_dir) == ("b", 4, Path("loads"))
    assert not args.multi_model and not args.sagemaker_runtime
    assert args.torchserve_metrics_port == 9 and 20000 <= args.torchserve_inference_port <= 20999


def test_the_first_store_with_an_archive_counts_and_none_is_needed_for_multi_model(stores):
    assert options(defaults=ServeDefaults(model_stores=stores)).model_store == stores[2]
    with pytest.raises(NotFoundError, match=f"No model archive in {stores[0]} or {stores[1]}"):
        options(defaults=ServeDefaults(model_stores=stores[:2]))
    args = options("--multi-model", defaults=ServeDefaults(model_stores=stores[:2]))
    assert args.model_store == stores[0]


def test_ports_of_torchserve_lie_in_the_range_that_is_allowed():
    (first,) = free_ports(1)
    found = free_ports(2, (first, first + 40))
    assert len(set(found)) == 2 and all(first <= port <= first + 40 and is_free(port) for port in found)
    with pytest.raises(InvalidRequestError, match="2 free ones are needed"):
        free_ports(2, (first, first))


def test_models_are_not_loaded_into_a_torchserve_that_asks_for_no_token(stores):
    args = options("--no-tokens", "--multi-model", defaults=ServeDefaults(model_stores=stores))
    with pytest.raises(InvalidRequestError, match="--no-tokens and --multi-model"):
        Service(args).run()
