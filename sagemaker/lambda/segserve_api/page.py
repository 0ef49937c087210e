"""segserve's web page, out of the function's own package, where `sagemaker/package_lambda.py` puts it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from segserve_api.messages import Answer, ApiRequest

FOLDER = Path(__file__).parent / "page"
LIST = "files.json"


class Page:
    """The page's files by path. A package without them offers the API only.

    Args:
        folder: has ``files.json`` (path → name, Content-Type, ETag; and the headers of all) and the files.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    @cached_property
    def _listed(self) -> Mapping[str, Any]:
        listing = self._folder / LIST
        found: Mapping[str, Any] = json.loads(listing.read_text("utf-8")) if listing.is_file() else {"files": {}}
        return found

    def has(self, path: str) -> bool:
        """Whether a path is one of the page's."""
        return path in self._listed["files"]

    def answer(self, request: ApiRequest, location: str) -> Answer | None:
        """The page's file that a request asks for; None when it asks for something else.

        Args:
            location: the path as the browser sees it. A stage without a slash behind it is redirected: the page's
                own addresses are relative.
        """
        if request.method != "GET" or not self.has(request.path):
            return None
        if request.path == "/" and not location.endswith("/"):
            return Answer(308, headers={"Location": f"{location}/"})
        file = self._listed["files"][request.path]
        headers = {**self._listed["headers"], "ETag": file["etag"]}
        if file["etag"] in request.headers.get("if-none-match", ""):
            return Answer(304, headers=headers)
        return Answer(200, (self._folder / file["name"]).read_bytes(), file["type"], headers)
