"""What a person does on the web page, by the ids of its elements."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Locator, expect

from web_page.watched_page import WatchedPage

Kind = Literal["overlay", "cutout", "coco"]
_ANSWER_MS = 60_000
"""A demo model answers in a fraction of a second; a machine may be busy."""

_REDRAW_S = 10


class SegmentingPage(WatchedPage):
    """The page, with a picture and a prompt. Coordinates are pixels of the picture."""

    def element(self, selector: str) -> Locator:
        """An element by its CSS selector."""
        return self.tab.locator(selector)

    def choose(self, picture: Path) -> None:
        """Choose a picture file and wait until it is shown."""
        self.element("#file").set_input_files(picture)
        expect(self.element("#picture-name")).to_contain_text(picture.name)

    def mode(self, name: str) -> None:
        """Choose a mode once its model is ready."""
        tab = self.element(f"#modes [data-mode={name}]")
        expect(tab).to_have_attribute("data-state", "ready")
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")

    def answer_to(self, action: Callable[[], object], path: str = "/v1/segment") -> Any:
        """The server's answer to the request that an action sends, once the page shows it."""
        with self.tab.expect_response(lambda response: response.url == self.url + path, timeout=_ANSWER_MS) as info:
            action()
        answer = info.value.json()
        self.is_done()
        return answer

    def is_done(self) -> None:
        """The page says that it has the answer and shows no error."""
        expect(self.element("#status")).to_have_attribute("data-state", "done", timeout=_ANSWER_MS)
        expect(self.element("#error")).to_be_hidden()

    def run(self) -> Any:
        """Press the button that asks; returns the server's answer."""
        return self.answer_to(self.element("#run").click)

    def ask(self, text: str) -> Any:
        """Ask for a text prompt; returns the server's answer."""
        self.element("#text").fill(text)
        return self.run()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the picture is on the screen."""
        stage = self.element("#stage")
        stage.scroll_into_view_if_needed()
        box = stage.bounding_box()
        assert box is not None
        width, height = (float(stage.get_attribute(f"data-picture-{side}") or 0) for side in ("width", "height"))
        return box["x"] + (x + 0.5) * box["width"] / width, box["y"] + (y + 0.5) * box["height"] / height

    def click(self, x: float, y: float, button: Literal["left", "right"] = "left") -> None:
        """Click a pixel of the picture."""
        self.tab.mouse.click(*self.at(x, y), button=button)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw a box from corner to corner."""
        self.tab.mouse.move(*self.at(*start))
        self.tab.mouse.down()
        self.tab.mouse.move(*self.at((start[0] + end[0]) / 2, (start[1] + end[1]) / 2))
        self.tab.mouse.move(*self.at(*end))
        self.tab.mouse.up()

    def labels(self) -> list[str]:
        """The labels in the list of results."""
        return self.element("#results li .label").all_inner_texts()

    def scores(self) -> list[float]:
        """The scores in the list of results."""
        return [float(text) for text in self.element("#results li .score").all_inner_texts()]

    def download(self, kind: Kind) -> tuple[str, bytes]:
        """Name and content of a file that the page offers."""
        with self.tab.expect_download() as info:
            self.element(f"#download-{kind}").click()
        return info.value.suggested_filename, Path(info.value.path()).read_bytes()

    def snippet(self, kind: Literal["curl", "python"]) -> str:
        """The text of a snippet."""
        if not self.element("#snippets").evaluate("details => details.open"):
            self.element("#snippets summary").click()
        return self.element(f"#snippet-{kind}").inner_text()

    def sent(self) -> dict[str, Any]:
        """What the request that the page shows as code asked for, by the name of the client's parameter."""
        calls = [node for node in ast.walk(ast.parse(self.snippet("python"))) if isinstance(node, ast.Call)]
        (call,) = [call for call in calls if getattr(call.func, "attr", "") == "segment"]
        return {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}

    def asked(self) -> list[dict[str, Any]]:
        """The JSON part of every segmentation request that the page has sent so far."""
        return [json.loads(text) for text in self.evaluate("window.asked")]

    def look(self) -> bytes:
        """What the stage looks like, as a PNG file."""
        return self.element("#stage").screenshot()

    def look_other_than(self, before: bytes) -> bytes:
        """What the stage looks like once that has changed."""
        deadline = time.monotonic() + _REDRAW_S
        while (now := self.look()) == before:
            assert time.monotonic() < deadline, "the stage looks as before"
        return now
