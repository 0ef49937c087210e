"""Find what you name in a picture, with the Python client.

    segserve serve                                         # in another terminal
    python examples/segment_by_text.py room.jpg "sofa. red chair. floor." overlay.png

No picture at hand: segserve scenes --seed 7 --count 1 --out build/room
"""

from __future__ import annotations

import argparse

from segserve.client import Client


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", help="a picture: a file, or an http(s):// address for the server to fetch")
    parser.add_argument("text", help='what to look for: phrases, each ended by a full stop, e.g. "sofa. floor."')
    parser.add_argument("overlay", help="the picture with what was found drawn on it is written here")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default %(default)s)")
    args = parser.parse_args()

    with Client(args.url) as client:
        client.wait_until_ready()
        result = client.segment(args.image, text=args.text, box_threshold=0.3, render=["overlay"])

    print(f"{len(result.instances)} found in {result.width} x {result.height} pixels")
    for instance in result.instances:
        x0, y0, x1, y1 = instance.box
        share = instance.mask.mean()  # the mask is a bool array, height x width
        print(f"{instance.label:<16} score {instance.score:.2f}  box {x0:.0f} {y0:.0f} {x1:.0f} {y1:.0f}  {share:.1%}")
    result.save_overlay(args.overlay)


if __name__ == "__main__":
    main()
