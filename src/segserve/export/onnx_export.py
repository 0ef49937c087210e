"""``model.onnx`` of a semantic checkpoint: written, verified on real pictures, and only then put in its place.

result = export_onnx(Path("weights/demo/semantic"), Path("weights/demo/semantic/model.onnx"), pictures)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from segserve.errors import InvalidRequestError
from segserve.export.engines import onnx_engine, onnx_runner, torch_runner, weights_digest
from segserve.export.exporter import DEFAULT_OPSET, read_metadata, write_onnx
from segserve.export.verification import Tolerance, Verification, verify
from segserve.imaging import Rgb
from segserve.models.checkpoints import model_type
from segserve.models.device import choose_placement
from segserve.models.semantic import Semantic
from segserve.models.semantic.checkpoint import Checkpoint, load_checkpoint

_FIXED_SIZE = (
    "The input size of this checkpoint depends on the picture, which many networks cannot be exported for: give its "
    'preprocessor_config.json a fixed one ("size": {"height": …, "width": …}).'
)

Step = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and how much there is (0: unknown)."""


@dataclass(frozen=True)
class Export:
    """A verified file.

    Attributes:
        file: where it lies now.
        report: where the numbers lie: ``report_file(file)``.
        metadata: see ``read_metadata``.
        verification: what the pictures showed.
        bytes: of the file.
    """

    file: Path
    report: Path
    metadata: dict[str, str]
    verification: Verification
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": self.file.name,
            "bytes": self.bytes,
            "sha256": hashlib.sha256(self.file.read_bytes()).hexdigest(),
            **self.metadata,
            "classes": json.loads(self.metadata.get("classes", "null")),
            "verification": self.verification.to_dict(),
        }


def report_file(file: Path) -> Path:
    """Beside ``model.onnx``: ``model.export.json``."""
    return file.with_name(f"{file.stem}.export.json")


def export_onnx(
    folder: Path,
    out: Path,
    images: Sequence[Rgb],
    *,
    opset: int = DEFAULT_OPSET,
    tolerance: Tolerance | None = None,
    step: Step | None = None,
) -> Export:
    """Write a checkpoint's network as ONNX, verify it, and put it in place with a report beside it.

    A file that does not pass is removed; one that was in its place before stays.

    Args:
        folder: a checkpoint of either kind.
        out: the file; its folder is made.
        images: real pictures, H x W x 3 uint8; those the model is for show most.
        opset: see ``write_onnx``.
        tolerance: see there.
        step: called with what is being done.

    Raises:
        NotFoundError, InvalidRequestError: as ``load_checkpoint`` and ``write_onnx``; or the file differs from the
            network, with the numbers.
        TooLargeError: as ``write_onnx``.
        OSError: the file cannot be written.
    """
    report = step or (lambda name, done, total: None)
    if not images:
        raise InvalidRequestError("there are no pictures to verify the export on.")
    report("load", 0, 0)
    checkpoint = load_checkpoint(folder)
    inputs = verification_inputs(checkpoint, images)
    out.parent.mkdir(parents=True, exist_ok=True)
    candidate = out.with_name(f".{out.stem}.partial.onnx")
    try:
        report("export", 0, 0)
        any_size = checkpoint.preprocessing.input_size is None
        metadata = _metadata(folder, checkpoint)
        write_onnx(checkpoint.network, inputs[0], candidate, opset=opset, any_size=any_size, metadata=metadata)
        return accept(checkpoint, candidate, out, inputs, tolerance=tolerance, step=report)
    except InvalidRequestError as error:
        message = error.message.replace(candidate.name, out.name)
        advice = "" if checkpoint.preprocessing.input_size else f" {_FIXED_SIZE}"
        raise InvalidRequestError(f"{message}{advice}") from error
    finally:
        candidate.unlink(missing_ok=True)


def verification_inputs(checkpoint: Checkpoint, images: Sequence[Rgb]) -> list[Tensor]:
    """The network's inputs of pictures, 3 x H x W each; where their size is open, of other shapes as well.

    An exporter can take a size for a constant, which shows only at another one: the first picture is added on its
    side and cut in both directions.
    """
    shown = list(images)
    if checkpoint.preprocessing.input_size is None:
        first = shown[0]
        height, width = first.shape[:2]
        cuts = (first[: max(1, height * 2 // 3)], first[:, : max(1, width * 2 // 3)])
        shown += [np.ascontiguousarray(each) for each in (np.rot90(first), *cuts)]
    return [checkpoint.preprocessing(image) for image in shown]


def accept(
    checkpoint: Checkpoint,
    candidate: Path,
    out: Path,
    inputs: Sequence[Tensor],
    *,
    tolerance: Tolerance | None = None,
    step: Step | None = None,
) -> Export:
    """Put a file in place if it answers as the checkpoint's network does, with a report beside it.

    Args:
        candidate: the ONNX file; moved when it passes, and left alone when it does not.
        inputs: of the network, 3 x H x W float32 each.

    Raises:
        InvalidRequestError: the file cannot be loaded, or differs past the tolerance, with the numbers.
    """
    network = Semantic(checkpoint, choose_placement("cpu", "float32"), onnx_engine(candidate, checkpoint))
    found = verify(
        torch_runner(network),
        onnx_runner(network),
        inputs,
        tolerance=tolerance,
        done=None if step is None else lambda done, total: step("verify", done, total),
    )
    if not found.passed:
        raise InvalidRequestError(
            f"{out.name} is refused, it does not answer as the network does "
            f"({found.agreement.pictures} pictures): {'; '.join(found.problems)}."
        )
    candidate.replace(out)
    export = Export(out, report_file(out), read_metadata(out), found, out.stat().st_size)
    export.report.write_text(json.dumps(export.to_dict(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    return export


def _metadata(folder: Path, checkpoint: Checkpoint) -> dict[str, str]:
    return {
        "made_by": f"segserve {version('segserve')} export-onnx",
        "model_type": str(model_type(folder)),
        "classes": json.dumps(checkpoint.classes, ensure_ascii=False),
        "weights_sha256": weights_digest(folder),
    }
