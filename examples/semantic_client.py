"""Segmentation maps of pictures from /infer/file and /infer/url, with requests and Pillow.

    segserve serve                                         # in another terminal
    python examples/semantic_client.py room.jpg https://example.com/room.jpg --out maps --show

Each map is a PNG in colors whose pixels are the numbers of the classes. It has the size of the model's input.
"""

from __future__ import annotations

import argparse
import colorsys
from pathlib import Path
from urllib.parse import urlsplit

import requests
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", help="pictures: files, or http(s):// addresses for the server to fetch")
    parser.add_argument("--out", type=Path, default=Path("maps"), help="folder for the maps (default %(default)s)")
    parser.add_argument("--engine", choices=["torch", "onnx"], default="torch", help="what computes (%(default)s)")
    parser.add_argument("--show", action="store_true", help="also open each map in the system's picture viewer")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    classes = class_names(args.url)

    for count, image in enumerate(args.images, start=1):
        is_url = image.startswith(("http://", "https://"))
        results = infer_url(args.url, image, args.engine) if is_url else infer_file(args.url, image, args.engine)
        labels = results["segmentation_map"]  # rows of class numbers
        pixels = bytes(number for row in labels for number in row)
        picture = Image.frombytes("P", (len(labels[0]), len(labels)), pixels)
        picture.putpalette(palette(len(classes)))
        name = Path(urlsplit(image).path if is_url else image).stem
        target = args.out / f"{count}_{name}.png"
        picture.save(target)
        print(f"{image}: {picture.width} x {picture.height}, written to {target}")
        for number, name in enumerate(classes):
            if pixels.count(number):
                print(f"  {name:<16} {pixels.count(number) / len(pixels):6.1%}")
        if args.show:
            picture.show(title=image)


def class_names(server: str) -> list[str]:
    """The names of the semantic model's classes, by number."""
    answer = requests.get(f"{server}/v1/models", timeout=10)
    answer.raise_for_status()
    for model in answer.json()["models"]:
        if model["kind"] == "semantic":
            names: list[str] = model["classes"]
            return names
    raise SystemExit("No semantic model is served: segserve archive semantic, then segserve serve")


def infer_file(server: str, image: str, engine: str) -> dict[str, list[list[int]]]:
    """The results for a file of this machine."""
    with Path(image).open("rb") as file:
        files = {"file": (Path(image).name, file)}
        return results_of(requests.post(f"{server}/infer/file", data=wanted(engine), files=files, timeout=60))


def infer_url(server: str, address: str, engine: str) -> dict[str, list[list[int]]]:
    """The results for a picture that the server fetches."""
    data = {**wanted(engine), "url_image": address}
    return results_of(requests.post(f"{server}/infer/url", data=data, timeout=60))


def wanted(engine: str) -> dict[str, str | list[str]]:
    """The form's fields. Add "logits" or "pixels_distribution" for tensors of classes x height x width: tens of MB."""
    return {"infer_model_type": engine, "requested_results_types": ["segmentation_map"]}


def results_of(answer: requests.Response) -> dict[str, list[list[int]]]:
    if not answer.ok:
        raise SystemExit(f"{answer.status_code}: {answer.json()['detail']}")
    results: dict[str, list[list[int]]] = answer.json()["requested_results"]
    return results


def palette(count: int) -> list[int]:
    """Red, green and blue of count colors, one after the other."""
    hues = (number * 0.618 % 1 for number in range(count))
    return [round(255 * part) for hue in hues for part in colorsys.hsv_to_rgb(hue, 0.7, 0.9)]


if __name__ == "__main__":
    main()
