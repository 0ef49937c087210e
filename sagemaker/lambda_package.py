"""The Lambda function's package: its modules, and segserve's web page as the gateway sends it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

from failures import DeploymentError

_SOURCE = Path(__file__).parent / "lambda" / "segserve_api"
_PACKAGE = "segserve_api"
_DATE = (1980, 1, 1, 0, 0, 0)


def contents() -> dict[str, bytes]:
    """The package's files by their names in it.

    Raises:
        DeploymentError: segserve, which has the page, is not installed.
    """
    found = {f"{_PACKAGE}/{path.name}": path.read_bytes() for path in sorted(_SOURCE.glob("*.py"))}
    return found | {f"{_PACKAGE}/page/{name}": data for name, data in _page().items()}


def build(out: Path) -> str:
    """Write the package as a zip file; the same content gives the same bytes. Returns its SHA-256."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(contents().items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            # Lambda runs as another user than the one that packed.
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return hashlib.sha256(out.read_bytes()).hexdigest()


def _page() -> dict[str, bytes]:
    """The page's files under plain names, and the list of them that segserve_api.page reads."""
    try:
        from segserve.gateway import page_files
    except ImportError as error:
        raise DeploymentError("the web page comes with segserve: pip install -e '.[aws]' first.") from error
    listed: dict[str, dict[str, str]] = {}
    found: dict[str, bytes] = {}
    for path, file in page_files.page_files().items():
        sent = page_files.index("") if path == page_files.INDEX else file
        name = "index.html" if path == page_files.INDEX else path.strip("/").replace("/", "_")
        listed[path] = {"name": name, "type": sent.content_type, "etag": sent.etag}
        found[name] = sent.data
    listing = {"headers": page_files.headers(""), "files": listed}
    return {**found, "files.json": json.dumps(listing, indent=1, sort_keys=True).encode("utf-8")}
