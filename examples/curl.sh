#!/usr/bin/env bash
# The HTTP API with curl alone.
#
#   segserve serve                                # in another terminal
#   bash examples/curl.sh room.png out [http://127.0.0.1:8080]
set -euo pipefail

image=${1:?a picture} out=${2:?a folder for the answers} url=${3:-http://127.0.0.1:8080}
mkdir -p "$out"

echo "models:"
curl -sS --fail-with-body "$url/v1/models"
echo

echo "the objects as JSON, masks as run lengths: $out/answer.json"
curl -sS --fail-with-body "$url/v1/segment" \
  -F "image=@$image" \
  -F 'request={"prompt": {"text": "floor. wall."}, "parameters": {"box_threshold": 0.3}}' \
  -o "$out/answer.json"

echo "the picture with the objects drawn on it: $out/overlay.png"
curl -sS --fail-with-body "$url/v1/segment?text=floor." \
  -H 'Content-Type: application/x-image' -H 'Accept: image/png' \
  --data-binary "@$image" -o "$out/overlay.png"

echo "what an error looks like:"
curl -sS "$url/v1/segment?text=floor.&box_threshold=2" -H 'Content-Type: application/x-image' --data-binary "@$image"
echo
