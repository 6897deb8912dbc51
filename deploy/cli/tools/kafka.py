"""`sightline kafka`: the broker on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from deploy.local.exceptions import DeployError
from deploy.local.kafka.broker import Broker
from deploy.local.kafka.fetch import kafka_version, libs_folder

T = TypeVar("T")

app = typer.Typer(
    help="Apache Kafka on this machine, one node on loopback. Kept under $SIGHTLINE_HOME, or .sightline here.",
    no_args_is_help=True,
)

Folder = Annotated[
    Path | None, typer.Option("--folder", help="The node's folder, instead of kafka/node under the home folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def fetch() -> None:
    """Fetch Kafka's jars from Maven Central, once. Nothing to do when SIGHTLINE_KAFKA names a cluster."""
    named = os.environ.get("SIGHTLINE_KAFKA")
    if named:
        typer.echo(f"SIGHTLINE_KAFKA names {named}: no broker is needed here")
        return
    libs = _try(Broker().fetch)
    typer.echo(f"Apache Kafka {kafka_version()} is in {libs}")


@app.command()
def start(folder: Folder = None) -> None:
    """Start the broker, wait until it answers, and leave it running."""
    broker = Broker(folder=folder)
    address = _try(lambda: broker.start(detach=True))
    typer.echo(f"Kafka {'was already running' if broker.attached else 'is running'} on {address}")


@app.command()
def stop(folder: Folder = None) -> None:
    """Stop the broker. Its data stays."""
    broker = Broker(folder=folder)
    if broker.pid is None:
        typer.echo("Kafka was not running")
        return
    by_itself = broker.stop()
    typer.echo("Kafka has stopped" if by_itself else "Kafka did not stop in time and was killed")


@app.command()
def status(folder: Folder = None, as_json: AsJson = False) -> None:
    """Say whether the broker runs and where. Exit with 1 if it does not answer."""
    found = _status(Broker(folder=folder))
    typer.echo(json.dumps(found) if as_json else "\n".join(f"{key:10} {value}" for key, value in found.items()))
    if not found["answers"]:
        raise typer.Exit(1)


@app.command()
def address(folder: Folder = None) -> None:
    """Print the running broker's address alone, for $SIGHTLINE_KAFKA. Exit with 1 if there is none."""
    found = _status(Broker(folder=folder))["bootstrap"]
    if found is None:
        typer.echo("sightline: no broker runs here; `sightline kafka start` starts one", err=True)
        raise typer.Exit(1)
    typer.echo(found)


@app.command()
def clean(folder: Folder = None) -> None:
    """Stop the broker and remove its data. The jars stay."""
    broker = Broker(folder=folder)
    broker.clean()
    typer.echo(f"{broker.folder} is removed")


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


def _try(work: Callable[[], T]) -> T:
    """Do it, or say what is wrong in one piece and end with 1."""
    try:
        return work()
    except DeployError as error:
        typer.echo(f"sightline: {error}", err=True)
        raise typer.Exit(1) from None
