"""The documentation page: the OpenAPI document as plain HTML, without scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1e21;background:#fff}
code,pre{font:14px/1.45 ui-monospace,monospace;background:#f2f4f6;border-radius:4px}
code{padding:.1em .3em}pre{padding:.8em;overflow:auto}
details{border:1px solid #d6dade;border-radius:6px;margin:.6rem 0;padding:.5rem .9rem}summary{cursor:pointer}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0}
.method{display:inline-block;min-width:3.4rem;font-weight:700;color:#0b5cad}
@media(prefers-color-scheme:dark){body{color:#e6e8ea;background:#16181b}code,pre{background:#24272b}
details{border-color:#3a3f45}.method{color:#7ab8ff}}
"""


def page(document: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document."""
    info = document["info"]
    pieces = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
        f"<p>{escape(info.get('description', ''))} The same as a document: ",
        '<a href="openapi.json">openapi.json</a>.</p><h2>Routes</h2>',
        *(_operation(path, method, operation) for path, method, operation in _operations(document)),
        "<h2>Types</h2>",
        *(_type(name, schema) for name, schema in sorted(document["components"]["schemas"].items())),
        "</body></html>",
    ]
    return "".join(pieces)


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    description = str(operation.get("description", ""))
    first, _, rest = description.partition("\n")
    body = operation.get("requestBody", {}).get("content", {})
    rows = [_row(kind, _name(content.get("schema", {}))) for kind, content in body.items()]
    asked = f"<h4>Body</h4><table>{''.join(rows)}</table>" if rows else ""
    parameters = "".join(
        _row(f"{item['name']} ({item['in']})", escape(item.get("description", "")))
        for item in operation.get("parameters", ())
    )
    answers = "".join(
        _row(str(status), escape(answer.get("description", "")) + " " + _contents(answer))
        for status, answer in operation.get("responses", {}).items()
    )
    return (
        f'<details><summary><span class="method">{method.upper()}</span> <code>{escape(path)}</code> {escape(first)}'
        f"</summary><p>{escape(rest.strip())}</p>{asked}"
        + (f"<h4>Parameters</h4><table>{parameters}</table>" if parameters else "")
        + f"<h4>Answers</h4><table>{answers}</table></details>"
    )


def _contents(answer: Mapping[str, Any]) -> str:
    return ", ".join(
        f"<code>{escape(kind)}</code> {_name(content.get('schema', {}))}".strip()
        for kind, content in answer.get("content", {}).items()
    )


def _name(schema: Mapping[str, Any]) -> str:
    """The type that a schema names, as links."""
    choices = schema.get("anyOf", [schema])
    names = [str(choice["$ref"]).rpartition("/")[2] for choice in choices if "$ref" in choice]
    return " or ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in names)


def _type(name: str, schema: Mapping[str, Any]) -> str:
    text = escape(json.dumps(schema, indent=2, ensure_ascii=False))
    return f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary><pre>{text}</pre></details>'


def _row(head: str, text: str) -> str:
    return f"<tr><th><code>{escape(head)}</code></th><td>{text}</td></tr>"
