"""Memory of one worker: of the demo's models, and of the published sizes with random weights.

    python benchmarks/worker_memory.py                     # the demo's and the full sizes, some minutes
    python benchmarks/worker_memory.py mask_rcnn_r50 demo  # only these

Each is packed as an archive and served, loaded and measured by ``segserve tune`` with two clients: resident (RSS) and
proportional (PSS) memory of the worker, when it has loaded, and after the load. Weights do not change what a model
takes; thresholds are lowered so that random ones find something to outline.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "weights" / "demo"
CONSOLE = Console()
MIB = 2**20
LOW = {"box_threshold": 0.001, "text_threshold": 0.0, "max_instances": 4}


def processor_of(demo: Path, out: Path, **size: Any) -> None:
    """The demo's processor and tokenizer files with another input size."""
    out.mkdir(parents=True, exist_ok=True)
    for file in [*demo.glob("tokenizer*"), *demo.glob("processor_config.json")]:
        (out / file.name).write_bytes(file.read_bytes())
    file = out / "processor_config.json"
    config = json.loads(file.read_text("utf-8"))
    config["image_processor"] |= size
    file.write_text(json.dumps(config), "utf-8")


def grounded_sam(out: Path, *, swin: dict[str, Any], vit: dict[str, Any]) -> None:
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection, SamConfig, SamModel, SwinConfig

    backbone = SwinConfig(out_features=["stage2", "stage3", "stage4"], **swin)
    GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=backbone)).save_pretrained(
        out / "grounding_dino"
    )
    SamModel(SamConfig(vision_config=vit)).save_pretrained(out / "sam")
    processor_of(
        DEMO / "grounded_sam" / "grounding_dino",
        out / "grounding_dino",
        size={"shortest_edge": 800, "longest_edge": 1333},
    )
    processor_of(
        DEMO / "grounded_sam" / "sam",
        out / "sam",
        size={"longest_edge": 1024},
        pad_size={"height": 1024, "width": 1024},
        mask_size={"longest_edge": 256},
        mask_pad_size={"height": 256, "width": 256},
    )


def sam2(out: Path, width: int, blocks: tuple[int, ...]) -> None:
    import torch
    from transformers import Sam2ImageProcessor, Sam2Model, Sam2Processor

    from segserve.models.sam2.original_checkpoint import configuration

    # What tells a published size: its width, and which blocks start a stage.
    trunk = "image_encoder.trunk."
    state = {f"{trunk}patch_embed.proj.weight": torch.empty(width, 3, 7, 7)}
    state[f"{trunk}pos_embed"] = torch.empty(1, width, *((14, 14) if width == 112 else (7, 7)))
    starts = {sum(blocks[:stage]) for stage in range(1, len(blocks))}
    for index in range(sum(blocks)):
        state[f"{trunk}blocks.{index}.{'proj.weight' if index in starts else 'x'}"] = torch.empty(1)
    Sam2Model(configuration(state)).save_pretrained(out)
    Sam2Processor(Sam2ImageProcessor()).save_pretrained(out)


def mask_rcnn(out: Path, depth: int) -> None:
    from dataclasses import replace

    from segserve.models.mask_rcnn.architecture import Architecture
    from segserve.models.mask_rcnn.checkpoint import save_checkpoint
    from segserve.models.mask_rcnn.network import MaskRcnnNetwork

    shape = Architecture(tuple(f"class {index}" for index in range(80)))
    shape = replace(shape, backbone=replace(shape.backbone, depth=depth))
    save_checkpoint(out, MaskRcnnNetwork(shape))


def segformer(out: Path) -> None:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    widths, depths = [64, 128, 320, 512], [3, 6, 40, 3]
    config = SegformerConfig(hidden_sizes=widths, depths=depths, decoder_hidden_size=768, num_labels=150)
    SegformerForSemanticSegmentation(config).save_pretrained(out)
    SegformerImageProcessor(size={"height": 640, "width": 640}).save_pretrained(out)


