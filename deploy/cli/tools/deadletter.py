"""`sightline deadletter`: records that could not be processed, and their replay."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, on_log
from deploy.cli.output import print_rows, stdout
from ingest.deadletter import DeadLetter, letter_at, letters, replay
from ingest.exceptions import ConfigError
from ingest.kafka.log import Log

app = typer.Typer(help="List, show and replay dead letters.", no_args_is_help=True)

Error = Annotated[str, typer.Option(help="Only dead letters with this error, e.g. unknownversion.")]
Camera = Annotated[str, typer.Option(help="Only dead letters of this camera.")]


@app.command("list")
@friendly
def list_letters(
    error: Error = "", camera: Camera = "", as_json: AsJson = False, kafka: Kafka = "", prefix: Prefix = ""
) -> None:
    """List dead letters, oldest first."""
    found = on_log("sightline-deadletter", kafka, prefix, lambda log: _rows(log, _wanted(error, camera)))
    shown = ("offset", "when", "stage", "error", "frames", "message")
    print_rows(found, as_json, dict(zip(shown, shown, strict=True)))


@app.command()
@friendly
def show(
    offset: Annotated[int, typer.Argument(min=0, help="Offset of the dead letter, as in `deadletter list`.")],
    out: Annotated[Path | None, typer.Option(help="Write the original bytes to this file.")] = None,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Show one dead letter with its headers."""
    found = on_log("sightline-deadletter", kafka, prefix, lambda log: letter_at(log, offset))
    if found is None:
        raise ConfigError("deadletter", "offset", offset, "an offset that `sightline deadletter list` shows")
    headers = {name: value.decode(errors="replace") for name, value in found.record.headers.items()}
    stdout.print_json(data={**_row(found), "bytes": len(found.record.value), "headers": headers})
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
        report = on_log("sightline-deadletter", kafka, prefix, lambda log: replay(log, name, _wanted(error, camera)))
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


async def _rows(log: Log, wanted: Callable[[DeadLetter], bool]) -> list[dict[str, Any]]:
    """Return the table rows of the wanted dead letters.

    Read one letter at a time, because a letter may have 16 MiB.
    """
    return [_row(letter) async for letter in letters(log) if wanted(letter)]
