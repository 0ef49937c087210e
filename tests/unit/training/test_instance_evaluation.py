"""AP of answers to generated scenes: perfect ones, and such that leave out what need not be found."""

from __future__ import annotations

import numpy as np
import pytest

from segserve.errors import InvalidRequestError
from segserve.models.segmentation import Instance, Segmentation
from segserve.training.coco import read_dataset
from segserve.training.instance_evaluation import evaluate_instances, summary
from segserve.training.scenes import CATEGORIES
from segserve.training.scenes.files import INSTANCES_FILE, read_scenes, write_scenes

SEED = 600_000_800
SCENES = 3


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, SEED, SCENES)
    return folder


@pytest.fixture
def dataset(scenes):
    return read_dataset(scenes / INSTANCES_FILE, scenes)


def truth_of(scenes, wanted):
    """A predictor that answers with the true objects that are wanted."""
    stored = list(read_scenes(scenes))

    def predict(image):
        (scene,) = [scene for scene in stored if np.array_equal(scene.image, image)]
        height, width = image.shape[:2]
        found = [
            Instance.from_mask(thing.category, 0.9, tuple(float(side) for side in thing.box), thing.mask)
            for thing in scene.instances
            if wanted(thing)
        ]
        return Segmentation(width, height, found)

    return predict


def test_perfect_answers_score_one(dataset, scenes):
    seen = []
    metrics = evaluate_instances(dataset, CATEGORIES, truth_of(scenes, lambda thing: True), lambda: seen.append(1))
    assert len(seen) == metrics["scenes"] == SCENES
    for figures in (metrics["overall"], metrics["counting_ignored"], *metrics["by_category"].values()):
        assert figures["mask_ap"] == figures["mask_ap50"] == figures["box_ap"] == figures["box_ap50"] == 1.0
    assert metrics["overall"]["instances"] == sum(row["instances"] for row in metrics["by_category"].values())
    assert metrics["parameters"] == {"score_threshold": 0.05, "max_instances": 100}


def test_what_is_ignored_need_not_be_found_but_costs_where_it_counts(dataset, scenes):
    metrics = evaluate_instances(dataset, CATEGORIES, truth_of(scenes, lambda thing: not thing.ignore))
    assert metrics["overall"]["mask_ap"] == metrics["overall"]["mask_ap75"] == 1.0
    assert metrics["counting_ignored"]["mask_ap"] < 0.99
    assert metrics["counting_ignored"]["instances"] > metrics["overall"]["instances"]


def test_a_missed_category_costs_its_share(dataset, scenes):
    metrics = evaluate_instances(dataset, None, truth_of(scenes, lambda thing: thing.category != "floor"))
    assert metrics["by_category"]["floor"]["mask_ap"] == 0
    count = len(metrics["by_category"])
    assert metrics["overall"]["mask_ap"] == pytest.approx((count - 1) / count, abs=1e-3)
    rows = summary(metrics)
    assert [name for name, _ in rows] == ["all", *metrics["by_category"], "all, ignored ones counted"]


def test_a_model_of_other_classes_is_refused(dataset):
    with pytest.raises(InvalidRequestError, match=r"it has disc, box; they have .* and 8 more"):
        evaluate_instances(dataset, ("disc", "box"), lambda image: pytest.fail("must not be asked"))
