"""``segserve download``: fetch pretrained checkpoints from a model hub, ready for ``segserve archive``.

segserve download grounded_sam --out checkpoints/grounded_sam && segserve archive checkpoints/grounded_sam grounded_sam
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from segserve.errors import FetchError, InvalidRequestError, NotFoundError

FILES = (
    *("config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json"),
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
)
"""What is fetched of a repository. Pickled weights stay out: they can run code."""


def add_parser(subparsers: Any) -> None:
    """Add ``download`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "download",
        help="fetch pretrained checkpoints from a model hub",
        description="Fetch pretrained checkpoints (safetensors only) from a model hub and check that they load. "
        "The folder has the layout that segserve archive takes. Instead of a repository's name, a local folder "
        "can be given for each part.",
        epilog="example: segserve download grounded_sam --out checkpoints/grounded_sam",
    )
    parser.add_argument("model", choices=["grounded_sam"], help="the model to fetch the parts of")
    parser.add_argument(
        "--detector",
        default="IDEA-Research/grounding-dino-tiny",
        metavar="NAME",
        help="repository or folder of a Grounding DINO or MM Grounding DINO (default %(default)s)",
    )
    parser.add_argument(
        "--segmenter",
        default="facebook/sam-vit-base",
        metavar="NAME",
        help="repository or folder of a SAM or SAM-HQ (default %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument(
        "--hub", metavar="URL", help="address of the model hub (default: $HF_ENDPOINT, or https://huggingface.co)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch and check both parts. Returns the exit status.

    Raises:
        InvalidRequestError: the folder is not empty, a name is no repository's, or a checkpoint of another model.
        NotFoundError: no such repository, or it has no safetensors.
        FetchError: no hub can be reached.
    """
    from segserve.models.checkpoints import DETECTORS, SEGMENTERS
    from segserve.models.grounded_sam import DETECTOR_FOLDER, SEGMENTER_FOLDER

    out: Path = args.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidRequestError(f"{out} is there already and not empty. Give a new folder as --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = ((args.detector, DETECTOR_FOLDER, DETECTORS), (args.segmenter, SEGMENTER_FOLDER, SEGMENTERS))
    # Next to the result, so that it appears there by a rename: whole, or not at all.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as work:
        for source, name, classes in parts:
            print(f"{name}: {source} …", flush=True)
            _get(source, Path(work) / name, args.hub)
            _check(Path(work) / name, classes)
        for _, name, _ in parts:
            out.mkdir(exist_ok=True)
            (Path(work) / name).rename(out / name)
    print(f"{args.model} in {out}. Pack it with: segserve archive {out} {args.model}")
    return 0


def _get(source: str, folder: Path, hub: str | None) -> None:
    local = Path(source)
    if not local.is_dir():
        _fetch(source, folder, hub)
        return
    folder.mkdir(parents=True)
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
