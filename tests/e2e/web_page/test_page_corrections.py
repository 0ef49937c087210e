"""Further clicks on the page correct the answer that is shown: its low-resolution mask goes with them, and no other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Route, expect
from servers import SCENE_SEED

from segserve import imaging, mask_logits
from segserve.training.scenes import make_scene
from web_page.conftest import Room
from web_page.segmenting_page import SegmentingPage
from web_page.test_page_downloads import run_in
from web_page.test_page_prompts import instances_of

BED, BESIDE, FLOOR = (300, 480), (60, 300), (240, 610)
"""In the bedroom; where they lie is of no matter to what is sent."""


@pytest.fixture
def clicking(page: SegmentingPage, room: Room) -> SegmentingPage:
    """The page with the bedroom, in the way Click."""
    page.choose(room.file)
    page.mode("click")
    return page


def clicked(page: SegmentingPage, at: tuple[int, int], *, away: bool = False) -> tuple[dict[str, Any], list[Any]]:
    """Click; returns what was asked, and the instances that were answered."""
    answer = page.answer_to(lambda: page.click(*at, button="right" if away else "left"))
    return page.asked()[-1], instances_of(answer)


def pressed(page: SegmentingPage, button: str) -> tuple[dict[str, Any], list[Any]]:
    answer = page.answer_to(page.element(f"#{button}").click)
    return page.asked()[-1], instances_of(answer)


def best(instances: list[Any], number: int = 0) -> str:
    """The low-resolution mask of the likeliest answer to an object."""
    found = [each for each in instances if each["object"] == number]
    text: str = max(found, key=lambda each: each["score"])["low_res"]
    assert mask_logits.from_text(text, "low_res").shape == (64, 64)
    return text


def only(asked: dict[str, Any]) -> dict[str, Any]:
    """The one object of a prompt with objects."""
    (one,) = asked["prompt"]["objects"]
    return dict(one)


def test_a_further_click_goes_with_the_mask_of_the_answer_before(clicking: SegmentingPage) -> None:
    first, found = clicked(clicking, BED)
    assert first["prompt"].keys() == {"points"} and first["parameters"] == {"low_res": True}
    assert len(found) == 3 and len({each["low_res"] for each in found}) == 3
    second, corrected = clicked(clicking, BESIDE, away=True)
    assert second["parameters"] == {"low_res": True}
    assert only(second).keys() == {"points", "mask"} and only(second)["mask"] == best(found)
    assert only(second)["points"][0] == first["prompt"]["points"][0]
    assert [label for _, _, label in only(second)["points"]] == [1, 0]
    third, _ = clicked(clicking, FLOOR, away=True)
    assert only(third)["mask"] == best(corrected) != best(found)
    assert len(only(third)["points"]) == 3


def test_the_reading_that_is_shown_is_the_one_that_is_corrected(clicking: SegmentingPage) -> None:
    _, found = clicked(clicking, BED)
    assert shown(clicking) == [0]
    expect(clicking.element("#status")).to_contain_text("1 object, 3 readings, in")
    choose_reading(clicking, 2)
    assert shown(clicking) == [2]
    second, _ = clicked(clicking, BESIDE, away=True)
    assert only(second)["mask"] == found[2]["low_res"]
    pressed(clicking, "undo")
    assert shown(clicking) == [2], "what people chose is shown again"
    assert only(clicked(clicking, FLOOR, away=True)[0])["mask"] == found[2]["low_res"]


def choose_reading(page: SegmentingPage, index: int) -> None:
    """Show this entry of the list, which takes the place of the other readings of its object."""
    page.element(f"#results li[data-index='{index}'] input").check()


def shown(page: SegmentingPage) -> list[int]:
    """The indices of the entries that are shown."""
    entries = page.element("#results li:has(input:checked)")
    return [int(index) for index in entries.evaluate_all("entries => entries.map((entry) => entry.dataset.index)")]


def test_after_an_undo_a_click_goes_with_the_mask_of_the_state_that_is_back(clicking: SegmentingPage) -> None:
    first, found = clicked(clicking, BED)
    second, corrected = clicked(clicking, BESIDE, away=True)
    clicked(clicking, FLOOR, away=True)
    again, answer = pressed(clicking, "undo")
    assert again == second and answer == corrected
    again, answer = pressed(clicking, "undo")
    assert again == first and answer == found
    other, _ = clicked(clicking, FLOOR, away=True)
    assert only(other)["mask"] == best(found)


def test_a_click_after_an_undo_needs_no_second_answer(clicking: SegmentingPage) -> None:
    _, found = clicked(clicking, BED)
    clicked(clicking, BESIDE, away=True)
    hold(clicking)
    clicking.element("#undo").click()
    clicking.tab.wait_for_function("asked.length === 3")
    other, _ = clicked(clicking, FLOOR, away=True)
    assert only(other)["mask"] == best(found)


def test_a_click_that_comes_before_the_answer_goes_with_the_last_mask_there_is(clicking: SegmentingPage) -> None:
    _, found = clicked(clicking, BED)
    hold(clicking)
    clicking.click(*BESIDE, button="right")
    clicking.tab.wait_for_function("asked.length === 2")
    third, _ = clicked(clicking, FLOOR, away=True)
    assert only(third)["mask"] == best(found)
    assert len(only(third)["points"]) == 3


def hold(page: SegmentingPage) -> None:
    """The next request is never answered; the one after it is."""
    page.tab.route("**/v1/segment", lambda route: None, times=1)


def test_reset_and_another_picture_forget(clicking: SegmentingPage, tmp_path: Path) -> None:
    clicked(clicking, BED)
    clicked(clicking, BESIDE, away=True)
    clicking.element("#reset").click()
    expect(clicking.element("#points")).to_have_text("No points")
    fresh, _ = clicked(clicking, FLOOR)
    assert fresh["prompt"].keys() == {"points"}
    other = tmp_path / "other.png"
    other.write_bytes(imaging.encode(make_scene(SCENE_SEED + 1, (640, 480)).image))
    clicking.choose(other)
    fresh, _ = clicked(clicking, BED)
    assert fresh["prompt"].keys() == {"points"} and len(fresh["prompt"]["points"]) == 1


def test_each_object_has_its_own_mask(clicking: SegmentingPage) -> None:
    _, found = clicked(clicking, BED)
    _, corrected = clicked(clicking, BESIDE, away=True)
    clicking.element("#next-object").click()
    two, both = clicked(clicking, FLOOR)
    bed, floor = two["prompt"]["objects"]
    assert bed["mask"] == best(found) and floor.keys() == {"points"}
    assert [each["mask"] for each in both if each["object"] == 0] == [each["mask"] for each in corrected]
    readings = [index for index, each in enumerate(both) if each["object"] == 1]
    assert len(readings) == 3
    # The least likely one: what is shown of the other object comes before it.
    choose_reading(clicking, readings[2])
    corrected_floor, _ = clicked(clicking, BESIDE, away=True)
    again, floor = corrected_floor["prompt"]["objects"]
    assert again == bed, "an object that nobody clicked on is asked for as before"
    assert floor["mask"] == both[readings[2]]["low_res"]
    assert len(floor["points"]) == 2


def test_what_was_hidden_stays_hidden_while_another_object_is_clicked_on(clicking: SegmentingPage) -> None:
    _, found = clicked(clicking, BED)
    choose_reading(clicking, 1)
    clicking.element("#next-object").click()
    _, both = clicked(clicking, FLOOR)
    of_bed = [index for index, each in enumerate(both) if each["object"] == 0]
    assert both[of_bed[1]]["mask"] == found[1]["mask"]
    best_floor = next(index for index, each in enumerate(both) if each["object"] == 1)
    assert sorted(shown(clicking)) == sorted([of_bed[1], best_floor])


def test_a_box_is_corrected_by_a_click_and_replaced_by_another_box(clicking: SegmentingPage) -> None:
    clicking.mode("box")
    clicking.answer_to(lambda: clicking.drag((20, 40), (120, 200)))
    answer = clicking.answer_to(lambda: clicking.drag((130, 380), (460, 600)))
    asked, found = clicking.asked()[-1], instances_of(answer)
    assert asked["prompt"].keys() == {"boxes"} and len(asked["prompt"]["boxes"]) == 2
    assert asked["parameters"] == {"low_res": True}
    clicking.mode("click")
    asked, _ = clicked(clicking, BESIDE, away=True)
    one, two = asked["prompt"]["objects"]
    assert one.keys() == {"box"} and two.keys() == {"box", "points", "mask"}
    assert two["mask"] == best(found, 1)
    clicking.answer_to(lambda: clicking.drag((100, 350), (470, 610)))
    assert clicking.asked()[-1]["prompt"]["objects"][1].keys() == {"box", "points"}


def test_a_model_that_has_no_masks_is_not_asked_for_them(clicking: SegmentingPage) -> None:
    clicking.refusals = {404}
    clicked(clicking, BED)

    def with_another(route: Route) -> None:
        models = route.fetch().json()["models"]
        (sam2,) = [each for each in models if each["kind"] == "sam2"]
        parameters = [name for name in sam2["parameters"] if name != "low_res"]
        route.fulfill(json={"models": [*models, {**sam2, "name": "other", "parameters": parameters}]})

    clicking.tab.route("**/v1/models", with_another)
    clicking.element("#open-models").click()
    clicking.element("#close-models").click()
    clicking.element("#model").select_option("other")
    # Nobody serves it: what counts is what the page asks of it.
    clicking.click(*BESIDE, button="right")
    expect(clicking.element("#error")).to_be_visible()
    asked = clicking.asked()[-1]
    assert asked["model"] == "other" and asked.keys() == {"model", "prompt"}
    assert asked["prompt"].keys() == {"points"} and len(asked["prompt"]["points"]) == 2
    clicking.element("#model").select_option("sam2")
    back, _ = clicked(clicking, FLOOR, away=True)
    assert back["prompt"].keys() == {"points"}, "a mask of one model is nothing for another"


def test_masks_are_asked_for_while_answers_stay_small(page: SegmentingPage) -> None:
    """Each object may have three of them, of 175 kB where the published weights are served."""
    parameters = page.evaluate(_PARAMETERS_OF)
    assert parameters == {"1": {"low_res": True}, "16": {"low_res": True}, "17": {}}


_PARAMETERS_OF = """async () => {
  const { ClickRequest } = await import("/static/js/request.js");
  const model = { name: "sam2", parameters: ["multimask", "low_res"] };
  const asked = (count) => {
    const objects = Array.from({ length: count }, () => ({ points: [[1, 1, 1]], box: null, earlier: null }));
    return new ClickRequest(null, model, objects, {}).parameters;
  };
  return Object.fromEntries([1, 16, 17].map((count) => [count, asked(count)]));
}"""


def test_the_code_of_a_correction_is_short_and_gives_what_the_page_shows(
    clicking: SegmentingPage, room: Room, tmp_path: Path
) -> None:
    (tmp_path / "room.png").write_bytes(room.file.read_bytes())
    clicked(clicking, BED)
    choose_reading(clicking, 1)
    clicked(clicking, BESIDE, away=True)
    clicked(clicking, FLOOR, away=True)
    clicking.element("#next-object").click()
    clicked(clicking, FLOOR)
    _, found = clicked(clicking, BED, away=True)
    python, curl = clicking.snippet("python"), clicking.snippet("curl")
    assert len(python) < 2500 and len(curl) < 600
    shown_masks = [each["mask"]["counts"] for each in found]
    added = '\n    print([instance.rle["counts"] for instance in result.instances])'
    printed = run_in(tmp_path, [sys.executable, "-c", python + added]).strip().splitlines()
    assert printed[-1] == str(shown_masks)
    assert "low_res=True" in python
    (result,) = json.loads(run_in(tmp_path, ["bash", "-c", curl]))["results"]
    assert [each["object"] for each in result["instances"]] and "low_res" not in result["instances"][0]
    assert curl.startswith("# ") and "mask" in curl.splitlines()[0]
