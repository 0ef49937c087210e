"""Writes scene_fingerprints.json: what a few seeds look like, for the test that the generator has not drifted.

    python tests/data/make_scene_fingerprints.py

Run it only together with training the demo weights anew: the committed ones know the scenes as they are.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from segserve.training.scenes import Scene, make_scene

SEEDS = (*range(12), 424242, 500_000_000)
TARGET = Path(__file__).with_name("scene_fingerprints.json")


def fingerprint(scene: Scene) -> dict[str, object]:
    """Phrases, boxes and areas of the objects, and the mean color of 8 x 6 blocks of the picture."""
    blocks = cv2.resize(scene.image, (8, 6), interpolation=cv2.INTER_AREA).astype(int)
    objects = [{"phrase": item.phrase, "box": item.box, "area": item.area} for item in scene.objects]
    return {"shape": scene.image.shape[:2], "objects": objects, "blocks": np.ravel(blocks).tolist()}


if __name__ == "__main__":
    lines = [f'"{seed}": {json.dumps(fingerprint(make_scene(seed)))}' for seed in SEEDS]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
