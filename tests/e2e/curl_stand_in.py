"""The options of curl that examples/curl.sh, docs/api.md and the web page use, for machines that have no curl.

python tests/e2e/curl_stand_in.py -sS --fail-with-body URL -F 'image=@room.png' -o answer.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import requests


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("-s", "-S", "-sS", "-sSL", action="store_true")
    parser.add_argument("--fail-with-body", action="store_true")
    parser.add_argument("-F", action="append", default=[])
    parser.add_argument("--form-string", action="append", default=[])
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("--data-binary")
    parser.add_argument("-o", type=Path)
    parser.add_argument("-D", choices=["-"])
    parser.add_argument("url")
    args = parser.parse_args()

    form = [(name, value) for name, _, value in (field.partition("=") for field in args.F)]
    files = [(name, (name if value.startswith("@") else None, content(value))) for name, value in form]
    files += [(name, (None, value.encode())) for name, _, value in (each.partition("=") for each in args.form_string)]
    headers = dict(header.split(": ", 1) for header in args.H)
    body = content(args.data_binary) if args.data_binary else None
    method = "POST" if files or body else "GET"
    answer = requests.request(method, args.url, headers=headers, data=body, files=files or None, timeout=60)
    if args.D:
        print("\r\n".join(f"{name}: {value}" for name, value in answer.headers.items()))
    if args.o:
        args.o.write_bytes(answer.content)
    else:
        sys.stdout.buffer.write(answer.content)
    return 22 if args.fail_with_body and answer.status_code >= 400 else 0


def content(value: str) -> bytes:
    """What a value stands for: the file after an @, which may be quoted (of -, what is typed in), else its own text."""
    if value == "@-":
        return sys.stdin.buffer.read()
    return Path(value[1:].strip('"')).read_bytes() if value.startswith("@") else value.encode()


if __name__ == "__main__":
    sys.exit(main())
