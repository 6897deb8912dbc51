#!/bin/bash
# Make the peers' environments below .sightline/peers, one for each peer, with the versions of requirements.lock, and
# fetch Kafka's performance tools.
set -euo pipefail
cd "$(dirname "$0")/../.."
same() { grep -iE "^($1)==" requirements.lock | sed 's/ .*//'; }
shared=$(same 'onnxruntime|opencv-python|numpy|msgpack|structlog|tomli-w|tzdata|uvloop|onnx')
for peer in 'faststream[confluent]==0.7.8' 'quixstreams==3.28.1' "$(same aiokafka)"; do
  folder=.sightline/peers/${peer%%[=[]*}
  test -d "$folder" || python3.11 -m venv "$folder"
  # quixstreams needs an older pydantic than requirements.lock has.
  "$folder/bin/python" -m pip install -q --disable-pip-version-check "$peer" $shared orjson pydantic
  # the tracker of the operator `line`
  test "$folder" = .sightline/peers/aiokafka || "$folder/bin/python" -m pip install -q trackers==2.6.1
done
version=$(sed -n 's/.*<kafka.version>\(.*\)<.*/\1/p' deploy/kafka/pom.xml)
test -d .sightline/peers/kafka-tools || mvn -q -B -f deploy/kafka/pom.xml dependency:copy \
  "-Dartifact=org.apache.kafka:kafka-tools:$version" "-DoutputDirectory=$PWD/.sightline/peers/kafka-tools"
