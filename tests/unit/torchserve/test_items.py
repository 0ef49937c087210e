"""The three forms of a request to a worker."""

import base64
import json

import pytest

from segserve.errors import InvalidRequestError
from segserve.torchserve.items import read_item

IMAGE = b"\xff\xd8\xff\xe0 some bytes"
PROMPT = '{"text": "sofa."}'
IN_JSON = {"image": base64.b64encode(IMAGE).decode(), "prompt": {"text": "sofa."}}


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"image": bytearray(IMAGE), "prompt": bytearray(PROMPT.encode())}, {}),
        ({"image": IMAGE, "prompt": PROMPT}, {}),
        ({"image": IMAGE, "prompt": json.loads(PROMPT)}, {}),
        ({"body": bytearray(IMAGE)}, {"X-Segserve-Prompt": PROMPT, "Content-Type": "image/jpeg"}),
        ({"body": IMAGE}, {"x-segserve-prompt": PROMPT}),
        ({"body": json.dumps(IN_JSON).encode()}, {"Content-Type": "application/json"}),
        ({"body": json.dumps(IN_JSON).encode()}, {"content-type": "text/plain"}),
        ({"body": IN_JSON}, {"content-type": "application/json"}),
        ({"data": IMAGE}, {"X-SEGSERVE-PROMPT": PROMPT}),
    ],
    ids=["multipart", "text", "decoded JSON", "raw", "lower case", "JSON", "JSON as text", "decoded body", "data"],
)
def test_every_form_gives_the_same_item(fields, headers):
    item = read_item(fields, headers)
    assert item.image == IMAGE
    assert item.prompt.text == "sofa."


def test_line_breaks_in_base64_are_fine():
    body = {**IN_JSON, "image": "\n".join(IN_JSON["image"][i : i + 4] for i in range(0, len(IN_JSON["image"]), 4))}
    assert read_item({"body": body}, {}).image == IMAGE


def test_a_missing_prompt_is_an_empty_one():
    assert read_item({"image": IMAGE}, {}).prompt.text is None
    assert read_item({"body": IMAGE}, {}).prompt.text is None


@pytest.mark.parametrize(
    ("fields", "headers", "named"),
    [
        ({}, {}, "no image"),
        ({"body": b""}, {}, "no image"),
        ({"picture": IMAGE}, {}, "no image"),
        ({"body": b"{broken"}, {"content-type": "application/json"}, "JSON"),
        ({"body": {"image": "!!!", "prompt": {"text": "a"}}}, {}, "base64"),
        ({"body": {"prompt": {"text": "a"}}}, {}, "image"),
        ({"body": {**IN_JSON, "pompt": 1}}, {}, "pompt"),
        ({"image": IMAGE, "prompt": b"{"}, {}, "prompt"),
        ({"image": IMAGE, "prompt": b'{"text": 5}'}, {}, "prompt.text"),
        ({"image": IMAGE, "prompt": b'{"parameters": {"box_threshold": 2}}'}, {}, "prompt.parameters.box_threshold"),
        ({"body": IMAGE}, {"x-segserve-prompt": "sofa"}, "X-Segserve-Prompt"),
    ],
)
def test_what_is_wrong_is_named(fields, headers, named):
    with pytest.raises(InvalidRequestError) as caught:
        read_item(fields, headers)
    assert named in caught.value.message
