"""``segserve download``: fetch pretrained checkpoints from a model hub, ready for ``segserve archive``.

segserve download grounded_sam --out checkpoints/grounded_sam && segserve archive checkpoints/grounded_sam grounded_sam
segserve download sam2 --out checkpoints/sam2 && segserve archive sam2 --weights checkpoints/sam2
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segserve.errors import FetchError, InvalidRequestError, NotFoundError

FILES = (
    *("config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json"),
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
)
"""What is fetched of a repository. Pickled weights stay out: they can run code."""

_DEFAULT_DETECTOR = "IDEA-Research/grounding-dino-tiny"
_DEFAULT_SEGMENTER = "facebook/sam-vit-base"
_DEFAULT_SAM2 = "facebook/sam2.1-hiera-small"


def add_parser(subparsers: Any) -> None:
    """Add ``download`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "download",
        help="fetch pretrained checkpoints from a model hub",
        description="Fetch pretrained checkpoints (safetensors only) from a model hub and check that they load. "
        "The folder has the layout that segserve archive takes. Instead of a repository's name, a local folder "
        "can be given for each part.",
        epilog="example: segserve download grounded_sam --out checkpoints/grounded_sam | "
        "segserve download sam2 --segmenter facebook/sam2.1-hiera-tiny --out checkpoints/sam2",
    )
    parser.add_argument("model", choices=["grounded_sam", "sam2"], help="the model to fetch the parts of")
    parser.add_argument(
        "--detector",
        metavar="NAME",
        help="of grounded_sam: repository or folder of a Grounding DINO or MM Grounding DINO "
        f"(default {_DEFAULT_DETECTOR})",
    )
    parser.add_argument(
        "--segmenter",
        metavar="NAME",
        help=f"repository or folder; of grounded_sam a SAM or SAM-HQ (default {_DEFAULT_SEGMENTER}), of sam2 a SAM 2 "
        f"or 2.1 (default {_DEFAULT_SAM2})",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument(
        "--hub", metavar="URL", help="address of the model hub (default: $HF_ENDPOINT, or https://huggingface.co)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch and check the parts. Returns the exit status.

    Raises:
        InvalidRequestError: the folder is not empty, a name is no repository's, or a checkpoint of another model.
        NotFoundError: no such repository, or it has no safetensors.
        FetchError: no hub can be reached.
    """
    out: Path = args.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidRequestError(f"{out} is there already and not empty. Give a new folder as --out.")
    parts = _parts(args)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Next to the result, so that it appears there by a rename: whole, or not at all.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as work:
        made = Path(work) / "made"
        for part in parts:
            print(f"{part.folder or args.model}: {part.source} …", flush=True)
            _get(part.source, made / part.folder, args.hub)
            _check(made / part.folder, part.classes)
        if out.exists():
            out.rmdir()
        made.rename(out)
    print(f"{args.model} in {out}. Pack it with: segserve archive {args.model} --weights {out}")
    return 0


@dataclass(frozen=True)
class _Part:
    """What is fetched from where. folder: within the checkpoint; empty: the checkpoint itself."""

    source: str
    folder: str
    classes: dict[str, str]


def _parts(args: argparse.Namespace) -> list[_Part]:
    from segserve.catalog import SAM2
    from segserve.models.checkpoints import CLICK_SEGMENTERS, DETECTORS, SEGMENTERS
    from segserve.models.grounded_sam import DETECTOR_FOLDER, SEGMENTER_FOLDER

    if args.model == SAM2.name:
        if args.detector is not None:
            raise InvalidRequestError("--detector: is no part of sam2.")
        return [_Part(args.segmenter or _DEFAULT_SAM2, "", CLICK_SEGMENTERS)]
    return [
        _Part(args.detector or _DEFAULT_DETECTOR, DETECTOR_FOLDER, DETECTORS),
        _Part(args.segmenter or _DEFAULT_SEGMENTER, SEGMENTER_FOLDER, SEGMENTERS),
    ]


def _get(source: str, folder: Path, hub: str | None) -> None:
    local = Path(source)
    if not local.is_dir():
        _fetch(source, folder, hub)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in FILES:
        for file in local.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def _fetch(repository: str, folder: Path, hub: str | None) -> None:
    """Download a repository's FILES into folder, translating the hub client's errors."""
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    address = hub or constants.ENDPOINT
    try:
        # Asked first: it fails at once where there is no hub, and pins all files to one revision.
        revision = HfApi(endpoint=address).model_info(repository, timeout=10).sha
        snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=list(FILES), endpoint=address)
    except errors.HFValidationError as error:
        raise InvalidRequestError(
            f"{repository!r} is neither a folder nor a repository's name such as facebook/sam-vit-base."
        ) from error
    except (errors.RepositoryNotFoundError, errors.GatedRepoError) as error:
        raise NotFoundError(
            f"{address} has no repository {repository} that may be read. Check the name, or log in with: hf auth login"
        ) from error
    except Exception as error:
        # The client lets through many types of its HTTP library: whatever it is, the files did not come.
        raise FetchError(
            f"{repository} cannot be fetched: no model hub answers at {address} ({type(error).__name__}). Download it "
            "where there is one and give its folder instead of its name, or name a mirror with --hub URL."
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _check(folder: Path, classes: dict[str, str]) -> None:
    from segserve.models.checkpoints import load_model, load_processor

    load_model(folder, classes)
    load_processor(folder)
