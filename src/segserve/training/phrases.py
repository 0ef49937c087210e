"""Training prompts for a scene: which phrases are asked, and which objects each of them names.

Half of what a text-prompted detector has to learn is to stay silent, so most prompts hold phrases that nothing
answers: a color that the category does not have here, a category that is not in the picture, words that never
name anything in a room of this kind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from segserve.training.scenes import CATEGORIES, COLORED, COLORS

SYNONYMS = {"sofa": "couch", "rug": "carpet", "picture": "painting", "plant": "potted plant"}
PLURALS = ("sofa", "chair", "table", "lamp", "rug", "window", "door", "picture", "plant", "bed", "wall")
FOREIGN_COLORS = ("pink", "gray", "brown")
_FILLER_TEXT = """
cat dog car tree person man woman child bicycle motorcycle bus train truck boat airplane horse cow sheep bird
elephant zebra giraffe bear cup bowl laptop phone book bottle fork knife spoon clock sink toilet bathtub oven
fridge microwave shelf mirror vase keyboard television tv curtain cabinet desk stool bench pillow blanket
towel fireplace radiator stairs fan speaker basket box bag shoe hat ball guitar piano computer monitor
umbrella flower pizza apple banana cake sky grass road house river mountain
"""
FILLERS = tuple(_FILLER_TEXT.split())
ARTICLES = ("a", "the")
EXTRA_WORDS = ("an", "of", "on", "in", "and", "with", "left", "right", "big", "small", "large", "little", "old", "new")
OTHER_SCRIPTS = ("沙发", "椅子", "стул", "диван", "كرسي", "소파", "いす", "σκύλος", "कुर्सी")
MAX_PHRASES = 15


class Named(Protocol):
    """What this module needs to know of a scene's object (``segserve.training.scenes.SceneObject`` has it)."""

    @property
    def id(self) -> int: ...
    @property
    def category(self) -> str: ...
    @property
    def color(self) -> str | None: ...
    @property
    def ignore(self) -> bool: ...


@dataclass(frozen=True)
class PromptPhrase:
    """One phrase of a prompt.

    Attributes:
        text: the phrase, lower case, without a dot.
        objects: ids of the scene's objects that satisfy the whole phrase; empty for one that must stay unanswered.
        lookalike: nothing satisfies it, though objects of its category are in the picture (in other colors).
    """

    text: str
    objects: frozenset[int]
    lookalike: bool = False


def known_words() -> list[str]:
    """All words that a training prompt can hold, each once, in a fixed order."""
    groups: Sequence[Sequence[str]] = (
        CATEGORIES,
        tuple(COLORS),
        tuple(word for synonym in SYNONYMS.values() for word in synonym.split()),
        FOREIGN_COLORS,
        FILLERS,
        ARTICLES,
        EXTRA_WORDS,
    )
    return list(dict.fromkeys(word for group in groups for word in group))


def joined(phrases: Sequence[PromptPhrase], final_dot: bool = True) -> str:
    """The prompt as Grounding DINO wants it: ``"red chair. floor."``."""
    return ". ".join(phrase.text for phrase in phrases) + ("." if final_dot else "")


