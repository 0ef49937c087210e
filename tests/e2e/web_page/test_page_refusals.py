"""What goes wrong is said in words, once, and nothing that came from elsewhere is ever run."""

from __future__ import annotations

from pathlib import Path

import requests
from playwright.sync_api import Route, expect
from servers import ADMIN_KEY, Served

from web_page.conftest import OpenGateway, OpenPage, Room
from web_page.segmenting_page import SegmentingPage

HOSTILE = "<img src=x onerror=executed.push(1)>"


def test_a_refused_prompt_is_explained(page: SegmentingPage, room: Room) -> None:
    page.refusals = {422}
    page.choose(room.file)
    page.mode("text")
    page.element("#text").fill("?")
    page.element("#run").click()
    expect(page.element("#error")).to_be_visible()
    expect(page.element("#error")).to_contain_text("punctuation only")
    expect(page.element("#error-details")).to_contain_text("invalid_prompt")
    expect(page.element("#status")).to_have_attribute("data-state", "error")
    page.element("#dismiss").click()
    expect(page.element("#error")).to_be_hidden()
    page.ask("floor.")
    assert page.labels() == ["floor"]


def test_what_is_no_picture_is_refused_in_words(page: SegmentingPage, tmp_path: Path) -> None:
    file = tmp_path / "notes.png"
    file.write_bytes(b"no picture at all")
    page.element("#file").set_input_files(file)
    expect(page.element("#error")).to_be_visible()
    expect(page.element("#error")).to_contain_text("notes.png")


def test_a_key_is_asked_for_and_used(open_page: OpenPage, open_gateway: OpenGateway, room: Room) -> None:
    page = open_page(open_gateway(api_keys=frozenset({"open-sesame"})))
    page.refusals = {401}
    expect(page.element("#key-form")).to_be_visible()
    page.element("#key").fill("wrong")
    page.element("#save-key").click()
    expect(page.element("#key-form")).to_be_visible()
    page.element("#key").fill("open-sesame")
    page.element("#save-key").click()
    expect(page.element("#key-form")).to_be_hidden()
    page.choose(room.file)
    page.mode("text")
    # As when the key has been changed meanwhile: one request arrives without it, and is sent again with the new one.
    page.tab.route("**/v1/segment", without_key, times=1)
    page.element("#text").fill("floor.")
    page.element("#run").click()
    expect(page.element("#key-form")).to_be_visible()
    page.element("#key").fill("open-sesame")
    page.element("#save-key").click()
    page.is_done()
    assert page.labels() == ["floor"]
    assert "open-sesame" not in page.tab.content()
    assert "open-sesame" not in page.snippet("curl") + page.snippet("python")


def without_key(route: Route) -> None:
    route.continue_(headers={name: value for name, value in route.request.headers.items() if name != "x-api-key"})


def test_a_request_waits_for_a_model_that_is_still_loading(page: SegmentingPage, demo: Served, room: Room) -> None:
    page.refusals = {503}
    page.choose(room.file)
    page.mode("semantic")
    scale(page, "semantic", 0)
    expect(page.element("#modes [data-mode=semantic]")).to_have_attribute("data-state", "loading")
    page.element("#run").click()
    expect(page.element("#status")).to_have_attribute("data-state", "waiting")
    page.element("#cancel").click()
    expect(page.element("#status")).to_have_attribute("data-state", "idle")
    page.element("#run").click()
    expect(page.element("#status")).to_have_attribute("data-state", "waiting")
    scale(page, "semantic", 1)
    page.is_done()
    assert "floor" in page.labels()
    expect(page.element("#modes [data-mode=semantic]")).to_have_attribute("data-state", "ready")


def scale(page: SegmentingPage, model: str, workers: int) -> None:
    """Set a model's workers in the models panel."""
    page.element("#open-models").click()
    page.element("#admin-key").fill(ADMIN_KEY)
    row = page.element(f"#models-panel tr[data-model={model}]")
    for name in ("min", "max"):
        row.locator(f"input[name={name}]").fill(str(max(workers, int(name == "max"))))
    with page.tab.expect_response(lambda response: response.request.method == "PUT", timeout=60_000) as info:
        row.locator("button.scale").click()
    assert info.value.ok, info.value.text()
    page.element("#close-models").click()


def test_the_models_panel_needs_the_admin_key(page: SegmentingPage) -> None:
    page.refusals = {401}
    page.element("#open-models").click()
    row = page.element("#models-panel tr[data-model=semantic]")
    expect(row.locator(".workers")).to_contain_text("1")
    page.element("#admin-key").fill("wrong")
    row.locator("input[name=min]").fill("2")
    row.locator("button.scale").click()
    expect(page.element("#models-message")).to_contain_text("admin key")
    page.tab.keyboard.press("Escape")
    expect(page.element("#models-panel")).to_be_hidden()


def test_names_and_labels_are_text_whatever_they_hold(page: SegmentingPage, room: Room, tmp_path: Path) -> None:
    """The labels are put into a real answer: no demo model gives such ones."""
    form = {
        "image": room.file.read_bytes(),
        "request": (None, '{"model": "grounded_sam", "prompt": {"text": "floor. bed."}}'),
    }
    answer = requests.post(f"{page.url}/v1/segment", files=form, timeout=60).json()
    for instance in answer["results"][0]["instances"]:
        instance["label"] = f"</li>{HOSTILE}"
    page.tab.route("**/v1/segment", lambda route: route.fulfill(json=answer))
    file = tmp_path / f"{HOSTILE}.png"
    file.write_bytes(room.file.read_bytes())
    page.choose(file)
    page.mode("text")
    page.ask("floor. bed.")
    assert set(page.labels()) == {f"</li>{HOSTILE}"}
    page.element("#results li").first.hover()
    assert HOSTILE in page.snippet("curl")
    page.download("overlay")
    assert page.element("img[src=x]").count() == 0


def test_a_hostile_error_is_text(page: SegmentingPage, room: Room) -> None:
    page.refusals = {422}

    error = {"code": HOSTILE, "message": HOSTILE, "request_id": HOSTILE}
    page.tab.route("**/v1/segment", lambda route: route.fulfill(status=422, json={"error": error}))
    page.choose(room.file)
    page.mode("text")
    page.element("#text").fill("floor.")
    page.element("#run").click()
    expect(page.element("#error")).to_contain_text(HOSTILE)
    assert page.element("img[src=x]").count() == 0


def test_the_policy_stops_scripts_of_others(demo: Served) -> None:
    policy = requests.get(demo.url, timeout=30).headers["Content-Security-Policy"]
    rules = {name: values for name, *values in (rule.split() for rule in policy.split(";"))}
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == rules["style-src"] == ["'self'"]
    assert "unsafe" not in policy and "*" not in policy


def test_a_policy_violation_would_be_seen(page: SegmentingPage) -> None:
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('img'), { src: 'data:image/gif;base64,' }))"
    )
    page.tab.wait_for_function("window.cspViolations.length > 0")
    page.evaluate("window.cspViolations = []")
    page.forgive()
