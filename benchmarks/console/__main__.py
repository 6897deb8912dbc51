"""Measures the console beside the whole stack of ``sightline demo``, on a Kafka broker that only the benchmark uses.

``python -m benchmarks.console outages`` stops the broker for a minute, and later the S3 server of the evidence, while
alerts come. The run fails if a frame, an event or an alert is lost, if a picture or clip stays missing although its
frames are in the log, or if the pages of the console do not name the outage in time.

``latency`` measures the time from the capture of a frame to the arrival of its event and its alert at a browser.
``viewers`` measures the console with 50 viewers of live pictures, and the latency of the pipeline with and without
them, in turns.
"""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.console import latency as latency_run
from benchmarks.console import outages as outage_run
from benchmarks.console import viewers as viewer_run
from benchmarks.console.s3server import S3Server, is_installed
from benchmarks.report import KeepIt, conclude, log_progress
from deploy.local.kafka.broker import Broker
from ingest.runtime import eventloop

app = typer.Typer(help="Measure the console beside the whole stack.", no_args_is_help=True)

Work = Annotated[Path | None, typer.Option(help="Folder that keeps all logs and topics.")]


@app.callback()
def quiet_clients() -> None:
    """Measure the console beside the whole stack."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that is down is part of the plan


@app.command()
def outages(
    outage_s: Annotated[float, typer.Option(help="Length of each outage in s.", min=1.0)] = 60.0,
    calm_s: Annotated[float, typer.Option(help="Time before each outage and after the last, in s.", min=0.0)] = 30.0,
    kind: Annotated[
        outage_run.FaultKind, typer.Option(help="kill: the process is gone. pause: the process does not answer.")
    ] = "kill",
    work: Work = None,
    keep_it: KeepIt = False,
) -> None:
    """Stop the broker and then the evidence store during alerts, and look for losses and at the console's pages."""
    home = Path(os.environ.get("SIGHTLINE_HOME") or ".sightline").absolute()
    if not is_installed(home):
        raise typer.BadParameter("needs Java and the jars of s3proxy: run `make s3proxy`")
    options = outage_run.OutageDuringAlerts(outage_s, calm_s, kind)
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        with Broker(folder=folder / "kafka") as broker, S3Server(home, folder / "s3", durable=True) as server:
            report, faults = eventloop.run(outage_run.run(options, folder, broker, server, log_progress))
    conclude(f"alert-outages-{kind}", {**asdict(options), **report}, faults, keep_it=keep_it, quiet="injected")


@app.command()
def latency(
    seconds: Annotated[float, typer.Option(help="Length of the measurement in s.", min=5.0)] = 180.0,
    work: Work = None,
    keep_it: KeepIt = False,
) -> None:
    """Measure the time from the capture of a frame to its event on the page: p50, p95 and p99."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        with Broker(folder=folder / "kafka") as broker:
            report = eventloop.run(latency_run.run(seconds, folder, broker, log_progress))
    conclude("console-latency", {"seconds": seconds, **report}, [], keep_it=keep_it)


@app.command()
def viewers(
    viewers: Annotated[int, typer.Option(help="Number of viewers.", min=1)] = 50,
    turns: Annotated[int, typer.Option(help="Turns with viewers, and as many without.", min=1)] = 4,
    turn_s: Annotated[float, typer.Option(help="Length of a turn in s.", min=1.0)] = 20.0,
    work: Work = None,
    keep_it: KeepIt = False,
) -> None:
    """Measure the console with viewers of live pictures, and the latency of the pipeline with and without them."""
    options = viewer_run.ViewerOptions(viewers, turns, turn_s)
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        with Broker(folder=folder / "kafka") as broker:
            report = eventloop.run(viewer_run.run(options, folder, broker, log_progress))
    conclude("console-viewers", {**asdict(options), **report}, [], keep_it=keep_it)


if __name__ == "__main__":
    app()
