"""Every way to ask, on the page: what is shown is what the server answered, and the answer is right."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import expect

from segserve import masks
from segserve.training.scenes import CATEGORIES
from web_page.conftest import Room
from web_page.segmenting_page import SegmentingPage


def instances_of(answer: Any) -> list[dict[str, Any]]:
    (result,) = answer["results"]
    found: list[dict[str, Any]] = result["instances"]
    return found


def only_mask(answer: Any) -> masks.Mask:
    """The mask of an answer that has exactly one."""
    (instance,) = instances_of(answer)
    return masks.decode_rle(instance["mask"])


def thing(room: Room, category: str) -> masks.Mask:
    """The largest object of a category."""
    found = [each for each in room.scene.objects if each.category == category and not each.ignore]
    return room.scene.mask(max(found, key=lambda each: each.area))


def middle(mask: masks.Mask) -> tuple[int, int]:
    """The pixel (x, y) of a mask that is farthest from its edge."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), mask.shape)
    return int(x), int(y)


def test_text(page: SegmentingPage, room: Room) -> None:
    page.choose(room.file)
    expect(page.element("#picture-name")).to_contain_text("480 × 640")
    page.mode("text")
    before = page.look()
    found = instances_of(page.ask("floor. bed. giraffe."))
    assert sorted({each["label"] for each in found}) == ["bed", "floor"]
    assert page.labels() == [each["label"] for each in found]
    assert page.scores() == [pytest.approx(each["score"], abs=0.006) for each in found]
    page.look_other_than(before)
    floor = max((each for each in found if each["label"] == "floor"), key=lambda each: each["score"])
    assert masks.iou(masks.decode_rle(floor["mask"]), room.floor) > 0.8
    page.ask("giraffe.")
    expect(page.element("#status")).to_contain_text("Nothing found")
    assert page.labels() == []


def test_an_instance_is_highlighted_hidden_and_faded(page: SegmentingPage, room: Room) -> None:
    page.choose(room.file)
    page.mode("text")
    found = instances_of(page.ask("floor. bed."))
    bed = [each["label"] for each in found].index("bed")
    item = page.element(f"#results li[data-index='{bed}']")
    page.tab.mouse.move(1, 1)
    look = page.look()
    page.tab.mouse.move(*page.at(*middle(masks.decode_rle(found[bed]["mask"]))))
    expect(item).to_have_class("highlighted")
    page.tab.mouse.move(1, 1)
    expect(item).not_to_have_class("highlighted")
    item.hover()
    expect(item).to_have_class("highlighted")
    look = page.look_other_than(look)
    page.tab.mouse.move(1, 1)
    item.locator("input[type=checkbox]").uncheck()
    look = page.look_other_than(look)
    page.element("#opacity").fill("90")
    look = page.look_other_than(look)
    page.element("#all").check()
    look = page.look_other_than(look)
    page.element("#all").uncheck()
    page.look_other_than(look)


def test_instances(page: SegmentingPage, room: Room) -> None:
    page.choose(room.file)
    page.mode("instances")
    found = instances_of(page.run())
    assert {"bed", "floor", "wall"} <= set(page.labels()) and len(page.labels()) == len(found)
    bed = max((each for each in found if each["label"] == "bed"), key=lambda each: each["score"])
    assert masks.iou(masks.decode_rle(bed["mask"]), thing(room, "bed")) > 0.6


def test_semantic(page: SegmentingPage, room: Room) -> None:
    page.choose(room.file)
    page.mode("semantic")
    (result,) = page.run()["results"]
    by_share = sorted(result["pixel_fraction"].items(), key=lambda pair: -pair[1])
    assert page.labels() == [name for name, _ in by_share]
    present = {CATEGORIES[index] for index in np.unique(room.scene.semantic) if index < len(CATEGORIES)}
    assert {"floor", "wall", "bed"} <= present & set(page.labels())


def test_tile(page: SegmentingPage, room: Room) -> None:
    page.choose(room.file)
    page.mode("tile")
    page.element("#category").select_option("Flooring")
    before = page.look()
    (tiled,) = page.answer_to(page.element("#run").click, "/invocations")["processed_images"]
    assert tiled
    page.look_other_than(before)


def test_a_demo_room_and_a_suggestion(page: SegmentingPage) -> None:
    page.mode("text")
    page.element("#scenes button").first.click()
    expect(page.element("#stage")).to_have_attribute("data-picture-width", "640")
    page.element("#suggestions button").first.click()
    assert page.element("#text").input_value()
    if page.element("#status").get_attribute("data-state") == "idle":
        page.element("#run").click()
    page.is_done()
    assert page.labels()


