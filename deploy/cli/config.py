"""`sightline config`: the site, as all services see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.common import Kafka, Prefix, friendly, kafka_settings, run, stdout
from ingest import site
from ingest.configstore import Config, publish, read
from ingest.kafka import KafkaSettings
from ingest.kafkalog import KafkaLog
from ingest.site import PinConfig, Site

__all__ = ["app"]

app = typer.Typer(help="Check, apply and show a site's configuration.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="The site's TOML file.")]


@app.command()
@friendly
def check(file: File) -> None:
    """Check a site file; say where it is wrong and what was expected."""
    found = site.load(file)
    stdout.print(f"{file} is a good site file with {len(found.entries())} entries")


@app.command()
@friendly
def apply(file: File, kafka: Kafka = "", prefix: Prefix = "") -> None:
    """Make the config topic say what a site file says. What the file no longer has is taken out."""
    written, removed = run(_apply(kafka_settings(kafka, prefix), site.load(file)))
    stdout.print(f"{written} entries written, {removed} removed")


@app.command()
@friendly
def show(kafka: Kafka = "", prefix: Prefix = "") -> None:
    """Print the configuration that the services see, as JSON."""
    config = run(_read(kafka_settings(kafka, prefix)))
    stdout.print_json(json.dumps({k: e.model_dump(mode="json") for k, e in sorted(config.entries.items())}))


async def _apply(settings: KafkaSettings, wanted: Site) -> tuple[int, int]:
    log = KafkaLog(settings, "sightline-config")
    try:
        present = (await read(log)).entries
        keys = {entry.key for entry in wanted.entries()}
        changed = [entry for entry in wanted.entries() if present.get(entry.key) != entry]
        gone = [k for k, e in present.items() if k not in keys and not isinstance(e, PinConfig)]
        await publish(log, changed, gone)
        return len(changed), len(gone)
    finally:
        await log.close()


async def _read(settings: KafkaSettings) -> Config:
    log = KafkaLog(settings, "sightline-config")
    try:
        return await read(log)
    finally:
        await log.close()
