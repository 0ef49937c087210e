"""A service that does not answer as it should: the page says so in words, and goes on by itself once it does."""

from __future__ import annotations

import copy
import json
from functools import partial
from typing import Any

from playwright.sync_api import Route, expect
from servers import ADMIN_KEY, Served

from web_page.conftest import OpenGateway, OpenPage, Room
from web_page.segmenting_page import SegmentingPage

KEY = "open-sesame"


def test_models_that_cannot_be_listed_are_talked_about(page: SegmentingPage) -> None:
    page.refusals = {502, 404}
    trouble = page.element("#trouble")
    answers: list[tuple[dict[str, Any], str]] = [
        ({"status": 502, "body": "<html>Bad Gateway</html>"}, "The server answered 502"),
        ({"status": 404, "body": "nothing here"}, "The server answered 404"),
        ({"status": 200, "body": "<html>Sign in</html>"}, "not JSON"),
        ({"status": 200, "body": "null"}, "without a list of models"),
        ({"status": 200, "body": '{"results": []}'}, "without a list of models"),
    ]
    # Answered like this from the first request on, and later on: the page asks by itself.
    for number, (answer, said) in enumerate(answers):
        page.tab.route("**/v1/models", partial(fulfill, answer))
        if number == 0:
            page.tab.reload()
        expect(trouble).to_contain_text(said)
        expect(trouble).to_contain_text("asks again")
        expect(page.element("#served")).to_have_attribute("data-state", "error")
    page.tab.route("**/v1/models", lambda route: route.abort())
    expect(trouble).to_contain_text("cannot be reached")
    page.tab.unroute_all()
    expect(trouble).to_be_hidden()
    expect(page.element("#served")).to_contain_text("models ready")
    page.forgive()


def fulfill(answer: dict[str, Any], route: Route) -> None:
    route.fulfill(**answer)


def test_a_service_that_does_not_allow_the_page_is_talked_about(
    open_page: OpenPage, open_gateway: OpenGateway, demo: Served
) -> None:
    page = open_page(open_gateway(page_endpoint=demo.url))
    expect(page.element("#trouble")).to_contain_text(f"The server at {demo.url} cannot be reached")
    expect(page.element("#trouble")).to_contain_text(f"SEGSERVE_CORS_ORIGINS={page.url}")
    # The browser has words of its own about this, and the endpoint is the stranger that was asked; nothing is asked
    # from here on.
    page.open("/docs")
    page.forgive()
    page.requests.clear()


def test_a_key_stays_in_its_field_until_it_has_proved_right(
    open_page: OpenPage, open_gateway: OpenGateway, room: Room
) -> None:
    page = open_page(open_gateway(api_keys=frozenset({KEY})))
    page.refusals = {401, 502}
    form, field, message = page.element("#key-form"), page.element("#key"), page.element("#key-message")
    for strange, code in (("k☃", "U+2603"), (f"{KEY}\u200b", "U+200B"), ("kéy", "U+00E9")):
        field.fill(strange)
        expect(message).to_contain_text(code)
        page.element("#save-key").click()
        expect(message).to_contain_text(code)
        expect(form).to_be_visible()
    field.fill("wrong")
    page.element("#save-key").click()
    expect(message).to_contain_text("not valid")
    expect(form).to_be_visible()
    page.tab.route("**/v1/models", lambda route: route.fulfill(status=502, body=""))
    field.fill(f"  {KEY} ")
    page.element("#save-key").click()
    expect(message).to_contain_text("502")
    expect(form).to_be_visible()
    page.tab.unroute("**/v1/models")
    page.element("#save-key").click()
    expect(form).to_be_hidden()
    page.choose(room.file)
    page.mode("text")
    page.ask("floor.")


def test_an_admin_key_that_no_header_can_hold_is_refused_in_words(page: SegmentingPage) -> None:
    page.element("#open-models").click()
    page.element("#admin-key").fill(f"{ADMIN_KEY}\u200b")
    page.element("#models-panel tr[data-model=semantic] button.scale").click()
    expect(page.element("#models-message")).to_contain_text("U+200B")


def test_an_answer_that_makes_no_sense_is_refused_in_words(page: SegmentingPage, room: Room) -> None:
    page.choose(room.file)
    page.mode("text")
    answer = page.ask("floor.")
    size = {"width": 480, "height": 640}
    answers: list[tuple[object, str]] = [
        (None, "no result"),
        ({"results": []}, "no result"),
        ({"results": [None]}, "no result"),
        ([], "no result"),
        ({"results": [size]}, "cannot be read"),
        ({"results": [{**size, "instances": [{"mask": {}}]}]}, "cannot be read"),
        ({"results": [{**size, "classes": ["floor"], "label_map": "?"}]}, "cannot be read"),
        ({"results": [{"width": 640, "height": 480, "instances": []}]}, "a picture of 640 × 480"),
        (sideways(answer), "a mask of 640 × 480"),
        ({"processed_images": []}, "could not be tiled"),
    ]
    for told, said in answers:
        page.tab.route(
            "**/v1/segment", partial(fulfill, {"body": json.dumps(told), "content_type": "application/json"})
        )
        page.element("#run").click()
        expect(page.element("#error-message")).to_contain_text(said)
        words = page.element("#error").inner_text()
        assert "undefined" not in words and "properties" not in words
        assert page.labels() == [], "nothing is laid over a picture that it does not fit"
        page.element("#dismiss").click()
    page.tab.unroute_all()
    page.ask("floor.")


def sideways(answer: Any) -> Any:
    """An answer whose masks have another size than its picture."""
    turned = copy.deepcopy(answer)
    for instance in turned["results"][0]["instances"]:
        instance["mask"]["size"].reverse()
    return turned


def test_all_workers_are_stopped_from_the_panel(page: SegmentingPage) -> None:
    """What the gateway is asked, and how its answer reads; that workers end is tested with the route."""
    asked = []

    def scaled(route: Route) -> None:
        asked.append(route.request.url.partition("?")[2])
        route.fulfill(json={"name": "semantic", "workers": 0})

    page.tab.route("**/v1/models/semantic?*", scaled)
    page.element("#open-models").click()
    row = page.element("#models-panel tr[data-model=semantic]")
    fewest, most = (row.locator(f"input[name={name}]") for name in ("min", "max"))
    fewest.fill("3")
    expect(most).to_have_value("3")
    most.fill("0")
    expect(fewest).to_have_value("0")
    assert most.evaluate("input => input.validity.valid")
    row.locator("button.scale").click()
    expect(page.element("#models-message")).to_contain_text("no worker now")
    assert asked == ["min_workers=0&max_workers=0"]


def test_the_documentation_page_leaves_the_console_empty(page: SegmentingPage) -> None:
    page.open("/docs")
    answer = page.evaluate(
        "fetch('/favicon.ico').then((answer) => [answer.status, answer.headers.get('content-type')])"
    )
    assert answer == [200, "image/svg+xml"]
