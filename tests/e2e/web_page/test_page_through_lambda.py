"""The page in front of an endpoint: browser, API Gateway's stand-in, the packed Lambda function, boto3, a gateway that
answers as SageMaker's runtime does, TorchServe with the demo models.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests
from playwright.sync_api import expect
from segserve_api.handler import Api
from segserve_api.keys import Keys
from segserve_api.page import Page
from segserve_api.settings import ApiSettings
from servers import ROOT

from api_gateway import api_gateway
from segserve import imaging
from web_page.conftest import OpenGateway, OpenPage, Room
from web_page.segmenting_page import SegmentingPage

KEY = "open-sesame"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The function's package, unpacked as Lambda does it."""
    folder = tmp_path_factory.mktemp("function")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "sagemaker"), *sys.path])
        import lambda_package

        lambda_package.build(folder / "api.zip")
    with zipfile.ZipFile(folder / "api.zip") as archive:
        archive.extractall(folder)
    return folder / "segserve_api"


@pytest.fixture(autouse=True)
def endpoint(open_gateway: OpenGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """What boto3's client takes for SageMaker's runtime."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", open_gateway(sagemaker_runtime=True))


def api_with_key(packed: Path, *origins: str) -> Api:
    settings = ApiSettings("segserve", origins=origins, timeout_s=60.0, api_key_secret="a-secret")
    return Api(settings, keys=Keys("a-secret", lambda secret: KEY), page=Page(packed / "page"))


def give_key(page: SegmentingPage) -> None:
    """The API answered 401, so that the page asks for a key."""
    page.refusals = {401}
    page.element("#key").fill(KEY)
    page.element("#save-key").click()
    expect(page.element("#key-form")).to_be_hidden()


def test_the_functions_own_page_under_a_stage(packed: Path, open_page: OpenPage, room: Room, tmp_path: Path) -> None:
    api = api_with_key(packed)
    with api_gateway(lambda event, context: api.handle(event), stage="prod") as url:
        # The page's own addresses are relative: without a slash behind the stage they would lead elsewhere.
        assert requests.get(url, timeout=30).url == f"{url}/"
        page = open_page(url)
        give_key(page)
        page.choose(room.file)
        page.mode("text")
        page.ask("floor.")
        assert page.labels() == ["floor"]
        page.mode("click")
        page.answer_to(lambda: page.click(320, 440))
        assert page.labels()
        page.mode("semantic")
        page.run()
        assert "floor" in page.labels()
        page.mode("tile")
        page.answer_to(page.element("#run").click, path="/invocations")
        expect(page.element("#status")).to_contain_text("Laid")
        assert f"{url}/v1/segment" in page.requests
        assert f"curl -sS '{url}/invocations'" in page.snippet("curl")
        # Scaling is the endpoint's own.
        page.refusals = {401, 405}
        page.element("#open-models").click()
        page.element("#models-panel tr[data-model=semantic] button.scale").click()
        expect(page.element("#models-message")).to_contain_text("own scaling")
        page.element("#close-models").click()
        # What Lambda would not take is refused before the function, in other words than the API's.
        page.refusals = {401, 405, 413}
        page.choose(too_large(tmp_path / "noise.png"))
        page.element("#run").click()
        expect(page.element("#error")).to_contain_text("too large for this server")


def too_large(file: Path) -> Path:
    """A picture of more than 6 MB, as base64."""
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1500, 3), dtype=np.uint8)
    file.write_bytes(imaging.encode(pixels))
    return file


def test_a_page_of_another_origin(packed: Path, open_gateway: OpenGateway, open_page: OpenPage, room: Room) -> None:
    apis: list[Api] = []
    with api_gateway(lambda event, context: apis[0].handle(event), stage="prod") as url:
        origin = open_gateway(page_endpoint=url)
        apis.append(api_with_key(packed, origin))
        page = open_page(origin)
        give_key(page)
        page.choose(room.file)
        page.mode("text")
        page.element("#text").fill("bed.")
        page.element("#run").click()
        page.is_done()
        assert page.labels() == ["bed"]
        # An error of the model comes with its own words, which only an allowed page may read.
        page.refusals = {401, 422}
        page.element("#text").fill("?")
        page.element("#run").click()
        expect(page.element("#error")).to_contain_text("punctuation only")
        asked = [address for address in page.requests if address.startswith(url)]
        assert f"{url}/v1/segment" in asked and f"{url}/v1/models" in asked
        # The API's address is the one stranger that this page may ask.
        page.requests[:] = [address for address in page.requests if address not in asked]