SWIN_T: dict[str, Any] = {}
SWIN_B = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12, "image_size": 384}
VIT_B: dict[str, Any] = {}
VIT_H = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "mlp_dim": 5120}
VIT_H |= {"global_attn_indexes": [7, 15, 23, 31]}

# name: (title, model, what writes its checkpoint, options of its handler)
FULL_SIZE: dict[str, tuple[str, str, Callable[[Path], None], dict[str, Any]]] = {
    "grounded_sam_base": (
        "Grounding DINO tiny + SAM ViT-B",
        "grounded_sam",
        lambda out: grounded_sam(out, swin=SWIN_T, vit=VIT_B),
        LOW,
    ),
    "grounded_sam_huge": (
        "Grounding DINO base + SAM ViT-H",
        "grounded_sam",
        lambda out: grounded_sam(out, swin=SWIN_B, vit=VIT_H),
        LOW,
    ),
    "sam2_small": ("SAM 2.1 hiera-small", "sam2", lambda out: sam2(out, 96, (1, 2, 11, 2)), {}),
    "sam2_large": ("SAM 2.1 hiera-large", "sam2", lambda out: sam2(out, 144, (2, 6, 36, 4)), {}),
    "mask_rcnn_r50": ("Mask R-CNN R50-FPN, 80 classes", "mask_rcnn", lambda out: mask_rcnn(out, 50), {}),
    "mask_rcnn_r101": ("Mask R-CNN R101-FPN, 80 classes", "mask_rcnn", lambda out: mask_rcnn(out, 101), {}),
    "segformer_b5": ("SegFormer-B5, 150 classes", "semantic", segformer, {}),
}


def measured(archive: Path, work: Path, seconds: float) -> dict[str, Any]:
    """The one trial of a ``segserve tune``."""
    out = work / "tune.json"
    command = [sys.executable, "-m", "segserve.cli", "tune", str(archive), "--workers", "1", "--batch-sizes", "1"]
    command += ["--clients", "2", "--scenes", "4", "--seconds", str(seconds), "--warm-up", "0"]
    subprocess.run(
        [*command, "--out", str(out), "--log-dir", str(work / "logs")], check=False, stdout=subprocess.DEVNULL
    )
    (trial,) = json.loads(out.read_text("utf-8"))["trials"]
    return dict(trial)


def main() -> None:
    from segserve.torchserve.archive import build_archive

    parser = argparse.ArgumentParser(description="Memory of one worker.", epilog="example: worker_memory.py sam2_large")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"demo, {', '.join(FULL_SIZE)} (default: all)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of load on each")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "worker_memory.json")
    options = parser.parse_args()
    names = options.names or ["demo", *FULL_SIZE]
    if unknown := set(names) - {"demo", *FULL_SIZE}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    rows = {}
    for name in names:
        for title, model, write, handler in (
            [(f"demo {folder.name}", folder.name, None, {}) for folder in sorted(DEMO.iterdir()) if folder.is_dir()]
            if name == "demo"
            else [FULL_SIZE[name]]
        ):
            CONSOLE.print(title)
            with tempfile.TemporaryDirectory() as folder:
                work = Path(folder)
                source = DEMO / model
                if write is not None:
                    source = work / "checkpoint"
                    write(source)
                archive = build_archive(model, source, work / "store", handler_options=handler)
                rows[title] = {"archive": archive.stat().st_size, **measured(archive, work, options.seconds)}
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=2) + "\n", "utf-8")
    table = Table(caption="MiB; ready: has loaded; after: the load")
    for column in ("", "archive", "RSS ready", "PSS ready", "RSS after", "PSS after", "answers"):
        table.add_column(column, justify="left" if not column else "right")
    for title, row in rows.items():
        fields = ("archive", "ready_rss", "ready_pss", "worker_rss", "worker_pss")
        cells = ["–" if row[field] is None else f"{row[field] / MIB:.0f}" for field in fields]
        table.add_row(title, *cells, row["problem"] or str(row["answers"]))
    CONSOLE.print(table)


if __name__ == "__main__":
    main()
