"""Generated rooms: what is in them (layout, furniture, fixtures), how it is painted, the truth (scene, files)."""

from segserve.training.scenes.palette import COLORS
from segserve.training.scenes.scene import (
    CATEGORIES,
    COLORED,
    SIZES,
    STUFF,
    THINGS,
    Scene,
    SceneObject,
    default_size,
    make_scene,
    training_size,
)

__all__ = [
    "CATEGORIES",
    "COLORED",
    "COLORS",
    "SIZES",
    "STUFF",
    "THINGS",
    "Scene",
    "SceneObject",
    "default_size",
    "make_scene",
    "training_size",
]
