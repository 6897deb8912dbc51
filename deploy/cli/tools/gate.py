"""`sightline gate`: the miss rate of the cameras' gates."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import typer
from rich.table import Table

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, on_log
from deploy.cli.output import stdout
from ingest.contract.codec import decode
from ingest.contract.records import Result
from ingest.contract.topics import RESULTS
from ingest.exceptions import CodecError
from ingest.kafka.log import Log
from ingest.ledger.missrate import MissCounter, MissRate
from ingest.site.topic import store as configstore
from stream.labels.reader import hides

app = typer.Typer(help="Measure how much the cameras' gates miss.", no_args_is_help=True)


@app.command()
@friendly
def report(
    newest: Annotated[int, typer.Option(min=0, help="Newest results to read per partition. 0: all.")] = 200_000,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Print the share of withheld frames that show a new object, measured on the gate's random sample."""
    rates = on_log("sightline-gate", kafka, prefix, lambda log: measured(log, newest))
    if as_json:
        found = [{"camera": camera, "pipeline": pipe, **rate.to_dict()} for (camera, pipe), rate in rates.items()]
        stdout.print_json(data=found)
        return
    stdout.print(_table(rates))
    if not any(rate.sampled for rate in rates.values()):
        stdout.print("No sampled frame has a result yet: a pipeline with regions = 'full' is needed, and time.")


async def measured(log: Log, newest: int = 0) -> dict[tuple[str, str], MissRate]:
    """Return the miss rate by camera and pipeline.

    Read the ``newest`` results of each partition, or all results if ``newest`` is 0.
    """
    misses = MissCounter(hides(await configstore.read(log)))
    beginnings = await log.beginnings(RESULTS)
    for partition, end in (await log.ends(RESULTS)).items():
        start = max(beginnings[partition], end - newest) if newest else beginnings[partition]
        async with aclosing(log.read(RESULTS, partition, start, end)) as records:
            async for record in records:
                try:
                    misses.add(decode(Result, record.value))
                except CodecError:
                    continue  # `sightline audit` counts unreadable results
    return dict(sorted(misses.rates.items()))


def _table(rates: dict[tuple[str, str], MissRate]) -> Table:
    table = Table(title="Frames that the gates missed", title_justify="left")
    for heading in ("camera", "pipeline", "quiet", "sampled", "missed", "miss rate", "95 %"):
        table.add_column(heading, justify="left" if heading in ("camera", "pipeline") else "right")
    for (camera, pipeline), rate in rates.items():
        low, high = rate.bounds
        shown = "–" if rate.rate is None else f"{rate.rate:.2%}"
        between = "–" if rate.rate is None else f"{low:.2%} … {high:.2%}"
        table.add_row(camera, pipeline, str(rate.quiet), str(rate.sampled), str(rate.missed), shown, between)
    return table
