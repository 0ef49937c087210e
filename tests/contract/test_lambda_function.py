"""The Lambda function, called in process with API Gateway's events, in front of a gateway on a real socket.

The client of the endpoint is boto3's own, with that gateway's address; moto keeps the secret. Neither shows what IAM
would refuse.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import boto3
import numpy as np
import pytest
import requests
from botocore.exceptions import ClientError
from fake_torchserve import FakeTorchServe, lower_half, striped_classes
from gateways import wait_for
from moto.server import ThreadedMotoServer
from pictures import noise, png, saved, source
from PIL import Image
from segserve_api import handler
from segserve_api.endpoint import Endpoint
from segserve_api.handler import Api
from segserve_api.keys import Keys
from segserve_api.settings import ApiSettings, SettingsError, settings_from_environment
from sockets import gateway_before

from api_gateway import LAMBDA_BYTES, api_gateway, body_of, http_event, rest_event
from segserve.config import FetchPolicy

SHOP = "https://shop.example"
NATIVE = {"model": "grounded_sam", "images": [source(png())], "prompt": {"text": "sofa"}}
JSON = {"Content-Type": "application/json"}

Call = Callable[[dict[str, Any]], dict[str, Any]]


MODELS = ("grounded_sam", "semantic", "sam2", "mask_rcnn")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, FakeTorchServe]]:
    """A gateway that boto3's client takes for SageMaker's runtime, and the TorchServe behind it."""
    torchserve = FakeTorchServe(models={model: ["READY"] for model in MODELS})
    fetch = FetchPolicy(allow=("127.0.0.1",))
    with gateway_before(torchserve, models=MODELS, fetch=fetch, sagemaker_runtime=True) as gateway:
        yield gateway.url, torchserve


@pytest.fixture
def torchserve(endpoint: tuple[str, FakeTorchServe]) -> FakeTorchServe:
    """The endpoint's TorchServe as it was at the beginning, with every model ready."""
    url, running = endpoint
    fresh = FakeTorchServe(models={model: ["READY"] for model in MODELS})
    for name, value in vars(fresh).items():
        setattr(running, name, value)
    wait_for(lambda: requests.get(f"{url}/ping", timeout=10).status_code == 200)
    return running


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Credentials that are none, and a function that starts cold."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "ENDPOINT_NAME": "segserve",
        "ALLOWED_ORIGINS": SHOP,
    }.items():
        monkeypatch.setenv(name, value)
    handler._api.cache_clear()
    yield
    handler._api.cache_clear()


