"""The tiling catalog: the shipped one, lookups, and files that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from segserve import imaging
from segserve.errors import InvalidRequestError, NotFoundError
from segserve.gateway.tiling_catalog import TilingCatalog


def written(folder: Path, categories: Any) -> Path:
    (folder / "a.png").write_bytes(b"")
    (folder / "b.png").write_bytes(b"")
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump({"categories": categories}), encoding="utf-8")
    return path


def test_the_shipped_catalog_has_readable_products() -> None:
    catalog = TilingCatalog.load()
    assert "Flooring" in catalog.names
    for name in catalog.names:
        assert imaging.read_info(catalog.surface(name).product.read_bytes()).width > 0
    assert catalog.surface("flooring").text == "floor."
    assert catalog.surface("flooring", "Kitchen").product != catalog.surface("flooring").product


def test_a_room_overrides_what_it_names_and_keeps_the_rest(tmp_path: Path) -> None:
    category = {
        "text": "floor.",
        "product": "a.png",
        "perspective": True,
        "scale": 0.4,
        "rooms": {"Living  Room": {"product": "b.png"}, "Hall": {"perspective": False, "text": "tiles."}},
    }
    catalog = TilingCatalog.load(written(tmp_path, {"Flooring": category}))
    plain = catalog.surface(" FLOORING")
    assert (plain.text, plain.product, plain.perspective, plain.scale) == ("floor.", tmp_path / "a.png", True, 0.4)
    living = catalog.surface("Flooring", "living room ")
    assert (living.product, living.text, living.perspective) == (tmp_path / "b.png", "floor.", True)
    hall = catalog.surface("Flooring", "HALL")
    assert (hall.product, hall.text, hall.perspective) == (tmp_path / "a.png", "tiles.", False)
    assert catalog.surface("Flooring", "Attic") == plain
    with pytest.raises(NotFoundError, match="Flooring"):
        catalog.surface("Ceiling")


@pytest.mark.parametrize(
    ("categories", "word"),
    [
        ({}, "categories"),
        ([], "categories"),
        ({"A": {"product": "a.png"}}, "text"),
        ({"A": {"text": "floor."}}, "product"),
        ({"A": {"text": "", "product": "a.png"}}, "prompt.text"),
        ({"A": {"text": "floor.", "product": "c.png"}}, "c.png"),
        ({"A": {"text": "floor.", "product": "a.png", "rooms": {"R": {"product": "c.png"}}}}, "c.png"),
        ({"A": {"text": "floor.", "product": "a.png", "scale": 0}}, "scale"),
        ({"A": {"text": "floor.", "product": "a.png", "colour": 1}}, "colour"),
    ],
)
def test_catalogs_that_are_refused(tmp_path: Path, categories: Any, word: str) -> None:
    with pytest.raises(InvalidRequestError, match=word) as raised:
        TilingCatalog.load(written(tmp_path, categories))
    assert "catalog.yaml" in raised.value.message


@pytest.mark.parametrize("text", [None, "categories: [", "- a"])
def test_files_that_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "catalog.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRequestError, match=r"catalog\.yaml"):
        TilingCatalog.load(path)
