"""All the ways in which a picture comes onto the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect
from servers import Served

from segserve import imaging, masks
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


def test_a_turned_webp_is_shown_as_the_server_sees_it(page: SegmentingPage, room: Room, tmp_path: Path) -> None:
    """Browsers leave the EXIF orientation of WebP aside; the server obeys it."""
    file = tmp_path / "turned.webp"
    Image.fromarray(np.rot90(room.scene.image)).save(file, lossless=True, exif=orientation(6))
    page.choose(file)
    expect(page.element("#picture-name")).to_contain_text("480 × 640")
    page.mode("text")
    (result,) = page.ask("floor.")["results"]
    assert (result["width"], result["height"]) == (480, 640)
    union = np.any([masks.decode_rle(instance["mask"]) for instance in result["instances"]], axis=0)
    assert masks.iou(union, room.floor) > 0.8
    with Image.open(io.BytesIO(page.download("cutout")[1])) as cutout:
        np.testing.assert_array_equal(np.asarray(cutout)[..., 3] > 0, union)
        np.testing.assert_array_equal(np.asarray(cutout)[..., :3][union], room.scene.image[union])
    page.mode("click")
    page.answer_to(lambda: page.click(240, 580))
    (sent,) = page.asked()[-1]["prompt"]["points"]
    assert sent == pytest.approx([240, 580, 1], abs=1.5), "clicks are in the upright picture's pixels"


def orientation(value: int) -> Image.Exif:
    notes = Image.Exif()
    notes[0x0112] = value
    return notes


def turned_files(value: int) -> dict[str, bytes]:
    """Files of a small picture with an orientation, in every way that the server reads."""
    pixels = np.random.default_rng(value).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    image = Image.fromarray(np.kron(pixels, np.ones((16, 16, 1), np.uint8)))
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>{value}</tiff:Orientation></x:xmpmeta>'
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp)
    ways: dict[str, dict[str, Any]] = {
        "WEBP EXIF": {"lossless": True, "exif": orientation(value)},
        "WEBP XMP": {"lossless": True, "xmp": xmp.encode()},
        "WEBP EXIF before XMP": {"lossless": True, "exif": orientation(value), "xmp": xmp.replace(str(value), "2")},
        "PNG EXIF": {"exif": orientation(value)},
        "PNG XMP": {"pnginfo": text},
        "JPEG EXIF": {"quality": 95, "exif": orientation(value)},
        "JPEG XMP": {"quality": 95, "xmp": xmp.encode()},
    }
    files = {}
    for way, options in ways.items():
        buffer = io.BytesIO()
        image.save(buffer, way.split()[0], **options)
        files[way] = buffer.getvalue()
    return files


def test_every_orientation_is_read_as_the_server_reads_it(page: SegmentingPage) -> None:
    files = [(value, way, data) for value in range(1, 9) for way, data in turned_files(value).items()]
    for value, way, data in files:
        shown = imaging.decode(base64.b64decode(page.evaluate(_SHOWN, base64.b64encode(data).decode("ascii"))))
        expected = imaging.decode(data)
        assert shown.shape == expected.shape, (way, value)
        assert np.abs(shown.astype(int) - expected).mean() < 3, (way, value)


_SHOWN = """async (base64) => {
  const { Picture } = await import("/static/js/picture.js");
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const { bitmap, width, height } = await Picture.fromBlob(new Blob([bytes]), "a picture");
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  const png = new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
  return btoa(String.fromCharCode(...png));
}"""


def test_a_broken_note_about_the_orientation_harms_nothing(page: SegmentingPage) -> None:
    """Each file is cut, or its bytes changed, at each place of its notes: shown, or refused in words."""
    files = [data for data in turned_files(6).values() if len(data) < 2500]
    ends = page.evaluate(_HARM, [base64.b64encode(data).decode("ascii") for data in files])
    assert len(files) >= 5 and set(ends) <= {"shown", "refused"} and "shown" in ends


_HARM = """async (files) => {
  const { Picture } = await import("/static/js/picture.js");
  const ends = [];
  const tryIt = (bytes) => Picture.fromBlob(new Blob([bytes]), "it").then(
    () => ends.push("shown"),
    (error) => ends.push(/^it is not a picture/.test(error.message) ? "refused" : error.stack),
  );
  for (const base64 of files) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    for (let at = 8; at < bytes.length; at += 7) {
      await tryIt(bytes.slice(0, at));
      const changed = bytes.slice();
      changed[at] = 0xff;
      await tryIt(changed);
    }
  }
  return ends;
}"""


_DROP_TEXT = """([type, text]) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.setData(type, text);
  const options = { bubbles: true, cancelable: true, dataTransfer };
  document.querySelector("#drop").dispatchEvent(new DragEvent("drop", options));
}"""


@pytest.mark.parametrize(
    "lines", ["# from a page\r\n{url}\r\n", "{url}\r\nhttps://example.com/other.png\r\n"], ids=["comment", "several"]
)
def test_the_first_of_several_dropped_addresses_is_taken(page: SegmentingPage, demo: Served, lines: str) -> None:
    url = f"{demo.url}/demo-scenes/sofa.jpg"
    page.evaluate(_DROP_TEXT, ["text/uri-list", lines.format(url=url)])
    expect(page.element("#picture-name")).to_contain_text("sofa.jpg · 640 × 426")
    expect(page.element("#url")).to_have_value(url)
