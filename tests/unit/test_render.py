"""Overlays, cut-outs, masks and crops on small pictures."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import pytest

from segserve.colors import PALETTE, colors_of, dark_of
from segserve.render import Drawing, crops, cutout, gray_outside, mask_image, overlay


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rectangle(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return mask


def drawing(label: str, shape: tuple[int, int], box: tuple[int, int, int, int], score: float = 0.9) -> Drawing:
    return Drawing(label, score, box, rectangle(*shape, box))


def test_overlay_tints_inside_and_leaves_the_rest_and_its_input() -> None:
    image = picture(200, 300)
    before = image.copy()
    box = (100, 60, 200, 140)
    drawn = overlay(image, [drawing("sofa", (200, 300), box)], opacity=0.5, chips=False)
    assert np.array_equal(image, before)
    inside = drawn[70:130, 110:190].astype(float)
    expected = 0.5 * image[70:130, 110:190] + 0.5 * np.asarray(colors_of(["sofa"])["sofa"])
    assert np.abs(inside - expected).max() <= 1
    outside = ~rectangle(200, 300, (95, 55, 205, 145))
    assert np.array_equal(drawn[outside], image[outside])
    assert np.abs(drawn[60, 150].astype(int) - colors_of(["sofa"])["sofa"]).max() < 45, "the outline has the color"


def contrast(first: np.ndarray, second: np.ndarray) -> float:
    """WCAG 2 contrast of two colors, 1..21."""
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: np.ndarray) -> float:
    return float(((np.asarray(color, dtype=float) / 255) ** 2.2) @ [0.2126, 0.7152, 0.0722])


LABELS = {colors_of([name])[name]: name for name in (f"thing {number}" for number in range(400))}
"""A label of each color of the palette."""


@pytest.mark.parametrize("boxes", [False, True])
@pytest.mark.parametrize("ground", ["black", "white", "gray", "its own color"])
@pytest.mark.parametrize("color", PALETTE)
def test_lines_show_on_any_ground(color: tuple[int, int, int], ground: str, boxes: bool) -> None:
    """Across an edge, some pixel stands out clearly from the ground, whatever that is."""
    grounds = {"black": (0, 0, 0), "white": (255, 255, 255), "gray": (128, 128, 128), "its own color": color}
    image = np.empty((300, 400, 3), dtype=np.uint8)
    image[:] = grounds[ground]
    # The mask fills a part of its box only, so that outline and box are lines of their own.
    thing = Drawing(LABELS[color], 0.9, (60, 60, 340, 240), rectangle(300, 400, (120, 110, 280, 190)))
    drawn = overlay(image, [thing], chips=False, boxes=boxes, opacity=0.0)
    edges = {"outline": drawn[105:116, 200]} | ({"box": drawn[55:66, 200]} if boxes else {})
    for name, across in edges.items():
        assert max(contrast(pixel, image[0, 0]) for pixel in across) >= 2, name


def test_boxes_are_drawn_where_they_are_and_only_when_asked_for() -> None:
    image = np.full((300, 400, 3), 200, dtype=np.uint8)
    thing = Drawing("sofa", 0.9, (60.4, 50.2, 339.7, 249.9), rectangle(300, 400, (120, 100, 280, 200)))
    plain, framed = (overlay(image, [thing], chips=False, boxes=boxes) for boxes in (False, True))
    changed = (plain != framed).any(axis=2)
    ys, xs = np.nonzero(changed)
    assert abs(xs.min() - 60) <= 1 and abs(xs.max() - 339) <= 1 and abs(ys.min() - 50) <= 1 and abs(ys.max() - 249) <= 1
    assert not changed[60:240, 70:330].any(), "it is a frame"
    colors = {tuple(pixel) for pixel in framed[150, 55:70].tolist()}
    assert colors == {(200, 200, 200), colors_of(["sofa"])["sofa"], dark_of(colors_of(["sofa"])["sofa"])}


@pytest.mark.parametrize("box", [(0, 0, 400, 300), (-50, -50, 500, 500), (399, 299, 400, 300), (10, 10, 10, 10)])
def test_boxes_at_and_over_the_border_stay_within_the_picture(box: tuple[float, ...]) -> None:
    image = np.full((300, 400, 3), 200, dtype=np.uint8)
    framed = overlay(image, [Drawing("sofa", 0.9, box, np.zeros((300, 400), dtype=bool))], chips=False, boxes=True)
    color = np.asarray(colors_of(["sofa"])["sofa"])
    assert (framed != image).any()
    if box[2] - box[0] >= 400:
        assert all((line == color).all(axis=1).any() for line in (framed[150, :6], framed[150, -6:], framed[:6, 200]))


def test_touching_instances_of_one_label_are_told_apart() -> None:
    shape = (200, 400)
    image = np.full((*shape, 3), 128, dtype=np.uint8)
    left, right = drawing("box", shape, (40, 40, 200, 160), 0.9), drawing("box", shape, (200, 40, 360, 160), 0.8)
    drawn = overlay(image, [left, right], chips=False).astype(float)
    first, second = drawn[100, 120], drawn[100, 280]
    assert np.abs(first - second).max() > 30, "their tints differ"
    alone = overlay(image, [left], chips=False)
    assert np.array_equal(alone[100, 120], first), "the better one keeps the color that it has alone"
    between = drawn[100, 190:211]
    assert np.abs(between - first).sum(axis=1).max() > 60 and np.abs(between - second).sum(axis=1).max() > 60


def test_labels_of_the_model_fix_the_colors() -> None:
    color, known = next(iter(LABELS.items()))
    names = [f"thing {number}" for number in range(400, 900)]
    # The two must share a pick, and the known one come first by name.
    rival = next(name for name in names if colors_of([name])[name] == color and name > known)
    image = np.full((200, 400, 3), 128, dtype=np.uint8)
    alone = [drawing(rival, (200, 400), (40, 40, 200, 160))]
    both = [*alone, drawing(known, (200, 400), (250, 40, 390, 160))]
    first, second = (overlay(image, things, chips=False, labels=[known, rival]) for things in (alone, both))
    assert np.array_equal(first[:, :220], second[:, :220])
    assert not np.array_equal(overlay(image, alone, chips=False), first), (
        "without them, it would take the other's color"
    )


def test_separate_instances_of_one_label_share_its_color() -> None:
    shape = (200, 400)
    image = np.full((*shape, 3), 128, dtype=np.uint8)
    apart = [drawing("box", shape, (10, 40, 120, 160)), drawing("box", shape, (250, 40, 390, 160))]
    drawn = overlay(image, apart, chips=False)
    assert np.array_equal(drawn[100, 60], drawn[100, 320])


def test_gray_outside_keeps_what_the_mask_covers() -> None:
    image = picture(30, 40)
    mask = rectangle(30, 40, (5, 5, 20, 25))
    result = gray_outside(image, mask)
    assert np.array_equal(result[mask], image[mask])
    outside = result[~mask].astype(int)
    assert (outside == outside[:, :1]).all()
    expected = image[~mask] @ np.asarray([0.299, 0.587, 0.114])
    assert np.abs(outside[:, 0] - expected).max() <= 1
    with pytest.raises(ValueError, match="does not fit"):
        gray_outside(image, mask.T)


def test_small_objects_stay_visible_on_large_ones_whatever_the_order() -> None:
    shape = (120, 160)
    wall, clock = drawing("wall", shape, (0, 0, 160, 120)), drawing("clock", shape, (60, 40, 100, 80))
    image = np.full((*shape, 3), 128, dtype=np.uint8)
    first = overlay(image, [wall, clock], chips=False)
    second = overlay(image, [clock, wall], chips=False)
    assert np.array_equal(first, second)
    clock_color = np.asarray(colors_of(["wall", "clock"])["clock"], dtype=float)
    wall_color = np.asarray(colors_of(["wall", "clock"])["wall"], dtype=float)
    center = first[60, 80].astype(float)
    assert np.linalg.norm(center - clock_color) < np.linalg.norm(center - wall_color)


def test_chip_size_follows_the_picture() -> None:
    def chip_pixels(side: int) -> int:
        image = np.full((side, side, 3), 90, dtype=np.uint8)
        box = (side // 2, side // 2, side // 2 + 8, side // 2 + 8)
        things = [drawing("lamp", (side, side), box)]
        return int(np.count_nonzero((overlay(image, things) != overlay(image, things, chips=False)).any(axis=2)))

    assert chip_pixels(1600) > 2.5 * chip_pixels(800) > 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (47, 200), (48, 48), (60, 400)])
@pytest.mark.parametrize("label", ["x", "a label that is far too long for any small picture to hold " * 3, "диван", ""])
def test_overlay_of_odd_sizes_and_labels(shape: tuple[int, int], label: str) -> None:
    height, width = shape
    things = [Drawing(label, 1.0, (0, 0, width, height), np.ones(shape, dtype=bool))]
    assert overlay(picture(*shape), things).shape == (*shape, 3)


def test_overlay_without_anything_to_draw() -> None:
    image = picture(60, 80)
    assert np.array_equal(overlay(image, []), image)
    empty = Drawing("ghost", 0.5, (10, 10, 10, 10), np.zeros((60, 80), dtype=bool))
    assert np.array_equal(overlay(image, [empty], chips=False), image)


def test_wrong_mask_size_is_refused() -> None:
    wrong = Drawing("sofa", 0.5, (0, 0, 5, 5), np.ones((5, 6), dtype=bool))
    with pytest.raises(ValueError, match=r"\(5, 6\)"):
        overlay(picture(6, 5), [wrong])
    with pytest.raises(ValueError, match=r"\(5, 6\)"):
        cutout(picture(6, 5), wrong.mask)


def test_cutout() -> None:
    image = picture(3, 4)
    mask = rectangle(3, 4, (1, 0, 3, 2))
    result = cutout(image, mask)
    assert result.shape == (3, 4, 4)
    assert np.array_equal(result[mask], np.column_stack([image[mask], np.full(4, 255)]))
    assert not result[~mask].any()


def test_mask_image_is_the_union() -> None:
    masks = [rectangle(2, 4, (0, 0, 2, 1)), rectangle(2, 4, (1, 0, 3, 2))]
    assert mask_image(masks, 2, 4).tolist() == [[255, 255, 255, 0], [0, 255, 255, 0]]
    assert not mask_image([], 2, 4).any()


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((1, 1, 3, 2), (1, 1, 3, 2)),
        ((0.4, 0.9, 2.1, 1.2), (0, 0, 3, 2)),
        ((-5, -5, 50, 50), (0, 0, 6, 4)),
        ((2, 2, 2, 2), (2, 2, 3, 3)),
        ((9, 9, 12, 12), (5, 3, 6, 4)),
    ],
)
def test_crops(box: tuple[float, ...], expected: tuple[int, int, int, int]) -> None:
    image = picture(4, 6)
    x0, y0, x1, y1 = expected
    (part,) = crops(image, [box])
    assert np.array_equal(part, image[y0:y1, x0:x1])
    part[:] = 0
    assert image.any(), "a crop is a copy"


def test_masks_are_asked_for_one_at_a_time() -> None:
    """A hundred masks of a 12-megapixel picture would take 1.2 GB: none may be kept."""
    alive: list[weakref.ref[np.ndarray]] = []

    @dataclass
    class Lazy:
        row: int
        label: str = "thing"
        score: float = 0.9

        @property
        def box(self) -> tuple[float, float, float, float]:
            return (10.0, self.row, 90.0, self.row + 8.0)

        @property
        def mask(self) -> np.ndarray:
            mask = np.zeros((200, 100), bool)
            mask[self.row : self.row + 8, 10:90] = True
            alive.append(weakref.ref(mask))
            assert sum(reference() is not None for reference in alive) <= 3
            return mask

    things = [Lazy(row) for row in range(10, 190, 20)]
    drawn = overlay(np.full((200, 100, 3), 128, np.uint8), things, boxes=True)
    assert len(alive) >= 2 * len(things)
    assert all((drawn[thing.row + 3, 80] != 128).any() for thing in things)
