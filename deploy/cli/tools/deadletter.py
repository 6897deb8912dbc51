"""`sightline deadletter`: records that could not be processed, and their replay."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, kafka_settings, stdout
from ingest.deadletter import DeadLetter, ReplayReport, letters, replay
from ingest.exceptions import ConfigError
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.eventloop import run

app = typer.Typer(help="List, show and replay dead letters.", no_args_is_help=True)

Error = Annotated[str, typer.Option(help="Only dead letters with this error, e.g. unknownversion.")]
Camera = Annotated[str, typer.Option(help="Only dead letters of this camera.")]


@app.command("list")
@friendly
def list_letters(
    error: Error = "", camera: Camera = "", as_json: AsJson = False, kafka: Kafka = "", prefix: Prefix = ""
) -> None:
    """List dead letters, oldest first."""
    found = [_row(x) for x in run(_letters(kafka_settings(kafka, prefix))) if _wanted(error, camera)(x)]
    if as_json:
        stdout.print_json(json.dumps(found))
        return
    table = Table("offset", "when", "stage", "error", "frames", "message")
    for row in found:
        table.add_row(*(str(row[key]) for key in ("offset", "when", "stage", "error", "frames", "message")))
    stdout.print(table)


@app.command()
@friendly
def show(
    offset: Annotated[int, typer.Argument(min=0, help="Offset of the dead letter, as in `deadletter list`.")],
    out: Annotated[Path | None, typer.Option(help="Write the original bytes to this file.")] = None,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Show one dead letter with its headers."""
    settings = kafka_settings(kafka, prefix)
    found = next((x for x in run(_letters(settings)) if x.offset == offset), None)
    if found is None:
        raise ConfigError("deadletter", "offset", offset, "an offset that `sightline deadletter list` shows")
    headers = {name: value.decode(errors="replace") for name, value in found.record.headers.items()}
    stdout.print_json(json.dumps({**_row(found), "bytes": len(found.record.value), "headers": headers}))
    if out:
        out.write_bytes(found.record.value)


@app.command("replay")
@friendly
def replay_letters(
    error: Error = "",
    camera: Camera = "",
    run_name: Annotated[str, typer.Option("--run", help="Name of the replay and its lane. Default: the time.")] = "",
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Send dead letters to their original topics, unchanged.

    Skips dead letters that an earlier replay has completed.
    """
    name = run_name or time.strftime("%Y%m%d-%H%M%S")
    try:
        report = run(_replay(kafka_settings(kafka, prefix), name, _wanted(error, camera)))
    except ValueError as error_:
        raise typer.BadParameter(str(error_)) from None
    if as_json:
        sys.stdout.write(json.dumps(vars(report)) + "\n")
        return
    skipped = ", ".join(f"{count} {why}" for why, count in report.skipped.items()) or "none"
    stdout.print(f"run {report.run}: {report.sent} sent, skipped: {skipped}")


def _wanted(error: str, camera: str) -> Callable[[DeadLetter], bool]:
    return lambda x: (
        (not error or x.failure.error == error) and (not camera or any(frame.camera == camera for frame in x.frames))
    )


def _row(letter: DeadLetter) -> dict[str, Any]:
    failure = letter.failure
    return {
        "offset": letter.offset,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(letter.parked_ms / 1000)),
        "stage": failure.stage,
        "error": failure.error,
        "message": failure.message,
        "frames": ", ".join(map(str, letter.frames)),
        "pipeline": letter.pipeline,
        "lane": letter.lane,
        "from": f"{failure.topic}[{failure.partition}]@{failure.offset}",
    }


async def _letters(settings: KafkaSettings) -> list[DeadLetter]:
    async with KafkaLog(settings, "sightline-deadletter") as log:
        return [letter async for letter in letters(log)]


async def _replay(settings: KafkaSettings, name: str, wanted: Callable[[DeadLetter], bool]) -> ReplayReport:
    async with KafkaLog(settings, "sightline-deadletter") as log:
        return await replay(log, name, wanted)
