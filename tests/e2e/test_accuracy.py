"""The demo weights through the served path, on scenes that they were never trained on."""

from __future__ import annotations

import base64
from itertools import islice

import requests
from servers import SCENE_SEED, Served

from segserve import masks
from segserve.client import Client
from segserve.training.evaluation import evaluate, named_question
from segserve.training.scenes.files import read_scenes, write_scenes

SCENES = 25


def test_the_demo_weights_meet_their_figures(served: Served, tmp_path):
    write_scenes(tmp_path, SCENE_SEED + 100, SCENES)
    with Client(served.url) as client:
        metrics = evaluate(read_scenes(tmp_path), lambda image, text: client.segment(image, text=text).instances)
    for figures in (metrics["overall"], *metrics["by_question"].values()):
        assert figures["recall"] >= 0.85
        assert figures["precision"] >= 0.85
        assert figures["absent_silent"] >= 0.95
        assert figures["mean_mask_iou"] >= 0.80
    assert metrics["overall"]["instances"] > 10 * SCENES


def test_invocations_gives_the_same_answer_as_the_client(served: Served, tmp_path):
    write_scenes(tmp_path, SCENE_SEED + 200, 3)
    with Client(served.url) as client:
        for scene in islice(read_scenes(tmp_path), 3):
            text = named_question(scene).text
            image = {"base64": base64.b64encode(scene.path.read_bytes()).decode()}
            request = {"model": "grounded_sam", "images": [image], "prompt": {"text": text}}
            answer = requests.post(f"{served.url}/invocations", json=request, timeout=60).json()
            by_client = client.segment(scene.path, text=text)
            assert len(answer["results"][0]["instances"]) == len(by_client.instances) > 0
            for sent, seen in zip(answer["results"][0]["instances"], by_client.instances, strict=True):
                assert sent["label"] == seen.label and sent["box"] == list(seen.box)
                assert masks.area(sent["mask"]) == seen.mask.sum() == seen.area
