#!/bin/bash
# Make the peers' environments below .sightline/peers, one for each peer, with the versions of requirements.lock.
set -euo pipefail
cd "$(dirname "$0")/../../.."
same() { grep -iE "^($1)==" requirements.lock | sed 's/ .*//'; }
for peer in 'litserve==0.2.19' 'ray[serve]==2.60.0'; do
  name=${peer%%[=[]*}
  folder=.sightline/peers/$name
  test -d "$folder" || python3.11 -m venv "$folder"
  "$folder/bin/python" -m pip install -q --disable-pip-version-check "$peer" aiohttp httptools python-multipart uvloop \
    $(same 'onnxruntime|opencv-python|numpy|msgpack|pydantic|structlog|tomli-w|tzdata|onnx')
done
