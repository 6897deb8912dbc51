"""`sightline demo`: run the whole stack on this machine, and check that the ledger balances."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from deploy.cli.common import friendly
from ingest.exceptions import ConfigError


@friendly
def demo(
    seconds: Annotated[float, typer.Option(min=0.0, help="Length of the run. 0: until Ctrl-C.")] = 60.0,
    video: Annotated[list[Path] | None, typer.Option(help="Video file to loop as a camera. May be repeated.")] = None,
    line: Annotated[
        str, typer.Option(help="Line that the videos' objects cross: x1,y1,x2,y2 as shares of width and height.")
    ] = "",
    site: Annotated[Path | None, typer.Option(help="Your own site file instead of the demo's cameras.")] = None,
    models: Annotated[Path | None, typer.Option(help="Model repository of --site. Default: shipped models.")] = None,
    model: Annotated[Path | None, typer.Option(help="ONNX model to use instead of the built-in one.")] = None,
    decoder: Annotated[str, typer.Option(help="Decoder of the model's outputs: softmax, sigmoid, yolox, …")] = "",
    labels: Annotated[Path | None, typer.Option(help="Text file with the model's class names, one per line.")] = None,
    fused: Annotated[bool, typer.Option("--fused", help="The engine node prepares the frames itself.")] = False,
    with_console: Annotated[bool, typer.Option("--console/--no-console", help="Run the console as well.")] = True,
    report: Annotated[Path | None, typer.Option(help="File for the report, as JSON.")] = None,
    home: Annotated[Path, typer.Option(help="Folder for the demo's files.")] = Path(".sightline/demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of tables.")] = False,
) -> None:
    """Run cameras, agent, stream processors, engine node, alerts and a receiver, then audit the ledger.

    Exits with 0 if every captured frame ended in exactly one state, and with 1 otherwise.
    """
    from deploy.cli.models.options import read_labels
    from deploy.local.demo.run import SHIPPED_MODELS, DemoOptions, run_demo
    from deploy.local.demo.table import balance_table, live_table, summary

    if report and not report.absolute().parent.is_dir():
        raise ConfigError("demo", "--report", str(report), "a file in a folder that exists")
    console = Console(stderr=as_json, log_path=False)
    options = DemoOptions(
        seconds,
        home.absolute(),
        tuple(video or ()),
        model,
        decoder,
        read_labels(labels),
        line,
        site,
        models.absolute() if models else SHIPPED_MODELS,
        fused,
        console=with_console,
    )
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        outcome = asyncio.run(
            run_demo(
                options,
                on_step=lambda step: console.log(step),
                on_tick=lambda figures, left, restarts: live.update(live_table(figures, time.time(), left, restarts)),
            )
        )
    if report:
        report.write_text(json.dumps(outcome.report, indent=2) + "\n")
    if as_json:
        sys.stdout.write(json.dumps(outcome.report, indent=2) + "\n")
    else:
        console.print(balance_table(outcome.balance))
        console.print(summary(outcome.report))
        for label, place in (("pictures", "evidence"), ("received", "received.jsonl"), ("logs", "logs")):
            console.print(f"{label:<10}{options.home / place}", soft_wrap=True)
    raise typer.Exit(0 if outcome.balance["balanced"] else 1)
