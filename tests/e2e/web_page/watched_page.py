"""A page in the browser that remembers everything a good page does not do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, Request

_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
_WATCHER = """
window.cspViolations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.cspViolations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
});
window.executed = [];
// What forms ask: a browser tells nobody outside what is in a form with a file.
window.asked = [];
const send = window.fetch;
window.fetch = (address, options) => {
  if (options?.body instanceof FormData) window.asked.push(options.body.get("request"));
  return send(address, options);
};
"""


class WatchedPage:
    """The web page of one gateway.

    Attributes:
        tab: Playwright's page.
        url: the gateway's address.
        refusals: HTTP statuses that the test provokes, which the browser reports as errors of its own.
        requests: addresses of everything the page has asked for.
    """

    def __init__(self, tab: Page, url: str) -> None:
        self.tab, self.url = tab, url
        self.refusals: set[int] = set()
        self.requests: list[str] = []
        self._errors: list[str] = []
        tab.add_init_script(_WATCHER)
        tab.on("console", self._on_console)
        tab.on("pageerror", lambda error: self._errors.append(f"uncaught: {error}"))
        tab.on("request", self._on_request)
        tab.on("dialog", lambda dialog: (self._errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._errors.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        self.requests.append(request.url)

    def open(self, path: str = "/") -> None:
        """Go to a path of the gateway."""
        self.tab.goto(self.url + path)

    def screenshot(self, file: Path) -> None:
        """Keep a picture of the whole page."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self.tab.screenshot(path=file, full_page=True)

    def check(self) -> None:
        """No error in the console, no violated policy, no script of a stranger, nothing asked of another host."""
        errors = []
        for text in self._errors:
            refused = _REFUSED.search(text)
            if refused is None or int(refused[1]) not in self.refusals:
                errors.append(text)
        assert not errors, errors
        assert self.tab.evaluate("window.cspViolations") == []
        assert self.tab.evaluate("window.executed") == []
        assert not [url for url in self.requests if not self._is_own(url)]

    def forgive(self) -> None:
        """Forget what the console has said so far."""
        self._errors.clear()

    def _is_own(self, url: str) -> bool:
        return urlsplit(url).scheme in ("data", "blob") or url.startswith(f"{self.url}/")

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """What a piece of JavaScript gives."""
        return self.tab.evaluate(script, argument)
