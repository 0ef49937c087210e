"""Phrases and their tokens: tables of odd prompts, and of word scores with the phrases they must give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segserve.errors import InvalidPromptError
from segserve.models.phrase_tokens import Caption, PhraseTokenizer, match_phrases


def spelled(caption: Caption, tokenizer: Any) -> list[list[list[str]]]:
    """For each phrase, for each of its words, the tokens."""
    tokens = tokenizer.convert_ids_to_tokens(list(caption.token_ids))
    return [[[tokens[position] for position in word] for word in phrase] for phrase in caption.words]


@pytest.mark.parametrize(
    ("phrases", "expected"),
    [
        (("sofa",), [[["sofa"]]]),
        (("sofa", "red chair"), [[["sofa"]], [["red"], ["chair"]]]),
        (("chair", "red chair"), [[["chair"]], [["red"], ["chair"]]]),
        (("chairs", "doorlet"), [[["chair", "##s"]], [["door", "##let"]]]),
        (("t-shirt",), [[["t", "-", "shirt"]]]),
        (("don't sofa",), [[["don", "'", "t"], ["sofa"]]]),
        (("Café",), [[["cafe"]]]),
        (("1 sofa",), [[["1"], ["sofa"]]]),
        (("sofa?", "is it a lamp?"), [[["sofa"]], [["[UNK]"], ["[UNK]"], ["a"], ["lamp"]]]),
        (("sofa.chair",), [[["sofa"], ["chair"]]]),
        (("sofa [SEP] chair",), [[["sofa"], ["chair"]]]),
        (("[PAD] lamp",), [[["lamp"]]]),
        (("🛋 sofa",), [[["[UNK]"], ["sofa"]]]),
        (("so\u200bfa lamp", "rug"), [[["sofa"], ["lamp"]], [["rug"]]]),
        (("  red   chair ",), [[["red"], ["chair"]]]),
    ],
)
def test_tokens_of_odd_phrases(tokenizer: Any, phrases: tuple[str, ...], expected: list[list[list[str]]]) -> None:
    caption = PhraseTokenizer(tokenizer, 48).encode(phrases)
    assert caption.phrases == phrases
    assert spelled(caption, tokenizer) == expected


@pytest.mark.parametrize(
    ("phrases", "kept"),
    [
        (("диван",), ()),
        (("沙发", "sofa"), ("sofa",)),
        (("🛋", "lamp", "xyzzy"), ("lamp",)),
        (("?", "rug"), ("rug",)),
        (("xyzzy chair",), ("xyzzy chair",)),
    ],
)
def test_phrases_of_unknown_words_only_are_left_out(
    tokenizer: Any, phrases: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    caption = PhraseTokenizer(tokenizer, 48).encode(phrases)
    assert caption.phrases == kept
    assert bool(caption.token_ids) == bool(kept)
    assert len(caption.words) == len(kept)


def test_the_caption_is_the_one_that_transformers_makes(tokenizer: Any) -> None:
    phrases = ("sofa", "red chair", "t-shirt")
    caption = PhraseTokenizer(tokenizer, 48).encode(phrases)
    assert list(caption.token_ids) == tokenizer("sofa. red chair. t-shirt.")["input_ids"]


@pytest.mark.parametrize("phrases", [("?",), ("??", "!?"[1:], " . ")])
def test_punctuation_alone_is_refused(tokenizer: Any, phrases: tuple[str, ...]) -> None:
    with pytest.raises(InvalidPromptError, match="punctuation only"):
        PhraseTokenizer(tokenizer, 48).encode(phrases)


def test_too_many_tokens_are_refused(tokenizer: Any) -> None:
    fits, over = ("red " * 44 + "sofa",), ("red " * 45 + "sofa",)
    encode = PhraseTokenizer(tokenizer, 48).encode
    assert len(encode(fits).token_ids) == 48
    with pytest.raises(InvalidPromptError, match="at most 48 tokens, came 49"):
        encode(over)


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ("chair", "red chair", True),
        ("red chair", "wooden chair", True),
        ("red chair", "red sofa", True),
        ("a chair", "a table", False),
        ("sofa", "table", False),
    ],
)
def test_phrases_overlap_when_they_share_a_naming_word(tokenizer: Any, first: str, second: str, overlap: bool) -> None:
    overlaps = PhraseTokenizer(tokenizer, 48).encode((first, second)).overlaps
    assert overlaps[0, 0] and overlaps[1, 1]
    assert overlaps[0, 1] == overlaps[1, 0] == overlap


@pytest.mark.parametrize(
    ("phrases", "word_scores", "text_threshold", "expected"),
    [
        pytest.param(("sofa", "lamp"), [0.9, 0.1], 0.25, {"sofa": 0.9}, id="one-phrase"),
        pytest.param(("sofa", "lamp"), [0.1, 0.29], 0.25, {}, id="under-the-box-threshold"),
        pytest.param(("table", "chair"), [0.6, 0.5], 0.25, {"table": 0.6}, id="two-phrases-do-not-fuse"),
        pytest.param(("red chair",), [0.2, 0.7], 0.25, {"red chair": 0.7}, id="best-word-decides"),
        pytest.param(
            ("chair", "red chair"), [0.9, 0.6, 0.8], 0.25, {"chair": 0.9, "red chair": 0.8}, id="nested-phrases-both"
        ),
        pytest.param(("chair", "red chair"), [0.9, 0.1, 0.8], 0.25, {"chair": 0.9}, id="not-a-red-one"),
        pytest.param(
            ("chair", "red chair"), [0.5, 0.8, 0.6], 0.25, {"chair": 0.5, "red chair": 0.8}, id="longer-one-is-best"
        ),
        pytest.param(
            ("red chair", "red sofa"), [0.7, 0.8, 0.6, 0.1], 0.25, {"red chair": 0.8}, id="shared-color-is-not-enough"
        ),
        pytest.param(("sofa",), [0.4], 0.5, {}, id="no-word-over-the-text-threshold"),
        pytest.param(
            ("chair", "red chair"), [0.9, 0.6, 0.8], 0.7, {"chair": 0.9}, id="text-threshold-asks-for-every-word"
        ),
    ],
)
def test_which_phrases_a_box_answers(
    tokenizer: Any,
    phrases: tuple[str, ...],
    word_scores: list[float],
    text_threshold: float,
    expected: dict[str, float],
) -> None:
    caption = PhraseTokenizer(tokenizer, 48).encode(phrases)
    token_scores = np.full((1, len(caption.token_ids)), 0.99)  # separators score high and must not count
    flat = [word for phrase in caption.words for word in phrase]
    for word, score in zip(flat, word_scores, strict=True):
        token_scores[0, list(word)] = score
    boxes, indices, scores = match_phrases(token_scores, caption, 0.3, text_threshold)
    assert boxes.tolist() == [0] * len(expected)
    found = {phrases[index]: score for index, score in zip(indices, scores, strict=True)}
    assert found == pytest.approx(expected)


def test_a_word_scores_as_its_best_token(tokenizer: Any) -> None:
    caption = PhraseTokenizer(tokenizer, 48).encode(("chair", "red chairs"))
    position = {token: index for index, token in enumerate(tokenizer.convert_ids_to_tokens(list(caption.token_ids)))}
    token_scores = np.zeros((2, len(caption.token_ids)))
    token_scores[:, [caption.words[0][0][0], position["red"], position["##s"]]] = [0.8, 0.5, 0.4]
    token_scores[1, position["##s"]] = 0.2
    boxes, indices, _ = match_phrases(token_scores, caption, 0.3, 0.25)
    assert list(zip(boxes.tolist(), indices.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0)]
