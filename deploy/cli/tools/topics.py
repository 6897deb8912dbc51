"""`sightline topics`: administration of a deployment's topics."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from deploy.cli.common import AsJson, Kafka, Prefix, SignKey, friendly, kafka_settings, on_log, signer
from deploy.cli.output import print_rows, stdout
from ingest.contract.topics import TOPICS
from ingest.kafka import topicadmin
from ingest.kafka.log import Log
from ingest.runtime.eventloop import run

app = typer.Typer(help="Create, verify, grow and list the topics.", no_args_is_help=True)


@app.command()
@friendly
def create(
    partitions: Annotated[
        int, typer.Option(min=1, help="Partitions of the data path, at least one per engine node.")
    ] = 4,
    replication: Annotated[int, typer.Option(min=1, help="Replicas of each partition.")] = 1,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Create missing topics, then verify the settings of all topics."""
    created = run(topicadmin.create(kafka_settings(kafka, prefix), partitions, replication))
    stdout.print(f"created {', '.join(created)}" if created else "all topics existed already and match the contract")


@app.command()
@friendly
def verify(
    fix: Annotated[bool, typer.Option(help="Correct settings. A shorter retention deletes older records.")] = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Compare all topics with the contract: partitions, retention, compression, timestamps, minimum in-sync replicas.

    Exits with 2 and names each difference if any setting differs.
    """
    for difference in run(topicadmin.verify(kafka_settings(kafka, prefix), fix=fix)):
        stdout.print(f"corrected: {escape(difference.rpartition(': ')[0])}")
    stdout.print("all topics match the contract")


@app.command()
@friendly
def grow(
    partitions: Annotated[int, typer.Argument(min=2, help="New number of partitions of the data path.")],
    sign_key: SignKey = None,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Add partitions to the topics of the data path, after pinning every known camera to its current partition."""
    try:
        pins = run(topicadmin.grow(kafka_settings(kafka, prefix), partitions, signer(sign_key)))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    stdout.print(f"{partitions} partitions; pinned: {pins or 'no cameras'}")


@app.command("list")
@friendly
def list_topics(as_json: AsJson = False, kafka: Kafka = "", prefix: Prefix = "") -> None:
    """List the topics with their partitions, records and retention."""
    columns = {"topic": "topic", "partitions": "partitions", "records": "records", "retention_h": "retention h"}
    print_rows(on_log("sightline-topics", kafka, prefix, _rows), as_json, columns)


async def _rows(log: Log) -> list[dict[str, object]]:
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
