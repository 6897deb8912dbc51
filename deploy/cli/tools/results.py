"""`sightline results`: print the results of the engine nodes."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import Annotated

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, on_log
from ingest.contract.codec import decode, encode_json
from ingest.contract.records import Detection, Result
from ingest.contract.topics import RESULTS
from ingest.exceptions import CodecError
from ingest.kafka.follow import POLL_S, Follower
from ingest.kafka.log import Log

app = typer.Typer(help="Print results.", no_args_is_help=True)


@app.command()
@friendly
def tail(
    camera: Annotated[str, typer.Option(help="Only results of this camera.")] = "",
    count: Annotated[int, typer.Option(min=0, help="Number of results to print. 0: until Ctrl-C.")] = 0,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Start with the oldest result instead of the next one.")
    ] = False,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Print results as they arrive, one per line."""
    on_log("sightline-tail", kafka, prefix, lambda log: _tail(log, camera, count, from_start, as_json))


async def _tail(log: Log, camera: str, count: int, from_start: bool, as_json: bool) -> None:
    follower, shown = Follower(log, RESULTS, from_start=from_start), 0
    while True:
        async with aclosing(follower.new()) as records:
            async for record in records:
                try:
                    result = decode(Result, record.value)
                except CodecError as error:
                    sys.stderr.write(f"results[{record.partition}]@{record.offset} cannot be read: {error}\n")
                    continue
                if camera and result.camera != camera:
                    continue
                sys.stdout.write((encode_json(result).decode() if as_json else _line(result)) + "\n")
                sys.stdout.flush()
                shown += 1
                if shown == count:
                    return
        await asyncio.sleep(POLL_S)


def _line(result: Result) -> str:
    found = ", ".join(map(detection_text, result.detections)) or result.reason or "nothing"
    latency_ms = (result.finished_ns - result.captured_ns) / 1e6
    return f"{result.id} {result.lane} {result.pipeline} {result.outcome}: {found} ({latency_ms:.0f} ms)"


def detection_text(one: Detection) -> str:
    """Format a detection with its attributes, such as ``car 0.91 (type: van 0.80, plate: small)``.

    An attribute without a label shows the reason why its label is missing.
    """
    given = [f"{each.name}: {each.missing or f'{each.label} {each.score:.2f}'}" for each in one.attributes]
    return f"{one.label} {one.score:.2f}" + (f" ({', '.join(given)})" if given else "")
