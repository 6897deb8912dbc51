"""`sightline audit`: check that every captured frame and reading has exactly one outcome."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import Progress

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, on_log
from deploy.cli.output import progress, stdout
from deploy.local.demo.table import balance_table, sensor_table
from ingest.ledger.auditor import audit as read_and_draw


@friendly
def audit(
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for frames in flight.")] = 30.0,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Print the ledger: the final state of every captured frame and reading.

    Exits with 1 if the ledger does not balance.
    """
    with Progress(console=progress, transient=True, disable=not progress.is_terminal) as bar:
        task = bar.add_task("reading the topics", total=None)

        def on_progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        balance = on_log(
            "sightline-audit", kafka, prefix, lambda log: read_and_draw(log, wait_s=wait, on_progress=on_progress)
        )
    values = balance.to_dict()
    if as_json:
        stdout.print_json(data=values)
    else:
        stdout.print(balance_table(values))
        for line in values["totals"]["examples"]:
            stdout.print(f"  {line}")
        sensors = values["sensors"]
        if sensors and (sensors["cameras"] or sensors["left_out"]):
            stdout.print(sensor_table(sensors))
            for line in sensors["totals"]["examples"]:
                stdout.print(f"  {line}")
    raise typer.Exit(0 if balance.balanced else 1)
