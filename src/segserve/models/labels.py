"""The labels of a Mask R-CNN's classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segserve.errors import InvalidRequestError, NotFoundError

MAX_LABEL_CHARACTERS = 200
_MAX_FILE_BYTES = 2**20


def read_labels(file: Path) -> tuple[str, ...]:
    """The labels of a text file, one a line, in the order of the weights' classes. Blank lines at the end do not count.

    Raises:
        NotFoundError: no such file.
        InvalidRequestError: not UTF-8 text, a blank line between labels, or one label twice.
    """
    if not file.is_file():
        raise NotFoundError(f"There is no labels file {file.name}.")
    if file.stat().st_size > _MAX_FILE_BYTES:
        raise InvalidRequestError(f"{file.name}: a labels file has at most {_MAX_FILE_BYTES} bytes.")
    try:
        lines = [line.strip() for line in file.read_text("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{file.name}: expected UTF-8 text, one label a line.") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InvalidRequestError(f"{file.name}: expected one label a line; the file is empty.")
    if "" in lines:
        raise InvalidRequestError(f"{file.name}: line {lines.index('') + 1} is blank; expected one label a line.")
    return check_labels(lines, file.name)


def check_labels(labels: Sequence[str], where: str = "labels", count: int | None = None) -> tuple[str, ...]:
    """The labels, if they can be those of ``count`` classes.

    Raises:
        InvalidRequestError: too few, too many, twice the same, too long, or with control characters.
    """
    for index, label in enumerate(labels):
        if not label.strip() or len(label) > MAX_LABEL_CHARACTERS or not label.isprintable():
            raise InvalidRequestError(
                f"{where}: label {index + 1}: expected 1 to {MAX_LABEL_CHARACTERS} printable characters, "
                f"came {label[:40]!r}."
            )
        if label in labels[:index]:
            raise InvalidRequestError(
                f"{where}: {label!r} is there twice (labels {labels.index(label) + 1} and {index + 1}); "
                "each class needs a label of its own."
            )
    if count is not None and len(labels) != count:
        raise InvalidRequestError(
            f"{where}: expected {count} labels, as the weights have {count} classes; came {len(labels)}."
        )
    return tuple(labels)


def coco_labels() -> tuple[str, ...]:
    """COCO's 80 classes in the order that detectron2 trains them (by their identifier)."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    names = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return tuple(name for name in names if name not in ("__background__", "N/A"))
