"""`sightline explain`: the life of one frame or alert, and why rules fired or did not fire."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, on_log
from deploy.cli.output import printable, stdout
from ingest.contract.identity import FrameId
from ingest.exceptions import ConfigError
from ingest.kafka.log import Log
from ingest.site.topic import store
from stream.analyse.stage import runnable
from stream.explain.explanation import Explanation
from stream.explain.explanation import explain as explained
from stream.explain.lines import lines

_ID = re.compile(r"(msg_)?[0-9a-f]{32}")


@friendly
def explain(
    name: Annotated[
        str, typer.Argument(metavar="CAMERA/EPOCH/SEQ|ID", help="A frame, or the id of an event or alert.")
    ],
    picture: Annotated[
        Path | None, typer.Option(help="Write the frame with motion, detections and rules to this JPEG file.")
    ] = None,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Print the life of one frame or alert, and why each rule fired or did not fire.

    The presently configured rules run over the stored results of the camera up to the frame.
    """
    _require_name(name)

    async def work(log: Log) -> Explanation:
        return await explained(log, name, await store.read(log, validate=runnable))

    found = on_log("sightline-explain", kafka, prefix, work)
    if picture:
        from stream.explain.picture import drawn  # imports OpenCV, which takes 35 MB

        picture.write_bytes(drawn(found))
    if as_json:
        stdout.print_json(data=found.to_dict())
        return
    for line in lines(found.to_dict()):
        sys.stdout.write(printable(line) + "\n")


def _require_name(name: str) -> None:
    try:
        if not _ID.fullmatch(name):
            FrameId.parse(name)
    except ValueError:
        expected = "CAMERA/EPOCH/SEQ, the id of an event (32 hexadecimal digits), or the id of an alert (msg_…)"
        raise ConfigError("explain", "name", name, expected) from None
