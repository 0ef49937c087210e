"""Which tokens of a caption stand for which phrase.

Grounding DINO (Liu et al., arXiv 2303.05499) reads all phrases of a prompt as one caption, ``"sofa. red chair."``,
lets a token see only the tokens of its own phrase, and scores every token against every box.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segserve.errors import InvalidPromptError

SEPARATORS = re.compile(r"[.?]")
"""Characters that end a phrase for the model; inside a phrase they would tear it apart."""

FUNCTION_WORDS = frozenset(
    {"a", "an", "the", "of", "in", "on", "at", "to", "by", "with", "without", "and", "or", "for"}
)
"""Words that say nothing about what a phrase names."""


@dataclass(frozen=True)
class Caption:
    """The tokens of a prompt.

    Attributes:
        token_ids: of the caption, [CLS] and [SEP] included; empty when no phrase can be read.
        phrases: the phrases that can be read, as the prompt spells them.
        words: for each of them its words, each as the positions of its tokens.
        overlaps: (P, P) whether two phrases share a word that names something.
    """

    token_ids: tuple[int, ...]
    phrases: tuple[str, ...]
    words: tuple[tuple[tuple[int, ...], ...], ...]
    overlaps: NDArray[np.bool_]


class PhraseTokenizer:
    """Turns phrases into captions; the latest 1024 captions are remembered.

    Args:
        tokenizer: of transformers, one that gives offsets.
        max_tokens: most tokens that the model reads.
    """

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._special = [token for token in tokenizer.all_special_tokens if token]
        self.encode = lru_cache(maxsize=1024)(self._encode)

    def _encode(self, phrases: tuple[str, ...]) -> Caption:
        """The caption of a prompt's phrases.

        A phrase of which the vocabulary knows nothing (another script, say) is left out: to the model all such
        phrases look alike, so that a box for one would be a guess.

        Raises:
            InvalidPromptError: no phrase has a word, or there are more tokens than the model reads.
        """
        spelled = [self._clean(phrase) for phrase in phrases]
        token_ids, words = self._tokenize(spelled)
        if not any(words):
            raise InvalidPromptError('prompt.text: it has punctuation only. Expected words, e.g. "sofa. floor."')
        unknown = self._tokenizer.unk_token_id
        readable = [
            index
            for index, phrase in enumerate(words)
            if any(token_ids[position] != unknown for word in phrase for position in word)
        ]
        if len(readable) < len(phrases):
            token_ids, words = self._tokenize([spelled[index] for index in readable])
        if len(token_ids) > self._max_tokens:
            raise InvalidPromptError(
                f"prompt.text: at most {self._max_tokens} tokens, came {len(token_ids)}. Ask in several requests."
            )
        kept = tuple(phrases[index] for index in readable)
        overlaps = _overlaps([spelled[index] for index in readable])
        return Caption(tuple(token_ids) if kept else (), kept, tuple(words), overlaps)

    def _clean(self, phrase: str) -> str:
        for token in self._special:
            phrase = phrase.replace(token, " ")
        return " ".join(SEPARATORS.sub(" ", phrase).split()).lower()

    def _tokenize(self, phrases: Sequence[str]) -> tuple[list[int], list[tuple[tuple[int, ...], ...]]]:
        caption = "".join(f"{phrase}. " for phrase in phrases).rstrip()
        encoding = self._tokenizer(caption, return_offsets_mapping=True, verbose=False)
        starts = [start if end > start else -1 for start, end in encoding["offset_mapping"]]
        words = []
        place = 0
        for phrase in phrases:
            words.append(tuple(_positions(phrase, place, starts)))
            place += len(phrase) + 2
        return list(encoding["input_ids"]), words


def _positions(phrase: str, place: int, starts: Sequence[int]) -> list[tuple[int, ...]]:
    """For each word of a phrase that begins at character place, the positions of the tokens that start within it."""
    found = []
    for match in re.finditer(r"\S+", phrase):
        first, end = place + match.start(), place + match.end()
        tokens = tuple(position for position, start in enumerate(starts) if first <= start < end)
        if tokens:
            found.append(tokens)
    return found


def _overlaps(phrases: Sequence[str]) -> NDArray[np.bool_]:
    # A plural is the same word.
    naming = [{word.removesuffix("s") for word in phrase.split() if word not in FUNCTION_WORDS} for phrase in phrases]
    shared = [[bool(one & other) for other in naming] for one in naming]
    return np.array(shared, dtype=bool).reshape(len(phrases), len(phrases))


def match_phrases(
    token_scores: NDArray[np.floating], caption: Caption, box_threshold: float, text_threshold: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Which boxes answer which phrases.

    A phrase's score is that of its best word, a word's that of its best token, so that a box scores what it scores
    in transformers' own post-processing. transformers then joins all words over text_threshold into one label, which
    fuses phrases ("table chair"); here a box goes to its best phrase alone. Only phrases that overlap with that one
    ("chair" beside "red chair") may claim the box too: those over box_threshold with every word over text_threshold.

    Args:
        token_scores: (Q, T) probabilities of each box's tokens.
        caption: of T tokens.
        box_threshold: a phrase's score must be over it, 0..1.
        text_threshold: see above, 0..1.

    Returns:
        Box indices, phrase indices and scores of the (K,) pairs.
    """
    words = [word for phrase in caption.words for word in phrase]
    bounds = np.cumsum([0, *(len(phrase) for phrase in caption.words)])
    by_word = np.stack([token_scores[:, list(word)].max(axis=1) for word in words], axis=1)
    spans = list(pairwise(bounds))
    score = np.stack([by_word[:, first:end].max(axis=1) for first, end in spans], axis=1)
    weakest = np.stack([by_word[:, first:end].min(axis=1) for first, end in spans], axis=1)
    best = score.argmax(axis=1)
    is_best = np.arange(score.shape[1])[None] == best[:, None]
    named = (is_best & (score > text_threshold)) | (caption.overlaps[best] & (weakest > text_threshold))
    boxes, phrases = np.nonzero(named & (score > box_threshold))
    return boxes, phrases, score[boxes, phrases].astype(np.float32)
