"""What the tests of sagemaker/'s scripts share: names in the account, an image, an archive, and how a script ended."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ROOT / "sagemaker"
REGION = "eu-central-1"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
BUCKET = f"segserve-shop-123456789012-{REGION}"
ON_CPU = ("--name", "shop", "--instance-type", "ml.m5.xlarge")


@dataclass(frozen=True)
class Run:
    """How a script ended: its status, and what it wrote."""

    status: int
    out: str
    err: str


def push(ecr: Any, content: str, media_type: str = MANIFEST) -> str:
    """Put an image under the tag latest; returns its digest."""
    manifest = f'{{"schemaVersion": 2, "mediaType": "{media_type}", "config": {{"digest": "{content}"}}, "layers": []}}'
    digest = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
    answer = ecr.put_image(repositoryName="shop", imageManifest=manifest, imageTag="latest", imageDigest=digest)
    return str(answer["image"]["imageId"]["imageDigest"])


def packed(path: Path, content: bytes) -> Path:
    """A gzipped tar with one .mar file."""
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("mask_rcnn.mar")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return path