class PromptSampler:
    """Draws prompts for one scene. All randomness comes from ``rng``, so a seed repeats the prompt.

    Args:
        objects: the scene's objects. A phrase that an ignored object satisfies is never asked, as no answer
            to it could be called right or wrong.
        rng: source of every choice.
    """

    def __init__(self, objects: Sequence[Named], rng: random.Random) -> None:
        self.objects = objects
        self.rng = rng
        self.present = [name for name in CATEGORIES if self._askable(name, None) and self._named(name, None)]
        self.absent = [name for name in CATEGORIES if not any(item.category == name for item in objects)]

    def sample(self) -> list[PromptPhrase]:
        """One prompt of 1 to 15 different phrases."""
        kinds: list[Callable[[], list[PromptPhrase]]] = [self._listing, self._plain, self._mixed, self._single]
        phrases = self.rng.choices(kinds, weights=[0.34, 0.14, 0.40, 0.12])[0]()
        unique = list({phrase.text: phrase for phrase in phrases}.values())
        self.rng.shuffle(unique)
        return unique[:MAX_PHRASES] or [self._filler()]

    # Kinds of prompts

    def _listing(self) -> list[PromptPhrase]:
        """What a caller who sees the picture would ask, colors included, and a few phrases that nothing answers."""
        phrases: list[PromptPhrase] = []
        for name in self.present:
            if self.rng.random() < 0.9:
                phrases += self._in_own_colors(name) if name in COLORED else [self._phrase(name, None)]
        return phrases + self._unanswerable(self.rng.randint(0, 4))

    def _plain(self) -> list[PromptPhrase]:
        """Category names only: all of them, or the present ones with a few absent."""
        names = list(self.present)
        if self.rng.random() < 0.5:
            names += self.absent
        else:
            names += self.rng.sample(self.absent, min(len(self.absent), self.rng.randint(0, 3)))
        return [self._phrase(name, None) for name in names]

    def _mixed(self) -> list[PromptPhrase]:
        """A few categories, each asked plainly, in a color it has, in colors it lacks, or in several at once."""
        names = [name for name in self.present if self.rng.random() < 0.65]
        names += self.rng.sample(self.absent, min(len(self.absent), self.rng.randint(0, 3)))
        phrases: list[PromptPhrase] = []
        for name in names:
            if name not in COLORED or self.rng.random() < 0.2:
                phrases.append(self._phrase(name, None))
                continue
            if self.rng.random() < 0.65:
                phrases += self._in_own_colors(name)
            if self.rng.random() < 0.7:
                phrases += self._in_other_colors(name, 1 if self.rng.random() < 0.6 else 2)
            if self.rng.random() < 0.12:
                phrases.append(self._phrase(name, None))
        while self.rng.random() < 0.35:
            phrases.append(self._filler())
        return phrases

    def _single(self) -> list[PromptPhrase]:
        """Exactly one phrase."""
        if self.present and self.rng.random() < 0.55:
            name = self.rng.choice(self.present)
            if name in COLORED and self.rng.random() < 0.6:
                return self._in_own_colors(name)[:1]
            return [self._phrase(name, None)]
        return self._unanswerable(1)

    # Phrases

    def _in_own_colors(self, name: str) -> list[PromptPhrase]:
        """One phrase for each color that the category's objects have."""
        colors = sorted({item.color for item in self.objects if item.category == name and item.color})
        return [self._phrase(name, color) for color in colors if self._askable(name, color)]

    def _in_other_colors(self, name: str, count: int) -> list[PromptPhrase]:
        """Up to ``count`` phrases with colors that no object of the category has."""
        taken = {item.color for item in self.objects if item.category == name}
        free = [color for color in COLORS if color not in taken]
        picked = self.rng.sample(free, min(count, len(free)))
        if picked and self.rng.random() < 0.06:
            picked[0] = self.rng.choice(FOREIGN_COLORS)
        return [self._phrase(name, color) for color in picked]

    def _unanswerable(self, count: int) -> list[PromptPhrase]:
        phrases: list[PromptPhrase] = []
        for _ in range(count):
            draw = self.rng.random()
            lookalikes = [name for name in self.present if name in COLORED]
            if draw < 0.45 and lookalikes:
                phrases += self._in_other_colors(self.rng.choice(lookalikes), 1)
            elif draw < 0.8 and self.absent:
                name = self.rng.choice(self.absent)
                color = self.rng.choice(list(COLORS)) if name in COLORED and self.rng.random() < 0.5 else None
                phrases.append(self._phrase(name, color))
            else:
                phrases.append(self._filler())
        return phrases

    def _filler(self) -> PromptPhrase:
        """Something that no room holds: another thing, letters without a sense, or another script."""
        draw = self.rng.random()
        if draw < 0.7:
            text = self.rng.choice(FILLERS)
            if self.rng.random() < 0.25:
                text = f"{self.rng.choice([*COLORS, *EXTRA_WORDS])} {text}"
        elif draw < 0.93:
            letters = "abcdefghijklmnopqrstuvwxyz"
            text = "".join(self.rng.choice(letters) for _ in range(self.rng.randint(3, 8)))
        else:
            text = self.rng.choice(OTHER_SCRIPTS)
        return PromptPhrase(text, frozenset())

    def _phrase(self, name: str, color: str | None) -> PromptPhrase:
        objects = frozenset(item.id for item in self._named(name, color))
        lookalike = not objects and any(item.category == name for item in self.objects)
        noun = SYNONYMS[name] if name in SYNONYMS and self.rng.random() < 0.15 else name
        if noun in PLURALS and self.rng.random() < 0.03:
            noun += "s"
        text = f"{color} {noun}" if color else noun
        if self.rng.random() < 0.03:
            text = f"{self.rng.choice(ARTICLES)} {text}"
        return PromptPhrase(text, objects, lookalike)

    def _named(self, name: str, color: str | None) -> list[Named]:
        return [
            item
            for item in self.objects
            if item.category == name and not item.ignore and (color is None or item.color == color)
        ]

    def _askable(self, name: str, color: str | None) -> bool:
        """False where an ignored thing satisfies the phrase (surfaces are always asked: their scraps do not matter)."""
        return name in ("wall", "floor", "ceiling") or not any(
            item.ignore and item.category == name and (color is None or item.color == color) for item in self.objects
        )
