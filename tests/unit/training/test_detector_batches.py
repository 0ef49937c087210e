"""Batches of the demo detector: what is asked, and that the targets point at the right tokens."""

import dataclasses

import pytest
import torch

from segserve.training.detector import DetectorSize, build_processor
from segserve.training.detector_batches import (
    COLOR_NAMES,
    FIRST_SEED,
    LAST_SEED,
    LOOKALIKE_WEIGHT,
    make_batch,
    make_targets,
    phrase_tokens,
    scene_seeds,
)
from segserve.training.detector_loss import UNMATCHED
from segserve.training.phrases import PromptPhrase, joined
from segserve.training.scenes import CATEGORIES, make_scene

TOKENIZER = build_processor(DetectorSize()).tokenizer
GRID = 8
SCENES = [make_scene(seed, (96, 128)) for seed in (11, 12, 13)]


def encode(prompts: list[list[PromptPhrase]], final_dot: bool = True):  # type: ignore[no-untyped-def]
    texts = [joined(prompt, final_dot) for prompt in prompts]
    return TOKENIZER(texts, padding=True, return_tensors="pt", return_token_type_ids=True)


def ids_of(scene, category: str) -> frozenset[int]:  # type: ignore[no-untyped-def]
    return frozenset(item.id for item in scene.objects if item.category == category)


def words_at(input_ids: torch.Tensor, tokens: torch.Tensor) -> list[str]:
    return TOKENIZER.convert_ids_to_tokens(input_ids[tokens > 0].tolist())


def test_phrase_positions_of_an_encoded_prompt() -> None:
    ids = TOKENIZER("red chair. xy. floor")["input_ids"]
    assert phrase_tokens([*ids, 0, 0]) == [[1, 2], [4, 5], [7]]


@pytest.mark.parametrize("final_dot", [True, False])
def test_each_object_points_at_the_tokens_of_its_own_prompt(final_dot: bool) -> None:
    prompts = [
        [PromptPhrase("floor", ids_of(SCENES[0], "floor")), PromptPhrase("red bed", frozenset())],
        [
            PromptPhrase("green sofa", frozenset()),
            PromptPhrase("zq", frozenset()),
            PromptPhrase("a wall", ids_of(SCENES[1], "wall")),
        ],
        [PromptPhrase("ceiling", ids_of(SCENES[2], "ceiling"))],
    ]
    encoded = encode(prompts, final_dot)
    targets = make_targets(SCENES, prompts, encoded["input_ids"], encoded["attention_mask"], GRID)
    for row, words in enumerate((["floor"], ["a", "wall"], ["ceiling"])):
        wanted = ids_of(SCENES[row], words[-1])
        assert targets.valid[row].sum() == len(wanted)
        for tokens in targets.tokens[row][targets.valid[row]]:
            assert words_at(encoded["input_ids"][row], tokens) == words
    assert (targets.tokens[~targets.valid] == 0).all()


def test_an_object_of_two_phrases_points_at_both() -> None:
    item = next(item for item in SCENES[0].objects if item.category == "floor")
    prompts = [[PromptPhrase("floor", frozenset({item.id})), PromptPhrase("the floor", frozenset({item.id}))]]
    encoded = encode(prompts)
    targets = make_targets(SCENES[:1], prompts, encoded["input_ids"], encoded["attention_mask"], GRID)
    assert words_at(encoded["input_ids"][0], targets.tokens[0, 0]) == ["floor", "the", "floor"]


def test_boxes_are_centers_and_sizes_as_shares_of_the_picture() -> None:
    scene = SCENES[0]
    item = next(item for item in scene.objects if item.category == "floor")
    prompts = [[PromptPhrase("floor", frozenset({item.id}))]]
    encoded = encode(prompts)
    box = make_targets([scene], prompts, encoded["input_ids"], encoded["attention_mask"], GRID).boxes[0, 0]
    left, top, right, bottom = item.box
    expected = [(left + right) / 256, (top + bottom) / 192, (right - left) / 128, (bottom - top) / 96]
    assert box.tolist() == pytest.approx(expected)