@pytest.fixture
def call(endpoint: tuple[str, FakeTorchServe], torchserve: FakeTorchServe, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls the function for an event, with the JSON round trip that Lambda makes."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint[0])
    return calling


def calling(event: dict[str, Any]) -> dict[str, Any]:
    result = handler.lambda_handler(json.loads(json.dumps(event)), None)
    answered: dict[str, Any] = json.loads(json.dumps(result))
    return answered


def told(result: dict[str, Any]) -> Any:
    return json.loads(body_of(result))


def form(fields: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    """A multipart form as a browser sends it: its headers and its body."""
    prepared = requests.Request("POST", "http://x", files=fields).prepare()
    return {"Content-Type": str(prepared.headers["Content-Type"])}, bytes(prepared.body or b"")


@pytest.mark.parametrize("make", [http_event, rest_event])
def test_a_native_request_as_an_invocation(call: Call, make: Callable[..., dict[str, Any]]) -> None:
    result = call(make("POST", "/invocations", JSON, json.dumps(NATIVE).encode()))
    assert (result["statusCode"], result["isBase64Encoded"]) == (200, False)
    assert result["headers"]["Content-Type"] == "application/json"
    (found,) = told(result)["results"]
    assert (found["width"], found["height"], found["instances"][0]["label"]) == (64, 48, "sofa")


@pytest.mark.parametrize("make", [http_event, rest_event])
def test_the_pages_form_with_a_picture_arrives_bit_for_bit(
    call: Call, make: Callable[..., dict[str, Any]], torchserve: FakeTorchServe
) -> None:
    picture = saved(Image.fromarray(noise(seed=4)), "JPEG")
    fields = {"request": (None, '{"model": "grounded_sam", "prompt": {"text": "rug"}}'), "image": ("p", picture)}
    result = call(make("POST", "/v1/segment", *form(fields)))
    assert result["statusCode"] == 200
    assert told(result)["results"][0]["instances"][0]["label"] == "rug"
    ((arrived, prompt),) = torchserve.seen
    assert arrived == picture
    assert prompt["text"] == "rug"


def test_a_raw_picture_with_attributes_and_a_picture_as_the_answer(call: Call) -> None:
    attributes = {"X-Amzn-SageMaker-Custom-Attributes": "model=grounded_sam;text=sofa", "Accept": "image/png"}
    result = call(http_event("POST", "/invocations", {"Content-Type": "image/png", **attributes}, png()))
    assert (result["statusCode"], result["isBase64Encoded"]) == (200, True)
    assert result["headers"]["Content-Type"] == "image/png"
    assert Image.open(io.BytesIO(body_of(result))).size == (64, 48)


@pytest.mark.parametrize("make", [http_event, rest_event])
def test_a_routes_query_reaches_it(call: Call, make: Callable[..., dict[str, Any]], torchserve: FakeTorchServe) -> None:
    query = urlencode({"model": "grounded_sam", "text": "50 % grey & blue sofa", "mask_format": "polygon"})
    result = call(make("POST", f"/v1/segment?{query}", {"Content-Type": "image/png"}, png()))
    assert result["statusCode"] == 200
    assert torchserve.seen[0][1]["text"] == "50 % grey & blue sofa"
    assert told(result)["results"][0]["instances"][0]["mask"][0][0] == [0, 24]


def test_what_the_page_asks_for_before_anything_else(call: Call) -> None:
    listed = told(call(http_event("GET", "/v1/models")))["models"]
    assert sorted(model["name"] for model in listed if model["ready"]) == sorted(MODELS)
    assert told(call(http_event("GET", "/v1/models/grounded_sam")))["name"] == "grounded_sam"
    assert "Flooring" in [
        category["name"] for category in told(call(http_event("GET", "/v1/categories")))["categories"]
    ]
    assert told(call(http_event("GET", "/ping"))) == {"status": "Healthy"}
    document = call(http_event("GET", "/docs"))
    assert document["headers"]["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in document["headers"]["Content-Security-Policy"]
    assert "/v1/segment" in told(call(http_event("GET", "/openapi.json")))["paths"]


@pytest.mark.parametrize("stage", ["prod", "v1"])
def test_a_stage_is_no_part_of_a_route(call: Call, stage: str) -> None:
    assert told(call(http_event("GET", f"/{stage}/v1/models", stage=stage)))["models"]
    assert told(call(http_event("GET", f"/{stage}/v1/models/", stage=stage)))["models"]
    assert told(call(rest_event("GET", "/v1/models", stage=stage)))["models"]


def test_a_custom_domains_base_path_is_no_part_of_a_route(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASE_PATH", "/segment/")
    assert told(call(http_event("GET", "/segment/v1/models")))["models"]


def test_the_forms_of_seed_002(call: Call, torchserve: FakeTorchServe, picture_server: str) -> None:
    fields = {"image_url": f"{picture_server}/room.png", "text_prompt": "black jeans"}
    urlencoded = {"Content-Type": "application/x-www-form-urlencoded"}
    result = call(http_event("POST", "/segment/langsam", urlencoded, urlencode(fields).encode()))
    assert result["statusCode"] == 200
    assert told(result)["product_tag"] == "black jeans" and told(result)["overlay"]
    headers, body = form({name: (None, value) for name, value in fields.items()})
    assert told(call(http_event("POST", "/segment/langsam", headers, body)))["labels"] == ["black jeans"]
    action = {"action": "langsam", **fields}
    assert told(call(http_event("POST", "/invocations", JSON, json.dumps(action).encode())))["tag"] == "black jeans"


@pytest.fixture
def picture_server() -> Iterator[str]:
    """A server of this machine that has one picture under every path."""

    def answer(event: dict[str, Any], context: object) -> dict[str, Any]:
        body = base64.b64encode(png()).decode("ascii")
        return {"statusCode": 200, "headers": {"Content-Type": "image/png"}, "body": body, "isBase64Encoded": True}

    with api_gateway(answer) as url:
        yield url


def test_a_picture_by_its_address(call: Call, picture_server: str) -> None:
    body = json.dumps({"url": f"{picture_server}/room.png"}).encode()
    result = call(http_event("POST", "/v1/picture", JSON, body))
    assert (result["statusCode"], body_of(result)) == (200, png())


def test_headers_that_sagemaker_drops_come_back(call: Call, torchserve: FakeTorchServe) -> None:
    def half(data: bytes, prompt: dict[str, Any]) -> Any:
        return lower_half(data, {"text": "thing"})

    torchserve.react = half
    headers, body = form({"image": ("p.png", png())})
    result = call(http_event("POST", "/predict", {**headers, "Accept": "image/png"}, body))
    assert result["statusCode"] == 200, body_of(result)
    assert float(result["headers"]["X-Masked-Percentage"]) == 50
    assert "X-Amzn-SageMaker-Custom-Attributes" not in result["headers"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v1/nothing", 404, "POST /invocations"),
        ("GET", "/invocations", 405, "takes POST"),
        ("PUT", "/v1/models/grounded_sam", 405, "scaling"),
        ("POST", "/v1/models", 405, "takes GET"),
        ("GET", "/../etc/passwd", 404, "no route"),
        ("POST", "/v1/segment?text=" + "x" * 1200, 414, "JSON or a form"),
    ],
)
def test_what_the_api_does_not_have(call: Call, method: str, path: str, status: int, words: str) -> None:
    result = call(http_event(method, path, JSON, b"{}"))
    assert (result["statusCode"], words in told(result)["error"]["message"]) == (status, True)


def test_an_error_of_the_model_keeps_its_status_and_body(call: Call) -> None:
    wrong = {**NATIVE, "model": "sam2"}
    result = call(
        http_event("POST", "/invocations", {**JSON, "X-Request-Id": "from-the-shop"}, json.dumps(wrong).encode())
    )
    assert result["statusCode"] == 422
    assert told(result)["error"]["code"] == "invalid_prompt"
    assert result["headers"]["X-Request-Id"] == "from-the-shop"
    assert result["headers"]["Content-Type"] == "application/json"
    result = call(http_event("GET", "/v1/models/no_such"))
    assert (result["statusCode"], told(result)["error"]["code"]) == (404, "model_not_found")


def test_a_busy_model_says_when_to_try_again(call: Call, torchserve: FakeTorchServe) -> None:
    torchserve.models["grounded_sam"] = []
    wait_for(lambda: call(http_event("GET", "/ping"))["statusCode"] == 503)
    result = call(http_event("POST", "/invocations", JSON, json.dumps(NATIVE).encode()))
    assert result["statusCode"] == 503
    assert int(result["headers"]["Retry-After"]) > 0


def test_a_slow_endpoint_is_a_504(call: Call, torchserve: FakeTorchServe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMEOUT_S", "0.2")
    torchserve.delay_s = 1.0
    result = call(http_event("POST", "/invocations", JSON, json.dumps(NATIVE).encode()))
    assert (result["statusCode"], told(result)["error"]["code"]) == (504, "timed_out")
    assert "0.2 s" in told(result)["error"]["message"]
    # Asked once: a second attempt would come after API Gateway has given up.
    wait_for(lambda: torchserve.finished == 1)
    assert len(torchserve.seen) == 1


def test_a_body_over_the_limit_names_the_way_out(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    result = call(http_event("POST", "/invocations", {"Content-Type": "image/png"}, bytes(4_500_001)))
    assert (result["statusCode"], told(result)["error"]["code"]) == (413, "body_too_large")
    assert "4,500,000" in told(result)["error"]["message"] and "URL" in told(result)["error"]["message"]
    # The limit lets nothing through that Lambda would not have taken.
    assert (
        len(json.dumps(http_event("POST", "/invocations", {"Content-Type": "image/png"}, bytes(4_500_000))))
        < LAMBDA_BYTES
    )


def test_an_answer_over_the_limit_names_the_way_out(call: Call, torchserve: FakeTorchServe) -> None:
    """C x H x W logits as JSON: far more than Lambda passes on."""
    torchserve.react = striped_classes
    headers = {"Content-Type": "image/png", "Accept": "application/x-npy"}
    headers["X-Amzn-SageMaker-Custom-Attributes"] = "model=semantic;output=logits"
    small = call(http_event("POST", "/invocations", headers, png()))
    assert np.load(io.BytesIO(body_of(small))).shape == (3, 48, 64)
    large = call(http_event("POST", "/invocations", headers, png(800, 600)))
    assert (large["statusCode"], told(large)["error"]["code"]) == (413, "answer_too_large")


class Runtimes:
    """boto3's client, as far as the function uses it, with an error for an answer: those only AWS itself gives."""

    def __init__(self, code: str, message: str, **fields: Any) -> None:
        self.error = ClientError({"Error": {"Code": code, "Message": message}, **fields}, "InvokeEndpoint")  # type: ignore[arg-type]

    def invoke_endpoint(self, **asked: Any) -> Any:
        raise self.error


ACCOUNT_TEXT = "User: arn:aws:sts::123456789012:assumed-role/api is not authorized to perform: sagemaker:InvokeEndpoint"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Runtimes("ThrottlingException", "Rate exceeded"), 429, "throttled"),
        (Runtimes("ModelNotReadyException", "not ready"), 503, "not_ready"),
        (Runtimes("ServiceUnavailable", "busy"), 503, "unavailable"),
        (Runtimes("AccessDeniedException", ACCOUNT_TEXT), 502, "endpoint_failed"),
        (Runtimes("InternalFailure", "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/x"), 502, "endpoint_failed"),
        (Runtimes("ValidationError", "Endpoint segserve of account 123456789012 not found."), 503, "not_ready"),
        (
            Runtimes("ValidationError", "TargetModel is required by arn:aws:sagemaker:1:123456789012:x"),
            400,
            "invalid_request",
        ),
        (
            Runtimes("ModelError", "0", OriginalStatusCode=0, OriginalMessage="Your invocation timed out"),
            504,
            "timed_out",
        ),
        (Runtimes("ModelError", "?", OriginalStatusCode=500, OriginalMessage=""), 502, "endpoint_failed"),
    ],
)
def test_errors_of_aws_are_told_without_details(error: Runtimes, status: int, code: str) -> None:
    settings = ApiSettings("segserve")
    result = Api(settings, Endpoint(settings, error)).handle(http_event("POST", "/invocations", JSON, b"{}"))
    assert (result["statusCode"], told(result)["error"]["code"]) == (status, code)
    assert "123456789012" not in json.dumps(result) and "arn:" not in json.dumps(result)
    assert ("Retry-After" in result["headers"]) == (status in (429, 503))


def test_an_error_that_sagemaker_cut_off_is_told_as_far_as_it_goes() -> None:
    whole = json.dumps({"error": {"code": "invalid_request", "message": 'f: "x"\u00e9 ' * 400}}, separators=(",", ":"))
    cut = Runtimes("ModelError", "?", OriginalStatusCode=400, OriginalMessage=whole[:2048])
    settings = ApiSettings("segserve")
    result = Api(settings, Endpoint(settings, cut)).handle(http_event("POST", "/invocations", JSON, b"{}"))
    assert (result["statusCode"], told(result)["error"]["code"]) == (400, "invalid_request")
    assert told(result)["error"]["message"].startswith('f: "x"\u00e9 f: "x"\u00e9 ')


def test_a_page_of_html_from_a_container_is_sent_as_plain_text() -> None:
    hostile = Runtimes("ModelError", "?", OriginalStatusCode=500, OriginalMessage="<script>alert(1)</script>")
    settings = ApiSettings("segserve")
    result = Api(settings, Endpoint(settings, hostile)).handle(http_event("POST", "/invocations", JSON, b"{}"))
    assert (result["statusCode"], result["headers"]["Content-Type"]) == (500, "text/plain; charset=utf-8")
    assert result["headers"]["X-Content-Type-Options"] == "nosniff"


def test_an_endpoint_that_cannot_be_reached_is_a_502(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{unused.getsockname()[1]}")
        result = calling(http_event("POST", "/invocations", JSON, b"{}"))
    assert (result["statusCode"], told(result)["error"]["code"]) == (502, "endpoint_failed")
    assert "127.0.0.1" not in json.dumps(result)


def test_a_bug_is_a_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def invoke_endpoint(self, **asked: Any) -> Any:
            raise RuntimeError("a secret place")

    settings = ApiSettings("segserve", origins=(SHOP,))
    event = http_event("POST", "/invocations", {**JSON, "Origin": SHOP}, b"{}")
    result = Api(settings, Endpoint(settings, Broken())).handle(event)
    assert (result["statusCode"], "secret" in json.dumps(result)) == (500, False)
    assert result["headers"]["Access-Control-Allow-Origin"] == SHOP
    assert "a secret place" in caplog.text


def test_a_line_break_of_the_container_makes_no_header() -> None:
    class Split:
        def invoke_endpoint(self, **asked: Any) -> Any:
            attributes = "x-masked-percentage=1%0d%0aSet-Cookie: a;x-unmasked-percentage=2"
            return {"Body": io.BytesIO(b"{}"), "ContentType": "application/json", "CustomAttributes": attributes}

    settings = ApiSettings("segserve")
    result = Api(settings, Endpoint(settings, Split())).handle(http_event("POST", "/predict", JSON, b"{}"))
    assert (result["statusCode"], result["headers"]["X-Unmasked-Percentage"]) == (200, "2")
    assert "Set-Cookie" not in json.dumps(result)


@pytest.mark.parametrize("event", [{}, None, [], {"requestContext": None}, {"multiValueHeaders": {"x-a": None}}])
def test_an_event_of_no_kind_is_answered(event: Any) -> None:
    settings = ApiSettings("segserve")
    result = Api(settings, Endpoint(settings, Runtimes("x", "x"))).handle(event)
    assert (result["statusCode"], told(result)["error"]["request_id"]) == (500, "unknown")


@pytest.mark.parametrize("broken", [{"isBase64Encoded": True, "body": "*no base64*"}, {"body": "\ufffdPNG\r\n"}])
def test_a_picture_that_api_gateway_broke_is_refused(broken: dict[str, Any]) -> None:
    settings = ApiSettings("segserve")
    event = http_event("POST", "/invocations", {"Content-Type": "image/png"}) | broken
    result = Api(settings, Endpoint(settings, Runtimes("x", "x"))).handle(event)
    assert (result["statusCode"], told(result)["error"]["code"]) == (400, "invalid_request")


def test_a_preflight_asks_the_endpoint_nothing_and_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY_SECRET", "segserve/keys")
    asking = {"Origin": SHOP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    result = calling(http_event("OPTIONS", "/v1/segment", asking))
    assert result["statusCode"] == 204
    assert result["headers"]["Access-Control-Allow-Origin"] == SHOP
    assert "POST" in result["headers"]["Access-Control-Allow-Methods"]
    assert "X-API-Key" in result["headers"]["Access-Control-Allow-Headers"]
    stranger = calling(http_event("OPTIONS", "/v1/segment", {**asking, "Origin": "https://other.example"}))
    assert not [name for name in stranger["headers"] if name.startswith("Access-Control")]
    assert stranger["headers"]["Vary"] == "Origin"


def test_answers_and_errors_may_be_read_by_the_configured_pages_only(call: Call) -> None:
    for path, status in (("/v1/models", 200), ("/v1/models/none", 404), ("/nothing", 404)):
        result = call(http_event("GET", path, {"Origin": SHOP}))
        assert (result["statusCode"], result["headers"]["Access-Control-Allow-Origin"]) == (status, SHOP)
        assert "Retry-After" in result["headers"]["Access-Control-Expose-Headers"]
        stranger = call(http_event("GET", path, {"Origin": "https://shop.example.evil.example"}))
        assert "Access-Control-Allow-Origin" not in stranger["headers"]
        assert "Access-Control-Allow-Credentials" not in result["headers"]


def test_keys_of_a_secret(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto answers whoever asks: that the function's role may read the secret is not shown."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://{host}:{port}")
        boto3.client("secretsmanager").create_secret(Name="segserve/keys", SecretString='{"api_keys": ["one", "two"]}')
        monkeypatch.setenv("API_KEY_SECRET", "segserve/keys")
        without = call(http_event("GET", "/v1/models"))
        assert (without["statusCode"], without["headers"]["WWW-Authenticate"]) == (401, "Bearer")
        wrong = call(http_event("GET", "/v1/models", {"X-API-Key": "three"}))
        # The page looks for these words to ask for another key.
        assert (wrong["statusCode"], "not valid" in told(wrong)["error"]["message"]) == (401, True)
        for headers in ({"X-API-Key": "one"}, {"Authorization": "Bearer two"}):
            assert call(http_event("GET", "/v1/models", headers))["statusCode"] == 200
    finally:
        server.stop()


@pytest.mark.parametrize("text", ["", " , ", '{"key": "one"}', '{"api_keys": []}', "{broken"])
def test_a_secret_without_keys_lets_nobody_through(text: str) -> None:
    settings = ApiSettings("segserve")
    api = Api(settings, Endpoint(settings, Runtimes("x", "x")), Keys("segserve/keys", lambda secret: text))
    result = api.handle(http_event("GET", "/v1/models", {"X-API-Key": text or "x"}))
    assert (result["statusCode"], told(result)["error"]["code"]) == (503, "keys_unreadable")
    assert not text.strip() or text not in json.dumps(result)


def test_the_request_id_is_one_from_api_gateway_to_the_models_log(call: Call, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    result = call(http_event("POST", "/invocations", {**JSON, "X-Request-Id": "a-b-c"}, json.dumps(NATIVE).encode()))
    assert result["headers"]["X-Request-Id"] == "a-b-c"
    (line,) = [json.loads(entry.message) for entry in caplog.records if entry.name == "segserve_api"]
    assert (line["request_id"], line["status"], line["path"]) == ("a-b-c", 200, "/invocations")
    wrong = call(http_event("GET", "/v1/models/none", {"X-Request-Id": "d-e-f"}))
    assert told(wrong)["error"]["request_id"] == wrong["headers"]["X-Request-Id"] == "d-e-f"
    assert call(http_event("GET", "/ping"))["headers"]["X-Request-Id"] == "JKJaXmPLvHcESHA="
    assert (
        call(http_event("GET", "/ping", {"X-Request-Id": "two\nlines"}))["headers"]["X-Request-Id"]
        == "JKJaXmPLvHcESHA="
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENDPOINT_NAME", ""),
        ("ENDPOINT_NAME", "a_b"),
        ("ALLOWED_ORIGINS", "shop.example"),
        ("ALLOWED_ORIGINS", "*, https://shop.example"),
        ("ALLOWED_ORIGINS", "https://shop.example/"),
        ("TIMEOUT_S", "soon"),
        ("TIMEOUT_S", "0"),
        ("MAX_BODY_BYTES", "7000000"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        settings_from_environment({"ENDPOINT_NAME": "segserve", name: value})


def test_many_at_once(call: Call) -> None:
    """Lambda calls a function once at a time, but a server of functions may not."""
    results: list[int] = []
    event = http_event("POST", "/invocations", JSON, json.dumps(NATIVE).encode())
    threads = [threading.Thread(target=lambda: results.append(call(event)["statusCode"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [200] * 8
