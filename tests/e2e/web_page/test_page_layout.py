"""The page on a telephone, in the dark, and without a mouse."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from servers import Served

from web_page.conftest import OpenPage, Room
from web_page.segmenting_page import SegmentingPage

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
_TOO_WIDE = """() => [...document.querySelectorAll("body *")].filter((element) => {
  const box = element.getBoundingClientRect();
  const scrolls = element.closest("pre, table, #scenes, #suggestions, .visually-hidden, .skip, [hidden]");
  return box.width > 0 && !scrolls && (box.right > innerWidth + 1 || box.left < -1);
}).map((element) => `${element.tagName}#${element.id}.${element.className}`)"""
_UNNAMED = """() => [...document.querySelectorAll("button, input, select, textarea, canvas, a")].filter((element) => {
  const named = element.ariaLabel || element.title || element.innerText?.trim() || element.labels?.length
    || element.getAttribute("aria-labelledby") || element.getAttribute("alt");
  return element.checkVisibility() && !named;
}).map((element) => element.outerHTML)"""

_FOCUS_LOOK = """() => {
  const { outlineStyle, boxShadow } = getComputedStyle(document.activeElement);
  return `${outlineStyle} ${boxShadow}`;
}"""
_INK_AND_PAPER = """() => {
  const { color, backgroundColor } = getComputedStyle(document.body);
  return [color, backgroundColor];
}"""


@pytest.mark.parametrize("mode", ["text", "instances", "semantic", "tile", "click", "box"])
def test_a_telephone_needs_no_sideways_scrolling(open_page: OpenPage, demo: Served, room: Room, mode: str) -> None:
    page = open_page(demo.url, **PHONE)
    check_width(page)
    page.choose(room.file)
    page.mode(mode)
    if mode == "text":
        page.ask("floor. bed.")
    elif mode in ("instances", "semantic"):
        page.run()
    if mode == "text":
        page.snippet("python")
        page.element("#options summary").click()
    check_width(page)
    if mode == "instances":
        page.element("#open-models").click()
        check_width(page)


def check_width(page: SegmentingPage) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(_TOO_WIDE) == []


def test_a_finger_points(open_page: OpenPage, demo: Served, room: Room) -> None:
    page = open_page(demo.url, **PHONE)
    page.choose(room.file)
    page.mode("click")
    x, y = page.at(240, 600)
    page.answer_to(lambda: page.tab.touchscreen.tap(x, y))
    assert page.element("#points").inner_text() == "1 point"
    assert page.labels()


def test_help_for_the_keyboard_is_not_shown_to_fingers(open_page: OpenPage, demo: Served, room: Room) -> None:
    for options, shown in (({}, True), (PHONE, False)):
        page = open_page(demo.url, **options)
        page.choose(room.file)
        page.mode("click")
        expect(page.element("#keys")).to_be_visible(visible=shown)


def test_everything_by_keyboard(page: SegmentingPage) -> None:
    keyboard = page.tab.keyboard
    tab_to(page, "#scenes button")
    keyboard.press("Enter")
    expect(page.element("#stage")).to_have_attribute("data-picture-width", "640")
    tab_to(page, "#modes [role=tab]")
    expect(page.element("#modes [data-mode=text]")).to_have_attribute("data-state", "ready")
    keyboard.press("ArrowRight")
    expect(page.element("#modes [data-mode=text]")).to_have_attribute("aria-selected", "false")
    keyboard.press("Home")
    expect(page.element("#modes [data-mode=text]")).to_have_attribute("aria-selected", "true")
    tab_to(page, "#text")
    keyboard.type("floor. sofa.")
    page.answer_to(lambda: keyboard.press("Enter"))
    assert "floor" in page.labels()
    tab_to(page, "#results input[type=checkbox]")
    keyboard.press("Space")
    expect(page.element("#results input[type=checkbox]").first).not_to_be_checked()
    tab_to(page, "#download-coco")
    with page.tab.expect_download():
        keyboard.press("Enter")


def test_points_by_keyboard(page: SegmentingPage, room: Room) -> None:
    page.choose(room.file)
    page.mode("click")
    page.element("#stage").focus()
    for _ in range(5):
        page.tab.keyboard.press("ArrowDown")
    page.answer_to(lambda: page.tab.keyboard.press("Enter"))
    assert page.element("#points").inner_text() == "1 point"
    page.tab.keyboard.press("Control+z")
    expect(page.element("#points")).to_have_text("No points")


def tab_to(page: SegmentingPage, selector: str, most: int = 80) -> None:
    """Press the tabulator key until an element that the selector fits has the focus, which must be seen."""
    for _ in range(most):
        page.tab.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            style = (
                "(({ outlineStyle, boxShadow }) => outlineStyle + boxShadow)(getComputedStyle(document.activeElement))"
            )
            assert page.evaluate(style) != "nonenone", f"{selector} does not show that it has the focus"
            return
    raise AssertionError(f"{selector} is not reached with the tabulator key")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_named_and_readable(open_page: OpenPage, demo: Served, room: Room, scheme: str) -> None:
    page = open_page(demo.url, color_scheme=scheme)
    page.choose(room.file)
    page.mode("instances")
    page.run()
    assert page.evaluate(_UNNAMED) == []
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    dark, light = sorted((brightness(ink), brightness(paper)))
    assert (light + 0.05) / (dark + 0.05) > 7
    assert (brightness(paper) < brightness(ink)) == (scheme == "dark")


def brightness(color: str) -> float:
    """Relative luminance of ``rgb(…)``, 0..1, as WCAG defines it."""
    channels = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
