"""invoke.py while a multi-model endpoint loads the model: SageMaker's answers come from botocore's Stubber."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from aws_scripts import REGION, Run
from botocore.response import StreamingBody
from botocore.stub import Stubber

import runtime
from calls import Calls


def test_a_model_that_is_being_loaded_is_waited_for(
    aws: Callable[[str], Any], run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = boto3.client("sagemaker-runtime", region_name=REGION)
    monkeypatch.setattr(Calls, "client", lambda *_: client)
    monkeypatch.setattr(runtime, "LOADING_PAUSE_S", 0.0)
    picture = tmp_path / "room.jpg"
    picture.write_bytes(b"\xff\xd8\xff")
    sent = {
        "EndpointName": "shop",
        "Body": b"\xff\xd8\xff",
        "ContentType": "image/jpeg",
        "Accept": "application/json",
        "TargetModel": "mask_rcnn.tar.gz",
        "CustomAttributes": "render=overlay",
    }
    with Stubber(client) as stub:
        for _ in range(2):
            stub.add_client_error("invoke_endpoint", "ModelNotReadyException", http_status_code=429)
        answer = {"Body": StreamingBody(io.BytesIO(b"{}"), 2), "ContentType": "application/json"}
        stub.add_response("invoke_endpoint", answer, sent)
        options = ("--name", "shop", "--target-model", "mask_rcnn.tar.gz", "--out", str(tmp_path / "out"))
        ended = run("invoke", str(picture), *options)
        stub.assert_no_pending_responses()
    assert ended.status == 0, ended.err