def test_clicks_and_undo(page: SegmentingPage, room: Room) -> None:
    page.choose(room.file)
    page.mode("click")
    bed = thing(room, "bed")
    first = page.answer_to(lambda: page.click(*middle(bed)))
    assert page.element("#points").inner_text() == "1 point"
    assert any(masks.iou(masks.decode_rle(each["mask"]), bed) > 0.6 for each in instances_of(first))
    shown_after_one = page.element("#results").inner_text()
    second = page.answer_to(lambda: page.click(*middle(room.floor), button="right"))
    assert page.element("#points").inner_text() == "2 points"
    assert not only_mask(second)[middle(room.floor)[::-1]], "a right click takes away"
    (asked,) = page.asked()[-1]["prompt"]["objects"]
    (on, off) = asked["points"]
    assert on == pytest.approx([*middle(bed), 1], abs=1.5) and off == pytest.approx([*middle(room.floor), 0], abs=1.5)
    page.answer_to(page.element("#undo").click)
    assert page.element("#points").inner_text() == "1 point"
    assert page.element("#results").inner_text() == shown_after_one
    page.element("#reset").click()
    expect(page.element("#points")).to_have_text("No points")
    assert page.labels() == []


def test_box(page: SegmentingPage, room: Room) -> None:
    page.choose(room.file)
    page.mode("box")
    bed = thing(room, "bed")
    x0, y0, x1, y1 = masks.bounding_box(bed) or (0, 0, 0, 0)
    answer = page.answer_to(lambda: page.drag((x0, y0), (x1 - 1, y1 - 1)))
    assert masks.iou(only_mask(answer), bed) > 0.6
    (sent,) = page.sent()["boxes"]
    assert sent == pytest.approx([x0, y0, x1, y1], abs=2)
    assert len(page.labels()) == 1


def test_a_65th_point_or_object_is_refused_on_the_page(page: SegmentingPage, room: Room) -> None:
    page.choose(room.file)
    page.mode("click")
    # What a request may hold matters here, not what comes back: only the last one is answered.
    page.tab.route("**/v1/segment", lambda route: None)
    page.evaluate(_PRESS_ENTER, 1 + 63)
    page.tab.unroute("**/v1/segment")
    page.answer_to(lambda: page.click(240, 580))
    assert page.element("#points").inner_text() == "64 points"
    labels, asked = page.labels(), len(page.asked())
    prompt = page.asked()[-1]["prompt"]
    (given,) = prompt.get("objects", [prompt])
    assert labels and len(given["points"]) == 64
    page.click(60, 60)
    expect(page.element("#error")).to_contain_text("up to 64 points")
    expect(page.element("#error")).to_contain_text("next object")
    assert page.element("#points").inner_text() == "64 points"
    assert page.labels() == labels and len(page.asked()) == asked
    page.element("#next-object").click()
    expect(page.element("#error")).to_be_hidden()
    answer = page.answer_to(lambda: page.click(60, 60))
    assert page.element("#points").inner_text() == "2 objects: 65 points"
    assert {each["object"] for each in instances_of(answer)} == {0, 1}


_PRESS_ENTER = """(times) => {
  const press = () => new KeyboardEvent("keydown", { key: "Enter", bubbles: true });
  for (let time = 0; time < times; time++) document.querySelector("#stage").dispatchEvent(press());
}"""
"""The first time shows the crosshair, each further one clicks."""


def test_a_65th_object_or_box_is_refused_and_nothing_lost(page: SegmentingPage) -> None:
    assert page.evaluate(_FILL) == ["64 objects: 64 boxes", *["A request takes up to 64 objects"] * 2] * 2


_FILL = """async () => {
  const { Clicks } = await import("/static/js/clicks.js");
  const clicks = new Clicks();
  for (let number = 0; number < 64; number++) clicks.addBox([number, 10, number + 20, 40], true);
  const said = [];
  for (let time = 0; time < 2; time++) {
    said.push(clicks.describe());
    for (const add of [() => clicks.addBox([1, 1, 9, 9], true), () => clicks.nextObject()]) {
      try { add(); } catch (error) { said.push(error.message.split(",")[0]); }
    }
  }
  return said;
}"""


def test_two_objects(page: SegmentingPage, room: Room) -> None:
    page.choose(room.file)
    page.mode("click")
    bed = thing(room, "bed")
    page.answer_to(lambda: page.click(*middle(bed)))
    page.element("#next-object").click()
    answer = page.answer_to(lambda: page.click(*middle(room.floor)))
    of_object = {
        number: [masks.decode_rle(each["mask"]) for each in instances_of(answer) if each["object"] == number]
        for number in (0, 1)
    }
    assert max(masks.iou(mask, bed) for mask in of_object[0]) > 0.6
    assert max(masks.iou(mask, room.floor) for mask in of_object[1]) > 0.6
