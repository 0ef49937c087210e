"""config.properties: what is written is read back, and what an operator may change."""

import json
from pathlib import Path

import pytest

from segserve.errors import InvalidRequestError
from segserve.torchserve.configuration import (
    DEFAULTS,
    MAX_TOKEN_MINUTES,
    TOKEN_MINUTES,
    Ports,
    ServedModel,
    ServerOptions,
    models_entry,
    read_properties,
    server_properties,
    write_properties,
)

SHIPPED = Path(__file__).parents[3] / "config.properties"
MODEL = ServedModel(
    "grounded_sam", "1.0", "grounded_sam.mar", workers=2, max_workers=3, batch_size=8, batch_delay_ms=15
)


def test_what_is_written_is_read_back(tmp_path):
    properties = {"a": "1", "path": r"C:\dir", "lines": "one\ntwo", "json": '{"x": "="}', "empty": ""}
    write_properties(tmp_path / "p", properties)
    assert read_properties(tmp_path / "p") == properties


def test_comments_blank_lines_and_continued_lines(tmp_path):
    path = tmp_path / "p"
    path.write_text('# comment\n! too\n\n a = 1 \nmodels={\\\n  "x": 1,\\\n  "y": 2}\nlast=b\n')
    assert read_properties(path) == {"a": "1", "models": '{"x": 1,"y": 2}', "last": "b"}


def test_a_line_without_a_value_is_named(tmp_path):
    (tmp_path / "p").write_text("a=1\nnonsense\n")
    with pytest.raises(InvalidRequestError, match="line 2"):
        read_properties(tmp_path / "p")


def test_the_models_entry_is_what_torchserve_reads():
    entry = json.loads(models_entry([MODEL]))
    assert entry == {
        "grounded_sam": {
            "1.0": {
                "defaultVersion": True,
                "marName": "grounded_sam.mar",
                "minWorkers": 2,
                "maxWorkers": 3,
                "batchSize": 8,
                "maxBatchDelay": 15,
                "responseTimeout": 120,
                "startupTimeout": 600,
            }
        }
    }


def test_everything_listens_on_loopback_with_tokens_and_loads_from_the_store_only():
    properties = server_properties(Path("/store"), [MODEL], Ports(1, 2, 3, 4, 5))
    assert [properties[f"{name}_address"] for name in ("inference", "management", "metrics")] == [
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
        "http://127.0.0.1:3",
    ]
    assert (properties["grpc_inference_port"], properties["grpc_management_port"]) == ("4", "5")
    assert properties["grpc_inference_address"] == properties["grpc_management_address"] == "127.0.0.1"
    assert properties["disable_token_authorization"] == "false"
    assert properties["enable_model_api"] == "false"
    assert properties["load_models"] == "grounded_sam=grounded_sam.mar"
    assert not properties["allowed_urls"].startswith(("http", "file", "."))
    assert "number_of_gpu" not in properties


def test_an_operator_changes_sizes_but_not_what_keeps_it_safe():
    given = {
        "max_request_size": "5",
        "job_queue_size": "7",
        "inference_address": "http://0.0.0.0:80",
        "disable_token_authorization": "true",
        "allowed_urls": ".*",
        "load_models": "all",
        "token_expiration_min": "60",
    }
    properties = server_properties(Path("/store"), [MODEL], Ports(), ServerOptions(gpus=0), given)
    assert (properties["max_request_size"], properties["job_queue_size"]) == ("5", "7")
    assert properties["max_response_size"] == DEFAULTS["max_response_size"]
    assert properties["inference_address"] == "http://127.0.0.1:8085"
    assert properties["disable_token_authorization"] == "false"
    assert properties["allowed_urls"] != ".*"
    assert properties["load_models"] == "grounded_sam=grounded_sam.mar"
    assert properties["token_expiration_min"] == str(TOKEN_MINUTES)
    assert properties["number_of_gpu"] == "0"


def test_the_tokens_life_is_long_and_fits_torchserves_counter():
    assert 365 * 24 * 60 < TOKEN_MINUTES < MAX_TOKEN_MINUTES


def test_the_shipped_file_agrees_with_the_defaults():
    shipped = read_properties(SHIPPED)
    assert {name: shipped[name] for name in DEFAULTS} == DEFAULTS
    owned = server_properties(Path("/store"), [], Ports())
    for name in ("allowed_urls", "token_expiration_min", "inference_address", "management_address", "metrics_address"):
        assert shipped[name] == owned[name]
