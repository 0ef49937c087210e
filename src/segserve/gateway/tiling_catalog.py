"""The catalog of product tiling: what to detect for a category, and which product image to lay over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from segserve.catalog import GROUNDED_SAM
from segserve.errors import InvalidRequestError, NotFoundError, SegserveError
from segserve.schema import Prompt, Strict, check_prompt, parse


@dataclass(frozen=True)
class Surface:
    """What is laid over what.

    Attributes:
        text: the prompt that finds the surface.
        product: file of the image to repeat.
        perspective: whether it lies on the ground.
        scale: width of one repetition as a part of the picture's longer side.
    """

    text: str
    product: Path
    perspective: bool
    scale: float


class _Room(Strict):
    text: str | None = None
    product: str | None = None
    perspective: bool | None = None
    scale: Annotated[float, Field(gt=0, le=10)] | None = None


class _Category(Strict):
    text: str
    product: str
    perspective: bool = False
    scale: Annotated[float, Field(gt=0, le=10)] = 0.25
    rooms: dict[str, _Room] = Field(default_factory=dict)


class _Catalog(Strict):
    categories: Annotated[dict[str, _Category], Field(min_length=1)]


class TilingCatalog:
    """Categories by name, whatever the case of its letters."""

    def __init__(self, categories: Mapping[str, _Category], folder: Path) -> None:
        self._folder = folder
        self._names = list(categories)
        self._categories = {_key(name): category for name, category in categories.items()}

    @classmethod
    def load(cls, path: Path | None = None) -> TilingCatalog:
        """The catalog of a YAML file; None: the demo catalog of the package.

        Raises:
            InvalidRequestError: no such file, not of the catalog's form, or a product file that is not there.
        """
        file = path or Path(str(files("segserve.gateway"))) / "data" / "catalog.yaml"
        try:
            value: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeError, yaml.YAMLError) as error:
            raise InvalidRequestError(f"The tiling catalog {file} cannot be read: {error}") from error
        try:
            catalog = cls(parse(_Catalog, value).categories, file.parent)
            catalog._check()
        except SegserveError as error:
            raise InvalidRequestError(f"The tiling catalog {file}: {error.message}") from error
        return catalog

    @property
    def names(self) -> list[str]:
        """The categories, in the order of the file."""
        return list(self._names)

    def rooms(self, category: str) -> list[str]:
        """The rooms in which a category of names differs, in the order of the file."""
        return list(self._categories[_key(category)].rooms)

    def surface(self, category: str, room: str | None = None) -> Surface:
        """What the category means in a room; a room that the catalog does not list means the category's own.

        Raises:
            NotFoundError: no such category; lists those there are.
        """
        found = self._categories.get(_key(category))
        if found is None:
            known = ", ".join(self._names)
            raise NotFoundError(
                f"categoryname: {category[:80]!r} is unknown. Categories: {known}.", code="category_not_found"
            )
        rooms = {_key(name): special for name, special in found.rooms.items()}
        special = rooms.get(_key(room or ""), _Room())
        return Surface(
            text=special.text or found.text,
            product=self._folder / (special.product or found.product),
            perspective=found.perspective if special.perspective is None else special.perspective,
            scale=special.scale or found.scale,
        )

    def _check(self) -> None:
        for name, category in self._categories.items():
            for room in (None, *category.rooms):
                surface = self.surface(name, room)
                check_prompt(Prompt(text=surface.text), GROUNDED_SAM)
                if not surface.product.is_file():
                    raise InvalidRequestError(f"{name}: there is no product file {surface.product}.")


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()
