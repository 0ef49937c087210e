"""The OpenAPI document and its page: every route, its models, its errors, and nothing from the network."""

from __future__ import annotations

import re
from typing import Any

from gateways import OpenGateway
from starlette.testclient import TestClient

from segserve.config import Settings

ROUTES = {
    ("/", "get"),
    ("/v1/segment", "post"),
    ("/v1/categories", "get"),
    ("/v1/picture", "post"),
    ("/predict", "post"),
    ("/healthcheck", "get"),
    ("/infer/url", "post"),
    ("/infer/file", "post"),
    ("/v1/models", "get"),
    ("/v1/models/{name}", "get"),
    ("/v1/models/{name}", "put"),
    ("/invocations", "post"),
    ("/models", "get"),
    ("/models", "post"),
    ("/models/{name}", "get"),
    ("/models/{name}", "delete"),
    ("/models/{name}/invoke", "post"),
    ("/segment/langsam", "post"),
    ("/segment/sam2", "post"),
    ("/api", "get"),
    ("/api/detect-area-base64", "post"),
    ("/api/detect-area-all", "post"),
    ("/api/detect-area-by-name", "post"),
    ("/execution-parameters", "get"),
    ("/ping", "get"),
    ("/livez", "get"),
    ("/readyz", "get"),
    ("/metrics", "get"),
    ("/docs", "get"),
    ("/openapi.json", "get"),
}


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {value["$ref"]} if "$ref" in value else set().union(*map(references, value.values()), set())
    return set().union(*map(references, value)) if isinstance(value, list) and value else set()


def test_every_route_is_documented_with_its_errors(gateway: TestClient) -> None:
    document = gateway.get("/openapi.json").json()
    operations = {
        (path, method): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == ROUTES
    for route in (("/v1/segment", "post"), ("/invocations", "post")):
        answers = operations[route]["responses"]
        assert {"200", "400", "401", "404", "413", "415", "422", "424", "429", "500", "503", "504"} <= set(answers)
        for status, answer in answers.items():
            if status != "200":
                assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
        assert "application/json" in operations[route]["requestBody"]["content"]
    for route, operation in operations.items():
        assert operation["description"], route
        assert operation["responses"]["200"]["content"], route


def test_the_runtimes_routes_are_documented_where_they_are_there(open_gateway: OpenGateway) -> None:
    paths = (
        open_gateway(Settings(models=("grounded_sam",), sagemaker_runtime=True)).get("/openapi.json").json()["paths"]
    )
    added = {(path, method) for path, methods in paths.items() for method in methods} - ROUTES
    assert added == {
        ("/endpoints/{name}/invocations", "post"),
        ("/endpoints/{name}/invocations-response-stream", "post"),
    }


def test_the_documents_references_all_lead_somewhere(gateway: TestClient) -> None:
    document = gateway.get("/openapi.json").json()
    found = references(document)
    assert "#/components/schemas/SegmentRequest" in found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference


def test_the_page_shows_every_route_and_loads_nothing(gateway: TestClient) -> None:
    response = gateway.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    for path, method in ROUTES:
        assert f'<span class="method">{method.upper()}</span> <code>{path}</code>' in response.text
    assert not re.search(r"<script|<link|<img|@import|src=|url\(|https?://", response.text)
