"""`sightline results`: the results of the engines."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, kafka_settings
from ingest.contract.codec import decode, encode_json
from ingest.contract.records import Result
from ingest.contract.topics import RESULTS
from ingest.exceptions import CodecError
from ingest.kafka import settings as clients
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import start
from ingest.runtime.eventloop import run

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
    run(_tail(kafka_settings(kafka, prefix), camera, count, from_start, as_json))


async def _tail(settings: KafkaSettings, camera: str, count: int, from_start: bool, as_json: bool) -> None:
    offset_reset = "earliest" if from_start else "latest"
    consumer = clients.consumer(settings, "sightline-tail", auto_offset_reset=offset_reset)
    consumer.subscribe([settings.topic(RESULTS)])
    await start(consumer, settings)
    shown = 0
    try:
        async for record in consumer:
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
    finally:
        await consumer.stop()


def _line(result: Result) -> str:
    found = ", ".join(f"{d.label} {d.score:.2f}" for d in result.detections) or result.reason or "nothing"
    latency_ms = (result.finished_ns - result.captured_ns) / 1e6
    return f"{result.id} {result.lane} {result.pipeline} {result.outcome}: {found} ({latency_ms:.0f} ms)"
