"""The web page's files, read once, with the headers that they are sent with.

The page runs scripts and styles of its own only, and talks to one API; see policy().
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable

INDEX = "/"
FAVICON = "/favicon.ico"
"""What browsers ask for on their own, for a page that names no icon, such as /docs."""
SCENES = "/demo-scenes/"
STATIC = "/static/"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_ENDPOINT = "{{endpoint}}"
"""Where index.html wants the address of the API."""


@dataclass(frozen=True)
class PageFile:
    """A file of the page: its bytes, its Content-Type and its ETag."""

    data: bytes
    content_type: str

    @property
    def etag(self) -> str:
        """The same for the same bytes."""
        return f'"{hashlib.sha256(self.data).hexdigest()[:32]}"'


@lru_cache(maxsize=1)
def page_files() -> dict[str, PageFile]:
    """All files by the path under which they are served; the page itself is at INDEX.

    Paths are looked up in this table and never joined to a folder's, so that none leads out of it.
    """
    found = {}
    for name, file in _walk(files("segserve.gateway") / "static"):
        suffix = name[name.rindex(".") :]
        content = PageFile(file.read_bytes(), _TYPES[suffix])
        if name == "index.html":
            found[INDEX] = content
        elif name == "icon.svg":
            found[FAVICON] = found[STATIC + name] = content
        elif name.startswith("scenes/"):
            found[SCENES + name.removeprefix("scenes/")] = content
        else:
            found[STATIC + name] = content
    return found


@lru_cache(maxsize=4)
def index(endpoint: str) -> PageFile:
    """The page, told which API it asks; endpoint: ``https://host:8080``, also with a path, or empty for its own."""
    page = page_files()[INDEX]
    text = page.data.decode("utf-8").replace(_ENDPOINT, escape(endpoint))
    return PageFile(text.encode("utf-8"), page.content_type)


def headers(endpoint: str) -> dict[str, str]:
    """What every file of the page is sent with, its type and tag aside."""
    return {
        # Asked for again each time, and answered with 304 while it is the same: an update shows at once.
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy(endpoint),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def policy(endpoint: str) -> str:
    """The Content-Security-Policy: own scripts and styles from files only, requests to the API only.

    Pictures may come from the page's own memory (blob:). Trusted Types refuse text as HTML or as a script's address;
    the one policy that js/decoder.js makes gives the address of its worker.
    """
    # A path without a slash at its end would stand for that one address only.
    api = f"{endpoint}/" if endpoint.count("/") > 2 else endpoint
    rules = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob:",
        "connect-src": " ".join(["'self'", api]).strip(),
        "worker-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "segserve-worker",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _walk(folder: Traversable, under: str = "") -> Iterator[tuple[str, Traversable]]:
    """The files of a folder and their names within it."""
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if entry.is_dir():
            yield from _walk(entry, f"{under}{entry.name}/")
        elif any(entry.name.endswith(suffix) for suffix in _TYPES):
            yield under + entry.name, entry
