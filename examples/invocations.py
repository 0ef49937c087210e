"""What a SageMaker client sends, with nothing but requests: a raw image, then a floor to be re-tiled.

    segserve serve                                         # in another terminal
    python examples/invocations.py room.jpg out

On SageMaker the same bodies go through boto3: client("sagemaker-runtime").invoke_endpoint(EndpointName=..., Body=...,
ContentType="image/jpeg", Accept="application/json", CustomAttributes="model=grounded_sam;text=floor.").
"""

from __future__ import annotations

import argparse
import base64
import mimetypes
from pathlib import Path

import requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path, help="a picture of a room")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    image = args.image.read_bytes()

    print("ping:", requests.get(f"{args.url}/ping", timeout=5).json())

    raw = {
        "Content-Type": mimetypes.guess_type(args.image.name)[0] or "application/x-image",
        "X-Amzn-SageMaker-Custom-Attributes": "model=grounded_sam;text=floor. wall.",
    }
    answer = requests.post(f"{args.url}/invocations", data=image, headers=raw, timeout=60)
    answer.raise_for_status()
    for instance in answer.json()["results"][0]["instances"]:
        print(f"{instance['label']}: score {instance['score']:.2f}, {instance['area']} pixels")

    picture = requests.post(f"{args.url}/invocations", data=image, headers={**raw, "Accept": "image/png"}, timeout=60)
    picture.raise_for_status()
    (args.out / "overlay.png").write_bytes(picture.content)

    tiling = {
        "categoryname": "Flooring",
        "roomName": "Kitchen",
        "images": [{"base64": base64.b64encode(image).decode("ascii"), "_id": "room"}],
    }
    answer = requests.post(f"{args.url}/invocations", json=tiling, timeout=60)
    answer.raise_for_status()
    (encoded,) = answer.json()["processed_images"]
    if encoded is None:
        raise SystemExit(f"not tiled: {answer.json()['errors']}")
    (args.out / "tiled.png").write_bytes(base64.b64decode(encoded))
    print(f"written: {args.out / 'overlay.png'}, {args.out / 'tiled.png'}")


if __name__ == "__main__":
    main()
