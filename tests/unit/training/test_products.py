"""The demo catalog's textures: seamless, small, and the ones that the catalog names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

import segserve.gateway
from segserve.imaging import decode
from segserve.training.products import PRODUCTS, SIDE, main, noise

DATA = Path(segserve.gateway.__file__).parent / "data"


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    return {name: draw() for name, draw in PRODUCTS.items()}


@pytest.mark.parametrize("name", PRODUCTS)
def test_pattern_goes_on_across_its_edges(drawn: dict[str, np.ndarray], name: str) -> None:
    texture = drawn[name].astype(float)
    assert texture.shape == (SIDE, SIDE, 3)
    for axis in (0, 1):
        steps = np.abs(np.diff(texture, axis=axis)).mean(axis=(1 - axis, 2))
        seam = np.abs(np.take(texture, 0, axis=axis) - np.take(texture, -1, axis=axis)).mean()
        # Boards, tiles and bricks have joints at their edges, as elsewhere: no seam is sharper than the sharpest step.
        assert seam <= 1.15 * steps.max() + 2


@pytest.mark.parametrize("name", PRODUCTS)
def test_committed_files_are_what_the_program_draws(drawn: dict[str, np.ndarray], name: str) -> None:
    file = DATA / "products" / f"{name}.jpg"
    assert file.stat().st_size <= 150_000
    assert np.abs(decode(file.read_bytes()).astype(float) - drawn[name]).mean() < 6, "JPEG loses that much at most"


def test_catalog_names_these_files() -> None:
    catalog = yaml.safe_load((DATA / "catalog.yaml").read_text("utf-8"))["categories"]
    entries = [entry for category in catalog.values() for entry in (category, *category.get("rooms", {}).values())]
    named = {entry["product"] for entry in entries if "product" in entry}
    assert named == {f"products/{name}.jpg" for name in PRODUCTS}


def test_noise_is_seamless_and_normalized() -> None:
    values = noise(np.random.default_rng(0), (12, 3), (96, 64))
    assert values.shape == (96, 64)
    assert values.mean() == pytest.approx(0, abs=1e-9) and values.std() == pytest.approx(1)
    inner = np.abs(np.diff(values, axis=0)).max()
    assert np.abs(values[0] - values[-1]).max() <= 1.2 * inner


def test_written_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segserve.training.products.PRODUCTS", {"plain": lambda: np.full((4, 4, 3), 9, dtype=np.uint8)})
    main([str(tmp_path / "new")])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["plain.jpg"]
