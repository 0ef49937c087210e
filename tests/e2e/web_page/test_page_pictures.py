"""All the ways in which a picture comes onto the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from servers import Served

from segserve import masks
from segserve.torchserve.ports import free_ports
from web_page.conftest import Room
from web_page.segmenting_page import SegmentingPage

_TRANSFER = """([type, selector, name, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  const options = { bubbles: true, cancelable: true };
  const event = type === "paste"
    ? new ClipboardEvent(type, { ...options, clipboardData: data })
    : new DragEvent(type, { ...options, dataTransfer: data });
  document.querySelector(selector).dispatchEvent(event);
}"""


@pytest.mark.parametrize(("event", "target"), [("drop", "#drop"), ("paste", "body")])
def test_dropped_and_pasted(page: SegmentingPage, room: Room, event: str, target: str) -> None:
    picture = base64.b64encode(room.file.read_bytes()).decode("ascii")
    page.evaluate(_TRANSFER, [event, target, "somewhere.png", picture])
    expect(page.element("#picture-name")).to_contain_text("somewhere.png · 480 × 640")
    page.mode("semantic")
    page.run()
    assert "floor" in page.labels()


def test_an_address_is_fetched_by_the_server(page: SegmentingPage, demo: Served) -> None:
    page.refusals = {424}
    (closed,) = free_ports(1)
    page.element("#url").fill(f"http://127.0.0.1:{closed}/room.jpg")
    page.element("#load-url").click()
    expect(page.element("#error")).to_be_visible()
    expect(page.element("#error-details")).to_contain_text("fetch")
    page.element("#url").fill(f"{demo.url}/demo-scenes/sofa.jpg")
    page.tab.keyboard.press("Enter")
    expect(page.element("#picture-name")).to_contain_text("sofa.jpg · 640 × 426")
    expect(page.element("#error")).to_be_hidden()
    page.mode("text")
    page.ask("sofa.")
    assert "sofa" in page.labels()


def test_a_turned_photograph_is_shown_and_answered_upright(page: SegmentingPage, room: Room, tmp_path: Path) -> None:
    """As telephones write them: pixels lying on their side, and a note which side is up."""
    file = tmp_path / "turned.jpg"
    notes = Image.Exif()
    notes[0x0112] = 6
    Image.fromarray(np.rot90(room.scene.image)).save(file, quality=95, exif=notes)
    page.choose(file)
    expect(page.element("#picture-name")).to_contain_text("480 × 640")
    page.mode("text")
    (result,) = page.ask("floor.")["results"]
    union = np.any([masks.decode_rle(instance["mask"]) for instance in result["instances"]], axis=0)
    assert masks.iou(union, room.floor) > 0.8
    with Image.open(io.BytesIO(page.download("cutout")[1])) as cutout:
        np.testing.assert_array_equal(np.asarray(cutout)[..., 3] > 0, union)
        apart = np.abs(np.asarray(cutout)[..., :3].astype(int) - room.scene.image)[union]
    assert apart.mean() < 4, "the picture below the mask is upright too"
