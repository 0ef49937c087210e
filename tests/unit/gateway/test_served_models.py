"""Which model a name stands for, before and after it is known what is served."""

from __future__ import annotations

import pytest

from segserve.catalog import GROUNDED_SAM, MASK_RCNN
from segserve.config import ArchivedModel
from segserve.errors import NotFoundError
from segserve.gateway.served_models import ServedModels

BALLOONS = ArchivedModel("mask_rcnn", "torchvision", ("balloon",))


def served(*names: str, **archives: ArchivedModel) -> ServedModels:
    return ServedModels(archives, lambda: names)


def test_before_anything_is_known_the_catalogs_names_stand() -> None:
    nothing = served()
    assert nothing.default() == nothing.named("grounded_sam") == "grounded_sam"
    assert nothing.named("mask_rcnn") == "mask_rcnn"
    assert nothing.entry("mask_rcnn") is MASK_RCNN
    with pytest.raises(NotFoundError, match=r"'llama' is unknown. Models: grounded_sam, mask_rcnn, semantic, sam2\."):
        nothing.entry("llama")


def test_what_is_served_is_asked_anew_each_time() -> None:
    names = ["mask_rcnn"]
    models = ServedModels({}, lambda: names)
    assert models.default() == "mask_rcnn"
    names.append("grounded_sam")
    assert models.default() == "grounded_sam"


def test_the_archive_says_which_model_a_name_stands_for() -> None:
    models = served("balloons", "kites", balloons=BALLOONS, kites=BALLOONS)
    assert models.entry("balloons") is models.entry("kites") is MASK_RCNN
    assert models.about("balloons").classes == ("balloon",)
    assert models.named("mask_rcnn") == models.default() == "balloons"
    with pytest.raises(NotFoundError, match=r"served are balloons, kites\..*segserve archive grounded_sam"):
        models.named("grounded_sam")


def test_the_models_own_name_comes_before_others_of_its_kind() -> None:
    models = served("balloons", "mask_rcnn", balloons=BALLOONS)
    assert models.named("mask_rcnn") == "mask_rcnn"
    assert models.default() == "balloons"


def test_a_name_that_an_archive_took_is_no_longer_the_catalogs() -> None:
    models = served("grounded_sam", "rooms", grounded_sam=BALLOONS, rooms=ArchivedModel("grounded_sam"))
    assert models.entry("grounded_sam") is MASK_RCNN
    assert models.entry("rooms") is GROUNDED_SAM
    assert models.named("grounded_sam") == models.default() == "rooms"


def test_nothing_is_known_of_a_foreign_archive_but_its_name() -> None:
    models = served("theirs", theirs=ArchivedModel())
    assert (models.known_entry("theirs"), models.about("theirs")) == (None, ArchivedModel())
    assert models.default() == "theirs"
    with pytest.raises(NotFoundError, match="'theirs' is served, but which model"):
        models.entry("theirs")
    # Unless the name is one of the catalog: then it is taken for that.
    assert served("mask_rcnn", mask_rcnn=ArchivedModel()).entry("mask_rcnn") is MASK_RCNN
