"""Scoring of clicks and boxes, with models whose mistakes are known."""

from collections.abc import Sequence

import numpy as np
import pytest

from segserve.imaging import Rgb
from segserve.training.click_evaluation import AskedObject, FoundMask, evaluate_clicks, summary
from segserve.training.scenes.files import StoredScene, read_scenes, write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[StoredScene]:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 600_000_800, 3, (96, 128))
    return list(read_scenes(folder))


class Knowing:
    """A model that knows the truth, and shows the left half of an object until it is corrected."""

    def __init__(self, scenes: Sequence[StoredScene]) -> None:
        self.scenes = scenes
        self.asked: list[AskedObject] = []

    def __call__(self, image: Rgb, asked: Sequence[AskedObject]) -> list[list[FoundMask]]:
        (scene,) = [scene for scene in self.scenes if scene.image is image]
        self.asked += asked
        return [self.answer(scene, each) for each in asked]

    def answer(self, scene: StoredScene, asked: AskedObject) -> list[FoundMask]:
        if asked.box is not None:
            return [self.found(next(each.mask for each in scene.instances if each.box == asked.box), 0.5)]
        first = asked.clicks[0]
        truth = next(each.mask for each in scene.instances if each.mask[first.y, first.x])
        half = truth.copy()
        half[:, np.nonzero(truth)[1].max() :] = False
        if asked.logits is not None:
            return [self.found(truth, 0.9)]
        if len(asked.clicks) == 2:
            assert truth[asked.clicks[1].y, asked.clicks[1].x] == asked.clicks[1].label
            return [self.found(half, 0.9)]
        return [self.found(truth, 0.2), self.found(half, 0.8)]

    def found(self, mask: np.ndarray, score: float) -> FoundMask:
        return FoundMask(mask, score, np.zeros((4, 4), np.float32))


def test_every_figure_scores_its_own_question(scenes: list[StoredScene]) -> None:
    model = Knowing(scenes)
    metrics = evaluate_clicks(scenes, model)
    overall = metrics["overall"]
    wanted = sum(not instance.ignore for scene in scenes for instance in scene.instances)
    assert (metrics["scenes"], overall["objects"]) == (3, wanted)
    assert overall["best_of_three"] == overall["box"] == overall["second_click_with_mask"] == 1.0
    assert 0.5 < overall["click"] < 1.0  # the answer of the highest score counts, not the best one
    assert overall["second_click"] == overall["click"]
    assert sum(row["objects"] for row in metrics["by_category"].values()) == wanted
    assert [name for name, _ in summary(metrics)] == ["all", "click below 0.8", *metrics["by_category"]]


def test_poor_first_answers_are_summed_up_on_their_own(scenes: list[StoredScene]) -> None:
    class Forgetful(Knowing):
        def answer(self, scene: StoredScene, asked: AskedObject) -> list[FoundMask]:
            found = super().answer(scene, asked)
            walls = [each for each in scene.instances if each.category == "wall" and not each.ignore]
            is_wall = any(each.mask[asked.clicks[0].y, asked.clicks[0].x] for each in walls) if asked.clicks else False
            return [] if is_wall and len(asked.clicks) == 1 else found[:1]

    metrics = evaluate_clicks(scenes, Forgetful(scenes))
    poor = metrics["poor_first_answer"]
    assert poor["objects"] == metrics["by_category"]["wall"]["objects"] > 0
    assert poor["click"] == 0.0 and poor["second_click"] > 0.5
    assert metrics["overall"]["click"] > 0.5


def test_ignored_objects_are_not_asked_for(scenes: list[StoredScene]) -> None:
    model = Knowing(scenes)
    evaluate_clicks(scenes, model)
    ignored = [each.box for scene in scenes for each in scene.instances if each.ignore]
    assert not [asked for asked in model.asked if asked.box in ignored]


def test_no_answer_counts_as_nothing_found(scenes: list[StoredScene]) -> None:
    seen: list[None] = []
    overall = evaluate_clicks(scenes, lambda _, asked: [[] for _ in asked], lambda: seen.append(None))["overall"]
    assert {overall[name] for name in ("click", "box", "second_click", "best_of_three")} == {0.0}
    assert len(seen) == 3
