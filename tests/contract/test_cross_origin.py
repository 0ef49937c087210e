"""CORS: which pages may read answers, failures included, and what browsers are told beforehand."""

from __future__ import annotations

from typing import Any

import pytest
from fake_torchserve import FakeTorchServe
from gateways import OpenGateway
from pictures import png, source
from starlette.testclient import TestClient

from segserve.config import CorsPolicy, RequestLimits, Settings
from segserve.errors import InvalidRequestError

SHOP = "https://shop.example"
OTHER = "https://other.example"
BODY = {"images": [source(png())], "prompt": {"text": "sofa"}}
NAMED = CorsPolicy((SHOP, "http://localhost:3000"))


def opened(open_gateway: OpenGateway, policy: CorsPolicy, **changes: Any) -> TestClient:
    return open_gateway(Settings(models=("grounded_sam",), cors=policy, **changes))


def preflight(gateway: TestClient, origin: str, path: str = "/v1/segment", method: str = "POST") -> Any:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return gateway.options(path, headers=headers)


def allowed(response: Any) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


def test_without_origins_there_are_no_such_headers(gateway: TestClient) -> None:
    for response in (gateway.get("/livez", headers={"Origin": SHOP}), preflight(gateway, SHOP)):
        assert allowed(response) == {}
        assert "origin" not in response.headers.get("vary", "").lower()
    assert preflight(gateway, SHOP).status_code == 405


@pytest.mark.parametrize("origin", NAMED.origins)
def test_a_named_origin_may_read_answers(open_gateway: OpenGateway, origin: str) -> None:
    response = opened(open_gateway, NAMED).post("/v1/segment", json=BODY, headers={"Origin": origin})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == origin
    assert "X-Request-Id" in response.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in response.headers
    assert "Origin" in response.headers["vary"]


@pytest.mark.parametrize(
    "origin",
    [OTHER, "null", "https://shop.example.evil.example", "http://shop.example", SHOP + ":444", SHOP.upper(), "*"],
)
def test_another_origin_gets_no_permission(open_gateway: OpenGateway, origin: str) -> None:
    gateway = opened(open_gateway, NAMED, api_keys=frozenset({"key"}))
    response = gateway.get("/livez", headers={"Origin": origin})
    assert allowed(response) == {}
    assert "Origin" in response.headers["vary"]
    asked = preflight(gateway, origin)
    assert asked.status_code == 401
    assert allowed(asked) == {}


def test_a_request_of_no_page_is_answered_as_ever(open_gateway: OpenGateway) -> None:
    response = opened(open_gateway, NAMED).post("/v1/segment", json=BODY)
    assert response.status_code == 200
    assert allowed(response) == {}


@pytest.mark.parametrize("policy", [CorsPolicy(("*",)), NAMED, CorsPolicy((SHOP,), credentials=True)])
@pytest.mark.parametrize("path", ["/v1/segment", "/segment/sam2", "/invocations/", "/v1/models/grounded_sam"])
def test_a_preflight_needs_no_key(open_gateway: OpenGateway, policy: CorsPolicy, path: str) -> None:
    gateway = opened(open_gateway, policy, api_keys=frozenset({"key"}))
    response = preflight(gateway, SHOP, path)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == ("*" if policy.origins == ("*",) else SHOP)
    methods = {method.strip() for method in response.headers["access-control-allow-methods"].split(",")}
    assert {"GET", "POST", "PUT"} <= methods
    names = {name.strip().lower() for name in response.headers["access-control-allow-headers"].split(",")}
    assert {"authorization", "x-api-key", "content-type", "x-amzn-sagemaker-custom-attributes"} <= names
    assert response.headers["x-request-id"]


def test_the_request_after_the_preflight_needs_its_key(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    gateway = opened(open_gateway, NAMED, api_keys=frozenset({"key"}))
    without = gateway.post("/v1/segment", json=BODY, headers={"Origin": SHOP})
    assert without.status_code == 401
    assert torchserve.seen == []
    assert gateway.post("/v1/segment", json=BODY, headers={"Origin": SHOP, "X-API-Key": "key"}).status_code == 200


def test_an_options_request_that_is_no_preflight_is_one_like_others(open_gateway: OpenGateway) -> None:
    gateway = opened(open_gateway, NAMED)
    response = gateway.options("/v1/segment", headers={"Origin": SHOP})
    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")


def test_failures_of_every_layer_can_be_read_by_the_page(open_gateway: OpenGateway, torchserve: FakeTorchServe) -> None:
    limits = RequestLimits(max_body_bytes=20_000)
    gateway = opened(open_gateway, NAMED, api_keys=frozenset({"key"}), limits=limits)
    headers = {"Origin": SHOP, "X-API-Key": "key"}
    torchserve.script = [RuntimeError("a bug")]
    failures = {
        401: gateway.post("/v1/segment", json=BODY, headers={"Origin": SHOP}),
        400: gateway.post("/invocations", json={"action": "?"}, headers=headers),
        404: gateway.get("/nowhere", headers=headers),
        405: gateway.put("/v1/segment", headers=headers),
        413: gateway.post("/v1/segment", content=b" " * 20_001, headers=headers),
        500: gateway.post("/v1/segment", json=BODY, headers=headers),
    }
    for status, response in failures.items():
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == SHOP, status
        assert response.json()["error"]["message"]


def test_every_origin_never_comes_with_credentials(open_gateway: OpenGateway) -> None:
    gateway = opened(open_gateway, CorsPolicy(("*",)))
    for response in (gateway.get("/livez", headers={"Origin": OTHER, "Cookie": "a=b"}), preflight(gateway, OTHER)):
        assert response.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in response.headers
    with pytest.raises(InvalidRequestError, match="SEGSERVE_CORS_CREDENTIALS"):
        CorsPolicy(("*",), credentials=True)


def test_credentials_are_allowed_to_named_origins_only(open_gateway: OpenGateway) -> None:
    gateway = opened(open_gateway, CorsPolicy((SHOP,), credentials=True))
    for response in (gateway.get("/livez", headers={"Origin": SHOP}), preflight(gateway, SHOP)):
        assert response.headers["access-control-allow-origin"] == SHOP
        assert response.headers["access-control-allow-credentials"] == "true"
    assert allowed(gateway.get("/livez", headers={"Origin": OTHER})) == {}