def test_lookalike_phrases_weigh_more_and_padding_nothing() -> None:
    prompts = [
        [PromptPhrase("red bed", frozenset(), lookalike=True), PromptPhrase("floor", frozenset())],
        [PromptPhrase("floor", frozenset())],
    ]
    encoded = encode(prompts)
    weight = make_targets(SCENES[:2], prompts, encoded["input_ids"], encoded["attention_mask"], GRID).token_weight
    assert weight[0].tolist() == [1.0, LOOKALIKE_WEIGHT, LOOKALIKE_WEIGHT, 1.0, 1.0, 1.0, 1.0]
    assert weight[1].tolist() == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]


def test_cells_say_what_their_center_shows() -> None:
    scene = next(s for s in (make_scene(n, (96, 128)) for n in range(40)) if any(o.color for o in s.objects))
    prompts = [[PromptPhrase("floor", ids_of(scene, "floor"))]]
    encoded = encode(prompts)
    targets = make_targets([scene], prompts, encoded["input_ids"], encoded["attention_mask"], GRID)
    colors = {item.id: item.color for item in scene.objects}
    for cell in range(GRID * GRID):
        row, column = int((cell // GRID + 0.5) * 96 / GRID), int((cell % GRID + 0.5) * 128 / GRID)
        category = CATEGORIES[int(targets.cell_category[0, cell])]
        color = colors[int(scene.instances[row, column])]
        assert category == CATEGORIES[scene.semantic[row, column]]
        assert int(targets.cell_color[0, cell]) == (COLOR_NAMES.index(color) if color else UNMATCHED)
        assert bool(targets.cell_tokens[0, cell].any()) == (category == "floor")


def test_a_prompt_that_does_not_fit_its_encoding_is_refused() -> None:
    encoded = encode([[PromptPhrase("floor", frozenset())]])
    other = [[PromptPhrase("floor", frozenset()), PromptPhrase("wall", frozenset())]]
    with pytest.raises(ValueError, match="expected 2 phrases in the encoded prompt, found 1"):
        make_targets(SCENES[:1], other, encoded["input_ids"], encoded["attention_mask"], GRID)


def test_batches_repeat_for_a_step_and_differ_between_steps_and_seeds() -> None:
    first, again = (make_batch(TOKENIZER, 0, 3, 2, 64) for _ in range(2))
    for field in dataclasses.fields(first.targets):
        assert torch.equal(getattr(first.targets, field.name), getattr(again.targets, field.name))
    assert torch.equal(first.pixel_values, again.pixel_values)
    assert torch.equal(first.input_ids, again.input_ids)
    for other in (make_batch(TOKENIZER, 0, 4, 2, 64), make_batch(TOKENIZER, 1, 3, 2, 64)):
        assert not torch.equal(other.pixel_values, first.pixel_values)


def test_pixels_are_what_the_processor_makes_of_the_same_picture() -> None:
    batch = make_batch(TOKENIZER, 0, 0, 1, 256)
    seed = scene_seeds(0, 0, 1)[0]
    pixels = build_processor(DetectorSize())(images=make_scene(seed).image, text="floor.", return_tensors="pt")
    difference = (batch.pixel_values - pixels["pixel_values"]).abs()
    assert difference.mean() < 0.1
    assert batch.pixel_values.std() == pytest.approx(pixels["pixel_values"].std().item(), rel=0.05)


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_scenes_kept_for_evaluation_are_never_trained_on(seed: int) -> None:
    for step in (0, 9_999, 10**9):
        numbers = scene_seeds(seed, step, 8)
        assert len(set(numbers)) == 8
        assert all(FIRST_SEED <= number <= LAST_SEED for number in numbers)
    assert set(scene_seeds(seed, 0, 8)).isdisjoint(scene_seeds(seed, 1, 8))
