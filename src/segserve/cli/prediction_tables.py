"""What ``segserve predict`` prints: tables of instances and of classes, or JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from segserve.results import Instance, Result

Pairs = Sequence[tuple[str, "Result"]]
"""The path or address of each image, and its result."""


def is_semantic(result: Result) -> bool:
    """Whether a result gives every pixel a class, rather than instances."""
    return bool(result.classes)


def print_tables(results: Pairs, overlays: Mapping[str, Path], console: Console) -> None:
    """A table of the instances and one of the classes, each where there are some, and where the overlays are."""
    semantic = [pair for pair in results if is_semantic(pair[1])]
    others = [pair for pair in results if not is_semantic(pair[1])]
    if others:
        _print_instances(others, console)
    if semantic:
        _print_classes(semantic, console)
    for path in overlays.values():
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)


def as_json(image: str, result: Result, overlay: Path | None) -> dict[str, Any]:
    """A result as JSON: instances with their masks, or classes with the label map; the overlay's path if there is one.

    Args:
        image: its path or address.
        overlay: None: none was drawn.
    """
    from segserve.label_maps import encode_png

    shown: dict[str, Any] = {"image": image, "width": result.width, "height": result.height}
    if is_semantic(result):
        labels = result.label_map
        packed = None if labels is None else base64.b64encode(encode_png(labels)).decode("ascii")
        shown |= {"classes": result.classes, "pixel_fraction": result.pixel_fraction, "label_map": packed}
    else:
        shown["instances"] = [_instance_json(found) for found in result.instances]
    return {**shown, "overlay": str(overlay)} if overlay else shown


def _instance_json(found: Instance) -> dict[str, Any]:
    shown = {
        "label": found.label,
        "score": found.score,
        "box": [round(side, 2) for side in found.box],
        "area": found.area,
        "mask": found.rle,
    }
    told = {"object": found.object, "low_res": found.low_res}
    return {**shown, **{name: value for name, value in told.items() if value is not None}}


def _print_instances(results: Pairs, console: Console) -> None:
    from rich.table import Table

    table = Table("image", "label", "score", "box (x0 y0 x1 y1)", "area %")
    for column in table.columns[2:]:
        column.justify = "right"
    for image, result in results:
        name = Path(image).name
        for found in result.instances:
            box = " ".join(f"{side:.0f}" for side in found.box)
            share = 100 * found.area / (result.width * result.height)
            table.add_row(name, found.label, f"{found.score:.2f}", box, f"{share:.1f}")
            name = ""
        if not result.instances:
            table.add_row(name, "nothing found", "", "", "", style="dim")
        table.add_section()
    console.print(table)


def _print_classes(results: Pairs, console: Console) -> None:
    """The classes of each picture by falling share, each beside the color that it has in the overlays."""
    from rich.table import Table
    from rich.text import Text

    from segserve.label_render import colors_of_classes
    from segserve.legend import percent

    table = Table("image", "class", "area")
    table.columns[2].justify = "right"
    for image, result in results:
        name = Path(image).name
        colors = dict(zip(result.classes, colors_of_classes(result.classes), strict=True))
        for label, share in sorted(result.pixel_fraction.items(), key=lambda pair: (-pair[1], pair[0])):
            red, green, blue = colors.get(label, (128, 128, 128))
            swatch = Text("■ ", style=f"rgb({red},{green},{blue})")
            table.add_row(Text(name), swatch.append(label, style="default"), percent(share))
            name = ""
        table.add_section()
    console.print(table)
