"""`sightline kafka`: a broker on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.common import AsJson, friendly
from deploy.local.exceptions import BrokerFailed
from deploy.local.kafka.broker import Broker
from deploy.local.kafka.config import LONG_RUNNING
from deploy.local.kafka.fetch import kafka_version, libs_folder

app = typer.Typer(
    help="Run one Apache Kafka node on loopback. Its files are in $SIGHTLINE_HOME, by default .sightline here.",
    no_args_is_help=True,
)

Folder = Annotated[
    Path | None, typer.Option("--folder", help="Folder of the node. Default: kafka/node in the home folder.")
]


@app.command()
@friendly
def fetch() -> None:
    """Download Kafka's jars from Maven Central, and create the class archive with which the broker starts faster.

    Do nothing if SIGHTLINE_KAFKA names a cluster.
    """
    named = os.environ.get("SIGHTLINE_KAFKA")
    if named:
        typer.echo(f"SIGHTLINE_KAFKA names {named}: no local broker is needed")
        return
    broker = Broker()
    libs = broker.fetch()
    try:
        broker.archive_classes()
    except BrokerFailed as error:
        typer.echo(f"without an archive of Kafka's classes, a broker starts more slowly: {error}", err=True)
    typer.echo(f"Apache Kafka {kafka_version()} is in {libs}")


@app.command()
@friendly
def start(folder: Folder = None) -> None:
    """Start the broker and wait until it answers. The broker keeps running after the command."""
    broker = Broker(folder=folder)
    address = broker.start(detach=True, jvm_options=LONG_RUNNING)
    typer.echo(f"Kafka {'was already running' if broker.attached else 'is running'} on {address}")


@app.command()
@friendly
def stop(folder: Folder = None) -> None:
    """Stop the broker. Keep its data."""
    broker = Broker(folder=folder)
    if broker.pid is None:
        typer.echo("Kafka was not running")
        return
    by_itself = broker.stop()
    typer.echo("Kafka has stopped" if by_itself else "Kafka did not stop in time and was killed")


@app.command()
@friendly
def status(folder: Folder = None, as_json: AsJson = False) -> None:
    """Print whether the broker runs, and its address.

    Exits with 1 if the broker does not answer.
    """
    found = _status(Broker(folder=folder))
    typer.echo(json.dumps(found) if as_json else "\n".join(f"{key:10} {value}" for key, value in found.items()))
    if not found["answers"]:
        raise typer.Exit(1)


@app.command()
@friendly
def address(folder: Folder = None) -> None:
    """Print only the address of the running broker, as a value for $SIGHTLINE_KAFKA.

    Exits with 1 if no broker runs.
    """
    found = _status(Broker(folder=folder))["bootstrap"]
    if found is None:
        typer.echo("sightline: no broker is running: start one with `sightline kafka start`", err=True)
        raise typer.Exit(1)
    typer.echo(found)


@app.command()
@friendly
def clean(folder: Folder = None) -> None:
    """Stop the broker and remove its data. Keep the jars."""
    broker = Broker(folder=folder)
    broker.clean()
    typer.echo(f"{broker.folder} removed")


def _status(broker: Broker) -> dict[str, str | int | bool | None]:
    pid = broker.pid
    return {
        "version": kafka_version(),
        "fetched": libs_folder(broker.home).is_dir(),
        "pid": pid,
        "answers": broker.answers,
        "bootstrap": broker.bootstrap if pid is not None else None,
        "folder": str(broker.folder),
        "disk_bytes": sum(path.stat().st_size for path in broker.folder.rglob("*") if path.is_file()),
    }
