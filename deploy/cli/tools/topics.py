"""`sightline topics`: administration of a deployment's topics."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, kafka_settings, stdout
from ingest.contract.topics import TOPICS
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.eventloop import run

app = typer.Typer(help="Create, verify, grow and list the topics.", no_args_is_help=True)

Partitions = Annotated[int, typer.Option(min=1, help="Partitions of the data path, at least one per engine node.")]


@app.command()
@friendly
def create(
    partitions: Partitions = 4,
    replication: Annotated[int, typer.Option(min=1, help="Replicas of each partition.")] = 1,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Create missing topics, then verify all."""
    created = run(topicadmin.create(kafka_settings(kafka, prefix), partitions, replication))
    stdout.print(f"created {', '.join(created)}" if created else "all topics existed already and match the contract")


@app.command()
@friendly
def verify(kafka: Kafka = "", prefix: Prefix = "") -> None:
    """Compare the topics with the contract.

    Exits with 2 and names each difference if they differ.
    """
    run(topicadmin.verify(kafka_settings(kafka, prefix)))
    stdout.print("all topics match the contract")


@app.command()
@friendly
def grow(
    partitions: Annotated[int, typer.Argument(min=2, help="New number of partitions of the data path.")],
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Add partitions to the data path. First pin every known camera to its present partition."""
    try:
        pins = run(topicadmin.grow(kafka_settings(kafka, prefix), partitions))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    stdout.print(f"{partitions} partitions; pinned: {pins or 'no cameras'}")


@app.command("list")
@friendly
def list_topics(as_json: AsJson = False, kafka: Kafka = "", prefix: Prefix = "") -> None:
    """List the topics with their partitions, records and retention."""
    rows = run(_rows(kafka_settings(kafka, prefix)))
    if as_json:
        stdout.print_json(json.dumps(rows))
        return
    table = Table("topic", "partitions", "records", "retention h")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    stdout.print(table)


async def _rows(settings: KafkaSettings) -> list[dict[str, object]]:
    async with KafkaLog(settings, "sightline-topics") as log:
        found = await log.partitions()
        return [
            {
                "topic": name,
                "partitions": found[name],
                "records": sum((await log.ends(name)).values()) - sum((await log.beginnings(name)).values()),
                "retention_h": None if topic.compacted else topic.retention_ms // 3_600_000,
            }
            for name, topic in TOPICS.items()
            if name in found
        ]
