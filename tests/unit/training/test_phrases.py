"""Training prompts: what is asked of a scene, and which objects answer it."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from segserve.training.phrases import FILLERS, MAX_PHRASES, SYNONYMS, PromptPhrase, PromptSampler, joined, known_words
from segserve.training.scenes import CATEGORIES, COLORED, COLORS


@dataclass(frozen=True)
class Thing:
    id: int
    category: str
    color: str | None = None
    ignore: bool = False


ROOM = (
    Thing(1, "floor"),
    Thing(2, "wall"),
    Thing(3, "wall"),
    Thing(4, "chair", "red"),
    Thing(5, "chair", "red"),
    Thing(6, "chair", "blue"),
    Thing(7, "picture"),
    Thing(8, "lamp", "green", ignore=True),
)
NOUN_OF = {synonym: name for name, synonym in SYNONYMS.items()}


def prompts(objects: tuple[Thing, ...], count: int = 400) -> list[list[PromptPhrase]]:
    return [PromptSampler(objects, random.Random(seed)).sample() for seed in range(count)]


def meaning(text: str) -> tuple[str | None, str | None]:
    """Color and category that a phrase of a prompt names, read from its words alone."""
    words = [word for word in text.split() if word not in ("a", "the")]
    color = words.pop(0) if words and words[0] in (*COLORS, "pink", "gray", "brown") else None
    noun = " ".join(words)
    noun = NOUN_OF.get(noun, noun)
    if noun not in CATEGORIES and noun.removesuffix("s") in CATEGORIES:
        noun = noun.removesuffix("s")
    return color, noun if noun in CATEGORIES else None


def test_a_phrase_names_exactly_the_objects_that_satisfy_all_of_it() -> None:
    asked = 0
    for prompt in prompts(ROOM):
        for phrase in prompt:
            color, category = meaning(phrase.text)
            expected = {
                thing.id
                for thing in ROOM
                if thing.category == category and color in (None, thing.color) and not thing.ignore
            }
            assert phrase.objects == expected, phrase
            asked += bool(expected)
    assert asked > 400


def test_a_lookalike_is_a_present_category_in_a_color_it_lacks() -> None:
    seen = 0
    for prompt in prompts(ROOM):
        for phrase in prompt:
            color, category = meaning(phrase.text)
            assert phrase.lookalike == (category == "chair" and color not in (None, "red", "blue")), phrase
            seen += phrase.lookalike
    assert seen > 100


def test_an_ignored_object_is_never_asked_for() -> None:
    texts = {phrase.text for prompt in prompts(ROOM) for phrase in prompt}
    assert not any(meaning(text) in ((None, "lamp"), ("green", "lamp")) for text in texts)


def test_prompts_have_one_to_fifteen_different_phrases_and_every_kind_occurs() -> None:
    sizes: Counter[int] = Counter()
    for prompt in prompts(ROOM, 1000):
        assert len({phrase.text for phrase in prompt}) == len(prompt)
        sizes[len(prompt)] += 1
    assert min(sizes) == 1
    assert max(sizes) <= MAX_PHRASES
    assert sizes[1] > 50
    assert sum(count for size, count in sizes.items() if size >= 8) > 50


def test_several_colors_of_one_category_meet_in_one_prompt() -> None:
    both = [p for p in prompts(ROOM) if {"red chair", "blue chair"} <= {phrase.text for phrase in p}]
    assert len(both) > 40


def test_nonsense_and_other_scripts_answer_nothing() -> None:
    phrases = [phrase for prompt in prompts(ROOM, 2000) for phrase in prompt]
    foreign = [phrase for phrase in phrases if not phrase.text.isascii()]
    unrelated = [phrase for phrase in phrases if phrase.text in FILLERS]
    assert foreign
    assert unrelated
    assert all(not phrase.objects for phrase in foreign + unrelated)


def test_an_empty_scene_is_asked_for_things_it_does_not_have() -> None:
    for prompt in prompts((), 50):
        assert prompt
        assert all(not phrase.objects and not phrase.lookalike for phrase in prompt)


def test_the_same_seed_gives_the_same_prompt() -> None:
    assert prompts(ROOM, 20) == prompts(ROOM, 20)


@pytest.mark.parametrize(("final_dot", "expected"), [(True, "red chair. floor."), (False, "red chair. floor")])
def test_joined(final_dot: bool, expected: str) -> None:
    phrases = [PromptPhrase("red chair", frozenset({4})), PromptPhrase("floor", frozenset({1}))]
    assert joined(phrases, final_dot) == expected


def test_known_words_cover_all_names_and_repeat_none() -> None:
    words = known_words()
    assert len(words) == len(set(words))
    assert {*CATEGORIES, *COLORS, *COLORED, "couch", "carpet", "painting", "potted"} <= set(words)
